"""Layers for a critic inside a penalty: twice differentiable, and without dead work in double backward."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from operator import index
from threading import Lock
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from wgan_fast._critic import curved
from wgan_fast._library import extension, is_traceable, register_fake

Layer = Callable[..., Any]
_C: Any = extension


class CriticLayers(TorchFunctionMode):
    """While active, replaces PyTorch's layers and activations by the library's. Outputs and gradients are the same, and
    in-place functions stay in place.

    - Linear layers and convolutions can free their input once no weight gradient can be requested.
    - Piecewise-linear activations save one bit for each element.
    - Smooth activations have fused first and second derivatives.
    - Attention and recurrent layers run in the implementation that PyTorch can differentiate twice.

    Calls that the library's layers do not support (subclasses of Tensor, layouts with gaps, transforms) go to PyTorch.

    Args:
        graph: a CriticGraph, which is told of what the critic adds to what comes from the points.
    """

    def __init__(self, graph: Any = None) -> None:
        super().__init__()
        self._graph = graph

    #: Whether a layer has normalised with batch statistics.
    batch_statistics = False

    def __torch_function__(
        self, func: Layer, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _BATCH_NORM:
            self.batch_statistics |= args[5] if len(args) > 5 else kwargs.get("training", True)
        layer = _LAYERS.get(func)
        # Subclasses of Tensor override functions themselves, and the compiler needs PyTorch's functions.
        if layer is not None and _PLAIN.issuperset(types) and not _is_for_the_compiler(func):
            try:
                with self if func in _COMPOSED else nullcontext():  # so that the graph is told of what they add
                    output = layer(*args, **kwargs)
            except TypeError:  # PyTorch's function accepts these arguments, or raises its own error
                output = None
            if output is not None and self._graph is not None and func in _BOUNDED:
                self._graph.note_plateau(output)
            return func(*args, **kwargs) if output is None else output
        if self._graph is not None and func in _ADDING:
            output = func(*args, **kwargs)
            with suppress(TypeError):  # other arguments than the graph understands: it then knows no term
                _ADDING[func](self._graph, output, *args, **kwargs)
            return output
        if func in _ATTENTION or func in _RECURRENT:
            _recompute_with_these_layers()
        if func in _ATTENTION:
            with _math_attention:
                return func(*args, **kwargs)
        if func in _RECURRENT:
            with _no_cudnn:
                return func(*args, **kwargs)
        return func(*args, **kwargs)


def _recompute_with_these_layers() -> None:
    """Inside torch.utils.checkpoint: a backward pass runs the checkpointed function again, after the mode has ended. It
    must save the same tensors as the forward did.
    """
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    if not hooks:
        return
    for cell in getattr(hooks[0], "__closure__", None) or ():
        checkpointed = cell.cell_contents
        recompute = getattr(checkpointed, "recompute_fn", None)
        if recompute is not None and not isinstance(recompute, _WithCriticLayers):
            checkpointed.recompute_fn = _WithCriticLayers(recompute)


class _WithCriticLayers:
    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function

    def __call__(self, *args: Any) -> Any:
        with CriticLayers():
            return self.function(*args)


def _is_for_the_compiler(func: Layer) -> bool:
    """Whether to call PyTorch's function: under Dynamo always; in a trace for activations, which the compiler fuses."""
    return torch.compiler.is_compiling() or (is_traceable() and func not in _LINEAR)


@register_fake("piecewise_linear")
def _(x: Tensor, negative_slope: float, lower: float, upper: float) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), _empty_mask(x)


@register_fake("piecewise_linear_")
def _(x: Tensor, negative_slope: float, lower: float, upper: float) -> Tensor:
    return _empty_mask(x)


@register_fake("apply_mask")
def _(x: Tensor, mask: Tensor, negative_slope: float, stride: list[int]) -> Tensor:
    torch._check_value(x.device == mask.device, lambda: f"mask is on {mask.device} and x on {x.device}")
    return x.new_empty_strided(x.shape, stride)


def _empty_mask(x: Tensor) -> Tensor:
    return x.new_empty((x.numel() + 7) // 8, dtype=torch.uint8)


# ruff: noqa: A002  the names are PyTorch's
# Each takes the arguments of PyTorch's function, as the functions of the extension do. It returns the result, or None:
# then PyTorch's function is called.


def _rrelu(
    input: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, inplace: bool = False
) -> Tensor | None:
    return None if training else _C.leaky_relu(input, (lower + upper) / 2, inplace)


def _hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor | None:
    """PyTorch's hardsigmoid has no second derivative."""
    sixfold = _C.relu6(input + 3, True)
    if sixfold is None:
        return None
    return input.copy_(sixfold / 6) if inplace else sixfold / 6


def _convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor | None:
    if isinstance(padding, str):
        padding = _symmetric(padding, weight.shape[2:], _numbers(dilation))
        if padding is None:
            return None
    return _C.convolution(
        input, weight, bias, _numbers(stride), _numbers(padding), _numbers(dilation), False, (0,), groups
    )


def _transposed_convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor | None:
    return _C.convolution(
        input,
        weight,
        bias,
        _numbers(stride),
        _numbers(padding),
        _numbers(dilation),
        True,
        _numbers(output_padding),
        groups,
    )


def _numbers(value: Any) -> tuple[int, ...]:
    try:
        return tuple(value)
    except TypeError:
        return (index(value),)


def _symmetric(padding: str, kernel: torch.Size, dilation: tuple[int, ...]) -> tuple[int, ...] | None:
    """``padding="same"`` or ``"valid"`` as numbers; None where "same" needs different padding on the two sides."""
    if padding == "valid":
        return (0,)
    total = [d * (k - 1) for k, d in zip(kernel, dilation * (len(kernel) // len(dilation)), strict=True)]
    return None if padding != "same" or any(n % 2 for n in total) else tuple(n // 2 for n in total)


# Each takes a CriticGraph, the output of PyTorch's function and its arguments, and notes the operands of the sum.


def _note_add(graph: Any, output: Tensor, input: Any, other: Any, *, alpha: Any = 1, out: None = None) -> None:
    graph.note_sum(output, [_tensor(input, output), _tensor(other, output)], [1, alpha])


def _note_add_in_place(graph: Any, output: Tensor, input: Tensor, other: Any, *, alpha: Any = 1) -> None:
    graph.note_sum(output, [None, _tensor(other, output)], [1, alpha])


def _note_subtract(graph: Any, output: Tensor, input: Any, other: Any, *, alpha: Any = 1, out: None = None) -> None:
    graph.note_sum(output, [_tensor(input, output), _tensor(other, output)], [1, -alpha])


def _note_subtract_in_place(graph: Any, output: Tensor, input: Tensor, other: Any, *, alpha: Any = 1) -> None:
    graph.note_sum(output, [None, _tensor(other, output)], [1, -alpha])


def _note_reversed_subtract(graph: Any, output: Tensor, input: Any, other: Any, *, alpha: Any = 1) -> None:
    graph.note_sum(output, [_tensor(input, output), _tensor(other, output)], [-alpha, 1])


def _note_product(
    graph: Any, output: Tensor, input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Any = 1, alpha: Any = 1
) -> None:
    graph.note_product(output, input, beta)


def _note_concatenation(graph: Any, output: Tensor, tensors: Any, dim: int = 0) -> None:
    graph.note_concatenation(output, list(tensors), dim)


def _note_padding(
    graph: Any, output: Tensor, input: Tensor, pad: Any, mode: str = "constant", value: Any = None
) -> None:
    if mode == "constant" and not value and len(pad) < 2 * input.dim():  # zeros, and not along the batch
        graph.note_sum(output, [], [])


def _tensor(value: Any, like: Tensor) -> Tensor:
    return value if isinstance(value, Tensor) else torch.tensor(value, dtype=like.dtype, device=like.device)


class _ForTheProcess:
    """A process-wide setting: entered by the first thread that needs it, left by the last."""

    def __init__(self, setting: Callable[[], AbstractContextManager[Any]]) -> None:
        self.setting, self.lock, self.users = setting, Lock(), 0

    def __enter__(self) -> None:
        with self.lock:
            if self.users == 0:
                self.active = self.setting()
                self.active.__enter__()
            self.users += 1

    def __exit__(self, *exception: object) -> None:
        with self.lock:
            self.users -= 1
            if self.users == 0:
                self.active.__exit__(None, None, None)


@contextmanager
def _cudnn_disabled() -> Iterator[None]:
    enabled = torch._C._get_cudnn_enabled()
    torch._C._set_cudnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_cudnn_enabled(enabled)


_no_cudnn = _ForTheProcess(_cudnn_disabled)
_math_attention = _ForTheProcess(lambda: sdpa_kernel(SDPBackend.MATH))
_PLAIN = {Tensor, torch.nn.Parameter}
_nn = torch._C._nn
_LAYERS: dict[Layer, Layer] = {}


def _replace(layer: Layer, *functions: Layer) -> None:
    _LAYERS.update(dict.fromkeys(functions, layer))


if _C is not None:
    _replace(_C.linear, F.linear)
    _replace(_convolution, torch.conv1d, torch.conv2d, torch.conv3d)
    _replace(_transposed_convolution, torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d)
    _replace(_C.relu, F.relu, torch.relu, Tensor.relu)
    _replace(_C.relu_, torch.relu_, Tensor.relu_)
    _replace(_C.leaky_relu, F.leaky_relu, _nn.leaky_relu)
    _replace(_C.leaky_relu_, _nn.leaky_relu_)
    _replace(_C.hardtanh, F.hardtanh, _nn.hardtanh)
    _replace(_C.hardtanh_, _nn.hardtanh_)
    _replace(_C.relu6, F.relu6, _nn.relu6)
    _replace(_C.relu6_, _nn.relu6_)
    _replace(_C.prelu, torch.prelu, Tensor.prelu)
    _replace(_rrelu, F.rrelu)
    _replace(_hardsigmoid, F.hardsigmoid, _nn.hardsigmoid)
    _LAYERS.update(curved.LAYERS)

#: Layers that consist of PyTorch's operators in eval mode.
_COMPOSED = {F.batch_norm, F.instance_norm}
#: Activations with bounds, where they are constant.
_BOUNDED = {F.hardtanh, _nn.hardtanh, _nn.hardtanh_, F.relu6, _nn.relu6, _nn.relu6_}
_ADDING: dict[Layer, Callable[..., None]] = {}
for _note, _functions in (
    (_note_add, (torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__)),
    (_note_add_in_place, (Tensor.add_, Tensor.__iadd__)),
    (_note_subtract, (torch.sub, torch.subtract, Tensor.sub, Tensor.__sub__)),
    (_note_subtract_in_place, (Tensor.sub_, Tensor.__isub__)),
    (_note_reversed_subtract, (torch.rsub, Tensor.__rsub__)),
    (_note_product, (torch.addmm, torch.baddbmm, Tensor.addmm, Tensor.baddbmm)),
    (_note_concatenation, (torch.cat, torch.concat, torch.concatenate)),
    (_note_padding, (F.pad, torch.constant_pad_nd)),
):
    _ADDING.update(dict.fromkeys(_functions, _note))

_LINEAR = {F.linear, torch.conv1d, torch.conv2d, torch.conv3d}
_LINEAR |= {torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d}
_ATTENTION = {F.scaled_dot_product_attention, F.multi_head_attention_forward}
_BATCH_NORM = {
    F.batch_norm,
    torch.batch_norm,
    torch.batch_norm_stats,
}  # the last is called by SyncBatchNorm in training
_RECURRENT = {torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu}
