"""Divergences and the earth mover's distance, against closed forms, other libraries and brute force."""

import itertools
import math
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from wgan_fast import distances
from wgan_fast.distances import (
    dual_estimate,
    earth_movers_distance,
    earth_movers_distance_1d,
    js_divergence,
    kl_divergence,
    sinkhorn_distance,
    sliced_wasserstein,
    total_variation,
    transport_plan,
)

DIVERGENCES = (kl_divergence, js_divergence, total_variation)
needs_pot = pytest.mark.skipif(find_spec("ot") is None, reason="the extra wgan_fast[train] is not installed")


def probabilities(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, dtype=dtype).softmax(-1)


def gaussian(grid: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    return torch.distributions.MultivariateNormal(mean, covariance).log_prob(grid).exp()


# Divergences ------------------------------------------------------------------------------------------------------


def test_divergences_by_hand():
    p, q = torch.tensor([0.5, 0.5]), torch.tensor([0.25, 0.75])
    assert kl_divergence(p, q).item() == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(2 / 3))
    assert total_variation(p, q).item() == pytest.approx(0.25)
    m = [0.375, 0.625]
    js = sum(0.5 * a[i] * math.log(a[i] / m[i]) for a in ([0.5, 0.5], [0.25, 0.75]) for i in range(2))
    assert js_divergence(p, q).item() == pytest.approx(js)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_of_a_distribution_from_itself_it_is_zero(divergence):
    p = probabilities(4, 7)
    assert torch.equal(divergence(p, p.clone()), torch.zeros(4, dtype=torch.float64))


def test_another_default_device():
    p, q = probabilities(2, 7)
    x, y = torch.randn(2, 5, 3)
    with torch.device("meta"):
        found = [
            kl_divergence(p, q),
            js_divergence(p, q),
            earth_movers_distance_1d(p, q, p, q),
            earth_movers_distance(x, y),
            sliced_wasserstein(x, y),
        ]
    assert all(value.isfinite() for value in found)


def test_without_common_mass():
    p, q = torch.tensor([0.5, 0.5, 0.0, 0.0]), torch.tensor([0.0, 0.0, 0.1, 0.9])
    assert kl_divergence(p, q).item() == kl_divergence(q, p).item() == math.inf
    assert js_divergence(p, q).item() == pytest.approx(math.log(2))
    assert total_variation(p, q).item() == pytest.approx(1.0)


def test_infinite_only_where_q_lacks_mass_of_p():
    p, q = torch.tensor([1.0, 0.0]), torch.tensor([0.5, 0.5])
    assert kl_divergence(p, q).item() == pytest.approx(math.log(2))
    assert kl_divergence(q, p).item() == math.inf


def test_smallest_numbers_do_not_make_js_infinite():
    tiny = math.ulp(0.0)  # half of it is zero
    p, q = torch.tensor([[1.0, tiny], [1.0, 0.0]], dtype=torch.float64)
    assert js_divergence(p, q).item() == js_divergence(q, p).item() == pytest.approx(0.0, abs=1e-15)
    assert kl_divergence(p, q).item() == math.inf


def test_bounds():
    p, q = probabilities(2, 200, 5).pow(4)
    p, q = p / p.sum(-1, keepdim=True), q / q.sum(-1, keepdim=True)
    js, tv = js_divergence(p, q), total_variation(p, q)
    assert (js >= 0).all() and (js <= math.log(2)).all()
    assert (js <= math.log(2) * tv + 1e-12).all()  # Lin 1991, theorem 3
    assert (2 * tv**2 <= kl_divergence(p, q) + 1e-12).all()  # Pinsker
    torch.testing.assert_close(js_divergence(q, p), js)


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_batches_are_loops(divergence):
    p, q = probabilities(3, 1, 6), probabilities(4, 6)
    together = divergence(p, q)
    assert together.shape == (3, 4)
    for i, j in itertools.product(range(3), range(4)):
        torch.testing.assert_close(together[i, j], divergence(p[i, 0], q[j]), rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize(("mean", "other", "sigma", "other_sigma"), [(0.0, 1.0, 1.0, 1.0), (-1.0, 0.5, 0.7, 1.3)])
def test_gaussians_on_a_grid(mean, other, sigma, other_sigma):
    grid = torch.linspace(-12, 12, 4001, dtype=torch.float64)
    weights = torch.full_like(grid, grid[1] - grid[0])
    p = gaussian(grid[:, None], grid.new_tensor([mean]), grid.new_tensor([[sigma**2]]))
    q = gaussian(grid[:, None], grid.new_tensor([other]), grid.new_tensor([[other_sigma**2]]))
    expected = math.log(other_sigma / sigma) + (sigma**2 + (mean - other) ** 2) / (2 * other_sigma**2) - 0.5
    assert kl_divergence(p, q, weights=weights).item() == pytest.approx(expected, rel=1e-9)
    if sigma == other_sigma:
        expected = math.erf(abs(mean - other) / sigma / 2 / math.sqrt(2))
        assert total_variation(p, q, weights=weights).item() == pytest.approx(expected, rel=1e-5)
    middle = (p + q) / 2
    halves = kl_divergence(p, middle, weights=weights) + kl_divergence(q, middle, weights=weights)
    assert js_divergence(p, q, weights=weights).item() == pytest.approx(halves.item() / 2, rel=1e-9)


def test_gaussians_in_the_plane():
    line = torch.linspace(-9, 9, 301, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    weights = torch.full((len(grid),), (line[1] - line[0]).item() ** 2, dtype=torch.float64)
    means = torch.tensor([[0.0, 0.5], [1.0, -0.5]], dtype=torch.float64)
    covariances = torch.tensor([[[1.0, 0.3], [0.3, 0.8]], [[1.2, -0.4], [-0.4, 1.0]]], dtype=torch.float64)
    p, q = (gaussian(grid, mean, covariance) for mean, covariance in zip(means, covariances, strict=True))
    precision, step = covariances[1].inverse(), means[1] - means[0]
    expected = (precision @ covariances[0]).trace() + step @ precision @ step - 2
    expected = 0.5 * (expected + covariances[1].logdet() - covariances[0].logdet())
    torch.testing.assert_close(kl_divergence(p, q, weights=weights), expected, rtol=1e-9, atol=0)


def test_a_point_of_no_weight_has_no_part():
    p, q = torch.tensor([1.0, 1.0, 5.0], requires_grad=True), torch.tensor([0.5, 1.5, 0.0], requires_grad=True)
    weights = torch.tensor([0.5, 0.5, 0.0])
    for divergence in DIVERGENCES:
        value = divergence(p, q, weights=weights)
        expected = divergence(p[:2] / 2, q[:2] / 2)
        assert value.item() == pytest.approx(expected.item())
        assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(value, (p, q)))


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_derivatives(divergence):
    logits = [torch.randn(2, 5, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert gradcheck(lambda a, b: divergence(a.softmax(-1), b.softmax(-1)), logits)
    weights = torch.rand(5, dtype=torch.float64) + 0.5

    def of_densities(a: Tensor, b: Tensor) -> Tensor:
        return divergence(a.softmax(-1) / weights, b.softmax(-1) / weights, weights=weights)

    assert gradcheck(of_densities, logits)
    assert gradcheck(divergence, [probabilities(5).requires_grad_() for _ in range(2)])


def test_derivatives_where_there_is_no_mass():
    p = torch.tensor([0.0, 0.4, 0.6, 0.0], dtype=torch.float64, requires_grad=True)
    q = torch.tensor([0.5, 0.5, 0.0, 0.0], dtype=torch.float64, requires_grad=True)
    for divergence in DIVERGENCES:
        for gradient in torch.autograd.grad(divergence(p, q), (p, q)):
            assert not gradient.isnan().any()
    by_p, by_q = torch.autograd.grad(js_divergence(p, q), (p, q))
    # d JS / d p = log(2p / (p + q)) / 2
    assert by_p[1].item() == pytest.approx(0.5 * math.log(0.8 / 0.9)) and by_p[2].item() == pytest.approx(
        math.log(2) / 2
    )
    assert by_p[3].item() == by_q[3].item() == 0.0


@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_types(divergence, device, dtype):
    p, q = probabilities(2, 9).to(device)
    value = divergence(p.to(dtype), q.to(dtype))
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert value.device.type == device.type
    assert value.item() == pytest.approx(divergence(p, q).item(), rel=3e-2 if dtype.itemsize == 2 else 1e-5)


HALVES = torch.tensor([0.5, 0.5])


def test_close_distributions_keep_their_digits():
    worst = 0.0
    for _ in range(100):
        logits = torch.randn(100)
        p, q = logits.softmax(0), (logits + 1e-4 * torch.randn(100)).softmax(0)
        x, y = p.double(), q.double()
        m = (x + y) / 2
        kl = (x * (x / y).log() - x + y).sum()  # near 5e-9
        js = ((x * (x / m).log() - x + m) + (y * (y / m).log() - y + m)).sum() / 2
        for divergence, expected in ((kl_divergence, kl), (js_divergence, js)):
            worst = max(worst, abs(divergence(p, q).item() / expected.item() - 1))
    assert worst < 1e-5


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("spread", [1e-3, 1.0, 5.0])
def test_logarithms_give_the_same(divergence, spread):
    a = torch.randn(4, 9, dtype=torch.float64, requires_grad=True)
    b = (a.detach() + spread * torch.randn(4, 9)).requires_grad_()

    def of_logs(a: Tensor, b: Tensor) -> Tensor:
        return divergence(a.log_softmax(-1), b.log_softmax(-1), log=True)

    torch.testing.assert_close(of_logs(a, b), divergence(a.softmax(-1), b.softmax(-1)), rtol=1e-9, atol=1e-15)
    assert gradcheck(of_logs, (a, b)) and gradgradcheck(of_logs, (a, b))
    zero = torch.tensor([0.5, 0.5, 0.0, 0.0], dtype=torch.float64)
    other = torch.tensor([0.0, 0.3, 0.7, 0.0], dtype=torch.float64)
    for p, q in ((zero, other), (zero, zero), (zero, torch.full_like(zero, 0.25))):
        x, y = p.log().requires_grad_(), q.log().requires_grad_()
        value = divergence(x, y, log=True)
        assert value.item() == pytest.approx(divergence(p, q).item())
        assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(value, (x, y)))


def test_second_derivatives_of_divergences():
    p, q = (probabilities(5).requires_grad_() for _ in range(2))
    for divergence in DIVERGENCES:
        assert gradgradcheck(divergence, (p, q))


def test_probabilities_that_underflow():
    logits = torch.tensor([200.0, -200.0, 0.0], requires_grad=True)
    p = torch.full((3,), 1 / 3)
    value = kl_divergence(p, logits.softmax(0))
    assert value.item() == math.inf and torch.autograd.grad(value, logits)[0].isfinite().all()
    value = kl_divergence(p.log(), logits.log_softmax(0), log=True)
    assert value.item() == pytest.approx(200 - math.log(3))
    torch.testing.assert_close(torch.autograd.grad(value, logits)[0], torch.tensor([2 / 3, -1 / 3, -1 / 3]))


@pytest.mark.parametrize(
    ("message", "log_p"),
    [
        ("p: expected logarithms below infinity, got nan", torch.tensor([math.nan, 0.0])),
        ("p: expected logarithms below infinity, got inf", torch.tensor([math.inf, 0.0])),
        ("p: expected probabilities that sum to one", torch.tensor([0.0, 0.0])),
    ],
)
def test_logarithms_are_checked(message, log_p):
    with pytest.raises(ValueError, match=f"^{message}"):
        kl_divergence(log_p, HALVES.log(), log=True)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize(
    ("error", "message", "p", "q", "weights"),
    [
        (TypeError, "p: expected a Tensor, got list", [0.5, 0.5], HALVES, None),
        (TypeError, "q: expected float16, bfloat16, float32 or float64, got torch.int64", HALVES, HALVES.long(), None),
        (TypeError, "q: expected torch.float32 as of p, got torch.float64", HALVES, HALVES.double(), None),
        (TypeError, "weights: expected torch.float32 as of p, got torch.float64", HALVES, HALVES, HALVES.double()),
        (ValueError, "p: expected shape (..., n), got a scalar", HALVES[0], HALVES, None),
        (ValueError, "p: expected at least one element, got shape (0,)", HALVES[:0], HALVES, None),
        (ValueError, "q: expected shape (..., 2) as of p, got (3,)", HALVES, torch.ones(3) / 3, None),
        (ValueError, "q: expected leading dimensions that broadcast", HALVES.expand(2, 2), HALVES.expand(3, 2), None),
        (ValueError, "q: expected device cpu as of p, got meta", HALVES, HALVES.to("meta"), None),
        (ValueError, "p: expected no negative mass, got -0.5", torch.tensor([1.5, -0.5]), HALVES, None),
        (ValueError, "q: expected finite numbers, got nan", HALVES, torch.tensor([0.5, math.nan]), None),
        (ValueError, "p: expected finite numbers, got inf", torch.tensor([0.5, math.inf]), HALVES, None),
        (ValueError, "p: expected probabilities that sum to one, 1 within 1e-04, got", HALVES * 1.2, HALVES, None),
        (ValueError, "q: expected probabilities that sum to one", HALVES, torch.stack([HALVES, HALVES * 0.9]), None),
        (ValueError, "p: expected a density that integrates to one, 1 within 1e-02", HALVES, 2 * HALVES, HALVES),
        (ValueError, "q: expected the integral of p, 1 within 1e-03, got 1.00", 2 * HALVES, 2.01 * HALVES, HALVES),
        (ValueError, "weights: expected no negative mass, got -0.5", HALVES, HALVES, -HALVES),
        (ValueError, "weights: expected shape (..., 2) as of p, got (3,)", HALVES, HALVES, torch.ones(3)),
        (ValueError, "weights: expected leading", HALVES.expand(2, 2), HALVES, torch.ones(3, 2)),
    ],
)  # fmt: skip
def test_divergences_refuse(divergence, error, message, p, q, weights):
    with pytest.raises(error) as caught:
        divergence(p, q, weights=weights)
    assert str(caught.value).startswith(message)


# On a line --------------------------------------------------------------------------------------------------------


def test_shifted_points_are_apart_by_the_shift():
    x = torch.randn(3, 50, dtype=torch.float64)
    shift = torch.tensor([[0.0], [-1.5], [40.0]], dtype=torch.float64)
    for power in (1.0, 1.5, 2.0, 7.0):
        torch.testing.assert_close(earth_movers_distance_1d(x, x + shift, power=power), shift.abs().squeeze(1))


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
def test_line_against_every_permutation(power):
    x, y = torch.randn(2, 6, dtype=torch.float64)
    costs = [(x - y[list(order)]).abs().pow(power).mean() for order in itertools.permutations(range(6))]
    expected = torch.stack(costs).min() ** (1 / power)
    torch.testing.assert_close(earth_movers_distance_1d(x, y, power=power), expected)


@pytest.mark.parametrize(("n", "m"), [(1, 1), (5, 5), (1, 7), (8, 3), (100, 33)])
def test_line_against_scipy(n, m):
    stats = pytest.importorskip("scipy.stats", reason="SciPy is not installed")
    x, y, a, b = torch.randn(n), torch.randn(m) + 0.5, probabilities(n), probabilities(m)
    a[: n // 3] = 0.0
    a /= a.sum()
    expected = stats.wasserstein_distance(x, y)
    assert earth_movers_distance_1d(x, y).item() == pytest.approx(expected, rel=1e-5)
    expected = stats.wasserstein_distance(x, y, a, b)
    assert earth_movers_distance_1d(x.double(), y.double(), a, b).item() == pytest.approx(expected, rel=1e-9)


def test_gaussian_quantiles():
    # W_2 of N(0, 1) and N(1, 3^2) is the distance of (0, 1) and (1, 3).
    levels = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    standard = torch.special.ndtri(levels)
    assert earth_movers_distance_1d(standard, 1 + 3 * standard, power=2.0).item() == pytest.approx(5**0.5, rel=1e-4)


def test_masses_scale_the_cost():
    # Six boxes on a line, each of mass one.
    x, y = torch.tensor([1.0, 1, 1, 2, 3, 3]), torch.tensor([7.0, 8, 9, 9, 10, 10])
    assert earth_movers_distance_1d(x, y).item() == pytest.approx(7.0)
    assert earth_movers_distance_1d(x, y, torch.ones(6)).item() == pytest.approx(42.0)
    piles = torch.tensor([1.0, 2, 3]), torch.tensor([7.0, 8, 9, 10])
    masses = torch.tensor([3.0, 1, 2]), torch.tensor([1.0, 1, 2, 2])
    assert earth_movers_distance_1d(*piles, *masses).item() == pytest.approx(42.0)
    assert earth_movers_distance_1d(*piles, None, masses[1] / 6).item() == pytest.approx(8.8333333 - 2)


@pytest.mark.parametrize("power", [1.0, 2.5])
def test_batches_on_a_line_are_loops(power):
    x, y = torch.randn(3, 1, 6, dtype=torch.float64), torch.randn(4, 9, dtype=torch.float64)
    a, b = probabilities(6), probabilities(3, 1, 9)
    plain, weighted = (earth_movers_distance_1d(x, y, *w, power=power) for w in ((), (a, b)))
    assert plain.shape == weighted.shape == (3, 4)
    for i, j in itertools.product(range(3), range(4)):
        torch.testing.assert_close(plain[i, j], earth_movers_distance_1d(x[i, 0], y[j], power=power))
        torch.testing.assert_close(weighted[i, j], earth_movers_distance_1d(x[i, 0], y[j], a, b[i, 0], power=power))
    common_points = earth_movers_distance_1d(x[0, 0], y[0], a, probabilities(5, 9), power=power)
    assert common_points.shape == (5,)


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
def test_derivatives_on_a_line(power):
    x, y = (torch.randn(2, n, dtype=torch.float64, requires_grad=True) for n in (4, 5))
    a, b = (probabilities(2, n).requires_grad_() for n in (4, 5))
    assert gradcheck(lambda x, y: earth_movers_distance_1d(x, y, power=power), (x, y))
    assert gradcheck(lambda *inputs: earth_movers_distance_1d(*inputs, power=power), (x, y, a, b))


@pytest.mark.parametrize("power", [1.0, 1.5, 2.0])
def test_no_nan_where_distributions_coincide(power):
    x = torch.tensor([0.0, 0.0, 1.0], requires_grad=True)
    distance = earth_movers_distance_1d(x, x.detach().flip(0), power=power)
    (gradient,) = torch.autograd.grad(distance, x)
    assert distance.item() == 0.0 and torch.equal(gradient, torch.zeros(3))


def test_types_on_a_line(device, dtype):
    x, y, a = torch.randn(7).to(device, dtype), torch.randn(7).to(device, dtype), probabilities(7).to(device, dtype)
    distance = earth_movers_distance_1d(x, y, a)
    assert distance.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    expected = earth_movers_distance_1d(x.double(), y.double(), a.double() / a.double().sum())
    assert distance.item() == pytest.approx(expected.item(), rel=2e-2 if dtype.itemsize == 2 else 1e-5)


@pytest.mark.parametrize("size", [1e-150, 1.0, 1e150])
@pytest.mark.parametrize("power", [1.0, 2.0, 50.0])
def test_neither_large_nor_small_coordinates_overflow(size, power):
    x, y = torch.randn(7, dtype=torch.float64), torch.randn(5, dtype=torch.float64)
    a, b = probabilities(7), probabilities(5)
    a[2] = 0.0  # a point without mass, and far away, changes nothing
    a = a / a.sum()
    x[2] = 1e9
    scaled = (size * x).requires_grad_()
    for weights in ((), (a, b)):
        expected = earth_movers_distance_1d(x, y, *weights, power=power)
        found = earth_movers_distance_1d(scaled, size * y, *weights, power=power)
        torch.testing.assert_close(found / size, expected, rtol=1e-12, atol=0)
        assert torch.autograd.grad(found, scaled)[0].abs().sum().item() > 0
    points, others = torch.randn(2, 6, 3, dtype=torch.float64)
    values = [
        sliced_wasserstein(s * points, s * others, power=power, generator=torch.Generator().manual_seed(0)) / s
        for s in (1.0, size)
    ]
    torch.testing.assert_close(*values, rtol=1e-12, atol=0)


ONES = torch.ones(3)


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (TypeError, "x: expected a Tensor, got list", ([1.0], ONES)),
        (TypeError, "y: expected torch.float32 as of x, got torch.float16", (ONES, ONES.half())),
        (ValueError, "y: expected at least one element", (ONES, ONES[:0])),
        (ValueError, "x: expected finite numbers, got nan", (ONES * math.nan, ONES)),
        (ValueError, "y: expected leading dimensions that", (ONES.expand(2, 3), ONES.expand(3, 3))),
        (ValueError, "x_weights: expected 3 masses as of x, got shape (2,)", (ONES, ONES, ONES[:2])),
        (ValueError, "y_weights: expected no negative mass, got -1", (ONES, ONES, None, -ONES)),
        (ValueError, "x_weights: expected finite numbers, got nan", (ONES, ONES, ONES * math.nan)),
        (ValueError, "x_weights: expected a positive total, got 0", (ONES, ONES, 0 * ONES)),
        (ValueError, "y_weights: expected the total of x_weights, 3 within 1e-04", (ONES, ONES, ONES, 2 * ONES)),
        (TypeError, "x_weights: expected torch.float32 as of x, got torch.float64", (ONES, ONES, ONES.double())),
        (ValueError, "x_weights: expected leading dimensions", (ONES.expand(2, 3), ONES, ONES.expand(3, 3))),
        (ValueError, "y: expected device cpu as of x, got meta", (ONES, ONES.to("meta"))),
    ],
)  # fmt: skip
def test_line_refuses(error, message, arguments):
    with pytest.raises(error) as caught:
        earth_movers_distance_1d(*arguments)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("error", "power"), [(ValueError, 0.5), (ValueError, math.nan), (ValueError, math.inf), (TypeError, "1")]
)
def test_powers(error, power):
    with pytest.raises(error, match="^power: expected"):
        earth_movers_distance_1d(ONES, ONES, power=power)
    with pytest.raises(error, match="^power: expected"):
        sliced_wasserstein(torch.ones(3, 2), torch.ones(3, 2), power=power)


# Plans ------------------------------------------------------------------------------------------------------------


@needs_pot
def test_plan_against_every_permutation():
    cost = torch.randn(6, 6, dtype=torch.float64)  # negative ones, too
    best = min(cost[range(6), order].mean() for order in itertools.permutations(range(6)))
    plan, total = transport_plan(cost)
    torch.testing.assert_close(total, best)
    torch.testing.assert_close((plan * cost).sum(), best)


@needs_pot
@pytest.mark.parametrize("scale", [1e-14, 1.0, 1e14])
@pytest.mark.parametrize("mass", [1e-14, 1.0, 1e14])
def test_plan_against_the_line(scale, mass):
    x, y, a, b = torch.randn(9).double(), torch.randn(6).double(), probabilities(9), probabilities(6)
    a[2] = 0.0
    b *= a.sum()
    cost = (x[:, None] - y).abs()
    plan, total = transport_plan(scale * cost, mass * a, mass * b)
    assert plan.shape == (9, 6) and (plan >= 0).all()
    torch.testing.assert_close(plan.sum(1), mass * a, rtol=1e-9, atol=0)
    torch.testing.assert_close(plan.sum(0), mass * b, rtol=1e-9, atol=0)
    expected = earth_movers_distance_1d(x, y, a, b)
    torch.testing.assert_close(total / scale / mass, expected, rtol=1e-9, atol=0)


@needs_pot
def test_plans_of_the_simplest_kinds():
    assert transport_plan(torch.zeros(2, 3)).cost.item() == 0.0
    assert torch.equal(transport_plan(torch.ones(1, 1), torch.full((1,), 5.0)).plan, torch.full((1, 1), 5.0))
    plan, cost = transport_plan(torch.tensor([[1.0, 2.0], [4.0, 1.0]]), torch.tensor([1.0, 1.0]))
    assert torch.equal(plan, torch.eye(2)) and cost.item() == 2.0


@needs_pot
def test_derivatives_of_a_plan():
    cost, a, b = torch.rand(4, 5, dtype=torch.float64), probabilities(4), probabilities(5)
    plan, total = transport_plan(cost.requires_grad_(), a, b)
    assert not plan.requires_grad
    assert torch.equal(torch.autograd.grad(total, cost)[0], plan)
    assert gradcheck(lambda cost: transport_plan(cost, a, b).cost, cost)


@needs_pot
def test_derivatives_by_the_masses_are_optimal_potentials():
    cost, a, b = torch.rand(7, 5, dtype=torch.float64), probabilities(7), probabilities(5)
    a[3], b[0] = 0.0, 0.0
    a, b = (a / a.sum()).requires_grad_(), (b / b.sum()).requires_grad_()
    total = transport_plan(cost, a, b).cost
    u, v = torch.autograd.grad(total, (a, b))
    assert (u[:, None] + v <= cost + 1e-12).all()
    torch.testing.assert_close(u @ a + v @ b, total)
    # Moved from one point to another, mass changes the cost by the difference of their potentials.
    step = 1e-7
    for i, j in ((0, 1), (3, 2)):  # the point 3 has no mass, and can only gain some
        moved = a.detach().clone()
        moved[i] += step
        moved[j] -= step
        difference = (transport_plan(cost, moved, b.detach()).cost - total) / step
        torch.testing.assert_close(difference, u[i] - u[j], rtol=1e-5, atol=1e-6)
    assert gradcheck(lambda x, y: transport_plan(cost[:3, :4], x.softmax(0), y.softmax(0)).cost,
                     [torch.randn(n, dtype=torch.float64, requires_grad=True) for n in (3, 4)])  # fmt: skip


@needs_pot
def test_types_of_plans(device, dtype):
    cost, a = torch.rand(4, 5).to(device, dtype), probabilities(4).to(device, dtype)
    plan, total = transport_plan(cost, a)
    wanted = torch.float64 if dtype == torch.float64 else torch.float32
    assert plan.dtype == total.dtype == wanted
    assert plan.device.type == total.device.type == device.type
    torch.testing.assert_close(plan.sum(1), a.to(wanted))


@needs_pot
@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (TypeError, "cost: expected a Tensor, got list", ([[1.0]],)),
        (ValueError, "cost: expected a matrix of shape (n, m), got shape (3,)", (ONES,)),
        (ValueError, "cost: expected finite numbers, got inf", (torch.tensor([[1.0, math.inf]]),)),
        (ValueError, "x_weights: expected 2 masses as of cost, got shape (3,)", (torch.ones(2, 3), ONES)),
        (ValueError, "x_weights: expected shape (2,), got (1, 2)", (torch.ones(2, 3), torch.ones(1, 2))),
        (ValueError, "y_weights: expected no negative mass, got -1", (torch.ones(2, 3), None, -ONES)),
        (ValueError, "y_weights: expected a positive total, got 0", (torch.ones(2, 3), None, 0 * ONES)),
        (ValueError, "y_weights: expected the total of x_weights", (torch.ones(2, 3), torch.ones(2), ONES)),
        (TypeError, "y_weights: expected torch.float32 as of cost", (torch.ones(2, 3), None, ONES.double())),
    ],
)  # fmt: skip
def test_plans_refuse(error, message, arguments):
    with pytest.raises(error) as caught:
        transport_plan(*arguments)
    assert str(caught.value).startswith(message)


@needs_pot
@pytest.mark.parametrize(
    ("plan", "u", "warning", "message"),
    [
        (torch.eye(2) / 2, [0.0, 0.0], "numItermax reached", "the solver of POT failed: numItermax reached"),
        (torch.eye(2), [0.0, 0.0], None, "no solution: marginals are off by 5.0e-01"),
        (torch.eye(2).flip(0) / 2, [0.0, 0.0], None, "no solution: marginals are off by 0.0e"),
    ],
)
def test_what_the_solver_says_is_checked(monkeypatch, plan, u, warning, message):
    import ot

    log = {"u": torch.tensor(u).double().numpy(), "warning": warning}
    monkeypatch.setattr(ot, "emd", lambda *args, **kwargs: (plan.double().numpy(), log))
    with pytest.raises(RuntimeError, match=message):
        transport_plan(1 - torch.eye(2))


def test_without_pot(monkeypatch):
    monkeypatch.setitem(sys.modules, "ot", None)
    with pytest.raises(ImportError, match="pip install pot"):
        transport_plan(torch.ones(2, 2))
    with pytest.raises(ImportError, match="pip install pot"):
        earth_movers_distance(torch.ones(2, 2), torch.ones(2, 2))


@pytest.mark.slow
def test_the_import_leaves_pot_alone():
    check = "import sys, wgan_fast; assert wgan_fast.distances; assert not {'ot', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)


# Point sets -------------------------------------------------------------------------------------------------------


@needs_pot
def test_moved_points():
    x = torch.randn(40, 3, dtype=torch.float64)
    shift = torch.tensor([1.0, -2.0, 2.0], dtype=torch.float64)
    assert earth_movers_distance(x, x[torch.randperm(40)] + shift).item() == pytest.approx(3.0)
    assert earth_movers_distance(x, x[torch.randperm(40)]).item() == pytest.approx(0.0, abs=1e-15)


@needs_pot
def test_point_sets_against_every_permutation():
    x, y = torch.randn(2, 6, 2, dtype=torch.float64)
    best = min((x - y[list(order)]).norm(dim=1).mean() for order in itertools.permutations(range(6)))
    torch.testing.assert_close(earth_movers_distance(x, y), best)


@needs_pot
def test_point_sets_on_a_line():
    x, y, a, b = torch.randn(30, 1), torch.randn(20, 1), probabilities(30).float(), probabilities(20).float()
    for weights in ((), (a,), (a, b), (None, 3 * b)):
        expected = earth_movers_distance_1d(x[:, 0], y[:, 0], *weights)
        torch.testing.assert_close(earth_movers_distance(x, y, *weights), expected, rtol=1e-5, atol=1e-6)


@needs_pot
def test_derivatives_of_point_sets():
    x, y = (torch.randn(n, 2, dtype=torch.float64, requires_grad=True) for n in (4, 5))
    a, b = (probabilities(n).requires_grad_() for n in (4, 5))
    assert gradcheck(earth_movers_distance, (x, y))
    assert gradcheck(lambda x, y: earth_movers_distance(x, y, a.detach(), b.detach()), (x, y))
    same = x.detach().clone().requires_grad_()
    distance = earth_movers_distance(same, x.detach())
    assert torch.equal(torch.autograd.grad(distance, same)[0], torch.zeros_like(x))


@needs_pot
def test_point_sets_far_from_the_origin():
    x = 1000 + torch.randn(50, 2)  # many enough for the matrix product, which would be off by more than the distance
    assert earth_movers_distance(x, x + torch.tensor([0.25, 0.0])).item() == pytest.approx(0.25, rel=1e-3)


@needs_pot
def test_sixteen_bit_point_sets(device):
    x, y, a = torch.randn(6, 2).to(device), torch.randn(5, 2).to(device), probabilities(6).to(device)
    distance = earth_movers_distance(x.bfloat16(), y.bfloat16(), a.bfloat16())
    assert distance.dtype == torch.float32
    assert distance.item() == pytest.approx(earth_movers_distance(x.double(), y.double(), a).item(), rel=2e-2)


@pytest.mark.parametrize("distance", [earth_movers_distance, sliced_wasserstein])
@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (ValueError, "x: expected points of shape (", (ONES, torch.ones(3, 1))),
        (ValueError, "y: expected points of 2 coordinates", (torch.ones(4, 2), torch.ones(4, 3))),
        (ValueError, "y: expected finite numbers, got nan", (torch.ones(4, 2), torch.ones(4, 2) * math.nan)),
        (ValueError, "x: expected at least one element", (torch.ones(0, 2), torch.ones(4, 2))),
        (TypeError, "y: expected torch.float32 as of x", (torch.ones(4, 2), torch.ones(4, 2).double())),
        (ValueError, "y: expected device cpu as of x, got meta", (torch.ones(4, 2), torch.ones(4, 2, device="meta"))),
    ],
)  # fmt: skip
def test_point_sets_refuse(distance, error, message, arguments):
    with pytest.raises(error) as caught:
        distance(*arguments)
    assert str(caught.value).startswith(message)


@needs_pot
@pytest.mark.parametrize("size", [1e-150, 1e150])
def test_point_sets_of_any_size(size):
    x, y = torch.randn(2, 6, 2, dtype=torch.float64)
    moving = (size * x).requires_grad_()
    distance = earth_movers_distance(moving, size * y)
    torch.testing.assert_close(distance / size, earth_movers_distance(x, y), rtol=1e-12, atol=0)
    assert torch.autograd.grad(distance, moving)[0].norm(dim=1).mean().item() == pytest.approx(1 / 6)


@needs_pot
def test_batches_of_point_sets_are_loops():
    x, y = torch.randn(3, 1, 6, 2, dtype=torch.float64), torch.randn(2, 5, 2, dtype=torch.float64)
    a, b = probabilities(6), probabilities(2, 5)
    for weights in ((None, None), (a, None), (a, b)):
        together = earth_movers_distance(x, y, *weights)
        assert together.shape == (3, 2)
        for i, j in itertools.product(range(3), range(2)):
            mass = (weights[0], None if weights[1] is None else weights[1][j])
            torch.testing.assert_close(together[i, j], earth_movers_distance(x[i, 0], y[j], *mass), rtol=0, atol=0)
    with pytest.raises(ValueError, match="^y: expected leading dimensions that broadcast"):
        earth_movers_distance(x, y.expand(4, 2, 5, 2))


@needs_pot
def test_second_derivatives_of_point_sets():
    x, y = (torch.randn(4, 2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert gradgradcheck(earth_movers_distance, (x, y))


@needs_pot
@pytest.mark.slow
def test_exact_transport_takes_the_memory_of_pot():
    """In processes of their own: the peak of the resident memory only grows."""
    points = (
        "import numpy as np, ot, torch; torch.manual_seed(0); x, y = torch.randn(2, 2500, 2, dtype=torch.float64)\n"
    )
    peak = "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    ours = "from wgan_fast.distances import earth_movers_distance; earth_movers_distance(x, y)\n"
    pot = (
        "from wgan_fast import distances; c = torch.cdist(x, y).numpy(); m = np.full(2500, 1 / 2500); ot.emd(m, m, c)\n"
    )
    used = [
        int(subprocess.run([sys.executable, "-c", points + code + peak], check=True, capture_output=True).stdout)
        for code in (ours, pot)
    ]
    assert used[0] <= 1.05 * used[1] + 10_000  # KiB; a second matrix would take 48,800


# Entropic transport -----------------------------------------------------------------------------------------------


@needs_pot
def test_sinkhorn_is_between_the_distance_and_its_bound():
    x, y, a = torch.randn(40, 2), torch.randn(700, 2), probabilities(40).float()
    a[3] = 0.0
    a = a / a.sum()
    exact = earth_movers_distance(x, y, a).item()
    entropy = -torch.special.xlogy(a, a).sum().item()
    for regularization in (0.05, 0.5):
        found = sinkhorn_distance(x, y, a, regularization=regularization)
        assert found.dtype == torch.float32
        assert exact < found.item() < exact + regularization * entropy
    assert found.item() > exact + 0.1 * regularization  # the plan is not that without the entropic term


@needs_pot
@pytest.mark.parametrize("size", [2.0**-1000, 2.0**1000])
def test_sinkhorn_of_any_size(size):
    x, y = torch.randn(20, 2, dtype=torch.float64), torch.randn(30, 2, dtype=torch.float64)
    one = sinkhorn_distance(x, y, regularization=0.1)
    assert sinkhorn_distance(size * x, size * y, regularization=0.1 * size).item() == pytest.approx(one.item() * size)


@needs_pot
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_distances_as_long_as_a_number_can_be(dtype):
    limits = torch.finfo(dtype)
    longest = torch.tensor([[0.6 * limits.max, 0.0]], dtype=dtype, requires_grad=True)
    for x in (longest, torch.tensor([[limits.smallest_normal, 0.0]], dtype=dtype, requires_grad=True)):
        distance = earth_movers_distance(x, torch.zeros_like(x))
        assert distance.item() == x.detach()[0, 0].item()
        assert torch.autograd.grad(distance, x)[0].tolist() == [[1.0, 0.0]]
    assert earth_movers_distance(longest, -longest).item() == math.inf  # 1.2 times the largest number


@needs_pot
def test_a_meta_tensor_has_no_numbers():
    x = torch.zeros(3, 2, device="meta")
    for call in (
        lambda: kl_divergence(x, x),
        lambda: earth_movers_distance_1d(x, x),
        lambda: earth_movers_distance(x, x),
        lambda: sinkhorn_distance(x, x, regularization=1.0),
    ):
        with pytest.raises(ValueError, match="device meta"):
            call()
    with pytest.raises(ValueError, match="cost: .*device meta"):
        transport_plan(x)


@needs_pot
def test_sinkhorn_refuses_what_did_not_converge():
    x, y = torch.randn(2, 30, 2)
    with pytest.raises(RuntimeError, match="after 10 iterations the marginals are off by .*larger regularization"):
        sinkhorn_distance(x, y, regularization=1e-3, iterations=10)
    with pytest.raises(ValueError, match="^regularization: expected a number > 0"):
        sinkhorn_distance(x, y, regularization=0.0)
    with pytest.raises(ValueError, match="^x_weights: expected masses that sum to one"):
        sinkhorn_distance(x, y, torch.ones(30), torch.ones(30))


# Projections ------------------------------------------------------------------------------------------------------


def test_sliced_in_one_dimension_is_the_line():
    x, y = torch.randn(20, 1, dtype=torch.float64), torch.randn(12, 1, dtype=torch.float64)
    for power in (1.0, 2.0):
        expected = earth_movers_distance_1d(x[:, 0], y[:, 0], power=power)
        torch.testing.assert_close(sliced_wasserstein(x, y, projections=3, power=power), expected)


@pytest.mark.parametrize(("power", "share"), [(1.0, 2 / math.pi), (2.0, 0.5**0.5)])
def test_sliced_of_a_shift_in_the_plane(power, share):
    # The mean of |cos|, and the root of the mean of its square.
    x = torch.randn(30, 2, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    distance = sliced_wasserstein(x, x + torch.tensor([3.0, 4.0]), projections=20_000, power=power, generator=generator)
    assert distance.item() == pytest.approx(5 * share, rel=1e-2)


@needs_pot
def test_sliced_is_at_most_the_distance():
    x, y = torch.randn(2, 50, 3)
    assert sliced_wasserstein(x, y + 1).item() < earth_movers_distance(x, y + 1).item()


def test_sliced_is_seeded():
    x, y = torch.randn(2, 10, 3)
    first, again, other = (
        sliced_wasserstein(x, y, generator=torch.Generator().manual_seed(seed)).item() for seed in (0, 0, 1)
    )
    assert first == again != other


def test_sliced_derivatives_and_types(dtype):
    x, y = (torch.randn(n, 2, dtype=torch.float64, requires_grad=True) for n in (4, 5))

    def distance(x: Tensor, y: Tensor) -> Tensor:
        return sliced_wasserstein(x, y, projections=7, generator=torch.Generator().manual_seed(0))

    assert gradcheck(distance, (x, y))
    assert distance(x.to(dtype), y.to(dtype)).dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(
            distance(x.float(), y.float()), torch.autocast("cpu", enabled=False)(distance)(x.float(), y.float())
        )


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (TypeError, "projections: expected an integer, got 8.0", {"projections": 8.0}),
        (ValueError, "projections: expected an integer of at least 1, got 0", {"projections": 0}),
        (TypeError, "generator: expected a torch.Generator, got int", {"generator": 0}),
    ],
)
def test_sliced_refuses(error, message, arguments):
    with pytest.raises(error) as caught:
        sliced_wasserstein(torch.ones(3, 2), torch.ones(3, 2), **arguments)
    assert str(caught.value) == message


# Critics ----------------------------------------------------------------------------------------------------------


def test_dual_estimate():
    critic = nn.Linear(1, 1, bias=False)
    nn.init.constant_(critic.weight, 2.0)
    real, fake = (
        torch.tensor([[1.0], [2.0]], requires_grad=True),
        torch.tensor([[0.0], [1.0], [5.0]], requires_grad=True),
    )
    estimate = dual_estimate(critic, real, fake)
    assert estimate.item() == pytest.approx(2 * (1.5 - 2.0))
    estimate.backward()
    assert critic.weight.grad.item() == pytest.approx(-0.5)
    assert real.grad is None and fake.grad is None


@needs_pot
def test_dual_estimate_of_a_lipschitz_critic_is_a_lower_bound():
    real, fake = torch.randn(20, 2), torch.randn(30, 2) + 1
    direction = torch.tensor([-1.0, -1.0]) / 2**0.5
    assert 0 < dual_estimate(lambda x: x @ direction, real, fake) < earth_movers_distance(real, fake)


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (TypeError, "critic: expected a callable, got int", (0, ONES, ONES)),
        (TypeError, "real: expected a Tensor, got NoneType", (abs, None, ONES)),
        (ValueError, "fake: expected samples of shape () as of real, got (1,)", (abs, ONES, torch.ones(4, 1))),
        (ValueError, "fake: expected device cpu as of real, got meta", (abs, ONES, ONES.to("meta"))),
        (TypeError, "critic: expected a Tensor of scores, got int", (len, ONES, ONES)),
    ],
)  # fmt: skip
def test_dual_estimate_refuses(error, message, arguments):
    with pytest.raises(error) as caught:
        dual_estimate(*arguments)
    assert str(caught.value) == message


def test_module_is_exported():
    import wgan_fast

    assert wgan_fast.distances is distances and "distances" in wgan_fast.__all__
