"""Differentiable augmentation, of real and generated images alike, for small sets of images."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wgan_fast._checks import ArgumentValueError


class Augmentation(nn.Module):
    """Changes each image of a batch at random. The critic sees real and generated images changed alike, in its own loss
    and in the generator's, so that it cannot learn the few real ones by heart and the generator need not make the
    changes.

    Args:
        names: of :data:`OPERATIONS`, applied in this order.
        rank, world: this process has images ``rank::world`` of a batch, and of the random numbers drawn for all of it.

    Source: Zhao et al., "Differentiable Augmentation for Data-Efficient GAN Training", 2020, section 3.2.
    """

    def __init__(self, names: Sequence[str], rank: int = 0, world: int = 1) -> None:
        super().__init__()
        self.names, self.rank, self.world = tuple(names), rank, world

    def forward(self, images: Tensor) -> Tensor:
        """Float images (B, channels, H, W) in [-1, 1] to images of the same shape; differentiable."""
        for name in self.names:
            operation, draws = OPERATIONS[name]
            uniform = torch.rand(draws, len(images) * self.world, 1, 1, 1, device=images.device)
            images = operation(images, *uniform[:, self.rank :: self.world].to(images.dtype))
        return images


def flip(images: Tensor, u: Tensor) -> Tensor:
    """Left becomes right in half of the images."""
    return torch.where(u < 0.5, images, images.flip(3))


def translation(images: Tensor, u: Tensor, v: Tensor, share: float = 0.125) -> Tensor:
    """A shift by up to an eighth of each side; what comes in is mid-grey."""
    _, channels, height, width = images.shape
    down, right = (
        _whole(u, -round(height * share), round(height * share)),
        _whole(v, -round(width * share), round(width * share)),
    )
    rows = (torch.arange(height, device=images.device)[:, None] - down + 1).clamp(0, height + 1)
    columns = (torch.arange(width, device=images.device) - right + 1).clamp(0, width + 1)
    places = (rows * (width + 2) + columns).expand(-1, channels, -1, -1).flatten(2)
    return F.pad(images, (1, 1, 1, 1)).flatten(2).gather(2, places).view_as(images)


def cutout(images: Tensor, u: Tensor, v: Tensor, share: float = 0.5) -> Tensor:
    """A rectangle of half of each side, anywhere, becomes mid-grey."""
    inside = []
    for length, place, side in ((images.shape[2], u, (-1, 1)), (images.shape[3], v, (1, -1))):
        centre = _whole(place, 0, length - 1)
        ticks = torch.arange(length, device=images.device).view(1, 1, *side)
        inside.append((ticks - centre).abs() * 2 <= round(length * share) - 1)
    return images.masked_fill(inside[0] & inside[1], 0)


def colour(images: Tensor, u: Tensor, v: Tensor, w: Tensor) -> Tensor:
    """Brightness, saturation and contrast: x + b, then around the mean of each pixel's channels times s, then around
    the mean of the image times c; b from -0.5 to 0.5, s from 0 to 2, c from 0.5 to 1.5.
    """
    images = images + (u - 0.5)
    images = torch.lerp(images.mean(dim=1, keepdim=True), images, 2 * v)
    return torch.lerp(images.mean(dim=(1, 2, 3), keepdim=True), images, w + 0.5)


def _whole(u: Tensor, least: int, greatest: int) -> Tensor:
    """Whole numbers from uniform ones."""
    return (u.float() * (greatest - least + 1)).floor().long().clamp(max=greatest - least) + least


#: ``--augment``: an operation, and how many uniform numbers it takes for each image.
OPERATIONS: dict[str, tuple[Callable[..., Tensor], int]] = {
    "flip": (flip, 1),
    "translation": (translation, 2),
    "cutout": (cutout, 2),
    "colour": (colour, 3),
}


def check_operations(text: str) -> tuple[str, ...]:
    """The names in ``flip,colour``.

    Raises:
        ValueError: one is unknown.
    """
    names = tuple(name.strip() for name in text.split(","))
    unknown = [name for name in names if name not in OPERATIONS]
    if unknown:
        raise ArgumentValueError("augment", f"expected some of {','.join(OPERATIONS)}, got {text!r}")
    return names


class Augmented(nn.Module):
    """A generator whose images are augmented."""

    def __init__(self, generator: nn.Module, augmentation: nn.Module) -> None:
        super().__init__()
        self.generator, self.augmentation = generator, augmentation

    def forward(self, *inputs: Tensor) -> Tensor:
        """As the generator."""
        images: Tensor = self.augmentation(self.generator(*inputs))
        return images
