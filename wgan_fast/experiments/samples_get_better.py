"""As WGAN-GP trains, the exact distance of its samples to real digits falls, for a fully connected generator and for a
convolutional one, and the critic's estimate falls with it. Source: Arjovsky, Chintala and Bottou, "Wasserstein GAN",
2017, section 4.2 and figure 3.

The data are 1,797 handwritten digits, scaled to 16 x 16 pixels in [-1, 1]. W is that between 500 digits and 500 samples
as points of a space of 256 dimensions, with the Euclidean distance. Between 500 digits and 500 others it is far from 0,
too, because 500 points do not fill such a space. That is what samples like the digits would reach; it is no lower
bound, since averages of digits are nearer to all of them. The first estimate follows 150 updates of the critic, the
others 3 more for each step of the generator. A fall by a fifth is asked for: two sets of 500 of one model differ by a
few per cent.
"""

import torch
from sklearn.datasets import load_digits  # type: ignore[import-untyped]
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam

from wgan_fast import CriticStep, GeneratorStep
from wgan_fast.distances import dual_estimate, earth_movers_distance
from wgan_fast.train.networks import MLPCritic, MLPGenerator
from wgan_fast.train.networks.dcgan import DCGANCritic, DCGANGenerator
from wgan_fast.train.view.colours import BLACK, BLUE, RED

from .claim import Finding, Number, Story, axes

STORY = Story(
    "When the generated digits get better, the distance gets smaller, and the critic says so.",
    (r"\hat{W}(t) \;\; \mathrm{falls\ with} \;\; W(P_r, P_{\theta_t})",),
    "A distance to the digits that does not fall in training, or a critic's estimate that rises while it falls.",
    ("wgan", "wgan-gp"),
    "Along a training the step number would rank as well; estimate tracks quality tests the estimate without it. The "
    "Euclidean distance of pixels is not how people see digits.",
)
SHAPE, LATENT, BATCH, SAMPLES = (1, 16, 16), 16, 64, 500


def images() -> Tensor:
    """The digits, (1797, 1, 16, 16), in [-1, 1]."""
    small = torch.from_numpy(load_digits().images).float()[:, None] / 8 - 1
    return F.interpolate(small, scale_factor=2, mode="bilinear").clamp(-1, 1)


def course(generator: nn.Module, critic: nn.Module, steps: int) -> tuple[list[int], list[float], list[float], Tensor]:
    """Steps, exact distances and estimates; and samples at the end."""
    digits = images()
    optimizers = [Adam(one.parameters(), 1e-3, (0.5, 0.9)) for one in (critic, generator)]
    critic_step = CriticStep(critic, optimizers[0])
    generator_step = GeneratorStep(generator, critic, optimizers[1])

    def real(count: int = BATCH) -> Tensor:
        return digits[torch.randperm(len(digits))[:count]]

    @torch.no_grad()
    def fake(count: int = BATCH) -> Tensor:
        points: Tensor = generator(torch.randn(count, LATENT))
        return points

    at, distances, estimates = [], [], []
    for step in range(steps + 1):
        for _ in range(3 if step else 150):
            critic_step(real(), fake())
        if step % (steps // 5) == 0:
            some, made = real(SAMPLES), fake(SAMPLES)
            at.append(step)
            distances.append(earth_movers_distance(some.flatten(1), made.flatten(1)).item())
            with torch.no_grad():
                estimates.append(dual_estimate(critic, some, made).item())
        if step < steps:
            generator_step(lambda: torch.randn(BATCH, LATENT))
    return at, distances, estimates, fake(12)


def run(seed: int, *, small: bool = False) -> Finding:
    """Trains both kinds of networks on the digits."""
    torch.manual_seed(seed)
    order = torch.randperm(1797)[: 2 * SAMPLES]
    of_digits = earth_movers_distance(*images()[order].flatten(1).chunk(2)).item()
    models = {
        "MLP": (MLPGenerator(LATENT, SHAPE, 128, 2), MLPCritic(SHAPE, 128, 2)),
        "DCGAN": (DCGANGenerator(LATENT, SHAPE, 16), DCGANCritic(SHAPE, 16)),
    }
    courses = {name: course(*pair, 5 if small else 200) for name, pair in models.items()}
    numbers = []
    for name, (_, distances, estimates, _) in courses.items():
        numbers += [
            Number(f"{name}: exact W, last / first", distances[-1] / distances[0], 0.8, 0, "<="),
            Number(f"{name}: critic's estimate, last / first", estimates[-1] / estimates[0], 0.8, 0, "<="),
        ]

    figures, (exact, learnt, shown) = axes(3)
    for (name, (at, distances, estimates, _)), colour, style in zip(
        courses.items(), (BLUE, RED), ("o-", "s--"), strict=True
    ):
        exact.plot(at, distances, style, color=colour, label=name)
        learnt.plot(at, estimates, style, color=colour, label=name)
    exact.axhline(of_digits, color=BLACK, linestyle=":", label="digits to digits")
    exact.set(title="The distance to the digits falls", xlabel="updates of the generator", ylabel="exact W")
    learnt.set(title="So does the estimate", xlabel="updates of the generator", ylabel="critic's estimate")
    for panel in (exact, learnt):
        panel.set_ylim(0, None)
        panel.grid(alpha=0.3)
        panel.legend(fontsize=9)
    rows = [images()[order[:12]], *(samples for *_, samples in courses.values())]
    grid = torch.cat(rows).reshape(3, 12, 16, 16).permute(0, 2, 1, 3).reshape(48, 192)
    shown.imshow(grid.numpy(), cmap="gray_r")
    shown.set_xticks([])
    shown.set_yticks([8, 24, 40], ["digits", *courses])
    shown.set(title="Samples at the end")
    return Finding(figures, numbers)
