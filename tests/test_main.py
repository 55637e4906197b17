"""The command `wgan-fast` without the extra that most of its commands need."""

import os
import subprocess
import sys

import pytest
import torch

import wgan_fast


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
    assert "pip install '.[train]'" in refused.stderr
    assert torch.__version__ in run("doctor").stdout
    assert "--seconds" in run("bench", "--help").stdout
    wrong = run("bench", "--device", "nowhere")
    assert wrong.returncode == 2 and "--device: expected cpu, cuda or cuda:N, got 'nowhere'" in wrong.stderr


def test_version_needs_nothing() -> None:
    program = (
        "import sys; sys.modules['torch'] = sys.modules['typer'] = None; from wgan_fast.__main__ import main; main()"
    )
    result = subprocess.run([sys.executable, "-c", program, "--version"], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, f"wgan_fast {wgan_fast.__version__}\n"), result.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize("command", ["--version", "doctor"])
def test_a_full_disk_is_told_without_a_traceback(command: str) -> None:
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "wgan_fast", command], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert (result.returncode, result.stderr) == (1, "error: the output cannot be written: No space left on device\n")


@pytest.mark.parametrize("columns", ["40", "80"])
def test_help_is_not_cut(columns: str) -> None:
    pytest.importorskip("wgan_fast.cli", reason="the extra wgan_fast[train] is not installed")
    command = [sys.executable, "-m", "wgan_fast", "--help"]
    shown = subprocess.run(command, env=os.environ | {"COLUMNS": columns}, capture_output=True, text=True).stdout
    assert "..." not in shown.replace("[ARGS]...", "") and "--version" in shown and "--install-completion" in shown
    assert "how to mend what does not match." in " ".join(shown.split())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("tr", ["train"]),
        ("train --algorithm wgan-", ["wgan-gp", "wgan-lp", "wgan-div"]),
        ("reproduce dua", ["duality"]),
    ],
)
def test_completion(words: str, expected: list[str]) -> None:
    pytest.importorskip("wgan_fast.cli", reason="the extra wgan_fast[train] is not installed")
    asked = {"_WGAN_FAST_COMPLETE": "complete_bash", "COMP_WORDS": f"wgan-fast {words}"}
    asked["COMP_CWORD"] = str(len(words.split()))
    command = [sys.executable, "-m", "wgan_fast"]
    shown = subprocess.run(command, env=os.environ | asked, capture_output=True, text=True).stdout
    assert shown.split() == expected
