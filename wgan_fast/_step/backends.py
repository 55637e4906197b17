"""The backends of a step. A runner executes it: eagerly, as a captured CUDA graph, or compiled."""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_flatten, tree_unflatten

from wgan_fast import _library
from wgan_fast._checks import ArgumentTypeError, ArgumentValueError
from wgan_fast._step.optimization import Optimization
from wgan_fast._torch import is_compiled, warn_user, without_autocast
from wgan_fast.optim import RMSprop

BACKENDS = ("auto", "eager", "graph", "compile")
#: From a step's inputs to its statistics, the gradients of the parameters, and the number of samples.
Differentiate = Callable[..., tuple[Tensor, list[Tensor | None], int]]
KEPT = 8  # captured or compiled runners that are kept, one for each kind of inputs


def choose_backend(backend: str, optimization: Optimization, networks: tuple[Any, ...]) -> tuple[str, str]:
    """The backend to use, and the reason for the choice.

    Raises:
        ValueError: no backend has that name, or it cannot run this step; the message gives the reason.
    """
    if backend not in BACKENDS:
        raise ArgumentValueError("backend", f"expected one of {', '.join(BACKENDS)}, got {backend!r}")
    obstacle = _obstacle_to_graph(optimization)
    if backend == "graph" and obstacle is not None:
        raise ArgumentValueError("backend", f"a CUDA graph cannot be captured: {obstacle}")
    if backend == "compile":
        _check_compilable(optimization, networks)
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


def _obstacle_to_graph(optimization: Optimization) -> str | None:
    if optimization.device.type != "cuda":
        return f"the parameters are on {optimization.device}"
    optimizer = optimization.optimizer
    if not isinstance(optimizer, RMSprop) and any(g.get("capturable") is False for g in optimizer.param_groups):
        return f"the optimizer {type(optimizer).__name__} was made without capturable=True"
    if not optimization.skips_on_device:
        return (
            f"the optimizer {type(optimizer).__name__} cannot skip an update on the device, as PyTorch's optimizers "
            "with fused=True can"
        )
    group = optimization.process_group
    if group is not None and "nccl" not in torch.distributed.get_backend_config(group):
        return "the process group is not one of NCCL"
    return None


def make_runner(
    backend: str, differentiate: Differentiate, optimization: Optimization, state: Callable[[], Hashable]
) -> Any:
    """A runner: a callable from a step's inputs to its statistics.

    ``state`` returns what a capture or a trace freezes beside the inputs; a new value makes a new capture or trace.
    """
    if backend == "eager":
        return _EagerRunner(differentiate, optimization)
    return _RunnerPerKind(_GraphRunner if backend == "graph" else _CompiledRunner, differentiate, optimization, state)


class _EagerRunner:
    def __init__(self, differentiate: Differentiate, optimization: Optimization) -> None:
        self._differentiate, self._optimization = differentiate, optimization

    def __call__(self, *inputs: Any) -> Tensor:
        return self._optimization.apply(*self._differentiate(*inputs))


class _RunnerPerKind:
    """Keeps a runner for each kind of inputs: their shapes and dtypes, the values that are not tensors, the state."""

    def __init__(
        self,
        make: type["_GraphRunner | _CompiledRunner"],
        differentiate: Differentiate,
        optimization: Optimization,
        state: Callable[[], Hashable],
    ) -> None:
        self._make, self._differentiate, self._optimization, self._state = make, differentiate, optimization, state
        self._kept: dict[Hashable, Any] = {}
        self._kinds = 0

    def __call__(self, *inputs: Any) -> Tensor:
        leaves, structure = tree_flatten(inputs)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        others = [
            None if isinstance(leaf, Tensor) else (type(leaf), leaf) for leaf in leaves
        ]  # 1, 1.0 and True are equal
        kinds = ((tensor.shape, tensor.stride(), tensor.dtype, tensor.device) for tensor in tensors)
        key = (structure, *others, *kinds, self._state())
        try:
            step = self._kept.pop(key, None)
        except TypeError as error:
            raise ArgumentTypeError(
                "args", f"a captured or compiled step takes tensors and hashable values: {error}"
            ) from None
        self._kept[key] = step = step or self._new(leaves, structure)
        return step(*tensors)

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
            del self._kept[next(iter(self._kept))]  # the least recently used

        def differentiate(*tensors: Tensor) -> tuple[Tensor, list[Tensor | None], int]:
            remaining = iter(tensors)
            return self._differentiate(
                *tree_unflatten([next(remaining) if isinstance(leaf, Tensor) else leaf for leaf in leaves], structure)
            )

        return self._make(differentiate, self._optimization)


class CaptureError(RuntimeError):
    """A step cannot be captured in a CUDA graph, or the compiler refuses it."""


class _GraphRunner:
    """Runs the first steps eagerly on a side stream, which warms up libraries and caches. Captures the next step, and
    replays it from then on. Each of these steps is an update of the training; none is run for the capture alone.
    """

    WARM_UP = 3  # as PyTorch's notes on CUDA graphs ask for

    def __init__(self, differentiate: Differentiate, optimization: Optimization) -> None:
        self._differentiate, self._optimization = differentiate, optimization
        self._stream = torch.cuda.Stream(optimization.device)
        self._warm = 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, *tensors: Tensor) -> Tensor:
        if self._warm < self.WARM_UP:
            current = torch.cuda.current_stream(self._optimization.device)
            self._stream.wait_stream(current)
            with torch.cuda.stream(self._stream):
                statistics = self._optimization.apply(*self._differentiate(*tensors))
            current.wait_stream(self._stream)
            self._warm += 1
            return statistics
        if self._graph is None:
            self._graph = self._capture(tensors)
        else:
            for held, tensor in zip(self._inputs, tensors, strict=True):
                held.copy_(tensor.detach())  # or `held` would collect the history of every input
        self._graph.replay()
        for parameter, gradient in self._gradients:  # the graph of other inputs may have set its own
            parameter.grad = gradient
        return self._statistics.clone()

    def _capture(self, tensors: tuple[Tensor, ...]) -> torch.cuda.CUDAGraph:
        self._inputs = [tensor.detach().clone() for tensor in tensors]
        pool = torch.cuda.graph_pool_handle()
        try:
            with self._capturing(pool) as graph:
                self._statistics = self._optimization.apply(*self._differentiate(*self._inputs))
            self._gradients = [(parameter, parameter.grad) for parameter in self._optimization.parameters(frozen=True)]
        except Exception as error:
            self._clear_up(pool)
            raise CaptureError(f"the step cannot be captured in a CUDA graph, take backend='eager': {error}") from error
        return graph

    @contextmanager
    def _capturing(self, pool: Any) -> Iterator[torch.cuda.CUDAGraph]:
        """Captures what is launched inside, on a new stream. torch.cuda.graph alone would leave its stream
        current where a capture fails.
        """
        graph = torch.cuda.CUDAGraph()
        for generator in self._optimization.generators:
            graph.register_generator_state(generator)
        stream = torch.cuda.Stream(self._optimization.device)
        with (
            torch.cuda.stream(stream),
            # Other threads may use CUDA meanwhile, such as a loader's that pins memory.
            torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"),
        ):
            yield graph

    def _clear_up(self, pool: Any) -> None:
        """Cleans up after a failed capture. PyTorch then ends neither allocation to the private pool nor the capture of
        generators, and a generator in that state fails in every other graph.
        """
        for parameter in self._optimization.parameters(frozen=True):
            parameter.grad = None  # the memory of the capture was never written
        device = self._optimization.device.index or 0
        try:
            torch._C._cuda_endAllocateToPool(device, pool)
        except RuntimeError:  # the exception was not CUDA's, so the capture has ended as a complete one does
            return
        torch._C._cuda_releasePool(device, pool)
        with self._capturing(torch.cuda.graph_pool_handle()):  # a complete capture ends that of the generators, too
            torch.zeros(1, device=self._optimization.device)


class _CompiledRunner:
    """Compiles loss and gradients, traced as one graph of plain PyTorch operations. The first step runs eagerly, the
    second while it is traced, the others compiled. Each is an update of the training.
    """

    def __init__(self, differentiate: Differentiate, optimization: Optimization) -> None:
        self._differentiate, self._optimization = differentiate, optimization
        self._warm = False
        self._compiled: Callable[..., list[Tensor]] | None = None

    def __call__(self, *tensors: Tensor) -> Tensor:
        if not self._warm:
            statistics = self._optimization.apply(*self._differentiate(*tensors))
            self._warm = True
            return statistics
        try:
            if self._compiled is None:
                with _library.traceable():
                    traced = make_fx(self._trace)(*tensors)
                self._compiled = torch.compile(traced, fullgraph=True, dynamic=False, options={"fallback_random": True})
            else:
                # The trace contains the casts that autocast made.
                with torch.no_grad(), without_autocast(self._optimization.device.type):
                    self._found = self._compiled(*tensors)
        except Exception as error:
            raise CaptureError(f"the step cannot be compiled, take backend='eager': {error}") from error
        statistics, *found = self._found
        gradients = iter(found)
        return self._optimization.apply(
            statistics, [next(gradients) if present else None for present in self._present], self._samples
        )

    def _trace(self, *tensors: Tensor) -> list[Tensor]:
        statistics, gradients, self._samples = self._differentiate(*tensors)
        self._present = [gradient is not None for gradient in gradients]
        self._found = [statistics, *(gradient for gradient in gradients if gradient is not None)]
        return self._found
