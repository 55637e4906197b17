"""The experiments on the generator's gradients: their small versions, and the functions that measure."""

import pytest
import torch
from torch import nn

pytest.importorskip("ot", reason="the extra wgan_fast[train] is not installed")
pytest.importorskip("matplotlib", reason="the extra wgan_fast[train] is not installed")

from wgan_fast.experiments import discriminator_and_critic, gradient_identity, low_dimensional_manifolds
from wgan_fast.experiments.claim import Finding


def measured(finding: Finding) -> list[float]:
    return [number.measured for number in finding.numbers]


# Low-dimensional manifolds ------------------------------------------------------------------------


def test_discriminators_on_disjoint_curves_become_perfect_and_useless() -> None:
    accuracy, exponent, of_bound, growth, relative, widest, narrowest, updates = measured(
        low_dimensional_manifolds.run(0, small=True)
    )
    assert accuracy > 0.9 and widest == 1
    assert exponent < 0  # it falls
    assert 0 < of_bound <= 1
    assert growth > 1
    assert 0 < relative < 1
    assert narrowest > 0
    assert updates >= 1


def test_discriminators_are_independent_networks() -> None:
    discriminators = low_dimensional_manifolds.Discriminators()
    points = torch.randn(8, 5, 10)
    logits = discriminators(points)
    for k in range(8):
        weights = [part[k] for part in discriminators.parts]
        layers = [nn.Linear(10, 64), nn.LeakyReLU(0.2), nn.Linear(64, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1)]
        alone = nn.Sequential(*layers)
        alone.load_state_dict(
            {f"{2 * i}.{name}": weights[2 * i + j].T.reshape(layers[2 * i].state_dict()[name].shape)
             for i in range(3) for j, name in enumerate(("weight", "bias"))}
        )  # fmt: skip
        torch.testing.assert_close(alone(points[k]).squeeze(1), logits[k])


def test_the_jacobian_is_that_by_the_weights() -> None:
    curve, latent = low_dimensional_manifolds.Curve(), torch.tensor([[0.3], [-0.7]])
    squares = []
    for z in latent:
        rows = [torch.autograd.grad(x, list(curve.parameters()), retain_graph=True) for x in curve(z)]
        jacobian = torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])
        squares.append(torch.linalg.eigvalsh(jacobian @ jacobian.T)[-1])
    expected = torch.stack(squares).mean().sqrt()
    torch.testing.assert_close(low_dimensional_manifolds.jacobian_norm(curve, latent), expected)


def test_eps_is_the_size_of_d_and_its_slope_at_the_fakes() -> None:
    discriminators, points = low_dimensional_manifolds.Discriminators(), torch.randn(5, 10)
    eps = low_dimensional_manifolds.distance_to_perfect(discriminators, points)
    for k in range(8):
        x = points.clone().requires_grad_()
        d = discriminators(x.expand(8, -1, -1))[k].sigmoid()
        (slope,) = torch.autograd.grad(d.sum(), x)
        torch.testing.assert_close(eps[k], (d + slope.norm(dim=1)).max().detach())


def test_the_exponent_is_that_of_a_power() -> None:
    updates = [1, 10, 30, 70, 100]
    falling = torch.tensor([float(n) for n in updates]) ** -1.5
    falling[0] = 100.0  # before the last tenfold
    course = low_dimensional_manifolds.Course(0.0, falling, updates, *[falling] * 5)
    assert low_dimensional_manifolds.exponent(course) == pytest.approx(-1.5)


def test_gradients_are_a_row_for_each_loss() -> None:
    generator = nn.Linear(1, 2)
    latent = torch.randn(7, 1)
    factors = torch.arange(8.0)
    rows = low_dimensional_manifolds.gradients(factors * generator(latent).sum(), generator)
    one = torch.cat([latent.sum().expand(2), torch.full((2,), 7.0)])
    torch.testing.assert_close(rows, factors[:, None] * one)


# Discriminator and critic -------------------------------------------------------------------------


def test_the_discriminator_is_flat_where_the_critics_lean() -> None:
    flat, mean, penalised, clipped = measured(discriminator_and_critic.run(0, small=True))
    assert 0 < flat < 0.02
    assert mean == pytest.approx(1, abs=0.1)
    assert 1 <= penalised < 1.25
    assert 1 <= clipped < 2


def test_slope_is_the_derivative() -> None:
    points = torch.tensor([-1.0, 0.0, 2.0])
    torch.testing.assert_close(discriminator_and_critic.slope(lambda x: x**3, points), 3 * points**2)


# The gradient's identity --------------------------------------------------------------------------


def test_the_critics_gradient_is_that_of_the_distance() -> None:
    of_weights, wrong, optimal, trained, exact, biased = measured(gradient_identity.run(0, small=True))
    assert of_weights < 1e-9 < 1e-3 < wrong
    assert optimal < 1e-5
    assert trained < 0.3
    assert exact < 0.1
    assert biased == pytest.approx(1.1, abs=0.05)


def test_a_critic_that_leans_elsewhere_fails_the_identity() -> None:
    latent = torch.randn(100, 2)
    optimum = gradient_identity.OPTIMUM
    assert gradient_identity.error(gradient_identity.gradient(lambda x: x @ optimum, latent)) == pytest.approx(2)
    across = optimum.flip(0) * torch.tensor([1.0, -1.0])
    assert gradient_identity.error(gradient_identity.gradient(lambda x: x @ across, latent)) == pytest.approx(2**0.5)
