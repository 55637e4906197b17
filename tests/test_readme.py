"""The README's code runs as it stands."""

import re
from pathlib import Path

import pytest
import torch

EXAMPLE, SAMPLING = re.findall(r"```python\n(.*?)```", (Path(__file__).parents[1] / "README.md").read_text(), re.DOTALL)


def test_example() -> None:
    names: dict[str, object] = {}
    exec(EXAMPLE, names)
    loss = names["loss"]
    assert isinstance(loss, torch.Tensor) and loss.isfinite()


def test_sampling_from_a_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train = pytest.importorskip("wgan_fast.train", reason="the extra wgan_fast[train] is not installed")
    monkeypatch.chdir(tmp_path)
    train.Trainer(train.TrainConfig(steps=1, width=8, depth=1)).run()
    names: dict[str, object] = {}
    exec(SAMPLING, names)
    samples = names["samples"]
    assert isinstance(samples, torch.Tensor) and samples.shape == (1000, 2)
