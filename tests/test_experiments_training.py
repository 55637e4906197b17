"""The experiments that train GANs: their small versions, and the functions that measure."""

import itertools

import pytest
import torch

pytest.importorskip("ot", reason="the extra wgan_fast[train] is not installed")
pytest.importorskip("matplotlib", reason="the extra wgan_fast[train] is not installed")

from wgan_fast.experiments import (
    clipping,
    estimate_tracks_quality,
    gan_training,
    mode_collapse,
    no_balancing,
    no_careful_architecture,
    samples_get_better,
)
from wgan_fast.experiments.claim import Finding
from wgan_fast.train.data import make_toy
from wgan_fast.train.networks import MLPCritic


def measured(finding: Finding) -> list[float]:
    return [number.measured for number in finding.numbers]


# The loop that they share -------------------------------------------------------------------------


def test_networks_side_by_side_are_independent() -> None:
    networks = [MLPCritic(2, 8, 2) for _ in range(3)]
    samples = torch.randn(12, 2)
    together = gan_training.SideBySide(networks)(samples)
    for i, network in enumerate(networks):
        torch.testing.assert_close(together[i::3].squeeze(1), network(samples[i::3]))


@pytest.mark.parametrize("name", gan_training.ALGORITHMS)
def test_training_yields_before_each_update_of_the_generator_and_at_the_end(name: str) -> None:
    algorithm, data = gan_training.ALGORITHMS[name], [make_toy("8gaussians")]
    states = gan_training.train(
        algorithm, data, 2, critic_updates=1, first_critic_updates=1, critic_rate=1e-2, generator_rate=1e-2
    )
    weights = [
        tuple(torch.cat([one.detach().flatten() for one in part.parameters()]) for part in (p.generators, p.critics))
        for p in states
    ]
    assert len(weights) == 3
    for (generator, critic), (next_generator, next_critic) in itertools.pairwise(weights):
        assert not torch.equal(generator, next_generator)
        assert not torch.equal(critic, next_critic)
    if algorithm.clip:
        assert weights[-1][1].abs().max() <= algorithm.clip


# The estimate tracks the distance -----------------------------------------------------------------


def test_estimates_follow_the_distance() -> None:
    clipped, penalised, clock, growth_clipped, growth_penalised, growth_js, largest_js = measured(
        estimate_tracks_quality.run(0, small=True)
    )
    assert all(-1 <= correlation <= 1 for correlation in (clipped, penalised, clock))
    assert penalised > 0.5
    assert growth_penalised > growth_js > 0 and growth_clipped > 0
    assert 0 < largest_js <= 0.6932


def test_growth_is_of_the_quarters() -> None:
    values = torch.tensor([1.0, 3.0, 2.0, 4.0, 8.0, 6.0, 7.0, 5.0])
    assert estimate_tracks_quality.growth(values, values.argsort()) == pytest.approx(7.5 / 1.5)


# Mode collapse ------------------------------------------------------------------------------------


def test_modes_are_counted_after_each_training() -> None:
    finding = mode_collapse.run(0, small=True)
    *modes, penalised, clipped = measured(finding)
    assert [0 <= covered <= 8 for covered in modes] == [True] * 3
    assert 0 <= penalised <= 1 and 0 <= clipped <= 1


def test_a_mode_is_covered_by_a_sample_within_3_sigma() -> None:
    data = make_toy("8gaussians")
    assert data.centres is not None and data.sigma is not None
    offset = torch.tensor([[2.9, 0.0], [0.0, 3.1]]) * data.sigma
    samples = mode_collapse.judge(data.centres[[0, 3]] + offset, data)
    assert samples.covered.nonzero().flatten().tolist() == [0]
    assert samples.share == 0.5


# Clipping -----------------------------------------------------------------------------------------


def test_clipping_pushes_weights_to_the_bound_and_gradients_away() -> None:
    clipped, penalised, seen, exploding, vanishing, vanishing_faster, steady = measured(clipping.run(0, small=True))
    assert clipped > 0.02
    assert penalised < 0.01
    assert 0 < seen < 1
    assert exploding > 0.1
    assert vanishing_faster < vanishing < -1
    assert abs(steady) < 0.2


def test_slope_is_that_of_a_straight_line() -> None:
    assert clipping.slope(10 ** torch.linspace(0, -6, 13, dtype=torch.float64)) == pytest.approx(-0.5)


def test_gradient_norms_go_from_the_last_layer_to_the_input() -> None:
    critic, data = MLPCritic(2, 4, 3), make_toy("swissroll")
    norms = clipping.gradient_norms(critic, data)
    assert norms.shape == (4,)
    last = critic.layers[-1].weight.norm().double() * (2 / clipping.BATCH) ** 0.5
    torch.testing.assert_close(norms[0], last.detach(), rtol=1e-5, atol=0)


# Balance, and better samples ----------------------------------------------------------------------


def test_more_updates_of_the_critic_are_compared() -> None:
    finding = no_balancing.run(0, small=True)
    many, few = finding.numbers
    assert many.measured > 0 and many.expected > 0
    assert many.tolerance == max(many.expected / 4, 0.1)
    assert few.measured > 0


def test_digits_are_the_data() -> None:
    digits = samples_get_better.images()
    assert digits.shape == (1797, 1, 16, 16) and digits.min() == -1 and digits.max() == 1


def test_a_generator_that_is_not_trained_does_not_get_better() -> None:
    """The small version trains five steps."""
    numbers = samples_get_better.run(0, small=True).numbers
    assert len(numbers) == 4
    assert not any(number.holds for number in numbers[::2])  # W


# Architectures ------------------------------------------------------------------------------------


def test_networks_have_the_combination() -> None:
    torch.manual_seed(0)
    shape = (3, 32, torch.nn.Tanh, True)
    layers = [type(layer).__name__ for layer in no_careful_architecture.network(2, 1, *shape)]
    assert layers == ["Linear", "LayerNorm", "Tanh"] * 3 + ["Linear"]
    assert no_careful_architecture.network(2, 1, *shape)(torch.randn(5, 2)).shape == (5, 1)
    assert len(set(no_careful_architecture.GRID)) == 16


def test_without_training_nothing_gets_better() -> None:
    algorithm = gan_training.ALGORITHMS["WGAN-GP"]
    torch.manual_seed(0)
    after, chance = no_careful_architecture.train(algorithm, no_careful_architecture.GRID[0], 0)
    assert after != chance  # other samples
    assert after == pytest.approx(1, abs=0.1) and chance == pytest.approx(1, abs=0.1)
