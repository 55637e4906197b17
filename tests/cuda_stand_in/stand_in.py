"""The stand-in's own functions, for tests; and the parts of CUDA's runtime that PyTorch does not offer."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

library = ctypes.CDLL(None)  # what is loaded already
loaded = hasattr(library, "cuda_stand_in_log")
needed = [
    pytest.mark.stand_in,
    pytest.mark.skipif(not loaded, reason="needs the stand-in that `make cuda-build` loads"),
]

if loaded:
    library.cuda_stand_in_entry.restype = ctypes.c_char_p
    library.cuda_stand_in_bytes.restype = ctypes.c_size_t
    library.cuda_stand_in_allocations.restype = ctypes.c_long
    library.cuda_stand_in_overruns.restype = ctypes.c_long


@dataclass(frozen=True)
class Entry:
    """One line of the log: what was launched, recorded or waited for."""

    kind: str  #: kernel, product (of cuBLAS), copy, fill, host, graph, event, sync; invalidated (a capture)
    device: int
    stream: int  #: 0 is the legacy stream
    captured: bool
    name: str


@contextmanager
def logged() -> Iterator[list[Entry]]:
    """Yields a list that holds the log of the block after its end."""
    entries: list[Entry] = []
    library.cuda_stand_in_log(1)
    try:
        yield entries
    finally:
        for i in range(library.cuda_stand_in_entries()):
            kind, device, stream, captured, name = library.cuda_stand_in_entry(i).decode().split("|", 4)
            entries.append(Entry(kind, int(device), int(stream), captured == "1", name))
        library.cuda_stand_in_log(0)
