"""The two-sided penalty is soft: a critic that gains W per unit of slope settles at the slope 1 + W / (2 weight), where
weight is the lambda of the formulas, so its estimate is W + W^2 / (2 weight), too large by a share that grows with the
distance; the direction of its gradient is right. Source: Gulrajani et al., "Improved Training of Wasserstein GANs",
2017, equation 3; the value follows from setting its derivative to zero.

Two point masses at distance W, and the linear critic f(x) = <w, x>, whose best w is known in closed form: it maximises
W s - weight (s - 1)^2 over its slope s. The library's CriticLoss is minimised by L-BFGS, from a random start, until the
gradient vanishes. The one-sided penalty has the same bias, since the slope ends above 1. R1 (Mescheder, Geiger and
Nowozin, "Which Training Methods for GANs do actually Converge?", 2018, section 4.1), the zero-centred penalty weight /
2 * s^2, ends at the slope W / weight: its estimate is W^2 / weight, and no distance any more.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from wgan_fast import CriticLoss, gradient_penalty, r1_penalty
from wgan_fast.train.view.colours import BLACK

from .claim import COLOURS, LINES, MARKERS, Finding, Number, Story, axes

STORY = Story(
    "The penalty lets the slope exceed 1 a little, so the critic overestimates W by a known share.",
    (
        r"s^{*} = \arg\max_s \; [W s - \lambda (s - 1)^2] = 1 + \frac{W}{2 \lambda}",
        r"\hat{W} = W + \frac{W^2}{2 \lambda}",
    ),
    "A trained slope that differs from 1 + W / (2 weight); a gradient that points elsewhere than along the pair.",
    ("wgan-gp", "r1"),
    "The penalty acts at interpolates of random pairs, while the theorem speaks of optimal pairs; it holds in "
    "expectation, not "
    "everywhere, so the critic may be steeper between the samples. A loss that includes the penalty is no "
    "estimate of W. "
    "Batch normalisation in the critic makes the penalty meaningless, because a score then depends on other samples.",
)
DISTANCES, WEIGHTS = (0.5, 1.0, 2.0, 8.0), (0.1, 1.0, 10.0, 100.0)
DIRECTION = torch.tensor([0.6, -0.8], dtype=torch.float64)


class Linear(nn.Module):
    """f(x) = <w, x>."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.5 * torch.randn(2, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


def trained(distance: float, penalty: Callable[..., Tensor]) -> Tensor:
    """The w of the trained critic: its gradient."""
    critic = Linear()
    loss = CriticLoss(critic, penalty=penalty)
    real = (distance * DIRECTION).expand(2, 2).contiguous()
    fake = torch.zeros_like(real)
    optimizer = torch.optim.LBFGS(
        critic.parameters(), max_iter=200, tolerance_grad=1e-10, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(real, fake).loss
        value.backward()
        return value

    optimizer.step(closure)
    return critic.weight.detach()


def run(seed: int, *, small: bool = False) -> Finding:
    """Trains a linear critic for each distance and weight."""
    torch.manual_seed(seed)
    slopes, estimates, cosines, one_sided, zero_centred = {}, {}, [], [], []
    for weight in WEIGHTS:
        for distance in DISTANCES:
            w = trained(distance, partial(gradient_penalty, weight=weight))
            slopes[weight, distance] = w.norm().item()
            estimates[weight, distance] = distance * (w @ DIRECTION).item()
            cosines.append((w @ DIRECTION / w.norm()).item())
            w = trained(distance, partial(gradient_penalty, weight=weight, one_sided=True))
            one_sided.append(w.norm().item() / (1 + distance / (2 * weight)))
            w = trained(distance, partial(r1_penalty, weight=weight))
            zero_centred.append(w.norm().item() / (distance / weight))
    off = [slope / (1 + distance / (2 * weight)) - 1 for (weight, distance), slope in slopes.items()]
    high = [value / (distance + distance**2 / (2 * weight)) - 1 for (weight, distance), value in estimates.items()]
    numbers = [
        Number("slope, W = 1, weight 10: 1.05", slopes[10.0, 1.0], 1.05, 1e-6),
        Number("slope over 1 + W / (2 weight), largest error of 16", max(map(abs, off)), 0, 1e-6),
        Number("estimate over W + W^2 / (2 weight), largest error of 16", max(map(abs, high)), 0, 1e-6),
        Number("cosine of gradient and pair, least of 16", min(cosines), 1, 1e-9),
        Number("one-sided: the same slope, largest error", max(abs(ratio - 1) for ratio in one_sided), 0, 1e-6),
        Number("R1: slope over W / weight, largest error", max(abs(ratio - 1) for ratio in zero_centred), 0, 1e-6),
    ]

    figures, (left, right) = axes(2, width=4.8)
    ends = torch.linspace(0, 8, 50)
    for weight, colour, line, marker in zip(WEIGHTS[1:], COLOURS, LINES, MARKERS, strict=False):
        left.plot(ends, 1 + ends / (2 * weight), color=colour, linestyle=line, label=f"weight {weight:.0f}")
        left.plot(DISTANCES, [slopes[weight, d] for d in DISTANCES], marker, color=colour)
        right.plot(ends, ends + ends**2 / (2 * weight), color=colour, linestyle=line, label=f"weight {weight:.0f}")
        right.plot(DISTANCES, [estimates[weight, d] for d in DISTANCES], marker, color=colour)
    right.plot(ends, ends, color=BLACK, linewidth=0.8, label="W itself")
    left.set(title="Slope: trained, and 1 + W / (2 weight)", xlabel="W", ylabel="slope", ylim=(0.8, 5.2))
    right.set(title="Estimate of W", xlabel="W", ylabel="mean f(real) - mean f(fake)", ylim=(0, 20))
    for panel in (left, right):
        panel.grid(alpha=0.3)
        panel.legend(fontsize=9)
    return Finding(figures, numbers)
