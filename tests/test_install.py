"""Installing: which torch the build finds, and that the version has one source."""

import importlib.metadata
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
import torch

import wgan_fast
from wgan_fast import _library

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "build_support"))
import backend  # noqa: E402 (from the folder just added)


def test_version_has_one_source() -> None:
    assert importlib.metadata.version("wgan_fast") == wgan_fast.__version__
    if _library.extension is not None:
        assert _library.extension.build_info()["version"] == wgan_fast.__version__
    elsewhere = [
        path
        for path in ("pyproject.toml", "setup.py", "CMakeLists.txt")
        if wgan_fast.__version__ in (ROOT / path).read_text()
    ]
    assert elsewhere == []


def test_backend_finds_the_torch_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a front end's own environment: a Python without torch asks the one that has it."""
    torch_folder = str(Path(torch.__file__).parents[1])
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != torch_folder])
    assert torch_folder in (backend.torch_path([tmp_path / "no-such-python", sys.executable]) or [])


def test_backend_asks_for_torch_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    venv.create(tmp_path, with_pip=False)
    assert backend.torch_path([tmp_path / "bin" / "python"]) is None
    monkeypatch.setattr(backend.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(backend, "torch_path", lambda: None)
    (wanted,) = [need for need in backend.get_requires_for_build_wheel() if need.startswith("torch")]
    assert wanted == "torch>=2.11"


@pytest.mark.parametrize(
    ("command", "environment", "expected"),
    [
        (["/env/bin/python", "-m", "build"], {}, "/env/bin/python"),
        (["uv", "pip", "install", "--python", "/env/bin/python", "."], {}, "/env/bin/python"),
        (["uv", "pip", "install", "-p", "env", "."], {}, "{folder}/env/bin/python"),
        (["uv", "pip", "install", "--python=/env", "."], {"VIRTUAL_ENV": "/other"}, "/env/bin/python"),
        (["uv", "pip", "install", "."], {"VIRTUAL_ENV": "/env"}, "/env/bin/python"),
        (["uv", "pip", "install", "."], {"CONDA_PREFIX": "/env"}, "/env/bin/python"),
        (["uv", "pip", "install", "."], {}, "{folder}/.venv/bin/python"),
    ],
)
def test_backend_knows_the_front_ends(
    command: list[str], environment: dict[str, str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "front_end", lambda: (command, environment, tmp_path))
    assert expected.format(folder=tmp_path) in [str(python) for python in backend._target_pythons()][1:3]


@pytest.mark.slow
def test_pip_install_downloads_no_torch(tmp_path: Path) -> None:
    """A real `pip install .` beside a torch: the build takes that one, and the wheel asks for its minor version."""
    wheel = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--verbose", "--wheel-dir", str(tmp_path), str(ROOT)]
    result = subprocess.run(wheel, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert not re.search(r"(Collecting|Downloading|Using cached) torch\b", result.stdout)
    (built,) = tmp_path.glob("wgan_fast-*.whl")
    with zipfile.ZipFile(built) as files:
        (metadata,) = (name for name in files.namelist() if name.endswith(".dist-info/METADATA"))
        minor = ".".join(torch.__version__.split(".")[:2])
        assert f"Requires-Dist: torch=={minor}.*" in files.read(metadata).decode()
        assert any(name.startswith("wgan_fast/_C.") for name in files.namelist())
