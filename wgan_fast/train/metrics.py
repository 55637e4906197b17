"""How good samples are, judged against what they should look like."""

import ot  # noqa: F401 (its lack should be found before a training, not after it)
import torch
from torch import Tensor

from wgan_fast import distances
from wgan_fast.train.data import Distribution


def near_modes(samples: Tensor, centres: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """Each sample's nearest centre (its index), and whether it lies within 3 sigma of it; both of shape (B,)."""
    distance, nearest = torch.cdist(samples, centres).min(dim=1)
    return nearest, distance <= 3 * sigma


def earth_movers_distance(samples: Tensor, others: Tensor) -> float:
    """:func:`wgan_fast.distances.earth_movers_distance` of two sets of points (n, dimension) and (m, dimension), in
    float64.
    """
    return distances.earth_movers_distance(samples.double(), others.double()).item()


def evaluate(generated: Tensor, real: Tensor, other_real: Tensor, data: Distribution) -> dict[str, float | None]:
    """Judges generated samples.

    Args:
        generated: of shape (B, dimension).
        real: held-out real samples.
        other_real: as many again, independent of those: a perfect generator scores the distance between the two sets.
        data: the distribution of the real samples.

    Returns:
        - ``modes_covered``, ``modes_total``: a mode is covered when a sample lies within 3 sigma of its centre.
        - ``share_within_3_sigma``: the share of samples that lie within 3 sigma of a centre.
        - ``earth_movers_distance``: between generated and held-out real samples.
        - ``earth_movers_distance_real``: the same between the two sets of real samples, for scale.

        The first three are None for data without modes.
    """
    metrics: dict[str, float | None] = {"modes_covered": None, "modes_total": None, "share_within_3_sigma": None}
    if data.centres is not None and data.sigma is not None:
        nearest, near = near_modes(generated, data.centres, data.sigma)
        metrics["modes_covered"] = nearest[near].unique().numel()
        metrics["modes_total"] = len(data.centres)
        metrics["share_within_3_sigma"] = near.float().mean().item()
    metrics["earth_movers_distance"] = earth_movers_distance(generated, real)
    metrics["earth_movers_distance_real"] = earth_movers_distance(other_real, real)
    return metrics
