"""Damaged files and wrong settings: no traceback, no hang, no code run, bounded memory."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("wgan_fast.train.trainer", reason="the extra wgan_fast[train] is not installed")


from training import cli
from wrong_inputs import wrong_inputs


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


@pytest.mark.parametrize(
    "count", [pytest.param(20, marks=pytest.mark.slow), pytest.param(None, marks=pytest.mark.long)]
)
@pytest.mark.filterwarnings("ignore")
def test_wrong_inputs(count: int | None, tmp_path: Path, few_samples: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is refused, in a line or in click's three, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    inputs = wrong_inputs(tmp_path)
    assert len(inputs) >= 300
    faults = []
    for line in inputs if count is None else random.Random(0).sample(inputs, count):
        result = cli(*line)
        words = " ".join(map(str, line))[:300]
        if result.exit_code not in (1, 2) or isinstance(result.exception, Exception):
            faults.append(f"{words}: {result.exit_code}, {result.exception!r}")
        elif (
            not result.stderr.startswith(("error: ", "Usage: ", "Error: "))
            or len(result.stderr) > 2000
            or (result.stderr.startswith("error: ") and result.stderr.count("\n") > 1)
        ):
            faults.append(f"{words}: {result.stderr[:300]!r}")
        faults += [f"{words}: left {path}" for path in tmp_path.glob("out*")]
        if faults and faults[-1].startswith(f"{words}: left"):
            break
    assert not faults, "\n".join(faults)
