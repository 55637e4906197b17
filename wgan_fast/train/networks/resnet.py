"""The residual networks of Gulrajani et al., "Improved Training of Wasserstein GANs", 2017, appendix F (CIFAR-10), for
images of any size from 8 x 8.

Initialised as in the code published with the paper: biases 0; weights uniform with the variance of Glorot and Bengio,
doubled for the 3 x 3 convolutions of the blocks.
"""

import math
from typing import TypeVar

from torch import Tensor, nn

from wgan_fast.train.networks.base import Critic, Crop, Generator, first_map

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


class ResNetGenerator(Generator):
    """A linear layer to a small map, then residual blocks that double its side, with batch normalisation.

    The map is 4 x 4 where the side is a power of two; see :func:`.base.first_map`.

    Args:
        latent_dimension: coordinates of a latent vector.
        shape: shape of an image, (channels, H, W); 32 x 32 gives three blocks.
        width: channels of every map.
        classes: number of labels; 0 is a generator without labels.
    """

    def __init__(self, latent_dimension: int, shape: tuple[int, ...], width: int = 128, classes: int = 0) -> None:
        super().__init__(latent_dimension, classes)
        doublings, (height, across) = first_map(shape)
        self.layers = nn.Sequential(
            _initialised(nn.Linear(self.input_dimension, width * height * across)),
            nn.Unflatten(1, (width, height, across)),
            *(_up_block(width) for _ in range(doublings)),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            _convolution(width, shape[0], gain=1.0),
            nn.Tanh(),
            Crop(*shape[1:]),
        )


class ResNetCritic(Critic):
    """Residual blocks that halve the side down to 8 (to 14, at most), two more there, mean pooling and a linear layer.

    Args:
        shape, width, classes: as for :class:`ResNetGenerator`; 32 x 32 gives four blocks.
        batch_norm: BatchNorm in every block but the first. The paper uses none.
    """

    def __init__(self, shape: tuple[int, ...], width: int = 128, classes: int = 0, batch_norm: bool = False) -> None:
        halvings = max(1, first_map(shape)[0] - 1)
        layers = nn.Sequential(
            _first_block(shape[0], width),
            *(_down_block(width, batch_norm) for _ in range(halvings - 1)),
            *(Residual(_branch(width, batch_norm), nn.Identity()) for _ in range(2)),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            _initialised(nn.Linear(width, 1)),
        )
        super().__init__(layers, classes)


class Residual(nn.Module):
    """``branch(maps) + shortcut(maps)``."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.branch, self.shortcut = branch, shortcut

    def forward(self, maps: Tensor) -> Tensor:
        total: Tensor = self.branch(maps) + self.shortcut(maps)
        return total


# Shortcuts apply the 1 x 1 convolution at the smaller size; the published code applies it at the larger one. Both
# compute the same function, because resampling and a 1 x 1 convolution commute. The smaller size takes a quarter of the
# work.


def _up_block(width: int) -> Residual:
    branch = _branch(width, batch_norm=True).insert(2, nn.Upsample(scale_factor=2))
    return Residual(branch, nn.Sequential(_pointwise(width, width), nn.Upsample(scale_factor=2)))


def _down_block(width: int, batch_norm: bool) -> Residual:
    branch = _branch(width, batch_norm).append(nn.AvgPool2d(2))
    return Residual(branch, nn.Sequential(nn.AvgPool2d(2), _pointwise(width, width)))


def _first_block(channels: int, width: int) -> Residual:
    """No activation before the first convolution, because its input is the image."""
    return Residual(
        nn.Sequential(_convolution(channels, width), nn.ReLU(), _convolution(width, width), nn.AvgPool2d(2)),
        nn.Sequential(nn.AvgPool2d(2), _pointwise(channels, width)),
    )


def _branch(width: int, batch_norm: bool) -> nn.Sequential:
    layers = nn.Sequential()
    for _ in range(2):
        if batch_norm:
            layers.append(nn.BatchNorm2d(width))
        layers.append(nn.ReLU()).append(_convolution(width, width))
    return layers


def _convolution(inputs: int, outputs: int, gain: float = math.sqrt(2)) -> nn.Conv2d:
    return _initialised(nn.Conv2d(inputs, outputs, 3, padding=1), gain)


def _pointwise(inputs: int, outputs: int) -> nn.Conv2d:
    return _initialised(nn.Conv2d(inputs, outputs, 1))


def _initialised(layer: Layer, gain: float = 1.0) -> Layer:
    nn.init.xavier_uniform_(layer.weight, gain)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer
