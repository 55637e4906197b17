"""A critic need not be kept as weak as its generator: here 25 updates for each generator step are no worse than 5, as
expected if a better critic has a better gradient; one makes WGAN-GP worse. Source: Arjovsky, Chintala and Bottou,
"Wasserstein GAN", 2017, section 3: the critic can be trained to optimality; algorithm 1.

WGAN-GP learns 8 Gaussians in 200 generator steps, each after 1, 5 or 25 updates of the critic, with all other settings
equal; three trainings each, of which the mean of the exact W to 1000 fresh samples counts. The penalty has weight 0.1,
not the usual 10. Two sets of 1000 real samples are about 0.05 apart by chance. Trainings differ by about a quarter, so
W after 25 updates may exceed W after 5 by a quarter of it, or by 0.1 if that is more. The non-saturating GAN runs
beside it, and is drawn; how it reacts depends on the training, so nothing is claimed of it.
"""

import torch

from wgan_fast.distances import earth_movers_distance
from wgan_fast.train.data import make_toy
from wgan_fast.train.view.colours import BLACK

from .claim import COLOURS, LINES, MARKERS, Finding, Number, Story, axes
from .gan_training import ALGORITHMS, train

STORY = Story(
    "A critic may be trained as much as time allows: more updates do not hurt it, too few do.",
    (r"\theta \leftarrow \theta - \eta \, \nabla_\theta W(P_r, P_\theta) \;\; \mathrm{needs} \;\; f \approx f^{*}",),
    "A distance after 25 updates per step that exceeds the one after 5 by more than trainings differ; one update that "
    "does as well as 5.",
    ("wgan", "wgan-gp"),
    "The comparison is at equal generator steps; 25 updates cost five times as much as 5. It is one data set, and no "
    "theorem: a critic trained further on few samples may overfit them.",
)
UPDATES, REPEATS, SAMPLES = (1, 5, 25), 3, 1000
NAMES = ("WGAN-GP", "non-saturating GAN")


def distances(name: str, updates: int, steps: int) -> list[float]:
    """The exact W of each of the trainings."""
    data = [make_toy("8gaussians")] * REPEATS
    *_, pairs = train(
        ALGORITHMS[name],
        data,
        steps,
        critic_updates=updates,
        first_critic_updates=0,
        critic_rate=1e-3,
        generator_rate=1e-3,
    )
    with torch.no_grad():
        sets = [
            x.double().unflatten(0, (-1, REPEATS)).transpose(0, 1) for x in (pairs.real(SAMPLES), pairs.fake(SAMPLES))
        ]
    w: list[float] = earth_movers_distance(*sets).tolist()
    return w


def run(seed: int, *, small: bool = False) -> Finding:
    """Trains with 1, 5 and 25 updates."""
    torch.manual_seed(seed)
    found = {name: [distances(name, updates, 10 if small else 200) for updates in UPDATES] for name in NAMES}
    few, some, many = (sum(each) / REPEATS for each in found["WGAN-GP"])
    numbers = [
        Number("WGAN-GP: W after 25 updates per step, not above that after 5", many, some, max(some / 4, 0.1), "<="),
        Number("WGAN-GP: W after 1 update per step, over that after 5", few / some, 1, 0, ">="),
    ]

    figures, (panel,) = axes(1, width=4.8)
    for name, colour, line, marker in zip(NAMES, COLOURS, LINES, MARKERS, strict=False):
        means = [sum(each) / REPEATS for each in found[name]]
        panel.plot(UPDATES, means, color=colour, linestyle=line, marker=marker, label=f"{name}, mean of 3")
        for updates, each in zip(UPDATES, found[name], strict=True):
            panel.plot([updates] * REPEATS, each, marker, color=colour, fillstyle="none", markersize=4)
    panel.plot([], [], "o", color=BLACK, fillstyle="none", label="one training")
    panel.set(title="Exact W after 200 generator steps", xlabel="critic updates per step", ylabel="W", xscale="log")
    panel.set_xticks(UPDATES, map(str, UPDATES))
    panel.set_ylim(0, None)
    panel.grid(alpha=0.3)
    panel.legend(fontsize=9)
    return Finding(figures, numbers)
