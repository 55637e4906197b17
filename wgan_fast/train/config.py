"""Every setting of a run, declared once and checked before the run starts."""

import difflib
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import Field, asdict, dataclass, field, fields
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import torch
import yaml

from wgan_fast._checks import ArgumentTypeError, ArgumentValueError, check_flag, check_integer, check_number
from wgan_fast.step import BACKENDS, Backend
from wgan_fast.train.algorithms import ALGORITHMS, preset
from wgan_fast.train.augmentation import OPERATIONS, check_operations
from wgan_fast.train.data.images import image_size
from wgan_fast.train.data.sources import DATASETS
from wgan_fast.train.data.toys import TOYS
from wgan_fast.train.networks.named import MODELS
from wgan_fast.train.run.contents import CONFIG, check_trust, has_checkpoint, load_flat_yaml

# The names that settings accept, for type checkers; a test compares them with ALGORITHMS and MODELS.
AlgorithmName = Literal["gan", "nsgan", "wgan", "wgan-gp", "wgan-lp", "wgan-div", "dragan", "r1", "r3gan"]
ModelName = Literal["mlp", "dcgan", "resnet"]
OptimizerName = Literal["adam", "rmsprop"]
NormName = Literal["none", "batch"]
PrecisionName = Literal["32", "bf16", "16"]

OPTIMIZERS = get_args(OptimizerName)
NORMS = get_args(NormName)
#: Metrics that the best checkpoint may be chosen by; those of features come from a network.
METRICS_OF_FEATURES = ("fid", "kid", "precision", "recall")
METRICS = ("earth_movers_distance", "sliced_wasserstein", *METRICS_OF_FEATURES)
PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}  #: ours, and Fabric's


#: The default of ``budget`` for data of the user's own.
BUDGET = "2h"
_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}

MAX_INTEGER = 2**63 - 1

# The arguments of check_number, for settings of type float.
_POSITIVE = {"above": 0.0, "wanted": "a number above 0"}
_NOT_NEGATIVE = {"minimum": 0.0, "wanted": "a number of at least 0"}
_SHARE = {"minimum": 0.0, "below": 1.0, "wanted": "a number from 0 to below 1"}


def _setting(
    default: Any,
    text: str,
    *,
    minimum: int | None = None,
    number: Mapping[str, Any] | None = None,
    choices: Collection[str] | None = None,
    fixed: bool = False,
    place: bool = False,
) -> Any:
    """A field of :class:`TrainConfig` with its help text.

    ``minimum`` is the lower bound of an integer, ``number`` the range of a float, ``choices`` are the accepted names.
    ``fixed`` settings cannot change when a run resumes. ``place`` settings (where a run is written, how it starts) do
    not affect the result and are not saved.
    """
    rules = {"minimum": minimum, "number": number, "choices": choices, "fixed": fixed, "place": place}
    return field(default=default, metadata={"help": text, **rules})


@dataclass(frozen=True)
class TrainConfig:
    """Every setting of a run; the error of a wrong value starts with the setting's name.

    Omitted settings and None are taken from the algorithm's preset (:func:`wgan_fast.train.algorithms.preset`), the
    data or the model. The defaults learn the 25 Gaussians in about a minute on two cores.
    """

    algorithm: AlgorithmName = _setting(
        "wgan-gp", f"What to train: {', '.join(ALGORITHMS)}.", choices=ALGORITHMS, fixed=True
    )
    data: str = _setting(
        "25gaussians",
        f"{', '.join(DATASETS)}; a folder of images, a .npy or .npz file, a table (.csv, .tsv, .parquet).",
    )
    size: int | str | None = _setting(None, "Side of the images, or HEIGHTxWIDTH.", fixed=True)
    colour: bool | None = _setting(None, "3 channels per image, or 1.", fixed=True)
    alpha: bool = _setting(False, "Keep transparency, else blended with white.", fixed=True)
    model: ModelName | None = _setting(
        None,
        f"The networks: {', '.join(MODELS)}. The default is dcgan for images, else mlp.",
        choices=MODELS,
        fixed=True,
    )
    generator: str | None = _setting(
        None, "A custom generator: my.module:make_generator, a function that returns it.", fixed=True
    )
    critic: str | None = _setting(None, "A custom critic: my.module:make_critic.", fixed=True)
    label: str | None = _setting(None, "The column of a table that holds the labels; implies conditional.", fixed=True)
    drop: str | None = _setting(None, "Columns of a table to leave out, such as keys: name,email.", fixed=True)
    conditional: bool = _setting(False, "Give the data's labels to both networks.", fixed=True)
    faithful: bool = _setting(False, "Use the published settings for built-in data and tables, too; they take hours.")
    steps: int = _setting(None, "Generator updates.", minimum=1)
    budget: str | None = _setting(
        None,
        "The time for a run, such as 90m, 2h or 1d: it takes as many steps as it has room for, at most --steps. "
        f"The default for data of one's own without --steps is {BUDGET}.",
    )
    batch_size: int = _setting(None, "Real samples per update, over all processes.", minimum=1, fixed=True)
    n_critic: int = _setting(None, "Critic updates per step.", minimum=1)
    n_critic_boost: int = _setting(
        None, "n_critic in the first 25 steps and in every 500th; 0 uses n_critic there, too.", minimum=0
    )
    optimizer: OptimizerName = _setting(
        None, f"Optimizer of both networks: {', '.join(OPTIMIZERS)}.", choices=OPTIMIZERS, fixed=True
    )
    learning_rate: float = _setting(None, "Learning rate of both networks.", number=_POSITIVE)
    generator_rate: float | None = _setting(None, "Learning rate of the generator, if it is another.", number=_POSITIVE)
    critic_rate: float | None = _setting(None, "Learning rate of the critic, if it is another.", number=_POSITIVE)
    decay: bool = _setting(None, "Let the learning rate fall linearly to 0 over the run.")
    beta1: float = _setting(None, "Adam's decay of the gradients' mean.", number=_SHARE)
    beta2: float = _setting(None, "Adam's decay of the gradients' squares.", number=_SHARE)
    penalty_weight: float = _setting(None, "Weight of the penalty; for wgan-div, k.", number=_NOT_NEGATIVE)
    penalty_every: int = _setting(1, "Lazy penalty: at every n-th critic update, with n times the weight.", minimum=1)
    clip: float | None = _setting(None, "Clipping bound of the critic's weights.", number=_POSITIVE)
    norm: NormName = _setting(
        None, f"Normalisation of the named model's critic: {', '.join(NORMS)}.", choices=NORMS, fixed=True
    )
    latent_dimension: int = _setting(None, "Size of a latent vector.", minimum=1, fixed=True)
    width: int | None = _setting(
        None, "Units of each hidden layer, or channels, in both networks.", minimum=1, fixed=True
    )
    depth: int | None = _setting(None, "Hidden layers of mlp, in both networks.", minimum=1, fixed=True)
    average_decay: float = _setting(0.999, "Decay of the exponential moving average of the generator.", number=_SHARE)
    augment: str | None = _setting(
        None, f"For few images: changes that the critic sees in real and generated ones, {','.join(OPERATIONS)}."
    )
    start_from: str | None = _setting(None, "A run folder or a checkpoint whose weights the run begins with.")
    log_every: int = _setting(25, "Steps per row of metrics.jsonl.", minimum=1)
    sample_every: int = _setting(1000, "Steps per picture of samples from fixed latent vectors.", minimum=1)
    evaluate_every: int = _setting(1000, "Steps per comparison with held-out samples.", minimum=1)
    checkpoint_every: int = _setting(500, "Steps per checkpoint.", minimum=1)
    features: str | None = _setting(
        None,
        "A network to features, for FID, KID, precision and recall: inception (of torch-fidelity), "
        "torchvision:resnet50 or my.module:make_features.",
    )
    best: str | None = _setting(
        None, f"Keep the checkpoint that is best by this metric as best.pt: {', '.join(METRICS)}.", choices=METRICS
    )
    logger: str = _setting("tensorboard", "tensorboard, csv, or a logger of Lightning Fabric: my.module:MyLogger.")
    seed: int = _setting(0, "The same seed gives the same weights on the same machine.", minimum=0, fixed=True)
    threads: int | None = _setting(None, "CPU threads per operation. The default is as many as pay.", minimum=1)
    workers: int | None = _setting(
        None,
        "Processes that prefetch data. The default is none for what lies in memory; for a folder of images one, on a "
        "GPU up to 8.",
        minimum=0,
    )
    device: str = _setting("auto", "auto (a GPU where there is one), cpu, cuda or cuda:N.")
    precision: PrecisionName = _setting(
        "32",
        f"Precision of the networks: {', '.join(PRECISIONS)}. On a GPU 32 has convolutions in TF32, as PyTorch has.",
        choices=PRECISIONS,
    )
    backend: Backend = _setting("auto", f"Backend of the steps: {', '.join(BACKENDS)}.", choices=BACKENDS)
    out: Path | None = _setting(
        None, "The run folder; by default runs/<algorithm>-<data>-seed<seed>, numbered.", place=True
    )
    trust: bool = _setting(False, "Import networks that --config or the run folder names: runs their code.", place=True)
    overwrite: bool = _setting(False, "Replace the run in the folder.", place=True)
    resume: bool | str = _setting(
        False,
        "Resume from the last checkpoint of the folder, with its config.yaml; `--resume auto` starts the run if there "
        "is no checkpoint yet.",
        place=True,
    )

    def __post_init__(self) -> None:
        for name in ("algorithm", "model"):  # the preset depends on these
            _check_setting(name, getattr(self, name))
        if not isinstance(self.data, str):
            raise ArgumentTypeError(
                "data",
                f"expected a name or a path as text, got {type(self.data).__name__}; wgan_fast.train.fit takes data",
            )
        for name in ("data", "device"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise ArgumentTypeError(name, f"expected a name, got {getattr(self, name)!r}")
        if self.steps is None and self.budget is None and self.data not in DATASETS and not self.faithful:
            object.__setattr__(self, "budget", BUDGET)
        if isinstance(self.size, str) and self.size.isdecimal():
            object.__setattr__(self, "size", int(self.size))
        if self.label is not None:
            object.__setattr__(self, "conditional", True)
        toy = self.data in TOYS
        for name, value in preset(self.algorithm, self.data, self.model, toy=toy, faithful=self.faithful).items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, value)
        self._check()

    def _check(self) -> None:
        for setting in fields(self):
            _check_setting(setting.name, getattr(self, setting.name))
        if self.threads is not None and self.threads > (os.cpu_count() or 1):
            raise ArgumentValueError(
                "threads", f"expected at most the {os.cpu_count()} processors of this machine, got {self.threads}"
            )
        if (self.workers or 0) > 16 * (os.cpu_count() or 1):
            raise ArgumentValueError("workers", f"expected at most 16 for each processor, got {self.workers}")
        if (self.depth or 0) > 1000:
            raise ArgumentValueError("depth", f"expected at most 1000 layers, got {self.depth}")
        image_size(self.size)
        if self.label is not None and (not isinstance(self.label, str) or not self.label):
            raise ArgumentTypeError("label", f"expected the name of a column, got {self.label!r}")
        if self.drop is not None and (not isinstance(self.drop, str) or not self.drop):
            raise ArgumentTypeError("drop", f"expected names of columns, such as name,email, got {self.drop!r}")
        if self.augment is not None:
            check_operations(self.augment)
        if self.best in METRICS_OF_FEATURES and self.features is None:
            raise ArgumentValueError("best", f"{self.best} needs features, a network")
        if self.start_from is not None and (not isinstance(self.start_from, str) or not self.start_from):
            raise ArgumentTypeError("start_from", f"expected a path as text, got {self.start_from!r}")
        for name in ("generator", "critic", "features", "logger"):
            if getattr(self, name) is not None and not isinstance(getattr(self, name), str):
                raise ArgumentTypeError(name, f"expected module:function, got {getattr(self, name)!r}")
        if self.out is not None and (not isinstance(self.out, str | Path) or not str(self.out)):
            raise ArgumentTypeError("out", f"expected a path, got {self.out!r}")
        if self.budget is not None:
            seconds_of(self.budget)
            if self.resume is True:
                raise ArgumentValueError(
                    "budget",
                    f"a run that goes on keeps its number of steps; use --steps, got {self.budget!r}",
                )
        device = find_device(self.device)
        if self.penalty_weight and ALGORITHMS[self.algorithm].penalty is None:
            raise ArgumentValueError("penalty_weight", f"{self.algorithm} has no penalty, got {self.penalty_weight}")
        if self.precision == "16" and device.type != "cuda":
            raise ArgumentValueError("precision", f"16 needs a GPU, got the device {device}; use bf16 or 32")
        if self.resume not in (False, True, "auto"):
            raise ArgumentTypeError("resume", f"expected True, False or 'auto', got {self.resume!r}")
        if self.resume and self.out is None:
            raise ArgumentValueError("resume", "set out to the run's folder")
        if self.resume and self.overwrite:
            raise ArgumentValueError("resume", "expected one of resume and overwrite, got both")

    def to_dict(self) -> dict[str, Any]:
        """The settings that affect the result, without the ``place`` settings."""
        return {name: value for name, value in asdict(self).items() if name not in PLACES}

    def to_yaml(self) -> str:
        """:meth:`to_dict` as YAML, which :func:`read_settings` reads."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False)


def seconds_of(budget: str) -> float:
    """The seconds of a time such as ``90m``, ``2h`` or ``1.5d``."""
    match = re.fullmatch(r"(\d{1,6}(?:\.\d{1,6})?)\s*(s|m|min|h|d)", budget) if isinstance(budget, str) else None
    if match is None or not float(match[1]):
        raise ArgumentValueError("budget", f"expected a time such as 90m, 2h or 1d, got {budget!r}")
    return float(match[1]) * _UNITS[match[2]]


def find_device(name: str) -> torch.device:
    """The device of a name; of ``auto`` a GPU where there is one, else the CPU.

    Raises:
        ValueError: there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ArgumentValueError("device", f"expected auto, cpu, cuda or cuda:N, got {name!r}") from error
    if device.type not in ("cpu", "cuda"):
        raise ArgumentValueError("device", f"expected auto, cpu, cuda or cuda:N, got {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ArgumentValueError("device", f"PyTorch finds {torch.cuda.device_count()} CUDA devices here, got {name!r}")
    return device


def kinds_of(setting: Field[Any]) -> tuple[Any, ...]:
    """The types of a setting: str and None of ``str | None``. The choices of a Literal are one type."""
    return (setting.type,) if get_origin(setting.type) is Literal else get_args(setting.type) or (setting.type,)


def _check_setting(name: str, value: Any) -> None:
    """What the setting's field says of its value."""
    setting = TrainConfig.__dataclass_fields__[name]
    minimum, number, choices = (setting.metadata[rule] for rule in ("minimum", "number", "choices"))
    kinds = kinds_of(setting)
    if value is None and NoneType in kinds:
        return
    if minimum is not None:
        check_integer(name, value, minimum)
        if value > MAX_INTEGER:
            raise ArgumentValueError(name, f"expected at most {MAX_INTEGER:,}, got one of {len(str(value))} digits")
    if number is not None:
        check_number(name, value, **number)
    if choices is not None and (not isinstance(value, str) or value not in choices):
        raise ArgumentValueError(name, f"expected one of {', '.join(choices)}, got {value!r}")
    if kinds == (bool,) or kinds == (bool, NoneType):
        check_flag(name, value)


PLACES = tuple(setting.name for setting in fields(TrainConfig) if setting.metadata["place"])
FIXED = tuple(setting.name for setting in fields(TrainConfig) if setting.metadata["fixed"])


def read_settings(file: Path, argument: str = "config") -> dict[str, Any]:
    """The settings in a YAML file, such as a run's ``config.yaml``.

    Raises:
        ValueError: the file is missing, is not YAML, or names an unknown setting. The message begins with ``argument``.
    """
    try:
        found = load_flat_yaml(file)
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentValueError(
            argument, f"{file} cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from error
    except Exception as error:  # arbitrary text may raise any error
        raise ArgumentValueError(argument, f"{file} is not YAML of settings: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict):
        raise ArgumentValueError(argument, f"expected settings, `name: value` in each line, in {file}")
    known = {setting.name: setting.type for setting in fields(TrainConfig) if setting.name not in PLACES}
    unknown = [str(name) for name in found if name not in known]
    if unknown:
        raise ArgumentValueError(
            argument, f"{file} has unknown settings: {', '.join(unknown)}; expected some of {', '.join(known)}"
        )
    nested = [name for name, value in found.items() if not isinstance(value, str | int | float | NoneType)]
    if nested:
        raise ArgumentValueError(argument, f"{file}: expected a name or a number for {', '.join(nested)}")
    return {name: _retyped(value, known[name]) for name, value in found.items()}


def _retyped(value: Any, kind: Any) -> Any:
    """Converts values that YAML mistypes: it reads ``1e-4`` as text, and the precision ``32`` as a number."""
    if isinstance(value, str) and kind in (float, float | None):
        try:
            return float(value)
        except ValueError:
            return value
    of_text = kind is str or get_origin(kind) is Literal
    return str(value) if of_text and type(value) is int else value


def make_config(file: Path | None, given: dict[str, Any]) -> TrainConfig:
    """Merges settings: those given take precedence over those of a file or of the run to be resumed.

    Raises:
        TypeError: a value is of the wrong type.
        ValueError: a value or the file is wrong.
    """
    known = [setting.name for setting in fields(TrainConfig)]
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            meant = f"did you mean {close[0]}?" if close else "`wgan-fast train --help` lists all"
            raise ArgumentTypeError(name, f"there is no such setting; {meant}")
    resume, out = given.get("resume"), given.get("out") or ""
    if not isinstance(out, str | Path):
        raise ArgumentTypeError("out", f"expected a path, got {out!r}")
    if resume and (not out or (resume != "auto" and file is not None)):
        raise ArgumentValueError(
            "resume", "set out to the run's folder and omit config: the folder has its own config.yaml"
        )
    settings = read_settings(file) if file is not None else {}
    if resume and (resume != "auto" or has_checkpoint(Path(out))):
        file = Path(out) / CONFIG
        settings = read_settings(file, "resume") | settings
    for name in ("algorithm", "data"):
        moved = resume and name == "data"
        if not moved and name in settings and given.get(name, settings[name]) != settings[name]:
            raise ArgumentValueError(
                name,
                f"{file} has the settings of {settings[name]}, which do not apply to {given[name]}; omit one of them",
            )
    of_file = {name: value for name, value in settings.items() if given.get(name) != value}  # typed is trusted
    check_trust(of_file, file or "the settings", given.get("trust", False))
    return TrainConfig(**settings | given)
