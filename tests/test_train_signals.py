"""Signals end a run after a checkpoint, and a clock asks for checkpoints."""

import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("wgan_fast.train.trainer", reason="the extra wgan_fast[train] is not installed")

from training import begin_command, cli, everything, options, wait_for_rows
from wgan_fast.train import Trainer
from wgan_fast.train.data import sources
from wgan_fast.train.run import checkpoint
from wgan_fast.train.run.signals import SIGNALS, SaveRequest


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_saves_and_leaves(
    number: int, few_samples: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update_generator = Trainer.update_generator

    def interrupted(self: Trainer, real: torch.Tensor) -> None:
        update_generator(self, real)
        if self.step == 4:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Trainer, "update_generator", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
    hang_up = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it
    result = cli("train", "--out", tmp_path / "run", *options(steps=9, checkpoint_every=3))
    assert signal.signal(signal.SIGHUP, hang_up) is signal.SIG_DFL
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler
    assert result.exit_code == 128 + number
    assert f"stopped at step 4; to go on: wgan-fast train --resume --out {tmp_path / 'run'}" in result.stderr
    assert torch.load(tmp_path / "run" / checkpoint.NAME, weights_only=True)["step"] == 4
    assert not (tmp_path / "run" / "metrics.json").exists()


ALONE = SimpleNamespace(world_size=1)


def test_the_second_signal_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless it comes at once: `timeout` and torchrun send theirs to a process and to its group."""
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr("wgan_fast.train.run.signals.time.monotonic", lambda: clock.now)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        request = SaveRequest(ALONE)
        with request.listening():
            assert not request.received()
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            assert request.received() and request.signal == signal.SIGINT
            clock.now += 1.5
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_signal_that_is_ignored_stays_so() -> None:
    """As in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with SaveRequest(ALONE).listening() as request:
            os.kill(os.getpid(), signal.SIGINT)
            assert not request.received()
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_hear_no_signals() -> None:
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    found = []

    def listen() -> None:
        with SaveRequest(ALONE).listening() as request:
            found.append((request.received(), signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert found == [(False, *handlers)]


def test_a_checkpoint_is_asked_for_after_some_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=100.0)
    monkeypatch.setattr("wgan_fast.train.run.signals.time.monotonic", lambda: clock.now)
    request = SaveRequest(ALONE)
    assert not request.received()
    clock.now += 600
    assert request.received() and request.signal is None
    request.saved()
    assert not request.received()


def test_a_run_of_slow_steps_saves_by_the_clock(
    few_samples: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wgan_fast.train.run.signals.CHECKPOINT_SECONDS", 0.0)
    seen = []
    save = Trainer.save_checkpoint
    monkeypatch.setattr(Trainer, "save_checkpoint", lambda self: (seen.append(self.step), save(self)))
    assert cli("train", "--out", tmp_path / "run", *options()).exit_code == 0
    assert sorted({*seen}) == [1, 2, 3, 4]


Begin = Callable[..., subprocess.Popen[str]]


def begun(folder: Path, *more: str) -> subprocess.Popen[str]:
    """A long run in a process group of its own, as its group's leader, once it trains."""
    arguments = [
        "--data",
        "digits",
        "--workers",
        "2",
        "--out",
        str(folder),
        *options(steps=100_000, log_every=1),
        *more,
    ]
    hang_up = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it, and children inherit that
    process = subprocess.Popen(
        [sys.executable, "-m", "wgan_fast", "train", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    signal.signal(signal.SIGHUP, hang_up)
    while not (folder / "metrics.jsonl").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    return process


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Calls :func:`begun`, and kills what a failing test leaves."""
    processes: list[subprocess.Popen[str]] = []

    def begin(folder: Path, *more: str) -> subprocess.Popen[str]:
        processes.append(begun(folder, *more))
        return processes[-1]

    yield begin
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_whole_group_saves_and_leaves(number: int, tmp_path: Path, begin: Begin) -> None:
    """To the processes that prefetch data, too, and twice, as of `timeout`."""
    process = begin(tmp_path / "run")
    os.killpg(process.pid, number)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 128 + number, error
    assert error.startswith("error: stopped at step ") and error.count("\n") == 1
    assert (tmp_path / "run" / checkpoint.NAME).exists()


@pytest.mark.slow
def test_a_process_that_prefetches_data_ignores_signals_and_its_death_is_told(tmp_path: Path, begin: Begin) -> None:
    process = begin(tmp_path / "run")
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for worker in workers:
        os.kill(int(worker), signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=3)
    os.kill(int(workers[0]), signal.SIGKILL)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 1 and error.count("\n") == 1, error
    assert "--workers: a process that prefetched data was killed" in error


@pytest.mark.parametrize(
    "error",
    [
        EOFError(),
        ConnectionResetError(104, "Connection reset by peer"),
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
        RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"),
        RuntimeError("Pin memory thread exited unexpectedly"),
    ],
    ids=repr,
)
def test_the_death_of_a_worker_is_told_however_it_is_noticed(
    error: Exception, few_samples: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe that breaks while a batch is sent raises before PyTorch looks for its workers."""

    class Loader(sources.DataLoader):
        def __iter__(self) -> Iterator[sources.Batch]:
            yield from itertools.islice(super().__iter__(), 3)
            raise error

    monkeypatch.setattr(sources, "DataLoader", Loader)
    result = cli("train", "--out", tmp_path / "run", *options(n_critic=1, n_critic_boost=0, checkpoint_every=2))
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1), result.output
    assert "--workers: a process that prefetched data was killed" in result.stderr
    assert "to go on from step 2: wgan-fast train --resume --out" in result.stderr


def test_workers_that_cannot_be_started_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(loader: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(sources.DataLoader, "__iter__", start)
    result = cli("train", "--out", tmp_path / "run", *options())
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1), result.output
    assert (
        "--workers: processes that prefetch data cannot be started: Resource temporarily unavailable; " in result.stderr
    )


@pytest.mark.long
def test_ten_signals_to_the_whole_group_cost_no_bit(tmp_path: Path) -> None:
    """With processes that prefetch data, at drawn moments; the same command goes on."""
    errors, draw, stopped = tmp_path / "errors.txt", random.Random(0), 0
    settings = options(steps=80, data="digits", workers=2, latent_dimension=4, checkpoint_every=30, log_every=1)

    def start(folder: Path) -> BaseProcess:
        return begin_command(errors, "train", *settings, "--resume", "auto", "--out", folder)

    process = start(tmp_path / "whole")
    process.join()
    assert process.exitcode == 0, errors.read_text()
    expected = everything(tmp_path / "whole")
    for number in range(10):
        folder = tmp_path / f"run{number}"
        process = start(folder)
        wait_for_rows(process, folder, draw.randrange(1, 70))
        if process.is_alive():
            os.killpg(process.pid, signal.SIGTERM)
        process.join()
        assert process.exitcode in (0, 128 + signal.SIGTERM), errors.read_text()  # 0: it had just ended
        stopped += process.exitcode != 0
        assert process.exitcode == 0 or errors.read_text().startswith("error: stopped at step ")
        process = start(folder)
        process.join()
        assert process.exitcode == 0, errors.read_text()
        torch.testing.assert_close(everything(folder), expected, rtol=0, atol=0)
    assert stopped >= 5
