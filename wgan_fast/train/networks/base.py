"""Base classes of the trainer's generators and critics: how they are called, and how labels condition them."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wgan_fast._checks import ArgumentValueError


class Models(NamedTuple):
    """The generator and the critic of a run, the library's or a user's.

    Without classes they are called as ``generator(latent)`` and ``critic(samples)``; with classes, as
    ``generator(latent, labels)`` and ``critic(samples, labels)``, where labels is int64 (B,).
    """

    generator: nn.Module
    critic: nn.Module


def latents(count: int, latent_dimension: int, random: torch.Generator) -> Tensor:
    """Standard normal latent vectors (count, latent_dimension), drawn with ``random``, on its device."""
    return torch.randn(count, latent_dimension, generator=random, device=random.device)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Puts ``network`` in evaluation mode and restores each submodule's ``training`` flag at the end."""
    flags = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in flags.items():
            module.training = training


class Generator(nn.Module):
    """Maps latent vectors to samples. With classes, the label's embedding is appended to the latent vector.

    Args:
        latent_dimension: coordinates of a latent vector.
        classes: number of labels; 0 is a generator without labels.

    Attributes:
        input_dimension: coordinates of the latent vector and the embedding together.
        layers: set by the subclass; maps ``input_dimension`` inputs to a sample.

    Conditioning: Mirza and Osindero, "Conditional Generative Adversarial Nets", 2014, section 3.2.
    """

    layers: nn.Sequential

    def __init__(self, latent_dimension: int, classes: int) -> None:
        super().__init__()
        self.latent_dimension = latent_dimension
        # One dimension per class, at most 128, which is BigGAN's for the 1000 classes of ImageNet.
        self.embedding = nn.Embedding(classes, min(classes, 128)) if classes else None
        self.input_dimension = latent_dimension + min(classes, 128)

    def forward(self, latent: Tensor, labels: Tensor | None = None) -> Tensor:
        """From latent vectors (B, latent_dimension), and labels (B,) of int64, to samples (B, ...)."""
        embedded = _embed(self.embedding, labels)
        samples: Tensor = self.layers(latent if embedded is None else torch.cat([latent, embedded], dim=1))
        return samples


class Critic(nn.Module):
    r"""Maps samples to scores. With classes, the label's embedding is projected on the features.

    .. math:: f(x, y) = w \cdot \phi(x) + b + e_y \cdot \phi(x)

    Args:
        layers: :math:`\phi`, which returns features (B, F), followed by a ``Linear`` to one score.
        classes: number of labels; 0 is a critic without labels.

    Conditioning: Miyato and Koyama, "cGANs with Projection Discriminator", 2018, equation 4.
    """

    def __init__(self, layers: nn.Sequential, classes: int) -> None:
        super().__init__()
        self.layers = layers
        self.embedding: nn.Embedding | None = None
        if classes:
            head = layers[-1]
            assert isinstance(head, nn.Linear)
            self.embedding = nn.Embedding(classes, head.in_features)
            # Initialised like a linear layer, because the score is linear in it; nn.Embedding's N(0, 1) would dominate.
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
            raise ArgumentValueError("labels", "expected none, because this network was made without classes")
        return None
    if labels is None:
        raise ArgumentValueError(
            "labels", f"expected one of {embedding.num_embeddings} classes for each sample, got none"
        )
    embedded: Tensor = embedding(labels)
    return embedded


def is_image_side(side: int) -> bool:
    """Whether the image networks support this side: a power of two of at least 16."""
    return side >= 16 and side.bit_count() == 1


def doublings(shape: tuple[int, ...]) -> int:
    """How many times 4 must be doubled to reach the side S of images (channels, S, S): log2(S / 4).

    Raises:
        ValueError: ``shape`` is not (channels, S, S) with S a power of two of at least 16.
    """
    if len(shape) == 3:
        _, height, width = shape
        if height == width and is_image_side(height):
            return height.bit_length() - 3
    raise ArgumentValueError(
        "model",
        "dcgan and resnet make images (channels, S, S) whose side S is a power of two of at least 16, got shape "
        f"{tuple(shape)}: use mlp, or resize the images with --size",
    )
