"""The generator's gradient of the Wasserstein distance is that of the optimal critic's scores: grad W(P_r, P_theta) =
-E_z[grad f(g_theta(z))]. So a generator trained with the critic minimises the distance itself. Source: Arjovsky,
Chintala and Bottou, "Wasserstein GAN", 2017, theorem 3.

Everything has a closed form here: P_r = N(0, I) in the plane and g_m(z) = z + m with ||m|| = 2. So W = ||m||, its
gradient is m / ||m||, and the optimal critic is f(x) = -<x, m> / ||m||. The right-hand side is computed with that
critic and with a trained one; the left-hand side also without any critic, by finite differences of the exact distance
of samples.

The same for a generator with weights, a network 2-16-2, between 64 samples and 64 real points: W is differentiated with
respect to all weights by autograd through the exact plan, and the right-hand side by the critic f(x) = max_j u_j -
|x - y_j|, made of the dual potentials u of the real points y. Its formula holds for any x, so it is differentiated at
g(z). With random potentials the two gradients differ.

A trained critic is optimal for its penalty, which is soft: a critic of slope s scores ||m|| s - weight (s - 1)^2, where
weight is the lambda of the figure, and so settles at s = 1 + ||m|| / (2 weight). This biases the gradient's length, by
10 % for the usual weight of 10, but not its direction. The claim is tested with a weight of 100, where the bias is 1 %.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from wgan_fast import CriticStep, generator_loss, gradient_penalty
from wgan_fast.distances import earth_movers_distance
from wgan_fast.train.networks import MLPCritic, MLPGenerator
from wgan_fast.train.view.colours import BLACK, BLUE, GREEN, RED

from .claim import Finding, Number, Story, axes

STORY = Story(
    "The generator that descends the critic's score descends the distance itself.",
    (r"\nabla_\theta W(P_r, P_\theta) = -\mathrm{E}_z \left[ \nabla_\theta f^{*}(g_\theta(z)) \right]",),
    "A gradient by the optimal critic that differs from that of the exact distance by more than the arithmetic.",
    ("wgan",),
    "It holds where both sides exist: where two optimal critics give different right-hand sides, W has a kink. A "
    "trained critic is optimal for its penalty, so its gradient is longer by W / (2 weight).",
)

SHIFT = torch.tensor([1.2, 1.6])  # m, of length 2
OPTIMUM = SHIFT / SHIFT.norm()  # the gradient of ||m||, too
BATCH = 256


def gradient(critic: Callable[[Tensor], Tensor], latent: Tensor) -> Tensor:
    """-E_z[grad_m f(z + m)], of shape (2,), over the latent vectors (B, 2)."""
    m = SHIFT.clone().requires_grad_()
    return torch.autograd.grad(generator_loss(critic(latent + m)), m)[0]


def train(weight: float, steps: int, latent: Tensor) -> tuple[MLPCritic, list[int], list[Tensor]]:
    """A trained critic, step counts, and the generator's gradient after each."""
    critic = MLPCritic(2, 64, 2)
    optimizer = torch.optim.Adam(critic.parameters(), lr=1e-3, betas=(0.5, 0.9))
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    step = CriticStep(critic, optimizer, penalty=partial(gradient_penalty, weight=weight))
    updates, gradients = [0], [gradient(critic, latent)]
    for i in range(1, steps + 1):
        step(torch.randn(BATCH, 2), torch.randn(BATCH, 2) + SHIFT)
        schedule.step()
        if i % (steps // 50) == 0:
            updates.append(i)
            gradients.append(gradient(critic, latent))
    return critic, updates, gradients


def finite_difference(count: int) -> Tensor:
    """The gradient of the exact distance between ``count`` samples of each distribution, by central differences."""
    real, latent = torch.randn(2, count, 2, dtype=torch.float64)
    h = 1e-3
    differences = [
        earth_movers_distance(real, latent + SHIFT + h * axis) - earth_movers_distance(real, latent + SHIFT - h * axis)
        for axis in torch.eye(2, dtype=torch.float64)
    ]
    return torch.stack(differences).float() / (2 * h)


def of_weights() -> tuple[Tensor, Tensor, Tensor]:
    """The gradients by all weights of a generator: of the exact W, of the optimal critic's scores, and of the scores of
    a critic with random potentials.

    Between finite sets many critics are optimal. That of one linear program has kinks at the fakes, where several real
    points attain its maximum; a mean of such critics, for masses that differ by a millionth, is optimal and
    smooth there.
    """
    generator = MLPGenerator(2, 2, 16, 1).double()
    parameters = list(generator.parameters())
    latent, real = torch.randn(2, 64, 2, dtype=torch.float64)
    real = real + SHIFT.double()
    distance = earth_movers_distance(real, generator(latent))
    left = torch.autograd.grad(distance, parameters, retain_graph=True)
    potentials = torch.zeros(64, dtype=torch.float64)
    for _ in range(20):
        weights = (1 + 1e-6 * torch.rand(2, 64, dtype=torch.float64)).requires_grad_()
        masses = weights / weights.sum(1, keepdim=True)
        one = earth_movers_distance(real, generator(latent).detach(), *masses)
        u = torch.autograd.grad(one, masses)[0][0]
        potentials += (u - u.mean()) / 20

    def right(u: Tensor) -> Tensor:
        points = generator(latent)
        scores = (u - (points[:, None] - real).norm(dim=2)).amax(1)
        return _flat(torch.autograd.grad(generator_loss(scores), parameters))

    return _flat(left), right(potentials), right(torch.randn(64, dtype=torch.float64))


def _flat(gradients: Sequence[Tensor]) -> Tensor:
    return torch.cat([gradient.flatten() for gradient in gradients])


def error(estimate: Tensor) -> float:
    """The relative error; the true gradient has length 1."""
    return (estimate - OPTIMUM).norm().item()


def run(seed: int, *, small: bool = False) -> Finding:
    """Compares the gradients from four sources with the closed form."""
    steps = 500 if small else 1500
    torch.manual_seed(seed)
    latent = torch.randn(8192, 2)
    analytic = gradient(lambda x: -x @ OPTIMUM, latent)
    critic, updates, strong = train(100.0, steps, latent)
    _, earlier, usual = train(10.0, steps // 2, latent)
    exact = finite_difference(1000 if small else 2000)
    biased = 1 + SHIFT.norm().item() / 20
    left, right, wrong = of_weights()
    numbers = [
        Number(
            "generator with weights: relative error of the optimal critic's gradient",
            ((right - left).norm() / left.norm()).item(),
            0,
            1e-9,
        ),
        # A million times what the arithmetic leaves of the right one.
        Number(
            "the same with random potentials: it is wrong", ((wrong - left).norm() / left.norm()).item(), 1e-3, 0, ">="
        ),
        Number("relative error, the optimal critic", error(analytic), 0, 1e-5),
        Number("relative error, critic trained with penalty weight 100", error(strong[-1]), 0, 0.05),
        Number("relative error, finite differences of the exact distance", error(exact), 0, 0.05),
        Number("length, critic trained with penalty weight 10: 1 + W / 20", usual[-1].norm().item(), biased, 0.03),
    ]

    figures, (left_panel, right_panel) = axes(2, width=5.4, height=5)
    ticks = torch.linspace(-3.5, 5.0, 120)
    with torch.no_grad():
        scores = critic(torch.cartesian_prod(ticks, ticks)).reshape(len(ticks), -1).T
    left_panel.contour(ticks, ticks, scores, levels=20, colors="grey", linewidths=0.6, linestyles="solid")
    points, fakes = latent[:300], latent[300:600] + SHIFT
    left_panel.scatter(points[:, 0], points[:, 1], s=8, color=BLUE, marker="o", label="real, N(0, I)")
    left_panel.scatter(fakes[:, 0], fakes[:, 1], s=10, color=RED, marker="^", label="fake, N(m, I)")
    arrow = {"arrowstyle": "-|>", "linewidth": 2.5, "shrinkA": 0, "shrinkB": 0}
    left_panel.annotate("", xy=(0, 0), xytext=tuple(SHIFT.tolist()), arrowprops=arrow)
    left_panel.plot([], [], color=BLACK, linewidth=2.5, label="$-m$, the way down")
    left_panel.set(title="The critic's level sets lie across m", xlabel="$x_1$", ylabel="$x_2$", aspect="equal")
    right_panel.semilogy(updates, [error(g) for g in strong], color=BLUE, label="critic, penalty weight 100")
    right_panel.semilogy(
        earlier, [error(g) for g in usual], color=RED, linestyle="--", label="critic, penalty weight 10"
    )
    right_panel.axhline(biased - 1, color=RED, linestyle=":", linewidth=1, label=r"its bias, $\|m\| / (2 \lambda)$")
    right_panel.axhline(error(exact), color=GREEN, linestyle="-.", label="no critic: finite differences of W")
    right_panel.axhline(0.05, color=BLACK, linewidth=0.8, label="5 %")
    right_panel.set(
        title=r"$-E\,\nabla f(g(z))$ approaches $\nabla W$", xlabel="updates of the critic", ylabel="relative error"
    )
    for panel in (left_panel, right_panel):
        panel.grid(alpha=0.3)
        panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2, fontsize=9)
    return Finding(figures, numbers)
