"""Two distributions on disjoint low-dimensional manifolds have a perfect discriminator, however close they are; and the
better the discriminator is trained, the less useful is the generator's gradient: that of mean log(1 - D(G(z))) goes to
0, and that of the alternative, -mean log D(G(z)), grows and varies more and more between discriminators. Source:
Arjovsky and Bottou, "Towards Principled Methods for Training Generative Adversarial Networks", 2017, theorems 2.1 and
2.2 (perfect discriminators), 2.4 and corollary 2.1 (vanishing), 2.5 and 2.6 (the alternative), figures 2 and 3.

Here the manifolds are two curves in 10 dimensions: a random one, and the same with slightly perturbed weights, a
generator that is nearly right. As in the paper's figures it is fixed while discriminators are trained from scratch:
eight, each on its own samples, so that the variance over discriminators can be measured. For a discriminator whose
values and slopes have independent Gaussian errors, theorem 2.6 proves an infinite variance, which no finite sample
shows. So the growth of figure 3 is measured instead. The gradient grows even faster: relative to its square the
variance falls, because these discriminators agree on the direction. A gradient dominated by noise is not observed here.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wgan_fast.train.view.colours import BLACK, BLUE, RED

from .claim import Finding, Number, axes

DIMENSION, DISCRIMINATORS, BATCH, HELD_OUT = 10, 8, 64, 512
#: The perturbation of the generator's weights, in their standard deviations.
OFF = 0.2


class Curve(nn.Module):
    """A random smooth map from the interval [-1, 1] into 10 dimensions, with coordinates of about unit size."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(1, 64), nn.Tanh(), nn.Linear(64, DIMENSION))
        for parameter, std in zip(self.parameters(), (2.0, 2.0, 64**-0.5, 0.1), strict=True):
            nn.init.normal_(parameter, std=std)

    def forward(self, latent: Tensor) -> Tensor:
        """From (..., 1) to points (..., 10)."""
        points: Tensor = self.layers(latent)
        return points


class Discriminators(nn.Module):
    """Independent networks 10-64-64-1, one for each row of the first dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ParameterList()
        for inputs, outputs in ((DIMENSION, 64), (64, 64), (64, 1)):
            bound = inputs**-0.5  # as PyTorch initialises a linear layer
            for rows in (inputs, 1):
                self.parts.append(torch.empty(DISCRIMINATORS, rows, outputs).uniform_(-bound, bound))

    def forward(self, points: Tensor) -> Tensor:
        """From points (8, B, 10) to the logits of D (8, B)."""
        for i in range(0, len(self.parts), 2):
            points = torch.baddbmm(self.parts[i + 1], F.leaky_relu(points, 0.2) if i else points, self.parts[i])
        return points.squeeze(2)


def gradients(losses: Tensor, generator: nn.Module) -> Tensor:
    """The generator's gradient of each of the losses (8,), as rows (8, parameters)."""
    rows = [torch.autograd.grad(loss, list(generator.parameters()), retain_graph=True) for loss in losses]
    return torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])


def measure(discriminators: Discriminators, real: Tensor, generator: Curve, latent: Tensor) -> list[Tensor]:
    """On held-out samples: the worst accuracy, the mean norm of either gradient, the variance of the alternative's."""
    logits = discriminators(generator(latent).expand(DISCRIMINATORS, -1, -1))
    saturating = gradients(-F.softplus(logits).mean(1), generator)  # mean log(1 - D)
    alternative = gradients(F.softplus(-logits).mean(1), generator)  # -mean log D
    with torch.no_grad():
        right = torch.cat([discriminators(real.expand(DISCRIMINATORS, -1, -1)) > 0, logits < 0], dim=1)
    accuracy = right.float().mean(1).min()
    return [accuracy, saturating.norm(dim=1).mean(), alternative.norm(dim=1).mean(), alternative.var(dim=0).sum()]


@torch.no_grad()
def batch(curve: Curve) -> Tensor:
    """Fresh samples (8, 64, 10), different for each discriminator."""
    return curve(torch.rand(DISCRIMINATORS, BATCH, 1) * 2 - 1)


def run(seed: int, *, small: bool = False) -> Finding:
    """Trains the discriminators, and measures the generator's gradients during training."""
    steps = 300 if small else 4000
    torch.manual_seed(seed)
    target, generator, discriminators = Curve(), Curve(), Discriminators()
    with torch.no_grad():
        for parameter, other in zip(generator.parameters(), target.parameters(), strict=True):
            parameter.mul_(OFF).add_(other)
        latent, real = torch.rand(HELD_OUT, 1) * 2 - 1, target(torch.rand(HELD_OUT, 1) * 2 - 1)
        gap = torch.cdist(real, generator(latent)).min().item()
    optimizer = torch.optim.Adam(discriminators.parameters(), lr=1e-3, fused=True)
    updates = sorted({round(steps ** (i / 30)) for i in range(31)})
    rows = []
    for update in range(1, steps + 1):
        if update in updates:  # before the step, so that the first discriminators are untrained
            rows.append(measure(discriminators, real, generator, latent))
        optimizer.zero_grad()
        losses = F.softplus(-discriminators(batch(target))) + F.softplus(discriminators(batch(generator)))
        losses.mean(1).sum().backward()  # the discriminators are independent, so each gets its own gradient
        optimizer.step()
    accuracy, saturating, alternative, variance = torch.tensor(rows).T
    perfect = int((accuracy == 1).int().argmax())  # the first time that all are right everywhere
    numbers = [
        Number("accuracy on fresh samples, the worst of 8", accuracy[-1].item(), 1, 0.001, ">="),
        Number("log(1 - D): gradient norm, last / untrained", (saturating[-1] / saturating[0]).item(), 0, 0.01),
        Number("-log D: gradient norm, last / untrained", (alternative[-1] / alternative[0]).item(), 10, 0, ">="),
        Number("-log D: variance, last / untrained", (variance[-1] / variance[0]).item(), 100, 0, ">="),
        Number("-log D: variance, last / first perfect", (variance[-1] / variance[perfect]).item(), 10, 0, ">="),
    ]

    figure, (left, middle, right) = axes(3)
    red = {"color": RED, "linestyle": "--", "marker": "s", "markersize": 3}
    blue = {"color": BLUE, "marker": "o", "markersize": 3}
    left.semilogx(updates, accuracy, **blue)
    left.set(title=f"Curves {gap:.2f} apart are told apart", ylabel="accuracy, the worst of 8")
    middle.loglog(updates, saturating, label="log(1 - D) vanishes", **blue)
    middle.loglog(updates, alternative, label="-log D grows", **red)
    middle.set(title="What the generator learns from", ylabel="norm of its gradient, mean of 8")
    right.loglog(updates, variance, label="-log D", **red)
    right.set(title="Its spread over discriminators grows", ylabel="variance of the gradient over 8")
    for panel in (left, middle, right):
        panel.axvline(updates[perfect], color=BLACK, linestyle=":", label="accuracy 1")
        panel.set_xlabel("updates of the discriminator")
        panel.grid(alpha=0.3)
        panel.legend(fontsize=9)
    return Finding(figure, numbers)
