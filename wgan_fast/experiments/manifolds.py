"""Images, and the samples of a generator, lie on sets of far lower dimension than the space around them: handwritten
digits have, by TwoNN, an intrinsic dimension of about nine in 64, no random image is near one, and a generator's
samples have at most the dimension of its latent space, the largest rank that its Jacobian can have. Two such sets in
general position meet at most in a set of still lower dimension, and two curves in space not at all. Source: Arjovsky
and Bottou, "Towards Principled Methods for Training Generative Adversarial Networks", 2017, section 2.1, lemmas 1 to 3;
Facco et al., "Estimating the Intrinsic Dimension of Datasets by a Minimal Neighborhood Information", 2017.

The dimension d is estimated by TwoNN. The ratio mu = r2 / r1 of the distances to the two nearest neighbours has the
distribution function F(mu) = 1 - mu^-d where the density hardly varies between them. So -log(1 - F) is fitted by d log
mu, a line through the origin, over the nine tenths of the points with the smaller ratios, as in the source. It is
checked where the dimension is known: on a sphere of 5 dimensions within 64, which has no border to bias it. Over 16
seeds that no test uses it has the mean 4.92 and the deviation 0.16; 5 deviations, 0.8, are allowed. Samples of an
untrained generator with 3 latent dimensions have the mean 3.12 and the deviation 0.08 over the same seeds; the bias
and 5 deviations, 0.5, are allowed. The digits are held against images of the same pixels, each shuffled over all
digits: these have their distribution pixel by pixel, and must have at least twice the dimension. Random images have
independent pixels, uniform on the digits' range.

Curves are drawn in 2, 3 and 10 dimensions, as random sums of six waves. Two curves count as meeting where they come
nearer than the spacing of the points on them. In the plane they mostly cross; in three and more dimensions almost
surely not, so doubling the points must not halve the distance.
"""

import torch
from sklearn.datasets import load_digits  # type: ignore[import-untyped]
from torch import Tensor
from torch.nn import functional as F

from wgan_fast.train.networks import MLPGenerator
from wgan_fast.train.view.colours import BLUE, GREEN, RED

from .claim import COLOURS, LINES, Finding, Number, Story, axes

STORY = Story(
    "Real images fill hardly any of the space of images, and generated ones fill no more.",
    (
        r"-\log (1 - F(\mu)) = d \, \log \mu, \quad \mu = \frac{r_2(x)}{r_1(x)}",
        r"\mathrm{rank} \, \partial g(z) / \partial z \leq \dim \mathcal{Z} < \dim \mathcal{X}",
    ),
    "An intrinsic dimension of the digits near that of shuffled pixels; generated samples of more dimensions than the "
    "latent space has; a random image as near to a digit as digits are to each other; two random curves in space that "
    "come closer the more points are drawn.",
    ("principled", "twonn"),
    "An estimate of dimension depends on the scale at which it looks: these 1,797 images have too few "
    "neighbours to tell 9 from 11. With noise every data set has full dimension.",
)
LATENT, PAIRS = 3, 40


def two_nearest(points: Tensor) -> Tensor:
    """The distances (n, 2) of each point to its two nearest others that differ from it."""
    # A matrix product would leave a point a little away from itself.
    distances = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    distances[distances == 0] = torch.inf
    return distances.topk(2, largest=False).values


def dimension(points: Tensor) -> float:
    """The TwoNN estimate. As in the source, the tenth with the largest ratios is left out of the fit."""
    nearest, second = two_nearest(points).unbind(1)
    ratios = (second / nearest).log().sort().values
    n = len(ratios)
    kept = ratios[: int(0.9 * n)]
    survival = -(1 - torch.arange(1, len(kept) + 1, dtype=points.dtype) / n).log()
    return (kept @ survival / (kept @ kept)).item()  # -log(1 - F) = d log ratio


def curves(count: int, dims: int, points: int, generator: torch.Generator) -> Tensor:
    """Random closed curves (count, points, dims)."""
    k = torch.arange(1, 7, dtype=torch.float64)
    amplitudes = torch.randn(2, count, 6, dims, generator=generator, dtype=torch.float64) / k[:, None]
    t = torch.arange(points, dtype=torch.float64)[:, None] * (2 * torch.pi / points)
    return (t * k).sin() @ amplitudes[0] + (t * k).cos() @ amplitudes[1]


def apart(points: Tensor) -> tuple[Tensor, Tensor]:
    """For pairs of curves: the least distance, and the larger spacing of points on either."""
    first, second = points.unflatten(0, (-1, 2)).unbind(1)
    spacing = (points - points.roll(1, 1)).norm(dim=2).amax(1).unflatten(0, (-1, 2)).amax(1)
    return torch.cdist(first, second).amin((1, 2)), spacing


def rank(generator: MLPGenerator, latent: Tensor) -> int:
    """The largest rank of the generator's Jacobian (64, 3) at the latent vectors (B, 3)."""
    jacobian = torch.func.vmap(torch.func.jacrev(lambda z: generator(z[None])[0]))(latent)
    return int(torch.linalg.matrix_rank(jacobian, rtol=1e-9).max())


def run(seed: int, *, small: bool = False) -> Finding:
    """Measures dimensions, distances, and how near random curves come."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    digits = torch.from_numpy(load_digits().data)
    known = torch.zeros(1797, 64, dtype=torch.float64)
    known[:, :6] = F.normalize(torch.randn(1797, 6, generator=generator, dtype=torch.float64), dim=1)
    turned = known @ torch.linalg.qr(torch.randn(64, 64, generator=generator, dtype=torch.float64))[0]
    noise = 16 * torch.rand(1000, 64, generator=generator, dtype=torch.float64)
    own, random = two_nearest(digits)[:, 0], torch.cdist(noise, digits).amin(1)
    model, latent = MLPGenerator(LATENT, 64, 64, 3).double(), torch.randn(len(digits), LATENT, dtype=torch.float64)
    with torch.no_grad():
        generated = dimension(model(latent))
    shuffled = torch.stack([pixel[torch.randperm(len(digits))] for pixel in digits.T], 1)
    drawn = {dims: curves(2 * PAIRS, dims, 800, generator) for dims in (2, 3, 10)}
    near = {dims: apart(points) for dims, points in drawn.items()}
    coarse = apart(drawn[3][:, ::2])[0]
    numbers = [
        Number("TwoNN, a sphere of 5 dimensions within 64", dimension(turned), 5, 0.8),
        Number("TwoNN, digits: at most half of that of shuffled pixels", dimension(digits), dimension(shuffled) / 2, 0,
               "<="),
        Number("TwoNN, samples of a generator with latent dimension 3", generated, LATENT, 0.5, "<="),
        Number("random image to the nearest digit, least, over the largest between digits",
               (random.min() / own.max()).item(), 1, 0, ">="),
        Number("rank of its Jacobian", rank(model, latent[:50]), LATENT, 0, "<=", of_code=True),
        Number("plane: share of pairs of curves that meet", _meeting(near[2]), 0.5, 0, ">="),
        Number("10 dimensions: share of pairs that meet", _meeting(near[10]), 0),
        # 1/2 where curves meet, 1 where they do not.
        Number("3 dimensions: median distance, spacing halved, over that before",
               (near[3][0] / coarse).median().item(), 0.75, 0, ">="),
    ]  # fmt: skip

    figures, (images, nearest, paths) = axes(3)
    shown = torch.cat([digits[:6], noise[:6]]).reshape(2, 6, 8, 8)
    images.imshow(shown.permute(0, 2, 1, 3).reshape(16, 48).numpy(), cmap="gray_r")
    images.set_xticks([])
    images.set_yticks([3.5, 11.5], ["digits", "random"])
    images.set(title="A random image is no digit", xlabel="", ylabel="")
    nearest.hist(own, bins=30, color=BLUE, density=True, label="digit to digit")
    nearest.hist(random, bins=30, color=RED, density=True, histtype="step", linestyle="--", label="random to digit")
    nearest.set(title="Distance to the nearest digit", xlabel="distance", ylabel="density")
    for dims, colour, line in zip(near, COLOURS, LINES, strict=False):
        least, spacing = near[dims]
        ratio = (least / spacing).sort().values
        share = torch.arange(1, PAIRS + 1) / PAIRS
        paths.semilogx(ratio, share, color=colour, linestyle=line, label=f"{dims} dimensions")
    paths.axvline(1, color=GREEN, linestyle=":", label="spacing of points")
    paths.set(title="Random curves: how near they come", xlabel="least distance / spacing", ylabel="share of pairs")
    for panel in (nearest, paths):
        panel.grid(alpha=0.3)
        panel.legend(fontsize=9)
    return Finding(figures, numbers)


def _meeting(near: tuple[Tensor, Tensor]) -> float:
    least, spacing = near
    return (least < spacing).double().mean().item()
