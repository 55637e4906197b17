"""The folder of a run: who may write into it."""

import json
from pathlib import Path

import pytest

pytest.importorskip("wgan_fast.train.trainer", reason="the extra wgan_fast[train] is not installed")

from training import cli, options, run
from wgan_fast.train import TrainConfig, Trainer
from wgan_fast.train.config import make_config
from wgan_fast.train.run.folder import claim_run_folder

pytestmark = pytest.mark.usefixtures("few_samples")


def test_a_named_folder_that_is_not_empty_is_refused(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "metrics.json").write_text("precious")
    (folder / "notes.txt").write_text("also precious")
    result = cli("train", "--out", folder, *options())
    assert result.exit_code == 2
    assert result.stderr.startswith("error: --out:")
    assert "--overwrite" in result.stderr
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        "metrics.json": "precious",
        "notes.txt": "also precious",
    }

    assert cli("train", "--out", folder, "--overwrite", *options()).exit_code == 0
    assert json.loads((folder / "metrics.json").read_text())["steps"] == 4
    assert (folder / "notes.txt").read_text() == "also precious"


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_a_file_is_no_run_folder(overwrite, tmp_path):
    (tmp_path / "run").write_text("precious")
    result = cli("train", "--out", tmp_path / "run", *overwrite, *options())
    assert result.exit_code == 2
    assert "is a file" in result.stderr
    assert (tmp_path / "run").read_text() == "precious"


def test_the_default_folder_is_numbered_where_it_exists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [claim_run_folder(TrainConfig(seed=7)) for _ in range(3)]
    assert names == [Path("runs") / f"wgan-gp-25gaussians-seed7{suffix}" for suffix in ("", "-2", "-3")]


def test_a_kill_while_a_run_begins_again_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, steps=9, log_every=4)
    before = {name: (tmp_path / name).read_bytes() for name in ("config.yaml", "metrics.jsonl")}

    def half(path: Path, text: str) -> None:
        path.write_bytes(text[:9].encode())
        raise OSError(28, "No space left on device")

    trainer = Trainer(make_config(None, {"resume": True, "out": tmp_path, "steps": 12}))
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", half)
        with pytest.raises(OSError, match="^out: .* cannot be written: No space left on device"):
            trainer.run()
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert not list(tmp_path.glob("unfinished-*"))
