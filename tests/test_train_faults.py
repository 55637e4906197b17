"""Full disks, folders that cannot be written, files that go away: an error in words, and nothing is lost."""

import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("wgan_fast.train.trainer", reason="the extra wgan_fast[train] is not installed")

from training import cli, everything, options, run, write_image
from wgan_fast.train import Trainer

pytestmark = pytest.mark.usefixtures("few_samples")


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file may grow beyond this many bytes: what a full disk is to a program, but for the name of the error."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_told(result: Any, *words: object) -> None:
    assert result.exit_code in (1, 2) and "Traceback" not in result.output, result.output
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1, result.stderr
    for word in words:
        assert str(word) in result.stderr, result.stderr


@pytest.mark.parametrize(("size", "file"), [(0, "config.yaml"), (2_000, "checkpoint.pt")])
def test_a_full_disk_costs_no_earlier_run(size: int, file: str, tmp_path: Path) -> None:
    """At the settings and at the first checkpoint."""
    folder = tmp_path / "run"
    run(folder)
    before = tree(tmp_path)
    with room_for(size):
        result = cli("train", "--out", folder, "--overwrite", *options(seed=1))
    assert_told(result, folder / file, "File too large")
    assert tree(tmp_path) == before


def test_a_disk_that_fills_later_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run(folder, checkpoint_every=2)
    before = {name: content for name, content in tree(folder).items() if name.endswith(".pt")}
    with room_for(2_000):
        result = cli("train", "--resume", "--out", folder, "--steps", 9)
    assert_told(result, folder / "checkpoint.pt", "to go on from step 4: wgan-fast train --resume --out")
    assert {name: content for name, content in tree(folder).items() if name.endswith(".pt")} == before
    assert not list(folder.rglob("unfinished-*"))
    assert cli("train", "--resume", "--out", folder, "--steps", 9).exit_code == 0


def test_a_disk_with_room_for_the_checkpoint_alone_ends_no_run(tmp_path: Path) -> None:
    """Pictures and evaluations that cannot be written are warnings."""
    run(tmp_path / "first")
    room = (tmp_path / "first" / "checkpoint.pt").stat().st_size + 500
    assert (tmp_path / "first" / "samples.png").stat().st_size > room
    with room_for(room):
        result = cli("train", "--out", tmp_path / "run", *options())
    assert result.exit_code == 0 and "warning: samples.png: " in result.output, result.output
    assert everything(tmp_path / "run")["step"] == 4
    assert not list((tmp_path / "run").rglob("unfinished-*"))


@pytest.mark.parametrize(("command", "name"), [("sample", "x.npy"), ("export", "x.pt2")])
def test_a_full_disk_costs_no_file(command: str, name: str, tmp_path: Path) -> None:
    run(tmp_path / "run")
    (tmp_path / name).write_text("precious")
    with room_for(100):
        result = cli(command, tmp_path / "run", "--out", tmp_path / name, "--overwrite")
    assert_told(result, tmp_path / name, "File too large")
    assert (tmp_path / name).read_text() == "precious"
    assert {path.name for path in tmp_path.iterdir()} == {"run", name}


@pytest.fixture
def unwritable(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "unwritable"
    folder.mkdir()
    folder.chmod(0o555)
    yield Path("/sys/kernel") if os.access(folder, os.W_OK) else folder  # root may write everywhere else
    folder.chmod(0o755)


def test_a_folder_that_cannot_be_written_is_told(unwritable: Path, tmp_path: Path) -> None:
    run(tmp_path / "run")
    assert_told(cli("train", "--out", unwritable / "run", *options()), "--out: ", unwritable / "run")
    assert_told(
        cli("train", "--resume", "auto", "--out", unwritable / "run", *options()), "--out: ", unwritable / "run"
    )
    for command, name in (("sample", "x.npy"), ("export", "x.pt2")):
        assert_told(cli(command, tmp_path / "run", "--out", unwritable / name), "--out: ", unwritable / name)


def at_step(number: int, act: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    update_generator = Trainer.update_generator

    def acting(self: Trainer, real: torch.Tensor) -> None:
        update_generator(self, real)
        if self.step == number:
            act()

    monkeypatch.setattr(Trainer, "update_generator", acting)


def test_a_run_folder_that_goes_away_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    at_step(3, lambda: shutil.rmtree(folder), monkeypatch)
    assert_told(cli("train", "--out", folder, *options()), folder / "checkpoint.pt", "No such file")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(30):
        write_image(tmp_path / "photos" / f"{number:02}.png", size=(16, 16))
    return tmp_path / "photos"


OF_PHOTOS: dict[str, Any] = {"size": 16, "width": 4, "batch_size": 8, "n_critic": 1, "workers": 0}


def test_a_removed_picture_is_told_at_every_stage(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the first step, between two steps, before the run goes on, before an evaluation."""
    folder, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    settings = options(**OF_PHOTOS, data=photos, checkpoint_every=2)
    held_out = Trainer.__init__.__globals__["Evaluation"]

    def removing(*args: object) -> Any:
        photos.rename(elsewhere)
        return held_out(*args)

    with monkeypatch.context() as patched:
        patched.setattr("wgan_fast.train.trainer.Evaluation", removing)
        assert_told(cli("train", "--out", folder, *settings), "--data: ", photos, "No such file")
    assert not folder.exists()
    elsewhere.rename(photos)
    with monkeypatch.context() as patched:
        at_step(3, lambda: photos.rename(elsewhere), patched)
        result = cli("train", "--out", folder, *settings)
    assert_told(result, photos, "No such file", "to go on from step 2: wgan-fast train --resume --out")
    assert_told(cli("train", "--resume", "--out", folder), "--data: ", "there is no ")
    assert_told(cli("evaluate", folder), "name their place with --data")
    elsewhere.rename(photos)
    (photos / "07.png").unlink()
    assert_told(cli("train", "--resume", "--out", folder), "has 29 samples, the run began with 30")
