"""PyTorch's modes and contexts, and what PyTorch wraps: grad mode, inference mode, autocast, training mode, compiled
modules, DTensors, warnings.
"""

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils._pytree import tree_leaves

from wgan_fast._checks import ArgumentTypeError, accumulate_dtype


def grad_mode(enabled: bool) -> AbstractContextManager[Any]:
    """Sets the grad mode and leaves inference mode; a no-op where gradients are already enabled and shall be."""
    if torch.is_inference_mode_enabled():
        stack = ExitStack()
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.set_grad_enabled(enabled))
        return stack
    return nullcontext() if enabled and torch.is_grad_enabled() else torch.set_grad_enabled(enabled)


def ordinary(tensor: Tensor) -> Tensor:
    """A copy of an inference tensor, which autograd cannot save; other tensors unchanged."""
    with torch.inference_mode(False):
        return tensor.clone() if tensor.is_inference() else tensor


def without_autocast(device_type: str) -> AbstractContextManager[Any]:
    """Disables autocast; a no-op where it is not enabled."""
    if torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()


def to_same_dtype(name: str, value: Tensor, other_name: str, other: Tensor) -> Tensor:
    """The tensor in the other's dtype; an error where the dtypes differ outside autocast."""
    if value.dtype == other.dtype:
        return value
    if not torch.is_autocast_enabled(other.device.type):
        raise ArgumentTypeError(name, f"expected {other.dtype} as of {other_name}, got {value.dtype}")
    return value.to(other.dtype)


def training_mode(module: nn.Module) -> tuple[tuple[bool, float | None], ...]:
    """For each submodule, whether it is in training mode, and its dropout probability if it has one."""

    return tuple((part.training, dropout_probability(part)) for part in _parts(module))


def dropout_probability(module: nn.Module) -> float | None:
    """The module's own; None if it is no dropout."""
    p = module.__dict__.get("p")
    return p if isinstance(p, float | int) else None


#: Attributes that every Module has; none of them is a tensor.
_ATTRIBUTES_OF_MODULES = frozenset(vars(nn.Module()))


def held_with_history(module: nn.Module) -> Iterator[Tensor]:
    """Tensors with a graph that submodules hold as attributes or buffers: a weight or features, say."""
    for part in _parts(module):
        attributes = vars(part)
        for value in (*map(attributes.get, attributes.keys() - _ATTRIBUTES_OF_MODULES), *part._buffers.values()):
            if isinstance(value, Tensor) and value.grad_fn is not None:
                yield value


def _parts(module: nn.Module) -> list[nn.Module]:
    """As ``module.modules()``, in another order and several times as fast: a step asks at each call."""
    parts = {id(module): module}
    remaining = [module]
    while remaining:
        for child in remaining.pop()._modules.values():
            if child is not None and id(child) not in parts:
                parts[id(child)] = child
                remaining.append(child)
    return list(parts.values())


def tensors_in(tree: Any) -> Iterator[Tensor]:
    """The tensors among the leaves of a tree, as of ``tree_leaves``, which takes several times as long."""
    if isinstance(tree, Tensor):
        yield tree
    elif type(tree) in (tuple, list):
        for value in tree:
            yield from tensors_in(value)
    elif type(tree) is dict:
        for value in tree.values():
            yield from tensors_in(value)
    elif tree is not None:
        yield from (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))


def caches_parametrizations() -> bool:
    """Whether the caller is inside ``torch.nn.utils.parametrize.cached()``: all calls then share weights and graph."""
    return parametrize._cache_enabled > 0


@contextmanager
def uncached_parametrizations() -> Iterator[None]:
    """Suspends ``torch.nn.utils.parametrize.cached()``, which would keep weights that are computed without a graph."""
    enabled, parametrize._cache_enabled = parametrize._cache_enabled, 0
    try:
        yield
    finally:
        parametrize._cache_enabled = enabled


def float32_precision(device_type: str) -> tuple[str, ...]:
    """The precisions that PyTorch's settings allow in float32 products, convolutions and recurrent layers: "ieee",
    "tf32", "bf16"; "none" stands for "ieee". Reading the older settings, such as ``allow_tf32``, raises an error where
    the newer ones were used.
    """
    precision: Any = torch._C._get_fp32_precision_getter  # torch.backends calls it in a __getattr__, which is slow
    backend = "cuda" if device_type == "cuda" else "mkldnn"
    return precision(backend, "matmul"), precision(backend, "conv"), precision(backend, "rnn")


def numerical_settings(device_type: str) -> tuple[Any, ...]:
    """PyTorch's settings that choose between kernels of different numbers: precision, determinism, cuDNN's choice."""
    precision = (
        *float32_precision(device_type),
        torch._C._get_deterministic_algorithms(),
    )
    if device_type != "cuda":
        return precision
    return (
        *precision,
        torch._C._get_cudnn_enabled(),
        torch._C._get_cudnn_benchmark(),
        torch._C._get_cudnn_deterministic(),
        torch._C._get_cublas_allow_fp16_reduced_precision_reduction(),
        torch._C._get_cublas_allow_bf16_reduced_precision_reduction(),
    )


def is_compiled(network: Any) -> bool:
    """Whether ``torch.compile`` made this callable, or ``Module.compile`` changed it."""
    attributes = getattr(network, "__dict__", {})
    return (
        "_orig_mod" in attributes.get("_modules", ())  # torch.compile(module)
        or attributes.get("_compiled_call_impl") is not None  # module.compile()
        or "_torchdynamo_orig_callable" in attributes  # torch.compile(function)
    )


def local_shard(tensor: Tensor) -> Tensor:
    """The local shard of a DTensor; other tensors unchanged."""
    if type(tensor) in (nn.Parameter, Tensor):  # a failing hasattr() is slow on a tensor
        return tensor
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def draw_uniform(like: Tensor, shape: int | Sequence[int], generator: torch.Generator | None = None) -> Tensor:
    """Numbers from U(0, 1) on the device of ``like``, in the dtype that its values are accumulated in."""
    return torch.rand(shape, dtype=accumulate_dtype(like.dtype), device=like.device, generator=generator)


def warn_user(message: str, category: type[Warning]) -> None:
    """Warns at the first line of the call stack that lies outside this package and PyTorch."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(("wgan_fast.", "torch.")):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
