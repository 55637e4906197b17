"""What every generator and every critic of the trainer has in common: its call, and how it takes labels."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Models(NamedTuple):
    """The two networks of a GAN, the library's or a user's.

    With classes they are called ``generator(latent, labels)`` and ``critic(samples, labels)``, with labels (B,) of
    int64; without, ``generator(latent)`` and ``critic(samples)``.
    """

    generator: nn.Module
    critic: nn.Module


def latents(count: int, latent_dimension: int, random: torch.Generator) -> Tensor:
    """Standard normal latent vectors (count, latent_dimension) that ``random`` draws on its device."""
    return torch.randn(count, latent_dimension, generator=random, device=random.device)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards each part is in the mode that it had."""
    training = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode


class Generator(nn.Module):
    """From latent vectors to samples; with classes, the label's embedding is appended to the latent vector.

    Args:
        latent_dimension: coordinates of a latent vector.
        classes: number of labels; 0 is a generator without labels.

    Attributes:
        layers: from the latent vector (and the embedding) to the sample; a subclass makes them, for
            ``input_dimension`` inputs.

    Source of the condition: Mirza and Osindero, "Conditional Generative Adversarial Nets", 2014, section 3.2.
    """

    layers: nn.Sequential

    def __init__(self, latent_dimension: int, classes: int) -> None:
        super().__init__()
        self.latent_dimension = latent_dimension
        # As many coordinates as a one-hot vector, up to the number that suffices BigGAN for the 1000 of ImageNet.
        self.embedding = nn.Embedding(classes, min(classes, 128)) if classes else None
        self.input_dimension = latent_dimension + min(classes, 128)

    def forward(self, latent: Tensor, labels: Tensor | None = None) -> Tensor:
        """From latent vectors (B, latent_dimension), and labels (B,) of int64, to samples (B, ...)."""
        embedded = _embed(self.embedding, labels)
        samples: Tensor = self.layers(latent if embedded is None else torch.cat([latent, embedded], dim=1))
        return samples


class Critic(nn.Module):
    r"""From samples to scores; with classes, the label's embedding is projected on the features.

    .. math:: f(x, y) = w \cdot \phi(x) + b + e_y \cdot \phi(x)

    Args:
        layers: :math:`\phi`, to the features (B, F), then a ``Linear`` to one score.
        classes: number of labels; 0 is a critic without labels.

    Source of the condition: Miyato and Koyama, "cGANs with Projection Discriminator", 2018, equation 4.
    """

    def __init__(self, layers: nn.Sequential, classes: int) -> None:
        super().__init__()
        self.layers = layers
        self.embedding: nn.Embedding | None = None
        if classes:
            head = layers[-1]
            assert isinstance(head, nn.Linear)
            self.embedding = nn.Embedding(classes, head.in_features)
            # It is a linear layer of the features, so it begins as one: N(0, 1) would drown the rest of the score.
            bound = 1 / math.sqrt(head.in_features)
            nn.init.uniform_(self.embedding.weight, -bound, bound)

    def forward(self, samples: Tensor, labels: Tensor | None = None) -> Tensor:
        """From samples (B, ...), and labels (B,) of int64, to scores (B,)."""
        embedded = _embed(self.embedding, labels)
        *body, head = self.layers
        features = samples
        for layer in body:
            features = layer(features)
        scores: Tensor = head(features).squeeze(1)
        return scores if embedded is None else scores + (embedded * features).sum(dim=1)


def _embed(embedding: nn.Embedding | None, labels: Tensor | None) -> Tensor | None:
    if embedding is None:
        if labels is not None:
            raise ValueError("labels: expected none, for this network was made without classes")
        return None
    if labels is None:
        raise ValueError(f"labels: expected one of {embedding.num_embeddings} classes for each sample, got none")
    embedded: Tensor = embedding(labels)
    return embedded


def doublings(shape: tuple[int, ...]) -> int:
    """How often a side of 4 doubles to the side of images (channels, S, S).

    Raises:
        ValueError: the samples are no such images, or S is no power of two of at least 16.
    """
    if len(shape) == 3:
        _, height, width = shape
        if height == width >= 16 and height.bit_count() == 1:
            return height.bit_length() - 3
    raise ValueError(
        "model: dcgan and resnet make images (channels, S, S) whose side S is a power of two of at least 16, got shape "
        f"{tuple(shape)}: take mlp, or resize images with --size"
    )
