"""What doctor says of each mismatch, and how it learns of it."""

import importlib.metadata
import json
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from wgan_fast import doctor

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


WHEEL = ("2.11", "2.13")
CPU_BUILD = {**BUILD, "cuda": None, "cuda_architectures": []}


def test_doctor_is_content() -> None:
    assert doctor.diagnose(FINE) == []
    assert "No problems found." in doctor.report(FINE)


@pytest.mark.parametrize(
    ("facts", "problem", "remedy"),
    [
        (replace(FINE, torch="2.14.1"), "built for torch 2.13.0, and this is 2.14.1", "REINSTALL"),
        (
            replace(FINE, build=None, failure="it was built for CUDA 13.0, and this torch for CUDA 12.8"),
            "could not be loaded: it was built for CUDA 13.0",
            "REINSTALL",
        ),
        (
            replace(FINE, build=None, failure="this wheel holds extensions for torch 2.11, 2.13", wheel_for=WHEEL),
            "this wheel holds extensions for torch 2.11, 2.13",
            "install PyTorch 2.11 or 2.13, or build it for this PyTorch: REINSTALL",
        ),
        (
            replace(FINE, torch=None, torch_failure="No module named 'torch'", wheel_for=WHEEL),
            "No module named 'torch'",
            "install PyTorch 2.11 or 2.13 (https://pytorch.org/get-started/locally/)",
        ),
        (replace(FINE, gpus=(("NVIDIA T4", "7.5"),)), "NVIDIA T4 is 7.5", 'TORCH_CUDA_ARCH_LIST="7.5" REINSTALL'),
        (replace(FINE, build=CPU_BUILD, cuda_left_out="nvcc was not found"), "nvcc was not found", "WGAN_FAST_CUDA=1"),
        (replace(FINE, build=None, failure="undefined symbol"), "could not be loaded: undefined symbol", "REINSTALL"),
        (replace(FINE, build=None, build_failure="x.cpp:1: error"), "not compiled: x.cpp:1: error", "C++ compiler"),
        (replace(FINE, torch=None, torch_failure="No module named 'torch'"), "No module named 'torch'", "pytorch.org"),
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
        replace(FINE, gpus=(), torch_cuda=None),
        replace(FINE, build=CPU_BUILD, torch_cuda=None, gpus=(), cuda_left_out="torch is a build without CUDA"),
        replace(FINE, build=CPU_BUILD, gpus=(), cuda_left_out="nvcc was not found"),
        replace(FINE, build=CPU_BUILD, cuda_left_out="WGAN_FAST_CUDA=0 was set when it was built"),
    ],
    ids=["no GPU", "CUDA kernels for a CPU torch", "CPU torch", "no GPU and no nvcc", "by choice"],
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


def test_report_without_the_extension() -> None:
    lines = doctor.report(replace(FINE, build=None, failure="undefined symbol", driver="580.82.07")).splitlines()
    assert lines[4:] == [
        "driver        580.82.07",
        "extension     none",
        "CPU kernels   none; the plain-PyTorch reference is used",
        "CUDA kernels  none",
        "",
        "! the extension could not be loaded: undefined symbol",
        "  -> build it for this PyTorch: REINSTALL",
    ]


def test_report_of_the_kernels() -> None:
    lines = doctor.report(replace(FINE, build={**BUILD, "threads": False})).splitlines()
    assert lines[2:7] == [
        "torch         2.13.0+cu130 (CUDA 13.0)",
        "GPUs          NVIDIA H100 (9.0)",
        "extension     0.1.0, for torch 2.13.0, compiler 12.2.0",
        "CPU kernels   chose x86-64-v3, on one thread",
        "CUDA kernels  CUDA 13.0 for 8.0, 9.0+PTX",
    ]


def test_report_of_what_is_no_problem() -> None:
    lines = doctor.report(replace(FINE, gpus=())).splitlines()
    assert "GPUs          none visible" in lines
    assert lines[-4:] == ["", "the CUDA kernels are built, but no GPU is visible", "", "No problems found."]


@pytest.mark.parametrize(("facts", "status"), [(FINE, 0), (replace(FINE, gpus=()), 0), (replace(FINE, build=None), 1)])
def test_status_of_the_command(facts: doctor.Facts, status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "collect", lambda: facts)
    assert doctor.main() == status


@pytest.mark.parametrize(
    ("noted", "source"),
    [
        ({"url": "file:///home/a%2Bb/wgan_fast", "dir_info": {"editable": True}}, "-e /home/a+b/wgan_fast"),
        ({"url": "file:///home/wgan_fast", "dir_info": {}}, "/home/wgan_fast"),
        ({"url": "https://example.org/wgan_fast.tar.gz", "archive_info": {}}, "https://example.org/wgan_fast.tar.gz"),
        (
            {"url": "https://example.org/a.git", "vcs_info": {"vcs": "git", "commit_id": "c0"}},
            "git+https://example.org/a.git@c0",
        ),
        ({"url": "file:///home/my%20code/wgan_fast"}, "'/home/my code/wgan_fast'"),
        ({"url": "file:///wheels/wgan_fast-0.1.0-cp311.whl"}, ". (in the folder of wgan_fast's sources)"),
        ({}, ". (in the folder of wgan_fast's sources)"),
    ],
)
@pytest.mark.parametrize("pip", [True, False])
def test_the_command_that_installs_again(
    noted: dict[str, object], source: str, pip: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source is that of `direct_url.json` (PEP 610)."""
    installed = {"wgan_fast": SimpleNamespace(read_text=lambda name: json.dumps(noted) if noted else None)}
    installed |= {"pip": SimpleNamespace()} if pip else {}
    monkeypatch.setattr(
        importlib.metadata, "distributions", lambda name: iter([installed[name]] if name in installed else [])
    )
    monkeypatch.setattr("sys.executable", "PYTHON")
    command = doctor._reinstall_command()
    assert command.startswith("PYTHON -m pip install " if pip else "uv pip install --python PYTHON ")
    assert command.endswith(f" --no-cache-dir {source}")


def test_without_torch() -> None:
    """In a new process, where torch cannot be imported."""
    without = "import sys; sys.modules['torch'] = None; "
    program = (
        without + "sys.argv = ['wgan-fast', 'doctor', '--json']; from wgan_fast.__main__ import main; sys.exit(main())"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 1 and result.stderr == ""
    answer = json.loads(result.stdout)
    assert answer["facts"]["torch"] is None
    (finding,) = answer["findings"]
    assert "PyTorch cannot be imported" in finding["problem"] and "2.11" in finding["remedy"]
    use = subprocess.run(
        [sys.executable, "-c", without + "from wgan_fast import CriticStep"], capture_output=True, text=True
    )
    assert "ImportError: wgan_fast.CriticStep needs PyTorch" in use.stderr and "wgan-fast doctor" in use.stderr


def test_a_debug_build_is_a_note() -> None:
    assert "debug build" in doctor.report(replace(FINE, debug=True))
    assert not any(finding.remedy for finding in doctor.diagnose(replace(FINE, debug=True)))


def test_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(*command: object, **options: object) -> SimpleNamespace:
        return SimpleNamespace(stdout="580.82.07\n580.82.07\n")

    def fail(*command: object, **options: object) -> None:
        raise subprocess.CalledProcessError(9, "nvidia-smi")

    monkeypatch.setattr("shutil.which", lambda name: None)
    assert doctor._driver() is None
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(subprocess, "run", answer)
    assert doctor._driver() == "580.82.07"
    monkeypatch.setattr(subprocess, "run", fail)
    assert doctor._driver() == "nvidia-smi fails"
