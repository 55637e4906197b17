"""Maximum likelihood minimises KL(P_r || P_theta): where both have densities, the mean negative log-likelihood less the
entropy of P_r converges to it. Where the model has none, on a manifold of lower dimension, KL is infinite or undefined;
noise mends it, and the price is a blurred model: two parallel lines with normal noise have KL = theta^2 / (2 sigma^2).
Source: Arjovsky, Chintala and Bottou, "Wasserstein GAN", 2017, section 1; Arjovsky and Bottou, "Towards Principled
Methods for Training Generative Adversarial Networks", 2017, section 3.

P_r = N(0, 1) and P_theta = N(1, 1.5^2). For n samples the estimate of KL has the standard deviation s / sqrt(n), where
s^2 is the variance of log p_theta(x), known in closed form; it must lie within 5 of them. With noise JS is continuous
in theta, too: it depends on theta / sigma alone, and is theta^2 / (8 sigma^2) to second order.
"""

import math

import torch
from torch import Tensor

from wgan_fast.distances import js_divergence, kl_divergence
from wgan_fast.train.view.colours import BLACK, BLUE, GREEN, RED

from .claim import COLOURS, LINES, Finding, Number, Story, axes

STORY = Story(
    "Maximum likelihood minimises KL, which is infinite for models on a thin set, unless noise is added.",
    (
        r"-\frac{1}{n} \sum_i \;\, \log p_\theta(x_i) - H(P_r) \;\to\; \mathrm{KL}(P_r \,\|\, P_\theta)",
        r"\mathrm{KL}\left(P_0 * N(0, \sigma^2) \,\|\, P_\theta * N(0, \sigma^2)\right) = \frac{\theta^2}{2 \sigma^2}",
    ),
    "An estimate further than 5 standard deviations from KL at any n; another value for the lines with noise.",
    ("wgan", "principled"),
    "The noise that makes KL finite is part of the model: samples without it have infinite KL again.",
)
MEAN, DEVIATION = 1.0, 1.5  # of P_theta
COUNTS = (10, 100, 1000, 10_000, 100_000)
KL = math.log(DEVIATION) + (1 + MEAN**2) / (2 * DEVIATION**2) - 0.5
ENTROPY = 0.5 * math.log(2 * math.pi * math.e)
#: The standard deviation of log p_theta(x) = const - (x - MEAN)^2 / (2 DEVIATION^2); var (x - m)^2 = 2 + 4 m^2.
SPREAD = math.sqrt(2 + 4 * MEAN**2) / (2 * DEVIATION**2)
NOISE = (0.1, 0.3, 1.0)


def smoothed(theta: float, sigma: float, grid: Tensor) -> Tensor:
    """The density across a line at theta, with normal noise; along the lines both are equal and drop out."""
    return torch.distributions.Normal(grid.new_tensor(theta), grid.new_tensor(sigma)).log_prob(grid).exp()


def divergences(theta: float, sigma: float) -> tuple[float, float]:
    """KL and JS of the two lines with noise, by quadrature."""
    grid = torch.linspace(min(0.0, theta) - 10 * sigma, max(0.0, theta) + 10 * sigma, 4001, dtype=torch.float64)
    weights = torch.full_like(grid, (grid[1] - grid[0]).item())
    p, q = smoothed(0.0, sigma, grid), smoothed(theta, sigma, grid)
    return kl_divergence(p, q, weights=weights).item(), js_divergence(p, q, weights=weights).item()


def run(seed: int, *, small: bool = False) -> Finding:
    """Estimates KL by the likelihood of samples, and computes the divergences of lines with noise."""
    torch.manual_seed(seed)
    model = torch.distributions.Normal(torch.tensor(MEAN).double(), torch.tensor(DEVIATION).double())
    estimates = [-model.log_prob(torch.randn(n, dtype=torch.float64)).mean().item() - ENTROPY for n in COUNTS]
    off = [abs(e - KL) * math.sqrt(n) / SPREAD for e, n in zip(estimates, COUNTS, strict=True)]
    cells = torch.eye(2, dtype=torch.float64)  # each line fills a column of cells of its own
    by_noise = {sigma: divergences(1.0, sigma) for sigma in NOISE}
    errors = [abs(kl * 2 * sigma**2 - 1) for sigma, (kl, _) in by_noise.items()]
    near = divergences(0.01, 0.3)[1] / (0.01**2 / (8 * 0.3**2))
    numbers = [
        Number("likelihood: largest error, in standard deviations", max(off), 0, 5),
        Number("likelihood, 100,000 samples: KL", estimates[-1], KL, 5 * SPREAD / math.sqrt(COUNTS[-1])),
        Number("lines without noise: KL", kl_divergence(*cells).item(), math.inf, of_code=True),
        Number("lines with noise: largest relative error of theta^2 / (2 sigma^2)", max(errors), 0, 1e-9),
        Number("JS: theta and sigma doubled, the same", divergences(2.0, 0.6)[1], divergences(1.0, 0.3)[1], 1e-9),
        # The next term is of the relative order (theta / sigma)^2 = 1e-3.
        Number("JS over theta^2 / (8 sigma^2), small theta", near, 1, 1e-3),
        # log 2 - JS is at most the integral of sqrt(p q), here exp(-theta^2 / (8 sigma^2)) = 3.7e-6.
        Number("JS with the least noise, theta = 1: log 2", by_noise[0.1][1], math.log(2), 4e-6),
    ]

    figures, (likelihood, smooth) = axes(2, width=4.8)
    likelihood.errorbar(
        COUNTS, estimates, [2 * SPREAD / math.sqrt(n) for n in COUNTS], color=BLUE, marker="o", capsize=3,
        label="NLL - entropy, ± 2 deviations",
    )  # fmt: skip
    likelihood.axhline(KL, color=RED, linestyle="--", label=f"KL = {KL:.3f}")
    likelihood.set(title="Likelihood estimates KL", xlabel="samples", ylabel="nats", xscale="log")
    thetas = torch.linspace(-1, 1, 41).tolist()
    for sigma, colour, line in zip(NOISE, COLOURS, LINES, strict=False):
        values = [divergences(theta, sigma)[1] for theta in thetas]
        smooth.plot(thetas, values, color=colour, linestyle=line, label=rf"$\sigma$ = {sigma}")
    smooth.plot([-1, -0.02, math.nan, 0.02, 1], [math.log(2)] * 2 + [math.nan] + [math.log(2)] * 2, color=BLACK,
                linestyle=":", label="no noise")  # fmt: skip
    smooth.plot([0], [0], "o", color=GREEN, label="no noise, theta = 0")
    smooth.set(title="Noise makes JS continuous", xlabel=r"$\theta$", ylabel="JS (nats)", ylim=(-0.03, 1.1))
    for panel in (likelihood, smooth):
        panel.grid(alpha=0.3)
        panel.legend(fontsize=9, ncols=2)
    return Finding(figures, numbers)
