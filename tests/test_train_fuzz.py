"""Damaged files and wrong settings: no traceback, no hang, no code run, bounded memory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("wgan_fast.train.trainer", reason="the extra wgan_fast[train] is not installed")


@pytest.mark.parametrize(
    ("count", "seed"), [pytest.param(12, 0, marks=pytest.mark.slow), pytest.param(500, 1, marks=pytest.mark.long)]
)
def test_damaged_files(count: int, seed: int, tmp_path: Path) -> None:
    """Checkpoints, settings, arrays, tables and images; see fuzz.py."""
    tests = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": f"{tests.parent}{os.pathsep}{tests}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(tests / "fuzz.py"), str(tmp_path), str(count), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    *_, last = done.stdout.splitlines() or [""]
    found = [line for line in done.stdout.splitlines() if line.startswith(("sample ", "train ", "evaluate ", "case"))]
    assert (done.returncode, found, last) == (0, [], f"done: {count}"), done.stderr[-2000:]
