"""Installing: what doctor says of each mismatch, which torch the build finds, and that the version has one source."""

import importlib.metadata
import re
import subprocess
import sys
import venv
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import wgan_fast
from wgan_fast import _library, doctor

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "build_support"))
import backend  # noqa: E402 (from the folder just added)

BUILD = {
    "version": "0.1.0",
    "torch": "2.13.0",
    "cuda": "13.0",
    "cuda_architectures": ["8.0", "9.0+PTX"],
    "compiler": "12.2.0",
    "instruction_set": "x86-64-v3",
    "threads": True,
}
FINE = doctor.Facts(
    torch="2.13.0+cu130",
    torch_cuda="13.0",
    gpus=(("NVIDIA H100", "9.0"),),
    package="/site/wgan_fast",
    build=BUILD,
    reinstall="REINSTALL",
)
CPU_BUILD = {**BUILD, "cuda": None, "cuda_architectures": []}


def test_doctor_is_content() -> None:
    assert doctor.diagnose(FINE) == []
    assert "No problems found." in doctor.report(FINE)


@pytest.mark.parametrize(
    ("facts", "problem", "remedy"),
    [
        (replace(FINE, torch="2.14.1"), "built for torch 2.13.0, and this is 2.14.1", "REINSTALL"),
        (replace(FINE, torch_cuda=None, gpus=()), "this torch is a build without CUDA", "REINSTALL"),
        (replace(FINE, torch_cuda="12.8"), "this torch is a build for CUDA 12.8", "REINSTALL"),
        (replace(FINE, gpus=(("NVIDIA T4", "7.5"),)), "NVIDIA T4 is 7.5", 'TORCH_CUDA_ARCH_LIST="7.5" REINSTALL'),
        (replace(FINE, build=CPU_BUILD, cuda_left_out="nvcc was not found"), "nvcc was not found", "WGAN_FAST_CUDA=1"),
        (replace(FINE, build=None, failure="undefined symbol"), "could not be loaded: undefined symbol", "REINSTALL"),
        (replace(FINE, build=None, build_failure="x.cpp:1: error"), "not compiled: x.cpp:1: error", "C++ compiler"),
        (replace(FINE, build=None, elsewhere="/env/wgan_fast"), "is /env/wgan_fast", "another folder"),
    ],
)
def test_doctor_says_how_to_mend(facts: doctor.Facts, problem: str, remedy: str) -> None:
    (finding,) = doctor.diagnose(facts)
    assert problem in finding.problem
    assert finding.remedy is not None
    assert remedy in finding.remedy
    assert finding.problem in doctor.report(facts)


@pytest.mark.parametrize(
    "facts",
    [
        replace(FINE, gpus=()),
        replace(FINE, build=CPU_BUILD, torch_cuda=None, gpus=(), cuda_left_out="torch is a build without CUDA"),
        replace(FINE, build=CPU_BUILD, gpus=(), cuda_left_out="nvcc was not found"),
        replace(FINE, build=CPU_BUILD, cuda_left_out="WGAN_FAST_CUDA=0 was set when it was built"),
    ],
    ids=["no GPU", "CPU torch", "no GPU and no nvcc", "by choice"],
)
def test_doctor_lets_be(facts: doctor.Facts) -> None:
    assert not any(finding.remedy for finding in doctor.diagnose(facts))


@pytest.mark.parametrize(
    ("architectures", "capability", "runs"),
    [
        (["8.0"], "8.0", True),
        (["8.0"], "8.9", True),  # a later minor runs the machine code
        (["8.6"], "8.0", False),
        (["8.0"], "9.0", False),  # a later major does not
        (["8.0+PTX"], "9.0", True),  # but compiles intermediate code
        (["9.0a"], "9.0", True),
        (["9.0a"], "10.0", False),
        (["12.0+PTX"], "9.0", False),
        (["10.0"], "10.3", True),
    ],
)
def test_which_gpu_an_architecture_serves(architectures: list[str], capability: str, runs: bool) -> None:
    facts = replace(FINE, gpus=(("GPU", capability),), build={**BUILD, "cuda_architectures": architectures})
    assert (doctor.diagnose(facts) == []) == runs


def test_doctor_on_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    expected = int(any(finding.remedy for finding in doctor.diagnose(doctor.collect())))
    assert doctor.main() == expected
    assert torch.__version__ in capsys.readouterr().out


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


def test_command_without_the_train_extra() -> None:
    """`wgan-fast doctor`, `bench` and `--help` work; anything else says what to install."""
    extra = ("typer", "lightning", "matplotlib", "ot", "PIL", "rich", "sklearn", "tensorboard", "torchmetrics", "yaml")
    without_extra = (
        f"import sys; sys.modules.update(dict.fromkeys({extra})); "
        "import runpy; runpy.run_module('wgan_fast', run_name='__main__')"
    )

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", without_extra, *arguments], capture_output=True, text=True)

    assert "doctor" in run("--help").stdout
    refused = run("train")
    assert refused.returncode == 1
    assert "pip install 'wgan_fast[train]'" in refused.stderr
    assert torch.__version__ in run("doctor").stdout
    assert "--seconds" in run("bench", "--help").stdout
    wrong = run("bench", "--device", "nowhere")
    assert wrong.returncode == 2 and "--device: expected cpu, cuda or cuda:N, got 'nowhere'" in wrong.stderr


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
