"""Networks of features that are named, not written: of torchvision and torch-fidelity, here stood in for."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("wgan_fast.train.trainer", reason="the extra wgan_fast[train] is not installed")

from training import cli, run
from wgan_fast.train.view.features import features_of, make_features
from wgan_fast.train.view.metrics import precision_and_recall


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pool, self.fc = nn.AdaptiveAvgPool2d(2), nn.Linear(12, 5)

    def forward(self, images: Tensor) -> Tensor:
        assert images.shape[1:] == (3, 8, 8)
        return self.fc(self.pool(images).flatten(1))


class Inception(nn.Module):
    def __init__(self, name: str, features: list[str], weights: str) -> None:
        super().__init__()
        assert Path(weights).is_file() and features == ["2048"]

    def forward(self, images: Tensor) -> tuple[Tensor]:
        assert images.dtype == torch.uint8 and images.shape[1] == 3
        return (images.float().mean(dim=(2, 3)),)


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of weights, with stand-ins for the two packages."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    transforms = SimpleNamespace(crop_size=[8], mean=[0.5] * 3, std=[0.25] * 3)
    weights = SimpleNamespace(url="https://download.example/small-1234.pth", transforms=lambda: transforms)
    models = ModuleType("torchvision.models")

    def get_model_weights(name: str) -> Any:
        if name != "small":
            raise ValueError(f"Unknown model {name}")
        return SimpleNamespace(DEFAULT=weights)

    models.get_model_weights, models.get_model = get_model_weights, lambda name: Classifier()
    torchvision = ModuleType("torchvision")
    torchvision.models = models
    fidelity = ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    fidelity.FeatureExtractorInceptionV3 = Inception
    for name, module in (("torchvision", torchvision), ("torch_fidelity", ModuleType("torch_fidelity"))):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, fidelity.__name__, fidelity)
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_classifier_without_its_last_layer(packages: Path, channels: int) -> None:
    with pytest.raises(
        ValueError, match=r"^features: its weights are not at .*small-1234.pth; download them from https"
    ):
        make_features("torchvision:small")
    torch.save(Classifier().state_dict(), packages / "small-1234.pth")
    network = make_features("torchvision:small")
    images = torch.full((250, channels, 20, 12), 0.5)
    features = features_of(network, images)
    assert features.shape == (250, 12)
    torch.testing.assert_close(features, torch.ones(250, 12))  # ((0.5 + 1) / 2 - 0.5) / 0.25


def test_inception_of_torch_fidelity(packages: Path) -> None:
    with pytest.raises(ValueError, match="features: its weights are not at .*weights-inception"):
        make_features("inception")
    (packages / "weights-inception-2015-12-05-6726825d.pth").touch()
    features = features_of(make_features("inception"), torch.ones(4, 1, 8, 8))
    assert features.tolist() == [[255.0] * 3] * 4


def test_features_are_computed_in_batches() -> None:
    sizes: list[int] = []

    class Counting(nn.Module):
        def forward(self, samples: Tensor) -> Tensor:
            sizes.append(len(samples))
            return samples.flatten(1)

    features_of(Counting(), torch.zeros(250, 3), batch=100)
    assert sizes == [100, 100, 50]


def test_precision_and_recall_of_sets_placed_by_hand() -> None:
    """Half of the generated points lie among the real ones, which fill two clusters, of which one is met."""
    cluster = torch.rand(100, 2, generator=torch.Generator().manual_seed(0))
    real = torch.cat([cluster, cluster + 10])
    generated = torch.cat([cluster + 1e-4, cluster - 20])
    assert precision_and_recall(generated, real) == (0.5, 0.5)
    assert precision_and_recall(real, real) == (1.0, 1.0)


def test_a_run_measures_by_a_named_network(few_samples: None, packages: Path, tmp_path: Path) -> None:
    torch.save(Classifier().state_dict(), packages / "small-1234.pth")
    metrics = run(tmp_path / "run", data="digits", features="torchvision:small", best="kid", evaluate_every=2)
    assert {"fid", "kid", "precision", "recall"} <= metrics.keys()
    assert (tmp_path / "run" / "best.pt").exists()
    assert cli("evaluate", tmp_path / "run", "--count", 20).exit_code == 0  # no code of the run's: no --trust
    result = cli("train", "--data", "digits", "--features", "torchvision:gone", "--out", tmp_path / "x")
    assert result.exit_code == 2 and "torchvision has no model 'gone'" in result.stderr
