"""What watches a run: called after each step of the generator, with the row of the history that the step completed."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from lightning.fabric.loggers.csv_logs import CSVLogger
from lightning.fabric.loggers.logger import Logger
from lightning.fabric.loggers.tensorboard import TensorBoardLogger
from PIL import Image

from wgan_fast._checks import ArgumentValueError
from wgan_fast.train.config import TrainConfig
from wgan_fast.train.networks.named import load_factory
from wgan_fast.train.run.history import History, Row
from wgan_fast.train.view.alarms import Alarms
from wgan_fast.train.view.evaluation import Evaluation, warning_of
from wgan_fast.train.view.metrics import Metrics
from wgan_fast.train.view.progress import ProgressDisplay

#: ``(step, row)``: the steps done, and the row that this one completed, or None.
Observer = Callable[[int, Row | None], None]

#: Samples compared by an evaluation during training, fewer than at the end.
WATCHED_SAMPLES = 500


def due(step: int, every: int, steps: int) -> bool:
    """Whether something that happens at each ``every``-th step and at the last one happens now."""
    return step % every == 0 or step == steps


class Watched(Protocol):
    """What is watched: a :class:`.trainer.Trainer`."""

    config: TrainConfig
    folder: Path | None
    evaluation: Evaluation
    history: History
    rank: int
    make_logger: Callable[[Path], Logger]

    def keep_if_best(self, found: Metrics) -> None: ...


@contextmanager
def watch(run: Watched, display: ProgressDisplay) -> Iterator[list[Observer]]:
    """The observers of a run, until the block ends; none in all processes but the first."""
    if run.rank != 0:
        yield []
        return
    assert run.folder is not None
    logger, config, evaluation = run.make_logger(run.folder), run.config, run.evaluation
    try:
        yield [
            harmless("log", log(logger), display),
            harmless("alarms", alarms(config, run.history.rows, display), display),
            harmless("evaluation", evaluations(config, evaluation, logger, display, run.keep_if_best), display),
            harmless("picture", pictures(config, evaluation, run.folder, logger), display),
            harmless("progress", lambda step, row: display.update(step, run.history.rows), display),
        ]
    finally:
        with warning_of("log", display.say):
            logger.finalize("")  # whatever ended the run


def load_logger(name: str) -> Callable[[Path], Logger]:
    """Makes the logger that ``--logger`` names, of a run folder.

    A class of the user's gets the folder as ``root_dir`` or ``save_dir``, if it takes one of them.

    Raises:
        ValueError: there is no such logger.
    """
    if name in ("tensorboard", "csv"):
        kind: Callable[..., Logger] = TensorBoardLogger if name == "tensorboard" else CSVLogger
        return lambda folder: kind(folder, name=name, version="")
    if ":" not in name:
        raise ArgumentValueError("logger", f"expected tensorboard, csv or my.module:MyLogger, got {name!r}")
    factory: Callable[..., Any] = load_factory(name, "logger")
    takes = next((word for word in ("root_dir", "save_dir") if word in inspect.signature(factory).parameters), None)
    return lambda folder: factory(**{takes: folder} if takes else {})


def harmless(name: str, observe: Observer, display: ProgressDisplay) -> Observer:
    """An observer whose faults are warnings: what looks at a run must not end it."""

    def observed(step: int, row: Row | None) -> None:
        with warning_of(f"step {step}: {name}", display.say):
            observe(step, row)

    return observed


def log(logger: Logger) -> Observer:
    """Logs each row."""

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


def pictures(config: TrainConfig, evaluation: Evaluation, folder: Path, logger: Logger | None = None) -> Observer:
    """Draws samples at every ``sample_every``-th step, for TensorBoard too."""

    def observe(step: int, row: Row | None) -> None:
        if due(step, config.sample_every, config.steps):
            path = folder / "samples" / f"{step:06d}.png"
            evaluation.draw(path)
            if isinstance(logger, TensorBoardLogger):
                with Image.open(path) as picture:
                    logger.experiment.add_image("samples", np.asarray(picture.convert("RGB")), step, dataformats="HWC")

    return observe


def evaluations(
    config: TrainConfig,
    evaluation: Evaluation,
    logger: Logger,
    display: ProgressDisplay,
    keep_if_best: Callable[[Metrics], None] = lambda found: None,
) -> Observer:
    """Compares samples with held-out ones at every ``evaluate_every``-th step but the last, which has its own; at the
    last one too if a best checkpoint is kept.
    """

    def observe(step: int, row: Row | None) -> None:
        last = step == config.steps
        if (step % config.evaluate_every == 0 and not last) or (last and config.best is not None):
            found = {name: value for name, value in evaluation.evaluate(WATCHED_SAMPLES).items() if value is not None}
            logger.log_metrics(found, step)
            display.say(f"step {step}: {', '.join(f'{name} {value:.4g}' for name, value in found.items())}")
            keep_if_best({**found})

    return observe
