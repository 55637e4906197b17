"""What the tests of the trainer share: small runs, batches, image files and small networks."""

import json
import multiprocessing
import os
import signal
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner, Result

from wgan_fast.cli import app
from wgan_fast.train import TrainConfig, Trainer
from wgan_fast.train.networks.named import Models, make_models
from wgan_fast.train.run import checkpoint
from wgan_fast.train.view import evaluation

SMALL: dict[str, Any] = {"steps": 4, "batch_size": 16, "width": 8, "log_every": 2, "threads": 1}


def small_config(**settings: Any) -> TrainConfig:
    return TrainConfig(**SMALL | settings)


def run(folder: Path, **settings: Any) -> dict[str, Any]:
    """The metrics of a small run."""
    return Trainer(small_config(**settings, out=folder)).run()


def cli(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def begin_command(errors: Path, *arguments: object) -> BaseProcess:
    """A command in a process and a process group of its own; its errors go into a file.

    It is forked from a process that has imported the library, which takes some seconds.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["wgan_fast.train.trainer", "training"])
    process = context.Process(target=_command, args=(errors, [str(argument) for argument in arguments]))
    process.start()
    return process


def wait_for_rows(process: BaseProcess, folder: Path, count: int) -> None:
    """Until the history of its run has as many rows, or it has ended."""
    file = folder / "metrics.jsonl"
    while process.is_alive() and (file.read_bytes().count(b"\n") if file.exists() else 0) < count:
        time.sleep(0.001)


def _command(errors: Path, arguments: list[str]) -> None:
    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it
    for number, file in ((1, os.devnull), (2, errors)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    evaluation.SAMPLES = 50
    app(arguments)


def options(**settings: object) -> list[str]:
    """Of `wgan-fast train`, for a small run."""
    return [item for name, value in (SMALL | settings).items() for item in (f"--{name.replace('_', '-')}", str(value))]


def rows(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def everything(folder: Path) -> dict[str, Any]:
    """All that a checkpoint holds, but for what describes the run."""
    state = torch.load(folder / checkpoint.NAME, weights_only=True)
    return {name: value for name, value in state.items() if name not in ("config", "codec", "networks", "identity")}


def assert_same(batch, other):
    assert torch.equal(batch.samples, other.samples)
    assert (batch.labels is None) == (other.labels is None)
    assert batch.labels is None or torch.equal(batch.labels, other.labels)


def write_image(path, mode="RGB", size=(20, 20), **options):
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.effect_noise(size, 50).convert(mode).save(path, **options)


LATENT = 6
CASES = [
    ("mlp", (2,)),
    ("mlp", (1, 5, 7)),
    ("dcgan", (1, 28, 28)),
    ("resnet", (3, 31, 48)),
    *((name, (channels, side, side)) for name in ("dcgan", "resnet") for channels, side in ((3, 16), (1, 32), (3, 64))),
]
cases = pytest.mark.parametrize(("name", "shape"), CASES)
with_and_without_classes = pytest.mark.parametrize("classes", [0, 3])


def tiny_models(name: str, shape: tuple[int, ...], classes: int = 0, norm: str = "none", width: int = 4) -> Models:
    return make_models(name, shape, latent_dimension=LATENT, width=width, classes=classes, norm=norm)


def some_labels(count: int, classes: int) -> tuple[Tensor, ...]:
    return (torch.arange(count) % classes,) if classes else ()


def parameter_count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def convolution(inputs: int, outputs: int, size: int) -> int:
    """Weights and biases."""
    return inputs * outputs * size**2 + outputs
