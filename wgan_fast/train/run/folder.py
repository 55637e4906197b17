"""Creates the folder of a run without overwriting another run."""

import shutil
from contextlib import suppress
from pathlib import Path

from lightning.fabric import Fabric

from wgan_fast._checks import ArgumentFileExistsError, ArgumentOSError
from wgan_fast.train.config import TrainConfig
from wgan_fast.train.run.atomic import whole_file
from wgan_fast.train.run.checkpoint import NAME, PREVIOUS

#: Files and folders that a run writes.
RUN_FILES = ("config.yaml", "metrics.jsonl", "metrics.json", "samples.png", "curve.png", NAME, PREVIOUS)
RUN_FOLDERS = ("samples", "tensorboard")


def open_run_folder(config: TrainConfig, fabric: Fabric) -> Path:
    """The folder of a run, with its ``config.yaml``: made in the first process, the same in all.

    Raises:
        FileExistsError: as :func:`claim_run_folder`, in every process, so that none waits for another.
        OSError: the folder or the file cannot be written.
    """
    folder: Path | OSError = Path()
    if fabric.global_rank == 0:
        try:
            folder = claim_run_folder(config)
            with whole_file(folder / "config.yaml") as unfinished:
                unfinished.write_text(config.to_yaml())
        except ArgumentOSError as error:
            folder = error
        except OSError as error:
            folder = ArgumentOSError("out", f"{error.filename} cannot be written: {error.strerror}")
    folder = fabric.broadcast(folder)
    if isinstance(folder, OSError):
        raise folder
    return folder


def claim_run_folder(config: TrainConfig) -> Path:
    """Creates the folder of a run. An earlier run in it is never lost unless ``config.overwrite`` is set.

    Without ``config.out`` it is ``runs/<algorithm>-<data>-seed<seed>``, or the first of ``...-2``, ``...-3`` that does
    not exist. With ``config.overwrite`` the files of an earlier run are removed from the folder; other files stay. With
    ``config.resume`` it is the folder of the run to be resumed.

    Raises:
        FileExistsError: ``config.out`` is a file, or a folder that is not empty and may not be overwritten.
        OSError: the folder cannot be created.
    """
    folder = Path(config.out or f"runs/{config.algorithm}-{Path(config.data).stem}-seed{config.seed}")
    if config.resume:
        return folder
    if folder.exists() and not folder.is_dir():
        raise ArgumentFileExistsError("out", f"expected a folder, {folder} is a file")
    if config.overwrite:
        _make(folder)
        for name in RUN_FILES:
            (folder / name).unlink(missing_ok=True)
        for name in RUN_FOLDERS:
            shutil.rmtree(folder / name, ignore_errors=True)
        return folder
    if config.out is not None:
        if folder.exists() and any(folder.iterdir()):
            raise ArgumentFileExistsError(
                "out", f"{folder} is not empty; choose another folder or set overwrite (--overwrite)"
            )
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
        raise ArgumentOSError("out", f"the folder {folder} cannot be created: {error.strerror}") from error
    return folder
