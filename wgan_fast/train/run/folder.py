"""Creates the folder of a run. What is in it already is never lost."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from lightning.fabric import Fabric

from wgan_fast._checks import ArgumentFileExistsError, ArgumentOSError
from wgan_fast.train.config import TrainConfig
from wgan_fast.train.run.atomic import whole_file
from wgan_fast.train.run.contents import CONFIG, LOCK, REPLACED, foreign, has_checkpoint, is_run, remove_run


@contextmanager
def run_folder(config: TrainConfig, fabric: Fabric) -> Iterator[Path]:
    """The folder of a run, with its ``config.yaml``: made in the first process, the same in all.

    With ``config.overwrite`` an earlier run waits beside the folder, as ``<folder>.replaced``, for
    :func:`drop_replaced`. If the block fails before the folder has a checkpoint, the earlier run is put back.

    Raises:
        FileExistsError: as :func:`claim_run_folder`, or another run is at work there; in every process, so that none
            waits for another.
        OSError: the folder or the file cannot be written.
    """
    folder: Path | OSError = Path()
    with ExitStack() as held:
        if fabric.global_rank == 0:
            try:
                folder = claim_run_folder(config)
                held.enter_context(_alone(folder))
                try:
                    with whole_file(folder / CONFIG) as unfinished:
                        unfinished.write_text(config.to_yaml())
                except OSError:
                    _put_back(folder)
                    raise
            except ArgumentOSError as error:
                folder = error
            except OSError as error:
                folder = ArgumentOSError("out", f"{error.filename or 'the folder'} cannot be written: {error.strerror}")
        folder = fabric.broadcast(folder)
        if isinstance(folder, OSError):
            raise folder
        try:
            yield folder
        except BaseException:
            if fabric.global_rank == 0:
                _put_back(folder)
            raise


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keeps other processes from training in the folder, whose checkpoints would replace this one's. The system unlocks
    it when the process ends, however it does.

    Raises:
        FileExistsError: another one trains there.
    """
    if os.name != "posix":
        yield
        return
    import fcntl

    with (folder / LOCK).open("a") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise ArgumentFileExistsError(
                "out", f"another process trains in {folder}; wait for its end, or name another folder"
            ) from error
        except OSError:  # of a file system without locks
            pass
        yield


def claim_run_folder(config: TrainConfig) -> Path:
    """Creates the folder of a run. An earlier run in it is never lost unless ``config.overwrite`` is set.

    Without ``config.out`` it is ``runs/<algorithm>-<data>-seed<seed>``, or the first of ``...-2``, ``...-3`` that does
    not exist. With ``config.overwrite`` an earlier run is moved to ``<folder>.replaced``. With ``config.resume`` it is
    the folder of the run to be resumed; a run that ended before its first checkpoint begins anew there.

    Raises:
        FileExistsError: ``config.out`` is a file, or a folder that is not empty and may not be overwritten, or that
            holds more than a run.
        OSError: the folder cannot be created.
    """
    folder = Path(config.out or f"runs/{config.algorithm}-{Path(config.data).stem}-seed{config.seed}")
    if folder.exists() and not folder.is_dir():
        raise ArgumentFileExistsError("out", f"expected a folder, {folder} is a file")
    if config.resume and has_checkpoint(folder):
        return folder
    occupied = folder.is_dir() and any(folder.iterdir())
    if config.resume and occupied:  # of a run that was killed before its first checkpoint
        _check_is_run(folder)
        return folder
    if config.overwrite:
        if occupied:
            _check_replaceable(folder, config.data)
            _set_aside(folder)
        try:
            return _make(folder)
        except OSError:
            _put_back(folder)
            raise
    if config.out is not None:
        if occupied:
            cure = "; set overwrite (--overwrite) to replace the run in it" if is_run(folder) else ""
            raise ArgumentFileExistsError("out", f"{folder} is not empty; choose another folder{cure}")
        return _make(folder)
    _make(folder.parent)
    number, candidate = 1, folder
    while True:
        with suppress(FileExistsError):
            candidate.mkdir()
            return candidate
        number += 1
        candidate = folder.with_name(f"{folder.name}-{number}")


def replaced_run(folder: Path) -> Path:
    """Where a run waits while another takes its folder."""
    folder = folder.resolve()
    return folder.with_name(f"{folder.name}.replaced")


def drop_replaced(folder: Path) -> None:
    """Removes the run that the one in ``folder`` replaces, now that this one has a checkpoint."""
    waiting = replaced_run(folder)
    if (waiting / REPLACED).exists() and is_run(waiting):
        remove_run(waiting)


def _set_aside(folder: Path) -> None:
    if not replaced_run(folder).exists():
        (folder / REPLACED).touch()
        os.rename(folder.resolve(), replaced_run(folder))
    elif has_checkpoint(folder):
        raise ArgumentFileExistsError(
            "out", f"{replaced_run(folder)}, where the run in {folder} would wait, exists; move it elsewhere"
        )
    else:  # that of a process which was killed before the first checkpoint; the one that waits is the better one
        remove_run(folder)


def _put_back(folder: Path) -> None:
    """Undoes :func:`_set_aside` where the new run has no checkpoint."""
    waiting = replaced_run(folder)
    if has_checkpoint(folder) or not (waiting / REPLACED).exists():
        return
    if folder.exists():
        remove_run(folder)
    if not folder.exists():
        os.rename(waiting, folder.resolve())
        (folder / REPLACED).unlink()


def _check_replaceable(folder: Path, data: str) -> None:
    """A folder may be replaced if it is a run of ours and nothing else, and nobody works in it."""
    place = folder.resolve()
    for other, what in ((Path.cwd(), "the current folder"), (Path(data).resolve(), "the data")):
        if other == place or place in other.parents:
            raise ArgumentFileExistsError(
                "out", f"{folder} {'is' if other == place else 'holds'} {what}, so it is not overwritten; name another"
            )
    _check_is_run(folder)
    with _alone(folder):
        pass


def _check_is_run(folder: Path) -> None:
    if not is_run(folder):
        raise ArgumentFileExistsError(
            "out", f"{folder} is not empty and holds no run of wgan_fast; name another folder"
        )
    other = foreign(folder)
    if other is not None:
        raise ArgumentFileExistsError(
            "out", f"{other} is not a file of the run in {folder}; move it elsewhere, or name another folder"
        )


def _make(folder: Path) -> Path:
    try:
        folder.resolve().mkdir(parents=True, exist_ok=True)  # the place of a link from which a run has gone, too
    except OSError as error:
        raise ArgumentOSError("out", f"the folder {folder} cannot be created: {error.strerror}") from error
    return folder
