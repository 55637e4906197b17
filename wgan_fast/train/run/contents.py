"""What belongs to a run: the only files that the trainer ever removes, and the only ones in a folder of data that are
not data.
"""

import errno
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from wgan_fast._checks import ArgumentValueError
from wgan_fast.train.run.atomic import UNFINISHED

CONFIG = "config.yaml"
MAX_YAML = 10_000  #: bytes of settings; ours are a tenth of it, and PyYAML takes quadratic time for nested brackets
CHECKPOINT, PREVIOUS, BEST = "checkpoint.pt", "previous.pt", "best.pt"
#: Files and folders that a run writes.
RUN_FILES = (CONFIG, "metrics.jsonl", "metrics.json", "samples.png", "curve.png", CHECKPOINT, PREVIOUS, BEST)
RUN_FOLDERS = ("samples", "tensorboard", "csv")
#: In a run that waits to be removed, because another takes its place.
REPLACED = ".replaced"
#: Locked by the process that trains in the folder.
LOCK = ".lock"
#: Settings that every ``config.yaml`` of ours holds; a file of that name may be anybody's.
_SIGNATURE = {"algorithm", "data", "n_critic", "penalty_every", "average_decay", "seed"}
_OWN = (
    re.compile("|".join(map(re.escape, (*RUN_FILES, REPLACED, LOCK)))),
    re.compile(r"samples/\d{6,}\.png"),
    re.compile(r"tensorboard/events\.out\.tfevents\.[^/]*"),
    re.compile(r"csv/(metrics\.csv|hparams\.yaml)"),
    re.compile(f"(samples/)?{UNFINISHED}[^/]*"),  # of a killed process
)


def load_flat_yaml(file: Path) -> Any:
    """What a YAML file of settings holds, if it is of the kind that :meth:`.TrainConfig.to_yaml` writes.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not YAML, or longer than any of ours, or has anchors: a few lines of those can stand for more
            text than any memory holds.
    """
    if not file.is_file():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(file))
    if file.stat().st_size > MAX_YAML:
        raise ValueError(f"longer than {MAX_YAML:,} bytes")
    text = file.read_text(encoding="utf-8")
    try:
        if any(isinstance(token, yaml.AnchorToken | yaml.AliasToken) for token in yaml.scan(text)):
            raise ValueError("it has anchors or aliases")
        return yaml.safe_load(text)
    except RecursionError as error:
        raise ValueError("too deeply nested") from error


def check_trust(settings: Mapping[str, Any], source: Path | str, trust: bool) -> None:
    """Refuses code that a file names, unless its user trusts it: importing a module runs it.

    Raises:
        ValueError: ``settings`` of ``source`` name a network, and ``trust`` is False.
    """
    named = {role: settings.get(role) for role in ("generator", "critic", "features", "logger")}
    names = ", ".join(f"{role} {name}" for role, name in named.items() if ":" in str(name) and not _is_ours(str(name)))
    if names and not trust:
        raise ArgumentValueError("trust", f"{source} would run code: {names}; if you trust that code, add --trust")


def _is_ours(name: str) -> bool:
    """Whether it names a network of a library, which a file may name."""
    return name.startswith("torchvision:")


def has_checkpoint(folder: Path) -> bool:
    """Whether a run can go on there. A run killed between the two renames of a save has only ``previous.pt``."""
    return any((folder / name).is_file() for name in (CHECKPOINT, PREVIOUS))


def is_run(folder: Path) -> bool:
    """Whether ``folder`` has a ``config.yaml`` of ours."""
    try:
        found = load_flat_yaml(folder / CONFIG)
    except Exception:  # arbitrary text may raise any error
        return False
    return isinstance(found, dict) and found.keys() >= _SIGNATURE


def holds_only_runs(folder: Path) -> bool:
    """Whether ``folder`` is a run, or holds runs alone, as ``runs/`` does."""
    if is_run(folder):
        return True
    found = False
    with os.scandir(folder) as entries:  # which may be a million pictures
        for entry in entries:
            if not entry.name.startswith("."):
                if not (entry.is_dir() and is_run(Path(entry.path))):
                    return False
                found = True
    return found


def foreign(folder: Path) -> Path | None:
    """The first file, link or folder in ``folder`` that no run writes, or None."""
    return next((path for path in _contents(folder) if not _is_own(path, folder)), None)


def remove_run(folder: Path) -> None:
    """Removes the files of a run, and the folder if nothing else is in it."""
    own = [path for path in _contents(folder) if _is_own(path, folder)]
    # Contents come before their folder, and last what tells a run from anybody's folder, in case of a kill.
    for path in sorted(own, key=lambda path: (path.name not in (CONFIG, REPLACED), path), reverse=True):
        if not path.is_dir():
            path.unlink()
        elif not any(path.iterdir()):
            path.rmdir()
    if not any(folder.iterdir()):
        folder.rmdir()


def _contents(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        yield path
        if path.is_dir() and not path.is_symlink():
            yield from _contents(path)


def _is_own(path: Path, folder: Path) -> bool:
    name = path.relative_to(folder).as_posix()
    if path.is_symlink():
        return False
    if path.is_dir():
        return name in RUN_FOLDERS
    return path.is_file() and any(pattern.fullmatch(name) for pattern in _OWN)
