"""Every way to install from the sources, each in an environment of its own: the torch that was asked for stays, and the
extension is built for it. Downloads torch; minutes each. `pytest --durations=0` lists the seconds.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# The newest is what a resolver would take by itself.
TORCHES = os.environ.get("WGAN_FAST_TEST_TORCHES", "2.13.0 2.14.1").split()
MATCH_RUNTIME = """
[tool.uv.extra-build-dependencies]
wgan_fast = [{ requirement = "torch", match-runtime = true }]
"""

pytestmark = pytest.mark.long


def run(*command: str | Path, folder: Path, **variables: str) -> str:
    """The output of a command that runs outside of this environment."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    result = subprocess.run(
        [str(word) for word in command], cwd=folder, env=environment | variables, capture_output=True, text=True
    )
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    return result.stdout


def uv(*arguments: str | Path, folder: Path, **variables: str) -> str:
    tool = pytest.importorskip("uv").find_uv_bin()
    variables = {"UV_PYTHON": sys.executable, "UV_CACHE_DIR": str(folder / "cache")} | variables
    return run(tool, *arguments, folder=folder, **variables)


def pip(folder: Path, *arguments: str | Path, under: Sequence[str] = (), **variables: str) -> None:
    """``under``: a command that runs pip."""
    if not (folder / ".venv").exists():
        run(sys.executable, "-m", "venv", folder / ".venv", folder=folder)
    cache = {"PIP_CACHE_DIR": str(folder / "pip-cache")}
    run(*under, folder / ".venv/bin/pip", "install", *arguments, folder=folder, **cache, **variables)


def check(folder: Path, torch: str) -> None:
    """Of the environment in this folder: the torch, and the torch that the extension is for, which loads."""
    program = "import torch, wgan_fast._library as l; print(torch.__version__, l.record['torch'], l.failure)"
    found = run(folder / ".venv/bin/python", "-c", program, folder=folder).split(maxsplit=2)
    assert found[0].split("+")[0] == torch and found[1:] == [found[0], "None\n"]


def torch_first(folder: Path, torch: str) -> None:
    pip(folder, f"torch=={torch}")
    pip(folder, ROOT)


def one_command(folder: Path, torch: str) -> None:
    pip(folder, f"torch=={torch}", ROOT)


def requirements(folder: Path, torch: str) -> None:
    (folder / "requirements.txt").write_text(f"torch=={torch}\n{ROOT}\n")
    pip(folder, "-r", "requirements.txt")


def pinned_git(folder: Path, torch: str) -> None:
    run("git", "clone", "--bare", "--quiet", ROOT, folder / "wgan_fast.git", folder=folder)
    commit = run("git", "-C", folder / "wgan_fast.git", "rev-parse", "HEAD", folder=folder).strip()
    pip(folder, f"torch=={torch}")
    pip(folder, f"git+file://{folder}/wgan_fast.git@{commit}")  # old versions of pip take no `name @` of a local one


def read_only_source(folder: Path, torch: str) -> None:
    source = folder / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "build", "*.so", "_build.json"))
    for path in (*source.rglob("*"), source):
        path.chmod(path.stat().st_mode & ~0o222)
    # Root may write everywhere, unless it gives up the right to.
    under = ["setpriv", "--bounding-set", "-dac_override"] if os.access(source, os.W_OK) else []
    pip(folder, f"torch=={torch}")
    pip(folder, source, under=under)


def compiler_of_two_words(folder: Path, torch: str) -> None:
    pip(folder, f"torch=={torch}")
    pip(folder, ROOT, CXX="env c++")


def uv_pip(folder: Path, torch: str) -> None:
    uv("venv", folder=folder)
    uv("pip", "install", f"torch=={torch}", folder=folder, UV_PYTHON=".venv")
    uv("pip", "install", ROOT, folder=folder, UV_PYTHON=".venv")


def project(folder: Path, *dependencies: str) -> None:
    listed = ", ".join(f'"{dependency}"' for dependency in dependencies)
    (folder / "pyproject.toml").write_text(
        f'[project]\nname = "ours"\nversion = "1"\nrequires-python = ">=3.10"\ndependencies = [{listed}]\n'
        f'[tool.uv.sources]\nwgan_fast = {{ path = "{ROOT}" }}\n{MATCH_RUNTIME}'
    )


def uv_sync(folder: Path, torch: str) -> None:
    project(folder, f"torch=={torch}", "wgan_fast")
    uv("sync", folder=folder)


def uv_add(folder: Path, torch: str) -> None:
    project(folder)
    uv("add", f"torch=={torch}", folder=folder)
    uv("add", "wgan_fast", folder=folder)


WAYS: list[Callable[[Path, str], None]] = [
    torch_first,
    one_command,
    requirements,
    pinned_git,
    read_only_source,
    compiler_of_two_words,
    uv_pip,
    uv_sync,
    uv_add,
]


@pytest.mark.parametrize("torch", TORCHES)
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_way(way: Callable[[Path, str], None], torch: str, tmp_path: Path) -> None:
    way(tmp_path, torch)
    check(tmp_path, torch)


@pytest.mark.skipif(len(TORCHES) < 2, reason="needs two versions of torch")
def test_two_projects_with_one_cache(tmp_path: Path) -> None:
    for torch in TORCHES:
        folder = tmp_path / torch
        folder.mkdir()
        project(folder, f"torch=={torch}", "wgan_fast")
        uv("sync", folder=folder, UV_CACHE_DIR=str(tmp_path / "cache"))
    for torch in TORCHES:
        check(tmp_path / torch, torch)
