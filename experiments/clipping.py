"""Clipping the weights costs a critic twice: its weights are pushed to the bounds, which leaves it too simple a
function, and its gradients explode or vanish exponentially with depth unless the bound is just right. The gradient
penalty does neither. Source: Gulrajani et al., "Improved Training of Wasserstein GANs", 2017, section 3, figure 1.

As there, the generator is held fixed: its samples are real ones plus standard normal noise. A critic of 12 hidden
layers is trained on the Swiss roll, once for each bound and once with the penalty, and the norm of the loss's gradient
with respect to each layer's activations is fitted by a straight line in log10 over the layers, counted back from the
output. Clipped critics start with all weights uniform within the bounds, so that training itself puts them there: 1 %
of them lie within 1 % of the bound at the start. Level sets are those of critics of 3 hidden layers. Whose slope is
large in a few places only is far from the critic that solves the dual: divided by its largest slope, it says less of
the distance.
"""

from functools import partial
from typing import Any

import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

from wgan_fast import CriticStep, critic_loss, gradient_penalty, optim
from wgan_fast.distances import dual_estimate, earth_movers_distance
from wgan_fast.train.models import MLPCritic
from wgan_fast.train.toys import Distribution, make_toy

from .claim import BLUE, COLOURS, LINES, MARKERS, RED, Finding, Number, axes

BOUNDS = (0.1, 0.01, 0.001)
DATA = {"8gaussians": "8 Gaussians", "25gaussians": "25 Gaussians", "swissroll": "Swiss roll"}
BATCH = 256
DEEP, SHALLOW = 12, 3  # hidden layers


def batches(data: Distribution) -> tuple[Tensor, Tensor]:
    """Real samples (256, 2), and others with noise."""
    real, fake = (data.sample(BATCH, torch.default_generator) for _ in range(2))
    return real, fake + torch.randn_like(fake)


def train(data: Distribution, clip: float | None, steps: int, width: int, depth: int) -> MLPCritic:
    """A critic, with weights clipped, or else with the gradient penalty."""
    critic = MLPCritic(data.dimension, width, depth)
    if clip is None:
        adam = torch.optim.Adam(critic.parameters(), 1e-3, (0.5, 0.9))
        step = CriticStep(critic, adam, penalty=partial(gradient_penalty, weight=10.0))
    else:
        for parameter in critic.parameters():
            nn.init.uniform_(parameter, -clip, clip)
        step = CriticStep(critic, optim.RMSprop(critic.parameters(), clip / 20, clip=clip), penalty=None)
    for _ in range(steps):
        step(*batches(data))
    return critic


def gradient_norms(critic: MLPCritic, data: Distribution) -> Tensor:
    """The norm of the loss's gradient with respect to the activations of each hidden layer, from the last to the first,
    and with respect to the input.
    """
    samples = torch.cat(batches(data)).double().requires_grad_()  # float32 would round a vanishing one to 0
    activations = [samples]
    for layer in critic.double().layers:
        activations.append(layer(activations[-1]))
    hidden = [out for layer, out in zip(critic.layers, activations[1:], strict=True) if isinstance(layer, nn.ReLU)]
    loss = critic_loss(*activations[-1].squeeze(1).split(BATCH))
    return torch.stack([gradient.norm() for gradient in reversed(torch.autograd.grad(loss, [samples, *hidden]))])


def slope(norms: Tensor) -> float:
    """Of log10 of the norms, per layer."""
    layers = torch.arange(len(norms), dtype=norms.dtype)
    layers = layers - layers.mean()
    return (layers @ norms.log10() / (layers @ layers)).item()


def weights_of(critic: MLPCritic) -> Tensor:
    """All weights; not the biases."""
    return torch.cat([layer.weight.detach().flatten() for layer in critic.layers if isinstance(layer, nn.Linear)])


def at_bound(critic: MLPCritic, bound: float) -> float:
    """The share of the weights that lie within 1 % of the bound."""
    return (weights_of(critic).abs() >= 0.99 * bound).double().mean().item()


def share_of_distance(critic: MLPCritic, data: Distribution) -> float:
    """What a critic says of the distance, once it is divided by its largest slope, over the exact distance: at most 1,
    and 1 for the critic that solves the dual.
    """
    real, fake = (torch.cat(several).double() for several in zip(*(batches(data) for _ in range(4)), strict=True))
    t = torch.rand(len(real), 1, dtype=torch.float64)
    points = torch.cat([real, fake, t * real + (1 - t) * fake]).requires_grad_()
    (gradient,) = torch.autograd.grad(critic.double()(points).sum(), points)
    reached = dual_estimate(critic, real, fake) / gradient.norm(dim=1).max()
    return (reached / earth_movers_distance(real, fake)).item()


def run(seed: int, *, small: bool = False) -> Finding:
    """Trains deep critics for the gradients and the weights, shallow ones for the level sets."""
    roll = make_toy("swissroll")
    steps, width = (60, 16) if small else (600, 32)
    deep: dict[float | None, MLPCritic] = {clip: train(roll, clip, steps, width, DEEP) for clip in (*BOUNDS, None)}
    norms = {clip: gradient_norms(critic, roll) for clip, critic in deep.items()}
    slopes = {clip: slope(of_layers) for clip, of_layers in norms.items()}

    steps, width = (60, 32) if small else (1000, 128)
    data = {name: make_toy(name) for name in DATA}
    clipped = {name: train(one, BOUNDS[1], steps, width, SHALLOW) for name, one in data.items()}
    penalised = {name: train(one, None, steps, width, SHALLOW) for name, one in data.items()}
    shares = [share_of_distance(critics["swissroll"], data["swissroll"]) for critics in (clipped, penalised)]

    of_clipped, of_penalised = clipped["8gaussians"], penalised["8gaussians"]
    pushed = at_bound(of_clipped, BOUNDS[1])
    spread = at_bound(of_penalised, weights_of(of_penalised).abs().max().item())
    steep = min(abs(slopes[bound]) for bound in BOUNDS[1:])
    numbers = [
        Number("c = 0.01: share of the weights within 1 % of the bound, 1 % at the start", pushed, 0.1, 0, ">="),
        Number("penalty: share of the weights within 1 % of the largest one", spread, 0.01, 0, "<="),
        Number("c = 0.01 and 0.001: |slope| of log10 of the gradient, per layer, at least", steep, 0.5, 0, ">="),
        Number("penalty: |slope| of log10 of the gradient, per layer", abs(slopes[None]), 0, 0.1),
        Number(
            "Swiss roll, penalty: share of W that the critic reaches, for its largest slope", shares[1], 0.6, 0, ">="
        ),
        Number("the same with clipping, in units of the former", shares[0] / shares[1], 0.9, 0, "<="),
    ]

    figure, panels = axes(4, 2, width=3.9, height=3.7)
    gradients, weights = panels[0], panels[4]
    for (clip, of_layers), colour, line, marker in zip(norms.items(), COLOURS, LINES, MARKERS, strict=False):
        label = f"clipping, c = {clip}" if clip else "gradient penalty"
        gradients.semilogy(range(len(of_layers)), of_layers, color=colour, linestyle=line, marker=marker, label=label)
    gradients.set(
        title="Gradients by depth, Swiss roll",
        xlabel="layers back from the output",
        ylabel="norm of the loss's gradient",
    )
    gradients.legend(fontsize=8)
    for critic, colour, label, hatch in (
        (of_clipped, RED, "clipping, c = 0.01", None),
        (of_penalised, BLUE, "gradient penalty", "//"),
    ):
        scaled = weights_of(critic) / weights_of(critic).abs().max()
        look: Any = {"histtype": "stepfilled", "alpha": 0.5, "color": colour, "hatch": hatch}
        weights.hist(scaled.tolist(), bins=41, range=(-1, 1), density=True, label=label, **look)
    weights.set(title="Weights, 8 Gaussians", xlabel="weight, in units of the largest", ylabel="density", yscale="log")
    weights.legend(fontsize=8)
    for row, (critics, title) in enumerate(((clipped, "clipping, c = 0.01"), (penalised, "gradient penalty"))):
        for panel, (name, words) in zip(panels[4 * row + 1 : 4 * row + 4], DATA.items(), strict=True):
            _level_sets(panel, critics[name], data[name])
            panel.set(title=f"{words}, {title}", xlabel="$x_1$", ylabel="$x_2$", aspect="equal")
    return Finding(figure, numbers)


@torch.no_grad()
def _level_sets(panel: Axes, critic: MLPCritic, data: Distribution) -> None:
    ticks = torch.linspace(-2, 2, 120)
    points = torch.cartesian_prod(ticks, ticks)
    scores = critic.double()(points.double()).reshape(120, 120).T
    panel.contourf(ticks, ticks, scores, levels=14, cmap="Greys", alpha=0.5)
    panel.contour(ticks, ticks, scores, levels=14, colors="black", linewidths=0.5)
    real = data.sample(400, torch.default_generator)
    panel.scatter(real[:, 0], real[:, 1], s=4, color=RED, linewidths=0)
