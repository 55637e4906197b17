"""Several processes train as one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("wgan_fast.train.trainer", reason="the extra wgan_fast[train] is not installed")

from training import everything, rows


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """For a few steps: Adam makes the rounding of a gradient near 0 a step of full length."""
    train = ["-m", "wgan_fast", "train", "--out"]
    few = ["--data", "8gaussians", "--steps", "5", "--batch-size", "32", "--width", "16", "--log-every", "1"]
    subprocess.run([sys.executable, *train, str(tmp_path / "one"), *few], check=True, capture_output=True)
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", *train, str(tmp_path / "two"), *few]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *launcher], check=True, capture_output=True, env=environment)
    one, two = everything(tmp_path / "one"), everything(tmp_path / "two")
    assert two["step"] == 5 and len(two["random"]) == 2
    torch.testing.assert_close(two["trained_generator"], one["trained_generator"], rtol=1e-4, atol=1e-5)
    for mine, theirs in zip(rows(tmp_path / "two"), rows(tmp_path / "one"), strict=True):
        for name in ("critic_loss", "generator_loss", "wasserstein", "penalty"):
            assert mine[name] == pytest.approx(theirs[name], rel=5e-3, abs=1e-4)
