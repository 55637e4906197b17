"""What a run shows while it lasts."""

import subprocess
import sys
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

pytest.importorskip("wgan_fast.train.trainer", reason="the extra wgan_fast[train] is not installed")

from training import options
from wgan_fast.train.view import progress
from wgan_fast.train.view.progress import ProgressDisplay

ROW = {"step": 4, "critic_loss": -1.5, "generator_loss": 0.25, "wasserstein": 1.75, "clip_saturation": 0.5}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr(progress.time, "perf_counter", lambda: clock.now)
    return clock


def test_a_plain_line_every_few_seconds_and_at_the_end(
    clock: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    with ProgressDisplay(steps=100, start=10, batch_size=8) as display:
        clock.now += 4.0
        display.update(20, [ROW])
        assert capsys.readouterr().out == ""
        clock.now += 1.0
        display.update(20, [ROW])
        values = "Wasserstein  1.7500  critic loss -1.5000  generator loss  0.2500  at the bound 50%"
        assert capsys.readouterr().out == f"step 20/100  {values}  16 samples/s  0:40 left\n"
        clock.now += 1.0
        display.update(100, [])
        assert capsys.readouterr().out == "step 100/100    120 samples/s  0:00 left\n"


def test_nothing_is_shown_by_what_is_not_visible(clock: SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressDisplay(steps=10, start=0, batch_size=8, visible=False) as display:
        clock.now += 10.0
        display.update(10, [ROW])
        display.say("a message")
        assert display.speed(10) == 8.0
    assert capsys.readouterr() == ("", "")


def test_a_reader_that_is_gone_does_not_end_a_run(clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []

    def write(text: str) -> None:
        written.append(text)
        raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", SimpleNamespace(write=write, flush=lambda: None, isatty=lambda: False))
    with ProgressDisplay(steps=10, start=0, batch_size=8) as display:
        display.say("a message")
    assert written == ["a message"]


def test_a_notebook_shows_one_line_that_changes(clock: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[str, str]] = []

    class Handle:
        def update(self, content, raw):
            shown.append(("update", content["text/plain"]))

    def display(content, raw, display_id):
        shown.append(("new", content["text/plain"]))
        return Handle()

    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    module = ModuleType("IPython.display")
    module.display = display
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    monkeypatch.setattr(progress, "Console", partial(progress.Console, force_jupyter=True))
    with ProgressDisplay(steps=100, start=0, batch_size=8) as bar:
        for step in (10, 20, 100):
            clock.now += 1.0
            bar.update(step, [])
    assert [kind for kind, _ in shown] == ["new", "update", "update"]
    assert shown[1][1].startswith("step 20/100 ")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (3599, "59:59"), (3600, "1 h 00 min"), (86_399, "23 h 59 min"), (1_036_800, "12 d 0 h")],
)
def test_time_left_is_told_in_units_that_people_use(seconds: float, text: str) -> None:
    assert progress.duration(seconds) == text


@pytest.mark.slow
@pytest.mark.parametrize("reader", ["> /dev/full", "| head -1"])
def test_a_run_whose_output_cannot_be_written_ends_well(reader: str, tmp_path: Path) -> None:
    command = f"{sys.executable} -m wgan_fast train --out {tmp_path / 'run'} {' '.join(options())} {reader}"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "run" / "metrics.json").exists()
