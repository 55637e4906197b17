"""Weight clipping harms a critic in two ways: weights are pushed to the bounds, which makes the critic too simple a
function, and its gradients explode or vanish exponentially with depth unless the bound is tuned. The gradient penalty
does neither. In its formula x^ lies between a real and a fake sample, and lambda is the weight. Source: Gulrajani et
al., "Improved Training of Wasserstein GANs", 2017, section 3, figure 1.

As in the source, the generator is fixed: its samples are real ones plus standard normal noise. The penalty has weight
1. Critics start with PyTorch's default weights, or, with clipping, with weights uniform within the bounds. So the first
clipping moves none of them onto a bound, and 1 % of them lie within 1 % of it.

A critic's capacity is measured by the share of W that it sees. Divided by its Lipschitz constant, a critic's estimate
is at most the exact W, which only an optimal critic reaches. The steepest slope at any sample stands for that constant;
it is no larger, so the shares are rather too high, for either critic. For the gradients, critics of 12 hidden layers
are trained on the Swiss roll, and a line is fitted to log10 of the norm of the loss's gradient with respect to each
layer's activations, over the layers counted back from the output.

Where the gradient vanishes, the weights hardly move from their initial values. In a layer of 64 units they have the
mean square c^2 / 3, and half of the ReLUs pass a gradient, so its norm changes by the factor c sqrt(64 / 6). The slope
of untrained critics is less by 0.035: about 0.025 because the input has two coordinates only, the rest because the mean
of a logarithm is below the logarithm of the mean. Its deviation is 0.018 over 32 seeds that no test uses: 0.1 is
allowed. Where the gradient does not vanish, weights go to the bounds and may agree in sign; the largest factor is then
64 c, so c = 0.1 may explode. 0.2 per layer is 250-fold over twelve.
"""

import math
from functools import partial

import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

from wgan_fast import CriticStep, critic_loss, gradient_penalty, optim
from wgan_fast.distances import dual_estimate, earth_movers_distance
from wgan_fast.train.data import Distribution, make_toy
from wgan_fast.train.networks import MLPCritic
from wgan_fast.train.view.colours import BLUE, RED

from .claim import COLOURS, LINES, MARKERS, Finding, Number, Story, axes

STORY = Story(
    "Clipping weights makes a critic too simple, and deep critics explode or fade; the penalty does neither.",
    (r"w \leftarrow \min(\max(w, -c), c)", r"\lambda \, \mathrm{E} (\|\nabla f(\hat{x})\| - 1)^2"),
    "Clipped weights that stay away from the bounds; a bound that keeps gradients level in a deep critic "
    "without tuning.",
    ("wgan-gp",),
    "The bound can be tuned for one depth and width; the numbers are for these.",
)

DATA = {"8gaussians": "8 Gaussians", "25gaussians": "25 Gaussians", "swissroll": "Swiss roll"}
BOUNDS = (0.1, 0.01, 0.001)
BOUND = 0.01  # as in WGAN
BATCH = 256
PENALTY = partial(gradient_penalty, weight=1.0)


def batches(data: Distribution, count: int = BATCH) -> tuple[Tensor, Tensor]:
    """Real samples (count, 2), and other real samples plus noise."""
    real, fake = (data.sample(count, torch.default_generator) for _ in range(2))
    return real, fake + torch.randn_like(fake)


def train(data: Distribution, clip: float | None, steps: int, width: int, depth: int) -> MLPCritic:
    """A critic trained with weight clipping, or, if ``clip`` is None, with the gradient penalty."""
    critic = MLPCritic(data.dimension, width, depth)
    if clip is None:
        optimizer: torch.optim.Optimizer = torch.optim.Adam(critic.parameters(), 1e-3, (0.5, 0.9))
    else:
        for parameter in critic.parameters():
            nn.init.uniform_(parameter, -clip, clip)
        optimizer = optim.RMSprop(critic.parameters(), clip / 20, clip=clip)
    step = CriticStep(critic, optimizer, penalty=PENALTY if clip is None else None)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    for _ in range(steps):
        step(*batches(data))
        schedule.step()
    return critic


def weights(critic: MLPCritic) -> Tensor:
    """All weights and biases, as one vector."""
    return torch.cat([parameter.detach().flatten() for parameter in critic.parameters()])


def at_bound(critic: MLPCritic) -> float:
    """The share of the weights and biases that lie within 1 % of the largest."""
    sizes = weights(critic).abs()
    return (sizes >= 0.99 * sizes.max()).double().mean().item()


def share_of_w(critic: MLPCritic, data: Distribution, count: int) -> float:
    """The share of W that the critic sees: its estimate divided by its steepest slope at the samples and by W."""
    real, fake = batches(data, count)
    samples = torch.cat([real, fake]).requires_grad_()
    steepest = torch.autograd.grad(critic(samples).sum(), samples)[0].norm(dim=1).max()
    exact = earth_movers_distance(real.double(), fake.double())
    return (dual_estimate(critic, real, fake) / steepest / exact).item()


def gradient_norms(critic: MLPCritic, data: Distribution) -> Tensor:
    """The norm of the loss's gradient with respect to the activations of each hidden layer, from the last to the first,
    and with respect to the input.
    """
    samples = torch.cat(batches(data)).requires_grad_()
    activations = [samples]
    for layer in critic.layers:
        activations.append(layer(activations[-1]))
    hidden = [out for layer, out in zip(critic.layers, activations[1:], strict=True) if isinstance(layer, nn.ReLU)]
    loss = critic_loss(*activations[-1].split(BATCH))
    gradients = torch.autograd.grad(loss, [samples, *hidden])
    return torch.stack([gradient.double().norm() for gradient in reversed(gradients)])


def slope(norms: Tensor) -> float:
    """The slope of log10 of the norms, per layer."""
    layers = torch.arange(len(norms), dtype=norms.dtype)
    layers = layers - layers.mean()
    return (layers @ norms.log10() / (layers @ layers)).item()


def initial(clip: float) -> float:
    """The slope of a critic of width 64 before its training."""
    return math.log10(clip * math.sqrt(64 / 6))


def draw_level_sets(panel: Axes, critic: MLPCritic, data: Distribution) -> None:
    """Draws 15 level sets from the lowest to the highest score, and real samples."""
    line = torch.linspace(-2.2, 2.2, 111)
    with torch.no_grad():
        scores = critic(torch.cartesian_prod(line, line)).reshape(111, 111).T
    panel.contour(line, line, scores, levels=15, colors="grey", linewidths=0.8, linestyles="solid")
    real = data.sample(500, torch.default_generator)
    panel.plot(real[:, 0], real[:, 1], ".", color=RED, markersize=2)
    panel.set(xlabel="$x_1$", ylabel="$x_2$", aspect="equal")


def run(seed: int, *, small: bool = False) -> Finding:
    """Trains critics with clipping and with the penalty, and compares level sets, weights and gradients."""
    torch.manual_seed(seed)
    steps, deep_steps, count = (40, 20, 200) if small else (1000, 200, 1000)
    data = {name: make_toy(name) for name in DATA}
    clipped, penalised = (
        {name: train(one, clip, steps, width=128, depth=3) for name, one in data.items()} for clip in (BOUND, None)
    )
    shares = [{name: share_of_w(each[name], one, count) for name, one in data.items()} for each in (clipped, penalised)]
    mean_clipped, mean_penalised = (sum(each.values()) / len(each) for each in shares)
    roll = data["swissroll"]
    norms = {clip: gradient_norms(train(roll, clip, deep_steps, width=64, depth=12), roll) for clip in (*BOUNDS, None)}
    slopes = {clip: slope(each) for clip, each in norms.items()}
    numbers = [
        Number("clipping: share of weights at a bound, least of 3", min(map(at_bound, clipped.values())), 0.2, 0, ">="),
        Number("penalty: share near the largest, most of 3", max(map(at_bound, penalised.values())), 0.01, 0, "<="),
        Number("penalty: share of W seen, mean of 3, more than clipping", mean_penalised, mean_clipped, 0, ">="),
        Number("c = 0.1 explodes: log10 of the gradient, per layer", slopes[0.1], 0.2, 0, ">="),
        Number("c = 0.01 vanishes: log10 of the gradient, per layer", slopes[0.01], initial(0.01), 0.1),
        Number("c = 0.001 vanishes: log10 of the gradient, per layer", slopes[0.001], initial(0.001), 0.1),
        Number("penalty: log10 of the gradient, per layer", slopes[None], 0, 0.1),
    ]

    figures, panels = axes(4, 2, width=3.5, height=3.6)
    for name, critics, share, row in zip(
        (f"clipping, c = {BOUND}", "penalty"), (clipped, penalised), shares, (panels[:3], panels[4:7]), strict=True
    ):
        for key, panel in zip(DATA, row, strict=True):
            draw_level_sets(panel, critics[key], data[key])
            panel.set_title(f"{DATA[key]}, {name}\nsees {share[key]:.0%} of W")
    histogram, gradients = panels[3], panels[7]
    for name, critics, colour, line in (("clipping", clipped, RED, "--"), ("penalty", penalised, BLUE, "-")):
        sizes = weights(critics["swissroll"])
        histogram.hist(
            sizes / sizes.abs().max(),
            bins=41,
            range=(-1, 1),
            weights=torch.full_like(sizes, 1 / len(sizes)),
            histtype="step",
            color=colour,
            linestyle=line,
            label=name,
        )
    histogram.set(title="Weights, Swiss roll", xlabel="weight / largest weight", ylabel="share of weights")
    histogram.margins(y=0.35)  # for the legend
    styles = zip(norms.items(), (*COLOURS[1:4], BLUE), (*LINES[1:], "-"), MARKERS, strict=False)
    for (clip, each), colour, style, marker in styles:
        label = "penalty" if clip is None else f"c = {clip}"
        gradients.semilogy(range(len(each)), each, style, color=colour, marker=marker, markersize=3, label=label)
    gradients.set_xticks(range(0, 13, 2))
    gradients.set(
        title="12 layers, Swiss roll", xlabel="layers back from the last hidden one", ylabel="norm of the gradient"
    )
    for panel in (histogram, gradients):
        panel.grid(alpha=0.3)
        panel.legend(fontsize=9)
    return Finding(figures, numbers)
