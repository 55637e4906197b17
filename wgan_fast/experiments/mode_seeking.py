"""How a model that is too simple fits two modes depends on the divergence: KL(p || q) covers both, KL(q || p) selects
one, and JS drops one if they are far enough apart. Source: Arjovsky and Bottou, "Towards Principled Methods for
Training Generative Adversarial Networks", 2017, section 1: KL(P_r || P_g) has a high cost for dropped modes, KL(P_g ||
P_r) for samples that look fake.

Each divergence fits a single Gaussian q to a mixture p of two; the best of several starts counts. The fit by KL(p || q)
has the mean and the standard deviation of p, because its optimum matches moments. That by KL(q || p) has nearly those
of the larger mode, up to 1 % of the modes' distance, and its value is nearly log 1/0.6, because there p is 0.6 times q.
Its KL(p || q), the price of the dropped mode, follows from the moments and the entropy of p. That entropy is nearly
that of the choice of a mode plus the mean entropy of the modes, which hardly overlap. A fit by JS covers both modes or
seeks one: its standard deviation lies on either side of the middle between that of the larger mode and that of p.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from wgan_fast.distances import js_divergence, kl_divergence
from wgan_fast.train.view.colours import BLACK, BLUE, GREEN, RED

from .claim import Finding, Number, Story, axes

STORY = Story(
    "A model too simple for the data covers everything or drops a mode, depending on the divergence.",
    (
        r"\min_q \mathrm{KL}(p \,\|\, q): \mathrm{covers}",
        r"\min_q \mathrm{KL}(q \,\|\, p): \mathrm{seeks\ a\ mode}",
        r"\mathrm{JS}: \mathrm{either}",
    ),
    "A fit by KL(p || q) without the moments of p; a fit by KL(q || p) that spreads over both modes.",
    ("principled",),
    "These are the best fits of one normal distribution. What a trained network does depends on its training, too.",
)

STEP = 0.04
GRID = torch.arange(-16.0, 16.0, STEP, dtype=torch.float64)
SHARES, DEVIATIONS = (0.6, 0.4), (0.7, 0.9)  # of the two modes
DISTANCE = 5.0  # between their means
DIVERGENCES = {
    "KL(p || q)": kl_divergence,
    "JS(p, q)": js_divergence,
    "KL(q || p)": lambda p, q: kl_divergence(q, p),
}
STYLES = {"KL(p || q)": (BLUE, "-", "o"), "JS(p, q)": (GREEN, "-.", "^"), "KL(q || p)": (RED, "--", "s")}


class Fit(NamedTuple):
    """A Gaussian, and its divergence from the mixture."""

    divergence: float
    mean: float
    deviation: float


def gaussian(mean: float | Tensor, deviation: float | Tensor) -> Tensor:
    """The probability of each cell of the grid; it is nowhere zero, but may be very small."""
    return (-0.5 * ((GRID - mean) / deviation) ** 2).clamp(min=-600).softmax(0)


def means(distance: float) -> tuple[float, float]:
    """The means of the modes; the mixture has mean 0."""
    return -SHARES[1] * distance, SHARES[0] * distance


def spread(distance: float) -> float:
    """The standard deviation of the mixture, whose mean is 0."""
    modes = zip(SHARES, means(distance), DEVIATIONS, strict=True)
    return math.sqrt(sum(share * (mean**2 + deviation**2) for share, mean, deviation in modes))


def mixture(distance: float) -> Tensor:
    """p, on the grid."""
    modes = zip(SHARES, means(distance), DEVIATIONS, strict=True)
    return torch.stack([share * gaussian(mean, deviation) for share, mean, deviation in modes]).sum(0)


def descend(name: str, p: Tensor, mean: float, deviation: float) -> Fit:
    """The local optimum, by descent from the given start."""
    theta = torch.tensor([mean, math.log(deviation)], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([theta], max_iter=100, tolerance_grad=1e-8, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = DIVERGENCES[name](p, gaussian(theta[0], theta[1].exp()))
        loss.backward()
        return loss

    optimizer.step(closure)
    return Fit(float(closure().item()), theta[0].item(), theta[1].exp().item())


def fit(name: str, distance: float, starts: list[list[float]]) -> Fit:
    """The best of several descents. A start is a mean, relative to the distance, and a standard deviation."""
    return min(descend(name, mixture(distance), mean * distance, deviation) for mean, deviation in starts)


def run(seed: int, *, small: bool = False) -> Finding:
    """Fits by each divergence from random starts, then for other distances of the modes."""
    random = torch.rand(6, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    starts = (random * torch.tensor([1.6, 2.0]) + torch.tensor([-0.8, 0.5])).tolist()
    starts += [[-SHARES[1], 1.0], [0.0, 3.0], [SHARES[0], 1.0]]  # on either mode, and over both
    fits = {name: fit(name, DISTANCE, starts) for name in DIVERGENCES}
    forward, reverse = fits["KL(p || q)"], fits["KL(q || p)"]
    p, dropping = mixture(DISTANCE), gaussian(reverse.mean, reverse.deviation)
    deviation = spread(DISTANCE)
    unit = 0.5 * math.log(2 * math.pi)  # E_p[-log q], less the entropy of p
    cost = unit + math.log(reverse.deviation) + (deviation**2 + reverse.mean**2) / (2 * reverse.deviation**2)
    cost -= sum(
        share * (unit + 0.5 + math.log(one) - math.log(share)) for share, one in zip(SHARES, DEVIATIONS, strict=True)
    )
    middle = sum(means(DISTANCE)) / 2
    larger = means(DISTANCE)[0]
    distances = [2.0, 5.0, 9.0] if small else [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]
    swept = {name: [fit(name, distance, starts[-3:]) for distance in distances] for name in DIVERGENCES}
    js, far = fits["JS(p, q)"], swept["JS(p, q)"][-1]
    middles = [(DEVIATIONS[0] + spread(distance)) / 2 for distance in (DISTANCE, distances[-1])]
    numbers = [
        Number("KL(p || q): mean, that of p", forward.mean, 0, 1e-4),
        Number("KL(p || q): standard deviation, that of p", forward.deviation, deviation, 1e-4),
        Number("KL(q || p): mean, that of the larger mode", reverse.mean, larger, DISTANCE / 100),
        Number("KL(q || p): standard deviation, that of the larger mode", reverse.deviation, DEVIATIONS[0],
               DISTANCE / 100),
        Number("KL(q || p): share of q on the other mode's side", dropping[middle < GRID].sum().item(), 0, 1e-3),
        Number("KL(q || p): its value, log 1/0.6", reverse.divergence, -math.log(SHARES[0]), 0.01),
        # The modes overlap a little, which lessens the entropy.
        Number("KL(p || q) of the fit that drops a mode", kl_divergence(p, dropping).item(), cost, 0.05),
        Number("JS at distance 5 covers: standard deviation, above the middle", js.deviation, middles[0], 0, ">="),
        Number("JS at the largest distance seeks: below the middle", far.deviation, middles[1], 0, "<="),
    ]  # fmt: skip

    figures, (density, sweep) = axes(2, width=5.6, height=4.2)
    density.fill_between(GRID, p / STEP, color="lightgrey", label="p, two modes")
    for name, (colour, line, marker) in STYLES.items():
        best = gaussian(fits[name].mean, fits[name].deviation)
        density.plot(GRID, best / STEP, color=colour, linestyle=line, linewidth=2, label=f"q, by {name}")
        deviations = [f.deviation for f in swept[name]]
        sweep.plot(distances, deviations, color=colour, linestyle=line, marker=marker, label=f"by {name}")
    density.axvline(0, color=BLACK, linewidth=0.8, linestyle=":", label="mean of p")
    density.set(title="One Gaussian for two modes", xlabel="x", ylabel="density", xlim=(-7, 8))
    sweep.set(title="Who gives up a mode, and when", xlabel="distance of the modes", ylabel="standard deviation of q")
    for panel in (density, sweep):
        panel.grid(alpha=0.3)
        panel.legend(fontsize=9)
    return Finding(figures, numbers)
