"""Time of import and installation."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from wgan_fast.bench import quartiles

ROOT = Path(__file__).resolve().parents[1]


def bench_import(benchmark: Any, tmp_path: Path) -> None:
    """The import of wgan_fast, which includes PyTorch's, against PyTorch's alone."""
    # Excludes the start of the interpreter.
    program = "import time; start = time.perf_counter(); import {0}; print(time.perf_counter() - start)"

    def seconds(name: str) -> float:
        command = [sys.executable, "-c", program.format(name)]
        return float(subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout)

    times: dict[str, list[float]] = {"ours": [], "torch": []}

    def import_both() -> None:
        times["ours"].append(seconds("wgan_fast"))
        times["torch"].append(seconds("torch"))

    benchmark.pedantic(import_both, rounds=5, warmup_rounds=1)
    benchmark.extra_info["seconds"] = {name: quartiles(found[1:]) for name, found in times.items()}


@pytest.mark.slow
def bench_install(benchmark: Any, tmp_path: Path) -> None:
    """`pip install` from the sources, kernels compiled."""
    pip = [sys.executable, "-m", "pip", "install", "--no-build-isolation", "--no-deps", "--target", str(tmp_path)]
    benchmark.pedantic(subprocess.run, args=([*pip, str(ROOT)],), kwargs={"check": True, "capture_output": True})
    benchmark.extra_info["seconds"] = {"ours": quartiles(benchmark.stats.stats.data)}
