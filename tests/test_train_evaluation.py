"""The evaluation of a run that has ended."""

import json
import re
from pathlib import Path

import pytest

pytest.importorskip("wgan_fast.train.trainer", reason="the extra wgan_fast[train] is not installed")

from training import cli


def test_evaluate_gives_the_numbers_of_the_run(digits_run: Path) -> None:
    before = {file: file.read_bytes() for file in digits_run.iterdir() if file.is_file()}
    result = cli("evaluate", digits_run, "--count", 50)
    assert result.exit_code == 0, result.output
    found, metrics = json.loads(result.stdout), json.loads((digits_run / "metrics.json").read_text())
    assert found["earth_movers_distance"] == metrics["earth_movers_distance"] and found["step"] == 2
    assert {file: file.read_bytes() for file in digits_run.iterdir() if file.is_file()} == before


def test_what_is_no_folder_of_a_run_is_told(digits_run: Path) -> None:
    result = cli("evaluate", digits_run / "checkpoint.pt")
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert re.match("error: run: .*checkpoint.pt/config.yaml cannot be read: ", result.stderr), result.stderr
