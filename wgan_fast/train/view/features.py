"""Networks whose features FID, KID, precision and recall compare: of torch-fidelity, of torchvision, or a user's."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wgan_fast._checks import ArgumentValueError
from wgan_fast.train.networks.named import load_factory

INCEPTION = "inception"
TORCHVISION = "torchvision:"
_INCEPTION_URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
)


def make_features(name: str) -> nn.Module:
    """The network that ``--features`` names, from samples (B, ...) to features (B, F).

    Args:
        name: ``inception``, that of the original FID, in torch-fidelity; ``torchvision:resnet50``, or another of its
            classifiers, without the last layer; or ``my.module:make_features``. Weights are never downloaded.

    Raises:
        ValueError: there is no such network, its package is not installed, or its weights are not on this machine.
    """
    if name == INCEPTION:
        return _Inception()
    if name.startswith(TORCHVISION):
        return _Classifier(name.removeprefix(TORCHVISION))
    return load_factory(name, "features")()


class _Inception(nn.Module):
    """torch-fidelity's network for 2,048 features; it resizes images itself."""

    def __init__(self) -> None:
        super().__init__()
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import (  # type: ignore[import-not-found]
                FeatureExtractorInceptionV3,
            )
        except ImportError as error:
            raise ArgumentValueError(
                "features", "inception needs torch-fidelity: pip install torch-fidelity"
            ) from error
        weights = str(_at_hand(_INCEPTION_URL))
        self.network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], weights)

    def forward(self, images: Tensor) -> Tensor:
        shades = _in_colour(images).add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
        features: Tensor = self.network(shades)[0]
        return features


class _Classifier(nn.Module):
    """A classifier of torchvision without its last layer."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, name: str) -> None:
        super().__init__()
        try:
            from torchvision import models  # type: ignore[import-not-found]
        except ImportError as error:
            raise ArgumentValueError("features", f"{name} needs torchvision: pip install torchvision") from error
        try:
            weights = models.get_model_weights(name).DEFAULT
        except ValueError as error:
            raise ArgumentValueError("features", f"torchvision has no model {name!r}") from error
        self.network = models.get_model(name)
        self.network.load_state_dict(torch.load(_at_hand(weights.url), weights_only=True))
        last = [place for place, layer in self.network.named_modules() if isinstance(layer, nn.Linear)]
        if not last:
            raise ArgumentValueError("features", f"{name} of torchvision does not end in a linear layer")
        parent, _, child = last[-1].rpartition(".")
        setattr(self.network.get_submodule(parent), child, nn.Identity())
        transforms = weights.transforms()
        (self.side,) = {*transforms.crop_size}
        self.register_buffer("mean", torch.tensor(transforms.mean)[:, None, None])
        self.register_buffer("deviation", torch.tensor(transforms.std)[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        shades = _in_colour(images).clamp(-1, 1).add(1).div(2)
        resized = F.interpolate(shades, (self.side, self.side), mode="bilinear", antialias=True)
        features: Tensor = self.network((resized - self.mean) / self.deviation)
        return features


def _in_colour(images: Tensor) -> Tensor:
    """Three channels; alpha is left out."""
    if images.dim() != 4:
        raise ArgumentValueError(
            "features", f"expected images for this network, got samples of shape {images.shape[1:]}"
        )
    return images[:, :3] if images.shape[1] >= 3 else images[:, :1].expand(-1, 3, -1, -1)


def _at_hand(url: str) -> Path:
    file = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not file.is_file():
        raise ArgumentValueError("features", f"its weights are not at {file}; download them from {url}")
    return file


def features_of(network: nn.Module, samples: Tensor, device: Any = "cpu", batch: int = 100) -> Tensor:
    """Features (B, F) of samples (B, ...), on the CPU, computed in batches on ``device``.

    Raises:
        ValueError: the network returns something else.
    """
    found = []
    for some in samples.split(batch):
        features = network(some.to(device))
        if not isinstance(features, Tensor) or features.dim() != 2 or len(features) != len(some):
            got = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise ArgumentValueError(
                "features", f"expected a network that returns features ({len(some)}, F), got {got}"
            )
        found.append(features.float().cpu())
    return torch.cat(found)
