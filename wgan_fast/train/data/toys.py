"""The toy distributions of the Wasserstein GAN literature. Each batch is drawn anew."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from wgan_fast._checks import ArgumentValueError


class Distribution(ABC):
    """A distribution of real samples.

    Attributes:
        dimension: the number of coordinates of a sample.
        centres: the modes, of shape (modes, dimension); None for distributions without modes.
        sigma: the standard deviation of every mode, per coordinate; None for distributions without modes.
    """

    dimension: int = 2
    centres: Tensor | None = None
    sigma: float | None = None

    @abstractmethod
    def sample(self, count: int, random: torch.Generator) -> Tensor:
        """Fresh samples, float32 of shape (count, dimension), drawn with ``random``, on its device."""


class GaussianMixture(Distribution):
    """Isotropic Gaussians with the same standard deviation and equal weights.

    Args:
        centres: means of the Gaussians, of shape (modes, dimension).
        sigma: their standard deviation, per coordinate.
    """

    centres: Tensor
    sigma: float

    def __init__(self, centres: Tensor, sigma: float) -> None:
        self.dimension = centres.shape[1]
        self.centres = centres
        self.sigma = sigma

    def sample(self, count: int, random: torch.Generator) -> Tensor:
        modes = torch.randint(len(self.centres), (count,), generator=random, device=random.device)
        noise = torch.randn(count, self.dimension, generator=random, device=random.device)
        return self.centres.to(random.device)[modes] + self.sigma * noise


class SwissRoll(Distribution):
    """A spiral in the plane: columns 0 and 2 of scikit-learn's ``make_swiss_roll(noise=0.25)``, divided by 7.5."""

    def sample(self, count: int, random: torch.Generator) -> Tensor:
        angle = 1.5 * math.pi * (1 + 2 * torch.rand(count, generator=random, device=random.device))
        spiral = torch.stack([angle * angle.cos(), angle * angle.sin()], dim=1)
        noise = torch.randn(count, self.dimension, generator=random, device=random.device)
        return (spiral + 0.25 * noise) / 7.5


def _twenty_five_gaussians() -> Distribution:
    grid = 2 * torch.arange(-2.0, 3.0, device="cpu")
    return GaussianMixture(torch.cartesian_prod(grid, grid) / 2.828, sigma=0.05 / 2.828)


def _eight_gaussians() -> Distribution:
    angles = torch.arange(8, device="cpu") * (math.pi / 4)
    circle = torch.stack([angles.cos(), angles.sin()], dim=1)
    return GaussianMixture(2 * circle / 1.414, sigma=0.02 / 1.414)


#: 25 Gaussians on a 5 x 5 grid, 8 on a circle, and a spiral. The constants are those of the code published with
#: Gulrajani et al., "Improved Training of Wasserstein GANs", 2017.
TOYS: dict[str, Callable[[], Distribution]] = {
    "25gaussians": _twenty_five_gaussians,
    "8gaussians": _eight_gaussians,
    "swissroll": SwissRoll,
}


def make_toy(name: str) -> Distribution:
    """The distribution called ``name`` in :data:`TOYS`.

    Raises:
        ValueError: there is no distribution of that name.
    """
    if name not in TOYS:
        raise ArgumentValueError("name", f"expected one of {', '.join(TOYS)}, got {name!r}")
    return TOYS[name]()
