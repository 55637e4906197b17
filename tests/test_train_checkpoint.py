"""A stopped run goes on as if it had not been; what a checkpoint survives, and what is said of a damaged one."""

import os
import random
import re
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("wgan_fast.train.trainer", reason="the extra wgan_fast[train] is not installed")

from training import begin_command, cli, everything, options, rows, run, small_config, wait_for_rows, write_image
from wgan_fast.train import Trainer
from wgan_fast.train.config import make_config
from wgan_fast.train.run import checkpoint
from wgan_fast.train.run.atomic import UNFINISHED

pytestmark = pytest.mark.usefixtures("few_samples")


SETTINGS: dict[str, Any] = {"steps": 9, "log_every": 4, "checkpoint_every": 3}


class Killed(BaseException):
    """Nothing of a process that is killed runs after it."""


def killed(monkeypatch: pytest.MonkeyPatch, folder: Path, step: int, trainer: Trainer) -> None:
    """Ends the run in the middle of a step, without a chance to save."""
    update_generator = Trainer.update_generator

    def dying(self: Trainer, real: torch.Tensor) -> None:
        update_generator(self, real)
        if self.step == step:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "update_generator", dying)
        with pytest.raises(Killed):
            trainer.run()


def reproducible_rows(folder: Path) -> list[dict[str, float]]:
    """Without what depends on the machine."""
    return [{name: value for name, value in row.items() if name != "samples_per_second"} for row in rows(folder)]


def assert_equal(found: Any, expected: Any) -> None:
    """Bit by bit."""
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"algorithm": "wgan", "data": "swissroll"},
        {"algorithm": "dragan", "data": "8gaussians", "penalty_every": 2},
        {"algorithm": "r1", "data": "digits", "conditional": True, "workers": 1, "latent_dimension": 4},
        {"algorithm": "nsgan", "data": "digits", "latent_dimension": 4, "norm": "batch"},
        {"algorithm": "r3gan", "data": "8gaussians", "penalty_every": 5},
    ],
    ids=lambda settings: settings.get("algorithm", "wgan-gp"),
)
@pytest.mark.filterwarnings("ignore:critic. .* is a BatchNorm2d:UserWarning")
def test_killed_and_resumed_is_undisturbed(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SETTINGS | settings
    run(tmp_path / "whole", **settings)
    folder = tmp_path / "cut"
    killed(monkeypatch, folder, 5, Trainer(small_config(**settings, out=folder)))
    killed(monkeypatch, folder, 7, Trainer(make_config(None, {"resume": True, "out": folder})))
    assert torch.load(folder / checkpoint.NAME, weights_only=True)["step"] == 6
    Trainer(make_config(None, {"resume": True, "out": folder})).run()
    assert_equal(everything(folder), everything(tmp_path / "whole"))
    assert reproducible_rows(folder) == reproducible_rows(tmp_path / "whole")
    assert [row["step"] for row in rows(folder)] == [4, 8, 9]


def test_a_finished_run_can_be_lengthened(tmp_path: Path) -> None:
    run(tmp_path, **SETTINGS)
    result = cli("train", "--resume", "--out", tmp_path, "--steps", 12)
    assert result.exit_code == 0, result.output
    assert torch.load(tmp_path / checkpoint.NAME, weights_only=True)["step"] == 12
    assert "steps: 12\n" in (tmp_path / "config.yaml").read_text()


def test_a_disk_that_is_full_when_it_is_flushed_leaves_both_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fabric = SimpleNamespace(is_global_zero=True, barrier=lambda: None)
    for state in ("one", "two"):
        checkpoint.save_checkpoint(fabric, tmp_path, {"state": state})

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        checkpoint.save_checkpoint(fabric, tmp_path, {"state": "three"})
    assert caught.value.filename == str(tmp_path / checkpoint.NAME)
    files = {file.name: torch.load(file)["state"] for file in tmp_path.iterdir()}
    assert files == {checkpoint.NAME: "two", checkpoint.PREVIOUS: "one"}


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "run" / checkpoint.NAME
    run(tmp_path / "run", **SETTINGS)
    before, write_bytes = file.read_bytes(), Path.write_bytes

    def full(path: Path, content: bytes) -> None:
        write_bytes(path, content[:99])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    result = cli("train", "--resume", "--out", tmp_path / "run", "--steps", 30)
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1), result.output
    assert f"{file} cannot be read or written: No space left on device" in result.stderr
    assert file.read_bytes() == before
    assert not list((tmp_path / "run").glob("unfinished-*"))


def test_checkpoints_do_not_pass_through_the_folder_of_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which may be small, or full."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    run(tmp_path / "run")
    assert (tmp_path / "run" / checkpoint.NAME).exists()


def test_only_the_first_process_touches_the_checkpoint(tmp_path: Path) -> None:
    unfinished, waited = tmp_path / f"{UNFINISHED}{checkpoint.NAME}", []
    unfinished.write_text("by the first process")
    other = SimpleNamespace(is_global_zero=False, barrier=lambda: waited.append(True))
    checkpoint.save_checkpoint(other, tmp_path, {})
    assert waited and list(tmp_path.iterdir()) == [unfinished]


def damage(folder: Path, how: str) -> None:
    file = folder / checkpoint.NAME
    if how == "truncated":
        file.write_bytes(file.read_bytes()[:-2000])
    elif how == "empty":
        file.write_bytes(b"")
    elif how == "text":
        file.write_text("no checkpoint")
    elif how == "table":
        file.write_text("age,pay\n20,1\n")
    elif how == "foreign":
        torch.save({"model": {}}, file)
    elif how == "list":
        torch.save([1, 2], file)
    elif how == "code":
        torch.save({"generator": torch.nn.Linear(1, 1)}, file)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("truncated", "is truncated or not a checkpoint"),
        ("empty", "is truncated or not a checkpoint"),
        ("text", "is truncated or not a checkpoint"),
        ("table", "is truncated or not a checkpoint"),
        ("foreign", "is not a checkpoint of wgan_fast train: it lacks batches, codec"),
        ("list", "is not a checkpoint of wgan_fast train: it lacks everything"),
        ("code", "is not a checkpoint of wgan_fast"),
    ],
)
def test_a_damaged_checkpoint_is_told_and_the_previous_one_offered(how: str, message: str, tmp_path: Path) -> None:
    run(tmp_path, **SETTINGS)
    damage(tmp_path, how)
    result = cli("train", "--resume", "--out", tmp_path)
    file, previous = tmp_path / checkpoint.NAME, tmp_path / checkpoint.PREVIOUS
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert result.stderr.startswith(f"error: --resume: {file} {message}")
    assert result.stderr.endswith(f"; {previous} is whole, of step 6: mv {previous} {file}\n")
    previous.replace(file)
    assert cli("train", "--resume", "--out", tmp_path).exit_code == 0


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    """PyTorch reads the weights without looking at their checksums."""
    run(tmp_path / "run", **SETTINGS)
    file = tmp_path / "run" / checkpoint.NAME
    weights = torch.load(file)["critic"]["layers.0.weight"].numpy().tobytes()
    content = bytearray(file.read_bytes())
    content[content.index(weights) + 2] ^= 1
    file.write_bytes(content)
    torch.load(file)
    for command in (["sample", file, "--out", tmp_path / "x.npy"], ["train", "--resume", "--out", tmp_path / "run"]):
        result = cli(*command)
        assert result.exit_code == 2 and f"{file} is damaged; " in result.stderr, result.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--resume"], "--resume: set out to the run's folder"),
        (["--resume", "--out", "{}/nowhere"], "--resume: .* cannot be read: No such file"),
        (["--resume", "--out", "{}", "--steps", "8"], "--steps: the run is at step 9 already; got 8"),
        (
            ["--resume", "auto", "--out", "{}", "--width", "16"],
            "--width: a run that goes on keeps its width, 8; got 16",
        ),
        (["--resume", "auto"], "--resume: set out to the run's folder"),
        (["--resume", "--out", "{}", "--seed", "1"], "--seed: a run that goes on keeps its seed, 0; got 1"),
        (["--resume", "--out", "{}", "--optimizer", "rmsprop"], "--optimizer: a run that goes on keeps its optimizer"),
        (["--resume", "--out", "{}", "--width", "16"], "--width: a run that goes on keeps its width, 8; got 16"),
        (["--resume", "--out", "{}", "--algorithm", "wgan"], "--algorithm: .* has the settings of wgan-gp"),
        (
            ["--resume", "--out", "{}", "--config", "{}/config.yaml"],
            "--resume: set out to the run's folder and omit config",
        ),
        (["--resume", "--overwrite", "--out", "{}"], "--resume: expected one of resume and overwrite"),
    ],
)
def test_what_cannot_go_on_is_told(options: list[str], message: str, tmp_path: Path) -> None:
    run(tmp_path, **SETTINGS)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    result = cli("train", *(option.format(tmp_path) for option in options))
    assert result.exit_code == 2, result.output
    assert result.stderr.count("\n") == 1
    assert re.match(f"error: {message}", result.stderr), result.stderr
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()} == before


def test_a_run_of_several_processes_goes_on_with_one(digits_run: Path) -> None:
    state = torch.load(digits_run / "checkpoint.pt", weights_only=True)
    state["random"] *= 2
    torch.save(state, digits_run / "checkpoint.pt")
    assert cli("evaluate", digits_run, "--count", 50).exit_code == 0
    result = cli("train", "--resume", "--out", digits_run, "--steps", 3)
    assert result.exit_code == 0, result.output
    assert len(everything(digits_run)["random"]) == 1


def test_data_that_changed_are_told(table_run: Path) -> None:
    file = table_run.parent / "people.csv"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:100]))
    resumed = ["train", "--resume", "--steps", 5, "--out", table_run]
    for arguments, name in ((resumed, "--data"), (["evaluate", table_run], f"run: the data of {table_run}")):
        result = cli(*arguments)
        assert result.exit_code == 2
        assert result.stderr == f"error: {name}: {file} has 99 samples, the run began with 200\n"


def shuffled(folder: Path) -> None:
    header, *lines = (folder / "people.csv").read_text().splitlines()
    (folder / "people.csv").write_text("\n".join([header, *reversed(lines)]) + "\n")


def one_fewer(folder: Path) -> None:
    next((folder / "pictures" / "b").iterdir()).unlink()


def one_other_name(folder: Path) -> None:
    file = next((folder / "pictures" / "b").iterdir())
    file.rename(file.with_name("0000.png"))


def one_other_picture(folder: Path) -> None:
    write_image(sorted((folder / "pictures" / "a").iterdir())[0], size=(24, 24))


def one_other_row(folder: Path) -> None:
    array = np.load(folder / "images.npy")
    array[7, 0, 0] ^= 1
    np.save(folder / "images.npy", array)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Pictures, a table and an array."""
    for number in range(24):
        write_image(tmp_path / "data" / "pictures" / "ab"[number % 2] / f"{number}.png")
    rows = np.random.default_rng(0).normal(size=(40, 2))
    np.savetxt(tmp_path / "data" / "people.csv", rows, "%.6g", ",", header="a,b", comments="")
    np.save(tmp_path / "data" / "images.npy", np.random.default_rng(0).integers(0, 255, (20, 16, 16), dtype=np.uint8))
    return tmp_path / "data"


CHANGES = [
    ("pictures", one_fewer),
    ("pictures", one_other_name),
    ("pictures", one_other_picture),
    ("people.csv", shuffled),
    ("images.npy", one_other_row),
]
TINY: dict[str, Any] = {"steps": 2, "width": 4, "batch_size": 4, "n_critic": 1}


@pytest.mark.parametrize(("name", "change"), CHANGES)
def test_changed_data_are_noticed(name: str, change: Any, data: Path, tmp_path: Path) -> None:
    """What was held out must not become training data."""
    run(tmp_path / "run", **TINY, data=str(data / name))
    change(data)
    for arguments in (["train", "--resume", "--steps", 3, "--out", tmp_path / "run"], ["evaluate", tmp_path / "run"]):
        result = cli(*arguments)
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1), result.output
        assert "began with" in result.stderr and str(data / name) in result.stderr


@pytest.mark.parametrize("name", ["pictures", "people.csv", "images.npy"])
def test_data_may_move(name: str, data: Path, tmp_path: Path) -> None:
    run(tmp_path / "run", **TINY, data=str(data / name))
    (held_out,) = {Trainer(small_config(**TINY, data=str(data / name))).data.held_out(9, 0).samples.numpy().tobytes()}
    moved = data.rename(tmp_path / "elsewhere") / name
    assert "or name their place with --data" in cli("evaluate", tmp_path / "run").stderr
    assert cli("evaluate", tmp_path / "run", "--data", moved).exit_code == 0
    result = cli("train", "--resume", "--steps", 3, "--out", tmp_path / "run", "--data", moved)
    assert result.exit_code == 0, result.output
    trainer = Trainer(make_config(None, {"resume": True, "out": tmp_path / "run"}))
    assert trainer.data.held_out(9, 0).samples.numpy().tobytes() == held_out


def test_the_trainers_own_output_is_no_data(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(data / "pictures")
    tiny = [item for name, value in TINY.items() for item in (f"--{name.replace('_', '-')}", value)]
    for _ in range(2):
        assert cli("train", "--data", ".", *tiny).exit_code == 0
    folder = Path("runs") / "wgan-gp--seed0"
    assert folder.exists()
    assert cli("evaluate", folder).exit_code == 0
    assert cli("train", "--resume", "--steps", 3, "--out", folder).exit_code == 0
    assert Trainer(small_config(data=".")).data.classes == ("a", "b")


def test_a_run_from_before_tables_had_mixed_types(table_run: Path, tmp_path: Path) -> None:
    """Its checkpoint holds the means of three plain columns; it is sampled as it was, and does not go on."""
    state = torch.load(table_run / "checkpoint.pt", weights_only=True)
    names, numbers = ("age", "income", "rooms"), {"mean": (40.0, 1e5, 3.0), "deviation": (10.0, 1e4, 1.0)}
    state["codec"] = {"kind": "vectors", "columns": names, "classes": (), **numbers}
    del state["identity"], state["networks"]["blocks"]
    torch.save(state, table_run / "checkpoint.pt")
    assert cli("sample", table_run, "--out", tmp_path / "old.csv").exit_code == 0
    assert (tmp_path / "old.csv").read_text().startswith("age,income,rooms\n")
    for arguments in (["train", "--resume", "--steps", 5, "--out", table_run], ["evaluate", table_run]):
        result = cli(*arguments)
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1), result.output
        assert "of a version that encoded tables as plain numbers" in result.stderr


def test_one_command_starts_or_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before the first checkpoint, and after it."""
    run(tmp_path / "whole", **SETTINGS)
    folder = tmp_path / "run"
    auto = {"resume": "auto", "out": folder, **small_config(**SETTINGS).to_dict()}
    for step, saved in ((2, None), (1, None), (5, 3), (7, 6)):
        killed(monkeypatch, folder, step, Trainer(make_config(None, auto)))
        assert (everything(folder)["step"] if saved else None) == saved
    again = [*options(**SETTINGS), "--resume", "auto", "--out", folder]
    assert cli("train", *again).exit_code == 0
    assert_equal(everything(folder), everything(tmp_path / "whole"))
    assert reproducible_rows(folder) == reproducible_rows(tmp_path / "whole")


def test_resume_without_a_checkpoint_names_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed(monkeypatch, tmp_path / "run", 2, Trainer(small_config(**SETTINGS, out=tmp_path / "run")))
    result = cli("train", "--resume", "--out", tmp_path / "run")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert result.stderr.endswith("checkpoint.pt yet; --resume auto begins the run anew\n")
    with pytest.raises(TypeError, match="^resume: expected True, False or 'auto', got 'never'"):
        small_config(resume="never", out=tmp_path)


@pytest.mark.long
def test_sigkill_at_drawn_moments(tmp_path: Path) -> None:
    """Twenty of them; each run goes on until it ends, and has the weights of the undisturbed one."""
    settings = options(data="8gaussians", steps=60, batch_size=32, width=16, checkpoint_every=5, log_every=1)
    errors, draw, ended = tmp_path / "errors.txt", random.Random(0), 0

    def finish(folder: Path) -> None:
        process = begin_command(errors, "train", *settings, "--resume", "auto", "--out", folder)
        process.join()
        assert process.exitcode == 0, errors.read_text()

    finish(tmp_path / "whole")
    expected = everything(tmp_path / "whole")
    for kill in range(20):  # also before the first checkpoint
        folder = tmp_path / f"run{kill}"
        process = begin_command(errors, "train", *settings, "--out", folder)
        wait_for_rows(process, folder, draw.randrange(60))
        time.sleep(draw.uniform(0, 0.02))
        ended += not process.is_alive()
        process.kill()
        process.join()
        finish(folder)
        assert_equal(everything(folder), expected)
    assert ended < 10
