"""A time budget becomes a number of steps before the run begins."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("wgan_fast.train.trainer", reason="the extra wgan_fast[train] is not installed")

from training import SMALL, cli, everything, options, run
from wgan_fast.train import TrainConfig
from wgan_fast.train.config import BUDGET, make_config, seconds_of

pytestmark = pytest.mark.usefixtures("few_samples")


def test_times_are_read() -> None:
    assert [seconds_of(time) for time in ("20s", "90m", "90 min", "2h", "1.5d")] == [20, 5400, 5400, 7200, 129600]
    for wrong in ("2", "2x", "0h", "-1h", "", "h", "1e9h", "nan", 2, "2h3m"):
        with pytest.raises(ValueError, match="^budget: expected a time such as 90m, 2h or 1d, got"):
            TrainConfig(budget=wrong)


@pytest.mark.parametrize(
    ("settings", "budget"),
    [
        ({"data": "photos/"}, BUDGET),
        ({"data": "photos/", "steps": 9}, None),
        ({"data": "photos/", "budget": "1d"}, "1d"),
        ({"data": "photos/", "faithful": True}, None),
        ({"data": "25gaussians"}, None),
        ({"data": "digits"}, None),
    ],
)
def test_own_data_have_a_budget_unless_there_are_steps(settings: dict[str, Any], budget: str | None) -> None:
    assert TrainConfig(**settings).budget == budget


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({"n_critic": 2}, 36),  # 0.9 * 100 s of 2 * 1 s + 0.5 s
        ({"n_critic": 2, "n_critic_boost": 3}, 26),  # 25 of 3.5 s, one of 2.5 s
        ({"n_critic": 200}, 1),
        ({"n_critic": 2, "steps": 7}, 7),
    ],
)
def test_steps_that_end_within_the_budget(
    settings: dict[str, Any], steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wgan_fast.train.budget._seconds", lambda *args: (1.0, 0.5))
    seen = []
    monkeypatch.setattr("wgan_fast.train.trainer.Trainer.run", lambda self: seen.append(self.config))
    run(tmp_path / "run", **{"steps": 1000} | settings, budget="100s")
    assert (seen[0].steps, seen[0].budget) == (steps, None)


@pytest.mark.parametrize("algorithm", ["wgan-gp", "r3gan"])
def test_a_run_with_a_budget_is_the_run_of_as_many_steps(
    algorithm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is trained to measure the time leaves no trace. The same command goes on with the same number of steps."""
    monkeypatch.setattr("wgan_fast.train.budget._TIMED", 0.0)
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(60, 3)))
    settings = {"data": str(tmp_path / "x.npy"), "algorithm": algorithm}
    run(tmp_path / "plain", **settings)
    given = ["train", *options(**settings, budget="1d"), "--resume", "auto", "--out", tmp_path / "run"]
    result = cli(*given)
    assert "\n4 of 4 steps, for a budget of 1d (--budget, --steps)\n" in result.stdout, result.output
    assert str(everything(tmp_path / "run")) == str(everything(tmp_path / "plain"))
    assert make_config(tmp_path / "run" / "config.yaml", {}).to_dict() == TrainConfig(**SMALL | settings).to_dict()
    result = cli(*given)
    assert result.exit_code == 0 and "for a budget" not in result.output, result.output
    result = cli("train", "--resume", "--out", tmp_path / "run", "--budget", "1h")
    assert result.stderr.startswith("error: --budget: a run that goes on keeps its number of steps"), result.output
