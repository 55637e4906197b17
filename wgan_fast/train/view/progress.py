"""Progress of a run on the terminal."""

import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from wgan_fast.train.run.history import Row

#: Values shown: (key in a history row, label, format).
SHOWN = (
    ("wasserstein", "Wasserstein", "7.4f"),
    ("jensen_shannon", "Jensen-Shannon", "7.4f"),
    ("relativistic_divergence", "relativistic", "7.4f"),
    ("critic_loss", "critic loss", "7.4f"),
    ("generator_loss", "generator loss", "7.4f"),
    ("gradient_norm", "gradient norm", ".2f"),
    ("clip_saturation", "at the bound", ".0%"),
)


def print_line(line: str) -> None:
    """Prints a line. Where nobody can read it any more (a closed pipe or terminal, a full disk), that ends no run."""
    try:
        print(line, flush=True)
    except OSError:
        # What is left in the buffer would fail again when Python exits.
        with suppress(OSError, ValueError, AttributeError):  # a stream of a notebook may be no file
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class ProgressDisplay:
    """A live bar on a terminal, a line updated in place in a notebook; elsewhere a plain line every five seconds.

    Args:
        steps: last generator step of the run.
        start: generator steps already done.
        batch_size: real samples per step.
        visible: False shows nothing.
    """

    def __init__(self, steps: int, start: int, batch_size: int, *, visible: bool = True) -> None:
        self._steps, self._first, self._batch_size, self._visible = steps, start, batch_size, visible
        self._console = Console()
        self._live = visible and self._console.is_terminal and not self._console.is_dumb_terminal
        self._notebook = _NotebookLine() if visible and self._console.is_jupyter else None
        self._live = self._live and self._notebook is None
        self._interval = 0.25 if self._live else 1.0 if self._notebook else 5.0
        self._bar = Progress(
            BarColumn(bar_width=None),
            TextColumn("{task.description}"),
            console=self._console,
            auto_refresh=False,
            expand=True,
        )
        self._task = self._bar.add_task("", total=steps)

    def __enter__(self) -> "ProgressDisplay":
        self._start = self._shown = time.perf_counter()
        if self._live:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live:
            with suppress(OSError):  # the terminal was closed
                self._bar.stop()

    def speed(self, step: int) -> float:
        """Mean number of real samples per second so far."""
        return (step - self._first) * self._batch_size / max(time.perf_counter() - self._start, 1e-9)

    def say(self, message: str) -> None:
        """Prints a line, above a live bar."""
        if self._live:
            with suppress(OSError):
                self._bar.console.print(message, highlight=False, markup=False)
        elif self._visible:
            print_line(message)

    def update(self, step: int, rows: Sequence[Row]) -> None:
        """Shows the state after generator step ``step``, at most once per interval, and always the last step."""
        now = time.perf_counter()
        if not self._visible or (now - self._shown < self._interval and step < self._steps):
            return
        self._shown = now
        rate = (step - self._first) / (now - self._start)
        speed = f"{self.speed(step):,.0f} samples/s  {duration((self._steps - step) / rate)} left"
        values = _values(rows[-1]) if rows else ""
        if not self._live:
            line = f"step {step}/{self._steps}  {values}  {speed}"
            (print_line if self._notebook is None else self._notebook.show)(line)
            return
        if self._console.width < 120:
            values = "  ".join(values.split("  ")[:2])
        description = f"{step}/{self._steps}  {values}  {speed}"
        with suppress(OSError):
            self._bar.update(self._task, completed=step, description=description, refresh=True)


class _NotebookLine:
    """A line of text that replaces the one before. rich would open a new output for each."""

    def __init__(self) -> None:
        from IPython.display import display  # type: ignore[import-not-found]  # a notebook has it

        self._display, self._handle = display, None

    def show(self, line: str) -> None:
        content = {"text/plain": line}
        if self._handle is None:
            self._handle = self._display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)


def duration(seconds: float) -> str:
    """Minutes and seconds, ``4:05``; from an hour on, hours and minutes, ``3 h 20 min``, then days and hours."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d}"
    hours, minutes = divmod(minutes, 60)
    days, of_day = divmod(hours, 24)
    return f"{days} d {of_day} h" if days else f"{hours} h {minutes:02d} min"


def _values(row: Row) -> str:
    return "  ".join(f"{label} {row[name]:{form}}" for name, label, form in SHOWN if name in row)
