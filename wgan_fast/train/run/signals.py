"""Signals end a run between two steps, after a checkpoint; a clock asks for checkpoints, too."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

import torch
from torch import distributed as dist

if TYPE_CHECKING:  # reading data needs no Lightning
    from lightning.fabric import Fabric

#: What schedulers, terminals and people send to end a process. Windows lacks some.
SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2") if hasattr(signal, name)
)
#: Seconds in which the same signal again is the same request: ``timeout`` and torchrun send theirs to a process and to
#: its group.
ECHO = 1.0
#: Seconds between two checkpoints, at most.
CHECKPOINT_SECONDS = 600.0


class Stopped(Exception):  # noqa: N818 (no error)
    """A signal ended the run, which has left a checkpoint; ``signal`` is its number."""

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal


class SaveRequest:
    """Asks for a checkpoint: since a signal came, after which the run ends, or since the last one is long ago.

    The same signal again, after a second, ends the process as usual.

    Args:
        fabric: the processes of the run.

    Attributes:
        signal: the number of the signal received, or None.
    """

    def __init__(self, fabric: "Fabric") -> None:
        self._fabric = fabric
        self._came: dict[int, float] = {}
        self._saved = time.monotonic()
        self.signal: int | None = None

    @contextmanager
    def listening(self) -> Iterator["SaveRequest"]:
        """Installs the handlers. Python allows that in the main thread only; elsewhere this does nothing."""
        before = {}
        try:
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:  # as of nohup, or in the background of a shell
                    before[number] = signal.signal(number, self._receive)
        except ValueError:
            pass
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - self._came.setdefault(number, now) < ECHO:
            self.signal = number
            return
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        signal.raise_signal(number)

    def received(self) -> bool:
        """Whether a checkpoint is due in any process. A collective: all must call it at the same step."""
        overdue = time.monotonic() - self._saved >= CHECKPOINT_SECONDS
        if self._fabric.world_size > 1:
            asked = torch.tensor([self.signal or 0, overdue], device=self._fabric.device)
            dist.all_reduce(asked, dist.ReduceOp.MAX)
            number, overdue = asked.tolist()
            self.signal = number or None
        return self.signal is not None or bool(overdue)

    def saved(self) -> None:
        """A checkpoint has been written."""
        self._saved = time.monotonic()


def ignore_signals(worker: int = 0) -> None:
    """In a process that prefetches data: a signal to the whole group is for the run, which ends its workers itself."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
