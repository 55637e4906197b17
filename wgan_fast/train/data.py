"""The toy distributions of the Wasserstein GAN literature, as endless streams of fresh samples.

Nothing is downloaded and nothing is stored: each batch is drawn anew, and so are held-out samples.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

import torch
from torch import Tensor


class Distribution(ABC):
    """Something that real samples are drawn from.

    Attributes:
        dimension: the number of coordinates of a sample.
        centres: the modes, of shape (modes, dimension); None where the distribution has none.
        sigma: the standard deviation of every mode, per coordinate; None where the distribution has none.
    """

    dimension: int = 2
    centres: Tensor | None = None
    sigma: float | None = None

    @abstractmethod
    def sample(self, count: int, random: torch.Generator) -> Tensor:
        """Fresh samples, float32 of shape (count, dimension), drawn by ``random`` on its device."""

    def batches(self, batch_size: int, random: torch.Generator) -> Iterator[Tensor]:
        """Fresh batches without end."""
        while True:
            yield self.sample(batch_size, random)


class GaussianMixture(Distribution):
    """Round Gaussians of one width, all equally likely.

    Args:
        centres: of shape (modes, dimension), on the device that samples are drawn on.
        sigma: the standard deviation of each, per coordinate.
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
        return self.centres[modes] + self.sigma * noise


class SwissRoll(Distribution):
    """A spiral in the plane: columns 0 and 2 of scikit-learn's ``make_swiss_roll(noise=0.25)``, divided by 7.5."""

    def sample(self, count: int, random: torch.Generator) -> Tensor:
        angle = 1.5 * math.pi * (1 + 2 * torch.rand(count, generator=random, device=random.device))
        spiral = torch.stack([angle * angle.cos(), angle * angle.sin()], dim=1)
        noise = torch.randn(count, self.dimension, generator=random, device=random.device)
        return (spiral + 0.25 * noise) / 7.5


def _twenty_five_gaussians(device: torch.device) -> Distribution:
    grid = 2 * torch.arange(-2.0, 3.0, device=device)
    return GaussianMixture(torch.cartesian_prod(grid, grid) / 2.828, sigma=0.05 / 2.828)


def _eight_gaussians(device: torch.device) -> Distribution:
    angles = torch.arange(8, device=device) * (math.pi / 4)
    circle = torch.stack([angles.cos(), angles.sin()], dim=1)
    return GaussianMixture(2 * circle / 1.414, sigma=0.02 / 1.414)


#: What ``--data`` may name: 25 Gaussians on a 5 x 5 grid, 8 on a circle, and a spiral. The constants are those of the
#: code published with Gulrajani et al., "Improved Training of Wasserstein GANs", 2017.
DATASETS: dict[str, Callable[[torch.device], Distribution]] = {
    "25gaussians": _twenty_five_gaussians,
    "8gaussians": _eight_gaussians,
    "swissroll": lambda device: SwissRoll(),
}


def make_data(name: str, device: torch.device | str = "cpu") -> Distribution:
    """The distribution called ``name`` in :data:`DATASETS`; ``device`` is that of the generator that will draw from it.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in DATASETS:
        raise ValueError(f"data: expected one of {', '.join(DATASETS)}, got {name!r}")
    return DATASETS[name](torch.device(device))
