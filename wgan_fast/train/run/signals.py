"""SIGINT and SIGTERM end a run between two steps, after a checkpoint."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch
from lightning.fabric import Fabric
from torch import distributed as dist


class Stopped(Exception):  # noqa: N818 (no error)
    """A signal ended the run, which has left a checkpoint; ``signal`` is its number."""

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal


class StopRequest:
    """Records the first SIGINT or SIGTERM; a second one ends the process as usual.

    Args:
        fabric: the processes of the run.

    Attributes:
        signal: the number of the signal received, or None.
    """

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric
        self.signal: int | None = None

    @contextmanager
    def listening(self) -> Iterator["StopRequest"]:
        """Installs the handlers. Python allows that in the main thread only; elsewhere this does nothing."""
        before = {}
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:  # as in the background of a shell
                    before[number] = signal.signal(number, self._receive)
        except ValueError:
            pass
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    def received(self) -> bool:
        """Whether any process received one. A collective: all processes must call it at the same step."""
        if self._fabric.world_size > 1:
            number = torch.tensor(self.signal or 0, device=self._fabric.device)
            dist.all_reduce(number, dist.ReduceOp.MAX)
            self.signal = int(number) or None
        return self.signal is not None
