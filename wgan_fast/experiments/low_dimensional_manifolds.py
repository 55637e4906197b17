"""Two distributions on disjoint compact manifolds of low dimension have a perfect discriminator, which is flat on both;
and the nearer a discriminator is to it, the less useful is the generator's gradient: that of mean log(1 - D(G(z))) goes
to 0, and that of the alternative, -mean log D(G(z)), grows here. Source: Arjovsky and Bottou, "Towards Principled
Methods for Training Generative Adversarial Networks", 2017, theorems 2.1 and 2.2 (perfect discriminators), 2.4 and
corollary 2.1 (vanishing), 2.5 (the alternative), figures 2 and 3.

Here the manifolds are curves in 10 dimensions: a random one, and three others with slightly to strongly perturbed
weights, generators that are more or less right. As in the paper's figures each is fixed while discriminators are
trained from scratch: eight for each generator, each on its own samples. Theorem 2.4 bounds the gradient of log(1 - D)
by M eps / (1 - eps), where eps bounds |D - D*| + |grad D - grad D*|, and M^2 is the mean square norm of the generator's
Jacobian. Both are computed at the held-out samples, which is all that the bound needs there. That eps goes to 0 is what
training must show: on separable data, gradient descent lowers the logistic loss as 1 / updates (Soudry et al., "The
Implicit Bias of Gradient Descent on Separable Data", 2018), Adam faster. A perfect discriminator exists however close
two disjoint compact manifolds are; how long it takes to find is another matter, so the gap is swept, measured as the
least distance of 512 samples of either curve. A closer curve takes more updates until it is told apart. Accuracy 1 up
to 0.001 allows one of the 1024 samples of a discriminator to be wrong.

The variance of the alternative's gradient over discriminators grows with its norm, as in figure 3 of the paper. That
alone says little: relative to the norm the deviation falls here, because these discriminators agree on the direction. A
gradient dominated by noise is not observed. (Theorem 2.6 on discriminators with independent errors is executed in
alternative_gradient.)
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wgan_fast.train.view.colours import BLACK, BLUE, RED

from .claim import COLOURS, LINES, MARKERS, Finding, Number, Story, axes

STORY = Story(
    "Thin distributions that do not touch can be told apart perfectly, and then the generator learns nothing.",
    (
        r"\|D - D^{*}\| < \varepsilon \;\Rightarrow\; \|\nabla_\theta \mathrm{E}_z \log(1 - D(g_\theta(z)))\|"
        r" \leq M \frac{\varepsilon}{1 - \varepsilon}",
    ),
    "A discriminator that stays imperfect on fresh samples of disjoint curves, however long it is trained; a gradient "
    "of log(1 - D) that does not vanish when it is perfect.",
    ("principled",),
    "A perfect discriminator exists for every gap, but training finds it later, the closer the curves are. The spread "
    "of the alternative's gradient grows more slowly than the gradient itself: noise does not dominate it here.",
)
DIMENSION, DISCRIMINATORS, BATCH, HELD_OUT = 10, 8, 64, 512
#: The perturbations of the generators' weights, in their standard deviations.
OFFS = (0.5, 0.2, 0.05)


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


def jacobian_norm(generator: Curve, latent: Tensor) -> Tensor:
    """M: the root of the mean square of the norm of the Jacobian by the weights, over the latent vectors (B, 1)."""
    weights = {name: weight.detach() for name, weight in generator.named_parameters()}

    def point(weights: dict[str, Tensor], z: Tensor) -> Tensor:
        one: Tensor = torch.func.functional_call(generator, weights, z)
        return one

    parts = torch.func.vmap(torch.func.jacrev(point), in_dims=(None, 0))(weights, latent)
    jacobian = torch.cat([part.flatten(2) for part in parts.values()], 2)
    return torch.linalg.matrix_norm(jacobian, 2).square().mean().sqrt()


def distance_to_perfect(discriminators: Discriminators, points: Tensor) -> Tensor:
    """eps (8,): the largest D + |grad D| at the generated points (B, 10); the perfect D* and its slope are 0 there."""
    points = points.detach().expand(DISCRIMINATORS, -1, -1).clone().requires_grad_()
    d = discriminators(points).sigmoid()
    slope = torch.autograd.grad(d.sum(), points)[0].norm(dim=2)
    return (d.detach() + slope).amax(1)


def measure(discriminators: Discriminators, real: Tensor, generator: Curve, latent: Tensor, m: Tensor) -> list[Tensor]:
    """On held-out samples: the worst accuracy, the mean norm of either gradient, the variance of the alternative's, and
    the largest norm of log(1 - D)'s gradient over the theorem's bound; 0 where it has none, for eps of 1 and more.
    """
    points = generator(latent)
    logits = discriminators(points.expand(DISCRIMINATORS, -1, -1))
    saturating = gradients(-F.softplus(logits).mean(1), generator)  # mean log(1 - D)
    alternative = gradients(F.softplus(-logits).mean(1), generator)  # -mean log D
    with torch.no_grad():
        right = torch.cat([discriminators(real.expand(DISCRIMINATORS, -1, -1)) > 0, logits < 0], dim=1)
    accuracy = right.float().mean(1).min()
    eps = distance_to_perfect(discriminators, points)
    of_bound = torch.where(eps < 1, saturating.norm(dim=1) * (1 - eps) / (m * eps), 0.0).amax()
    norms = saturating.norm(dim=1).mean(), alternative.norm(dim=1).mean()
    return [accuracy, *norms, alternative.var(dim=0).sum(), of_bound]


@torch.no_grad()
def batch(curve: Curve) -> Tensor:
    """Fresh samples (8, 64, 10), different for each discriminator."""
    return curve(torch.rand(DISCRIMINATORS, BATCH, 1) * 2 - 1)


class Course(NamedTuple):
    """The measurements of one generator, a value for each of the updates."""

    gap: float  #: the smallest distance between held-out points of both curves
    curve: Tensor  #: points of the generator's curve
    updates: list[int]
    accuracy: Tensor
    saturating: Tensor
    alternative: Tensor
    variance: Tensor
    of_bound: Tensor

    @property
    def perfect(self) -> int | None:
        """The first measurement at which all discriminators are right everywhere."""
        right = (self.accuracy == 1).nonzero()
        return int(right[0]) if len(right) else None


def follow(target: Curve, off: float, steps: int) -> Course:
    """Trains discriminators between the target and a perturbed copy."""
    generator, discriminators = Curve(), Discriminators()
    with torch.no_grad():
        for parameter, other in zip(generator.parameters(), target.parameters(), strict=True):
            parameter.mul_(off).add_(other)
        latent, real = torch.rand(HELD_OUT, 1) * 2 - 1, target(torch.rand(HELD_OUT, 1) * 2 - 1)
        gap = torch.cdist(real, generator(latent)).min().item()
        m = jacobian_norm(generator, latent)
    optimizer = torch.optim.Adam(discriminators.parameters(), lr=1e-3, fused=True)
    updates = sorted({round(steps ** (i / 30)) for i in range(31)})
    rows = []
    for update in range(1, steps + 1):
        if update in updates:  # before the step, so that the first discriminators are untrained
            rows.append(measure(discriminators, real, generator, latent, m))
        optimizer.zero_grad()
        losses = F.softplus(-discriminators(batch(target))) + F.softplus(discriminators(batch(generator)))
        losses.mean(1).sum().backward()  # the discriminators are independent, so each gets its own gradient
        optimizer.step()
    with torch.no_grad():
        curve = generator(torch.linspace(-1, 1, 400)[:, None])
    return Course(gap, curve, updates, *torch.tensor(rows).T)


def exponent(course: Course) -> float:
    """The exponent of the power of the updates by which log(1 - D)'s gradient goes, over the last tenfold of them."""
    updates = torch.tensor(course.updates, dtype=torch.float64)
    last = updates >= updates[-1] / 10
    x, y = updates[last].log(), course.saturating[last].double().log()
    x = x - x.mean()
    return (x @ y / (x @ x)).item()


def run(seed: int, *, small: bool = False) -> Finding:
    """Trains the discriminators for each gap, and measures the generator's gradients during training."""
    steps = 300 if small else 2500
    torch.manual_seed(seed)
    target = Curve()
    courses = {off: follow(target, off, steps) for off in OFFS}
    course = courses[0.2]
    relative = course.variance.sqrt() / course.alternative
    by_gap = sorted(courses.values(), key=lambda one: one.gap)
    narrowest, widest = by_gap[0], by_gap[-1]
    first = [one.updates[-1 if one.perfect is None else one.perfect] for one in (narrowest, widest)]
    left_over = [(one.saturating[-1] / one.saturating.max()).item() for one in (narrowest, widest)]
    numbers = [
        Number("accuracy on fresh samples, the worst of 8", course.accuracy[-1].item(), 1, 0.001, ">="),
        # No fall has the exponent 0, gradient descent on separable data -1; halfway tells them apart.
        Number("log(1 - D): exponent of the gradient norm's fall, last tenfold of updates", exponent(course), -0.5, 0,
               "<="),
        Number("log(1 - D): gradient norm over theorem 2.4's bound, largest", max(
            one.of_bound.max().item() for one in courses.values()), 1, 1e-4, "<=", of_code=True),
        Number("-log D: gradient norm, last / untrained", (course.alternative[-1] / course.alternative[0]).item(), 1,
               0, ">="),
        Number("-log D: deviation / norm, last / untrained: no noise", (relative[-1] / relative[0]).item(), 1, 0, "<="),
        Number("widest gap: accuracy, the worst of 8", widest.accuracy[-1].item(), 1, 0.001, ">="),
        Number("narrowest gap: log(1 - D): gradient norm, last / its largest, more than at the widest", left_over[0],
               left_over[1], 0, ">="),
        Number("updates until perfect: narrowest gap over widest", first[0] / first[1], 1, 0, ">="),
    ]  # fmt: skip

    figures, (curves, left, middle, right) = axes(4)
    with torch.no_grad():
        points = target(torch.linspace(-1, 1, 400)[:, None])
    curves.plot(points[:, 0], points[:, 1], color=BLACK, label="real")
    styles: list[dict[str, Any]] = [{"color": c, "linestyle": line} for c, line in zip(COLOURS, LINES, strict=False)]
    for off, style, marker in zip(OFFS, styles, MARKERS, strict=False):
        one = courses[off]
        curves.plot(one.curve[:, 0], one.curve[:, 1], **style, label=f"gap {one.gap:.2f}")
        marks = {"marker": marker, "markersize": 3}
        left.semilogx(one.updates, one.accuracy, **style, **marks, label=f"gap {one.gap:.2f}")
        middle.loglog(one.updates, one.saturating, **style, **marks, label=f"gap {one.gap:.2f}")
    right.loglog(course.updates, course.alternative, color=BLUE, marker="o", markersize=3, label="norm, mean of 8")
    right.loglog(course.updates, course.variance.sqrt(), color=RED, linestyle="--", marker="s", markersize=3,
                 label="deviation over the 8")  # fmt: skip
    curves.set(title="The curves, two of 10 coordinates", xlabel="$x_1$", ylabel="$x_2$")
    left.set(title="Told apart, sooner or later", ylabel="accuracy, the worst of 8")
    middle.set(title="log(1 - D): the gradient vanishes", ylabel="norm, mean of 8")
    right.set(title=f"-log D: it grows (gap {course.gap:.2f})", ylabel="generator's gradient")
    for panel in (left, middle, right):
        panel.set_xlabel("updates of the discriminator")
    for panel in (curves, left, middle, right):
        panel.grid(alpha=0.3)
        panel.legend(fontsize=9)
    return Finding(figures, numbers)
