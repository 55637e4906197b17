"""Settings: names, types and ranges of their values, and where they come from."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("wgan_fast.train.trainer", reason="the extra wgan_fast[train] is not installed")

from training import cli, run
from wgan_fast.train import TrainConfig
from wgan_fast.train.config import make_config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"algorithm": "dcgan"}, "algorithm: expected one of gan, nsgan, wgan, .*, got 'dcgan'"),
        ({"model": "vit"}, "model: expected one of mlp, dcgan, resnet, got 'vit'"),
        ({"optimizer": "sgd"}, "optimizer: expected one of adam, rmsprop, got 'sgd'"),
        ({"precision": "8"}, "precision: expected one of 32, bf16, 16, got '8'"),
        ({"precision": "16"}, "precision: 16 needs a GPU, got the device cpu; use bf16 or 32"),
        ({"backend": "fast"}, "backend: expected one of auto, eager, graph, compile, got 'fast'"),
        ({"norm": "layer"}, "norm: expected one of none, batch, got 'layer'"),
        ({"clip": 0.0}, "clip: expected a number above 0, got 0.0"),
        ({"checkpoint_every": 0}, "checkpoint_every: expected an integer of at least 1, got 0"),
        ({"penalty_every": 0}, "penalty_every: expected an integer of at least 1, got 0"),
        ({"workers": -1}, "workers: expected an integer of at least 0, got -1"),
        ({"steps": 0}, "steps: expected an integer of at least 1, got 0"),
        ({"batch_size": -1}, "batch_size: expected an integer of at least 1, got -1"),
        ({"n_critic": 0}, "n_critic: expected an integer of at least 1, got 0"),
        ({"latent_dimension": 0}, "latent_dimension: expected an integer of at least 1, got 0"),
        ({"width": 0}, "width: expected an integer of at least 1, got 0"),
        ({"depth": 0}, "depth: expected an integer of at least 1, got 0"),
        ({"log_every": 0}, "log_every: expected an integer of at least 1, got 0"),
        ({"threads": 0}, "threads: expected an integer of at least 1, got 0"),
        ({"seed": -1}, "seed: expected an integer of at least 0, got -1"),
        ({"learning_rate": 0.0}, "learning_rate: expected a number above 0, got 0.0"),
        ({"learning_rate": math.nan}, "learning_rate: expected a number above 0, got nan"),
        ({"penalty_weight": -0.1}, "penalty_weight: expected a number of at least 0, got -0.1"),
        ({"penalty_weight": math.inf}, "penalty_weight: expected a number of at least 0, got inf"),
        ({"beta1": 1.0}, "beta1: expected a number from 0 to below 1, got 1.0"),
        ({"beta2": -0.1}, "beta2: expected a number from 0 to below 1, got -0.1"),
        ({"average_decay": 1.5}, "average_decay: expected a number from 0 to below 1, got 1.5"),
        ({"device": "abacus"}, "device: expected auto, cpu, cuda or cuda:N, got 'abacus'"),
        ({"device": "meta"}, "device: expected auto, cpu, cuda or cuda:N, got 'meta'"),
        ({"device": "cuda:99"}, "device: PyTorch finds .* CUDA devices here, got 'cuda:99'"),
    ],
)
def test_a_wrong_value_is_named(settings, message, tmp_path):
    with pytest.raises(ValueError, match=f"^{message}$"):
        TrainConfig(**settings)
    ((name, value),) = settings.items()
    result = cli("train", "--out", tmp_path / "run", f"--{name.replace('_', '-')}={value}")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: --{name.replace('_', '-')}: ")
    assert result.stderr.count("\n") == 1
    assert "Traceback" not in result.output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("settings", [{"steps": 2.0}, {"steps": True}, {"seed": "0"}, {"learning_rate": "fast"}])
def test_a_wrong_type_is_named(settings):
    with pytest.raises(TypeError, match=f"^{next(iter(settings))}: expected"):
        TrainConfig(**settings)


@pytest.mark.parametrize(
    ("error", "settings"),
    [
        (ValueError, {"threads": 100_000}),
        (TypeError, {"overwrite": "no"}),
        (TypeError, {"out": 5}),
        (TypeError, {"out": ""}),
        (TypeError, {"data": ["x"]}),
        (TypeError, {"conditional": 1}),
        (TypeError, {"colour": 3}),
        (TypeError, {"generator": torch.nn.Linear}),
    ],
)
def test_settings_of_the_wrong_kind(error: type, settings: dict[str, Any]) -> None:
    with pytest.raises(error, match=f"^{next(iter(settings))}: expected"):
        TrainConfig(**settings)


def test_an_option_that_is_no_number_is_named():
    result = cli("train", "--steps", "many")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith("Error: Invalid value for '--steps'")


def test_settings_of_a_file_can_be_overridden(tmp_path: Path) -> None:
    text = "algorithm: wgan\nclip: 0.02\nsteps: 7\nlearning_rate: 1e-4\nprecision: 32\n"  # as people write them
    (tmp_path / "mine.yaml").write_text(text)
    config = make_config(tmp_path / "mine.yaml", {"steps": 9})
    assert (config.learning_rate, config.precision) == (1e-4, "32")
    assert (config.algorithm, config.clip, config.steps, config.optimizer) == ("wgan", 0.02, 9, "rmsprop")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--config", "{}/checkpoint.pt"],
            "--config: .*checkpoint.pt is not YAML of settings: longer than 10,000 bytes",
        ),
        (["--config", "{}/metrics.jsonl"], "--config: .* is not YAML"),
        (["--config", "{}/metrics.json"], "--config: .* has unknown settings: .*seconds"),
    ],
)
def test_a_file_without_settings_is_named(options: list[str], message: str, few_samples: None, tmp_path: Path) -> None:
    run(tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    result = cli("train", *(option.format(tmp_path) for option in options))
    assert result.exit_code == 2, result.output
    assert result.stderr.count("\n") == 1
    assert re.match(f"error: {message}", result.stderr), result.stderr
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()} == before


@pytest.mark.parametrize(
    "text",
    [
        "data: &a x\nmodel: *a\n",
        "a: &a [x, x]\nb: &b [*a, *a]\nalgorithm: *b\n",
        "algorithm: [wgan]\n",
        "[" * 9_000,
        "# " + "x" * 10_000,
    ],
    ids=["aliases", "nested aliases", "a list", "brackets", "long"],
)
def test_settings_are_flat_and_short(text: str, tmp_path: Path) -> None:
    """A few lines with aliases can stand for more than any memory holds."""
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ValueError, match="^config: .*config.yaml( is not YAML of settings: |: expected a name or)"):
        make_config(tmp_path / "config.yaml", {})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"step": 3}, "^step: there is no such setting; did you mean steps"),
        ({"epochs": 3}, "^epochs: there is no such setting; `wgan-fast train --help`"),
        ({"out": 5, "resume": True}, "^out: expected a path, got 5"),
    ],
)
def test_what_a_program_names_wrongly_is_told(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make_config(None, settings)
