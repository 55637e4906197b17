"""finite_difference_penalty against the penalty that it estimates: bias, spread, and what needs no second derivative.

A statistical test draws with a fixed seed and allows five standard errors, of the distribution or of the draws.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from wgan_fast import CriticLoss, discriminator_loss, finite_difference_penalty, r1_penalty

FEATURES = 6


def draws(critic: Callable[..., Tensor], x: Tensor, calls: int, **options: Any) -> Tensor:
    """Independent estimates, one from each call."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        return torch.stack([finite_difference_penalty(critic, x, generator=generator, **options) for _ in range(calls)])


def assert_mean(estimates: Tensor, expected: float) -> None:
    error = estimates.std().item() / math.sqrt(len(estimates))
    assert abs(estimates.mean().item() - expected) < 5 * error
    assert 5 * error < 0.1 * expected  # else the test could not fail


class TestAffineCritic:
    """f(x) = w.x + b: the slope along e is w.e, normal with the standard deviation |w|."""

    def test_formula(self) -> None:
        critic, x = nn.Linear(FEATURES, 1).double(), torch.randn(8, FEATURES, dtype=torch.float64)
        noise = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(3))
        slopes = (noise @ critic.weight[0]).abs()
        for target in (0.0, 0.7):
            penalty = finite_difference_penalty(
                critic, x, weight=3.0, target=target, generator=torch.Generator().manual_seed(3)
            )
            expected = 3 * (slopes - target).square().mean()
            torch.testing.assert_close(penalty, expected, rtol=1e-10, atol=0)
            for one, other in zip(
                torch.autograd.grad(penalty, tuple(critic.parameters())),
                (torch.autograd.grad(expected, critic.weight, retain_graph=True)[0], torch.zeros(1).double()),
                strict=True,
            ):
                torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)

    def test_no_bias_at_any_sigma(self) -> None:
        critic, x = nn.Linear(FEATURES, 1).double(), torch.randn(500, FEATURES, dtype=torch.float64)
        exact = 3.0 * critic.weight.square().sum().item()
        for sigma in (1e-3, 0.01, 10.0):
            assert_mean(draws(critic, x, 100, weight=3.0, sigma=sigma), exact)

    def test_spread(self) -> None:
        """Of a batch of B: sqrt(2 / B) of the mean. The standard deviation of n estimates has itself the relative
        standard error sqrt((kurtosis - 1) / n) / 2, where a mean of B squares of normal numbers has the kurtosis
        3 + 12 / B.
        """
        critic, count = nn.Linear(FEATURES, 1).double(), 1000
        exact = critic.weight.square().sum().item()
        for batch in (1, 10, 100):
            found = draws(critic, torch.randn(batch, FEATURES, dtype=torch.float64), count, weight=1.0).std().item()
            error = math.sqrt((2 + 12 / batch) / count) / 2
            assert abs(found / (math.sqrt(2 / batch) * exact) - 1) < 5 * error

    def test_twice_the_weight_of_r1(self) -> None:
        critic, x = nn.Linear(FEATURES, 1).double(), torch.randn(500, FEATURES, dtype=torch.float64)
        assert_mean(draws(critic, x, 100, weight=1.0), r1_penalty(critic, x, weight=2.0).item())

    def test_target(self) -> None:
        """The mean of (|n| - t)^2 for normal n is |w|^2 - 2 t sqrt(2 / pi) |w| + t^2: above 0 where |w| = t."""
        critic, x = nn.Linear(FEATURES, 1).double(), torch.randn(500, FEATURES, dtype=torch.float64)
        norm = critic.weight.norm().item()
        for target in (0.5, norm):
            expected = norm**2 - 2 * target * math.sqrt(2 / math.pi) * norm + target**2
            assert_mean(draws(critic, x, 100, weight=1.0, target=target), expected)

    def test_gradient(self) -> None:
        """The derivative of the estimate estimates that of the exact penalty, 2 weight w. The coordinates of
        2 (w.e) e have the variance 4 (|w|^2 + w_j^2).
        """
        critic, batch = nn.Linear(FEATURES, 1).double(), 50_000
        generator = torch.Generator().manual_seed(3)
        x = torch.randn(batch, FEATURES, dtype=torch.float64)
        finite_difference_penalty(critic, x, weight=1.0, generator=generator).backward()
        w = critic.weight.detach()
        error = 2 * (w.square().sum() + w.square()).sqrt() / math.sqrt(batch)
        assert ((critic.weight.grad - 2 * w).abs() < 5 * error).all()


class TestCurvedCritic:
    def test_bias_of_a_quadratic_critic(self) -> None:
        """f(x) = x.Hx / 2: the slope is g.e + sigma e.He / 2, and the mean of its square is, exactly,
        |g|^2 + sigma^2 (2 tr H^2 + (tr H)^2) / 4.
        """
        torch.manual_seed(1)
        root = torch.randn(FEATURES, FEATURES, dtype=torch.float64)
        hessian, x = root @ root.T / FEATURES, torch.randn(1000, FEATURES, dtype=torch.float64)
        exact = (x @ hessian).square().sum(1).mean().item()
        curvature = (2 * (hessian @ hessian).trace() + hessian.trace() ** 2).item() / 4
        for sigma in (0.01, 0.5, 1.0):
            found = draws(lambda x: (x @ hessian * x).sum(1) / 2, x, 200, weight=1.0, sigma=sigma)
            assert_mean(found, exact + sigma**2 * curvature)
        assert curvature > 0.5 * exact  # the bias at sigma = 1 is far above the standard errors

    def test_small_steps_approach_the_exact_penalty(self) -> None:
        critic = nn.Sequential(nn.Linear(FEATURES, 16), nn.Tanh(), nn.Linear(16, 1)).double()
        x = torch.randn(1000, FEATURES, dtype=torch.float64)
        assert_mean(draws(critic, x, 100, weight=1.0, sigma=1e-4), r1_penalty(critic, x, weight=2.0).item())


class OnceDifferentiable(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor) -> Tensor:
        context.save_for_backward(x)
        return x.sin()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context: Any, grad: Tensor) -> Tensor:
        return grad * context.saved_tensors[0].cos()


class TestBehaviour:
    def test_needs_no_second_derivative(self) -> None:
        inner, x = nn.Linear(FEATURES, 3).double(), torch.randn(5, FEATURES, dtype=torch.float64)
        penalty = finite_difference_penalty(lambda x: OnceDifferentiable.apply(inner(x)).sum(1), x)
        penalty.backward()
        assert inner.weight.grad.abs().min() > 0

    def test_scores_of_a_sample_are_summed(self) -> None:
        x = torch.randn(5, 3, 4, dtype=torch.float64)
        found = [
            finite_difference_penalty(critic, x, generator=torch.Generator().manual_seed(3))
            for critic in (lambda x: x.sin(), lambda x: x.sin().sum((1, 2)), lambda x: x.sin().sum(2)[:, None])
        ]
        torch.testing.assert_close(found[1], found[0], rtol=1e-10, atol=0)
        torch.testing.assert_close(found[2], found[0], rtol=1e-10, atol=0)

    def test_arguments_of_the_critic(self) -> None:
        seen = []

        def critic(x: Tensor, labels: Tensor, *, scale: float) -> Tensor:
            seen.append((labels, scale))
            return scale * x.sum(1)

        labels = torch.arange(4)
        finite_difference_penalty(critic, torch.randn(4, 2), labels, scale=0.5)
        assert len(seen) == 2 and all(one is labels and scale == 0.5 for one, scale in seen)

    def test_points_are_constants(self) -> None:
        critic, x = nn.Linear(2, 1), torch.randn(4, 2, requires_grad=True)
        before = x.detach().clone()
        finite_difference_penalty(lambda x: critic(x.mul_(2)), x).backward()
        assert x.grad is None and torch.equal(x, before) and critic.weight.grad is not None

    def test_seeds(self, device: torch.device) -> None:
        critic, x = nn.Linear(2, 1).to(device), torch.randn(4, 2).to(device)

        def penalty(seed: int) -> Tensor:
            return finite_difference_penalty(critic, x, generator=torch.Generator(device).manual_seed(seed))

        assert torch.equal(penalty(1), penalty(1)) and not torch.equal(penalty(1), penalty(2))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
    def test_sixteen_bit_samples(self, dtype: torch.dtype) -> None:
        critic, x = nn.Linear(FEATURES, 1, dtype=dtype), torch.randn(64, FEATURES).to(dtype)
        # A step of 1 moves the scores by about |w|, far above their rounding, which is below 1 % of them.
        penalty = finite_difference_penalty(critic, x, sigma=1.0, generator=torch.Generator().manual_seed(3))
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
        moved = (x + noise).to(dtype).float() - x.float()
        expected = 10 * (moved @ critic.weight[0].float()).square().mean()
        assert penalty.dtype == torch.float32 and penalty.item() == pytest.approx(expected.item(), rel=0.05)

    def test_value_alone(self) -> None:
        with torch.no_grad():
            assert not finite_difference_penalty(nn.Linear(2, 1), torch.randn(4, 2)).requires_grad

    def test_in_a_loss(self) -> None:
        critic, (real, fake) = nn.Linear(FEATURES, 1).double(), torch.randn(2, 5, FEATURES, dtype=torch.float64)
        penalty = partial(finite_difference_penalty, generator=torch.Generator().manual_seed(3))
        output = CriticLoss(critic, penalty=penalty, loss=discriminator_loss)(real, fake)
        expected = finite_difference_penalty(critic, real, generator=torch.Generator().manual_seed(3))
        torch.testing.assert_close(output.penalty, expected.detach(), rtol=1e-12, atol=0)
        whole = discriminator_loss(critic(real), critic(fake)) + expected
        torch.testing.assert_close(output.loss, whole, rtol=1e-12, atol=0)
        for one, other in zip(
            torch.autograd.grad(output.loss, tuple(critic.parameters())),
            torch.autograd.grad(whole, tuple(critic.parameters())),
            strict=True,
        ):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("error", "argument", "change"),
    [
        (TypeError, "critic", {"critic": None}),
        (TypeError, "critic", {"critic": lambda x: 1.0}),
        (TypeError, "critic", {"critic": lambda x: x.argmax(1)}),
        (TypeError, "x", {"x": [1.0]}),
        (TypeError, "x", {"x": torch.ones(4, 3, dtype=torch.int64)}),
        (ValueError, "x", {"x": torch.ones(0, 3)}),
        (ValueError, "weight", {"weight": -1.0}),
        (ValueError, "weight", {"weight": math.nan}),
        (TypeError, "weight", {"weight": "1"}),
        (ValueError, "sigma", {"sigma": 0.0}),
        (ValueError, "sigma", {"sigma": -0.1}),
        (ValueError, "sigma", {"sigma": math.inf}),
        (ValueError, "target", {"target": -1.0}),
        (TypeError, "target", {"target": None}),
        (TypeError, "generator", {"generator": 7}),
    ],
)
def test_errors_name_the_argument(error: type, argument: str, change: dict) -> None:
    state = torch.get_rng_state()
    with pytest.raises(error, match=f"^{argument}: "):
        finite_difference_penalty(**{"critic": lambda x: x.sum(1), "x": torch.ones(4, 3)} | change)
    assert argument == "critic" or torch.equal(state, torch.get_rng_state())
