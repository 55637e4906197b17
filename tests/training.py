"""What the tests of the trainer share: batches, image files and small networks."""

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from wgan_fast.train.networks.named import Models, make_models


def assert_same(batch, other):
    assert torch.equal(batch.samples, other.samples)
    assert (batch.labels is None) == (other.labels is None)
    assert batch.labels is None or torch.equal(batch.labels, other.labels)


def write_image(path, mode="RGB", size=(20, 20), **options):
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.effect_noise(size, 50).convert(mode).save(path, **options)


LATENT = 6
CASES = [
    ("mlp", (2,)),
    ("mlp", (1, 5, 7)),
    *((name, (channels, side, side)) for name in ("dcgan", "resnet") for channels, side in ((3, 16), (1, 32), (3, 64))),
]
cases = pytest.mark.parametrize(("name", "shape"), CASES)
with_and_without_classes = pytest.mark.parametrize("classes", [0, 3])


def tiny_models(name: str, shape: tuple[int, ...], classes: int = 0, norm: str = "none", width: int = 4) -> Models:
    return make_models(name, shape, latent_dimension=LATENT, width=width, classes=classes, norm=norm)


def some_labels(count: int, classes: int) -> tuple[Tensor, ...]:
    return (torch.arange(count) % classes,) if classes else ()


def parameter_count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def convolution(inputs: int, outputs: int, size: int) -> int:
    """Weights and biases."""
    return inputs * outputs * size**2 + outputs
