"""The critic's estimate measures the quality of samples: over sets of fakes it has nearly the order of the exact
Wasserstein distance, and it grows as the samples get worse. The discriminator's estimate of JS cannot grow beyond
log 2. Source: Arjovsky, Chintala and Bottou, "Wasserstein GAN", 2017, section 4.2 and
figures 3 and 4.

There are 16 sets of fakes: 8 Gaussians plus normal noise, of standard deviations drawn from [0.4, 1.6], in random
order. Each set gets a fresh critic of every kind, so that no time passes from one to the next: along one training,
where quality improves with time, the number of the step ranks as well as any critic. Ranks are compared, by Spearman's
correlation (mid-ranks for ties), because a critic estimates W times a slope of its own. A penalty of weight 0.1 lets it
settle near 1 + W / 0.2, so the estimate grows faster than W; so does that of a clipped critic, which sees less of finer
differences. Of 16 values in random order one correlation in a thousand exceeds 0.75; that is what an estimate has to
beat, and what the order of the sets must not reach.
"""

import math
from typing import NamedTuple

import torch
from scipy.stats import rankdata  # type: ignore[import-untyped]
from torch import Tensor
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LinearLR

from wgan_fast import CriticStep, critic_loss, discriminator_loss, optim
from wgan_fast.distances import earth_movers_distance
from wgan_fast.train.data import make_toy
from wgan_fast.train.networks import MLPCritic
from wgan_fast.train.view.colours import BLACK, BLUE, RED

from .claim import Finding, Number, Story, axes
from .gan_training import ALGORITHMS, Algorithm, SideBySide

STORY = Story(
    "What the critic estimates gets smaller when the samples get better, even where no training orders them.",
    (
        r"\hat{W} = \max_{f \in \mathcal{F}} \; \frac{1}{B} \sum_i \; f(x_i) - \frac{1}{B} \sum_i \; f(\tilde{x}_i)",
        r"\mathrm{JS} \leq \log 2",
    ),
    "A critic's estimates in another order than the exact distances, or no better than the order of the sets; an "
    "estimate of JS that grows in proportion to W.",
    ("wgan",),
    "The estimate has a factor of its own for each kind of critic and each constraint: estimates of different kinds "
    "cannot be compared. The estimate of JS may rank these sets, too, but has hardly any room to do so.",
)
NAMES = ("WGAN, clipping", "WGAN-GP", "non-saturating GAN")
SETS, LOW, HIGH, BATCH, SAMPLES = 16, 0.4, 1.6, 128, 1000
DATA = make_toy("8gaussians")


class Sets(NamedTuple):
    """The standard deviation of the noise of each set."""

    deviations: Tensor

    def real(self, count: int) -> Tensor:
        """``count`` samples for each set, in turn."""
        return DATA.sample(count * len(self.deviations), torch.default_generator)

    def fake(self, count: int) -> Tensor:
        """``count`` samples of each set, in turn."""
        clean = self.real(count)
        return clean + self.deviations.repeat(count)[:, None] * torch.randn_like(clean)


def spearman(a: Tensor, b: Tensor) -> float:
    """Spearman's rank correlation; equal values share the mean of their ranks."""
    ranks = torch.stack([torch.from_numpy(rankdata(values.numpy())) for values in (a, b)])
    return torch.corrcoef(ranks)[0, 1].item()


def estimates(algorithm: Algorithm, sets: Sets, steps: int, real: Tensor, fake: Tensor) -> Tensor:
    """The estimate of a fresh critic for each set: of W up to a factor, or of JS."""
    critics = SideBySide([MLPCritic(2, 64, 3) for _ in sets.deviations])
    optimizer: Optimizer
    if algorithm.clip:
        optimizer = optim.RMSprop(critics.parameters(), 1e-3, clip=algorithm.clip)
    else:
        optimizer = Adam(critics.parameters(), 1e-3, (0.5, 0.9))
    step = CriticStep(critics, optimizer, penalty=algorithm.penalty, loss=algorithm.critic_loss)
    schedule = LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    for _ in range(steps):
        step(sets.real(BATCH), sets.fake(BATCH))
        schedule.step()
    with torch.no_grad():
        scores = [critics(x).unflatten(0, (-1, len(sets.deviations))).unbind(1) for x in (real, fake)]
    losses = torch.stack([algorithm.critic_loss(*pair) for pair in zip(*scores, strict=True)])
    return -losses if algorithm.critic_loss is critic_loss else math.log(2) - losses / 2


def growth(values: Tensor, order: Tensor) -> float:
    """The mean of the worst quarter of the sets, over that of the best."""
    quarter = max(1, len(order) // 4)
    return (values[order[-quarter:]].mean() / values[order[:quarter]].mean()).item()


def run(seed: int, *, small: bool = False) -> Finding:
    """Measures each set with a fresh critic of each kind, and exactly."""
    torch.manual_seed(seed)
    steps, samples = (100, 200) if small else (600, SAMPLES)
    sets = Sets(LOW + (HIGH - LOW) * torch.rand(SETS))
    real, fake = sets.real(samples), sets.fake(samples)
    by_set = [x.double().unflatten(0, (-1, SETS)).transpose(0, 1) for x in (real, fake)]
    w = earth_movers_distance(*by_set)
    found = {name: estimates(ALGORITHMS[name], sets, steps, real, fake).double() for name in NAMES}
    clipped, penalised, js = (found[name] for name in NAMES)
    order = w.argsort()
    assert ALGORITHMS[NAMES[2]].critic_loss is discriminator_loss
    numbers = [
        Number("WGAN, clipping: Spearman's correlation of estimate and W", spearman(clipped, w), 0.75, 0, ">="),
        Number("WGAN-GP: Spearman's correlation of estimate and W", spearman(penalised, w), 0.75, 0, ">="),
        Number("order of the sets: correlation with W", spearman(torch.arange(SETS), w), 0, 0.75),
        Number("WGAN, clipping: growth from best to worst, that of W or more", growth(clipped, order), growth(w, order),
               0, ">="),
        Number("WGAN-GP: growth from best to worst, that of W or more", growth(penalised, order), growth(w, order), 0,
               ">="),
        Number("JS: growth from best to worst, less than that of W", growth(js, order), growth(w, order), 0, "<="),
        Number("JS: largest estimate, at most log 2", js.max().item(), math.log(2), 1e-6, "<=", of_code=True),
    ]  # fmt: skip

    figures, panels = axes(3, width=4.2, height=3.6)
    for name, panel in zip(NAMES, panels, strict=True):
        standard = name == NAMES[2]
        panel.plot(w, found[name], color=BLUE, marker="o", linestyle="none", label="a set of fakes, a fresh critic")
        if standard:
            panel.axhline(math.log(2), color=RED, linestyle=":", label="log 2")
        else:
            factor = (found[name] @ w / (w @ w)).item()
            ends = torch.tensor([0.0, w.max().item()])
            panel.plot(ends, factor * ends, color=BLACK, linestyle="--", label=f"{factor:.2f} W")
        panel.set(
            title=f"{name}\nrank correlation {spearman(found[name], w):.2f}",
            xlabel="exact W",
            ylabel="estimate of JS (nats)" if standard else "critic's estimate",
            xlim=(0, None),
            ylim=(0, None),
        )
        panel.grid(alpha=0.3)
        panel.legend(fontsize=9, loc="lower right" if standard else "upper left")
    return Finding(figures, numbers)
