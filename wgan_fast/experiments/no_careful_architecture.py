"""WGAN-GP trains networks of many shapes with one setting: for most combinations of depth, width, activation and
normalisation below, the exact distance to the data falls, for at least a half of them to less than half. Source:
Gulrajani et al., "Improved Training of Wasserstein GANs", 2017, section 5.1, where random architectures are trained.

Both networks have the combination: 1 or 3 hidden layers of 32 or 128 units, with ReLU or tanh, without normalisation or
with LayerNorm, which treats each sample by itself. (BatchNorm does not, so the penalty forbids it in a critic.) The
data are 8 Gaussians, the training has 120 generator steps, and nothing is tuned for any of the 16. The penalty has
weight 0.1, not the usual 10. What chance does is measured in the same way: W of fresh samples of the untrained
generator, over the W of others. A network has learned where it ends below the least of these 16, and three quarters
must have, which chance cannot do. Not every one learns: with seed 0 one of the 16 ends where it began. Networks of one
hidden layer are slower.
"""

import itertools

import torch
from torch import Tensor, nn
from torch.optim import Adam
from torch.optim.lr_scheduler import LinearLR

from wgan_fast import CriticStep, GeneratorStep
from wgan_fast.distances import earth_movers_distance
from wgan_fast.train.data import make_toy
from wgan_fast.train.view.colours import BLACK, BLUE, RED

from .claim import Finding, Number, Story, axes
from .gan_training import ALGORITHMS, Algorithm

STORY = Story(
    "WGAN-GP learns with deep and shallow, wide and narrow networks, with one setting for all.",
    (r"W_{\mathrm{after}} < W_{\mathrm{before}} \;\; \mathrm{for\ most\ architectures}",),
    "More than a quarter of the combinations whose distance does not fall, or most that do not reach a half.",
    ("wgan-gp",),
    "16 small networks and one data set are no proof for all: one or another does not learn, and how far the distance "
    "falls depends on the network.",
)
GRID = tuple(itertools.product((1, 3), (32, 128), (nn.ReLU, nn.Tanh), (False, True)))
LATENT, BATCH, SAMPLES = 2, 128, 1000


def network(
    inputs: int, outputs: int, depth: int, width: int, activation: type[nn.Module], norm: bool
) -> nn.Sequential:
    """Hidden layers of one width, each with its normalisation and activation, and a linear output."""
    layers: list[nn.Module] = []
    for i in range(depth):
        layers.append(nn.Linear(width if i else inputs, width))
        if norm:
            layers.append(nn.LayerNorm(width))
        layers.append(activation())
    return nn.Sequential(*layers, nn.Linear(width, outputs))


def train(algorithm: Algorithm, shape: tuple[int, int, type[nn.Module], bool], steps: int) -> tuple[float, float]:
    """The exact W after the training over that before, and the same for fresh samples without training."""
    data = make_toy("8gaussians")
    generator, critic = network(LATENT, 2, *shape), network(2, 1, *shape)
    optimizers = [Adam(one.parameters(), 3e-3, (0.5, 0.9)) for one in (critic, generator)]
    critic_step = CriticStep(critic, optimizers[0], penalty=algorithm.penalty, loss=algorithm.critic_loss)
    generator_step = GeneratorStep(generator, critic, optimizers[1], loss=algorithm.generator_loss)
    schedules = [LinearLR(one, 1.0, 0.0, total_iters=steps) for one in optimizers]

    def real(count: int = BATCH) -> Tensor:
        return data.sample(count, torch.default_generator)

    @torch.no_grad()
    def fake(count: int = BATCH) -> Tensor:
        points: Tensor = generator(torch.randn(count, LATENT))
        return points

    def distance() -> float:
        return earth_movers_distance(real(SAMPLES).double(), fake(SAMPLES).double()).item()

    before, again = distance(), distance()
    for _ in range(steps):
        for _ in range(5):
            critic_step(real(), fake())
        generator_step(lambda: torch.randn(BATCH, LATENT))
        for schedule in schedules:
            schedule.step()
    return distance() / before, again / before


def run(seed: int, *, small: bool = False) -> Finding:
    """Trains every combination."""
    torch.manual_seed(seed)
    shapes, steps = (GRID[:2], 10) if small else (GRID, 120)
    ours, chance = zip(*(train(ALGORITHMS["WGAN-GP"], shape, steps) for shape in shapes), strict=True)
    numbers = [
        Number("architectures of 16 whose W after / before is less than any by chance",
               sum(ratio < min(chance) for ratio in ours), 12, 0, ">="),
        Number("W after / before, median", sorted(ours)[len(ours) // 2], 0.5, 0, "<="),
    ]  # fmt: skip

    figures, (panel,) = axes(1, width=5.2, height=4.4)
    names = [
        f"{depth} x {width}, {activation.__name__}{', LayerNorm' if norm else ''}"
        for depth, width, activation, norm in shapes
    ]
    panel.plot(ours, range(len(ours)), "o", color=BLUE, label="WGAN-GP")
    panel.plot(chance, range(len(chance)), "x", color=RED, label="untrained, fresh samples")
    panel.axvline(0.5, color=BLACK, linestyle=":", label="a half")
    panel.set_yticks(range(len(names)), names, fontsize=7)
    panel.set(title="Most architectures learn", xlabel="W after / before the training", ylabel="", xlim=(0, None))
    panel.grid(alpha=0.3)
    panel.legend(fontsize=9)
    return Finding(figures, numbers)
