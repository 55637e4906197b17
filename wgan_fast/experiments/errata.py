"""Four slips in lecture notes on Wasserstein GANs, each with a number that tells the slip from the statement: JS has
the factor 1/2, W_1 is the earth mover's distance and W_2 is not, the supremum over |f| <= 1 is twice the total
variation, and a ratio of normal errors has no expectation rather than an infinite one. Source: Goodfellow et al.,
"Generative Adversarial Networks", 2014, theorem 1; Arjovsky, Chintala and Bottou, "Wasserstein GAN", 2017, sections 2
and 5; Arjovsky and Bottou, "Towards Principled Methods for Training Generative Adversarial Networks", 2017, theorem
2.6.

Each slip and its number:

- Without the half, KL(p || m) + KL(q || m) is 2 log 2 for distributions that share no mass. The value of the optimal
  discriminator, 2 JS - 2 log 2, would be positive there; but a mean of logarithms of probabilities never is. The WGAN
  paper itself leaves out the half in section 2, and has it in example 1, where JS is log 2.
- Moving a half of the mass by 2 and the other half not at all has W_1 = 1, the cost of the transport; W_2 is sqrt 2.
- For distributions that share no mass, the largest difference of means over |f| <= 1 is attained by f = 1 on one
  support and -1 on the other: it is 2, while TV is 1. The WGAN paper's section 5 calls it the total variation, which
  section 2 defines as the largest difference for one event.
- A Cauchy variable has no mean. Its mean over |x| <= c is 0 for every c, while that of its absolute value grows as
  (2 / pi) log c, without end; a mean exists, finite or infinite, only if one of its two halves is finite.

Names also differ: log(1 - D) is the minimax loss, -log D the non-saturating one, whichever a text numbers first.
"""

import math

import torch

from wgan_fast.distances import (
    earth_movers_distance,
    earth_movers_distance_1d,
    js_divergence,
    kl_divergence,
    total_variation,
)
from wgan_fast.train.view.colours import BLUE, RED

from .claim import Finding, Number, Story, axes

STORY = Story(
    "Where notes and papers disagree, a number decides.",
    (
        r"\mathrm{JS} = \frac{1}{2} \mathrm{KL}(p \,\|\, m) + \frac{1}{2} \mathrm{KL}(q \,\|\, m), "
        r"\quad m = \frac{p + q}{2}",
        r"W_1 = \mathrm{EM}",
        r"\sup_{\|f\|_\infty \leq 1} \mathrm{E}_P f - \mathrm{E}_Q f = 2 \, \mathrm{TV}(P, Q)",
    ),
    "A number below that fits the slip and not the statement.",
    ("gan", "wgan", "principled"),
)
LEVELS = (1e1, 1e2, 1e3, 1e4)


def truncated(level: float, absolute: bool) -> float:
    """The integral of x, or |x|, times the Cauchy density over |x| <= level, by the midpoint rule in arctan x."""
    angle = math.atan(level)
    u = ((torch.arange(2_000_000, dtype=torch.float64) + 0.5) / 1_000_000 - 1) * angle
    x = u.tan()
    return ((x.abs() if absolute else x).mean() * 2 * angle / math.pi).item()


def run(seed: int, *, small: bool = False) -> Finding:
    """Computes the numbers; nothing is random."""
    p, q = torch.eye(2, dtype=torch.float64)
    middle = (p + q) / 2
    without_half = (kl_divergence(p, middle) + kl_divergence(q, middle)).item()
    x, y = torch.tensor([[0.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    transport = earth_movers_distance(x[:, None], y[:, None]).item()
    powers = {power: earth_movers_distance_1d(x, y, power=power).item() for power in (1.0, 2.0)}
    f = torch.tensor([1.0, -1.0], dtype=torch.float64)
    growths = [truncated(level, True) for level in LEVELS]
    numbers = [
        Number("JS of disjoint distributions", js_divergence(p, q).item(), math.log(2), 1e-12),
        Number("the sum without the half", without_half, 2 * math.log(2), 1e-12),
        Number("value of the optimal discriminator, with the half: at most 0",
               2 * js_divergence(p, q).item() - 2 * math.log(2), 0, 1e-12, "<="),
        Number("transport cost: W_1", transport, powers[1.0], 1e-12),
        Number("W_2 of the same", powers[2.0], math.sqrt(2), 1e-12),
        Number("best f with |f| <= 1: difference of means over TV", (f @ (p - q) / total_variation(p, q)).item(), 2,
               1e-12),
        Number("Cauchy: truncated mean at 10,000", truncated(LEVELS[-1], False), 0, 1e-6),
        Number("Cauchy: truncated mean of |x| at 10,000, log(1 + c^2) / pi", growths[-1],
               math.log(1 + LEVELS[-1] ** 2) / math.pi, 1e-3),
    ]  # fmt: skip

    figures, (panel,) = axes(1, width=4.8)
    panel.semilogx(LEVELS, growths, "o-", color=BLUE, label="of |x|: grows without end")
    panel.semilogx(LEVELS, [truncated(level, False) for level in LEVELS], "s--", color=RED, label="of x: 0")
    panel.set(title="Truncated means of a Cauchy variable", xlabel="level", ylabel="mean")
    panel.grid(alpha=0.3)
    panel.legend(fontsize=9)
    return Finding(figures, numbers)
