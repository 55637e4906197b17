"""The evaluation of a run that has ended."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("wgan_fast.train.trainer", reason="the extra wgan_fast[train] is not installed")

from training import cli, small_config
from wgan_fast.train.build import open_data
from wgan_fast.train.view import plots
from wgan_fast.train.view.evaluation import Evaluation


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


def test_a_perfect_generator_of_rare_labels_scores_as_real_samples_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels of what is generated are as frequent as in the data, 95 to 5, or it would be far from them; in a figure
    of both, too.
    """
    labels = np.repeat([0, 1], [1900, 100])
    samples = np.random.default_rng(0).normal(size=(2000, 2)) + 10 * labels[:, None]
    np.savez(tmp_path / "x.npz", samples=samples, labels=labels)
    config = small_config(data=str(tmp_path / "x.npz"), conditional=True, latent_dimension=2)
    data = open_data(config)
    mean, deviation = (torch.tensor(numbers) for numbers in (data.decoder.mean, data.decoder.deviation))

    class Perfect(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(()))  # the evaluation asks for its device

        def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
            return ((latents + 10 * labels[:, None] - mean) / deviation).float()

    evaluation, drawn = Evaluation(config, data, Perfect()), []
    found = evaluation.evaluate()
    assert found["earth_movers_distance"] < 2 * found["earth_movers_distance_real"]
    monkeypatch.setattr(plots, "plot", lambda path, generated, *more: drawn.append(generated * deviation + mean))
    evaluation.draw(tmp_path / "x.png")
    assert (drawn[0][:, 0] > 5).double().mean() < 0.1
