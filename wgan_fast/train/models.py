"""Generators and critics."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn


class MLPGenerator(nn.Module):
    """Fully connected layers with ReLU, from a standard normal latent vector to a sample.

    Args:
        latent_dimension: the number of latent coordinates.
        dimension: the number of coordinates of a sample.
        width: units of each hidden layer.
        depth: number of hidden layers.
    """

    def __init__(self, latent_dimension: int, dimension: int, width: int, depth: int) -> None:
        super().__init__()
        self.latent_dimension = latent_dimension
        self.layers = _hidden_layers(latent_dimension, width, depth).append(nn.Linear(width, dimension))

    def forward(self, latent: Tensor) -> Tensor:
        """From latent vectors (B, latent_dimension) to samples (B, dimension)."""
        samples: Tensor = self.layers(latent)
        return samples

    def latents(self, count: int, random: torch.Generator) -> Tensor:
        """Latent vectors (count, latent_dimension) that ``random`` draws on its device."""
        return torch.randn(count, self.latent_dimension, generator=random, device=random.device)

    def sample(self, count: int, random: torch.Generator) -> Tensor:
        """Samples (count, dimension) from fresh latent vectors that ``random`` draws on its device."""
        return self.forward(self.latents(count, random))


class MLPCritic(nn.Module):
    """Fully connected layers with ReLU, from a sample to its score.

    Args:
        dimension: the number of coordinates of a sample.
        width: units of each hidden layer.
        depth: number of hidden layers.
    """

    def __init__(self, dimension: int, width: int, depth: int) -> None:
        super().__init__()
        self.layers = _hidden_layers(dimension, width, depth).append(nn.Linear(width, 1))

    def forward(self, samples: Tensor) -> Tensor:
        """From samples (B, dimension) to scores (B,)."""
        scores: Tensor = self.layers(samples)
        return scores.squeeze(1)


def _hidden_layers(inputs: int, width: int, depth: int) -> nn.Sequential:
    layers = nn.Sequential()
    for _ in range(depth):
        layers.append(nn.Linear(inputs, width)).append(nn.ReLU())
        inputs = width
    return layers


class Models(NamedTuple):
    """The two networks of a GAN."""

    generator: MLPGenerator
    critic: MLPCritic


def _mlp(dimension: int, latent_dimension: int, width: int, depth: int) -> Models:
    return Models(MLPGenerator(latent_dimension, dimension, width, depth), MLPCritic(dimension, width, depth))


#: What ``--model`` may name.
MODELS: dict[str, Callable[[int, int, int, int], Models]] = {"mlp": _mlp}


def make_models(name: str, dimension: int, latent_dimension: int, width: int, depth: int) -> Models:
    """A generator and a critic, freshly initialised, for samples of ``dimension`` coordinates.

    Raises:
        ValueError: :data:`MODELS` has none of that name.
    """
    if name not in MODELS:
        raise ValueError(f"model: expected one of {', '.join(MODELS)}, got {name!r}")
    return MODELS[name](dimension, latent_dimension, width, depth)
