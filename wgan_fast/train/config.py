"""Every setting of a run, in one place, checked before anything begins."""

import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import yaml

from wgan_fast.train.data import DATASETS
from wgan_fast.train.models import MODELS

ALGORITHMS = ("wgan-gp",)


@dataclass(frozen=True)
class TrainConfig:
    """Every setting of a run. The defaults learn the 25 Gaussians in about a minute on two cores.

    The error of a wrong value starts with the setting's name.

    Attributes:
        algorithm: what is trained; ``wgan-gp`` (Gulrajani et al., 2017, algorithm 1).
        data: where real samples come from, a name in :data:`~wgan_fast.train.data.DATASETS`.
        model: the pair of networks, a name in :data:`~wgan_fast.train.models.MODELS`.
        steps: updates of the generator.
        batch_size: real samples, and generated ones, per update.
        n_critic: updates of the critic per update of the generator.
        learning_rate: of Adam, for both networks; it falls linearly to 0 over the run.
        beta1: Adam's decay of the gradients' mean.
        beta2: Adam's decay of the gradients' squares.
        penalty_weight: weight of the gradient penalty.
        latent_dimension: coordinates of the generator's input.
        width: units of each hidden layer, in both networks.
        depth: hidden layers, in both networks.
        average_decay: share that the averaged generator keeps of itself at each step; samples are drawn from it.
        log_every: generator steps per row of the history; a row holds their means.
        seed: decides the initial weights, the training samples and the held-out samples, each by a stream of its own.
        threads: CPU threads that an operation of PyTorch may use during the run. More than one gains networks as small
            as the default's nothing, and makes them crawl where other programs keep the cores busy.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        out: the run folder; None is ``runs/<algorithm>-<data>-seed<seed>``, with a number behind it where that exists.
        overwrite: let a run replace the files of the one that is in the folder.
    """

    algorithm: str = "wgan-gp"
    data: str = "25gaussians"
    model: str = "mlp"
    steps: int = 4000
    batch_size: int = 256
    n_critic: int = 2
    learning_rate: float = 2e-3
    beta1: float = 0.0
    beta2: float = 0.9
    penalty_weight: float = 0.1
    latent_dimension: int = 2
    width: int = 128
    depth: int = 3
    average_decay: float = 0.999
    log_every: int = 25
    seed: int = 0
    threads: int = 1
    device: str = "cpu"
    out: Path | str | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name, choices in {"algorithm": ALGORITHMS, "data": DATASETS, "model": MODELS}.items():
            if not isinstance(getattr(self, name), str) or getattr(self, name) not in choices:
                raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {getattr(self, name)!r}")
        for name in ("steps", "batch_size", "n_critic", "latent_dimension", "width", "depth", "log_every", "threads"):
            self._check_integer(name, minimum=1)
        self._check_integer("seed", minimum=0)
        if self.threads > (os.cpu_count() or 1):
            raise ValueError(
                f"threads: expected at most the {os.cpu_count()} processors of this machine, got {self.threads}"
            )
        if not isinstance(self.overwrite, bool):
            raise TypeError(f"overwrite: expected True or False, got {self.overwrite!r}")
        if self.out is not None and (not isinstance(self.out, str | Path) or not str(self.out)):
            raise TypeError(f"out: expected a path, got {self.out!r}")
        self._check_number("learning_rate", "a number above 0", lambda value: value > 0)
        self._check_number("penalty_weight", "a number of at least 0", lambda value: value >= 0)
        for name in ("beta1", "beta2", "average_decay"):
            self._check_number(name, "a number from 0 to below 1", lambda value: 0 <= value < 1)
        self._check_device()

    def _check_integer(self, name: str, minimum: int) -> None:
        value = getattr(self, name)
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name}: expected an integer, got {value!r}")
        if value < minimum:
            raise ValueError(f"{name}: expected an integer of at least {minimum}, got {value}")

    def _check_number(self, name: str, wanted: str, accept: Callable[[float], bool]) -> None:
        value = getattr(self, name)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise TypeError(f"{name}: expected {wanted}, got {value!r}")
        if not (math.isfinite(value) and accept(value)):
            raise ValueError(f"{name}: expected {wanted}, got {value}")

    def _check_device(self) -> None:
        try:
            device = torch.device(self.device)
        except (RuntimeError, TypeError) as error:
            raise ValueError(f"device: expected cpu, cuda or cuda:N, got {self.device!r}") from error
        if device.type not in ("cpu", "cuda"):
            raise ValueError(f"device: expected cpu, cuda or cuda:N, got {self.device!r}")
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise ValueError(
                f"device: PyTorch finds {torch.cuda.device_count()} CUDA devices here, got {self.device!r}"
            )

    def to_yaml(self) -> str:
        """What decides the run's result, as YAML; not where it goes."""
        settings = asdict(self)
        del settings["out"], settings["overwrite"]
        return yaml.safe_dump(settings, sort_keys=False)
