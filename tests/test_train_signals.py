"""SIGINT and SIGTERM end a run after a checkpoint."""

import os
import signal
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("wgan_fast.train.trainer", reason="the extra wgan_fast[train] is not installed")

from training import cli, options
from wgan_fast.train import Trainer
from wgan_fast.train.run import checkpoint
from wgan_fast.train.run.signals import StopRequest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
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
    result = cli("train", "--out", tmp_path / "run", *options(steps=9, checkpoint_every=3))
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler
    assert result.exit_code == 128 + number
    assert f"stopped at step 4; to go on: wgan-fast train --resume --out {tmp_path / 'run'}" in result.stderr
    assert torch.load(tmp_path / "run" / checkpoint.NAME, weights_only=True)["step"] == 4
    assert not (tmp_path / "run" / "metrics.json").exists()


ALONE = SimpleNamespace(world_size=1)


def test_the_second_signal_ends_the_process() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        request = StopRequest(ALONE)
        with request.listening():
            assert not request.received()
            os.kill(os.getpid(), signal.SIGINT)
            assert request.received() and request.signal == signal.SIGINT
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_signal_that_is_ignored_stays_so() -> None:
    """As in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopRequest(ALONE).listening() as request:
            os.kill(os.getpid(), signal.SIGINT)
            assert not request.received()
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_hear_no_signals() -> None:
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    found = []

    def listen() -> None:
        with StopRequest(ALONE).listening() as request:
            found.append((request.received(), signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert found == [(False, *handlers)]
