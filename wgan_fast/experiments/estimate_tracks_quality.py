"""The critic's estimate measures the generator's quality: in training it falls with the exact earth mover's distance,
up to a factor. The discriminator's estimate of JS does not: it stays high, at 0.8 log 2 on average, and
hardly follows W. Source: Arjovsky, Chintala and Bottou, "Wasserstein GAN", 2017, section 4.2 and figures 3 and 4.

Three algorithms learn 8 Gaussians, with 10 critic steps per generator step, so that the critic is near its optimum. At
41 points of the training, denser at its beginning, fresh samples give the critic's estimate, mean f(x) - mean f(x~), or
the discriminator's, log 2 minus half its loss, and the exact distance. The critic estimates W times its Lipschitz
constant, so only ranks are compared: Spearman's correlation. With clipping the generator has a quarter of the learning
rate and is stopped early: once the remaining differences are finer than a clipped critic can resolve, its estimate is
uninformative. The standard GAN drops modes: W rises, and the estimate of JS falls.
"""

import math
from typing import NamedTuple

import torch
from torchmetrics.functional import spearman_corrcoef

from wgan_fast import critic_loss, discriminator_loss
from wgan_fast.distances import dual_estimate, earth_movers_distance
from wgan_fast.train.data import make_toy
from wgan_fast.train.view.colours import BLACK, BLUE, RED

from .claim import Finding, Number, axes
from .gan_training import ALGORITHMS, Algorithm, train

NAMES = ("WGAN, clipping", "WGAN-GP", "non-saturating GAN")


class Course(NamedTuple):
    """The measurements of one training."""

    steps: list[int]  #: generator steps
    estimates: list[float]
    distances: list[float]  #: exact


def spearman(course: Course) -> float:
    """Spearman's rank correlation between estimates and exact distances."""
    estimates, distances = torch.tensor([course.estimates, course.distances], dtype=torch.float64)
    return spearman_corrcoef(estimates, distances).item()


def follow(algorithm: Algorithm, steps: int, first_critic_updates: int, samples: int) -> Course:
    """Trains on 8 Gaussians and measures at 41 steps."""
    data = [make_toy("8gaussians")]
    measured_at = {round(steps * (i / 40) ** 1.5) for i in range(41)}
    course = Course([], [], [])
    states = train(
        algorithm,
        data,
        steps,
        critic_updates=10,
        first_critic_updates=first_critic_updates,
        critic_rate=1e-3,
        generator_rate=4e-4,
    )
    for step, pairs in enumerate(states):
        if step in measured_at:
            with torch.no_grad():
                real, fake = pairs.real(samples), pairs.fake(samples)
                if algorithm.critic_loss is critic_loss:
                    estimate = dual_estimate(pairs.critics, real, fake)
                else:
                    estimate = math.log(2) - discriminator_loss(pairs.critics(real), pairs.critics(fake)) / 2
            course.steps.append(step)
            course.estimates.append(estimate.item())
            course.distances.append(earth_movers_distance(real.double(), fake.double()).item())
    return course


def run(seed: int, *, small: bool = False) -> Finding:
    """Trains, and compares the estimates with the exact distances."""
    torch.manual_seed(seed)
    size = (40, 50, 200) if small else (400, 300, 1000)
    clipped, penalised, standard = courses = [follow(ALGORITHMS[name], *size) for name in NAMES]
    numbers = [
        Number("WGAN, clipping: Spearman's correlation of estimate and W", spearman(clipped), 0.9, 0, ">="),
        Number("WGAN-GP: Spearman's correlation of estimate and W", spearman(penalised), 0.9, 0, ">="),
        Number("GAN: Spearman's correlation of estimate and W", spearman(standard), 0.5, 0, "<="),
        Number(
            "GAN: mean estimate of JS, over log 2",
            sum(standard.estimates) / len(standard.estimates) / math.log(2),
            0.7,
            0,
            ">=",
        ),
    ]

    figure, panels = axes(3, width=4.8, height=4)
    figure.set_layout_engine("constrained", wspace=0.08)  # a label on either side
    for name, course, panel in zip(NAMES, courses, panels, strict=True):
        what = "estimate of JS (nats)" if course is standard else "critic's estimate, up to a factor"
        (exact,) = panel.plot(course.steps, course.distances, color=BLACK, linestyle="--", label="exact W")
        other = panel.twinx()
        (line,) = other.plot(course.steps, course.estimates, color=BLUE, marker="o", markersize=3, label=what)
        lines = [exact, line]
        if course is standard:
            lines.append(other.axhline(math.log(2), color=RED, linestyle=":", label="log 2"))
        panel.set(
            title=f"{name}: correlation {spearman(course):.2f}",
            xlabel="updates of the generator",
            ylim=(0, 1.15 * max(course.distances)),
        )
        panel.set_ylabel("exact W")
        other.set_ylabel(what, color=BLUE)
        other.set_ylim(0, 1.15 * max(*course.estimates, math.log(2) if course is standard else 0))
        panel.grid(alpha=0.3)
        panel.legend(handles=lines, loc="upper center", bbox_to_anchor=(0.5, -0.17), ncols=3, fontsize=9)
    return Finding(figure, numbers)
