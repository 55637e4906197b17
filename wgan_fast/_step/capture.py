"""Captures of CUDA graphs: the stream, the memory, and what a failed one leaves behind."""

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F


class GraphPool:
    """The memory of one step's graphs, and the stream that they are captured on.

    The graphs of a step share memory, because they are replayed one after the other. Those of different steps do not:
    they may be replayed at once on different streams, and gradients of one must outlast a replay of another.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._graphs: weakref.WeakSet[Any] = weakref.WeakSet()
        self._taken: CaptureStream | None = None

    def __reduce__(self) -> Any:
        return GraphPool, (self.device,)

    @contextmanager
    def capturing(self, generators: list[torch.Generator]) -> Iterator[Any]:
        """Captures what is launched inside; yields the graph."""
        if self._taken is None:
            self._taken = _take_stream(self.device)
            weakref.finalize(self, _free_streams(self.device).append, self._taken)
        # A pool can be used again only while a graph belongs to it.
        pool = next((graph.pool() for graph in self._graphs), None) or torch.cuda.graph_pool_handle()
        with capturing(self._taken.stream, pool, generators) as graph:
            yield graph
        self._graphs.add(graph)


class CaptureStream(NamedTuple):
    """A stream on which nothing runs, and a graph that holds the memory of cuBLAS's workspaces for it.

    PyTorch keeps these workspaces, 64 MiB on an H100, for each stream as long as the process lives, so a stream is
    passed on when its step is dropped. torch.compile(mode="reduce-overhead") makes PyTorch forget them; the graph then
    keeps their memory, which captured steps still use, from being freed.
    """

    stream: torch.cuda.Stream
    workspaces: Any


@cache
def _free_streams(device: torch.device) -> list[CaptureStream]:
    return []


def _take_stream(device: torch.device) -> CaptureStream:
    free = _free_streams(device)
    if free:
        return free.pop()
    with torch.cuda.stream(warm_up_stream(torch.cuda.current_stream(device))):
        _use_cublas(device)  # its handle cannot be made under capture, and a critic of convolutions alone has made none
    stream = torch.cuda.Stream(device)
    with capturing(stream, torch.cuda.graph_pool_handle(), []) as graph:
        _use_cublas(device)
    return CaptureStream(stream, graph)


def _use_cublas(device: torch.device) -> None:
    """In this thread and in that of backward passes, which has a handle and workspaces of its own."""
    x, weight, bias = (torch.ones(shape, device=device, requires_grad=True) for shape in ((1, 1), (1, 1), (1,)))
    F.linear(x, weight, bias).sum().backward()


@cache
def warm_up_stream(current: torch.cuda.Stream) -> torch.cuda.Stream:
    """One for all steps on a stream, because PyTorch keeps cuBLAS's workspaces for each. Not one for several: memory
    that the caller frees is used again on the warm-up's stream, which waits for this caller's stream alone.
    """
    return torch.cuda.Stream(current.device)


@contextmanager
def capturing(stream: torch.cuda.Stream, pool: Any, generators: list[torch.Generator]) -> Iterator[Any]:
    """Captures what is launched inside, and cleans up where that fails: torch.cuda.graph alone would leave its stream
    current, PyTorch's allocator in the pool, and its generators in the capture, where every other graph then fails.

    The garbage collector runs before the capture and is off during it: freeing what a dropped object holds on the GPU,
    such as a compiled kernel, can invalidate the capture.
    """
    graph = torch.cuda.CUDAGraph()
    for generator in generators:
        graph.register_generator_state(generator)
    try:
        with (
            _no_garbage_collection(),
            torch.cuda.stream(stream),
            # Other threads may use CUDA meanwhile, such as a loader's that pins memory.
            torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"),
        ):
            yield graph
    except BaseException:
        _end_capture(stream, pool, generators)
        raise


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _end_capture(stream: torch.cuda.Stream, pool: Any, generators: list[torch.Generator]) -> None:
    device = stream.device.index
    try:
        torch._C._cuda_endAllocateToPool(device, pool)
    except RuntimeError:  # the exception was not CUDA's, so the capture has ended as a complete one does
        return
    torch._C._cuda_releasePool(device, pool)
    with capturing(stream, torch.cuda.graph_pool_handle(), generators):  # its end is one for the generators, too
        torch.zeros(1, device=stream.device)
