"""What is done with a run: every algorithm, a user's own networks, samples, evaluation, export, alarms."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml

pytest.importorskip("wgan_fast.train", reason="the extra wgan_fast[train] is not installed")

from typer.testing import CliRunner

from wgan_fast.cli import app
from wgan_fast.train import TrainConfig, TrainedGenerator, Trainer
from wgan_fast.train.algorithms import ALGORITHMS
from wgan_fast.train.config import make_config
from wgan_fast.train.view.alarms import ROWS, Alarms
from wgan_fast.train.view.metrics import feature_distances

SMALL: dict[str, Any] = {"steps": 4, "batch_size": 16, "width": 8, "log_every": 2}

NETWORKS = """
import torch

class Flat(torch.nn.Module):
    def __init__(self, inputs, shape):
        super().__init__()
        self.layer, self.shape = torch.nn.Linear(inputs, torch.Size(shape).numel()), shape

    def forward(self, batch):
        return self.layer(batch.flatten(1)).unflatten(1, self.shape)

def make_generator(shape, latent_dimension, classes):
    return Flat(latent_dimension, shape)

def make_critic(shape, classes):
    return Flat(torch.Size(shape).numel(), (1,))

def make_wide_generator(shape, latent_dimension, classes):
    return Flat(latent_dimension, (*shape[:-1], shape[-1] + 1))

def make_features():
    return torch.nn.Flatten()

def make_short_generator(shape, latent_dimension, classes):
    return Flat(latent_dimension + 1, shape)

def make_bad_features():
    return torch.nn.Linear(1000, 1)
"""


@pytest.fixture(autouse=True)
def few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wgan_fast.train.view.evaluation.SAMPLES", 50)


def run(folder: Path, **settings: Any) -> dict[str, Any]:
    return Trainer(TrainConfig(**SMALL | settings, out=folder)).run()


def cli(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    run(tmp_path / "digits", data="digits", conditional=True, latent_dimension=4, steps=2)
    return tmp_path / "digits"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).normal((40, 1e5, 3), (10, 1e4, 1), (200, 3))
    np.savetxt(tmp_path / "people.csv", values, "%.6g", ",", header="age,income,rooms", comments="")
    run(tmp_path / "table", data=str(tmp_path / "people.csv"))
    return tmp_path / "table"


@pytest.fixture
def networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_networks.py").write_text(NETWORKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield "my_networks"
    sys.modules.pop("my_networks", None)


# Algorithms ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_trains_with_what_it_is_made_of(algorithm: str, tmp_path: Path) -> None:
    run(tmp_path, algorithm=algorithm, data="8gaussians")
    of = ALGORITHMS[algorithm]
    for row in rows(tmp_path):
        assert (of.estimate in row) and (row["penalty"] > 0) == (of.penalty is not None and algorithm != "wgan-lp")
        assert ("clip_saturation" in row) == (algorithm == "wgan")
        if of.estimate == "wasserstein":
            assert row["critic_loss"] == pytest.approx(row["penalty"] - row["wasserstein"], abs=1e-5)
        else:
            share = 2 if of.estimate == "jensen_shannon" else 1
            loss = row["critic_loss"] - row["penalty"]
            assert row[of.estimate] == pytest.approx(np.log(2) - loss / share, abs=1e-6)
            assert row[of.estimate] <= np.log(2)


@pytest.mark.parametrize(
    ("algorithm", "settings"),
    [
        ("wgan", {"learning_rate": 5e-5, "clip": 0.01, "n_critic": 5, "n_critic_boost": 100, "optimizer": "rmsprop"}),
        ("wgan-gp", {"learning_rate": 1e-4, "beta1": 0.0, "beta2": 0.9, "penalty_weight": 10.0, "n_critic": 5}),
        ("wgan-lp", {"learning_rate": 1e-4, "beta1": 0.0, "beta2": 0.9, "penalty_weight": 10.0, "n_critic": 5}),
        ("wgan-div", {"learning_rate": 2e-4, "beta1": 0.0, "beta2": 0.9, "penalty_weight": 2.0, "n_critic": 4}),
        ("dragan", {"learning_rate": 1e-4, "beta1": 0.5, "beta2": 0.9, "penalty_weight": 10.0, "batch_size": 128}),
        ("r1", {"learning_rate": 1e-4, "optimizer": "rmsprop", "penalty_weight": 10.0, "n_critic": 1}),
        ("r3gan", {"learning_rate": 2e-4, "beta1": 0.0, "beta2": 0.99, "penalty_weight": 2.0, "batch_size": 256}),
        ("nsgan", {"learning_rate": 2e-4, "beta1": 0.5, "beta2": 0.999, "batch_size": 128, "norm": "batch"}),
    ],
)
def test_published_settings(algorithm: str, settings: dict[str, Any]) -> None:
    config = TrainConfig(algorithm=algorithm, data="photos/")
    settings = {"batch_size": 64, **settings}
    assert {name: getattr(config, name) for name in settings} == settings


def test_published_settings_of_the_toys_and_of_the_resnet() -> None:
    toy = TrainConfig(faithful=True)
    assert (toy.penalty_weight, toy.batch_size, toy.learning_rate, toy.beta1, toy.n_critic) == (0.1, 256, 1e-4, 0.5, 5)
    resnet = TrainConfig(data="photos/", model="resnet")
    assert (resnet.learning_rate, resnet.decay, resnet.steps, resnet.beta2) == (2e-4, True, 100_000, 0.9)
    assert TrainConfig(faithful=True, n_critic=1).n_critic == 1


def test_the_boost_is_for_the_first_steps_and_every_500th(tmp_path: Path) -> None:
    trainer = Trainer(TrainConfig(algorithm="wgan", data="swissroll", faithful=True, width=4))
    counts = {step: trainer.steps.critic_updates(step) for step in (0, 24, 25, 499, 500, 501)}
    assert counts == {0: 100, 24: 100, 25: 5, 499: 5, 500: 100, 501: 5}


def test_a_lazy_penalty_weighs_more_and_comes_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(TrainConfig(penalty_every=3, width=4, penalty_weight=2.0))
    steps, taken = trainer.steps, []
    trainer.history = SimpleNamespace(add=lambda output, gradient_norm: None)
    choose = steps.critic_step

    def chosen(batch: int) -> Callable[..., None]:
        return lambda *samples: taken.append(choose(batch))

    monkeypatch.setattr(steps, "critic_step", chosen)
    for number in range(7):
        trainer.update_critic(trainer.data.batch(number, 4, 0, slice(None)))
    assert [step is steps.penalised for step in taken] == [True, False, False, True, False, False, True]
    assert {step is steps.unpenalised for step in taken} == {True, False}
    assert steps.penalised._critic_loss.penalty.keywords["weight"] == 6.0
    assert steps.unpenalised._critic_loss.penalty is None


@pytest.mark.parametrize(
    ("algorithm", "norm"),
    [
        ("wgan-gp", lambda penalty: 1 + (penalty / 2) ** 0.5 * np.array([-1, 1])),
        ("wgan-div", lambda penalty: (penalty / 2) ** (1 / 6)),
        ("r1", lambda penalty: penalty**0.5),
    ],
)
def test_the_logged_norm_is_the_penalty_s(algorithm: str, norm: Callable[[float], Any], tmp_path: Path) -> None:
    """The penalty of one sample gives its norm; a row without a penalty repeats the norm of the row before."""
    settings = {"batch_size": 1, "n_critic": 1, "log_every": 1, "penalty_every": 2, "penalty_weight": 1.0}
    run(tmp_path, algorithm=algorithm, data="8gaussians", **settings)
    found = rows(tmp_path)
    assert [row["penalty"] > 0 for row in found] == [True, False, True, False]
    for penalised, unpenalised in zip(found[::2], found[1::2], strict=True):
        expected = np.atleast_1d(norm(penalised["penalty"]))
        assert np.isclose(expected, penalised["gradient_norm"], rtol=1e-4).any()
        assert unpenalised["gradient_norm"] == penalised["gradient_norm"] > 0
    assert found[0]["gradient_norm"] != found[2]["gradient_norm"]


@pytest.mark.parametrize("settings", [{"algorithm": "gan"}, {"algorithm": "wgan"}, {"penalty_weight": 0.0}], ids=str)
def test_without_a_penalty_the_norm_is_evaluated(settings: dict[str, Any], tmp_path: Path) -> None:
    trainer = Trainer(TrainConfig(**SMALL | settings, out=tmp_path))
    asked, evaluate = [], trainer.evaluation.gradient_norm
    trainer.evaluation.gradient_norm = lambda *batch: asked.append(evaluate(*batch)) or asked[-1]
    trainer.run()
    assert [row["gradient_norm"] for row in rows(tmp_path)] == asked and min(asked) > 0 and len(asked) == 2


def test_a_paired_generator_compares_with_the_last_real_batch(tmp_path: Path) -> None:
    trainer = Trainer(
        TrainConfig(**SMALL | {"steps": 1}, algorithm="r3gan", data="digits", conditional=True, out=tmp_path)
    )
    batches, compared = [], []
    update_critic, generator_step = trainer.update_critic, trainer.steps.generator_step
    trainer.update_critic = lambda batch: batches.append(batch) or update_critic(batch)
    trainer.steps.generator_step = lambda *latents, real: compared.append(real) or generator_step(*latents, real=real)
    trainer.run()
    assert len(compared) == 1 and torch.equal(compared[0], batches[-1].samples)
    assert torch.equal(trainer.labels[0], batches[-1].labels)


@pytest.mark.parametrize("algorithm", ["wgan-gp", "r3gan"])
def test_half_precision_on_a_cpu(algorithm: str, tmp_path: Path) -> None:
    run(tmp_path, algorithm=algorithm, data="digits", latent_dimension=4, precision="bf16")
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["precision"] == "bf16"
    for row in rows(tmp_path):
        assert all(np.isfinite(value) for value in row.values()) and row["gradient_norm"] > 0


# Data and networks of one's own -------------------------------------------------------------------


def test_a_table_comes_back_in_its_units(table: Path, tmp_path: Path) -> None:
    result = cli("sample", table, "--count", 30, "--seed", 1, "--out", tmp_path / "synthetic.csv")
    assert result.exit_code == 0, result.output
    lines = (tmp_path / "synthetic.csv").read_text().splitlines()
    assert lines[0] == "age,income,rooms" and len(lines) == 31
    means = np.loadtxt(lines[1:], delimiter=",").mean(0)
    assert 0 < means[0] < 80 and 5e4 < means[1] < 1.5e5
    assert (table / "samples.png").read_bytes().startswith(b"\x89PNG")


def test_networks_of_ones_own(networks: str, tmp_path: Path) -> None:
    own = {"generator": f"{networks}:make_generator", "critic": f"{networks}:make_critic"}
    run(tmp_path / "run", data="digits", features=f"{networks}:make_features", steps=2, **own)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["fid"] > 0 and np.isfinite(metrics["kid"])
    samples, labels = TrainedGenerator.load(tmp_path / "run").sample(3)
    assert samples.shape == (3, 1, 16, 16) and labels is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--generator", "my_networks"], "--generator: expected module:function"),
        (["--generator", "my_networks:nothing"], "--generator: .* has no 'nothing'"),
        (["--critic", "nowhere:make"], "--critic: there is no module 'nowhere'"),
        (["--generator", "my_networks:make_wide_generator"], r"--generator: expected finite float32 samples \(2, 2\)"),
        (
            ["--generator", "my_networks:make_short_generator"],
            "--generator: RuntimeError: mat1 and mat2 .*my_networks.py, line 10",
        ),
        (["--generator", "my_networks:make_features"], "--generator: TypeError: make_features.. got an unexpected"),
        (["--features", "my_networks"], "--features: expected module:function"),
        (["--features", "my_networks:make_bad_features"], "--features: RuntimeError: mat1 and mat2 "),
        (["--width", "100000000"], "the memory does not suffice; a smaller --batch-size"),
        (["--data", "moons"], "--data: expected one of"),
        (["--data", "gone.csv"], "--data: there is no gone.csv"),
        (["--data", "my_networks.py"], "--data: "),
        (["--conditional"], "--conditional: expected data with labels"),
        (["--model", "dcgan"], "--model: dcgan and resnet make images"),
        (["--size", "32"], "--size: "),
        (["--data", "digits", "--depth", "2"], "--depth: that of dcgan follows"),
        (["--algorithm", "gan", "--penalty-weight", "1"], "--penalty-weight: gan has no penalty"),
    ],
)
def test_what_cannot_be_trained_is_told_before_anything_is_written(
    options: list[str], message: str, networks: str, tmp_path: Path
) -> None:
    result = cli("train", "--out", "run", *options)
    assert result.exit_code == (1 if "memory" in message else 2), result.output
    assert result.stderr.count("\n") == 1 and "Traceback" not in result.output
    assert re.match(f"error: {message}", result.stderr), result.stderr
    assert not (tmp_path / "run").exists()


# Samples ------------------------------------------------------------------------------------------


def test_samples_are_seeded_and_labelled(digits: Path, tmp_path: Path) -> None:
    generator = TrainedGenerator.load(digits)
    first, labels = generator.sample(12, seed=1)
    again, _ = generator.sample(12, seed=1)
    assert torch.equal(first, again) and labels.tolist() == [*range(10), 0, 1]
    other, sevens = generator.sample(12, seed=1, label=7)
    assert not torch.equal(first, other) and sevens.unique().tolist() == [7]
    for name in ("grid.png", "images.npy", "images.npz"):
        assert cli("sample", digits, "--count", 12, "--out", tmp_path / name).exit_code == 0
    assert np.load(tmp_path / "images.npy").shape == (12, 16, 16)
    assert np.load(tmp_path / "images.npz")["labels"].tolist() == labels.tolist()


def test_interpolations_begin_and_end_at_samples(digits: Path) -> None:
    generator = TrainedGenerator.load(digits)
    path, labels = generator.interpolations(2, 5, seed=3, label=4)
    ends, _ = generator.sample(4, seed=3, label=4)
    assert path.shape == (10, 1, 16, 16) and labels.tolist() == [4] * 10
    torch.testing.assert_close(path[[0, 5, 4, 9]], ends, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("error", "argument", "call"),
    [
        (TypeError, "count", lambda generator: generator.sample("ten")),
        (ValueError, "count", lambda generator: generator.sample(0)),
        (TypeError, "seed", lambda generator: generator.sample(2, seed="x")),
        (TypeError, "label", lambda generator: generator.sample(2, label="cat")),
        (ValueError, "label", lambda generator: generator.sample(2, label=10)),
        (ValueError, "rows", lambda generator: generator.interpolations(0, 4)),
        (ValueError, "steps", lambda generator: generator.interpolations(2, 1)),
        (ValueError, "path", lambda generator: generator.export(5)),
        (TypeError, "run", lambda generator: TrainedGenerator.load(5)),
        (ValueError, "run", lambda generator: TrainedGenerator.load("nowhere")),
        (TypeError, "config", lambda generator: Trainer("25gaussians")),
    ],
)
def test_wrong_arguments_are_named(error: type, argument: str, call: Any, digits: Path) -> None:
    generator = TrainedGenerator.load(digits)
    with pytest.raises(error, match=f"^{argument}: "):
        call(generator)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{}/nowhere"], "run: there is no checkpoint"),
        (["{}/config.yaml"], "run: {}/config.yaml is truncated, or no checkpoint"),
        (["{}", "--out", "{}/nowhere/samples.npy"], "--out: {}/nowhere/samples.npy cannot be written: No such file"),
        (["{}", "--label", "11"], "--label: expected a number from 0 to 9, got 11"),
        (["{}", "--label", "cat"], "--label: expected one of 0, 1, 2"),
        (["{}", "--out", "{}/samples.csv"], "--out: images go into a file of type .npy, .npz, .png"),
        (["{}", "--out", "{}/samples.gif"], "--out: images go into"),
    ],
)
def test_what_cannot_be_sampled_is_told(arguments: list[str], message: str, digits: Path) -> None:
    result = cli("sample", *(argument.format(digits) for argument in arguments))
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith(f"error: {message.format(digits)}") and result.stderr.count("\n") == 1


def test_the_exported_generator_needs_pytorch_alone(digits: Path, tmp_path: Path) -> None:
    result = cli("export", digits, "--out", tmp_path / "generator.pt2")
    assert result.exit_code == 0, result.output
    program = f"""
import sys
sys.modules["wgan_fast"] = None
import torch
generator = torch.export.load({str(tmp_path / "generator.pt2")!r}).module()
latents = torch.randn(5, 4, generator=torch.Generator().manual_seed(2))
torch.save(generator(latents, torch.arange(5)), {str(tmp_path / "samples.pt")!r})
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)
    expected, _ = TrainedGenerator.load(digits).sample(5, seed=2)
    torch.testing.assert_close(torch.load(tmp_path / "samples.pt"), expected)


def test_what_cannot_be_exported_or_evaluated_is_told(digits: Path) -> None:
    for arguments, message in (
        (["export", digits, "--out", digits / "generator.onnx"], "--out: expected a file of type .pt2"),
        (
            ["export", digits, "--out", digits / "nowhere" / "generator.pt2"],
            "--out: .* cannot be written: No such file",
        ),
        (["evaluate", digits / "checkpoint.pt"], "run: .* cannot be read: Not a directory"),
    ):
        result = cli(*arguments)
        assert result.exit_code == 2 and result.stderr.count("\n") == 1
        assert re.match(f"error: {message}", result.stderr), result.stderr
    assert not list(digits.glob("*.onnx")) and not list(digits.glob("unfinished-*"))


def test_a_run_of_several_processes_is_evaluated_by_one(digits: Path) -> None:
    state = torch.load(digits / "checkpoint.pt", weights_only=True)
    state["random"] *= 2
    torch.save(state, digits / "checkpoint.pt")
    assert cli("evaluate", digits, "--count", 50).exit_code == 0
    before = (digits / "config.yaml").read_bytes()
    result = cli("train", "--resume", "--out", digits, "--steps", 3)
    assert result.exit_code == 2 and result.stderr == "error: --resume: the run had 2 processes, now there are 1\n"
    assert (digits / "config.yaml").read_bytes() == before


def test_data_that_changed_are_told(table: Path) -> None:
    file = table.parent / "people.csv"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:100]))
    resumed = ["train", "--resume", "--steps", 5, "--out", table]
    for arguments, name in ((resumed, "--data"), (["evaluate", table], f"run: the data of {table}")):
        result = cli(*arguments)
        assert result.exit_code == 2
        assert result.stderr == f"error: {name}: {file} has other columns, other units or other classes than before\n"


def test_evaluate_gives_the_numbers_of_the_run(digits: Path) -> None:
    before = {file: file.read_bytes() for file in digits.iterdir() if file.is_file()}
    result = cli("evaluate", digits, "--count", 50)
    assert result.exit_code == 0, result.output
    found, metrics = json.loads(result.stdout), json.loads((digits / "metrics.json").read_text())
    assert found["earth_movers_distance"] == metrics["earth_movers_distance"] and found["step"] == 2
    assert {file: file.read_bytes() for file in digits.iterdir() if file.is_file()} == before


def test_fid_of_the_same_features_is_zero_and_grows_with_a_shift() -> None:
    real = torch.randn(400, 8, dtype=torch.float64).float()
    network = torch.nn.Identity()
    assert abs(feature_distances(network, real, real)["fid"]) < 1e-3
    shifted = feature_distances(network, real + 1, real)
    assert shifted["fid"] == pytest.approx(8, rel=1e-3) and shifted["kid"] > 0.1  # ||mean - mean||^2
    with pytest.raises(ValueError, match="^features: expected a network that returns features"):
        feature_distances(torch.nn.Unflatten(1, (2, 4)), real, real)


# Alarms -------------------------------------------------------------------------------------------


def row(**values: float) -> dict[str, float]:
    return {"step": 1, "gradient_norm": 1.0, **values}


@pytest.mark.parametrize(
    ("settings", "history", "words"),
    [
        ({}, [row(wasserstein=-0.1)] * ROWS, "the critic is under-trained"),
        ({}, [row(wasserstein=0.1 * 1.1**i) for i in range(6 * ROWS)], "keeps rising"),
        ({"algorithm": "gan"}, [row(jensen_shannon=0.6925)] * ROWS, "nearly perfect"),
        ({"algorithm": "r3gan"}, [row(relativistic_divergence=0.6925)] * ROWS, "from its real partner"),
        ({"penalty_weight": 10.0}, [row(wasserstein=0.1, gradient_norm=5.0)] * ROWS, "stay far from 1"),
        ({"penalty_weight": 10.0}, [row(wasserstein=0.1, gradient_norm=0.1)] * ROWS, "stay far from 1"),
        ({"algorithm": "wgan"}, [row(wasserstein=0.1, clip_saturation=0.95)] * ROWS, "at the bound of clipping"),
    ],
)
def test_illnesses_are_told_once(settings: dict[str, Any], history: list[dict[str, float]], words: str) -> None:
    alarms = Alarms(TrainConfig(**settings))
    assert alarms.new(history[:-1]) == []
    (message,) = alarms.new(history)
    assert words in message
    assert alarms.new([*history, history[-1]]) == []


def test_a_healthy_history_raises_no_alarm() -> None:
    history = [row(wasserstein=1 / (1 + i), clip_saturation=0.5) for i in range(50)]
    alarms = Alarms(TrainConfig(penalty_weight=10.0))
    assert not any(alarms.new(history[:count]) for count in range(1, 51))


# What takes long ----------------------------------------------------------------------------------


@pytest.mark.long
def test_memory_stays_flat_over_20000_steps(tmp_path: Path) -> None:
    program = f"""
import resource
from wgan_fast.train import TrainConfig, Trainer
peaks = []
update = Trainer.update_generator
def watched(self, real):
    update(self, real)
    if self.step in (4000, 20000):
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
Trainer.update_generator = watched
small = dict(data="8gaussians", batch_size=16, width=8, n_critic=1, log_every=100)
Trainer(TrainConfig(**small, steps=20_001, out={str(tmp_path)!r})).run()
print(peaks[1] - peaks[0])
"""
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert int(done.stdout.split()[-1]) < 20_000  # KiB, of about 700,000


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("algorithm", ["wgan-gp", "r3gan"])
def test_the_compiler_trains_as_well(algorithm: str, tmp_path: Path) -> None:
    for backend in ("eager", "compile"):
        run(tmp_path / backend, algorithm=algorithm, backend=backend, steps=6)
    eager, compiled = (TrainedGenerator.load(tmp_path / backend).sample(20)[0] for backend in ("eager", "compile"))
    torch.testing.assert_close(compiled, eager, rtol=1e-3, atol=1e-4)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("algorithm", ["wgan-gp", "r3gan"])
@pytest.mark.parametrize("precision", ["32", "bf16", "16"])
def test_on_a_gpu(precision: str, algorithm: str, tmp_path: Path) -> None:
    run(tmp_path, device="cuda", algorithm=algorithm, precision=precision, steps=12)
    assert all(np.isfinite(found["critic_loss"]) for found in rows(tmp_path))
    Trainer(make_config(None, {"resume": True, "out": tmp_path, "steps": 14})).run()


def test_settings_of_a_file_can_be_overridden(tmp_path: Path) -> None:
    text = "algorithm: wgan\nclip: 0.02\nsteps: 7\nlearning_rate: 1e-4\nprecision: 32\n"  # as people write them
    (tmp_path / "mine.yaml").write_text(text)
    config = make_config(tmp_path / "mine.yaml", {"steps": 9})
    assert (config.learning_rate, config.precision) == (1e-4, "32")
    assert (config.algorithm, config.clip, config.steps, config.optimizer) == ("wgan", 0.02, 9, "rmsprop")
