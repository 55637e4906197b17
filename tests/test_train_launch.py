"""Where a run runs: threads, and several processes that train as one."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch

pytest.importorskip("wgan_fast.train.trainer", reason="the extra wgan_fast[train] is not installed")

from training import everything, rows, small_config
from wgan_fast.train.launch import cpu_threads, launch


def test_a_batch_that_processes_cannot_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ValueError, match="^batch_size: expected a multiple of the 3 processes, got 16$"):
        launch(small_config())


@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_one_process_on_the_cpu(precision: str) -> None:
    fabric = launch(small_config(precision=precision))
    assert (fabric.world_size, fabric.device) == (1, torch.device("cpu"))
    with fabric.autocast():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == (torch.bfloat16 if precision == "bf16" else torch.float32)


def test_threads_are_those_of_the_block() -> None:
    before = torch.get_num_threads()
    with suppress(KeyError), cpu_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise KeyError
    assert torch.get_num_threads() == before


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
