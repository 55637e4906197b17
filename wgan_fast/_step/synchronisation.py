"""Where a step waits for the device, which a CUDA graph cannot."""

import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from linecache import getline
from types import FrameType
from typing import Any

import torch

from wgan_fast._critic import rows

_MESSAGE = "called a synchronizing CUDA operation"  # PyTorch's
_LIBRARIES = ("wgan_fast.", "torch.", "warnings", "contextlib")


@contextmanager
def watching_synchronisation() -> Iterator[list[str]]:
    """Yields a list of the operations inside, in this thread, for which the host waits for the device.

    The probe of the critic's rows does not count: it is left out under capture.
    """
    found: list[str] = []
    if not torch.cuda.is_available():
        yield found
        return
    thread, before, outside = threading.get_ident(), torch.cuda.get_sync_debug_mode(), sys._getframe(2)
    with warnings.catch_warnings():
        show = warnings.showwarning

        def note(message: Any, category: Any, filename: str, line: int, *rest: Any) -> None:
            if not str(message).startswith(_MESSAGE):
                show(message, category, filename, line, *rest)
            elif threading.get_ident() == thread:
                places = list(_places(sys._getframe(1), outside))
                if not any(name == rows.__name__ for name, _, _ in places):
                    of_user = ((f, at) for name, f, at in places if not name.startswith(_LIBRARIES))
                    filename, line = next(of_user, (filename, line))
                    found.append(
                        f"the host waits for the device at {filename}:{line}: {getline(filename, line).strip()}"
                    )

        warnings.showwarning = note  # type: ignore[assignment]
        warnings.filterwarnings("ignore", "Synchronization debug mode is a prototype", UserWarning)
        warnings.filterwarnings("always", _MESSAGE, UserWarning)
        if before == 0:  # else the caller watches, too
            torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            if before == 0:
                torch.cuda.set_sync_debug_mode("default")


def _places(frame: FrameType | None, outside: FrameType) -> Iterator[tuple[str, str, int]]:
    """Module, file and line of each call on the stack, from the innermost one."""
    while frame is not None and frame is not outside:
        yield frame.f_globals.get("__name__", ""), frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back
