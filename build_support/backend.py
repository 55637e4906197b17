"""The PEP 517 backend: setuptools, given the torch of the environment that wgan_fast is installed into.

A front end (pip, build, uv) builds in an environment of its own, without torch. To list torch as a build requirement
would download a second one, and not always the same; so the user's is looked up and put at the end of the path. Only
where there is none is torch asked for: the release that the same command, its requirements files or uv.lock name.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import build_sdist, get_requires_for_build_sdist

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

OLDEST_TORCH = (2, 11)

# Asked of another Python: its ABI, its torch, and where it imports from.
_QUESTION = """
import importlib.metadata, json, sys
print(json.dumps([sys.implementation.cache_tag, importlib.metadata.version("torch"), sys.path]))
"""


def front_end() -> tuple[list[str], dict[str, str], Path]:
    """The arguments, the environment and the folder of the process that runs us; it alters what it hands on to us."""
    process = Path(f"/proc/{os.getppid()}")
    try:
        arguments = (process / "cmdline").read_text().rstrip("\0").split("\0")
        pairs = (line.partition("=") for line in (process / "environ").read_text().split("\0"))
        return arguments, {name: value for name, _, value in pairs}, (process / "cwd").resolve()
    except OSError:  # a system without /proc
        return [""], dict(os.environ), Path.cwd()


def _target_pythons() -> Iterator[str | Path]:
    """The Pythons that may be the one installed into, the surest first; some may not exist."""
    # pip runs us with the very Python that it installs into; others with one of their own.
    yield sys.executable
    arguments, environment, folder = front_end()

    def on_path(python: str) -> Path:
        return folder / (shutil.which(python, path=environment.get("PATH")) or python)

    # `python -m build` means its own Python.
    if Path(arguments[0]).name.startswith(("python", "pypy")):
        yield on_path(arguments[0])
        return
    # uv means the one that an option names, else the system's if so told, else the active environment, else .venv.
    named = [environment.get("UV_PYTHON", "")]
    for argument, following in itertools.pairwise([*arguments, ""]):
        option, _, value = argument.partition("=")
        if option in ("--python", "-p"):
            named.append(value or following)
    if named[-1]:
        yield on_path(named[-1])
        yield folder / named[-1] / "bin" / "python"
        return
    if "--system" in arguments or environment.get("UV_SYSTEM_PYTHON"):
        yield on_path("python3")
        return
    roots = [environment.get(name) for name in ("VIRTUAL_ENV", "CONDA_PREFIX")]
    roots += [str(parent / ".venv") for parent in (folder, *folder.parents)]
    yield from (folder / root / "bin" / "python" for root in roots if root)


def torch_path(pythons: Iterable[str | Path] | None = None) -> list[str] | None:
    """What to add to the path so that ``import torch`` gives the torch of the first of these Pythons that has one.

    None where no such Python has a torch that serves: of our ABI, and not older than OLDEST_TORCH.
    """
    # The build's isolation works through these variables; the Pythons asked are to answer as they do outside of it.
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
    for python in _target_pythons() if pythons is None else pythons:
        try:
            asked = [str(python), "-c", _QUESTION]
            answer = subprocess.run(asked, env=environment, cwd="/", capture_output=True, check=True).stdout
            abi, version, path = json.loads(answer)
        except (OSError, ValueError, subprocess.CalledProcessError):
            continue  # no such Python, or no torch in it
        if abi == sys.implementation.cache_tag and tuple(map(int, version.split(".")[:2])) >= OLDEST_TORCH:
            return [entry for entry in path if entry and entry not in sys.path]
    return None


def _named_in(lines: Iterable[str]) -> str | None:
    """The last requirement on torch, without its marker and comment."""
    found = None
    for line in lines:
        if match := re.match(r"\s*torch\s*((?:[<>=!~]=?=?|@)[^;#]*)", line, re.IGNORECASE):
            found = f"torch{match[1].strip()}"
    return found


def named_torch() -> str | None:
    """The torch that is installed along with wgan_fast, as the front end was told: by an argument
    such as torch==2.13.0, a file of requirements or constraints, or the uv.lock of its project.
    """
    arguments, environment, folder = front_end()
    files = environment.get("PIP_CONSTRAINT", "").split()
    for argument, following in itertools.pairwise([*arguments, ""]):
        option, _, value = argument.partition("=")
        if option in ("-r", "-c", "--requirement", "--requirements", "--constraint", "--constraints"):
            files.append(value or following)
        elif re.match("-[rc].", argument):
            files.append(argument[2:])
    named = _named_in(arguments)
    for file in files:
        with contextlib.suppress(OSError):
            named = named or _named_in((folder / file).read_text().splitlines())
    for project in (folder, *folder.parents):
        with contextlib.suppress(OSError):
            locked = re.search(r'^name = "torch"\nversion = "([^"]+)"', (project / "uv.lock").read_text(), re.MULTILINE)
            named = named or (f"torch=={locked[1]}" if locked else None)
    return named


def _requires(config_settings: Any = None) -> list[str]:
    # ninja compiles in parallel, and only what changed; setuptools is in pyproject.toml.
    torch_is_there = importlib.util.find_spec("torch") or torch_path() is not None
    any_torch = f"torch>={OLDEST_TORCH[0]}.{OLDEST_TORCH[1]}"
    return ["ninja"] + ([] if torch_is_there else [named_torch() or any_torch])


@contextlib.contextmanager
def _writable_source() -> Iterator[None]:
    """Works in a copy of the sources where their folder cannot be written: setuptools writes beside them."""
    source = Path.cwd()
    if os.access(source, os.W_OK):
        yield
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, source.name)
        shutil.copytree(source, copy, ignore=shutil.ignore_patterns("build", ".*", "*.egg-info", "__pycache__"))
        for path in (copy, *copy.rglob("*")):
            path.chmod(path.stat().st_mode | 0o200)
        os.chdir(copy)
        try:
            yield
        finally:
            os.chdir(source)


def _with_torch(hook: Callable[..., str], *, in_place: bool = False) -> Callable[..., str]:
    @functools.wraps(hook)
    def wrapped(*args: Any, **kwargs: Any) -> str:
        if importlib.util.find_spec("torch") is None:
            sys.path.extend(torch_path() or [])  # at the end: the build's own setuptools goes first
        if in_place:
            return hook(*args, **kwargs)
        with _writable_source():
            return hook(*args, **kwargs)

    return wrapped


get_requires_for_build_wheel = get_requires_for_build_editable = _requires
prepare_metadata_for_build_wheel = _with_torch(build_meta.prepare_metadata_for_build_wheel)
prepare_metadata_for_build_editable = _with_torch(build_meta.prepare_metadata_for_build_editable, in_place=True)
build_wheel = _with_torch(build_meta.build_wheel)
build_editable = _with_torch(build_meta.build_editable, in_place=True)
