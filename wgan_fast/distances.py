"""Divergences and Wasserstein distances between two probability distributions."""

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from wgan_fast._checks import (
    ArgumentTypeError,
    ArgumentValueError,
    accumulate_dtype,
    check_generator,
    check_integer,
    check_number,
    check_same_device,
    check_tensor,
)
from wgan_fast._torch import without_autocast
from wgan_fast.losses import dual_estimate

__all__ = [
    "QUADRATURE_AGREEMENT",
    "QUADRATURE_TOLERANCE",
    "TOTAL_TOLERANCE",
    "TransportPlan",
    "dual_estimate",
    "earth_movers_distance",
    "earth_movers_distance_1d",
    "js_divergence",
    "kl_divergence",
    "sinkhorn_distance",
    "sliced_wasserstein",
    "total_variation",
    "transport_plan",
]

#: Largest relative error of a sum of probabilities (from 1), and of the total of y_weights (from that of x_weights). It
#: is above the rounding of a sum; in float64 also above the step of a finite difference in one of them.
TOTAL_TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 2e-2}
#: Largest difference from 1 of a density's integral on a grid: truncation and quadrature error.
QUADRATURE_TOLERANCE = 1e-2
#: Largest difference between two such integrals; the divergence has an error of about this size.
QUADRATURE_AGREEMENT = 1e-3


class TransportPlan(NamedTuple):
    """The result of :func:`transport_plan`."""

    plan: Tensor  #: the mass moved from i to j, of shape (n, m); a constant
    cost: Tensor  #: scalar, the sum of plan * cost; differentiable


def kl_divergence(p: Tensor, q: Tensor, *, weights: Tensor | None = None, log: bool = False) -> Tensor:
    r"""The Kullback-Leibler divergence of p from q, in nats.

    .. math:: \mathrm{KL}(p \| q) = \sum_i w_i \, p_i \log \frac{p_i}{q_i}
              = \sum_i w_i \left( p_i \log \frac{p_i}{q_i} - p_i + q_i \right)

    with 0 log 0 = 0; infinite where q is zero and p is not. The two sums are equal where both totals are; the second is
    computed. None of its terms is negative, so it keeps its digits for close distributions, and a total that is
    off by rounding does not enter in first order.

    Args:
        p, q: of shape (..., n), in float16, bfloat16, float32 or float64; leading dimensions are batch dimensions and
            broadcast. Without weights, probabilities that sum to one; with weights, densities at n points of a grid
            (of any number of dimensions, flattened).
        weights: None for :math:`w_i = 1`, or non-negative quadrature weights, of shape (n,) or (..., n).
        log: p and q are given by their logarithms (``log_softmax`` of logits, ``log_prob``), minus infinity for zero.
            Probabilities too small for their type then keep their part.

    Returns:
        The divergence of each pair, of shape (...); float32 for 16-bit types, otherwise the type of ``p``.

    Differentiable any number of times in ``p`` and ``q``; the first derivatives of the second sum are
    :math:`w_i \log(p_i / q_i)` and :math:`w_i (1 - p_i / q_i)`. Where p is zero the derivative with respect to p is
    defined as 0; the true one is minus infinity. So is that with respect to q where q is zero and p is not, and the
    divergence infinite.

    Raises:
        TypeError: an argument is no tensor of a floating-point type, or the types differ.
        ValueError: shapes do not fit, devices differ, a number is negative or not finite (a logarithm is NaN or plus
            infinity), probabilities do not sum to one (within :data:`TOTAL_TOLERANCE`), or densities do not integrate
            to one (within :data:`QUADRATURE_TOLERANCE`) or not to the same number (within
            :data:`QUADRATURE_AGREEMENT`). These checks wait for the device.

    Source: Kullback and Leibler, "On Information and Sufficiency", 1951; Arjovsky, Chintala and Bottou, "Wasserstein
    GAN", 2017, section 2.
    """
    p, q, weights = _distributions(p, q, weights, log)
    if log:
        return _integral(_relative_entropy_of_logs(p, q, _log_ratio(p, q)), weights)
    return _integral(_relative_entropy(p, q, q - p, weights), weights)


def js_divergence(p: Tensor, q: Tensor, *, weights: Tensor | None = None, log: bool = False) -> Tensor:
    r"""The Jensen-Shannon divergence, in nats.

    .. math:: \mathrm{JS}(p, q) = \tfrac{1}{2} \mathrm{KL}(p \| m) + \tfrac{1}{2} \mathrm{KL}(q \| m), \qquad
              m = \tfrac{1}{2} (p + q)

    Symmetric, finite, and at most log 2, the value for distributions that share no mass. (It scales with the total, so
    it may exceed log 2 by as much as a total exceeds one.)

    Arguments, result, derivatives and errors are those of :func:`kl_divergence`.

    Source: Goodfellow et al., "Generative Adversarial Networks", 2014, section 4.1.
    """
    p, q, weights = _distributions(p, q, weights, log)
    if log:
        ratios = (_log_ratio_to_middle(_log_ratio(p, q)), _log_ratio_to_middle(_log_ratio(q, p)))
        middle = _log_middle(p, q)
        halves = [_relative_entropy_of_logs(one, middle, ratio) for one, ratio in zip((p, q), ratios, strict=True)]
        return _integral(halves[0] + halves[1], weights) / 2
    both = p + q  # not halved, since half of the smallest positive number is rounded to zero
    terms = _relative_entropy(2 * p, both, q - p, weights) + _relative_entropy(2 * q, both, p - q, weights)
    return _integral(terms, weights) / 4


def total_variation(p: Tensor, q: Tensor, *, weights: Tensor | None = None, log: bool = False) -> Tensor:
    r"""The total variation distance: the largest difference of the probabilities of one event.

    .. math:: \mathrm{TV}(p, q) = \sup_A |P(A) - Q(A)| = \tfrac{1}{2} \sum_i w_i |p_i - q_i|

    Arguments, result and errors are those of :func:`kl_divergence`. Differentiable; where p equals q the
    derivative is 0, a subgradient. All second derivatives with respect to ``p`` and ``q`` are 0.

    Source: Arjovsky, Chintala and Bottou, "Wasserstein GAN", 2017, section 2.
    """
    p, q, weights = _distributions(p, q, weights, log)
    if log:
        return _integral(torch.maximum(p, q).exp() * -torch.expm1(-_log_ratio(p, q).abs()), weights) / 2
    return _integral((p - q).abs(), weights) / 2


def earth_movers_distance_1d(
    x: Tensor, y: Tensor, x_weights: Tensor | None = None, y_weights: Tensor | None = None, *, power: float = 1.0
) -> Tensor:
    r"""The Wasserstein distance of points on a line, in closed form, by their quantile functions.

    .. math:: W_p = \left( \int_0^1 \left| F_x^{-1}(u) - F_y^{-1}(u) \right|^p du \right)^{1/p}

    Args:
        x: points of shape (..., n), in float16, bfloat16, float32 or float64; leading dimensions are batch dimensions
            and broadcast.
        y: points of shape (..., m), of the same type and device.
        x_weights, y_weights: the mass at each point, of shape (n,) or (..., n), and (m,) or (..., m), of the same type
            and device. Both must have the same total T, which multiplies :math:`W_p^p`; for distributions T = 1. None:
            equal masses, with the total of the other set, or 1.
        power: :math:`p`, at least 1.

    Returns:
        The distance of each pair, of shape (...); float32 for 16-bit types, else of their type.

    Differentiable in the points; where two of them, or both distributions, coincide, the derivative is a subgradient.
    Differentiable in the weights along changes that leave both totals equal. Second derivatives are right wherever the
    order of points and levels does not change nearby. Neither large nor small coordinates overflow in the power.

    Raises:
        TypeError: an argument is no tensor of a floating-point type, types differ, or the power is no number.
        ValueError: shapes do not fit, devices differ, there is no point, a point is not finite, a weight is negative or
            not finite, all are zero, the totals differ (by more than :data:`TOTAL_TOLERANCE`), or the power is less
            than 1. These checks wait for the device.

    Source: Villani, "Topics in Optimal Transportation", 2003, theorem 2.18 and remark 2.19.
    """
    check_number("power", power, minimum=1.0)
    _check_points(x, y)
    masses = _masses(x_weights, y_weights, "x", x, x.shape[-1], y.shape[-1])
    batch = _broadcast("y", y.shape[:-1], x.shape[:-1])
    if masses is not None:
        for name, weights in zip(("x_weights", "y_weights"), masses, strict=True):
            batch = _broadcast(name, weights.shape[:-1], batch)
        masses = masses[0].expand(*batch, x.shape[-1]), masses[1].expand(*batch, y.shape[-1])
    x, y = (points.to(accumulate_dtype(points.dtype)).expand(*batch, points.shape[-1]) for points in (x, y))
    return _norm(*_quantile_gaps(x, y, masses), power)


def transport_plan(cost: Tensor, x_weights: Tensor | None = None, y_weights: Tensor | None = None) -> TransportPlan:
    r"""The optimal transport plan from n places to m others, exactly, by linear programming.

    .. math:: \min_{\gamma \ge 0} \sum_{ij} \gamma_{ij} c_{ij} \quad \text{where} \quad
              \sum_j \gamma_{ij} = a_i, \; \sum_i \gamma_{ij} = b_j

    Args:
        cost: :math:`c`, of shape (n, m), in float16, bfloat16, float32 or float64: the cost of moving a unit of mass.
        x_weights: the masses :math:`a`, of shape (n,), of the same type and device, not negative.
        y_weights: the masses :math:`b`, of shape (m,), with the same total. None: equal masses, with the total of the
            other set, or 1.

    Returns:
        A :class:`TransportPlan`: the plan and its cost; float32 for 16-bit types, otherwise the type of ``cost``. The
        plan's marginals are checked, and its cost is compared with that of the dual program, which proves optimality.

    The cost is differentiable by the envelope theorem. Its derivative with respect to :math:`c` is the plan, treated as
    constant. Its derivative with respect to the masses is an optimal pair of dual potentials :math:`(u, v)`, with
    :math:`u_i + v_j \le c_{ij}`, valid for changes that keep both totals equal. Where several plans or potentials are
    optimal, these are subgradients.

    Second derivatives take the plan and the potentials for constants. This is right for the costs alone and for the
    masses alone, wherever the optimal plan and potentials do not change nearby; the mixed ones, by a mass and a cost,
    are 0 here and are not 0.

    Solved on the CPU in float64, in memory for about 6 n m numbers; plan and cost are on the device of ``cost``.

    Raises:
        TypeError: an argument is no tensor of a floating-point type, or the types differ.
        ValueError: shapes do not fit, devices differ, a cost is not finite, a weight is negative or not finite, all are
            zero, or the totals differ (by more than :data:`TOTAL_TOLERANCE`).
        ImportError: POT is not installed.
        RuntimeError: the solver failed.

    Source: Villani, "Topics in Optimal Transportation", 2003, section 1.1; the network simplex of POT: Bonneel et al.,
    "Displacement Interpolation Using Lagrangian Mass Transport", 2011.

    Example:
        >>> plan, cost = transport_plan(torch.tensor([[1.0, 2.0], [4.0, 1.0]]))
        >>> cost.item()
        1.0
    """
    check_tensor("cost", cost)
    _check_has_values("cost", cost)
    if cost.dim() != 2:
        raise ArgumentValueError("cost", f"expected a matrix of shape (n, m), got shape {tuple(cost.shape)}")
    _check_finite("cost", cost)
    masses = _masses_of_sets(x_weights, y_weights, "cost", cost, *cost.shape)
    cost = cost.to(accumulate_dtype(cost.dtype))
    masses = masses or (cost.new_full((len(cost),), 1 / len(cost)), cost.new_full((cost.shape[1],), 1 / cost.shape[1]))
    scratch = cost.detach().cpu().to(torch.float64, copy=True).numpy()
    solution = _solve(scratch, *(mass.detach().cpu().double().numpy() for mass in masses))
    plan = torch.zeros(cost.shape, dtype=torch.float64)
    plan[solution.rows, solution.columns] = torch.from_numpy(solution.masses)
    plan = plan.to(cost.dtype).to(cost.device)
    return TransportPlan(plan, _with_potentials((plan * cost).sum(), masses, solution))


def earth_movers_distance(
    x: Tensor, y: Tensor, x_weights: Tensor | None = None, y_weights: Tensor | None = None
) -> Tensor:
    r"""The exact Wasserstein-1 distance between two sets of points, with the Euclidean distance as the cost.

    .. math:: W = \min_\gamma \sum_{ij} \gamma_{ij} \lVert x_i - y_j \rVert_2

    over all plans :math:`\gamma \ge 0` that have the masses as marginals.

    Args:
        x: points of shape (..., n, d), in float16, bfloat16, float32 or float64; leading dimensions are batch
            dimensions and broadcast. The pairs of a batch are solved one after the other.
        y: points of shape (..., m, d), of the same type and device.
        x_weights, y_weights: the masses, of shape (n,) or (..., n), and (m,) or (..., m), with the same total; None as
            for :func:`transport_plan`. A distance of distributions wants a total of 1.

    Returns:
        The distance of each pair, of shape (...), on the device of ``x``; float32 for 16-bit types, else of their type.
        It is solved on the CPU in float64, in the memory that POT takes: about 40 n m bytes, 4 GB for 10,000 points
        each. For more points see :func:`sinkhorn_distance` and :func:`sliced_wasserstein`.

    Differentiable in the points through the distances of the plan's pairs, with the plan as a constant: by the envelope
    theorem this is the full derivative where the optimal plan is unique. Elsewhere it is a subgradient, and 0 for a
    pair that coincides. Second derivatives in the points are right wherever the plan does not change nearby. For the
    masses see :func:`transport_plan`.

    Raises:
        TypeError: an argument is no tensor of a floating-point type, or the types differ.
        ValueError: shapes do not fit, devices differ, there is no point, a point is not finite, or the weights are
            invalid for :func:`transport_plan`.
        ImportError: POT is not installed.
        RuntimeError: the solver failed.

    Source: Arjovsky, Chintala and Bottou, "Wasserstein GAN", 2017, equation 1.
    """
    _check_point_sets(x, y, batched=True)
    given = _masses(x_weights, y_weights, "x", x, x.shape[-2], y.shape[-2])
    x, y = (points.to(accumulate_dtype(points.dtype)) for points in (x, y))
    a, b = given or tuple(points.new_full(points.shape[-2:-1], 1 / points.shape[-2]) for points in (x, y))
    batch = _broadcast("y", y.shape[:-2], x.shape[:-2])
    for name, masses in (("x_weights", a), ("y_weights", b)):
        batch = _broadcast(name, masses.shape[:-1], batch)
    x, y = (points.expand(*batch, *points.shape[-2:]).flatten(0, -3) if batch else points[None] for points in (x, y))
    a, b = (masses.expand(*batch, masses.shape[-1]).flatten(0, -2) if batch else masses[None] for masses in (a, b))
    pairs = [_distance_of_sets(i, j, (p, q)) for i, j, p, q in zip(x, y, a, b, strict=True)]
    return torch.stack(pairs).reshape(batch) if pairs else x.new_zeros(batch)


def sinkhorn_distance(
    x: Tensor,
    y: Tensor,
    x_weights: Tensor | None = None,
    y_weights: Tensor | None = None,
    *,
    regularization: float = 0.05,
    iterations: int = 1000,
) -> Tensor:
    r"""The cost of the transport plan that is optimal with an entropic term, for sets too large for
    :func:`earth_movers_distance`: memory grows as n + m.

    .. math:: \sum_{ij} \gamma^\varepsilon_{ij} \lVert x_i - y_j \rVert_2, \qquad \gamma^\varepsilon =
              \operatorname{argmin}_\gamma \sum_{ij} \gamma_{ij} \lVert x_i - y_j \rVert_2 +
              \varepsilon \, \mathrm{KL}(\gamma \| a b^\top)

    It lies between W, the exact distance, and :math:`W + \varepsilon \min(H(a), H(b))`, where H is the entropy: at most
    :math:`\varepsilon \log \min(n, m)` above W. It is no distance: between a set and itself it is positive.

    Args:
        x: points of shape (n, d), in float16, bfloat16, float32 or float64.
        y: points of shape (m, d), of the same type and device.
        x_weights, y_weights: the masses, as for :func:`earth_movers_distance`, with a total of 1, of shape (n,), (m,).
        regularization: :math:`\varepsilon`, in the unit of the points, positive. The smaller, the more iterations.
        iterations: at most so many, of n m operations each; they stop when the marginals are off by 1e-6.

    Returns:
        A scalar on the device of ``x``, without derivatives; float32 for 16-bit types, else of their type. Solved on
        the CPU by POT, in the logarithmic domain.

    Raises:
        TypeError, ValueError: as :func:`earth_movers_distance`; the masses sum to no one, or a number is not positive.
        ImportError: POT is not installed.
        RuntimeError: the iterations did not suffice.

    Source: Cuturi, "Sinkhorn Distances: Lightspeed Computation of Optimal Transport", 2013.
    """
    check_number("regularization", regularization, above=0.0)
    check_integer("iterations", iterations, 1)
    _check_point_sets(x, y)
    given = _masses_of_sets(x_weights, y_weights, "x", x, len(x), len(y))
    dtype, device = accumulate_dtype(x.dtype), x.device
    x, y = (points.detach().cpu().double() for points in (x, y))
    masses = (
        [mass.detach().cpu().double() for mass in given]
        if given
        else [points.new_full((len(points),), 1 / len(points)) for points in (x, y)]
    )
    for name, mass in zip(("x_weights", "y_weights"), masses, strict=True):
        _check_totals(name, "expected masses that sum to one", mass.sum(), 1.0, TOTAL_TOLERANCE[dtype])
    (x, a), (y, b) = (
        (points[mass > 0], mass[mass > 0] / mass.sum()) for points, mass in zip((x, y), masses, strict=True)
    )
    scale = _scale(x, y, torch.float64)
    x, y, regularization = x / scale, y / scale, regularization / scale
    try:
        from ot.bregman import empirical_sinkhorn
    except ModuleNotFoundError as error:
        if error.name not in ("ot", "ot.bregman"):
            raise
        raise _pot_is_missing() from error
    f, g, log = empirical_sinkhorn(
        x.numpy(), y.numpy(), regularization, a.numpy(), b.numpy(), metric="euclidean", numIterMax=iterations,
        stopThr=1e-6, isLazy=True, batchSize=_BLOCK, log=True, warn=False,
    )  # fmt: skip
    if not log["err"] or not log["err"][-1] <= 1e-6:
        off = f"{log['err'][-1]:.1e}" if log["err"] else "not known yet"
        raise RuntimeError(
            f"sinkhorn_distance: after {iterations} iterations the marginals are off by {off}; "
            "give more iterations or a larger regularization"
        )
    value, g = 0.0, torch.from_numpy(g)
    for points, potential in zip(x.split(_BLOCK), torch.from_numpy(f).split(_BLOCK), strict=True):
        cost = torch.cdist(points, y, compute_mode="donot_use_mm_for_euclid_dist")
        value += (cost * (potential[:, None] + g - cost / regularization).exp()).sum().item()
    return torch.tensor(value * scale, dtype=dtype, device=device)


def sliced_wasserstein(
    x: Tensor,
    y: Tensor,
    *,
    projections: int = 128,
    power: float = 1.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""The sliced Wasserstein distance between two sets of points: the mean of the distances of their projections.

    .. math:: \mathrm{SW}_p = \left( \frac{1}{K} \sum_k W_p(\langle \theta_k, x \rangle,
              \langle \theta_k, y \rangle)^p \right)^{1/p}

    with K directions :math:`\theta_k`, uniform on the unit sphere. At most the Wasserstein distance itself, and cheap:
    :math:`O(K n \log n)`.

    Args:
        x: points of shape (n, d), in float16, bfloat16, float32 or float64.
        y: points of shape (m, d), of the same type and device.
        projections: :math:`K`, at least 1.
        power: :math:`p`, at least 1.
        generator: draws the directions, on the device of ``x``; PyTorch's default generator of the device if None.

    Returns:
        A scalar; float32 for 16-bit types, else of their type. Differentiable in the points, as
        :func:`earth_movers_distance_1d`.

    Raises:
        TypeError: an argument is of the wrong type, or the types differ.
        ValueError: shapes or devices differ, there is no point, a point is not finite, or a number is less than 1.

    Source: Bonneel et al., "Sliced and Radon Wasserstein Barycenters of Measures", 2015, section 3.
    """
    check_integer("projections", projections, 1)
    check_number("power", power, minimum=1.0)
    _check_point_sets(x, y)
    check_generator("generator", generator, "x", x)
    x, y = (points.to(accumulate_dtype(points.dtype)) for points in (x, y))
    directions = torch.randn(projections, x.shape[1], generator=generator, device=x.device, dtype=x.dtype)
    directions = F.normalize(directions, dim=1)
    with without_autocast(x.device.type):
        masses, gaps = _quantile_gaps(directions @ x.T, directions @ y.T, None)
    return _norm((masses / projections).flatten(), gaps.flatten(), power)


# Divergences ------------------------------------------------------------------------------------------------------


#: Points of a set that are compared with all of the other set at once.
_BLOCK = 512
#: Below this |d| the formula that cancels, d - log(1 + d), is replaced.
_NEAR = 0.25


def _excess(d: Tensor) -> Tensor:
    """d - log(1 + d), for |d| of at most about 1/4, to full precision: with r = d / (2 + d), log(1 + d) is 2 atanh(r),
    and d - 2 r = r d. The 9 terms of the series that are kept reach the precision of float64.
    """
    r = d / (2 + d)
    square = r * r
    series = torch.full_like(d, 1 / 19)
    for k in range(8, 0, -1):
        series = series * square + 1 / (2 * k + 1)
    return r * (d - 2 * square * series)


def _relative_entropy(p: Tensor, q: Tensor, difference: Tensor, weights: Tensor | None) -> Tensor:
    """p log(p/q) - p + q for each point, given q - p. What a branch does not use is replaced by numbers that have no
    derivative.
    """
    support = p > 0 if weights is None else (p > 0) & (weights > 0)
    near = support & (difference.abs() < _NEAR * p)
    close = p * _excess(torch.where(near, difference, 0.0) / torch.where(near, p, 1.0))
    far = support & ~near & (q > 0)
    p_far, q_far = torch.where(far, p, 1.0), torch.where(far, q, 1.0)
    apart = p_far * (p_far.log() - q_far.log()) + difference
    outside = torch.where(q > 0, q, 0.0).masked_fill(support, math.inf)
    return torch.where(near, close, torch.where(far, apart, outside))


def _relative_entropy_of_logs(log_p: Tensor, log_q: Tensor, log_ratio: Tensor) -> Tensor:
    """The same from log p, log q and log q - log p."""
    support = log_p > -math.inf
    near = support & (log_ratio.abs() < 0.2)  # exp(0.2) - 1 < 1/4
    p, q = log_p.exp(), log_q.exp()
    close = p * _excess(torch.expm1(torch.where(near, log_ratio, 0.0)))
    far = support & ~near & (log_q > -math.inf)
    apart = q - p - p * torch.where(far, log_ratio, 0.0)
    outside = q.masked_fill(support, math.inf)
    return torch.where(near, close, torch.where(far, apart, outside))


def _log_ratio(log_p: Tensor, log_q: Tensor) -> Tensor:
    """log q - log p, and 0 where both are minus infinity."""
    somewhere = (log_p > -math.inf) | (log_q > -math.inf)
    return torch.where(somewhere, log_q, 0.0) - torch.where(somewhere, log_p, 0.0)


def _log_ratio_to_middle(log_ratio: Tensor) -> Tensor:
    """log m - log p, from log q - log p."""
    positive = log_ratio > 0
    half = torch.log1p(torch.expm1(torch.where(positive, -log_ratio, log_ratio)) / 2)
    return torch.where(positive, log_ratio, 0.0) + half


def _log_middle(log_p: Tensor, log_q: Tensor) -> Tensor:
    somewhere = (log_p > -math.inf) | (log_q > -math.inf)
    both = torch.logaddexp(torch.where(somewhere, log_p, 0.0), torch.where(somewhere, log_q, 0.0)) - math.log(2)
    return torch.where(somewhere, both, -math.inf)


def _integral(values: Tensor, weights: Tensor | None) -> Tensor:
    return values.sum(-1) if weights is None else (weights * values).sum(-1)


def _distributions(p: Any, q: Any, weights: Any, log: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """The arguments, checked and converted to the type of the arithmetic; p and q stay logarithms where they are."""
    _check_kind("p", p)
    given = {"p": p, "q": q} if weights is None else {"p": p, "q": q, "weights": weights}
    batch: torch.Size | None = None
    for name, values in given.items():
        _check_kind(name, values, "p", p)
        if values.shape[-1] != p.shape[-1]:
            raise ArgumentValueError(name, f"expected shape (..., {p.shape[-1]}) as of p, got {tuple(values.shape)}")
        batch = values.shape[:-1] if batch is None else _broadcast(name, values.shape[:-1], batch)
    for name, values in given.items():
        if log and name != "weights":
            _check_logarithms(name, values)
        else:
            _check_masses(name, values)
    rounding, dtype = TOTAL_TOLERANCE[p.dtype], accumulate_dtype(p.dtype)
    p, q = p.to(dtype), q.to(dtype)
    p_masses, q_masses = (p.detach().exp(), q.detach().exp()) if log else (p, q)
    if weights is None:
        _check_totals("p", "expected probabilities that sum to one", p_masses.sum(-1), 1.0, rounding)
        _check_totals("q", "expected probabilities that sum to one", q_masses.sum(-1), 1.0, rounding)
        return p, q, None
    weights = weights.to(dtype)
    p_total, q_total = _integral(p_masses, weights), _integral(q_masses, weights)
    tolerance = max(QUADRATURE_TOLERANCE, rounding)
    _check_totals("p", "expected a density that integrates to one", p_total, 1.0, tolerance)
    _check_totals("q", "expected a density that integrates to one", q_total, 1.0, tolerance)
    _check_totals("q", "expected the integral of p", q_total, p_total, max(QUADRATURE_AGREEMENT, rounding))
    return p, q, weights


# Transport --------------------------------------------------------------------------------------------------------


def _quantile_gaps(x: Tensor, y: Tensor, masses: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
    """For points (..., n) and (..., m) of the same leading dimensions: masses (..., k), and how far each moves."""
    n, m = x.shape[-1], y.shape[-1]
    (x, x_order), (y, y_order) = x.sort(-1), y.sort(-1)
    if masses is None:
        if n == m:
            return torch.full_like(x, 1 / n), (x - y).abs()
        masses = torch.full_like(x, 1 / n), torch.full_like(y, 1 / m)
    x_masses, y_masses = masses
    x_levels, y_levels = x_masses.gather(-1, x_order).cumsum(-1), y_masses.gather(-1, y_order).cumsum(-1)
    total = (x_levels[..., -1:] + y_levels[..., -1:]) / 2
    x_levels, y_levels = x_levels / x_levels[..., -1:], y_levels / y_levels[..., -1:]
    # Both quantile functions are constant between two neighbouring levels.
    levels = torch.cat([x_levels, y_levels], -1).sort(-1).values
    widths = levels.diff(dim=-1, prepend=torch.zeros_like(levels[..., :1]))
    x_quantiles = x.gather(-1, _quantile_indices(x_levels, levels))
    y_quantiles = y.gather(-1, _quantile_indices(y_levels, levels))
    return total * widths, (x_quantiles - y_quantiles).abs()


def _quantile_indices(cumulative: Tensor, levels: Tensor) -> Tensor:
    indices = torch.searchsorted(cumulative.detach().contiguous(), levels.detach().contiguous())
    return indices.clamp(max=cumulative.shape[-1] - 1)  # rounding may put a level beyond the last


def _norm(masses: Tensor, gaps: Tensor, power: float) -> Tensor:
    """(sum masses * gaps^power)^(1/power), with derivative 0 at 0. The largest gap is taken out of the sum, since its
    power may be too large or too small a number.
    """
    if power == 1:
        return (masses * gaps).sum(-1)
    scale = torch.where(masses > 0, gaps, 0.0).detach().amax(-1, keepdim=True)
    positive = scale > 0
    scale = torch.where(positive, scale, 1.0)
    # Where there is no mass a gap may be larger, for the derivative by the mass.
    cost = (masses * (gaps / scale).clamp(max=2.0 ** (60 / power)).pow(power)).sum(-1)
    positive, scale = positive.squeeze(-1), scale.squeeze(-1)
    return torch.where(positive, torch.where(positive, cost, 1.0).pow(1 / power) * scale, 0.0)


_Array = npt.NDArray[np.float64]


class _Solution(NamedTuple):
    """An optimal plan and its proof."""

    rows: npt.NDArray[np.int64]  #: where mass is moved from, at most n + m - 1 entries
    columns: npt.NDArray[np.int64]  #: where to
    masses: _Array
    u: _Array  #: optimal dual potentials
    v: _Array


def _with_potentials(cost: Tensor, masses: tuple[Tensor, Tensor], solution: _Solution) -> Tensor:
    """The cost, plus 0 that has the potentials as its derivative by the masses."""
    for potential, mass in zip((solution.u, solution.v), masses, strict=True):
        if mass.requires_grad:
            cost = cost + (torch.from_numpy(potential).to(cost) * (mass - mass.detach())).sum()
    return cost


def _distance_of_sets(x: Tensor, y: Tensor, masses: tuple[Tensor, Tensor]) -> Tensor:
    """The exact distance between points (n, d) and (m, d). Only the pairs of the plan are kept for the derivative."""
    a, b = x.detach().cpu().double(), y.detach().cpu().double()
    scale = _scale(a, b, x.dtype)
    # A matrix product would round away the distances of close points.
    cost = torch.cdist(a / scale, b / scale, compute_mode="donot_use_mm_for_euclid_dist").numpy()
    solution = _solve(cost, *(mass.detach().cpu().double().numpy() for mass in masses))
    u, v = solution.u * scale, solution.v * scale
    rows, columns, moved = (torch.from_numpy(array).to(x.device) for array in solution[:3])
    gaps = x[rows] / scale - y[columns] / scale
    away = gaps.detach().abs().amax(1) > 0  # a pair that coincides has distance and derivative 0
    lengths = gaps[away].norm(dim=1)
    value = (moved[away].to(lengths.dtype) * lengths).sum() * scale
    return _with_potentials(value, masses, solution._replace(u=u, v=v))


def _scale(x: Tensor, y: Tensor, dtype: torch.dtype) -> float:
    """A power of two of about the points' spread, exact in ``dtype``; divided by it, squares keep their digits."""
    spread = (torch.maximum(x.amax(0), y.amax(0)) - torch.minimum(x.amin(0), y.amin(0))).max().item()
    largest = math.frexp(torch.finfo(dtype).max)[1] - 1
    return float(2.0 ** min(math.frexp(spread)[1] - 1, largest) if math.isfinite(spread) else 2.0**largest)


def _solve(cost: _Array, x_masses: _Array, y_masses: _Array) -> _Solution:
    """Solves the transport by POT, and proves that the solution is optimal. ``cost`` is overwritten."""
    try:
        import ot
    except ModuleNotFoundError as error:
        if error.name != "ot":
            raise
        raise _pot_is_missing() from error
    # The solver's tolerances are absolute.
    scale, total = max(cost.max(), -cost.min()) or 1.0, x_masses.sum()
    cost /= scale
    x_masses, y_masses = x_masses / total, y_masses / y_masses.sum()
    plan, log = ot.emd(x_masses, y_masses, cost, numItermax=10_000_000, log=True)
    if log["warning"] is not None:
        raise RuntimeError(f"transport_plan: the solver of POT failed: {log['warning']}")
    rows, columns = plan.nonzero()
    masses = plan[rows, columns]
    del plan
    # The largest feasible potentials. The solver's are already these, except at places without mass. Blocks of rows
    # need no second matrix.
    v, u, given = np.full(len(y_masses), np.inf), np.empty(len(x_masses)), x_masses > 0
    blocks = [slice(start, start + 256) for start in range(0, len(u), 256)]
    for block in blocks:
        if given[block].any():
            v = np.minimum(v, (cost[block][given[block]] - log["u"][block][given[block], None]).min(axis=0))
    for block in blocks:
        u[block] = (cost[block] - v).min(axis=1)
    off = max(
        np.abs(np.bincount(rows, masses, len(x_masses)) - x_masses).max(),
        np.abs(np.bincount(columns, masses, len(y_masses)) - y_masses).max(),
    )
    gap = masses @ cost[rows, columns] - (u @ x_masses + v @ y_masses)
    if not (off <= 1e-9 and gap <= 1e-9 and masses.min() >= 0):
        raise RuntimeError(
            f"transport_plan: the solver of POT returned no solution: marginals are off by {off:.1e}, "
            f"and the gap to the dual is {gap:.1e} of the largest cost"
        )
    return _Solution(rows, columns, masses * total, u * scale, v * scale)


def _pot_is_missing() -> ImportError:
    return ImportError("wgan_fast.distances: this distance needs POT: pip install pot", name="ot")


# Checks -----------------------------------------------------------------------------------------------------------


def _check_kind(name: str, value: Any, like_name: str = "", like: Tensor | None = None) -> None:
    """Checks for a tensor of shape (..., n), on the device and of the type of ``like``."""
    check_tensor(name, value)
    if value.dim() == 0:
        raise ArgumentValueError(name, "expected shape (..., n), got a scalar")
    if like is not None:
        check_same_device(name, value, like_name, like)
        if value.dtype != like.dtype:
            raise ArgumentTypeError(name, f"expected {like.dtype} as of {like_name}, got {value.dtype}")
    _check_has_values(name, value)


def _check_has_values(name: str, value: Tensor) -> None:
    if value.is_meta:
        raise ArgumentValueError(name, "expected numbers, got a tensor on the device meta, which has none")


def _check_finite(name: str, value: Tensor) -> None:
    finite = value.detach().isfinite()
    if not finite.all():
        raise ArgumentValueError(name, f"expected finite numbers, got {value.detach()[~finite][0].item()}")


def _check_masses(name: str, masses: Tensor) -> None:
    _check_finite(name, masses)
    lowest = masses.detach().min().item()
    if lowest < 0:
        raise ArgumentValueError(name, f"expected no negative mass, got {lowest:g}")


def _check_logarithms(name: str, values: Tensor) -> None:
    bad = values.detach().isnan() | (values.detach() == math.inf)
    if bad.any():
        raise ArgumentValueError(name, f"expected logarithms below infinity, got {values.detach()[bad][0].item()}")


def _check_totals(name: str, expected: str, totals: Tensor, wanted: Tensor | float, tolerance: float) -> None:
    """``expected`` begins the message; ``tolerance`` is relative."""
    goals = torch.as_tensor(wanted, device=totals.device).detach().to(totals.dtype)
    totals, goals = torch.broadcast_tensors(totals.detach(), goals)
    off = (totals - goals).abs() > tolerance * goals
    if off.any():
        goal, total = goals[off][0], totals[off][0]
        raise ArgumentValueError(name, f"{expected}, {goal:.6g} within {tolerance:.0e}, got {total:.6g}")


def _broadcast(name: str, batch: torch.Size, others: torch.Size) -> torch.Size:
    """The broadcast leading dimensions."""
    try:
        return torch.broadcast_shapes(batch, others)
    except RuntimeError:
        raise ArgumentValueError(
            name, f"expected leading dimensions that broadcast with {tuple(others)}, got {tuple(batch)}"
        ) from None


def _check_points(x: Any, y: Any) -> None:
    _check_kind("x", x)
    _check_kind("y", y, "x", x)
    _check_finite("x", x)
    _check_finite("y", y)


def _check_point_sets(x: Any, y: Any, *, batched: bool = False) -> None:
    """Checks for shapes (n, d) and (m, d), with leading dimensions if ``batched``."""
    _check_points(x, y)
    shape = "(..., n, d)" if batched else "(n, d)"
    for name, points in (("x", x), ("y", y)):
        if points.dim() < 2 or (points.dim() > 2 and not batched):
            raise ArgumentValueError(name, f"expected points of shape {shape}, got shape {tuple(points.shape)}")
    if y.shape[-1] != x.shape[-1]:
        raise ArgumentValueError(
            "y", f"expected points of {x.shape[-1]} coordinates as of x, got shape {tuple(y.shape)}"
        )


def _masses_of_sets(
    x_weights: Any, y_weights: Any, like_name: str, like: Tensor, n: int, m: int
) -> tuple[Tensor, Tensor] | None:
    """As :func:`_masses`, of shapes (n,) and (m,)."""
    for name, weights, count in (("x_weights", x_weights, n), ("y_weights", y_weights, m)):
        if isinstance(weights, Tensor) and weights.dim() != 1:
            raise ArgumentValueError(name, f"expected shape ({count},), got {tuple(weights.shape)}")
    return _masses(x_weights, y_weights, like_name, like, n, m)


def _masses(
    x_weights: Any, y_weights: Any, like_name: str, like: Tensor, n: int, m: int
) -> tuple[Tensor, Tensor] | None:
    """The masses of both sets, of shapes (..., n) and (..., m), checked and in the type of the arithmetic. None: equal
    masses that sum to 1 in both sets.
    """
    given: list[Tensor | None] = []
    for name, weights, count in (("x_weights", x_weights, n), ("y_weights", y_weights, m)):
        if weights is not None:
            _check_kind(name, weights, like_name, like)
            if weights.shape[-1] != count:
                raise ArgumentValueError(
                    name, f"expected {count} masses as of {like_name}, got shape {tuple(weights.shape)}"
                )
            _check_masses(name, weights)
            weights = weights.to(accumulate_dtype(weights.dtype))
            if not (weights.detach().sum(-1) > 0).all():
                raise ArgumentValueError(name, "expected a positive total, got 0")
        given.append(weights)
    x_masses, y_masses = given
    if x_masses is None:
        if y_masses is None:
            return None
        return (y_masses.sum(-1, keepdim=True) / n).expand(*y_masses.shape[:-1], n), y_masses
    if y_masses is None:
        return x_masses, (x_masses.sum(-1, keepdim=True) / m).expand(*x_masses.shape[:-1], m)
    _broadcast("y_weights", y_masses.shape[:-1], x_masses.shape[:-1])
    totals, wanted = y_masses.sum(-1), x_masses.sum(-1)
    _check_totals("y_weights", "expected the total of x_weights", totals, wanted, TOTAL_TOLERANCE[like.dtype])
    return x_masses, y_masses
