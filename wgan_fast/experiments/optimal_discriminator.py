"""The optimal discriminator between p_r and p_g is D* = p_r / (p_r + p_g), where either is positive, and the generator
then minimises the Jensen-Shannon divergence: V(D*, G) = 2 JS(p_r, p_g) - 2 log 2, with minimum -2 log 2 at p_g = p_r.
Source: Goodfellow et al., "Generative Adversarial Networks", 2014, proposition 1 and theorem 1; Arjovsky and Bottou,
"Towards Principled Methods for Training Generative Adversarial Networks", 2017, section 2.

The value is V(D, G) = E_{p_r} log D + E_{p_g} log(1 - D). It is maximised over a free number for each of twelve
outcomes, and by a network that sees only samples of two Gaussians. Neither uses the formula, so they could refute it.
Then V(D*, G) is minimised over a Gaussian generator. The network may miss V by 0.005, less than 0.4 % of its range
2 log 2. By Pinsker's inequality it misses V by at least 4 times the mean square error of D, so this allows a mean error
of sqrt(0.005 / 4) = 0.035.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from wgan_fast.distances import js_divergence
from wgan_fast.train.networks import MLPCritic
from wgan_fast.train.view.colours import BLACK, BLUE, GREEN, ORANGE, RED

from .claim import Finding, Number, Story, axes

STORY = Story(
    "The best discriminator is a ratio of densities, and what it tells the generator is JS.",
    (
        r"D^{*}(x) = \frac{p_r(x)}{p_r(x) + p_g(x)}",
        r"V(D^{*}, G) = 2 \, \mathrm{JS}(p_r, p_g) - 2 \log 2",
    ),
    "A discriminator whose value exceeds 2 JS - 2 log 2; a best generator that is not p_r.",
    ("gan", "principled"),
    "D* is the best of all functions, with densities known. A network sees samples, and nothing where there are none.",
)

GRID = torch.linspace(-8.0, 8.0, 321, dtype=torch.float64)
WEIGHTS = torch.full_like(GRID, 0.05)  # quadrature weights
REAL, FAKE = (0.0, 1.0), (1.5, 0.6)  # (mean, standard deviation) of the two Gaussians for the network


def density(mean: float | Tensor, deviation: float | Tensor) -> Tensor:
    """The density of a Gaussian on the grid."""
    z = (GRID - mean) / deviation
    return (-0.5 * z**2).exp() / (deviation * math.sqrt(2 * math.pi))


def value(logits: Tensor, p: Tensor, q: Tensor) -> Tensor:
    """V(D, G), where D is the sigmoid of the logits, for probabilities p of real and q of generated outcomes."""
    return (p * F.logsigmoid(logits) + q * F.logsigmoid(-logits)).sum()


def best(p: Tensor, q: Tensor) -> Tensor:
    """The logits that maximise V, a free number for each outcome."""
    logits = torch.zeros_like(p, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=100, tolerance_grad=1e-8, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = -value(logits, p, q)
        loss.backward()
        return loss

    optimizer.step(closure)
    return logits.detach()


def train(steps: int) -> Tensor:
    """A network that maximises V on samples of the two Gaussians; its logits on the grid."""
    network = MLPCritic(1, 32, 2)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3, fused=True)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    for _ in range(steps):
        noise = torch.randn(2, 256, 1)
        real, fake = REAL[0] + REAL[1] * noise[0], FAKE[0] + FAKE[1] * noise[1]
        loss = F.softplus(-network(real)).mean() + F.softplus(network(fake)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        return network(GRID.float()[:, None]).double()


def fit(real: Tensor) -> tuple[float, float, float]:
    """The generator N(mean, deviation^2) that minimises V(D*, G): mean, deviation, and the value."""
    theta = torch.tensor([2.0, math.log(0.5)], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([theta], max_iter=200, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        fake = density(theta[0], theta[1].exp())
        logits = real.log() - fake.log()  # of D*
        loss = value(logits, real * WEIGHTS, fake * WEIGHTS)
        loss.backward()
        return loss

    optimizer.step(closure)
    return theta[0].item(), theta[1].exp().item(), float(closure().item())


def run(seed: int, *, small: bool = False) -> Finding:
    """Maximises over discriminators, then minimises over generators."""
    torch.manual_seed(seed)
    p, q = torch.randn(2, 12, dtype=torch.float64).softmax(-1)
    logits = best(p, q)
    real, fake = density(*REAL), density(*FAKE)
    trained = train(300 if small else 1500)
    optimum = real / (real + fake)
    error = ((trained.sigmoid() - optimum).abs() * (real + fake) / 2 * WEIGHTS).sum()
    bound = 2 * js_divergence(real, fake, weights=WEIGHTS).item() - 2 * math.log(2)
    reached = value(trained, real * WEIGHTS, fake * WEIGHTS).item()
    mean, deviation, least = fit(real)
    numbers = [
        Number("12 outcomes: largest error of the optimised D", _error(logits, p, q), 0, 1e-4),
        Number("12 outcomes: its V - (2 JS - 2 log 2)", _gap(logits, p, q), 0, 1e-8),
        Number("Gaussians: mean error of the trained D", error.item(), 0, math.sqrt(0.005 / 4)),
        Number("Gaussians: V of the trained D", reached, bound, 0.005),
        Number("Gaussians: V of the trained D is at most 2 JS - 2 log 2", reached, bound, 1e-9, "<="),
        Number("the best generator's mean (that of p_r: 0)", mean, REAL[0], 1e-4),
        Number("the best generator's deviation (that of p_r: 1)", deviation, REAL[1], 1e-4),
        Number("its V(D*, G): -2 log 2", least, -2 * math.log(2), 1e-8),
    ]

    figures, (left, right) = axes(2, width=5.2, height=4)
    left.plot(GRID, real, color=BLUE, label="$p_r$")
    left.plot(GRID, fake, color=RED, linestyle="--", label="$p_g$")
    left.plot(GRID, optimum, color=BLACK, linewidth=3, alpha=0.4, label="$D^* = p_r / (p_r + p_g)$")
    left.plot(
        GRID[::8], trained.sigmoid()[::8], color=GREEN, marker="o", markersize=4, linestyle="none", label="D, trained"
    )
    left.set(
        title="Training finds D*, where there are samples",
        xlabel="x",
        ylabel="density; probability of real",
        xlim=(-4, 5),
    )
    means = torch.linspace(-4, 4, 81, dtype=torch.float64)
    fakes = torch.stack([density(m, 1.0) for m in means])
    right.plot(
        means, 2 * js_divergence(real, fakes, weights=WEIGHTS) - 2 * math.log(2), color=BLUE, label="2 JS - 2 log 2"
    )
    chosen = range(0, 81, 10)
    values = [value(best(real * WEIGHTS, fakes[i] * WEIGHTS), real * WEIGHTS, fakes[i] * WEIGHTS) for i in chosen]
    right.plot(means[::10], values, color=RED, marker="s", linestyle="none", label="V, maximised over a free D")
    right.axhline(-2 * math.log(2), color=BLACK, linestyle=":", label="-2 log 2")
    right.axhline(0, color=ORANGE, linestyle="-.", label="0: nothing in common")
    right.set(
        title="What the generator minimises",
        xlabel="mean of $p_g$ = N(mean, 1), with $p_r$ = N(0, 1)",
        ylabel="V (nats)",
        ylim=(-1.5, 0.7),
    )
    for panel in (left, right):
        panel.grid(alpha=0.3)
        panel.legend(fontsize=9)
    return Finding(figures, numbers)


def _error(logits: Tensor, p: Tensor, q: Tensor) -> float:
    return (logits.sigmoid() - p / (p + q)).abs().max().item()


def _gap(logits: Tensor, p: Tensor, q: Tensor) -> float:
    return value(logits, p, q).item() - (2 * js_divergence(p, q).item() - 2 * math.log(2))
