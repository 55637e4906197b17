"""SIGINT and SIGTERM end a run after a checkpoint."""

import os
import signal
from pathlib import Path

import pytest
import torch

pytest.importorskip("wgan_fast.train.trainer", reason="the extra wgan_fast[train] is not installed")

from training import cli, options
from wgan_fast.train import Trainer
from wgan_fast.train.run import checkpoint

pytestmark = pytest.mark.usefixtures("few_samples")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_leaves(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
