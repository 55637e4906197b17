"""The trainer: its data, its settings, and runs from the command line."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("wgan_fast.train", reason="the extra wgan_fast[train] is not installed")

import yaml
from typer.testing import CliRunner

from wgan_fast.cli import app
from wgan_fast.train import TrainConfig, Trainer
from wgan_fast.train.data.sources import ToyData
from wgan_fast.train.data.toys import GaussianMixture
from wgan_fast.train.run.folder import RUN_FILES, claim_run_folder
from wgan_fast.train.view.metrics import evaluate

TINY: dict[str, Any] = {"steps": 6, "batch_size": 16, "width": 8, "log_every": 4}


def run_cli(*arguments: object):
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


def tiny_config(**settings: Any) -> TrainConfig:
    return TrainConfig(**TINY | settings)


def tiny_options(**settings: object) -> list[object]:
    options: list[object] = []
    for name, value in (TINY | settings).items():
        options += [f"--{name.replace('_', '-')}", value]
    return options


# Metrics ------------------------------------------------------------------------------------------


def test_metrics_of_samples_placed_by_hand():
    data = ToyData(GaussianMixture(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), sigma=0.1))
    samples = torch.tensor([[0.0, 0.29], [0.0, 0.31], [1.0, 0.0], [0.71, 0.0]])
    metrics = evaluate(samples, samples + torch.tensor([3.0, 4.0]), samples, data)
    assert metrics["modes_covered"] == 2
    assert metrics["modes_total"] == 3
    assert metrics["share_within_3_sigma"] == 0.75
    # A shift by a vector costs its length, and so does the distance of the unshifted set from the shifted one.
    assert metrics["earth_movers_distance"] == pytest.approx(5) == metrics["earth_movers_distance_real"]


# Settings -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"algorithm": "dcgan"}, "algorithm: expected one of gan, nsgan, wgan, .*, got 'dcgan'"),
        ({"model": "vit"}, "model: expected one of mlp, dcgan, resnet, got 'vit'"),
        ({"optimizer": "sgd"}, "optimizer: expected one of adam, rmsprop, got 'sgd'"),
        ({"precision": "8"}, "precision: expected one of 32, bf16, 16, got '8'"),
        ({"precision": "16"}, "precision: 16 needs a GPU, got the device cpu; take bf16 or 32"),
        ({"backend": "fast"}, "backend: expected one of auto, eager, graph, compile, got 'fast'"),
        ({"norm": "layer"}, "norm: expected one of none, batch, got 'layer'"),
        ({"clip": 0.0}, "clip: expected a number above 0, got 0.0"),
        ({"checkpoint_every": 0}, "checkpoint_every: expected an integer of at least 1, got 0"),
        ({"penalty_every": 0}, "penalty_every: expected an integer of at least 1, got 0"),
        ({"workers": -1}, "workers: expected an integer of at least 0, got -1"),
        ({"steps": 0}, "steps: expected an integer of at least 1, got 0"),
        ({"batch_size": -1}, "batch_size: expected an integer of at least 1, got -1"),
        ({"n_critic": 0}, "n_critic: expected an integer of at least 1, got 0"),
        ({"latent_dimension": 0}, "latent_dimension: expected an integer of at least 1, got 0"),
        ({"width": 0}, "width: expected an integer of at least 1, got 0"),
        ({"depth": 0}, "depth: expected an integer of at least 1, got 0"),
        ({"log_every": 0}, "log_every: expected an integer of at least 1, got 0"),
        ({"threads": 0}, "threads: expected an integer of at least 1, got 0"),
        ({"seed": -1}, "seed: expected an integer of at least 0, got -1"),
        ({"learning_rate": 0.0}, "learning_rate: expected a number above 0, got 0.0"),
        ({"learning_rate": math.nan}, "learning_rate: expected a number above 0, got nan"),
        ({"penalty_weight": -0.1}, "penalty_weight: expected a number of at least 0, got -0.1"),
        ({"penalty_weight": math.inf}, "penalty_weight: expected a number of at least 0, got inf"),
        ({"beta1": 1.0}, "beta1: expected a number from 0 to below 1, got 1.0"),
        ({"beta2": -0.1}, "beta2: expected a number from 0 to below 1, got -0.1"),
        ({"average_decay": 1.5}, "average_decay: expected a number from 0 to below 1, got 1.5"),
        ({"device": "abacus"}, "device: expected cpu, cuda or cuda:N, got 'abacus'"),
        ({"device": "meta"}, "device: expected cpu, cuda or cuda:N, got 'meta'"),
        ({"device": "cuda:99"}, "device: PyTorch finds .* CUDA devices here, got 'cuda:99'"),
    ],
)
def test_a_wrong_value_is_named(settings, message, tmp_path):
    with pytest.raises(ValueError, match=f"^{message}$"):
        TrainConfig(**settings)
    ((name, value),) = settings.items()
    result = run_cli("--out", tmp_path / "run", f"--{name.replace('_', '-')}={value}")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: --{name.replace('_', '-')}: ")
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("settings", [{"steps": 2.0}, {"steps": True}, {"seed": "0"}, {"learning_rate": "fast"}])
def test_a_wrong_type_is_named(settings):
    with pytest.raises(TypeError, match=f"^{next(iter(settings))}: expected"):
        TrainConfig(**settings)


def test_an_option_that_is_no_number_is_named():
    result = run_cli("--steps", "many")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith("Error: Invalid value for '--steps'")


@pytest.fixture
def few_samples(monkeypatch):
    """The earth mover's distance of the full number of samples takes a second."""
    monkeypatch.setattr("wgan_fast.train.view.evaluation.SAMPLES", 200)


# Runs ---------------------------------------------------------------------------------------------


def test_run_leaves_a_folder_that_reproduces_its_samples(few_samples, tmp_path):
    folder = tmp_path / "run"
    result = run_cli("--out", folder, *tiny_options(seed=3))
    assert result.exit_code == 0, result.output
    assert {path.name for path in folder.iterdir()} == {*RUN_FILES, "samples", "tensorboard"} - {"previous.pt"}
    assert [path.name for path in (folder / "samples").iterdir()] == ["000006.png"]
    # No terminal here: plain lines, the last of which is the end.
    assert "step 6/6" in result.stdout
    assert "critic loss" in result.stdout
    assert "Wasserstein" in result.stdout

    config = TrainConfig(**yaml.safe_load((folder / "config.yaml").read_text()))
    assert config == tiny_config(seed=3)

    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [4, 6]
    assert all(math.isfinite(row["critic_loss"]) and math.isfinite(row["wasserstein"]) for row in rows)

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
        trainer = Trainer(tiny_config(seed=seed, out=tmp_path / name))
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
    result = run_cli("--out", tmp_path / "run", *tiny_options(data=data))
    assert result.exit_code == 0, result.output
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["modes_total"] == (8 if data == "8gaussians" else None)


def test_average_follows_the_generator(few_samples, tmp_path):
    trainer = Trainer(tiny_config(steps=1, average_decay=0.0, out=tmp_path / "run"))
    trainer.run()
    for kept, trained in zip(trainer.averaged_generator.parameters(), trainer.generator.parameters(), strict=True):
        assert torch.equal(kept, trained)
        assert not kept.requires_grad


@pytest.mark.filterwarnings("ignore:a gradient was not finite:RuntimeWarning")
def test_diverging_stops_with_a_reason(tmp_path):
    result = run_cli("--out", tmp_path / "run", *tiny_options(learning_rate=1e30))
    assert result.exit_code == 1
    assert "the critic's loss is" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "run" / "metrics.json").exists()


# Run folders --------------------------------------------------------------------------------------


def test_a_named_folder_that_is_not_empty_is_refused(few_samples, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "metrics.json").write_text("precious")
    (folder / "notes.txt").write_text("also precious")
    result = run_cli("--out", folder, *tiny_options())
    assert result.exit_code == 2
    assert result.stderr.startswith("error: --out:")
    assert "--overwrite" in result.stderr
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        "metrics.json": "precious",
        "notes.txt": "also precious",
    }

    assert run_cli("--out", folder, "--overwrite", *tiny_options()).exit_code == 0
    assert json.loads((folder / "metrics.json").read_text())["steps"] == 6
    assert (folder / "notes.txt").read_text() == "also precious"


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_a_file_is_no_run_folder(overwrite, tmp_path):
    (tmp_path / "run").write_text("precious")
    result = run_cli("--out", tmp_path / "run", *overwrite, *tiny_options())
    assert result.exit_code == 2
    assert "is a file" in result.stderr
    assert (tmp_path / "run").read_text() == "precious"


def test_the_default_folder_is_numbered_where_it_exists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [claim_run_folder(TrainConfig(seed=7)) for _ in range(3)]
    assert names == [Path("runs") / f"wgan-gp-25gaussians-seed7{suffix}" for suffix in ("", "-2", "-3")]


# The promise --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (1, 2))])
def test_the_default_run_learns_the_25_gaussians(seed, tmp_path):
    metrics = Trainer(TrainConfig(seed=seed, out=tmp_path / "run")).run()
    assert metrics["modes_covered"] >= 24
    assert metrics["share_within_3_sigma"] >= 0.5


@pytest.mark.slow
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


@pytest.mark.parametrize(
    ("error", "settings"),
    [
        (ValueError, {"threads": 100_000}),
        (TypeError, {"overwrite": "no"}),
        (TypeError, {"out": 5}),
        (TypeError, {"out": ""}),
        (TypeError, {"data": ["x"]}),
        (TypeError, {"conditional": 1}),
        (TypeError, {"colour": 3}),
        (TypeError, {"generator": torch.nn.Linear}),
    ],
)
def test_settings_of_the_wrong_kind(error: type, settings: dict[str, Any]) -> None:
    with pytest.raises(error, match=f"^{next(iter(settings))}: expected"):
        TrainConfig(**settings)
