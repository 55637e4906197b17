"""Between two Gaussians on a line that hardly overlap, the optimal discriminator saturates: at the fakes it is flat,
and its gradient there vanishes. The critic is nearly a straight line, whose slope is useful everywhere. Source:
Arjovsky, Chintala and Bottou, "Wasserstein GAN", 2017, section 3 and figure 2.

All three networks have the shape 1-256-256-1, and the generator is fixed: real samples are N(-4, 1), fakes N(4, 1). The
optimal critic has slope 1 wherever mass is moved. With weight clipping this holds up to a factor and up to kinks. Where
most weights and biases are at their bound, the kinks of the first layer lie within |x| <= 1, and those of the second
within about 2 / (width * clip), which is less than 1 at this width; in a narrow network they would lie among the
samples. With the gradient penalty the slope settles a little above 1, because the penalty is soft: a critic of slope s
scores W s - weight (s - 1)^2, which is largest at s = 1 + W / (2 weight), where weight is the lambda of the formula.
Here W = 8, and with a weight of 100 the slope is 1.04.

A discriminator counts as flat where its slope is below a hundredth of the critic's. Over the fakes, from 2 to 6, the
slope of the optimal one, about 8 exp(-8 x), changes by the factor exp(32); that of a critic counts as constant within
the factor 1.25, or 1.5 with clipping, which bends it.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wgan_fast import CriticStep, gradient_penalty, optim
from wgan_fast.train.networks import MLPCritic
from wgan_fast.train.view.colours import BLACK, BLUE, GREEN, RED

from .claim import Finding, Number, Story, axes

STORY = Story(
    "A good discriminator is flat where the fakes are; a good critic has a slope there.",
    (r"x \sim P_g: \;\; \nabla_x D(x) \approx 0", r"|\nabla_x f(x)| \approx 1 + \frac{W}{2 \lambda}"),
    "A well-trained discriminator with a slope at the fakes that is comparable to the critic's.",
    ("wgan",),
    "The flat function is D; its logit has a slope, and -log D uses it. Alternative gradient shows what that costs.",
)

REAL, FAKE, SIGMA, BATCH = -4.0, 4.0, 1.0, 128


def batch(mean: float) -> Tensor:
    """Samples (128, 1) of one of the Gaussians."""
    return mean + SIGMA * torch.randn(BATCH, 1)


def slope(function: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
    """The derivative at each of the points (N,)."""
    x = points[:, None].requires_grad_()
    return torch.autograd.grad(function(x).sum(), x)[0].squeeze(1)


def train_discriminator(steps: int) -> nn.Sequential:
    """Minimises -mean log D(x) - mean log(1 - D(x~)); the network ends in a sigmoid."""
    logit = MLPCritic(1, 256, 2)
    optimizer = torch.optim.Adam(logit.parameters(), lr=1e-3, fused=True)
    for _ in range(steps):
        optimizer.zero_grad()
        (F.softplus(-logit(batch(REAL))).mean() + F.softplus(logit(batch(FAKE))).mean()).backward()
        optimizer.step()
    return nn.Sequential(logit, nn.Sigmoid())


def train_clipped(steps: int) -> MLPCritic:
    """As in WGAN."""
    critic = MLPCritic(1, 256, 2)
    step = CriticStep(critic, optim.RMSprop(critic.parameters(), lr=5e-5, clip=0.01), penalty=None)
    for _ in range(steps):
        step(batch(REAL), batch(FAKE))
    return critic


def train_penalised(steps: int) -> MLPCritic:
    """As in WGAN-GP, with a penalty of weight 100 and a learning rate that falls to 0."""
    critic = MLPCritic(1, 256, 2)
    # Start at 0: a critic with a slope of the wrong sign would have to pass 0 against the penalty.
    for parameter in critic.layers[-1].parameters():
        nn.init.zeros_(parameter)
    optimizer = torch.optim.Adam(critic.parameters(), lr=1e-3, betas=(0.5, 0.9))
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    step = CriticStep(critic, optimizer, penalty=partial(gradient_penalty, weight=100.0))
    for _ in range(steps):
        step(batch(REAL), batch(FAKE))
        schedule.step()
    return critic


def run(seed: int, *, small: bool = False) -> Finding:
    """Trains a discriminator and two critics, and compares their slopes along the line."""
    torch.manual_seed(seed)
    discriminator = train_discriminator(300 if small else 1200).double()  # 1 - D would round to 0 in float32
    penalised = train_penalised(100 if small else 500).double()
    clipped = train_clipped(250 if small else 1000).double()

    fakes = torch.linspace(FAKE - 2 * SIGMA, FAKE + 2 * SIGMA, 401, dtype=torch.float64)  # 95 % of them
    of_discriminator, of_penalised, of_clipped = (
        slope(function, fakes).abs() for function in (discriminator, penalised, clipped)
    )
    numbers = [
        Number("discriminator: largest |slope| where the fakes are", of_discriminator.max().item(), 0, 0.01),
        Number("critic with penalty: mean |slope| there", of_penalised.mean().item(), 1, 0.1),
        Number("critic with penalty: largest / smallest slope there", _spread(of_penalised), 1.25, 0, "<="),
        Number("critic with clipping: largest / smallest slope there", _spread(of_clipped), 1.5, 0, "<="),
    ]

    x = torch.linspace(-8, 8, 1601, dtype=torch.float64)
    figures, (left, right) = axes(2, width=5, height=4.2)
    for mean, colour, name in ((REAL, GREEN, "real"), (FAKE, BLACK, "fake")):
        density = torch.distributions.Normal(mean, SIGMA).log_prob(x).exp()
        left.fill_between(x, density, color=colour, alpha=0.2, linewidth=0, label=f"density of {name}")
    with torch.no_grad():
        left.plot(x, discriminator(x[:, None]), color=RED, linestyle="--", label="discriminator")
        scores = penalised(x[:, None])
        left.plot(x, (scores - scores.mean()) / 16 + 0.5, color=BLUE, label="critic with penalty, / 16 + const.")
    left.set(title="The discriminator saturates, the critic does not", xlabel="x", ylabel="value")
    right.axvspan(FAKE - 2 * SIGMA, FAKE + 2 * SIGMA, color=BLACK, alpha=0.08, label="95 % of the fakes")
    right.semilogy(x, slope(discriminator, x).abs(), color=RED, linestyle="--", label="discriminator")
    right.semilogy(x, slope(penalised, x).abs(), color=BLUE, label="critic with penalty")
    right.semilogy(x, slope(clipped, x).abs(), color=GREEN, linestyle="-.", label="critic with clipping")
    right.set(title="What the gradient tells the fakes", xlabel="x", ylabel="|slope|", ylim=(1e-9, 1e2))
    for panel in (left, right):
        panel.grid(alpha=0.3)
        panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=2, fontsize=9)
    return Finding(figures, numbers)


def _spread(slopes: Tensor) -> float:
    return (slopes.max() / slopes.min()).item()
