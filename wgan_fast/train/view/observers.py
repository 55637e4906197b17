"""What watches a run: called after each step of the generator, with the row of the history that the step completed."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lightning.fabric.loggers.tensorboard import TensorBoardLogger

from wgan_fast.train.config import TrainConfig
from wgan_fast.train.run.history import History, Row
from wgan_fast.train.view.alarms import Alarms
from wgan_fast.train.view.evaluation import Evaluation, warning_of
from wgan_fast.train.view.progress import ProgressDisplay

#: ``(step, row)``: the steps done, and the row that this one completed, or None.
Observer = Callable[[int, Row | None], None]

#: Samples compared by an evaluation during training, fewer than at the end.
WATCHED_SAMPLES = 500


def due(step: int, every: int, steps: int) -> bool:
    """Whether something that happens at each ``every``-th step and at the last one happens now."""
    return step % every == 0 or step == steps


@contextmanager
def watch(
    config: TrainConfig,
    folder: Path,
    evaluation: Evaluation,
    history: History,
    display: ProgressDisplay,
    *,
    active: bool = True,
) -> Iterator[list[Observer]]:
    """The observers of a run, until the block ends; none where it is not ``active``, in all processes but the first."""
    if not active:
        yield []
        return
    logger = TensorBoardLogger(folder, name="tensorboard", version="")
    try:
        yield [
            harmless("log", log(logger), display),
            harmless("alarms", alarms(config, history.rows, display), display),
            harmless("evaluation", evaluations(config, evaluation, logger, display), display),
            harmless("picture", pictures(config, evaluation, folder), display),
            harmless("progress", lambda step, row: display.update(step, history.rows), display),
        ]
    finally:
        with warning_of("log", display.say):
            logger.finalize("")  # whatever ended the run


def harmless(name: str, observe: Observer, display: ProgressDisplay) -> Observer:
    """An observer whose faults are warnings: what looks at a run must not end it."""

    def observed(step: int, row: Row | None) -> None:
        with warning_of(f"step {step}: {name}", display.say):
            observe(step, row)

    return observed


def log(logger: TensorBoardLogger) -> Observer:
    """Writes each row for TensorBoard."""

    def observe(step: int, row: Row | None) -> None:
        if row is not None:
            logger.log_metrics(row, step)

    return observe


def alarms(config: TrainConfig, rows: Sequence[Row], display: ProgressDisplay) -> Observer:
    """Shows what looks wrong in the rows so far."""
    watching = Alarms(config)

    def observe(step: int, row: Row | None) -> None:
        if row is not None:
            for message in watching.new(rows):
                display.say(f"step {step}: {message}")

    return observe


def pictures(config: TrainConfig, evaluation: Evaluation, folder: Path) -> Observer:
    """Draws samples at every ``sample_every``-th step."""

    def observe(step: int, row: Row | None) -> None:
        if due(step, config.sample_every, config.steps):
            evaluation.draw(folder / "samples" / f"{step:06d}.png")

    return observe


def evaluations(
    config: TrainConfig, evaluation: Evaluation, logger: TensorBoardLogger, display: ProgressDisplay
) -> Observer:
    """Compares samples with held-out ones at every ``evaluate_every``-th step but the last, which has its own."""

    def observe(step: int, row: Row | None) -> None:
        if step % config.evaluate_every == 0 and step < config.steps:
            found = {name: value for name, value in evaluation.evaluate(WATCHED_SAMPLES).items() if value is not None}
            logger.log_metrics(found, step)
            display.say(f"step {step}: {', '.join(f'{name} {value:.4g}' for name, value in found.items())}")

    return observe
