"""Two parallel lines, P_0 = (0, Z) and P_theta = (theta, Z) with Z uniform on [0, 1]: for every theta other than 0,
JS is log 2, KL is infinite both ways, total variation is 1, and W is |theta|. Of these only W is continuous, and only W
shows which line is closer. A critic learns W, a discriminator JS. Source: Arjovsky, Chintala and Bottou, "Wasserstein
GAN", 2017, example 1 and figure 1.

The divergences are computed on a grid of cells, where each line is one column. A critic is trained as in WGAN-GP to
estimate W, a discriminator on the same samples to estimate JS by log 2 + V/2. Both are evaluated with evenly spaced Z,
and trained for theta = 0 and |theta| of 0.25 or more: for 0.01 the loss is so small beside the penalty that a critic
with the wrong sign takes long to reverse.

The gradient penalty is soft: a critic of slope s scores |theta| s - 10 (s - 1)^2, and settles at s = 1 + |theta| /
20. Its expected estimate is therefore |theta| + theta^2 / 20, which is 5 % too large for theta = 1.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wgan_fast import CriticStep
from wgan_fast.distances import dual_estimate, earth_movers_distance, js_divergence, kl_divergence, total_variation
from wgan_fast.train.view.colours import BLACK, BLUE, GREEN, ORANGE, RED

from .claim import Finding, Number, Story, axes

STORY = Story(
    "Two thin lines side by side: only W says how far apart they are.",
    (
        r"W = |\theta|",
        r"\mathrm{JS} = \log 2, \;\; \mathrm{KL} = \infty, \;\; \mathrm{TV} = 1 \;\; (\theta \neq 0)",
    ),
    "A divergence other than W that changes with theta away from 0, or a trained critic that misses |theta|.",
    ("wgan",),
    "The divergences of the grid hold by construction, one column for each line. The trained networks see "
    "samples only.",
)

THETAS = [-1.0, -0.75, -0.5, -0.25, -0.01, 0.0, 0.01, 0.25, 0.5, 0.75, 1.0]
HEIGHTS = (torch.arange(64) + 0.5) / 64


def line(theta: float, heights: Tensor = HEIGHTS) -> Tensor:
    """Points (B, 2) of the line at theta."""
    return torch.stack([torch.full_like(heights, theta), heights], dim=1)


def probabilities() -> Tensor:
    """One row for each line: its probabilities of the cells, one for each pair of a theta and a height."""
    cells = torch.eye(len(THETAS), dtype=torch.float64)[:, :, None].expand(-1, -1, len(HEIGHTS))
    return cells.flatten(1) / len(HEIGHTS)


def network(steps: int) -> tuple[nn.Module, torch.optim.Adam, torch.optim.lr_scheduler.LRScheduler]:
    critic = nn.Sequential(nn.Linear(2, 32), nn.LeakyReLU(0.2), nn.Linear(32, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))
    adam = torch.optim.Adam(critic.parameters(), lr=5e-3, betas=(0.5, 0.9), fused=True)
    return critic, adam, torch.optim.lr_scheduler.LinearLR(adam, 1.0, 0.0, total_iters=steps)


def critic_estimate(theta: float, steps: int) -> float:
    """The estimate of W by a critic trained for ``steps``."""
    critic, adam, schedule = network(steps)
    step = CriticStep(critic, adam)
    for _ in range(steps):
        step(line(0.0, torch.rand(64)), line(theta, torch.rand(64)))
        schedule.step()
    return dual_estimate(critic, line(0.0), line(theta)).item()


def discriminator_estimate(theta: float, steps: int) -> float:
    """The estimate of JS by a discriminator trained for ``steps``."""
    discriminator, adam, schedule = network(steps)

    def negative_value(real: Tensor, fake: Tensor) -> Tensor:
        return F.softplus(-discriminator(real)).mean() + F.softplus(discriminator(fake)).mean()

    for _ in range(steps):
        loss = negative_value(line(0.0, torch.rand(64)), line(theta, torch.rand(64)))
        adam.zero_grad()
        loss.backward()
        adam.step()
        schedule.step()
    return math.log(2) - negative_value(line(0.0), line(theta)).item() / 2


def run(seed: int, *, small: bool = False) -> Finding:
    """Computes the four distances, and trains a critic and a discriminator, for each theta."""
    torch.manual_seed(seed)
    p = probabilities()
    p_0 = p[THETAS.index(0.0)]
    js, tv = js_divergence(p_0, p), total_variation(p_0, p)
    kl, reversed_kl = kl_divergence(p_0, p), kl_divergence(p, p_0)
    w = torch.stack([earth_movers_distance(line(0.0), line(theta)) for theta in THETAS])
    thetas = torch.tensor(THETAS)
    learnt = [-0.5, 0.0, 1.0] if small else [theta for theta in THETAS if abs(theta) != 0.01]
    steps = 200 if small else 300
    estimates = torch.tensor([critic_estimate(theta, steps) for theta in learnt])
    js_estimates = torch.tensor([discriminator_estimate(theta, steps) for theta in learnt])
    learnt_apart = js_estimates[torch.tensor(learnt) != 0]
    absolute = torch.tensor(learnt).abs()
    biased = absolute + absolute**2 / 20
    apart = thetas != 0
    numbers = [
        Number("JS, least for theta other than 0", js[apart].min().item(), math.log(2), 1e-9, of_code=True),
        Number("JS, greatest", js.max().item(), math.log(2), 1e-9, of_code=True),
        Number("JS at theta = 0", js[~apart].item(), 0, of_code=True),
        Number("KL(P_0 || P_theta), least for theta other than 0", kl[apart].min().item(), math.inf, of_code=True),
        Number(
            "KL(P_theta || P_0), least for theta other than 0", reversed_kl[apart].min().item(), math.inf, of_code=True
        ),
        Number("total variation, least for theta other than 0", tv[apart].min().item(), 1, 1e-9, of_code=True),
        Number("W, largest difference from |theta|", (w - thetas.abs()).abs().max().item(), 0, 1e-6),
        Number(
            "critic's estimate, largest difference from |theta|", (estimates - absolute).abs().max().item(), 0, 0.06
        ),
        Number("the same from |theta| + theta^2 / 20", (estimates - biased).abs().max().item(), 0, 0.01),
        Number("discriminator's JS, least for theta other than 0", learnt_apart.min().item(), math.log(2), 0.02),
        Number("discriminator's JS, at most log 2", js_estimates.max().item(), math.log(2), 1e-6, "<=", of_code=True),
        Number("discriminator's JS at theta = 0", js_estimates[learnt.index(0.0)].item(), 0, 0.01),
    ]

    figures, (lines, transport, divergences) = axes(3, width=4.4, height=4)
    lines.plot([0, 0], [0, 1], color=BLUE, linewidth=3, label="$P_0$, real")
    lines.plot([0.75, 0.75], [0, 1], color=RED, linewidth=3, linestyle="--", label=r"$P_\theta$, generated")
    lines.annotate("", xy=(0.75, 0.5), xytext=(0, 0.5), arrowprops={"arrowstyle": "<->"})
    lines.text(0.375, 0.53, r"$\theta$", ha="center", fontsize=13)
    lines.set(title="Two parallel lines", xlabel="$x_1$", ylabel="$x_2$", xlim=(-0.5, 1.25), ylim=(-0.1, 1.5))
    lines.set_xticks([0, 0.5, 1])
    transport.plot(thetas, w, color=BLUE, label=r"W = $|\theta|$")
    transport.plot(learnt, biased, color=BLACK, linestyle=":", label=r"$|\theta| + \theta^2 / 20$: the penalty is soft")
    transport.plot(learnt, estimates, color=RED, marker="s", linestyle="none", label="trained critic")
    transport.set(
        title="W is continuous, and a critic learns it", xlabel=r"$\theta$", ylabel="distance", ylim=(-0.05, 1.4)
    )
    js_apart, tv_apart = (values.masked_fill(~apart, math.nan) for values in (js, tv))  # a gap in the line
    divergences.plot(thetas, js_apart, color=BLUE, label=r"JS = log 2 for $\theta \neq 0$")
    divergences.plot(
        [0], js[~apart], color=BLUE, marker="o", linestyle="none", label=r"JS = TV = KL = 0 for $\theta = 0$"
    )
    divergences.plot(thetas, tv_apart, color=GREEN, linestyle="--", label=r"TV = 1 for $\theta \neq 0$")
    divergences.plot(
        learnt, js_estimates, color=RED, marker="^", linestyle="none", label="log 2 + V/2, trained discriminator"
    )
    divergences.annotate("", xy=(0.5, 1.35), xytext=(0.5, 1.1), arrowprops={"arrowstyle": "->", "color": ORANGE})
    divergences.text(0.53, 1.17, r"KL = $\infty$", color=ORANGE)
    divergences.axhline(math.log(2), color=BLACK, linewidth=0.6, linestyle=":")
    divergences.set(title="JS, KL and TV jump", xlabel=r"$\theta$", ylabel="divergence (JS in nats)", ylim=(-0.05, 2.2))
    for panel in (lines, transport, divergences):
        panel.grid(alpha=0.3)
        panel.legend(loc="upper center", fontsize=9)
    return Finding(figures, numbers)
