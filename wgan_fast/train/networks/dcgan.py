"""The networks of Radford, Metz and Chintala, "Unsupervised Representation Learning with Deep Convolutional Generative
Adversarial Networks", 2016, section 3, for images of any size from 8 x 8.
"""

from collections.abc import Iterable
from itertools import pairwise

from torch import nn

from wgan_fast.train.networks.base import Critic, Crop, Generator, first_map


class DCGANGenerator(Generator):
    """A linear layer to a small map, then transposed convolutions of stride 2, with batch normalisation.

    The map is 4 x 4 where the side is a power of two; see :func:`.base.first_map`.

    Args:
        latent_dimension: coordinates of a latent vector.
        shape: shape of an image, (channels, H, W).
        width: channels of the H/2 x W/2 map. They double each time the side halves, up to ``8 * width``.
        classes: number of labels; 0 is a generator without labels.
    """

    def __init__(self, latent_dimension: int, shape: tuple[int, ...], width: int = 64, classes: int = 0) -> None:
        channels = _channels(shape, width)[::-1]
        _, (height, across) = first_map(shape)
        super().__init__(latent_dimension, classes)
        self.layers = nn.Sequential(
            nn.Linear(self.input_dimension, channels[0] * height * across, bias=False),
            nn.Unflatten(1, (channels[0], height, across)),
            nn.BatchNorm2d(channels[0]),
            nn.ReLU(),
        )
        for inputs, outputs in pairwise(channels):
            self.layers.append(nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False))
            self.layers.append(nn.BatchNorm2d(outputs)).append(nn.ReLU())
        self.layers.append(nn.ConvTranspose2d(channels[-1], shape[0], 4, stride=2, padding=1)).append(nn.Tanh())
        self.layers.append(Crop(*shape[1:]))
        _initialise(self.layers)


class DCGANCritic(Critic):
    """Convolutions of stride 2 with LeakyReLU, down to a small map, then a linear layer.

    Args:
        shape, width, classes: as for :class:`DCGANGenerator`.
        batch_norm: BatchNorm after every convolution but the first, as in the paper.
    """

    def __init__(self, shape: tuple[int, ...], width: int = 64, classes: int = 0, batch_norm: bool = False) -> None:
        channels = _channels(shape, width)
        layers = nn.Sequential(nn.Conv2d(shape[0], width, 4, stride=2, padding=1), nn.LeakyReLU(0.2))
        for inputs, outputs in pairwise(channels):
            layers.append(nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=not batch_norm))
            if batch_norm:
                layers.append(nn.BatchNorm2d(outputs))
            layers.append(nn.LeakyReLU(0.2))
        height, across = (side // 2 ** len(channels) for side in shape[1:])
        layers.append(nn.Flatten()).append(nn.Linear(channels[-1] * height * across, 1))
        _initialise(layers)
        super().__init__(layers, classes)


def _channels(shape: tuple[int, ...], width: int) -> list[int]:
    """Channels of the feature maps, from H/2 x W/2 down to the smallest."""
    return [width * min(2**i, 8) for i in range(first_map(shape)[0])]


def _initialise(layers: Iterable[nn.Module]) -> None:
    for layer in layers:
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, std=0.02)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, mean=1.0, std=0.02)
        else:
            continue
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
