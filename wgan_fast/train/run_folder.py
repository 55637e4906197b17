"""The folder of a run: who may write into it, its history and its checkpoint."""

import io
import json
import math
import os
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor, nn

from wgan_fast import CriticOutput
from wgan_fast.train.config import TrainConfig

#: What a run leaves in its folder.
RUN_FILES = ("config.yaml", "metrics.jsonl", "metrics.json", "samples.png", "curve.png", "checkpoint.pt")


def claim_run_folder(config: TrainConfig) -> Path:
    """Makes the folder of a run, so that no earlier run in it is lost.

    Without ``config.out`` it is ``runs/<algorithm>-<data>-seed<seed>``, or the first of ``...-2``, ``...-3`` that does
    not exist. With ``config.overwrite`` what an earlier run wrote into the folder is removed; other files stay.

    Raises:
        FileExistsError: ``config.out`` is a file, or a folder that is not empty and may not be overwritten.
        OSError: the folder cannot be made.
    """
    folder = Path(config.out or f"runs/{config.algorithm}-{config.data}-seed{config.seed}")
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"out: expected a folder, {folder} is a file")
    if config.overwrite:
        _make(folder)
        for name in RUN_FILES:
            (folder / name).unlink(missing_ok=True)
        return folder
    if config.out is not None:
        if folder.exists() and any(folder.iterdir()):
            raise FileExistsError(f"out: {folder} is not empty; name another folder, or set overwrite (--overwrite)")
        return _make(folder)
    _make(folder.parent)
    number, candidate = 1, folder
    while True:
        with suppress(FileExistsError):
            candidate.mkdir()
            return candidate
        number += 1
        candidate = folder.with_name(f"{folder.name}-{number}")


def _make(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"out: the folder {folder} cannot be made: {error.strerror}") from error
    return folder


def save_checkpoint(path: Path, **networks: nn.Module) -> None:
    """Writes a dict of the networks' ``state_dict``s that ``torch.load(path, weights_only=True)`` reads.

    A reader finds the old file or the new one, never half of one.
    """
    unfinished = path.with_name(path.name + ".unfinished")
    content = io.BytesIO()  # where a disk is full, a file says so and torch.save does not
    torch.save({name: network.state_dict() for name, network in networks.items()}, content)
    try:
        unfinished.write_bytes(content.getvalue())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


class History:
    """What happened during training: a row per ``log_every`` steps, kept in ``rows`` and written to a JSON lines file.

    The values of a row are the means over the critic's updates. They stay on the device until the row is complete.
    """

    def __init__(self, path: Path, log_every: int, steps: int) -> None:
        self.rows: list[dict[str, float]] = []
        self._path = path
        self._log_every = log_every
        self._steps = steps
        self._pending: list[Tensor] = []
        self._last = torch.full((2,), math.nan)

    def __enter__(self) -> "History":
        self._file = self._path.open("w")
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def add(self, output: CriticOutput) -> None:
        """Takes the values of one update of the critic.

        The Wasserstein estimate is in units of the critic's slope, which a weak penalty lets exceed 1.
        """
        self._last = torch.stack([output.loss, output.wasserstein])
        self._pending.append(self._last)

    def end_step(self, step: int) -> None:
        """Completes a row, where one is due after generator step ``step``.

        Raises:
            FloatingPointError: the row's critic loss is not finite.
        """
        if step % self._log_every and step != self._steps:
            return
        critic_loss, wasserstein = torch.stack(self._pending).mean(dim=0).tolist()
        self._pending.clear()
        if not math.isfinite(critic_loss):
            raise FloatingPointError(
                f"the critic's loss is {critic_loss} at step {step}; a lower learning rate may help"
            )
        self.rows.append({"step": step, "critic_loss": critic_loss, "wasserstein": wasserstein})
        self._file.write(json.dumps(self.rows[-1]) + "\n")
        self._file.flush()

    def last(self) -> tuple[float, float]:
        """Critic loss and Wasserstein estimate of the latest update. Waits for the device."""
        critic_loss, wasserstein = self._last.tolist()
        return critic_loss, wasserstein
