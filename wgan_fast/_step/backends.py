"""The backends of a step. A runner executes it: eagerly, as a captured CUDA graph, or compiled, in a graph or not."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_flatten, tree_unflatten

from wgan_fast import _library
from wgan_fast._checks import ArgumentTypeError, ArgumentValueError
from wgan_fast._step.capture import GraphPool
from wgan_fast._step.frozen import Frozen
from wgan_fast._step.graph import CaptureError, Differentiate, GraphError, GraphRunner, obstacle_to_graph
from wgan_fast._step.optimization import Optimization
from wgan_fast._torch import is_compiled, warn_user, without_autocast

Backend = Literal["auto", "eager", "graph", "compile"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)
KEPT = 8  # captured or compiled runners that are kept, one for each kind of inputs


def choose_backend(backend: str, optimization: Optimization, networks: tuple[Any, ...]) -> tuple[str, str]:
    """The backend to use, and the reason for the choice.

    Raises:
        ValueError: no backend has that name, or it cannot run this step; the message gives the reason.
    """
    if backend not in BACKENDS:
        raise ArgumentValueError("backend", f"expected one of {', '.join(BACKENDS)}, got {backend!r}")
    obstacle = obstacle_to_graph(optimization)
    if backend == "graph" and obstacle is not None:
        raise ArgumentValueError("backend", f"a CUDA graph cannot be captured: {obstacle}")
    if backend == "compile":
        _check_compilable(optimization, networks)
        if obstacle is not None and optimization.device.type == "cuda":
            return backend, f"it was asked for; without a CUDA graph: {obstacle}"
    if backend != "auto":
        return backend, "it was asked for"
    return ("eager", obstacle) if obstacle else ("graph", "the parameters are on a GPU")


def _check_compilable(optimization: Optimization, networks: tuple[Any, ...]) -> None:
    if optimization.generators:
        raise ArgumentValueError(
            "backend", "a penalty with a random generator of its own cannot be compiled; leave `generator` out"
        )
    if any(map(is_compiled, networks)):
        raise ArgumentValueError("backend", "a network is compiled already; pass the network that it was compiled from")


def make_runner(backend: str, differentiate: Differentiate, optimization: Optimization, frozen: Frozen) -> Any:
    """A runner: a callable from a step's inputs to its statistics."""
    if backend == "eager":
        return _DirectRunner(differentiate, optimization)
    if backend == "graph":
        return _GraphPerKind(differentiate, optimization, frozen)
    return _CompiledRunner(differentiate, optimization, frozen)


class _DirectRunner:
    """Launches gradients and update from Python."""

    def __init__(self, differentiate: Differentiate, optimization: Optimization) -> None:
        self._differentiate, self._optimization = differentiate, optimization

    def __call__(self, *inputs: Any) -> Tensor:
        return self._optimization.apply(*self._differentiate(*inputs))

    def close(self) -> None:
        pass


class _PerKind:
    """Keeps a captured or a compiled function for each kind of inputs: their shapes and dtypes, the values that are not
    tensors, and what else a capture or a trace freezes.
    """

    def __init__(self, differentiate: Differentiate, optimization: Optimization, frozen: Frozen) -> None:
        self._differentiate, self._optimization, self._frozen = differentiate, optimization, frozen
        self._kept: dict[Hashable, Any] = {}
        self._kinds = self._calls = 0

    def _make(self, differentiate: Differentiate) -> Any:
        raise NotImplementedError

    def _settings(self, tensors: Sequence[Tensor] = ()) -> Hashable:
        return self._frozen.settings()

    def __call__(self, *inputs: Any) -> Any:
        leaves, structure = _flattened(inputs)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        others = [
            None if isinstance(leaf, Tensor) else (type(leaf), leaf) for leaf in leaves
        ]  # 1, 1.0 and True are equal
        kinds = [(tensor.shape, tensor.stride(), tensor.dtype, tensor.device) for tensor in tensors]
        key = (structure, *others, *kinds, self._settings(tensors))
        try:
            step = self._kept.get(key)
        except TypeError as error:
            raise ArgumentTypeError(
                "args", f"a captured or compiled step takes tensors and hashable values: {error}"
            ) from None
        if step is None:
            self._kept[key] = step = self._new(leaves, structure)
        self._calls += 1
        step.last_call = self._calls
        return step(*tensors)

    def close(self) -> None:
        self._kept.clear()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": {}}  # a copied step captures anew

    def _new(self, leaves: list[Any], structure: Any) -> Any:
        self._kinds += 1
        if self._kinds == KEPT + 1:
            warn_user(
                f"a step was captured or compiled for more than {KEPT} kinds of inputs, which is slow: pass samples of "
                "one shape, the same function every time, and a changing learning rate as a tensor",
                RuntimeWarning,
            )
        if len(self._kept) == KEPT:
            del self._kept[min(self._kept, key=lambda key: self._kept[key].last_call)]

        def differentiate(*tensors: Tensor) -> tuple[Tensor, list[Tensor | None], int]:
            remaining = iter(tensors)
            filled = [next(remaining) if isinstance(leaf, Tensor) else leaf for leaf in leaves]
            return self._differentiate(*((*filled, (), {}) if structure is None else tree_unflatten(filled, structure)))

        return self._make(differentiate)


def _flattened(inputs: tuple[Any, ...]) -> tuple[list[Any], Any]:
    """The leaves of the inputs, and their structure. Without further arguments the first two inputs are the leaves, and
    the structure is None: the usual case, and a fast one.
    """
    *leaves, args, kwargs = inputs
    if not args and not kwargs and all(isinstance(leaf, Tensor) or leaf is None or callable(leaf) for leaf in leaves):
        return leaves, None
    return tree_flatten(inputs)


class _GraphPerKind(_PerKind):
    """``before_warm_up``: the calls for each kind whose kernels are not those to be captured."""

    def __init__(
        self, differentiate: Differentiate, optimization: Optimization, frozen: Frozen, before_warm_up: int = 0
    ) -> None:
        super().__init__(differentiate, optimization, frozen)
        self._pool, self._before_warm_up = GraphPool(optimization.device), before_warm_up

    def _make(self, differentiate: Differentiate) -> GraphRunner:
        return GraphRunner(differentiate, self._optimization, self._frozen, self._pool, self._before_warm_up)

    def _settings(self, tensors: Sequence[Tensor] = ()) -> Hashable:
        # Kernels get numbers of the host when they are launched.
        device = self._optimization.device.type
        on_host = [(*tensor.flatten().tolist(),) for tensor in tensors if tensor.device.type != device]
        return (self._frozen.settings(), *self._frozen.settings_of_optimizer(), *on_host)


class _CompiledRunner:
    """Compiled gradients and the update: in one CUDA graph where it can hold the update, else launched from Python."""

    def __init__(self, differentiate: Differentiate, optimization: Optimization, frozen: Frozen) -> None:
        self._compiled = _CompiledPerKind(differentiate, optimization, frozen)
        self._without_graph = _DirectRunner(self._compiled, optimization)
        self._in_graph: _GraphPerKind | None = None
        if obstacle_to_graph(optimization) is None:
            self._in_graph = _GraphPerKind(self._compiled, optimization, frozen, _Compiled.UNCOMPILED_CALLS)

    def __call__(self, *inputs: Any) -> Tensor:
        if self._in_graph is not None:
            try:
                return self._in_graph(*inputs)
            except GraphError as error:
                warn_user(f"{error}; it goes on compiled, without a graph", RuntimeWarning)
                self._in_graph = None
        return self._without_graph(*inputs)

    def close(self) -> None:
        self._compiled.close()
        if self._in_graph is not None:
            self._in_graph.close()


class _CompiledPerKind(_PerKind):
    def _make(self, differentiate: Differentiate) -> "_Compiled":
        return _Compiled(differentiate, self._optimization.device)


class _Compiled:
    """Compiles loss and gradients, traced as one graph of plain PyTorch operations. The first call is eager, the second
    traces, the third compiles.
    """

    UNCOMPILED_CALLS = 2

    def __init__(self, differentiate: Differentiate, device: torch.device) -> None:
        self._differentiate, self._device = differentiate, device
        self._warm = False
        self._compiled: Callable[..., list[Tensor]] | None = None

    def __call__(self, *tensors: Tensor) -> tuple[Tensor, list[Tensor | None], int]:
        if not self._warm:
            result = self._differentiate(*tensors)
            self._warm = True
            return result
        try:
            if self._compiled is None:
                with _library.traceable():
                    traced = make_fx(self._trace)(*tensors)
                self._compiled = torch.compile(traced, fullgraph=True, dynamic=False, options={"fallback_random": True})
                found = self._traced
                del self._traced
            else:
                # The trace contains the casts that autocast made.
                with torch.no_grad(), without_autocast(self._device.type):
                    found = self._compiled(*tensors)
        except Exception as error:
            if _library.is_recorded():  # what a capture does not allow is no fault of the compiler's
                raise
            raise CaptureError(f"the step cannot be compiled, take backend='eager': {error}") from error
        statistics, *present = found
        gradients = iter(present)
        return statistics, [next(gradients) if kept else None for kept in self._present], self._samples

    def _trace(self, *tensors: Tensor) -> list[Tensor]:
        statistics, gradients, self._samples = self._differentiate(*tensors)
        self._present = [gradient is not None for gradient in gradients]
        self._traced = [statistics, *(gradient for gradient in gradients if gradient is not None)]
        return self._traced
