"""Checkpoints: the last one and the one before, each whole or not there."""

import os
import pickle
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric

from wgan_fast._checks import ArgumentValueError
from wgan_fast.train.config import FIXED, TrainConfig
from wgan_fast.train.data.decoder import Decoder
from wgan_fast.train.run.atomic import flush

NAME, PREVIOUS = "checkpoint.pt", "previous.pt"
#: What a checkpoint holds. The generator is the averaged one, which samples are drawn from.
KEYS = frozenset(
    {"generator", "critic", "trained_generator", "optimizers", "scalers", "step", "batches", "random", "history"}
    | {"networks", "codec", "config"}
)


def save_checkpoint(fabric: Fabric, folder: Path, state: dict[str, Any]) -> None:
    """Writes ``checkpoint.pt``; what had that name is ``previous.pt`` from then on.

    A reader finds whole files only, whenever the process ends, and a full disk leaves both as they were.
    """
    file, unfinished = folder / NAME, folder / f"{NAME}.unfinished"
    try:
        fabric.save(unfinished, state)
        if fabric.is_global_zero:
            flush(unfinished)  # a full disk is met here, while both files have their names
            if file.exists():
                os.replace(file, folder / PREVIOUS)
            os.replace(unfinished, file)
            flush(folder)
    finally:
        if fabric.is_global_zero:  # another process would take the file from under this one
            unfinished.unlink(missing_ok=True)


def load_checkpoint(path: Path, argument: str = "resume") -> dict[str, Any]:
    """The checkpoint in a file, or the last one of a run folder.

    Raises:
        ValueError: there is none, or it is damaged or of another program; begins with ``argument``, and says where a
            whole one lies.
    """
    file = path
    if path.is_dir():  # a run that was killed between the two names has the previous one alone
        file = next((path / name for name in (NAME, PREVIOUS) if (path / name).exists()), path / NAME)
    if not file.exists():
        raise ArgumentValueError(argument, f"there is no checkpoint {file}")
    state, problem = _read(file)
    if state is not None:
        return state
    previous = file.with_name(PREVIOUS)
    whole = _read(previous)[0] if previous != file and previous.exists() else None
    hint = f"; {previous} is whole, of step {whole['step']}: mv {previous} {file}" if whole else ""
    raise ArgumentValueError(argument, f"{file} {problem}{hint}")


def check_resumable(state: dict[str, Any], config: TrainConfig, decoder: Decoder, world: int) -> None:
    """Checks that a run with these settings, data and processes can continue from a checkpoint.

    Raises:
        ValueError: it cannot; begins with the setting that must change.
    """
    for name in FIXED:  # with another seed it would train on held-out samples
        before, now = state["config"][name], getattr(config, name)
        if now != before:
            raise ArgumentValueError(name, f"a run that goes on keeps its {name}, {before}; got {now}")
    if config.steps < state["step"]:
        raise ArgumentValueError("steps", f"the run is at step {state['step']} already; got {config.steps}")
    check_same_data(state, config, decoder)
    if len(state["random"]) != world:
        raise ArgumentValueError("resume", f"the run had {len(state['random'])} processes, now there are {world}")


def check_same_data(state: dict[str, Any], config: TrainConfig, decoder: Decoder) -> None:
    """Checks that the data which ``config.data`` names today are those of the checkpoint."""
    if not decoder.resembles(Decoder.from_dict(state["codec"])):
        raise ArgumentValueError("data", f"{config.data} has other columns, other units or other classes than before")


def _read(file: Path) -> tuple[dict[str, Any] | None, str]:
    """The checkpoint, or what is wrong with it."""
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        return None, "is no checkpoint of wgan_fast"
    except Exception:  # arbitrary bytes raise anything, in words that say nothing to a user
        return None, "is truncated, or no checkpoint of wgan_fast train"
    if not isinstance(state, dict) or not state.keys() >= KEYS:
        missing = sorted(KEYS - set(state)) if isinstance(state, dict) else ["everything"]
        return None, f"is no checkpoint of wgan_fast train: it lacks {', '.join(missing)}"
    return state, ""
