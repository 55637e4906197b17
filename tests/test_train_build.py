"""The data and networks of a run, a user's own among them; errors before anything is written."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("wgan_fast.train.trainer", reason="the extra wgan_fast[train] is not installed")

from training import cli, options, run
from wgan_fast.train import TrainedGenerator

pytestmark = pytest.mark.usefixtures("few_samples")


NETWORKS = """
import torch

class Flat(torch.nn.Module):
    def __init__(self, inputs, shape):
        super().__init__()
        self.layer, self.shape = torch.nn.Linear(inputs, torch.Size(shape).numel()), shape

    def forward(self, batch):
        return self.layer(batch.flatten(1)).unflatten(1, self.shape)

def make_generator(shape, latent_dimension, classes):
    return Flat(latent_dimension, shape)

def make_critic(shape, classes):
    return Flat(torch.Size(shape).numel(), (1,))

def make_wide_generator(shape, latent_dimension, classes):
    return Flat(latent_dimension, (*shape[:-1], shape[-1] + 1))

def make_features():
    return torch.nn.Flatten()

def make_short_generator(shape, latent_dimension, classes):
    return Flat(latent_dimension + 1, shape)

def make_bad_features():
    return torch.nn.Linear(1000, 1)
"""


@pytest.fixture
def networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_networks.py").write_text(NETWORKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield "my_networks"
    sys.modules.pop("my_networks", None)


def test_networks_of_ones_own(networks: str, tmp_path: Path) -> None:
    own = {"generator": f"{networks}:make_generator", "critic": f"{networks}:make_critic"}
    run(tmp_path / "run", data="digits", features=f"{networks}:make_features", steps=2, **own)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["fid"] > 0 and np.isfinite(metrics["kid"])
    generator = TrainedGenerator.load(tmp_path / "run", trust=True)
    assert generator.sample(3).shape == (3, 16, 16) and generator.draw(3)[0].shape == (3, 1, 16, 16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--generator", "my_networks"], "--generator: expected module:function"),
        (["--generator", "my_networks:nothing"], "--generator: .* has no 'nothing'"),
        (["--critic", "nowhere:make"], "--critic: there is no module 'nowhere'"),
        (["--generator", "my_networks:make_wide_generator"], r"--generator: expected finite float32 samples \(2, 2\)"),
        (
            ["--generator", "my_networks:make_short_generator"],
            "--generator: RuntimeError: .*mat1 and mat2 .*my_networks.py, line 10",
        ),
        (["--generator", "my_networks:make_features"], "--generator: TypeError: make_features.. got an unexpected"),
        (["--features", "my_networks"], "--features: expected module:function"),
        (["--features", "my_networks:make_bad_features"], "--features: RuntimeError: .*mat1 and mat2 "),
        (["--width", "100000000"], "the memory does not suffice; a smaller --batch-size"),
        (["--data", "moons"], "--data: expected one of"),
        (["--data", "gone.csv"], "--data: there is no gone.csv"),
        (["--data", "my_networks.py"], "--data: "),
        (["--conditional"], "--conditional: expected data with labels"),
        (["--model", "dcgan"], "--model: dcgan and resnet make images"),
        (["--size", "32"], "--size: "),
        (["--data", "digits", "--depth", "2"], "--depth: expected none for dcgan, whose depth follows"),
        (["--algorithm", "gan", "--penalty-weight", "1"], "--penalty-weight: gan has no penalty"),
    ],
)
def test_what_cannot_be_trained_is_told_before_anything_is_written(
    options: list[str], message: str, networks: str, tmp_path: Path
) -> None:
    result = cli("train", "--out", "run", *options)
    assert result.exit_code == (1 if "memory" in message else 2), result.output
    assert result.stderr.count("\n") == 1 and "Traceback" not in result.output
    assert re.match(f"error: {message}", result.stderr), result.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "setting",
    [{"width": 200_000}, {"latent_dimension": 2**62}, {"batch_size": 2**40}, {"batch_size": 2**62}, {"width": 2**62}],
    ids=str,
)
def test_what_the_memory_cannot_hold_is_told_before_it_is_asked_for(
    setting: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On Linux asking succeeds, and the use ends the process."""

    def asked(*args: object) -> None:
        raise AssertionError

    monkeypatch.setattr("wgan_fast.train.trainer.make_networks", asked)
    name, value = *setting.keys(), *setting.values()
    result = cli("train", "--out", tmp_path / "run", *options(), f"--{name.replace('_', '-')}", value)
    assert result.exit_code == 1, result.output
    assert result.stderr.startswith("error: the memory does not suffice; "), result.stderr
