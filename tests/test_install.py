"""Installing: which torch the build finds, and that the version has one source."""

import importlib.metadata
import importlib.util
import json
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest
import setuptools
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


@pytest.mark.parametrize(
    ("failing", "failure", "cuda_left_out"),
    [
        ({True}, None, "they did not compile: x.cu:1: error"),
        ({True, False}, "x.cu:1: error", None),
        (set(), None, None),
    ],
)
def test_cuda_kernels_that_do_not_compile_leave_the_others(
    failing: set[bool],
    failure: str | None,
    cuda_left_out: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The compiler is a stand-in that fails with the CUDA kernels, or with both."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(setuptools, "setup", lambda **arguments: None)
    for variable in ("WGAN_FAST_WERROR", "WGAN_FAST_CUDA"):
        monkeypatch.delenv(variable, raising=False)
    spec = importlib.util.spec_from_file_location("wgan_fast_setup", ROOT / "setup.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(script, "cuda_left_out", lambda: None)
    monkeypatch.setattr(script, "extension", lambda cuda: setuptools.Extension("wgan_fast._C", ["x.cu"] * cuda))

    def compile_as(command: Any) -> str | None:
        return "x.cu:1: error" if bool(command.extensions[0].sources) in failing else None

    monkeypatch.setattr(script.Build, "compile", compile_as)
    build = script.Build(setuptools.Distribution({"ext_modules": [script.extension(True)]}))
    build.ensure_finalized()
    build.run()
    (file,) = tmp_path.rglob("_build.json")
    record = json.loads(file.read_text())
    assert (record["failure"], record["cuda_left_out"]) == (failure, cuda_left_out)
    last = capfd.readouterr().err.rstrip().rpartition("\n")[2]
    assert (failure or cuda_left_out or "") in last and bool(last) == bool(failure or cuda_left_out)


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
