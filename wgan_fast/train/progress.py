"""What a run shows while it lasts."""

import time
from contextlib import suppress

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from wgan_fast.train.run_folder import History


class ProgressDisplay:
    """A live bar on a terminal, and a plain line every few seconds elsewhere.

    It looks at the history, and so waits for the device, only when it is about to show something.

    Attributes:
        seconds: how long the ``with`` block took.
    """

    def __init__(self, steps: int) -> None:
        self.seconds = 0.0
        self._steps = steps
        self._console = Console()
        self._live = self._console.is_terminal and not self._console.is_dumb_terminal
        self._interval = 0.25 if self._live else 5.0
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
        self.seconds = time.perf_counter() - self._start
        if self._live:
            self._bar.stop()

    def update(self, step: int, history: History) -> None:
        """Shows the state after generator step ``step``, if it is time to."""
        now = time.perf_counter()
        if now - self._shown < self._interval and step < self._steps:
            return
        self._shown = now
        rate = step / (now - self._start)
        minutes, seconds = divmod(round((self._steps - step) / rate), 60)
        critic_loss, wasserstein = history.last()
        left = f"{minutes}:{seconds:02d} left"
        values = f"critic loss {critic_loss:7.4f}  Wasserstein {wasserstein:7.4f}  {rate:.1f} steps/s  {left}"
        if not self._live:
            with suppress(BrokenPipeError):  # who no longer reads does not end the training
                print(f"step {step}/{self._steps}  {values}", flush=True)
            return
        if self._console.width < 100:
            values = f"loss {critic_loss:.3f}  W {wasserstein:.3f}  {rate:.0f}/s  {left}"
        self._bar.update(self._task, completed=step, description=f"{step}/{self._steps}  {values}", refresh=True)
