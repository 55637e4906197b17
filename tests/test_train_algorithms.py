"""The algorithms: what each is made of, and its published settings."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("wgan_fast.train.trainer", reason="the extra wgan_fast[train] is not installed")

from training import rows, run
from wgan_fast.train import TrainConfig
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
            assert row["jensen_shannon"] <= np.log(2)


@pytest.mark.parametrize(
    ("algorithm", "settings"),
    [
        ("wgan", {"learning_rate": 5e-5, "clip": 0.01, "n_critic": 5, "n_critic_boost": 100, "optimizer": "rmsprop"}),
        ("wgan-gp", {"learning_rate": 1e-4, "beta1": 0.0, "beta2": 0.9, "penalty_weight": 10.0, "n_critic": 5}),
        ("wgan-lp", {"learning_rate": 1e-4, "beta1": 0.0, "beta2": 0.9, "penalty_weight": 10.0, "n_critic": 5}),
        ("wgan-div", {"learning_rate": 2e-4, "beta1": 0.0, "beta2": 0.9, "penalty_weight": 2.0, "n_critic": 4}),
        ("dragan", {"learning_rate": 1e-4, "beta1": 0.5, "beta2": 0.9, "penalty_weight": 10.0, "batch_size": 128}),
        ("r1", {"learning_rate": 1e-4, "optimizer": "rmsprop", "penalty_weight": 10.0, "n_critic": 1}),
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
