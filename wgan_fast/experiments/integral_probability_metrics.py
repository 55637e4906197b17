"""The largest difference of means over a class of functions is a distance: over |f| <= 1 it is twice the total
variation, over 1-Lipschitz functions it is W, over the unit ball of a reproducing kernel Hilbert space it is the
maximum mean discrepancy. Total variation, the square root of JS, W between distributions of finite mean distance, and
MMD with a characteristic kernel are metrics; KL and JS violate the triangle inequality, and KL is not symmetric.
Source: Arjovsky, Chintala and Bottou, "Wasserstein GAN", 2017, section 5; Sriperumbudur et al., "On Integral
Probability Metrics, phi-Divergences and Binary Classification", 2009; Gretton et al., "A Kernel Two-Sample Test", 2012;
Endres and Schindelin, "A New Metric for Probability Distributions", 2003.

Two distributions on 25 points of an interval. The first two suprema are linear programs over the values of f, and know
nothing of the distances that they are compared with. On the ball, f = sum_i a_i k(x_i, .) with a'Ka <= 1 attains the
supremum; it is found by projected ascent on a from a random start, and compared with the expectation formula of MMD.
The axioms are tested on random distributions: no distance from itself, a positive one from any other, symmetry, and no
detour that is shorter than the direct way. MMD separates distributions because the Gaussian kernel is characteristic.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import linprog  # type: ignore[import-untyped]
from torch import Tensor

from wgan_fast.distances import earth_movers_distance_1d, js_divergence, kl_divergence, total_variation
from wgan_fast.train.view.colours import BLACK, BLUE, GREEN, RED

from .claim import Finding, Number, Story, axes

STORY = Story(
    "Total variation, W and MMD ask the same question of different critics: how far apart can mean scores be.",
    (
        r"d_{\mathcal{F}}(P, Q) = \sup_{f \in \mathcal{F}} \; \mathrm{E}_P f - \mathrm{E}_Q f",
        r"\|f\|_\infty \leq 1: \; 2\,\mathrm{TV} \qquad \|f\|_L \leq 1: \; W \qquad \|f\|_{\mathcal{H}} \leq 1: \; "
        r"\mathrm{MMD}",
    ),
    "A supremum that differs from its distance; three distributions for which W, TV, MMD or the root of JS is longer "
    "on the direct way than on a detour.",
    ("wgan", "ipm", "mmd", "root-js"),
    "Over the functions with |f| <= 1 the supremum is twice the total variation, and not, as section 5 of the WGAN "
    "paper says, the total variation. JS and KL are no integral probability metrics at all. A test can refute an "
    "axiom; it cannot prove one.",
)
POINTS = torch.linspace(0, 3, 25, dtype=torch.float64)
KERNEL = (-((POINTS[:, None] - POINTS) ** 2) / (2 * 0.3**2)).exp()


def best(difference: Tensor, lipschitz: bool) -> Tensor:
    """The values of the best f with |f| <= 1, or of the best 1-Lipschitz f with f(0) = 0."""
    constraints: dict[str, object] = {"bounds": (-1, 1)}
    if lipschitz:  # neighbours suffice on a line
        steps = np.eye(len(POINTS) - 1, len(POINTS), 1) - np.eye(len(POINTS) - 1, len(POINTS))
        gaps = POINTS.diff().numpy()
        constraints = {
            "A_ub": np.concatenate([steps, -steps]),
            "b_ub": np.concatenate([gaps, gaps]),
            "bounds": [(0, 0), *[(None, None)] * (len(POINTS) - 1)],
        }
    return torch.from_numpy(linprog(-difference.numpy(), **constraints).x)


def best_in_ball(difference: Tensor, start: Tensor, steps: int = 200) -> Tensor:
    """The values of the best f of norm at most 1, by ascent in the space and projection onto its ball."""
    a = start
    for _ in range(steps):
        a = a + difference  # the gradient of E_P f - E_Q f in the space is sum_i (p_i - q_i) k(x_i, .)
        a = a / (a @ KERNEL @ a).sqrt().clamp(min=1.0)
    return KERNEL @ a


def mmd(p: Tensor, q: Tensor) -> Tensor:
    """MMD by expectations of the kernel."""
    within, across = ((p @ KERNEL * p).sum(-1) + (q @ KERNEL * q).sum(-1)), (p @ KERNEL * q).sum(-1)
    return (within - 2 * across).clamp(min=0.0).sqrt()


def excess(d: Callable[[Tensor, Tensor], Tensor], p: Tensor, q: Tensor, r: Tensor) -> float:
    """The largest d(p, r) - d(p, q) - d(q, r); a metric has none above 0."""
    return (d(p, r) - d(p, q) - d(q, r)).max().item()


def w(p: Tensor, q: Tensor) -> Tensor:
    return earth_movers_distance_1d(POINTS, POINTS, p, q)


def root_js(p: Tensor, q: Tensor) -> Tensor:
    return js_divergence(p, q).sqrt()


def run(seed: int, *, small: bool = False) -> Finding:
    """Solves for the best critics, and tests the triangle inequality on random distributions."""
    generator = torch.Generator().manual_seed(seed)
    bumps = [(-((POINTS - m) ** 2) / (2 * s**2)).exp() for m, s in ((0.9, 0.35), (1.9, 0.5))]
    p, q = (bump / bump.sum() for bump in bumps)
    start = torch.randn(len(POINTS), generator=generator, dtype=torch.float64)
    bounded, lipschitz, smooth = best(p - q, False), best(p - q, True), best_in_ball(p - q, start)
    random = (4 * torch.randn(3, 500, len(POINTS), generator=generator, dtype=torch.float64)).softmax(-1)
    left, right = torch.eye(2, dtype=torch.float64)
    half = torch.tensor([0.5, 0.5], dtype=torch.float64)
    half_way = 0.75 * math.log(4 / 3)  # JS of (1, 0) and (1/2, 1/2)
    a, b, c = (torch.tensor([x, 1 - x], dtype=torch.float64) for x in (0.5, 0.25, 0.1))
    metrics = {"TV": total_variation, "W": w, "MMD": mmd, "root of JS": root_js}
    first, second, _ = random
    asymmetry = max((d(first, second) - d(second, first)).abs().max().item() for d in metrics.values())
    to_itself = max(d(first, first).abs().max().item() for d in metrics.values())
    to_others = min(d(first, second).min().item() for d in metrics.values())
    numbers = [
        Number("sup over |f| <= 1: 2 TV", (bounded @ (p - q)).item(), 2 * total_variation(p, q).item(), 1e-9),
        Number("sup over 1-Lipschitz f: W", (lipschitz @ (p - q)).item(), w(p, q).item(), 1e-9),
        Number("sup over the kernel's ball: MMD", (smooth @ (p - q)).item(), mmd(p, q).item(), 1e-9),
        *(
            Number(f"{name}: largest excess over a detour", excess(d, *random), 0, 1e-12, "<=")
            for name, d in metrics.items()
        ),
        Number("all four: largest asymmetry", asymmetry, 0, 1e-12),
        # MMD is the root of a difference of numbers of size 1, with rounding errors of 1e-16.
        Number("all four: largest distance of a distribution from itself", to_itself, 0, 1e-7),
        Number("all four: least distance of two random distributions, more than from itself", to_others, 1e-7, 0, ">="),
        Number("JS: excess of (1, 0) to (0, 1) over the way by (1/2, 1/2)",
               excess(js_divergence, left, half, right), math.log(2) - 2 * half_way, 1e-12),
        Number("root of JS: excess for the same three", excess(root_js, left, half, right), 0, 1e-12, "<="),
        Number("KL: excess of (.5, .5) to (.1, .9) over the way by (.25, .75)", excess(kl_divergence, a, b, c),
               _kl(0.5, 0.1) - _kl(0.5, 0.25) - _kl(0.25, 0.1), 1e-12),
        Number("the same excess, which a metric would not have", excess(kl_divergence, a, b, c), 1e-12, 0, ">="),
        Number("KL: asymmetry of (.5, .5) and (.1, .9)", (kl_divergence(a, c) - kl_divergence(c, a)).item(),
               _kl(0.5, 0.1) - _kl(0.1, 0.5), 1e-12),
    ]  # fmt: skip

    figures, (masses, critics, triangle) = axes(3)
    masses.step(POINTS, p, where="mid", color=BLUE, label="p")
    masses.step(POINTS, q, where="mid", color=RED, linestyle="--", label="q")
    masses.set(title="Two distributions", xlabel="x", ylabel="probability")
    for values, colour, line, label in (
        (bounded, RED, "--", f"|f| <= 1: 2 TV = {numbers[0].measured:.3f}"),
        (lipschitz - lipschitz.mean(), BLUE, "-", f"1-Lipschitz: W = {numbers[1].measured:.3f}"),
        (smooth, GREEN, "-.", f"kernel ball: MMD = {numbers[2].measured:.3f}"),
    ):
        critics.plot(POINTS, values, color=colour, linestyle=line, label=label)
    critics.set(title="The best critic of each class", xlabel="x", ylabel="f(x)", ylim=(-1.8, 2.6))
    ways = {"JS": js_divergence, "root of JS": root_js, "TV": total_variation}
    for i, (d, hatch) in enumerate(zip(ways.values(), ("", "//", ".."), strict=True)):
        triangle.bar(i - 0.2, d(left, right).item(), 0.4, color=BLUE, label="direct" if i == 0 else None)
        detour = (d(left, half) + d(half, right)).item()
        triangle.bar(i + 0.2, detour, 0.4, color="lightgrey", edgecolor=BLACK, hatch=hatch,
                     label="by (1/2, 1/2)" if i == 0 else None)  # fmt: skip
    triangle.set_xticks(range(3), list(ways))
    triangle.set(title="From (1, 0) to (0, 1)", xlabel="divergence", ylabel="length of the way", ylim=(0, 1.5))
    for panel in (masses, critics, triangle):
        panel.grid(alpha=0.3)
        panel.legend(fontsize=9)
    return Finding(figures, numbers)


def _kl(p: float, q: float) -> float:
    """KL of (p, 1 - p) from (q, 1 - q), by hand."""
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
