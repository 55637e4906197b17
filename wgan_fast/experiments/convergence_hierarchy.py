"""Convergence in KL, of either order, implies convergence in total variation, which is the same as in JS, and on a
compact space implies convergence in W; none of these implications can be reversed. So W is the weakest of them, the one
in which most sequences converge. Source: Arjovsky, Chintala and Bottou, "Wasserstein GAN", 2017, theorem 2.

"Weaker" means that the topology has fewer open sets: on a compact space every set of distributions that is open for W
is open for total variation, and, if the space is infinite, not the reverse. There W is the topology of convergence in
distribution. A sequence converges when it enters every open neighbourhood of its limit for good; fewer neighbourhoods
are easier to enter. A loss that is continuous in theta asks for a weak topology.

Each implication is an inequality, tested on random distributions: TV^2 <= KL / 2 (Pinsker), TV^2 / 2 <= JS <= TV log 2,
and W <= diameter times TV, which needs a bounded space. Each missing converse is a sequence, with exact values:

- delta_(1/n) against delta_0: W = 1/n goes to 0, TV stays 1 and JS log 2.
- P is the geometric distribution on 1, 2, 3, ..., here up to 40, beyond every n used; P_n is P up to n, scaled to the
  mass 1 - 1/n, and has the mass 1/n at 0: TV goes to 0, KL is infinite both ways for every n.
- On the whole line: (1 - 1/n) delta_0 + (1/n) delta_n against delta_0: TV = 1/n goes to 0, W = 1 for every n.
"""

import math

import torch
from torch import Tensor

from wgan_fast.distances import earth_movers_distance_1d, js_divergence, kl_divergence, total_variation
from wgan_fast.train.view.colours import BLUE, GREEN, ORANGE, RED

from .claim import Finding, Number, Story, axes

STORY = Story(
    "On a bounded space what gets close in KL gets close in total variation and JS, and then in W; not the reverse.",
    (
        r"\mathrm{TV}^2 \leq \mathrm{KL} / 2",
        r"\mathrm{TV}^2 / 2 \leq \mathrm{JS} \leq \mathrm{TV} \, \log 2",
        r"W \leq \mathrm{diam}(\mathcal{X}) \, \mathrm{TV}",
    ),
    "One pair of distributions on a bounded space that breaks an inequality; a sequence below that does not have the "
    "values stated for it.",
    ("wgan",),
    "On an unbounded space TV and W are not comparable: the third sequence converges in TV and not in W.",
)
STEPS = (1, 2, 4, 8, 16, 32)
POINTS = torch.arange(41, dtype=torch.float64)


def geometric() -> Tensor:
    """P, on the points 0 to 40; no mass at 0."""
    p = torch.where(POINTS > 0, 0.5**POINTS, 0.0)
    return p / p.sum()


def truncated(p: Tensor, n: int) -> Tensor:
    """P_n: P up to n, scaled to 1 - 1/n, and 1/n at 0."""
    q = torch.where(n >= POINTS, p, 0.0)
    q = q / q.sum() * (1 - 1 / n)
    q[0] = 1 / n
    return q


def distance(points: Tensor, p: Tensor, q: Tensor) -> Tensor:
    """W between distributions on the same points of a line."""
    return earth_movers_distance_1d(points, points, p, q)


def delta(n: int) -> tuple[Tensor, Tensor, Tensor]:
    """The points 0 and 1/n, and a point mass on either."""
    p, q = torch.eye(2, dtype=torch.float64)
    return torch.tensor([0.0, 1 / n], dtype=torch.float64), p, q


def far(n: int) -> tuple[Tensor, Tensor, Tensor]:
    """The points 0 and n; delta_0, and (1 - 1/n) delta_0 + (1/n) delta_n."""
    points, p, q = torch.tensor([[0.0, n], [1.0, 0.0], [1 - 1 / n, 1 / n]], dtype=torch.float64)
    return points, p, q


def run(seed: int, *, small: bool = False) -> Finding:
    """Tests the inequalities on random distributions, and computes the sequences."""
    generator = torch.Generator().manual_seed(seed)
    spread = 4 * torch.rand(2, 1000, 1, generator=generator, dtype=torch.float64)
    p, q = (spread * torch.randn(2, 1000, 11, generator=generator, dtype=torch.float64)).softmax(-1)
    points = torch.linspace(0, 1, 11, dtype=torch.float64)  # of diameter 1
    kl, js, tv, w = kl_divergence(p, q), js_divergence(p, q), total_variation(p, q), distance(points, p, q)
    half = torch.tensor([0.5, 0.5], dtype=torch.float64)
    h = 1e-3
    nearly = half + torch.tensor([h, -h], dtype=torch.float64)
    sharp = kl_divergence(half, nearly) / (2 * total_variation(half, nearly) ** 2)
    deltas = [delta(n) for n in STEPS]
    first = {
        "W": [distance(*one).item() for one in deltas],
        "TV": [total_variation(*one[1:]).item() for one in deltas],
        "JS": [js_divergence(*one[1:]).item() for one in deltas],
    }
    limit = geometric()
    seconds = [truncated(limit, n) for n in STEPS[1:]]
    second = {
        "TV": [total_variation(limit, one).item() for one in seconds],
        "JS": [js_divergence(limit, one).item() for one in seconds],
        "W": [distance(POINTS, limit, one).item() for one in seconds],
    }
    both_kl = [min(kl_divergence(limit, one).item(), kl_divergence(one, limit).item()) for one in seconds]
    thirds = [far(n) for n in STEPS]
    third = {
        "W": [distance(*one).item() for one in thirds],
        "TV": [total_variation(*one[1:]).item() for one in thirds],
    }
    rounding = 1e-12
    numbers = [
        Number("random: least KL - 2 TV^2 (Pinsker)", (kl - 2 * tv**2).min().item(), 0, rounding, ">="),
        # For (1/2, 1/2) and (1/2 + h, 1/2 - h): -log(1 - 4 h^2) / (4 h^2) = 1 + 2 h^2 + ...
        Number("Pinsker is sharp: KL / (2 TV^2), close to equality", sharp.item(), 1, 3 * h**2),
        Number("random: least JS - TV^2 / 2", (js - tv**2 / 2).min().item(), 0, rounding, ">="),
        Number("random: largest JS - TV log 2", (js - tv * math.log(2)).max().item(), 0, rounding, "<="),
        Number("random, diameter 1: largest W - TV", (w - tv).max().item(), 0, rounding, "<="),
        Number("delta_(1/n): W at n = 32", first["W"][-1], 1 / 32, rounding),
        Number("delta_(1/n): least TV", min(first["TV"]), 1, rounding),
        Number("delta_(1/n): least JS", min(first["JS"]), math.log(2), rounding),
        # The mass 1/n at 0, and nothing else, is more than in P.
        Number("geometric: TV at n = 32", second["TV"][-1], 1 / 32, rounding),
        Number("geometric: least KL, either way", min(both_kl), math.inf),
        Number("unbounded: TV at n = 32", third["TV"][-1], 1 / 32, rounding),
        Number("unbounded: least W", min(third["W"]), 1, rounding),
        Number("unbounded: largest W", max(third["W"]), 1, rounding),
    ]

    figures, (inequality, *sequences) = axes(4)
    inequality.loglog(kl, tv, ".", color=BLUE, markersize=2, label="random pairs")
    ends = torch.tensor([kl.min(), 2.0])
    inequality.loglog(ends, (ends / 2).sqrt(), color=RED, linestyle="--", label="Pinsker's bound")
    inequality.set(title="TV is small where KL is", xlabel="KL", ylabel="TV")
    styles = {"W": (BLUE, "o-"), "TV": (GREEN, "s--"), "JS": (RED, "^-."), "KL": (ORANGE, "")}
    titles = (
        "Point masses: W alone goes to 0",
        "Wrong supports: KL is infinite",
        "Unbounded: TV goes to 0, W does not",
    )
    for panel, values, heading in zip(sequences, (first, second, third), titles, strict=True):
        for name, course in values.items():
            colour, style = styles[name]
            panel.semilogx(STEPS[-len(course) :], course, style, color=colour, label=name, base=2)
        panel.set(title=heading, xlabel="n", ylabel="distance from the limit", ylim=(-0.05, 1.3))
    for panel in (inequality, *sequences):
        panel.grid(alpha=0.3)
        panel.legend(fontsize=9)
    return Finding(figures, numbers)
