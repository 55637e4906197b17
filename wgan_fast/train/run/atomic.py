"""Files that are there whole, or not at all."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A place to write in; what is there when the block ends well becomes ``path``, which is as it was until then.

    Raises:
        OSError: ``path`` cannot be written.
    """
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    unfinished = path.with_name(f"unfinished-{path.name}")  # writers look at the suffix
    try:
        yield unfinished
        replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def replace(unfinished: Path, path: Path) -> None:
    """Gives a written file its name, once it is on the disk: after a crash ``path`` is the old file or the new one."""
    flush(unfinished)
    os.replace(unfinished, path)
    flush(path.parent)


def flush(path: Path) -> None:
    """Waits until a file or a folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
