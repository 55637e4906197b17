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


class Crop(nn.Module):
    """The centre of a map, of this height and width; all of it where it has them."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.height, self.width = height, width

    def forward(self, maps: Tensor) -> Tensor:
        top, left = (maps.shape[2] - self.height) // 2, (maps.shape[3] - self.width) // 2
        return maps[..., top : top + self.height, left : left + self.width]


def first_map(shape: tuple[int, ...]) -> tuple[int, tuple[int, int]]:
    """How often the map that a generator of images (channels, H, W) begins with is doubled, and its height and width.

    The shorter side begins with 4 to 8: 32 x 32 is 4 x 4 doubled three times, 28 x 28 is 7 x 7 doubled twice. What
    the last map is larger than the image is cropped.

    Raises:
        ValueError: ``shape`` is not (channels, H, W) with sides of at least 8.
    """
    if len(shape) == 3 and min(shape[1:]) >= 8:
        doublings = (min(shape[1:]) // 4).bit_length() - 1
        height, width = (-(-side // 2**doublings) for side in shape[1:])
        return doublings, (height, width)
    raise ArgumentValueError(
        "model",
        "dcgan and resnet make images (channels, H, W) of at least 8 x 8, got shape "
        f"{tuple(shape)}: use mlp, or resize the images with --size",
    )
