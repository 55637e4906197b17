"""The trainer: its data, its settings, and runs from the command line."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("ot", reason="the extra wgan_fast[train] is not installed")
pytest.importorskip("typer", reason="the extra wgan_fast[train] is not installed")

import yaml
from typer.testing import CliRunner

from wgan_fast.train import TrainConfig, Trainer
from wgan_fast.train.cli import app
from wgan_fast.train.data import DATASETS, GaussianMixture, make_data
from wgan_fast.train.metrics import earth_movers_distance, evaluate, near_modes
from wgan_fast.train.models import make_models
from wgan_fast.train.run_folder import RUN_FILES, claim_run_folder

TINY: dict[str, Any] = {"steps": 6, "batch_size": 16, "width": 8, "log_every": 4}


def stream(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def run_cli(*arguments: object):
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


def tiny_config(**settings: Any) -> TrainConfig:
    return TrainConfig(**TINY | settings)


def tiny_options(**settings: object) -> list[object]:
    options: list[object] = []
    for name, value in (TINY | settings).items():
        options += [f"--{name.replace('_', '-')}", value]
    return options


# Data ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DATASETS)
def test_samples_are_seeded_fresh_and_of_the_stated_shape(name):
    data = make_data(name)
    samples = data.sample(64, stream(0))
    assert samples.shape == (64, data.dimension)
    assert samples.dtype == torch.float32
    assert torch.equal(samples, data.sample(64, stream(0)))
    assert not torch.equal(samples, data.sample(64, stream(1)))
    batches = data.batches(64, stream(0))
    assert torch.equal(next(batches), samples)
    assert not torch.equal(next(batches), samples)


@pytest.mark.parametrize(
    ("name", "modes", "sigma"), [("25gaussians", 25, 0.05 / 2.828), ("8gaussians", 8, 0.02 / 1.414)]
)
def test_gaussians_have_their_centres_sigma_and_equal_shares(name, modes, sigma):
    data = make_data(name)
    assert data.centres is not None
    assert data.centres.shape == (modes, 2)
    assert data.sigma == sigma
    samples = data.sample(100_000, stream(0))
    nearest, near = near_modes(samples, data.centres, sigma)
    # A round Gaussian in the plane has 1 - exp(-9/2) of its mass within 3 sigma.
    assert near.float().mean().item() == pytest.approx(1 - math.exp(-4.5), abs=2e-3)
    assert torch.bincount(nearest, minlength=modes).float().div(len(samples)).sub(1 / modes).abs().max() < 5e-3
    for mode, centre in enumerate(data.centres):
        members = samples[nearest == mode]
        assert members.mean(dim=0).sub(centre).abs().max() < 0.1 * sigma
        assert members.std(dim=0).div(sigma).sub(1).abs().max() < 0.1


def test_centres_are_where_the_literature_puts_them():
    grid = make_data("25gaussians").centres
    assert grid is not None
    assert set(grid.unique().mul(2.828).round(decimals=4).tolist()) == {-4.0, -2.0, 0.0, 2.0, 4.0}
    circle = make_data("8gaussians").centres
    assert circle is not None
    torch.testing.assert_close(circle.norm(dim=1), torch.full((8,), 2 / 1.414))
    neighbours = circle.roll(1, dims=0)
    torch.testing.assert_close((circle - neighbours).norm(dim=1), torch.full((8,), 4 / 1.414 * math.sin(math.pi / 8)))


def test_swiss_roll_is_that_of_scikit_learn():
    datasets = pytest.importorskip("sklearn.datasets")
    theirs = torch.from_numpy(datasets.make_swiss_roll(2000, noise=0.25, random_state=0)[0][:, [0, 2]] / 7.5)
    others = torch.from_numpy(datasets.make_swiss_roll(2000, noise=0.25, random_state=1)[0][:, [0, 2]] / 7.5)
    ours = make_data("swissroll").sample(2000, stream(0))
    assert earth_movers_distance(ours, theirs) < 1.5 * earth_movers_distance(others, theirs)


def test_unknown_names_list_what_there_is():
    with pytest.raises(ValueError, match="data: expected one of 25gaussians, 8gaussians, swissroll, got 'moons'"):
        make_data("moons")
    with pytest.raises(ValueError, match="model: expected one of mlp, got 'vit'"):
        make_models("vit", 2, 2, 8, 1)


# Metrics ------------------------------------------------------------------------------------------


def test_metrics_of_samples_placed_by_hand():
    data = GaussianMixture(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), sigma=0.1)
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
        ({"algorithm": "dcgan"}, "algorithm: expected one of wgan-gp, got 'dcgan'"),
        ({"data": "moons"}, "data: expected one of 25gaussians, 8gaussians, swissroll, got 'moons'"),
        ({"model": "vit"}, "model: expected one of mlp, got 'vit'"),
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
    assert result.stderr.startswith(f"error: --{name.replace('_', '-')}: expected") or name == "device"
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
    monkeypatch.setattr("wgan_fast.train.trainer.EVALUATION_SAMPLES", 200)


# Runs ---------------------------------------------------------------------------------------------


def test_run_leaves_a_folder_that_reproduces_its_samples(few_samples, tmp_path):
    folder = tmp_path / "run"
    result = run_cli("--out", folder, *tiny_options(seed=3))
    assert result.exit_code == 0, result.output
    assert {path.name for path in folder.iterdir()} == set(RUN_FILES)
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
    assert set(checkpoint) == {"generator", "critic"}
    fresh = Trainer(config)
    fresh.averaged_generator.load_state_dict(checkpoint["generator"])
    fresh.critic.load_state_dict(checkpoint["critic"])
    assert fresh.evaluate() == {name: metrics[name] for name in fresh.evaluate()}


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
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_default_run_learns_the_25_gaussians(seed, tmp_path):
    metrics = Trainer(TrainConfig(seed=seed, out=tmp_path / "run")).run()
    assert metrics["modes_covered"] >= 24
    assert metrics["share_within_3_sigma"] >= 0.5


def test_interrupt_keeps_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    update_average = Trainer.update_average

    def interrupted(self: Trainer, step: int) -> None:
        update_average(self, step)
        if step == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "update_average", interrupted)
    folder = tmp_path / "run"
    result = run_cli("--out", folder, *tiny_options())
    assert result.exit_code == 130
    assert str(folder) in result.stderr
    assert set(torch.load(folder / "checkpoint.pt", weights_only=True)) == {"generator", "critic"}
    assert not (folder / "metrics.json").exists()


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
        (ValueError, {"data": ["x"]}),
    ],
)
def test_settings_of_the_wrong_kind(error: type, settings: dict[str, Any]) -> None:
    with pytest.raises(error, match=f"^{next(iter(settings))}: expected"):
        TrainConfig(**settings)
