"""Fully connected networks, for samples of any shape."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wgan_fast.train.networks.base import Critic, Generator


class MLPGenerator(Generator):
    """Fully connected layers with ReLU; for images a tanh at the end, because their values lie in [-1, 1].

    Args:
        latent_dimension: coordinates of a latent vector.
        shape: shape of a sample; an int is the number of coordinates of a vector.
        width: units of each hidden layer.
        depth: number of hidden layers.
        classes: number of labels; 0 is a generator without labels.
        blocks: of a table, which coordinates belong together: see :class:`Shares`.
    """

    def __init__(
        self,
        latent_dimension: int,
        shape: int | Sequence[int],
        width: int = 512,
        depth: int = 3,
        classes: int = 0,
        blocks: Sequence[int] = (),
    ) -> None:
        super().__init__(latent_dimension, classes)
        shape = _as_shape(shape)
        self.layers = _hidden_layers(self.input_dimension, width, depth)
        self.layers.append(nn.Linear(width, math.prod(shape)))
        if len(shape) > 1:
            self.layers.append(nn.Tanh()).append(nn.Unflatten(1, shape))
        if any(block > 1 for block in blocks):
            self.layers.append(Shares(blocks))


class Shares(nn.Module):
    r"""Makes the coordinates of each block the shares of categories, :math:`\mathrm{softmax}(x / \tau)`, near one-hot.

    Args:
        blocks: the sizes of consecutive blocks; the coordinate of a block of 1 is a number and stays.
        temperature: :math:`\tau`.

    Source: Jang, Gu and Poole, "Categorical Reparameterization with Gumbel-Softmax", 2017, equation 2, without the
    noise: the latent vector is random, and so one latent vector makes one row.
    """

    def __init__(self, blocks: Sequence[int], temperature: float = 0.2) -> None:
        super().__init__()
        self.blocks, self.temperature = tuple(blocks), temperature

    def forward(self, x: Tensor) -> Tensor:
        parts = x.split(self.blocks, dim=1)
        return torch.cat([p if p.shape[1] == 1 else (p / self.temperature).softmax(dim=1) for p in parts], dim=1)


class MLPCritic(Critic):
    """Fully connected layers with ReLU, on the flattened sample.

    Args:
        shape, width, depth, classes: as for :class:`MLPGenerator`.
        batch_norm: BatchNorm after every hidden linear layer but the first.
    """

    def __init__(
        self, shape: int | Sequence[int], width: int = 512, depth: int = 3, classes: int = 0, batch_norm: bool = False
    ) -> None:
        shape = _as_shape(shape)
        layers = nn.Sequential(nn.Flatten()) if len(shape) > 1 else nn.Sequential()
        layers.extend(_hidden_layers(math.prod(shape), width, depth, batch_norm))
        super().__init__(layers.append(nn.Linear(width, 1)), classes)


def _as_shape(shape: int | Sequence[int]) -> tuple[int, ...]:
    return (shape,) if isinstance(shape, int) else tuple(shape)


def _hidden_layers(inputs: int, width: int, depth: int, batch_norm: bool = False) -> nn.Sequential:
    layers = nn.Sequential()
    for i in range(depth):
        layers.append(nn.Linear(inputs, width))
        if batch_norm and i > 0:
            layers.append(nn.BatchNorm1d(width))
        layers.append(nn.ReLU())
        inputs = width
    return layers
