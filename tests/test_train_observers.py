"""What watches a run, and when."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("wgan_fast.train.trainer", reason="the extra wgan_fast[train] is not installed")

from training import cli, options, run, small_config
from wgan_fast.train import TrainedGenerator
from wgan_fast.train.view import observers


@pytest.mark.parametrize(("every", "steps", "at"), [(3, 7, [3, 6, 7]), (3, 6, [3, 6]), (10, 4, [4]), (1, 3, [1, 2, 3])])
def test_what_is_due_at_each_nth_step_and_at_the_last(every: int, steps: int, at: list[int]) -> None:
    assert [step for step in range(1, steps + 1) if observers.due(step, every, steps)] == at


def test_pictures_are_numbered_by_their_step(tmp_path: Path) -> None:
    drawn: list[Path] = []
    observe = observers.pictures(small_config(steps=5, sample_every=2), SimpleNamespace(draw=drawn.append), tmp_path)
    for step in range(1, 6):
        observe(step, None)
    assert drawn == [tmp_path / "samples" / f"00000{step}.png" for step in (2, 4, 5)]


def test_the_last_evaluation_is_left_to_the_end_of_the_run() -> None:
    counts, logged, said = [], [], []

    def evaluate(count: int) -> dict[str, Any]:
        counts.append(count)
        return {"earth_movers_distance": 0.123456, "modes_covered": None}

    observe = observers.evaluations(
        small_config(steps=6, evaluate_every=2),
        SimpleNamespace(evaluate=evaluate),
        SimpleNamespace(log_metrics=lambda found, step: logged.append((step, found))),
        SimpleNamespace(say=said.append),
    )
    for step in range(1, 7):
        observe(step, None)
    assert counts == [500, 500]
    assert logged == [(step, {"earth_movers_distance": 0.123456}) for step in (2, 4)]
    assert said == [f"step {step}: earth_movers_distance 0.1235" for step in (2, 4)]


def test_rows_alone_are_logged_and_alarm() -> None:
    logged, said, rows = [], [], []
    log = observers.log(SimpleNamespace(log_metrics=lambda row, step: logged.append((step, row))))
    alarm = observers.alarms(small_config(), rows, SimpleNamespace(say=said.append))
    for step in range(1, 101):
        row = {"step": step, "gradient_norm": 1.0, "wasserstein": -0.1} if step % 2 == 0 else None
        rows += [row] if row else []
        log(step, row)
        alarm(step, row)
    assert logged == [(row["step"], row) for row in rows]
    (message,) = said
    assert message.startswith("step ") and "under-trained" in message


def test_other_processes_watch_nothing(tmp_path: Path) -> None:
    with observers.watch(SimpleNamespace(rank=1), None) as watching:
        assert watching == []
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("odd\nmore"), RuntimeError("")])
def test_what_looks_at_a_run_does_not_end_it(error: Exception) -> None:
    said: list[str] = []

    def observe(step: int, row: object) -> None:
        raise error

    observers.harmless("picture", observe, SimpleNamespace(say=said.append))(7, None)
    (message,) = said
    assert message.startswith("warning: step 7: picture: ") and message.endswith("; the training is not affected")
    assert "\n" not in message


@pytest.mark.parametrize(
    "fault",
    [
        "observers.TensorBoardLogger.log_metrics",
        "observers.TensorBoardLogger.finalize",
        "observers.Alarms.new",
        "evaluation.Evaluation.draw",
        "evaluation.Evaluation.evaluate",
        "evaluation.plots.plot_curve",
        "evaluation.json.dumps",
        "progress.ProgressDisplay.update",
    ],
)
def test_a_run_outlives_each_fault(
    fault: str, few_samples: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And ends with the checkpoint and the metrics that remain."""

    def failing(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"wgan_fast.train.view.{fault}", failing)
    result = cli("train", "--out", tmp_path / "run", *options(sample_every=2, evaluate_every=2))
    assert result.exit_code == 0 and result.stdout.count("warning: ") >= 1, result.output
    assert torch.load(tmp_path / "run" / "checkpoint.pt")["step"] == 4


class Kept:
    """A logger of a user's."""

    def __init__(self, save_dir):
        self.file = Path(save_dir) / "kept.txt"

    def log_metrics(self, metrics, step):
        with self.file.open("a") as file:
            file.write(f"{step}\n")

    def finalize(self, status):
        with self.file.open("a") as file:
            file.write("end\n")


def test_loggers_of_fabric_and_of_users(few_samples: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path / "csv", logger="csv")
    assert (tmp_path / "csv" / "csv" / "metrics.csv").read_text().startswith("critic_loss,")
    run(tmp_path / "csv", logger="csv", overwrite=True)  # its files are of the run
    monkeypatch.syspath_prepend(Path(__file__).parent)
    run(tmp_path / "own", logger="test_train_observers:Kept")
    assert (tmp_path / "own" / "kept.txt").read_text() == "2\n4\nend\n"
    result = cli("train", "--config", tmp_path / "own" / "config.yaml", "--out", tmp_path / "again")
    assert result.exit_code == 2 and "would run code: logger test_train_observers:Kept" in result.stderr
    result = cli("train", "--logger", "nothing", "--out", tmp_path / "x")
    assert result.exit_code == 2 and result.stderr.startswith("error: --logger: expected tensorboard, csv or ")


def test_tensorboard_has_the_pictures(few_samples: None, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run(tmp_path / "run", sample_every=2)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert [image.step for image in events.Images("samples")] == [2, 4]


def test_the_best_checkpoint_is_kept(few_samples: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of values 3, 1, 2 that of the second evaluation, also where the run was resumed between them."""
    values = iter([3.0, 1.0, 2.0, 9.0, 9.0])
    monkeypatch.setattr(
        "wgan_fast.train.view.evaluation.Evaluation.evaluate",
        lambda self, count=None: {"earth_movers_distance": next(values), "modes_total": None},
    )
    best = {"best": "earth_movers_distance", "evaluate_every": 1}
    run(tmp_path / "run", steps=2, **best)
    run(tmp_path / "run", steps=3, resume=True, **best)
    assert torch.load(tmp_path / "run" / "best.pt")["step"] == 2
    assert TrainedGenerator.load(tmp_path / "run" / "best.pt").step == 2
    with pytest.raises(ValueError, match="best: fid needs features"):
        small_config(best="fid")
