"""Metrics of generated samples against held-out real ones: modes and Wasserstein distances; FID, KID, precision and
recall of features.
"""

import warnings
from collections.abc import Callable

import ot  # noqa: F401 (a missing package should fail before a training, not after it)
import torch
from torch import Tensor, nn

from wgan_fast import distances
from wgan_fast._checks import ArgumentTypeError, ArgumentValueError
from wgan_fast.train.data.sources import Data
from wgan_fast.train.networks.custom import naming_own_code
from wgan_fast.train.view.features import features_of

MAX_EXACT = 1024  # coordinates; the cost matrix takes time proportional to them, so beyond it the distance is sliced
NEIGHBOURS = 3  # of precision and recall
MORE_IS_BETTER = ("precision", "recall")  #: of the metrics that choose a checkpoint
Metrics = dict[str, float | None]


def near_modes(samples: Tensor, centres: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """Each sample's nearest centre (its index), and whether it lies within 3 sigma of it; both of shape (B,)."""
    distance, nearest = torch.cdist(samples, centres).min(dim=1)
    return nearest, distance <= 3 * sigma


def evaluate(generated: Tensor, real: Tensor, other_real: Tensor | None, data: Data) -> Metrics:
    """Compares generated samples with real ones.

    Args:
        generated: of shape (B, ...).
        real: held-out real samples.
        other_real: a second independent set. The distance between both sets is what a perfect generator scores. None
            where too few samples are held out.
        data: the source of the real samples.

    Returns:
        - ``modes_covered``, ``modes_total``: a mode is covered when a sample lies within 3 sigma of its centre.
        - ``share_within_3_sigma``: the share of samples that lie within 3 sigma of a centre.
        - ``earth_movers_distance``: between generated and held-out real samples. For samples of more than 1,024
          coordinates it is ``sliced_wasserstein``, from random projections.
        - the same name with the suffix ``_real``: the distance between the two sets of real samples, for scale.

        The first three are None for data without modes, the last one without ``other_real``.
    """
    metrics: Metrics = {"modes_covered": None, "modes_total": None, "share_within_3_sigma": None}
    if data.centres is not None and data.sigma is not None:
        nearest, near = near_modes(generated, data.centres, data.sigma)
        metrics["modes_covered"] = nearest[near].unique().numel()
        metrics["modes_total"] = len(data.centres)
        metrics["share_within_3_sigma"] = near.float().mean().item()
    name, distance = _distance(real)
    metrics[name] = distance(generated, real)
    metrics[f"{name}_real"] = None if other_real is None else distance(other_real, real)
    return metrics


def _distance(real: Tensor) -> tuple[str, Callable[[Tensor, Tensor], float]]:
    if real[0].numel() <= MAX_EXACT:
        return "earth_movers_distance", lambda x, y: _between_points(distances.earth_movers_distance, x, y)

    def sliced(x: Tensor, y: Tensor) -> Tensor:
        return distances.sliced_wasserstein(x, y, generator=torch.Generator().manual_seed(0))

    return "sliced_wasserstein", lambda x, y: _between_points(sliced, x, y)


def _between_points(distance: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> float:
    """The distance of flattened samples, in float64."""
    return distance(x.flatten(1).double(), y.flatten(1).double()).item()


@torch.no_grad()
def feature_distances(
    network: nn.Module, generated: Tensor, real: Tensor, device: torch.device | str = "cpu"
) -> Metrics:
    """FID and KID between the features of samples, as torchmetrics computes them, precision and recall.

    Args:
        network: maps preprocessed samples (B, ...) to features (B, F).
        generated: generated samples (B, ...).
        real: held-out real samples (B, ...).
        device: where the network computes, in batches.

    Source: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", 2017, equation 6; Binkowski et al.,
    "Demystifying MMD GANs", 2018, section 3.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    network = network.eval().to(device)
    features = [features_of(network, samples, device) for samples in (real, generated)]
    identity = _Identity(features[0].shape[1])
    fid = FrechetInceptionDistance(identity)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Metric .* will save all extracted features")  # a few thousand samples fit
        kid = KernelInceptionDistance(identity, subset_size=min(100, *map(len, features)))
    for metric in (fid, kid):
        metric.update(features[0], real=True)
        metric.update(features[1], real=False)
    with torch.random.fork_rng(devices=[]):  # the subsets of KID are random
        torch.manual_seed(0)
        kid_mean, _ = kid.compute()
    found: Metrics = {"fid": fid.compute().item(), "kid": kid_mean.item()}
    if min(map(len, features)) > NEIGHBOURS:
        found["precision"], found["recall"] = precision_and_recall(features[1], features[0])
    return found


def precision_and_recall(generated: Tensor, real: Tensor) -> tuple[float, float]:
    """The share of generated points (B, F) on the manifold of the real ones, and of real ones on that of the generated.

    A manifold is the balls around its points that reach to their third neighbours.

    Source: Kynkäänniemi et al., "Improved Precision and Recall Metric for Assessing Generative Models", 2019.
    """

    def share(points: Tensor, manifold: Tensor) -> float:
        radii = torch.cdist(manifold, manifold).kthvalue(NEIGHBOURS + 1, dim=1).values  # the nearest is itself
        return (torch.cdist(points, manifold) <= radii).any(dim=1).float().mean().item()

    return share(generated, real), share(real, generated)


@torch.no_grad()
def check_features(network: nn.Module, real: Tensor) -> None:
    """Calls the feature network of :func:`feature_distances` on two real samples and checks the output.

    Raises:
        TypeError: ``network`` is not a Module.
        ValueError: ``network`` raises an error or does not return features (B, F), or there are too few real samples.
    """
    if not isinstance(network, nn.Module):
        raise ArgumentTypeError(
            "features", f"expected a function that returns a torch.nn.Module, got {type(network).__name__}"
        )
    if len(real) < 2:
        raise ArgumentValueError(
            "features", "FID needs at least 4 held-out samples (a tenth of the data is held out), got fewer"
        )
    with naming_own_code("features"):
        features_of(network.eval(), real[:2])


class _Identity(nn.Module):
    """Passes computed features to a metric that requires a network."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.num_features = count

    def forward(self, features: Tensor) -> Tensor:
        return features
