"""With the optimal discriminator held fixed, the expected gradient of -log D is that of KL(P_g || P_r) - 2 JS(P_g,
P_r), if both have densities: it lowers a KL that punishes fake-looking samples and hardly lost modes, and it raises JS.
Where a discriminator that should be perfect, and its slope, have independent normal errors at every point, this
gradient has a centred Cauchy distribution: it has no mean, and averaging over more samples does not calm it. Source:
Arjovsky and Bottou, "Towards Principled Methods for Training Generative Adversarial Networks", 2017, theorems 2.5 and
2.6.

P_r = N(0, 1), and the generator g(z) = m + s z has two parameters. Left side: D* = p_r / (p_r + p_g) is held fixed
while -log D*(g(z)) is differentiated with respect to m and s, and averaged over z by quadrature. Right side: the
divergences of the densities are differentiated. The gradient of log(1 - D*) is that of 2 JS.

For theorem 2.6, D* = 0 and its slope is 0 on the generator's manifold. With D = e and slope r, both normal, a
coordinate of the gradient of -log D is -r/e, a Cauchy variable with quartiles -1 and 1 for errors of equal size. The
mean of n of them has the same distribution for every n. The theorem calls the expectation infinite; it does not exist.
Quartiles may be off by five standard deviations of a sample's quartile.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from wgan_fast.distances import js_divergence, kl_divergence
from wgan_fast.train.view.colours import BLACK, BLUE, GREEN, RED

from .claim import Finding, Number, Story, axes

STORY = Story(
    "The usual remedy, -log D, descends one divergence while it climbs another, and may be pure noise.",
    (
        r"\mathrm{E}_z[-\nabla_\theta \log D^{*}(g_\theta(z))] = "
        r"\nabla_\theta [\mathrm{KL}(P_g \,\|\, P_r) - 2\,\mathrm{JS}(P_g, P_r)]",
        r"\mathrm{E}_z[\nabla_\theta \log (1 - D^{*}(g_\theta(z)))] = \nabla_\theta \, 2\,\mathrm{JS}(P_g, P_r)",
    ),
    "A gradient that differs from that of the divergences by more than quadrature does; means of independent ratios "
    "that settle as their number grows.",
    ("principled",),
    "Theorem 2.6 assumes errors that are independent at every point. Errors of trained networks are not: "
    "low dimensional manifolds shows discriminators whose gradients agree. A normal error around 0 also makes D "
    "negative half of the time, where log D does not exist: the theorem is about the formula for its gradient.",
)
#: Generators (m, s); for much smaller s the tails of p_r / p_g leave the range of the quadrature.
GENERATORS = ((1.0, 1.0), (-0.5, 0.8), (2.0, 0.7), (0.3, 1.2))
GRID = torch.linspace(-14, 14, 5601, dtype=torch.float64)
WEIGHTS = torch.full_like(GRID, 0.005)
MEANS = (1, 10, 100, 1000)


def log_density(x: Tensor, mean: Tensor | float = 0.0, deviation: Tensor | float = 1.0) -> Tensor:
    """The logarithm of a normal density."""
    deviation = torch.as_tensor(deviation, dtype=torch.float64)
    return -0.5 * ((x - mean) / deviation) ** 2 - deviation.log() - 0.5 * math.log(2 * math.pi)


def of_discriminator(generator: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """The gradients (2,) of E -log D*(g(z)) and E log(1 - D*(g(z))), with D* fixed."""
    theta = torch.tensor(generator, dtype=torch.float64, requires_grad=True)
    x = theta[0] + theta[1] * GRID  # the grid is that of z
    logits = log_density(x) - log_density(x, *generator)  # of D*, whose parameters are constants
    masses = WEIGHTS * log_density(GRID).exp()
    losses = (masses * F.softplus(-logits)).sum(), -(masses * F.softplus(logits)).sum()
    alternative, minimax = (torch.autograd.grad(loss, theta, retain_graph=True)[0] for loss in losses)
    return alternative, minimax


def of_divergences(generator: tuple[float, float]) -> tuple[Tensor, Tensor]:
    """The gradients (2,) of KL(P_g || P_r) and JS."""
    theta = torch.tensor(generator, dtype=torch.float64, requires_grad=True)
    real, fake = log_density(GRID), log_density(GRID, theta[0], theta[1])
    both = (
        kl_divergence(fake, real, weights=WEIGHTS, log=True),
        js_divergence(fake, real, weights=WEIGHTS, log=True),
    )
    kl, js = (torch.autograd.grad(value, theta, retain_graph=True)[0] for value in both)
    return kl, js


def run(seed: int, *, small: bool = False) -> Finding:
    """Compares the gradients, and draws ratios of normal errors."""
    generator = torch.Generator().manual_seed(seed)
    alternative, minimax, closed = [], [], []
    for one in GENERATORS:
        (left, left_minimax), (kl, js) = of_discriminator(one), of_divergences(one)
        alternative.append((left - (kl - 2 * js)).abs().max().item())
        minimax.append((left_minimax - 2 * js).abs().max().item())
        m, s = one  # KL(N(m, s^2) || N(0, 1)) = (s^2 + m^2 - 1) / 2 - log s
        closed.append((kl - torch.tensor([m, s - 1 / s], dtype=torch.float64)).abs().max().item())
    count = 4000 if small else 20_000
    means = {}
    for n in MEANS:
        parts = []
        for _ in range(10):  # in parts, for memory
            slopes, values = torch.randn(2, count // 10, n, generator=generator, dtype=torch.float64)
            parts.append(-(slopes / values).mean(1))
        means[n] = torch.cat(parts)
    quartiles = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    low, middle, high = zip(*(means[n].quantile(quartiles).tolist() for n in MEANS), strict=True)
    # Five standard deviations of a quartile, sqrt(3/16 / count) over the density there, 1 / (2 pi).
    tolerance = 5 * math.sqrt(3 / 16 / count) * 2 * math.pi
    numbers = [
        Number("-log D*: largest difference from KL - 2 JS", max(alternative), 0, 1e-6),
        Number("log(1 - D*): largest difference from 2 JS", max(minimax), 0, 1e-6),
        Number("KL: largest difference of its gradient from the closed form", max(closed), 0, 1e-6, of_code=True),
        Number("errors: lower quartile of one ratio", low[0], -1, tolerance),
        Number("errors: upper quartile of one ratio", high[0], 1, tolerance),
        Number("errors: lower quartile of means of 1000", low[-1], -1, tolerance),
        Number("errors: upper quartile of means of 1000", high[-1], 1, tolerance),
        Number("errors: median of means of 1000", middle[-1], 0, tolerance),
    ]

    figures, (gradients, spread) = axes(2, width=4.8)
    places = torch.linspace(-2.5, 2.5, 21).tolist()
    found = torch.stack([of_discriminator((m, 0.8))[0] for m in places])
    divergences = [of_divergences((m, 0.8)) for m in places]
    kl, js = (torch.stack(values)[:, 0] for values in zip(*divergences, strict=True))
    gradients.plot(places, kl, color=RED, linestyle="--", label="gradient of KL")
    gradients.plot(places, -2 * js, color=GREEN, linestyle="-.", label="gradient of -2 JS")
    gradients.plot(places, kl - 2 * js, color=BLUE, label="their sum")
    gradients.plot(places, found[:, 0], "o", color=BLACK, markersize=4, label="E of the gradient of -log D*")
    gradients.set(title="What -log D descends", xlabel="mean m of P_g (P_r has 0)", ylabel="derivative by m")
    spread.semilogx(MEANS, high, "o-", color=BLUE, label="quartiles of the mean")
    spread.semilogx(MEANS, low, "o-", color=BLUE)
    normal = 0.6745
    spread.semilogx(MEANS, [normal / math.sqrt(n) for n in MEANS], "--", color=RED, label="if errors were normal")
    spread.semilogx(MEANS, [-normal / math.sqrt(n) for n in MEANS], "--", color=RED)
    spread.set(title="Averages of Cauchy noise do not settle", xlabel="samples averaged", ylabel="quartiles",
               ylim=(-1.6, 2.2))  # fmt: skip
    for panel in (gradients, spread):
        panel.grid(alpha=0.3)
        panel.legend(fontsize=9)
    return Finding(figures, numbers)
