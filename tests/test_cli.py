"""Errors of the commands name what their user wrote: an option, an argument, or the run that a command reads."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("wgan_fast.train.trainer", reason="the extra wgan_fast[train] is not installed")

from typer.testing import CliRunner

from wgan_fast.cli import app

NETWORKS = """
from torch import nn

class Network(nn.Module):
    def __init__(self, inputs, outputs, detaches=lambda network: False):
        super().__init__()
        self.layer, self.detaches = nn.Linear(inputs, outputs), detaches
    def forward(self, x):
        return self.layer(x.detach() if self.detaches(self) else x)

class Constant(Network):
    def forward(self, x):
        return super().forward(x).detach()

def make_generator(shape, latent_dimension, classes):
    return Network(latent_dimension, *shape)

def make_constant_generator(shape, latent_dimension, classes):
    return Constant(latent_dimension, *shape)

def make_detaching_critic(shape, classes):
    return Network(*shape, 1, lambda network: True)

def make_constant_critic(shape, classes):
    return Constant(*shape, 1)

class Forgetful(Network):
    def forward(self, x):
        return x.sum(1, keepdim=True)

def make_critic_without_use_of_its_weights(shape, classes):
    return Forgetful(*shape, 1)

def make_critic_that_detaches_in_training(shape, classes):
    return Network(*shape, 1, lambda network: network.training)
"""
SMALL = ("--width", "4", "--batch-size", "8", "--steps", "2", "--n-critic", "1", "--n-critic-boost", "0")


def error_of(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code in (1, 2) and result.stderr.count("\n") == 1, result.output
    return result.stderr.removesuffix("\n")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with a module of networks that can be imported from there alone."""
    (tmp_path / "cli_networks.py").write_text(NETWORKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    monkeypatch.delitem(sys.modules, "cli_networks", raising=False)
    monkeypatch.setattr("wgan_fast.train.view.evaluation.SAMPLES", 50)
    return tmp_path


def train(*arguments: str) -> None:
    result = CliRunner().invoke(app, ["train", *SMALL, "--out", "run", *arguments])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("command", ["sample", "export", "evaluate"])
def test_a_network_that_cannot_be_made_again(
    command: str, folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No command but train has an option --generator."""
    train("--generator", "cli_networks:make_generator")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(elsewhere)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(folder)])
    monkeypatch.delitem(sys.modules, "cli_networks")
    run = folder / "run"
    assert error_of(command, run, "--trust") == (
        f"error: run: the generator of {run}: there is no module 'cli_networks', neither installed nor in {elsewhere}; "
        "got 'cli_networks:make_generator'"
    )


PAYLOAD = (
    NETWORKS
    + """
from pathlib import Path
Path(__file__).with_name("ran").touch()

def make_features():
    return nn.Linear(2, 2)

def make_critic(shape, classes):
    return Network(*shape, 1)
"""
)


@pytest.mark.parametrize("role", ["generator", "critic", "features"])
def test_a_file_runs_no_code_untrusted(role: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is typed is trusted, one that a run, a checkpoint or a file of settings names is not."""
    (folder / "cli_payload.py").write_text(PAYLOAD)
    train(f"--{role}", f"cli_payload:make_{role}")

    def runs(*command: str) -> str:
        (folder / "ran").unlink(missing_ok=True)
        monkeypatch.delitem(sys.modules, "cli_payload", raising=False)
        result = CliRunner().invoke(app, [*command])
        assert result.exit_code in (0, 2) and "Traceback" not in result.output, result.output
        assert (result.exit_code == 0) == (folder / "ran").exists(), result.output
        return result.stderr

    commands = [
        ("train", "--resume", "--out", "run", "--steps", "3"),
        ("train", "--resume", "auto", "--out", "run", "--steps", "4"),
        ("train", "--config", "run/config.yaml", "--out", "again"),
        ("evaluate", "run"),
    ]
    if role != "features":
        commands += [("sample", "run", "--out", "x.npy"), ("sample", "run/checkpoint.pt", "--out", "y.npy")]
        commands += [("export", "run", "--out", "x.pt2")]
    for command in commands:
        if role == "critic" and command[0] != "train":  # that is not made
            (folder / "ran").unlink(missing_ok=True)
            monkeypatch.delitem(sys.modules, "cli_payload", raising=False)
            result = CliRunner().invoke(app, [*command])
            assert (result.exit_code, (folder / "ran").exists()) == (0, False), result.output
            continue
        message = runs(*command)
        assert message.startswith("error: --trust: ") and f"{role} cli_payload:make_{role}" in message
        assert message.count("\n") == 1
        assert runs(*command, "--trust") == ""


def test_somebody_at_the_terminal_is_asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "cli_payload.py").write_text(PAYLOAD)
    train("--generator", "cli_payload:make_generator", "--features", "cli_payload:make_features")
    monkeypatch.setattr("wgan_fast.cli._is_interactive", lambda: True)
    commands = [
        ("train", "--resume", "--out", "run", "--steps", "3"),
        ("evaluate", "run"),
        ("sample", "run", "--out", "x.npy"),
        ("export", "run", "--out", "x.pt2"),
    ]
    for command in commands:
        for answer in ("n", "", "y"):
            (folder / "ran").unlink(missing_ok=True)
            monkeypatch.delitem(sys.modules, "cli_payload", raising=False)
            result = CliRunner().invoke(app, [*command], input=f"{answer}\n")
            assert "cli_payload:make_" in result.stderr and "Run it? [y/N]" in result.stderr, result.output
            assert (result.exit_code, (folder / "ran").exists()) == ((0, True) if answer == "y" else (2, False))


def test_data_of_a_run_that_are_gone(folder: Path) -> None:
    table = folder / "people.csv"
    table.write_text("age,income\n" + "".join(f"{i % 7},{i % 11}\n" for i in range(100)))
    train("--data", "people.csv")
    table.unlink()
    message = error_of("evaluate", "run")
    assert message.startswith("error: run: the data of run: there is no people.csv; ")
    assert message.endswith(", or name their place with --data")
    message = error_of("train", "--data", "people.csv")
    assert message.startswith("error: --data: there is no people.csv; ") and "start the command" not in message


def test_a_setting_of_a_run_that_is_wrong(folder: Path) -> None:
    train()
    settings = folder / "run" / "config.yaml"
    settings.write_text(settings.read_text().replace("batch_size: 8", "batch_size: 0"))
    assert error_of("evaluate", "run") == "error: run: the batch size of run: expected an integer of at least 1, got 0"


def test_options_and_arguments_of_a_command(folder: Path) -> None:
    train()
    assert error_of("evaluate", "run", "--device", "abacus").startswith("error: --device: expected auto, cpu, cuda or")
    assert error_of("sample", "run", "--out", "x.gif").startswith("error: --out: ")
    assert error_of("sample", "nowhere").startswith("error: run: there is no checkpoint")
    assert error_of("train", "--optimizer", "newton").startswith("error: --optimizer: expected one of adam, rmsprop")
    assert error_of("reproduce", "--out", "cli_networks.py").startswith("error: --out: expected a folder")


@pytest.mark.parametrize("algorithm", ["wgan-gp", "wgan", "gan"])
@pytest.mark.parametrize(
    ("option", "factory", "what"),
    [
        ("--critic", "make_detaching_critic", "the samples"),
        ("--critic", "make_constant_critic", "the samples"),
        ("--critic", "make_critic_without_use_of_its_weights", "its weights"),
        ("--generator", "make_constant_generator", "its weights"),
    ],
)
def test_networks_that_detach_are_named_before_training(
    option: str, factory: str, what: str, algorithm: str, folder: Path
) -> None:
    message = error_of("train", *SMALL, "--algorithm", algorithm, option, f"cli_networks:{factory}", "--out", "run")
    assert message.startswith(f"error: {option}: {what} get no gradient from what it returns; ")
    assert not (folder / "run").exists()


def test_a_critic_that_detaches_in_training_alone(folder: Path) -> None:
    """The step refuses its optimizer; the setting of that name is right."""
    critic = "cli_networks:make_critic_that_detaches_in_training"
    message = error_of("train", *SMALL, "--algorithm", "wgan", "--critic", critic, "--out", "run")
    assert message == "error: run: --generator or --critic: the loss depends on none of its parameters"


EXITS = (
    NETWORKS
    + """
import sys

class Leaving(Network):
    def forward(self, x):
        if self.training and torch.is_grad_enabled():
            sys.exit(3)
        return super().forward(x)

class LeavingAtOnce(Network):
    def forward(self, x):
        sys.exit(3)

def make_leaving_critic(shape, classes):
    return Leaving(*shape, 1)

def make_critic_that_leaves_at_once(shape, classes):
    return LeavingAtOnce(*shape, 1)

def leave(**arguments):
    sys.exit(3)
"""
).replace("from torch import nn", "import torch\nfrom torch import nn")


@pytest.mark.parametrize("name", ["exits:leave", "exits:make_critic_that_leaves_at_once", "leaves:make"])
def test_own_code_that_leaves_is_named(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is made, where it is tried, where it is imported."""
    (folder / "exits.py").write_text(EXITS)
    (folder / "leaves.py").write_text("import sys\nsys.exit(3)\n")
    for module in ("exits", "leaves"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    error = error_of("train", *SMALL, "--critic", name, "--out", "run")
    assert error.startswith("error: --critic: SystemExit: 3 (") and name.split(":")[0] in error
    assert not (folder / "run").exists()


def test_a_network_that_leaves_in_training_ends_no_run_silently(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "exits.py").write_text(EXITS)
    monkeypatch.delitem(sys.modules, "exits", raising=False)
    result = CliRunner().invoke(app, ["train", *SMALL, "--critic", "exits:make_leaving_critic", "--out", "run"])
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1), result.output
    assert re.match(r"error: run: a network called sys.exit\(3\) at step 0 \(.*exits.py, line \d+\)", result.stderr)


def test_commands_import_what_they_need(tmp_path: Path) -> None:
    """The list of commands needs no Lightning; a command that does says what to install."""
    packages = ("lightning", "matplotlib", "ot", "rich", "sklearn", "tensorboard", "torchmetrics")
    program = (
        f"import sys, runpy; sys.modules.update(dict.fromkeys({packages})); "
        "runpy.run_module('wgan_fast', run_name='__main__')"
    )

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", program, *arguments],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        )

    listed = run("--help")
    assert listed.returncode == 0 and "evaluate" in listed.stdout and "needs" not in listed.stdout, listed.stderr
    for command in ("train", "sample", "evaluate", "export", "reproduce"):
        assert run(command, "--help").returncode == 0
    refused = run("sample", "run")
    assert (refused.returncode, refused.stderr) == (
        1,
        "error: sample needs lightning: pip install '.[train]', in the folder of wgan_fast's sources\n",
    )


def test_the_trainers_package_is_lazy() -> None:
    program = "import sys, wgan_fast.train.config; print('lightning' in sys.modules); from wgan_fast.train import *"
    done = subprocess.run([sys.executable, "-c", f"{program}; print(Trainer)"], capture_output=True, text=True)
    assert done.stdout == "False\n<class 'wgan_fast.train.trainer.Trainer'>\n", done.stderr
    with pytest.raises(ImportError, match="nothing"):
        from wgan_fast.train import nothing  # noqa: F401
