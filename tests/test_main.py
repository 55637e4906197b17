"""The command `wgan-fast` without the extra that most of its commands need."""

import subprocess
import sys

import torch


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
