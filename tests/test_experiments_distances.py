"""The experiments on distances and divergences: their small versions, and the functions that measure."""

import math

import pytest
import torch

pytest.importorskip("ot", reason="the extra wgan_fast[train] is not installed")
pytest.importorskip("matplotlib", reason="the extra wgan_fast[train] is not installed")

from wgan_fast.experiments import (
    continuity,
    duality,
    mode_seeking,
    optimal_discriminator,
    parallel_lines,
    transport_plans,
)
from wgan_fast.experiments.claim import Finding


def measured(finding: Finding) -> list[float]:
    return [number.measured for number in finding.numbers]


# Transport plans --------------------------------------------------------------------------------------------------


def test_plans_and_their_costs() -> None:
    first, in_order, reverse, off, to_10, *notes, cheapest, dearest, exact, excess, mixed, line, error = measured(
        transport_plans.run(0, small=True)
    )
    assert off == 0 and to_10 == 2 and notes == [42, 42]
    assert (first, in_order, reverse, cheapest, dearest) == (6, 42, 42, 42, 42)
    assert exact == pytest.approx(42)
    assert excess == 24
    assert mixed == pytest.approx(9) and line == pytest.approx(9)
    assert error < 1e-5


def test_the_solvers_plan_is_an_assignment_of_whole_boxes() -> None:
    plan, _ = transport_plans.exact(transport_plans.MIXED_BOXES, transport_plans.MIXED_PLACES)
    torch.testing.assert_close(plan.sum(0), torch.ones(6))
    torch.testing.assert_close(plan, plan.round())


def test_a_table_sums_the_boxes_of_one_position() -> None:
    table, positions = transport_plans.by_place(torch.arange(6.0).reshape(3, 2), 0, torch.tensor([2.0, 1.0, 2.0]))
    assert positions == [1, 2]
    assert table.tolist() == [[2, 3], [4, 6]]


# The optimal discriminator ----------------------------------------------------------------------------------------


def test_optimised_discriminators_are_the_formula() -> None:
    numbers = measured(optimal_discriminator.run(0, small=True))
    error, gap, trained_error, reached, bound_kept, mean, deviation, least = numbers
    assert error < 1e-4
    assert gap == pytest.approx(0, abs=1e-8)
    assert 0 < trained_error < 0.03
    # 2 JS - 2 log 2 is between -2 log 2 (the same distribution) and 0 (nothing in common).
    assert -1.3 < reached == bound_kept < -0.7
    assert mean == pytest.approx(0, abs=1e-4) and deviation == pytest.approx(1, abs=1e-4)
    assert least == pytest.approx(-math.log(4), abs=1e-8)


def test_value_of_a_discriminator_that_knows_nothing() -> None:
    p, q = torch.tensor([0.2, 0.8]), torch.tensor([0.6, 0.4])
    assert optimal_discriminator.value(torch.zeros(2), p, q).item() == pytest.approx(-math.log(4))
    better = optimal_discriminator.value((p / q).log(), p, q)
    assert better > optimal_discriminator.value((p / q).log() + 0.1, p, q) > -math.log(4)


# Parallel lines ---------------------------------------------------------------------------------------------------


def test_only_w_tells_how_far_the_lines_are_apart() -> None:
    numbers = measured(parallel_lines.run(0, small=True))
    least_js, greatest_js, js_at_0, kl, reversed_kl, tv, w_error, critic, biased, learnt, at_most, at_0 = numbers
    assert least_js == greatest_js == pytest.approx(math.log(2))
    assert js_at_0 == 0
    assert kl == reversed_kl == math.inf
    assert tv == pytest.approx(1)
    assert w_error < 1e-6
    assert critic < 0.1 and biased < 0.05
    assert 0.6 < learnt <= at_most <= math.log(2) + 1e-6
    assert at_0 == pytest.approx(0, abs=0.05)


def test_each_line_fills_a_column_of_its_own() -> None:
    p = parallel_lines.probabilities()
    torch.testing.assert_close(p.sum(1), torch.ones(len(p), dtype=torch.float64))
    assert ((p > 0).sum(0) == 1).all()


# Continuity -------------------------------------------------------------------------------------------------------


def test_w_has_slopes_where_js_jumps() -> None:
    *exact, steepest, right, left, derivative, js_at_0, jump, js_slope = measured(continuity.run(0, small=True))
    assert exact[:3] == pytest.approx([1e-4, 100, 1])
    lipschitz = continuity.curve(60).norm(dim=1).mean().item()
    assert 0 < steepest <= lipschitz + 1e-6
    assert right == pytest.approx(lipschitz, abs=1e-3) and left == pytest.approx(-lipschitz, abs=1e-3)
    assert 0.3 < derivative < lipschitz
    assert js_at_0 == 0
    assert jump == pytest.approx(math.log(2), abs=0.02)
    assert js_slope == pytest.approx(0, abs=0.01)


def test_turned() -> None:
    quarter = torch.tensor(math.pi / 2, dtype=torch.float64)
    points = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    torch.testing.assert_close(continuity.turned(points, quarter), points.new_tensor([[0.0, 1.0], [-2.0, 0.0]]))


def test_js_of_cells() -> None:
    points = torch.tensor([[0.1, 0.1], [0.1, -0.1], [-0.1, 0.1], [-0.1, -0.1]], dtype=torch.float64)
    assert continuity.divergence(points, 0.0, 8) == 0
    assert continuity.divergence(points, 0.1, 1) == 0  # a cell for each quadrant
    assert continuity.divergence(points, math.pi / 4, 20) == pytest.approx(math.log(2))


# Mode seeking -----------------------------------------------------------------------------------------------------


def test_kl_covers_and_reversed_kl_seeks() -> None:
    mean, deviation, seeking_mean, seeking_deviation, other, price, dropped, js_near, js_far = measured(
        mode_seeking.run(0, small=True)
    )
    assert mean == pytest.approx(0, abs=1e-4)
    # Of the mixture: the modes' own variances, and that of their means.
    expected = 0.6 * 0.7**2 + 0.4 * 0.9**2 + 0.6 * 2**2 + 0.4 * 3**2
    assert deviation == pytest.approx(expected**0.5, abs=1e-3)
    assert seeking_mean == pytest.approx(-2, abs=0.05) and seeking_deviation == pytest.approx(0.7, abs=0.05)
    assert 0 < other < 1e-3
    assert price == pytest.approx(math.log(1 / 0.6), abs=0.01)
    assert 5 < dropped < math.inf
    assert js_near > 2.4 and js_far < 0.8


# Duality ----------------------------------------------------------------------------------------------------------


def test_the_dual_meets_the_primal() -> None:
    finding = duality.run(0, small=True)
    potentials, slack, value, best_cosine, wrong_cosine, norm, gap, bounded, trained_norm, cosine = measured(finding)
    assert best_cosine == pytest.approx(1, abs=1e-5)
    assert 0 < wrong_cosine < 0.99
    exact = finding.numbers[0].expected
    assert potentials == pytest.approx(exact, abs=1e-9) and value == pytest.approx(exact, abs=1e-6)
    assert slack >= -1e-9
    assert norm == pytest.approx(1, abs=1e-5)
    assert abs(gap) < 0.2
    assert bounded <= 1.001
    assert trained_norm == pytest.approx(1, abs=0.1)
    assert cosine > 0.8


def test_partners_are_those_of_the_cheapest_plan() -> None:
    real = torch.tensor([[0.0, 0.0], [1.0, 0.0], [5.0, 0.0]])
    exact = duality.solve(real, real.flip(0) + torch.tensor([0.0, 1.0]))
    assert exact.partners.tolist() == [2, 1, 0]
    assert exact.w == pytest.approx(1)
    assert (exact.u.mean() + exact.v.mean()).item() == pytest.approx(1)
