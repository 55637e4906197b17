"""The last two checkpoints of a run, each written atomically."""

import io
import os
import pickle
import zipfile
from pathlib import Path
from types import NoneType
from typing import Any

import torch
from lightning.fabric import Fabric

from wgan_fast._checks import ArgumentValueError
from wgan_fast.train.config import FIXED, TrainConfig
from wgan_fast.train.data.decoder import Decoder
from wgan_fast.train.data.sources import Data
from wgan_fast.train.run.atomic import flush, whole_file
from wgan_fast.train.run.contents import BEST, CHECKPOINT, PREVIOUS, has_checkpoint

NAME = CHECKPOINT
#: What a checkpoint holds. ``generator`` is the averaged generator, which samples are drawn from.
KEYS: dict[str, type] = {
    **dict.fromkeys(("generator", "critic", "trained_generator", "history", "networks", "codec", "config"), dict),
    **dict.fromkeys(("optimizers", "scalers", "random"), list),
    **dict.fromkeys(("step", "batches"), int),
}


def save_checkpoint(fabric: Fabric, folder: Path, state: dict[str, Any]) -> None:
    """Writes ``checkpoint.pt``; the former ``checkpoint.pt`` becomes ``previous.pt``.

    If the process is killed at any moment, the files are whole. A full disk leaves both unchanged.
    """
    if fabric.is_global_zero:
        # Not fabric.save, which writes through $TMPDIR; nor torch.save to a file, which aborts where the disk is full.
        written = io.BytesIO()
        torch.save(state, written)
        file = folder / NAME
        with whole_file(file) as unfinished:
            unfinished.write_bytes(written.getbuffer())
            flush(unfinished)  # a full disk raises here, before anything is renamed
            if file.exists():
                os.replace(file, folder / PREVIOUS)
    fabric.barrier()


def save_best(folder: Path, state: dict[str, Any]) -> None:
    """Writes ``best.pt``, which :meth:`.generator.TrainedGenerator.load` reads; the one before is lost."""
    written = io.BytesIO()
    torch.save(state, written)
    with whole_file(folder / BEST) as unfinished:
        unfinished.write_bytes(written.getbuffer())


def load_checkpoint(path: Path, argument: str = "resume") -> dict[str, Any]:
    """Loads a checkpoint from a file, or the last one of a run folder.

    Raises:
        ValueError: there is no checkpoint, or the file is damaged or not one of wgan_fast. The message begins with
            ``argument`` and names the previous checkpoint if that one is whole.
    """
    file = path
    if path.is_dir():  # a run killed between the two renames has only previous.pt
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


def load_resumable(config: TrainConfig) -> dict[str, Any] | None:
    """The checkpoint that a run goes on from; None for a run that begins.

    Raises:
        ValueError: as :func:`load_checkpoint`; ``config.resume`` is True and there is no checkpoint yet.
    """
    folder = Path(config.out or "")
    if not config.resume or (config.resume == "auto" and not has_checkpoint(folder)):
        return None
    if not has_checkpoint(folder):
        raise ArgumentValueError(
            "resume", f"there is no checkpoint {folder / NAME} yet; --resume auto begins the run anew"
        )
    return load_checkpoint(folder)


def check_resumable(state: dict[str, Any], config: TrainConfig, data: Data) -> None:
    """Checks that a run with these settings and data can continue from a checkpoint.

    Raises:
        ValueError: it cannot; begins with the setting that must change.
    """
    for name in FIXED:  # with another seed it would train on held-out samples
        now = getattr(config, name)
        before = state["config"].get(name, now)  # a setting may be newer than the run
        if now != before:
            raise ArgumentValueError(name, f"a run that goes on keeps its {name}, {before}; got {now}")
    if config.steps < state["step"]:
        raise ArgumentValueError("steps", f"the run is at step {state['step']} already; got {config.steps}")
    check_same_data(state, config, data)


def check_same_data(state: dict[str, Any], config: TrainConfig, data: Data) -> None:
    """Checks that the data which ``config.data`` names today are those of the checkpoint, wherever they are now: what
    was held out must not become training data.
    """
    before, now = state.get("identity"), data.identity()
    try:
        decoder = Decoder.from_dict(state["codec"])
        count, digest = (before["count"], before["hash"]) if before is not None else (now["count"], now["hash"])
        other_count, other_kind, other_rows = (
            bool(differ)
            for differ in (count != now["count"], not data.decoder.resembles(decoder), digest != now["hash"])
        )
    except Exception as error:  # a file may hold anything
        raise ArgumentValueError("resume", f"the checkpoint does not describe its data: {error!r:.200}") from error
    if other_count:
        raise ArgumentValueError("data", f"{config.data} has {now['count']} samples, the run began with {count}")
    if decoder.kind == "vectors" and data.decoder.kind == "table":
        raise ArgumentValueError(
            "data", "the run is of a version that encoded tables as plain numbers; it can be sampled, but not go on"
        )
    if other_kind:
        raise ArgumentValueError("data", f"{config.data} has other columns, other units or other classes than before")
    if other_rows:
        raise ArgumentValueError(
            "data", f"{config.data} has other samples, or in another order, than the run began with; begin a new run"
        )


def _read(file: Path) -> tuple[dict[str, Any] | None, str]:
    """The checkpoint and an empty string, or None and the problem."""
    try:
        with zipfile.ZipFile(file) as archive:
            # As torch.save writes them. Compressed ones could unpack to any size; PyTorch checks no checksums.
            whole = all(member.compress_type == zipfile.ZIP_STORED for member in archive.infolist())
            if not whole or archive.testzip() is not None:
                return None, "is damaged"
        state = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        return None, "is not a checkpoint of wgan_fast"
    except Exception:  # arbitrary bytes may raise any error, in words that say nothing to a user
        return None, "is truncated or not a checkpoint of wgan_fast train"
    if not isinstance(state, dict) or not state.keys() >= KEYS.keys():
        missing = sorted(KEYS.keys() - state.keys()) if isinstance(state, dict) else ["everything"]
        return None, f"is not a checkpoint of wgan_fast train: it lacks {', '.join(missing)}"
    strange = [name for name, kind in KEYS.items() if not isinstance(state[name], kind)]
    if strange:
        return None, f"is not a checkpoint of wgan_fast train: its {strange[0]} is a {type(state[strange[0]]).__name__}"
    if not all(isinstance(value, str | int | float | NoneType) for value in state["config"].values()):
        return None, "is damaged: its settings are no names and numbers"
    if not all(0 <= state[name] < 2**48 for name in ("step", "batches")):
        return None, "is damaged: it counts its steps wrongly"
    return state, ""
