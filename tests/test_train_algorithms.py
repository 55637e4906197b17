"""The algorithms: what each is made of, and its published settings."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

pytest.importorskip("wgan_fast.train.trainer", reason="the extra wgan_fast[train] is not installed")

from training import rows, run, small_config
from wgan_fast.train import TrainConfig, Trainer
from wgan_fast.train.algorithms import ALGORITHMS

pytestmark = pytest.mark.usefixtures("few_samples")


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
    trainer = Trainer(small_config(**settings, out=tmp_path))
    asked, evaluate = [], trainer.evaluation.gradient_norm
    trainer.evaluation.gradient_norm = lambda *batch: asked.append(evaluate(*batch)) or asked[-1]
    trainer.run()
    assert [row["gradient_norm"] for row in rows(tmp_path)] == asked and min(asked) > 0 and len(asked) == 2


def test_a_paired_generator_compares_with_the_last_real_batch(tmp_path: Path) -> None:
    trainer = Trainer(small_config(steps=1, algorithm="r3gan", data="digits", conditional=True, out=tmp_path))
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


@pytest.mark.parametrize("data", ["x.csv", "my/X.Parquet", "DataFrame"])
def test_tables_train_within_minutes_unless_the_published_settings_are_wanted(data):
    quick, faithful = (TrainConfig(data=data, faithful=faithful) for faithful in (False, True))
    assert (quick.steps, quick.n_critic, quick.batch_size) == (4000, 2, 250)
    assert (faithful.steps, faithful.n_critic, faithful.batch_size) == (100_000, 5, 64)
