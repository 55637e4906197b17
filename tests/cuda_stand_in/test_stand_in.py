"""The stand-in itself: capture has the rules of CUDA, and its error codes."""

import ctypes
import threading
from collections.abc import Callable, Iterator

import pytest
import torch
from stand_in import library, logged, needed

pytestmark = needed

GLOBAL, THREAD_LOCAL, RELAXED = range(3)
BLOCKING, NON_BLOCKING = range(2)
OK = 0
UNSUPPORTED, INVALIDATED, MERGE, UNMATCHED, UNJOINED, ISOLATION, IMPLICIT, CAPTURED_EVENT, WRONG_THREAD = range(
    900, 909
)
INVALID_HANDLE, ILLEGAL_STATE = 400, 401
Pointer = ctypes.c_void_p


def new_stream(flags: int = NON_BLOCKING) -> Pointer:
    stream = Pointer()
    assert library.cudaStreamCreateWithFlags(ctypes.byref(stream), flags) == OK
    return stream


def new_event() -> Pointer:
    event = Pointer()
    assert library.cudaEventCreate(ctypes.byref(event)) == OK
    return event


def begin(stream: Pointer, mode: int = THREAD_LOCAL) -> None:
    assert library.cudaStreamBeginCapture(stream, mode) == OK


def end(stream: Pointer) -> int:
    return library.cudaStreamEndCapture(stream, ctypes.byref(Pointer()))


def malloc() -> int:
    return library.cudaMalloc(ctypes.byref(Pointer()), ctypes.c_size_t(256))


def status(stream: Pointer) -> int:
    found = ctypes.c_int()
    assert library.cudaStreamIsCapturing(stream, ctypes.byref(found)) == OK
    return found.value


def copy(stream: Pointer) -> int:
    source, target = ctypes.create_string_buffer(b"new"), ctypes.create_string_buffer(b"old")
    return library.cudaMemcpyAsync(target, source, ctypes.c_size_t(3), 0, stream)


def in_thread(call: Callable[[], int]) -> int:
    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(call()))
    thread.start()
    thread.join()
    return results[0]


@pytest.fixture(autouse=True)
def _no_error_stays() -> Iterator[None]:
    yield
    library.cudaGetLastError()
    assert library.cuda_stand_in_captures() == 0


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda stream, event: malloc(), UNSUPPORTED),
        (lambda stream, event: library.cudaDeviceSynchronize(), UNSUPPORTED),
        (lambda stream, event: library.cudaStreamSynchronize(stream), UNSUPPORTED),
        (lambda stream, event: library.cudaStreamQuery(stream), UNSUPPORTED),
        (lambda stream, event: library.cudaEventQuery(event), UNSUPPORTED),
        (lambda stream, event: library.cudaEventSynchronize(event), UNSUPPORTED),
        (lambda stream, event: library.cudaMemcpy(None, None, ctypes.c_size_t(0), 0), UNSUPPORTED),
        (lambda stream, event: library.cudaStreamWaitEvent(stream, event, 0), ISOLATION),
    ],
)
def test_refused_calls_end_the_capture(call: Callable[[Pointer, Pointer], int], error: int) -> None:
    stream, event = new_stream(), new_event()
    assert library.cudaEventRecord(event, new_stream()) == OK
    begin(stream)
    assert status(stream) == 1
    assert call(stream, event) == error
    assert status(stream) == 2
    assert copy(stream) == INVALIDATED
    assert end(stream) == INVALIDATED
    assert status(stream) == 0
    assert copy(stream) == OK
    begin(stream)  # the stream is as good as before
    assert end(stream) == OK


def test_modes() -> None:
    """An allocation in this thread and in another one."""
    for mode, here, elsewhere in ((GLOBAL, 900, 900), (THREAD_LOCAL, 900, OK), (RELAXED, OK, OK)):
        for call, expected in ((malloc, here), (lambda: in_thread(malloc), elsewhere)):
            stream = new_stream()
            begin(stream, mode)
            assert call() == expected
            assert end(stream) == (INVALIDATED if expected else OK)


def test_relaxed_thread_may_allocate() -> None:
    stream, mode = new_stream(), ctypes.c_int(RELAXED)
    begin(stream)
    library.cudaThreadExchangeStreamCaptureMode(ctypes.byref(mode))
    assert malloc() == OK
    library.cudaThreadExchangeStreamCaptureMode(ctypes.byref(mode))
    assert end(stream) == OK


def test_legacy_stream() -> None:
    """It cannot be captured, and cannot be used while a stream that waits for it is captured."""
    assert library.cudaStreamBeginCapture(None, THREAD_LOCAL) == UNSUPPORTED
    stream = new_stream(NON_BLOCKING)
    begin(stream)
    assert copy(None) == OK
    assert end(stream) == OK
    stream = new_stream(BLOCKING)
    begin(stream)
    assert copy(None) == IMPLICIT
    assert end(stream) == INVALIDATED


def test_legacy_stream_cannot_join() -> None:
    stream, event = new_stream(), new_event()
    begin(stream)
    assert library.cudaEventRecord(event, stream) == OK
    assert library.cudaStreamWaitEvent(None, event, 0) == IMPLICIT
    assert end(stream) == INVALIDATED


def test_captured_event_has_no_status() -> None:
    stream, event = new_stream(), new_event()
    begin(stream)
    assert library.cudaEventRecord(event, stream) == OK
    assert library.cudaEventQuery(event) == CAPTURED_EVENT
    assert end(stream) == INVALIDATED


@pytest.mark.parametrize("join", [False, True])
def test_fork_and_join(join: bool) -> None:
    stream, side, event = new_stream(), new_stream(), new_event()
    begin(stream)
    assert copy(stream) == OK
    assert library.cudaEventRecord(event, stream) == OK
    assert library.cudaStreamWaitEvent(side, event, 0) == OK
    assert status(side) == 1
    assert copy(side) == OK
    assert end(side) == UNMATCHED
    if join:
        assert library.cudaEventRecord(event, side) == OK
        assert library.cudaStreamWaitEvent(stream, event, 0) == OK
    assert end(stream) == (OK if join else UNJOINED)
    assert status(side) == 0


def test_two_captures_do_not_merge() -> None:
    first, second, event = new_stream(), new_stream(), new_event()
    begin(first)
    begin(second)
    assert library.cudaEventRecord(event, first) == OK
    assert library.cudaStreamWaitEvent(second, event, 0) == MERGE
    assert end(first) == INVALIDATED
    assert end(second) == INVALIDATED


def test_ends_where_it_began() -> None:
    stream = new_stream()
    assert end(stream) == ILLEGAL_STATE
    begin(stream)
    assert library.cudaStreamBeginCapture(stream, THREAD_LOCAL) == ILLEGAL_STATE
    assert in_thread(lambda: end(stream)) == WRONG_THREAD
    assert end(stream) == OK


def test_graph_runs_again() -> None:
    source, target = ctypes.create_string_buffer(b"one"), ctypes.create_string_buffer(b"old")
    stream, graph, executable = new_stream(), Pointer(), Pointer()
    begin(stream)
    assert library.cudaMemcpyAsync(target, source, ctypes.c_size_t(3), 0, stream) == OK
    assert target.value == b"old"
    assert library.cudaStreamEndCapture(stream, ctypes.byref(graph)) == OK
    assert library.cudaGraphInstantiateWithFlags(ctypes.byref(executable), graph, ctypes.c_ulonglong(0)) == OK
    for value in (b"one", b"two"):
        source.value = value
        assert library.cudaGraphLaunch(executable, stream) == OK
        assert target.value == value


def test_stream_of_another_device() -> None:
    with torch.cuda.device(1):
        stream, event = new_stream(), new_event()
    assert library.cudaEventRecord(event, stream) == OK
    assert library.cudaEventRecord(event, new_stream()) == INVALID_HANDLE
    assert library.cudaLaunchHostFunc(stream, None, None) == INVALID_HANDLE


def test_log() -> None:
    x, y = torch.ones(3).cuda(), torch.ones(3, 3).cuda(1)
    with logged() as entries:
        x + 1
        torch.mm(y, y)
        float(x[0])
    assert [(entry.kind, entry.device) for entry in entries] == [
        ("kernel", 0),
        ("product", 1),
        ("copy", 0),
        ("sync", 0),
    ]


def test_writes_around_a_block_are_found() -> None:
    stray = torch.zeros(1, dtype=torch.uint8)
    before = library.cuda_stand_in_overruns()
    data = Pointer()
    assert library.cudaMalloc(ctypes.byref(data), ctypes.c_size_t(3)) == OK
    library.cudaMemcpy(Pointer(data.value + 2), Pointer(stray.data_ptr()), ctypes.c_size_t(1), 1)
    assert library.cuda_stand_in_overruns() == before
    library.cudaMemcpy(Pointer(data.value + 3), Pointer(stray.data_ptr()), ctypes.c_size_t(1), 1)
    assert library.cuda_stand_in_overruns() == before + 1
    library.cudaMemset(Pointer(data.value + 3), 0xA5, ctypes.c_size_t(1))  # the byte that was there
    assert library.cudaFree(data) == OK
    assert library.cuda_stand_in_overruns() == before
