"""Installing: which torch the build finds, and that the version has one source."""

import importlib.metadata
import json
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
    assert f'version = "{wgan_fast.__version__}"' in (ROOT / "pyproject.toml").read_text()  # static, for uv
    assert f"version: {wgan_fast.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    elsewhere = [path for path in ("setup.py", "CMakeLists.txt") if wgan_fast.__version__ in (ROOT / path).read_text()]
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
    monkeypatch.setattr(backend, "named_torch", lambda: None)
    (wanted,) = [need for need in backend.get_requires_for_build_wheel() if need.startswith("torch")]
    assert wanted == "torch>=2.11"


@pytest.mark.parametrize(
    ("arguments", "files", "expected"),
    [
        (["torch==2.13.0", "."], {}, "torch==2.13.0"),
        (["torch >=2.11,<2.14", "torchvision==0.29", "."], {}, "torch>=2.11,<2.14"),
        (["-r", "needs.txt"], {"needs.txt": "numpy\nTorch==2.12.1 ; python_version > '3'  # CPU\n."}, "torch==2.12.1"),
        (["-cneeds.txt", "."], {"needs.txt": "torch<2.14"}, "torch<2.14"),
        (["--constraint=needs.txt", "."], {"needs.txt": "torch<2.14"}, "torch<2.14"),
        (["sync"], {"uv.lock": '[[package]]\nname = "torch"\nversion = "2.13.0+cpu"\n'}, "torch==2.13.0+cpu"),
        (["torchvision==0.29", "."], {"needs.txt": "torch==2.12"}, None),
    ],
)
def test_backend_asks_for_the_torch_that_is_installed_along(
    arguments: list[str],
    files: dict[str, str],
    expected: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(backend, "front_end", lambda: (["pip", "install", *arguments], {}, tmp_path))
    assert backend.named_torch() == expected
    monkeypatch.setattr(backend.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(backend, "torch_path", lambda: None)
    assert backend.get_requires_for_build_wheel() == ["ninja", expected or "torch>=2.11"]


def test_a_read_only_source_is_built_in_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "csrc").mkdir()
    (tmp_path / "csrc" / "library.cpp").write_text("int main;")
    for path in (tmp_path / "csrc", tmp_path):
        path.chmod(0o555)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(backend.os, "access", lambda path, mode: False)  # root may write everywhere
    with backend._writable_source():
        assert Path.cwd() != tmp_path
        assert Path("csrc/library.cpp").read_text() == "int main;"
        Path("csrc/library.o").write_text("")
        assert Path("csrc").stat().st_mode & 0o200
    assert Path.cwd() == tmp_path and not (tmp_path / "csrc" / "library.o").exists()


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
    """A real `pip install .` beside a torch: the build takes that one; the metadata is that of any build."""
    wheel = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--verbose", "--wheel-dir", str(tmp_path), str(ROOT)]
    result = subprocess.run(wheel, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert not re.search(r"(Collecting|Downloading|Using cached) torch\b", result.stdout)
    (built,) = tmp_path.glob("wgan_fast-*.whl")
    with zipfile.ZipFile(built) as files:
        (metadata,) = (name for name in files.namelist() if name.endswith(".dist-info/METADATA"))
        assert "Requires-Dist: torch>=2.11" in files.read(metadata).decode()
        built_for = json.loads(files.read("wgan_fast/_build.json"))["torch"]
        assert built_for == torch.__version__
        assert any(name.startswith("wgan_fast/_C.") for name in files.namelist())
