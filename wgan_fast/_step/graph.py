"""A step as a CUDA graph."""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wgan_fast._step.frozen import Frozen
from wgan_fast._step.optimization import Optimization
from wgan_fast._step.synchronisation import watching_synchronisation
from wgan_fast.optim import RMSprop

#: From a step's inputs to its statistics, the gradients of the parameters, and the number of samples.
Differentiate = Callable[..., tuple[Tensor, list[Tensor | None], int]]


class CaptureError(RuntimeError):
    """A step cannot be captured in a CUDA graph, or the compiler refuses it."""


def obstacle_to_graph(optimization: Optimization) -> str | None:
    """Why no CUDA graph can hold an update, or None if one can."""
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
    return None


def run_inside_a_capture(differentiate: Differentiate, optimization: Optimization, inputs: tuple[Any, ...]) -> Tensor:
    """Runs a step while the caller captures a CUDA graph, which records it.

    Raises:
        CaptureError: such a graph would not do what the step does. Nothing of the step has been changed then.
    """
    advice = "; end the capture before the step, which captures a graph of its own"
    obstacle = obstacle_to_graph(optimization)
    if obstacle is not None:
        raise CaptureError(f"a step inside a CUDA graph capture: {obstacle}{advice}")
    group = optimization.process_group
    if group is not None and "nccl" not in torch.distributed.get_backend_config(group):
        raise CaptureError(f"a step inside a CUDA graph capture: the process group is not one of NCCL{advice}")
    optimizer = optimization.optimizer
    state = optimizer.state
    no_state = CaptureError(
        "a step inside a CUDA graph capture: the optimizer has no state yet, and each replay of the graph would reset "
        "it; call the step at least once before the capture"
    )
    stateless = isinstance(optimizer, torch.optim.SGD) and not any(
        group["momentum"] for group in optimizer.param_groups
    )
    if not state and not stateless:
        raise no_state
    known = {parameter: set(values) for parameter, values in state.items()}
    statistics = optimization.apply(*differentiate(*inputs))
    made = [
        (parameter, name) for parameter, values in state.items() for name in values.keys() - known.get(parameter, ())
    ]
    for parameter, name in made:
        del state[parameter][name]
    if made:
        raise no_state
    return statistics


@cache
def _warm_up_stream(device: torch.device) -> torch.cuda.Stream:
    """One for all steps, because PyTorch keeps cuBLAS's workspaces for each stream."""
    return torch.cuda.Stream(device)


class Studio:
    """Where the graphs of one step are captured: a stream on which nothing runs, and a pool of memory.

    The graphs of a step share their memory, because they are replayed one after the other. Those of different steps do
    not: they may be replayed at once on different streams, and the gradients of one must outlast the replay of another.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._graphs: weakref.WeakSet[Any] = weakref.WeakSet()
        self._stage: Stage | None = None

    def __reduce__(self) -> Any:
        return Studio, (self.device,)

    @contextmanager
    def capturing(self, generators: list[torch.Generator]) -> Iterator[Any]:
        """Captures what is launched inside; yields the graph."""
        if self._stage is None:
            self._stage = _take_stage(self.device)
            weakref.finalize(self, _free_stages(self.device).append, self._stage)
        # A pool can be used again only while it belongs to a graph.
        pool = next((graph.pool() for graph in self._graphs), None) or torch.cuda.graph_pool_handle()
        with _capturing(self._stage.stream, pool, generators) as graph:
            yield graph
        self._graphs.add(graph)


class Stage(NamedTuple):
    """A stream, and a graph that holds the memory of cuBLAS's workspaces for it.

    PyTorch keeps these workspaces, 65 MiB on an H100, for each stream as long as the process lives, so a stream is
    passed on when its step is dropped. torch.compile(mode="reduce-overhead") makes PyTorch forget them; other graphs
    still use that memory, which the graph then keeps from being freed.
    """

    stream: torch.cuda.Stream
    holder: Any


@cache
def _free_stages(device: torch.device) -> list[Stage]:
    return []


def _take_stage(device: torch.device) -> Stage:
    free = _free_stages(device)
    if free:
        return free.pop()
    x = torch.ones(1, 1, device=device)
    weight, bias = nn.Parameter(torch.ones_like(x)), nn.Parameter(torch.ones_like(x[0]))
    stream = torch.cuda.Stream(device)
    with _capturing(stream, torch.cuda.graph_pool_handle(), []) as graph:
        F.linear(x, weight, bias).sum().backward()  # the backward has a handle of cuBLAS of its own
    return Stage(stream, graph)


@contextmanager
def _capturing(stream: torch.cuda.Stream, pool: Any, generators: list[torch.Generator]) -> Iterator[Any]:
    """Captures what is launched inside, and cleans up where that fails: torch.cuda.graph alone would leave its stream
    current, PyTorch's allocator in the pool, and its generators in the capture, where every other graph then fails.
    """
    graph = torch.cuda.CUDAGraph()
    for generator in generators:
        graph.register_generator_state(generator)
    try:
        with (
            torch.cuda.stream(stream),
            # Other threads may use CUDA meanwhile, such as a loader's that pins memory.
            torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"),
        ):
            yield graph
    except BaseException:
        _end_capture(stream, pool, generators)
        raise


def _end_capture(stream: torch.cuda.Stream, pool: Any, generators: list[torch.Generator]) -> None:
    device = stream.device.index
    try:
        torch._C._cuda_endAllocateToPool(device, pool)
    except RuntimeError:  # the exception was not CUDA's, so the capture has ended as a complete one does
        return
    torch._C._cuda_releasePool(device, pool)
    with _capturing(stream, torch.cuda.graph_pool_handle(), generators):  # its end is one for the generators, too
        torch.zeros(1, device=stream.device)


class _Captured(NamedTuple):
    graphs: list[Any]  #: one; with a process group two, between which the processes sum ``found``
    inputs: list[Tensor]
    found: Tensor
    gradients: list[tuple[Tensor, Tensor | None]]
    statistics: Tensor
    addresses: list[int]


class GraphRunner:
    """Runs the first steps eagerly on a side stream, which warms up libraries and caches. Captures the next step, and
    replays it from then on. Each of these steps is an update of the training; none is run for the capture alone.

    No graph contains a collective of processes. So one process may capture while another replays, as after unequal last
    batches of an epoch, and nothing keeps a process group alive.
    """

    WARM_UP = 3  # as PyTorch's notes on CUDA graphs ask for

    def __init__(
        self, differentiate: Differentiate, optimization: Optimization, frozen: Frozen, studio: Studio
    ) -> None:
        self._differentiate, self._optimization = differentiate, optimization
        self._frozen, self._studio = frozen, studio
        self._warm = 0
        self._synchronisation: str | None = None
        self._captured: _Captured | None = None

    def __call__(self, *tensors: Tensor) -> Tensor:
        captured = self._captured
        if captured is not None and captured.addresses != self._frozen.addresses():
            self._warm, self._captured = 0, None
        if self._warm < self.WARM_UP:
            self._warm += 1
            return self._warm_up(tensors)
        if captured is None:
            self._captured = captured = self._capture(tensors)
        else:
            for held, tensor in zip(captured.inputs, tensors, strict=True):
                held.copy_(tensor.detach())  # or `held` would collect the history of every input
        captured.graphs[0].replay()
        if len(captured.graphs) > 1:
            self._optimization.all_reduce(captured.found)
            captured.graphs[1].replay()
        for parameter, gradient in captured.gradients:  # the graph of other inputs may have set its own
            parameter.grad = gradient
        return captured.statistics.clone()

    def _warm_up(self, tensors: tuple[Tensor, ...]) -> Tensor:
        current = torch.cuda.current_stream(self._optimization.device)
        stream = _warm_up_stream(self._optimization.device)
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            with watching_synchronisation() as in_gradients:
                found = self._optimization.collect(*self._differentiate(*tensors))
            self._optimization.all_reduce(found)
            with watching_synchronisation() as in_update:
                statistics = self._optimization.update(found)
        current.wait_stream(stream)
        self._synchronisation = next(iter([*in_gradients, *in_update]), None)
        return statistics

    def _capture(self, tensors: tuple[Tensor, ...]) -> _Captured:
        inputs = [tensor.detach().clone() for tensor in tensors]
        optimization, parameters = self._optimization, self._optimization.parameters(frozen=True)
        graphs = []
        try:
            if self._synchronisation is not None:
                raise RuntimeError(self._synchronisation)
            with self._studio.capturing(optimization.generators) as graph:
                statistics = found = optimization.collect(*self._differentiate(*inputs))
                if optimization.process_group is None:
                    statistics = optimization.update(found)
            graphs.append(graph)
            if optimization.process_group is not None:
                with self._studio.capturing(optimization.generators) as graph:
                    statistics = optimization.update(found)
                graphs.append(graph)
        except Exception as error:
            for parameter in parameters:
                parameter.grad = None  # the memory of the capture was never written
            raise CaptureError(f"the step cannot be captured in a CUDA graph, take backend='eager': {error}") from error
        gradients = [(parameter, parameter.grad) for parameter in parameters]
        return _Captured(graphs, inputs, found, gradients, statistics, self._frozen.addresses())
