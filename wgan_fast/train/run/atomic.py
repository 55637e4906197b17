"""Atomic file writes: a reader finds the old file or the new one, never a part."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: Of what is being written; no file of the user's begins so. The suffix, which chooses the format, stays.
UNFINISHED = "unfinished-wgan_fast-"


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yields a temporary path, whose file replaces ``path`` if the block succeeds; until then ``path`` stays unchanged.

    Raises:
        OSError: ``path``, which the error names, cannot be written.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    unfinished = path.with_name(f"{UNFINISHED}{path.name}")
    try:
        yield unfinished
        replace(unfinished, path)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(unfinished)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error  # a failed write names no file
    finally:
        unfinished.unlink(missing_ok=True)


def replace(unfinished: Path, path: Path) -> None:
    """Flushes a written file to disk and renames it to ``path``, which after a crash is the old file or the new one."""
    flush(unfinished)
    os.replace(unfinished, path)
    flush(path.parent)


def flush(path: Path) -> None:
    """Flushes a file or a folder to disk (fsync)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
