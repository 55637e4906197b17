"""Alarms: what looks wrong in the history of a run."""

from typing import Any

import pytest

pytest.importorskip("wgan_fast.train.trainer", reason="the extra wgan_fast[train] is not installed")

from wgan_fast.train import TrainConfig
from wgan_fast.train.view.alarms import ROWS, Alarms


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
        ({"algorithm": "wgan"}, [row(wasserstein=0.1, clip_saturation=0.95)] * ROWS, "at the clipping bound"),
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
