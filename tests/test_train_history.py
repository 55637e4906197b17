"""The history of a run."""

import json
from pathlib import Path

import pytest

pytest.importorskip("wgan_fast.train.trainer", reason="the extra wgan_fast[train] is not installed")

from training import run
from wgan_fast.train import Trainer
from wgan_fast.train.config import make_config

pytestmark = pytest.mark.usefixtures("few_samples")


def test_a_damaged_history_does_not_stop_a_run(tmp_path: Path) -> None:
    run(tmp_path, steps=9, log_every=4)
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(file.read_bytes().splitlines()[0] + b'\n[1]\n"x"\n{"step": 5}\n{"step": 2\n\xff')
    Trainer(make_config(None, {"resume": True, "out": tmp_path, "steps": 12, "log_every": 12})).run()
    assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == [4, 12]
