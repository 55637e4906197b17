"""Where a run runs: threads, and several processes that train as one."""

import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("wgan_fast.train.trainer", reason="the extra wgan_fast[train] is not installed")

from training import cli, everything, options, rows, small_config
from wgan_fast.train import TrainConfig
from wgan_fast.train.config import find_device
from wgan_fast.train.launch import LaunchError, choose_threads, choose_workers, cpu_threads, launch, placement
from wgan_fast.train.networks.named import make_models


def torchrun(world: int) -> dict[str, str]:
    return {
        "WORLD_SIZE": f"{world}",
        "LOCAL_WORLD_SIZE": f"{world}",
        "RANK": "0",
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29500",
    }


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2, but not what torchrun sets with it .*: unset WORLD_SIZE"),
        ({"WORLD_SIZE": "many"}, "WORLD_SIZE=many, but not"),
        (torchrun(2) | {"MASTER_ADDR": ""}, r"WORLD_SIZE=2, but not .* \(MASTER_ADDR\)"),
        (torchrun(2) | {"LOCAL_WORLD_SIZE": "0"}, "WORLD_SIZE=2, but not"),
        ({"SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "4"}, "srun started 4 processes, .* torchrun"),
    ],
)
def test_an_environment_of_other_processes_is_told_at_once(
    environment: dict[str, str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    result = cli("train", "--out", tmp_path / "run", *options())
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1), result.output
    assert re.search(message, result.stderr), result.stderr
    assert not (tmp_path / "run").exists()


SLURM = {"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "gan", "SLURM_NTASKS": "4", "SLURM_NNODES": "2", "SLURM_PROCID": "0"}


@pytest.mark.slow
def test_a_job_that_slurm_requeues_goes_on(few_samples: None, tmp_path: Path) -> None:
    """Preempted by a signal to all processes of the job; then the same command again, with fewer steps to its end."""
    command = [sys.executable, "-m", "wgan_fast", "train", "--resume", "auto", "--out", str(tmp_path / "run")]
    command += [*options(data="digits", workers=1, log_every=1, latent_dimension=4), "--steps", "100000"]
    process = subprocess.Popen(command, env=os.environ | SLURM, stderr=subprocess.PIPE, start_new_session=True)
    while not (tmp_path / "run" / "metrics.jsonl").exists():
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGUSR1)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGUSR1
    command[-1] = str(last := everything(tmp_path / "run")["step"] + 2)
    again = os.environ | SLURM | {"SLURM_RESTART_COUNT": "1"}
    subprocess.run(command, env=again, check=True, capture_output=True)
    assert everything(tmp_path / "run")["step"] == last
    assert [row["step"] for row in rows(tmp_path / "run")] == [*range(1, last + 1)]


@pytest.mark.parametrize(
    ("model", "shape", "width", "settings", "threads", "why"),
    [
        ("dcgan", (3, 16, 16), 4, {}, 3, "all that PyTorch uses here"),
        ("mlp", (2,), 128, {}, 1, "more do not pay for networks this small"),
        ("mlp", (10,), 512, {}, 3, "all that PyTorch uses here"),
        ("dcgan", (3, 16, 16), 4, {"threads": 1}, 1, "as --threads says"),
    ],
)
def test_as_many_threads_as_pay(
    model: str,
    shape: tuple[int, ...],
    width: int,
    settings: dict[str, int],
    threads: int,
    why: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Measured: docs/decisions.md."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    config = TrainConfig(**settings)
    critic = make_models(model, shape, latent_dimension=2, width=width).critic
    chosen = choose_threads(config, critic, shape, fabric := launch(config))
    assert chosen == (threads, why)
    told = f"on cpu (PyTorch finds no GPU), {threads} thread{'s' * (threads > 1)} ({why})"
    assert placement(config, fabric, chosen) == told


def test_files_are_read_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    on_gpu, on_cpu = (SimpleNamespace(device=torch.device(name)) for name in ("cuda:0", "cpu"))
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    config = TrainConfig()
    assert [choose_workers(config, True, fabric) for fabric in (on_gpu, on_cpu)] == [8, 1]
    assert choose_workers(config, False, on_gpu) == 0
    assert choose_workers(TrainConfig(workers=0), True, on_gpu) == 0
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert choose_workers(config, True, on_gpu) == 2
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert choose_workers(config, True, on_gpu) == 0


def test_a_gpu_is_used_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for present, device in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda present=present: present)
        monkeypatch.setattr(torch.cuda, "device_count", lambda present=present: int(present))
        assert find_device("auto").type == device
        assert find_device("cpu").type == "cpu"


@pytest.mark.parametrize(
    ("capability", "precision", "tf32", "told"),
    [
        ((9, 0), "32", True, "precision 32, convolutions in TF32; --precision bf16 may be faster"),
        ((9, 0), "32", False, "precision 32; --precision bf16 may be faster"),
        ((9, 0), "bf16", True, "precision bf16"),
        ((7, 5), "32", True, "precision 32; --precision 16 may be faster"),  # it has neither TF32 nor bfloat16
    ],
)
def test_the_first_line_on_a_gpu(
    capability: tuple[int, int], precision: str, tf32: bool, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Abacus")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", tf32)
    there = SimpleNamespace(device=torch.device("cuda:0"))
    config = TrainConfig(precision=precision)
    chosen = choose_threads(config, torch.nn.Linear(2, 1), (3, 16, 16), there)
    assert placement(config, there, chosen) == f"on cuda:0, Abacus (PyTorch finds a GPU), {told}"


def test_more_processes_than_gpus_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name, value in torchrun(2).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(LaunchError, match="^torchrun started 2 processes here, and PyTorch finds 1 GPUs: "):
        launch(small_config())


def test_the_first_line_says_what_computes(few_samples: None, tmp_path: Path) -> None:
    result = cli("train", "--device", "cpu", "--out", tmp_path / "run", *options())
    assert result.exit_code == 0 and result.stdout.startswith("on cpu, 1 thread (as --threads says)\n"), result.output


def test_a_batch_that_processes_cannot_share(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in torchrun(3).items():
        monkeypatch.setenv(name, value)
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
