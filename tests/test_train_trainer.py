"""Runs: what they leave, what they learn, and that a seed decides both."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("wgan_fast.train.trainer", reason="the extra wgan_fast[train] is not installed")

import yaml

from training import cli, options, rows, run, small_config, write_image
from wgan_fast.train import TrainConfig, TrainedGenerator, Trainer
from wgan_fast.train.config import make_config
from wgan_fast.train.run.contents import LOCK, RUN_FILES


def test_run_leaves_a_folder_that_reproduces_its_samples(few_samples, tmp_path):
    folder = tmp_path / "run"
    result = cli("train", "--out", folder, *options(steps=6, log_every=4, seed=3))
    assert result.exit_code == 0, result.output
    assert {path.name for path in folder.iterdir()} == {*RUN_FILES, LOCK, "samples", "tensorboard"} - {
        "previous.pt",
        "best.pt",
    }
    assert [path.name for path in (folder / "samples").iterdir()] == ["000006.png"]
    # No terminal here: plain lines, the last of which is the end.
    assert "step 6/6" in result.stdout
    assert "critic loss" in result.stdout
    assert "Wasserstein" in result.stdout

    config = TrainConfig(**yaml.safe_load((folder / "config.yaml").read_text()))
    assert config == small_config(steps=6, log_every=4, seed=3)

    found = rows(folder)
    assert [row["step"] for row in found] == [4, 6]
    assert all(math.isfinite(row["critic_loss"]) and math.isfinite(row["wasserstein"]) for row in found)

    for image in ("samples.png", "curve.png"):
        assert (folder / image).read_bytes().startswith(b"\x89PNG")

    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["steps"] == 6
    assert metrics["seed"] == 3
    assert metrics["seconds"] > 0
    assert metrics["modes_total"] == 25
    assert metrics["earth_movers_distance"] > metrics["earth_movers_distance_real"] > 0

    checkpoint = torch.load(folder / "checkpoint.pt", weights_only=True)
    assert {"generator", "critic"} < set(checkpoint)
    fresh = Trainer(config)
    fresh.averaged_generator.load_state_dict(checkpoint["generator"])
    fresh.critic.load_state_dict(checkpoint["critic"])
    assert fresh.evaluation.evaluate() == {name: metrics[name] for name in fresh.evaluation.evaluate()}


def test_same_seed_same_weights(few_samples, tmp_path):
    def weights(seed: int, name: str) -> list[torch.Tensor]:
        trainer = Trainer(small_config(seed=seed, out=tmp_path / name))
        trainer.run()
        return [*trainer.averaged_generator.parameters(), *trainer.critic.parameters()]

    before = torch.get_rng_state(), torch.get_num_threads()
    first, again, other = weights(0, "first"), weights(0, "again"), weights(1, "other")
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.get_num_threads() == before[1]


@pytest.mark.parametrize("data", ["8gaussians", "swissroll"])
def test_other_data_runs(data, few_samples, tmp_path):
    result = cli("train", "--out", tmp_path / "run", *options(data=data))
    assert result.exit_code == 0, result.output
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["modes_total"] == (8 if data == "8gaussians" else None)


@pytest.mark.filterwarnings("ignore:a gradient was not finite:RuntimeWarning")
def test_diverging_stops_with_a_reason(tmp_path):
    result = cli("train", "--out", tmp_path / "run", *options(learning_rate=1e30))
    assert result.exit_code == 1
    assert "the critic's loss is" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "run" / "metrics.json").exists()


@pytest.mark.long
def test_r3gan_learns_the_25_gaussians(tmp_path):
    metrics = Trainer(TrainConfig(algorithm="r3gan", out=tmp_path / "run")).run()
    assert metrics["modes_covered"] >= 24
    assert metrics["share_within_3_sigma"] >= 0.5
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert 0 < rows[0]["relativistic_divergence"] < math.log(2)


def test_trainer_runs_once(tmp_path: Path) -> None:
    trainer = Trainer(TrainConfig(steps=1, batch_size=8, width=4, depth=1, out=tmp_path / "run"))
    with torch.no_grad():
        trainer.run()
    with pytest.raises(RuntimeError, match="runs once"):
        trainer.run()


def test_a_trainer_takes_settings() -> None:
    with pytest.raises(TypeError, match="^config: "):
        Trainer("25gaussians")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (1, 2))])
def test_the_default_run_learns_the_25_gaussians(seed, tmp_path):
    metrics = Trainer(TrainConfig(seed=seed, out=tmp_path / "run")).run()
    assert metrics["modes_covered"] >= 24
    assert metrics["share_within_3_sigma"] >= 0.5


@pytest.mark.long
@pytest.mark.parametrize(("data", "first", "last"), [("8gaussians", 4000, 20000), ("photos", 300, 3000)])
def test_memory_stays_flat(data: str, first: int, last: int, tmp_path: Path) -> None:
    """Also that of the process which reads images ahead: 24,000 of them here."""
    source = str(tmp_path / "photos") if data == "photos" else data
    for number in range(300 if data == "photos" else 0):
        write_image(tmp_path / "photos" / f"{number}.jpg", size=(20, 20))
    program = f"""
import os
from pathlib import Path
from wgan_fast.train import TrainConfig, Trainer
found = []
update = Trainer.update_generator
def resident(process):
    status = Path(f"/proc/{{process}}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])
def watched(self, real):
    update(self, real)
    if self.step in ({first}, {last}):
        children = Path(f"/proc/self/task/{{os.getpid()}}/children").read_text().split()
        assert len(children) == {int(data == "photos")}
        found.append(sum(map(resident, ("self", *children))))
Trainer.update_generator = watched
size = dict(size=16, workers=1) if {data == "photos"} else dict()
small = dict(batch_size=8, width=4, n_critic=1, log_every=100, sample_every=10**6, evaluate_every=10**6)
Trainer(TrainConfig(data={source!r}, steps={last} + 1, out={str(tmp_path / "run")!r}, **size, **small)).run()
print(found[1] - found[0])
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert int(done.stdout.split()[-1]) < 20_000  # KiB, of about 700,000


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_compiler_trains_as_well(few_samples: None, tmp_path: Path) -> None:
    for backend in ("eager", "compile"):
        run(tmp_path / backend, backend=backend, steps=6)
    eager, compiled = (TrainedGenerator.load(tmp_path / backend).draw(20)[0] for backend in ("eager", "compile"))
    torch.testing.assert_close(compiled, eager, rtol=1e-3, atol=1e-4)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("precision", ["32", "bf16", "16"])
@pytest.mark.filterwarnings("ignore:a gradient was not finite")  # a GradScaler begins with a scale that is too large
def test_on_a_gpu(precision: str, few_samples: None, tmp_path: Path) -> None:
    run(tmp_path, device="cuda", precision=precision, steps=12)
    assert all(np.isfinite(found["critic_loss"]) for found in rows(tmp_path))
    Trainer(make_config(None, {"resume": True, "out": tmp_path, "steps": 14})).run()
