"""Where the generator is continuous in theta and its points stay in a compact set, W(P_r, P_theta) is continuous; where
it is locally Lipschitz, with constants of finite mean over z (assumption 1), W is locally Lipschitz, too, and has a
derivative almost everywhere. JS need have neither property. Source: Arjovsky, Chintala and Bottou, "Wasserstein GAN",
2017, theorem 1.

P_r lies on an S in the plane, and P_theta on the same S rotated by theta around its centre. A point at distance r from
the centre moves by at most r |theta - theta'|, so |W(theta) - W(theta')| <= E[r] |theta - theta'|. W is exact for 200
points of the curve. Two such curves meet in a few points only, so JS is 0 at theta = 0 and log 2 for every other small
angle; it is measured for 50,000 points, on ever finer grids. Three generators of points on a line test the conditions,
with z uniform on (0, 1] and exact values; W is the distance from P_0. g = z + sqrt(|theta|) is continuous and not
Lipschitz at 0: W = sqrt(|theta|) is continuous there, and its quotient grows as 1 / sqrt(|theta|). g = z + 1 for theta
> 0, else z, is not continuous, nor is W. g = theta / z is Lipschitz with L(z) = 1/z, whose mean is infinite, against
assumption 1: with n equally likely z = (i + 1/2) / n, W is |theta| (log n + 2 log 2 + gamma) up to O(1/n^2), where
gamma is Euler's constant, and grows without end.

At theta = 0, W has its minimum, a kink with two finite slopes, and JS jumps. Elsewhere the derivative of W by autograd,
through the optimal plan, is compared with a difference quotient, and the slope of JS is 0.
"""

import itertools
import math

import torch
from torch import Tensor

from wgan_fast.distances import earth_movers_distance, earth_movers_distance_1d, js_divergence
from wgan_fast.train.view.colours import BLACK, RED

from .claim import COLOURS, LINES, MARKERS, Finding, Number, Story, axes

STORY = Story(
    "If the generator moves little, W moves little; JS may jump.",
    (
        r"|W(P_r, P_\theta) - W(P_r, P_{\theta'})| \leq W(P_\theta, P_{\theta'}) \leq "
        r"\mathrm{E}_z \|g_\theta(z) - g_{\theta'}(z)\|",
        r"\mathrm{E}_z L(\theta, z) < \infty \quad (\mathrm{assumption\ 1})",
    ),
    "A quotient of W steeper than the generator moves; a jump of W for a generator that is continuous and bounded.",
    ("wgan",),
    "Continuity of g is not enough without assumption 1 or a bounded space: theta / z, with z uniform on (0, 1], is "
    "continuous in theta for each z, and its W is infinite for every theta other than 0.",
)

RANGE = 1.2  # theta in radians: from -RANGE to RANGE
ANGLE = 0.7  # where derivatives are compared
CELLS = (8, 64, 512, 4096)  # per unit of length


def curve(count: int) -> Tensor:
    """Points (count, 2) of the S, in float64."""
    z = (torch.arange(count, dtype=torch.float64) + 0.5) / count * 2 - 1
    return torch.stack([(math.pi * z).sin() / 2, z], dim=1)


def turned(points: Tensor, theta: Tensor) -> Tensor:
    """The generator: the points, rotated by theta."""
    sine, cosine = theta.sin(), theta.cos()
    return points @ torch.stack([torch.stack([cosine, sine]), torch.stack([-sine, cosine])])


def transport(points: Tensor, theta: float) -> tuple[float, float]:
    """W(P_r, P_theta), and its derivative by autograd."""
    angle = torch.tensor(theta, dtype=torch.float64, requires_grad=True)
    distance = earth_movers_distance(points, turned(points, angle))
    return distance.item(), torch.autograd.grad(distance, angle)[0].item()


def divergence(points: Tensor, theta: float, cells: int) -> float:
    """JS of the shares of points in each cell of a grid."""
    both = torch.cat([points, turned(points, torch.tensor(theta, dtype=torch.float64))])
    column, row = (both * cells).floor().long().unbind(1)
    occupied, cell = (column * 10 * cells + row).unique(return_inverse=True)
    p, q = (torch.bincount(half, minlength=len(occupied)).double() / len(points) for half in cell.chunk(2))
    return js_divergence(p, q).item()


def run(seed: int, *, small: bool = False) -> Finding:
    """Rotates the curve, and measures W and JS, their slopes and jumps. Nothing is random."""
    points, many = curve(60 if small else 200), curve(20_000 if small else 50_000)
    lipschitz = points.norm(dim=1).mean().item()  # E[r]
    thetas = torch.linspace(-RANGE, RANGE, 13 if small else 33, dtype=torch.float64).tolist()
    w = [transport(points, theta)[0] for theta in thetas]
    step = thetas[1] - thetas[0]
    steepest = max(abs(b - a) / step for a, b in itertools.pairwise(w))
    h = 1e-4
    at_zero, at_right, at_left = (transport(points, theta)[0] for theta in (0.0, h, -h))
    right, left = (at_right - at_zero) / h, (at_left - at_zero) / -h
    tangent = transport(points, ANGLE)
    difference = (transport(points, ANGLE + h)[0] - transport(points, ANGLE - h)[0]) / (2 * h)
    js = {cells: [divergence(many, theta, cells) for theta in thetas] for cells in CELLS}
    finest = CELLS[-1]
    jump = divergence(many, 0.05, finest) - divergence(many, 0.0, finest)
    slope = (divergence(many, ANGLE + 0.05, finest) - divergence(many, ANGLE - 0.05, finest)) / 0.1
    z = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    roots = {t: earth_movers_distance_1d(z, z + math.sqrt(t)).item() for t in (1e-2, 1e-4, 1e-8)}
    jump_of_w = earth_movers_distance_1d(z, z + 1).item()
    theta = 0.1
    heavy = {}
    for n in (100, 10_000, 1_000_000):
        latent = (torch.arange(n, dtype=torch.float64) + 0.5) / n
        heavy[n] = earth_movers_distance_1d(torch.zeros_like(latent), theta / latent).item()
    expected_heavy = theta * (math.log(1_000_000) + 2 * math.log(2) + 0.5772156649015329)
    numbers = [
        Number("g = z + sqrt(theta): W at theta = 1e-8", roots[1e-8], 1e-4, 1e-12),
        Number(
            "g = z + sqrt(theta): quotient at 1e-8 over that at 1e-4",
            roots[1e-8] / 1e-8 / (roots[1e-4] / 1e-4),
            100,
            1e-6,
        ),
        Number("g that jumps by 1: jump of W", jump_of_w, 1, 1e-12),
        Number(f"g = theta / z, n = 1,000,000, theta = {theta}: W", heavy[1_000_000], expected_heavy, 1e-9),
        Number(
            f"g = theta / z, theta = {theta}: growth of W for n times 100",
            heavy[1_000_000] - heavy[10_000],
            theta * math.log(100),
            1e-6,
        ),
        Number("W: steepest difference quotient, at most E[r]", steepest, lipschitz, 1e-6, "<="),
        Number("W: quotient from the right at theta = 0 (E[r])", right, lipschitz, 1e-3),
        Number("W: quotient from the left at theta = 0 (-E[r])", left, -lipschitz, 1e-3),
        Number(f"W: derivative by autograd at theta = {ANGLE}, against a quotient", tangent[1], difference, 1e-4),
        Number("JS at theta = 0", divergence(many, 0.0, finest), 0),
        Number("JS: jump from theta = 0 to 0.05, finest grid", jump, math.log(2), 0.02),
        Number(f"JS: slope at theta = {ANGLE}, finest grid", slope, 0, 0.01),
    ]

    figures, (curves, distances, divergences) = axes(3, width=4.4, height=4)
    for theta, colour, style in zip((0.0, 0.3, 1.0), COLOURS, LINES, strict=False):
        shown = turned(points, torch.tensor(theta, dtype=torch.float64))
        label = "$P_r$" if theta == 0 else rf"$P_\theta$, $\theta$ = {theta}"
        curves.plot(shown[:, 0], shown[:, 1], color=colour, linestyle=style, label=label)
    curves.set(
        title=r"An S, turned by $\theta$",
        xlabel="$x_1$",
        ylabel="$x_2$",
        aspect="equal",
        xlim=(-1.6, 1.6),
        ylim=(-1.2, 2),
    )
    distances.plot(thetas, w, color=COLOURS[0], marker="o", markersize=3, label="W, exact")
    distances.plot(
        [-0.5, 0, 0.5], [lipschitz / 2, 0, lipschitz / 2], color=BLACK, linestyle=":", label="slopes ±E[r] at 0"
    )
    ends = torch.tensor([-0.35, 0.35])
    distances.plot(
        ends + ANGLE, tangent[0] + tangent[1] * ends, color=RED, linestyle="--", label="derivative by autograd"
    )
    distances.set(title="W is continuous, with a slope", xlabel=r"$\theta$ (radians)", ylabel="W", ylim=(-0.03, 0.85))
    for cells, values, colour, style, marker in zip(js, js.values(), COLOURS, LINES, MARKERS, strict=False):
        divergences.plot(
            thetas, values, color=colour, linestyle=style, marker=marker, markersize=3, label=f"cells of 1/{cells}"
        )
    divergences.axhline(math.log(2), color=BLACK, linestyle=":", label="log 2")
    divergences.set(
        title="JS jumps: the finer the cells, the more so",
        xlabel=r"$\theta$ (radians)",
        ylabel="JS (nats)",
        ylim=(-0.03, 1.3),
    )
    for panel in (curves, distances, divergences):
        panel.grid(alpha=0.3)
        panel.legend(loc="upper center", fontsize=9)
    return Finding(figures, numbers)
