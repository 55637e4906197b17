"""Real and fake samples are scored in one batch where the rows are independent, and only there."""

import copy

import pytest
import torch
from torch import nn

from critics import CRITICS
from updates import (
    BATCH,
    COUPLED,
    MinibatchStandardDeviation,
    adam,
    assert_close,
    compare_with_textbook,
    samples,
    sgd,
)
from wgan_fast import (
    CriticStep,
    reference,
)
from wgan_fast._critic.rows import rows_are_independent


@pytest.mark.filterwarnings("ignore:critic. .* is a BatchNorm1d:UserWarning")
@pytest.mark.parametrize("name", ["mlp", "dcgan", *COUPLED])
def test_scored_in_one_batch_only_where_that_is_the_same(name: str) -> None:
    make, shape = (CRITICS | COUPLED)[name]
    critic = make()
    step = CriticStep(critic, adam(critic.parameters()), penalty=None)
    batch = samples(shape, dtype=torch.float32)
    for _ in range(2):  # both are asked whether rows are independent
        step(*batch)
    sizes: list[int] = []
    critic.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    step(*batch)
    assert sizes == ([BATCH, BATCH] if name in COUPLED else [2 * BATCH])


def test_coupling_that_shows_later() -> None:
    """Zeros in the last layer hide the coupling at first; then a submodule changes its training mode."""
    critic = MinibatchStandardDeviation().double()
    nn.init.zeros_(critic.head.weight)
    nn.init.zeros_(critic.head.bias)
    compare_with_textbook(critic, [samples((12,)) for _ in range(5)])

    critic = nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1)).double()
    other = copy.deepcopy(critic)
    step = CriticStep(critic, sgd(critic.parameters()), penalty=None)
    expected_step = CriticStep(lambda x: other(x), sgd(other.parameters()), penalty=None)  # scored one after the other
    for i in range(6):
        for network in (critic, other):
            network[1].train(i % 3 != 0)
        batch = samples((12,))
        assert_close(step(*batch), expected_step(*batch))


def test_a_dropout_that_begins_later() -> None:
    """Dropout draws for the real samples first, then for the fake ones, as in the textbook."""
    critic = nn.Sequential(nn.Linear(12, 8), nn.Dropout(0.0), nn.ReLU(), nn.Linear(8, 1)).double()
    critic.p = nn.Parameter(torch.zeros(2))  # an attribute p that is not a dropout probability
    other = copy.deepcopy(critic)
    optimizer = sgd(other.parameters())
    step = CriticStep(critic, sgd(critic.parameters()))
    for i in range(5):
        for network in (critic, other):
            network[1].p = 0.5 if i > 2 else 0.0
        batch = samples((12,))
        torch.manual_seed(i)
        expected = reference.critic_step(other, optimizer, *batch)
        torch.manual_seed(i)
        assert_close(torch.stack(step(*batch)), expected)


def test_answers_of_the_probe() -> None:
    critic, (real, fake) = CRITICS["mlp"][0](), samples((12,), dtype=torch.float32)
    assert rows_are_independent(critic, real, fake) is True
    assert rows_are_independent(critic.forward, real, fake) is True  # a Module's method
    assert rows_are_independent(lambda x: critic(x), real, fake) is False  # not a Module
    assert rows_are_independent(critic, real, fake * torch.nan) is None
    last = critic[-1]
    for parameter in last.parameters():
        nn.init.zeros_(parameter)
    assert rows_are_independent(critic, real, fake) is None  # constant scores


@pytest.mark.parametrize("name", COUPLED)
def test_probe_restores_buffers_and_random_state(name: str) -> None:
    critic = COUPLED[name][0]()
    batch = samples((12,), dtype=torch.float32)
    buffers, random_state = copy.deepcopy(dict(critic.named_buffers())), torch.get_rng_state()
    assert rows_are_independent(critic, *batch) is False
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in critic.named_buffers())
    assert torch.equal(torch.get_rng_state(), random_state)
