"""A stopped run goes on as if it had not been; what a checkpoint survives, and what is said of a damaged one."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("wgan_fast.train", reason="the extra wgan_fast[train] is not installed")

from typer.testing import CliRunner

from wgan_fast.cli import app
from wgan_fast.train import TrainConfig, Trainer
from wgan_fast.train.config import make_config
from wgan_fast.train.run import checkpoint

SMALL: dict[str, Any] = {"steps": 9, "batch_size": 16, "width": 8, "log_every": 4, "checkpoint_every": 3}


class Killed(BaseException):
    """Nothing of a process that is killed runs after it."""


@pytest.fixture(autouse=True)
def few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wgan_fast.train.view.evaluation.SAMPLES", 50)


def run(folder: Path, **settings: Any) -> None:
    Trainer(TrainConfig(**SMALL | settings, out=folder)).run()


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


def everything(folder: Path) -> dict[str, Any]:
    state = torch.load(folder / checkpoint.NAME, weights_only=True)
    return {name: value for name, value in state.items() if name not in ("config", "codec", "networks")}


def rows(folder: Path) -> list[dict[str, float]]:
    """Without what depends on the machine."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "samples_per_second"} for row in found]


def assert_same(found: Any, expected: Any) -> None:
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
    run(tmp_path / "whole", **settings)
    folder = tmp_path / "cut"
    killed(monkeypatch, folder, 5, Trainer(TrainConfig(**SMALL | settings, out=folder)))
    killed(monkeypatch, folder, 7, Trainer(make_config(None, {"resume": True, "out": folder})))
    assert torch.load(folder / checkpoint.NAME, weights_only=True)["step"] == 6
    Trainer(make_config(None, {"resume": True, "out": folder})).run()
    assert_same(everything(folder), everything(tmp_path / "whole"))
    assert rows(folder) == rows(tmp_path / "whole")
    assert [row["step"] for row in rows(folder)] == [4, 8, 9]


def test_a_finished_run_can_be_lengthened(tmp_path: Path) -> None:
    run(tmp_path)
    result = CliRunner().invoke(app, ["train", "--resume", "--out", str(tmp_path), "--steps", "12"])
    assert result.exit_code == 0, result.output
    assert torch.load(tmp_path / checkpoint.NAME, weights_only=True)["step"] == 12
    assert "steps: 12\n" in (tmp_path / "config.yaml").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_leaves(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    update_generator = Trainer.update_generator

    def interrupted(self: Trainer, real: torch.Tensor) -> None:
        update_generator(self, real)
        if self.step == 4:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(Trainer, "update_generator", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
    options = [item for name, value in SMALL.items() for item in (f"--{name.replace('_', '-')}", str(value))]
    result = CliRunner().invoke(app, ["train", "--out", str(tmp_path / "run"), *options])
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler
    assert result.exit_code == 128 + number
    assert f"stopped at step 4; to go on: wgan-fast train --resume --out {tmp_path / 'run'}" in result.stderr
    assert torch.load(tmp_path / "run" / checkpoint.NAME, weights_only=True)["step"] == 4
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_a_disk_that_is_full_when_it_is_flushed_leaves_both_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fabric = SimpleNamespace(is_global_zero=True, save=lambda path, state: path.write_text(state))
    for state in ("one", "two"):
        checkpoint.save_checkpoint(fabric, tmp_path, state)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save_checkpoint(fabric, tmp_path, "three")
    files = {file.name: file.read_text() for file in tmp_path.iterdir()}
    assert files == {checkpoint.NAME: "two", checkpoint.PREVIOUS: "one"}


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path / "run")
    before = (tmp_path / "run" / checkpoint.NAME).read_bytes()
    trainer = Trainer(make_config(None, {"resume": True, "out": tmp_path / "run", "steps": 30}))

    def full(path: Path, state: Any) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(trainer.fabric, "save", full)
    with pytest.raises(OSError, match="No space left"):
        trainer.run()
    assert (tmp_path / "run" / checkpoint.NAME).read_bytes() == before
    assert not list((tmp_path / "run").glob("*.unfinished"))


def test_only_the_first_process_touches_the_checkpoint(tmp_path: Path) -> None:
    file, unfinished = tmp_path / checkpoint.NAME, tmp_path / f"{checkpoint.NAME}.unfinished"
    other = SimpleNamespace(is_global_zero=False, save=lambda path, state: path.write_text("by the first process"))
    checkpoint.save_checkpoint(other, tmp_path, {})
    assert unfinished.exists() and not file.exists()


def test_a_damaged_history_does_not_stop_a_run(tmp_path: Path) -> None:
    run(tmp_path)
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(file.read_bytes().splitlines()[0] + b'\n[1]\n"x"\n{"step": 5}\n{"step": 2\n\xff')
    Trainer(make_config(None, {"resume": True, "out": tmp_path, "steps": 12, "log_every": 12})).run()
    assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == [4, 12]


def test_a_kill_while_a_run_begins_again_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path)
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
        ("truncated", "is truncated, or no checkpoint"),
        ("empty", "is truncated, or no checkpoint"),
        ("text", "is no checkpoint of wgan_fast"),
        ("table", "is truncated, or no checkpoint"),
        ("foreign", "is no checkpoint of wgan_fast train: it lacks batches, codec"),
        ("list", "is no checkpoint of wgan_fast train: it lacks everything"),
        ("code", "is no checkpoint of wgan_fast"),
    ],
)
def test_a_damaged_checkpoint_is_told_and_the_previous_one_offered(how: str, message: str, tmp_path: Path) -> None:
    run(tmp_path)
    damage(tmp_path, how)
    result = CliRunner().invoke(app, ["train", "--resume", "--out", str(tmp_path)])
    file, previous = tmp_path / checkpoint.NAME, tmp_path / checkpoint.PREVIOUS
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert result.stderr.startswith(f"error: --resume: {file} {message}")
    assert result.stderr.endswith(f"; {previous} is whole, of step 6: mv {previous} {file}\n")
    previous.replace(file)
    assert CliRunner().invoke(app, ["train", "--resume", "--out", str(tmp_path)]).exit_code == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--resume"], "--resume: expected the run's folder as out"),
        (["--resume", "--out", "{}/nowhere"], "--resume: .* cannot be read: No such file"),
        (["--resume", "--out", "{}", "--steps", "8"], "--steps: the run is at step 9 already; got 8"),
        (["--resume", "--out", "{}", "--seed", "1"], "--seed: a run that goes on keeps its seed, 0; got 1"),
        (["--resume", "--out", "{}", "--optimizer", "rmsprop"], "--optimizer: a run that goes on keeps its optimizer"),
        (["--resume", "--out", "{}", "--width", "16"], "--width: a run that goes on keeps its width, 8; got 16"),
        (["--resume", "--out", "{}", "--algorithm", "wgan"], "--algorithm: .* has the settings of wgan-gp"),
        (
            ["--resume", "--out", "{}", "--config", "{}/config.yaml"],
            "--resume: expected the run's folder as out, and no",
        ),
        (["--resume", "--overwrite", "--out", "{}"], "--resume: expected one of resume and overwrite"),
        (["--config", "{}/checkpoint.pt"], "--config: .*checkpoint.pt cannot be read"),
        (["--config", "{}/metrics.jsonl"], "--config: .* is no YAML"),
        (["--config", "{}/metrics.json"], "--config: .* names .*seconds"),
    ],
)
def test_what_cannot_go_on_is_told(options: list[str], message: str, tmp_path: Path) -> None:
    run(tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    result = CliRunner().invoke(app, ["train", *(option.format(tmp_path) for option in options)])
    assert result.exit_code == 2, result.output
    assert result.stderr.count("\n") == 1
    assert re.match(f"error: {message}", result.stderr), result.stderr
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()} == before


# Processes ----------------------------------------------------------------------------------------


def command(folder: Path, *options: str) -> list[str]:
    settings = {"data": "8gaussians", "steps": 60, "batch_size": 32, "width": 16, "checkpoint_every": 5, "log_every": 5}
    flags = [item for name, value in settings.items() for item in (f"--{name.replace('_', '-')}", str(value))]
    return ["-m", "wgan_fast", "train", "--out", str(folder), *(options or flags)]


@pytest.mark.long
def test_sigkill_at_drawn_moments(tmp_path: Path) -> None:
    """Twenty of them; each run is resumed until it ends, and has the weights of the undisturbed one."""
    subprocess.run([sys.executable, *command(tmp_path / "whole")], check=True, capture_output=True)
    expected = everything(tmp_path / "whole")
    draw = random.Random(0)
    for kill in range(20):
        folder = tmp_path / f"run{kill}"
        process = subprocess.Popen([sys.executable, *command(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        while not (folder / "metrics.jsonl").exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 2))
        process.kill()
        process.communicate()
        again = ["--resume"] if (folder / checkpoint.NAME).exists() or (folder / checkpoint.PREVIOUS).exists() else []
        options = command(folder, *again) if again else [*command(folder), "--overwrite"]
        subprocess.run([sys.executable, *options], check=True, capture_output=True)
        assert_same(everything(folder), expected)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", ["wgan-gp", "r3gan"])
def test_two_processes_train_as_one(algorithm: str, tmp_path: Path) -> None:
    """For a few steps: Adam makes the rounding of a gradient near 0 a step of full length."""
    few = ["--data", "8gaussians", "--steps", "5", "--batch-size", "32", "--width", "16", "--log-every", "1"]
    few += ["--algorithm", algorithm]
    subprocess.run([sys.executable, *command(tmp_path / "one", *few)], check=True, capture_output=True)
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", "2", *command(tmp_path / "two", *few)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *launcher], check=True, capture_output=True, env=environment)
    one, two = everything(tmp_path / "one"), everything(tmp_path / "two")
    assert two["step"] == 5 and len(two["random"]) == 2
    torch.testing.assert_close(two["trained_generator"], one["trained_generator"], rtol=1e-4, atol=1e-5)
    for mine, theirs in zip(rows(tmp_path / "two"), rows(tmp_path / "one"), strict=True):
        assert mine.keys() == theirs.keys() >= {"penalty", "gradient_norm"}
        for name in mine:
            assert mine[name] == pytest.approx(theirs[name], rel=5e-3, abs=1e-4)
