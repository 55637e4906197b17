"""The whole update: the numbers of the textbook, mixed precision, hooks, copies, errors."""

import copy
import pickle
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parametrize

from critics import CRITICS, Projection
from updates import (
    BATCH,
    COUPLED,
    adam,
    assert_close,
    compare_with_textbook,
    samples,
    sgd,
    updated,
)
from wgan_fast import (
    CriticStep,
    GeneratorStep,
    discriminator_loss,
    dragan_penalty,
    finite_difference_penalty,
    gradient_penalty,
    minimax_generator_loss,
    non_saturating_generator_loss,
    r1_penalty,
    r1_r2_penalty,
    reference,
)


@pytest.mark.filterwarnings("ignore:critic. .* batch normalisation:UserWarning")
@pytest.mark.filterwarnings("ignore:critic. .* is a BatchNorm1d:UserWarning")
@pytest.mark.parametrize("name", [*CRITICS, *COUPLED])
def test_same_numbers_as_the_textbook(name: str) -> None:
    make, shape = (CRITICS | COUPLED)[name]
    compare_with_textbook(make().double(), [samples(shape) for _ in range(3)])


def test_labels_go_to_the_critic() -> None:
    critic = Projection().double()
    labels = torch.arange(BATCH) % 4
    compare_with_textbook(critic, [(*samples((12,)), labels) for _ in range(3)])
    step = CriticStep(critic, adam(critic.parameters()))
    torch.manual_seed(1)
    batch = samples((12,))
    torch.manual_seed(2)
    doubled = step(*batch, labels, scale=2.0)
    torch.manual_seed(2)
    assert doubled.loss != step(*batch, labels).loss


def test_bfloat16() -> None:
    """bfloat16 follows float32."""
    critic, shape = CRITICS["dcgan"][0](), CRITICS["dcgan"][1]
    other = copy.deepcopy(critic)
    step, other_step = (CriticStep(c, adam(c.parameters(), lr=1e-3), backend="eager") for c in (critic, other))
    for _ in range(3):
        real, fake = samples(shape, dtype=torch.float32)
        torch.manual_seed(3)
        expected = step(real, fake)
        torch.manual_seed(3)
        with torch.autocast("cpu", torch.bfloat16):
            actual = other_step(real, fake)
        torch.testing.assert_close(actual, expected, rtol=0.05, atol=0.05)
    for mine, full in zip(other.parameters(), critic.parameters(), strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine, full, rtol=0.1, atol=5e-3)


def test_autocast_around_the_whole_training() -> None:
    """Autocast's cached casts of the weights are dropped by an update."""
    critic, shape = CRITICS["dcgan"][0](), CRITICS["dcgan"][1]
    other = copy.deepcopy(critic)
    steps = [CriticStep(c, adam(c.parameters()), penalty=None) for c in (critic, other)]
    real, fake = samples(shape, dtype=torch.float32)
    expected, actual = [], []
    for _ in range(3):
        with torch.autocast("cpu", torch.bfloat16):
            expected.append(steps[0](real, fake).loss)
        with torch.autocast("cpu", torch.bfloat16):
            expected.append(critic(real))
    with torch.autocast("cpu", torch.bfloat16):
        for _ in range(3):
            actual += [steps[1](real, fake).loss, other(real)]
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


def test_fakes_are_made_without_a_graph_and_as_a_part_of_the_step() -> None:
    critic, generator = CRITICS["mlp"][0](), nn.Linear(3, 12)
    step = CriticStep(critic, adam(critic.parameters()))

    def fake() -> Tensor:
        assert not torch.is_grad_enabled()
        return generator(torch.randn(BATCH, 3))

    real, _ = samples((12,), dtype=torch.float32)
    step(real, fake)
    with torch.inference_mode():
        step(real.clone(), generator(torch.randn(BATCH, 3)))
    step(real, generator(torch.randn(BATCH, 3)))
    assert all(parameter.grad is None for parameter in generator.parameters())


def test_generator_step() -> None:
    critic, generator = CRITICS["mlp"][0]().double(), nn.Linear(3, 12).double()
    other = copy.deepcopy(generator)
    latent = torch.randn(BATCH, 3, dtype=torch.float64)
    optimizer = adam(other.parameters())
    step = GeneratorStep(generator, critic, adam(generator.parameters()))
    for _ in range(3):
        expected = -critic(other(latent)).mean()
        optimizer.zero_grad()
        expected.backward(inputs=list(other.parameters()))
        optimizer.step()
        actual = step(latent)
        assert actual.shape == () and not actual.requires_grad
        torch.testing.assert_close(actual, expected.detach(), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(generator.weight, other.weight, rtol=1e-10, atol=1e-10)
    assert all(parameter.grad is None for parameter in critic.parameters())


@pytest.mark.parametrize("hooked", [False, True])
def test_a_discriminator_with_a_penalty(hooked: bool) -> None:
    critic = CRITICS["mlp"][0]().double()
    other = copy.deepcopy(critic)
    if hooked:  # hooks are for the gradient of the whole loss
        critic[0].weight.register_hook(lambda gradient: gradient)
    real, fake = samples((12,))
    step = CriticStep(
        critic,
        sgd(critic.parameters()),
        penalty=lambda critic, real, fake: r1_penalty(critic, real, weight=2.0),
        loss=discriminator_loss,
    )
    optimizer = sgd(other.parameters())
    for _ in range(2):
        points = real.clone().requires_grad_()
        gradient = torch.autograd.grad(other(points).sum(), points, create_graph=True)[0]
        penalty = gradient.square().sum(1).mean()
        loss = F.softplus(-other(real)).mean() + F.softplus(other(fake)).mean() + penalty
        wasserstein = other(real).mean() - other(fake).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert_close(torch.stack(step(real, fake)), torch.stack([loss, wasserstein, penalty]).detach())
    for mine, theirs in zip(critic.parameters(), other.parameters(), strict=True):
        assert_close(mine, theirs)


@pytest.mark.parametrize("loss", [minimax_generator_loss, non_saturating_generator_loss])
def test_generator_step_with_another_loss(loss: Any) -> None:
    critic, generator = CRITICS["mlp"][0]().double(), nn.Linear(3, 12).double()
    latent = torch.randn(BATCH, 3, dtype=torch.float64)
    expected = loss(critic(generator(latent)))
    gradients = torch.autograd.grad(expected, list(generator.parameters()))
    step = GeneratorStep(generator, critic, sgd(generator.parameters()), loss=loss)
    assert_close(step(latent), expected.detach())
    for parameter, gradient in zip(generator.parameters(), gradients, strict=True):
        assert_close(parameter.grad, gradient)


def test_plain_loop_learns() -> None:
    """The loop of the README: the generator's mean approaches that of the data."""
    torch.manual_seed(0)
    generator = nn.Linear(2, 2)
    critic = nn.Sequential(nn.Linear(2, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))
    critic_step = CriticStep(critic, adam(critic.parameters(), lr=1e-2))
    generator_step = GeneratorStep(generator, critic, adam(generator.parameters(), lr=3e-2))

    def latent() -> Tensor:
        return torch.randn(64, 2)

    def fake() -> Tensor:
        return generator(latent())

    for _ in range(100):
        for _ in range(4):
            critic_step(torch.randn(64, 2) + 2.0, fake)
        generator_step(latent)
    mean = generator(torch.randn(2000, 2)).mean(0)
    assert (mean - 2.0).abs().max() < 0.8


def test_inference_tensors() -> None:
    critic = Projection()
    step = CriticStep(critic, adam(critic.parameters()))
    with torch.inference_mode():
        real, fake = samples((12,), dtype=torch.float32)
        labels = torch.arange(BATCH) % 4
        assert step(real, fake, labels).loss.isfinite()
    assert step(real, fake, labels).loss.isfinite()


def test_a_layer_that_is_frozen_stays_as_it_is() -> None:
    critic = CRITICS["mlp"][0]()
    step = CriticStep(critic, torch.optim.Adam(critic.parameters(), lr=1e-2, fused=True))
    batch = samples((12,), dtype=torch.float32)
    step(*batch)
    critic[0].requires_grad_(False)
    before = copy.deepcopy(critic)
    step(*batch)
    assert torch.equal(critic[0].weight, before[0].weight) and not torch.equal(critic[2].weight, before[2].weight)


def test_hooks_see_the_whole_gradient() -> None:
    critic = CRITICS["mlp"][0]().double()
    other = copy.deepcopy(critic)
    calls = []
    for network in (critic, other):
        network[0].weight.register_hook(lambda gradient: gradient.clamp(-0.01, 0.01))
    critic[2].weight.register_post_accumulate_grad_hook(lambda _: calls.append(1))
    batches = [samples((12,)) for _ in range(3)]
    expected = updated(other, partial(reference.critic_step, other, sgd(other.parameters())), batches)
    assert_close(updated(critic, CriticStep(critic, sgd(critic.parameters())), batches), expected)
    assert len(calls) == 3


def test_hooks_of_the_accumulation_run_once_and_see_the_whole_gradient() -> None:
    """As Horovod registers them, at the nodes that accumulate the gradients."""
    critic = CRITICS["mlp"][0]()
    step = CriticStep(critic, sgd(critic.parameters()))
    step(*samples((12,), dtype=torch.float32))
    seen: dict[int, list[Tensor]] = {id(parameter): [] for parameter in critic.parameters()}
    nodes = []
    for parameter in critic.parameters():
        node = parameter.expand_as(parameter).grad_fn.next_functions[0][0]
        node.register_hook(lambda *_, parameter=parameter: seen[id(parameter)].append(parameter.grad.clone()))
        nodes.append(node)  # or the hooks would end with it
    for i in range(2):
        step(*samples((12,), dtype=torch.float32))
        for parameter in critic.parameters():
            assert len(seen[id(parameter)]) == i + 1 and torch.equal(seen[id(parameter)][i], parameter.grad)


@pytest.mark.parametrize("norm", [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm])
@pytest.mark.parametrize("training", [True, False])
def test_cached_parametrizations(norm: Callable[[nn.Module], nn.Module], training: bool) -> None:
    critic = nn.Sequential(norm(nn.Linear(12, 8)), nn.LeakyReLU(0.2), nn.Linear(8, 1)).double().train(training)
    generator = nn.utils.parametrizations.weight_norm(nn.Linear(3, 12)).double()
    other = copy.deepcopy(critic)
    step = CriticStep(critic, sgd(critic.parameters()))
    generator_step = GeneratorStep(generator, critic, sgd(generator.parameters()))
    optimizer, latent = sgd(other.parameters()), torch.randn(BATCH, 3, dtype=torch.float64)
    for i in range(3):
        real, fake = samples((12,))[0], generator(latent).detach()
        torch.manual_seed(i)
        with parametrize.cached():
            expected = reference.critic_step(other, optimizer, real, fake)
        torch.manual_seed(i)
        with parametrize.cached():
            assert_close(torch.stack(step(real, lambda: generator(latent))), expected)
            generator_step(latent)
        assert_close(list(critic.state_dict().values()), list(other.state_dict().values()))
        assert all(parameter.grad is not None for parameter in [*critic.parameters(), *generator.parameters()])


def test_a_penalty_may_be_a_number() -> None:
    critic = CRITICS["mlp"][0]()
    step = CriticStep(critic, sgd(critic.parameters()), penalty=lambda critic, real, fake: real.new_zeros(()))
    assert step(*samples((12,), dtype=torch.float32)).penalty == 0


def test_other_default_types() -> None:
    critic = CRITICS["mlp"][0]()
    torch.set_default_dtype(torch.float64)
    try:
        step = CriticStep(critic, sgd(critic.parameters()))
        assert step(*samples((12,), dtype=torch.float32)).loss.isfinite()
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("penalty", [gradient_penalty, dragan_penalty, r1_r2_penalty, finite_difference_penalty])
def test_another_default_device(penalty: Any) -> None:
    critic, batch = CRITICS["mlp"][0](), samples((12,), dtype=torch.float32)
    before = [parameter.detach().clone() for parameter in critic.parameters()]
    with torch.device("meta"):
        step = CriticStep(critic, torch.optim.Adam(critic.parameters(), lr=1e-2), penalty=penalty, clip=0.1)
        output = step(*batch)
    assert output.loss.isfinite() and output.penalty > 0
    for parameter, value in zip(critic.parameters(), before, strict=True):
        assert not torch.equal(parameter, value) and parameter.abs().max() <= 0.1


def test_a_copy_trains_the_copied_critic() -> None:
    critic = CRITICS["mlp"][0]()
    step = CriticStep(critic, adam(critic.parameters()))
    batch = samples((12,), dtype=torch.float32)
    step(*batch)
    other, other_step = copy.deepcopy((critic, step))
    pickle.dumps(step)
    before = copy.deepcopy(critic)
    other_step(*batch)
    assert torch.equal(critic[0].weight, before[0].weight) and not torch.equal(other[0].weight, before[0].weight)


def test_outputs_are_detached_and_keep_their_values() -> None:
    critic = CRITICS["mlp"][0]()
    step = CriticStep(critic, adam(critic.parameters()))
    outputs = [step(*samples((12,), dtype=torch.float32)) for _ in range(3)]
    assert len({output.loss.item() for output in outputs}) == 3
    for output in outputs:
        assert not any(value.requires_grad for value in output)
        torch.testing.assert_close(output.loss, output.penalty - output.wasserstein)


def test_auto_says_what_it_took() -> None:
    critic = CRITICS["mlp"][0]()
    step = CriticStep(critic, adam(critic.parameters()))
    assert step.backend == "eager" and repr(step) == "CriticStep(backend='eager': the parameters are on cpu)"


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (TypeError, "critic: expected a callable", {"critic": 1}),
        (TypeError, "optimizer: expected a torch.optim.Optimizer", {"optimizer": 1}),
        (TypeError, "penalty: expected a callable, such as", {"penalty": 10.0}),
        (TypeError, "loss: expected a callable, got str", {"loss": "hinge"}),
        (TypeError, "clip: expected a number", {"clip": "0.01"}),
        (ValueError, "clip: expected a number >= 0", {"clip": -0.01}),
        (ValueError, "backend: expected one of auto, eager, graph, compile, got 'fast'", {"backend": "fast"}),
        (ValueError, "backend: a CUDA graph cannot be captured: the parameters are on cpu", {"backend": "graph"}),
        (TypeError, "scaler: expected a torch.amp.GradScaler", {"scaler": 1024}),
        (TypeError, "process_group: expected a ProcessGroup", {"process_group": "gloo"}),
    ],
)
def test_errors_of_the_constructor(error: type, message: str, arguments: dict[str, Any]) -> None:
    critic = nn.Linear(2, 1)
    with pytest.raises(error, match=f"^{message}"):
        CriticStep(**{"critic": critic, "optimizer": adam(critic.parameters()), **arguments})


@pytest.mark.parametrize(
    ("error", "message", "real", "fake"),
    [
        (TypeError, "real: expected a Tensor", [1.0], torch.ones(4, 2)),
        (TypeError, "fake: expected a function that makes a Tensor, it made float", torch.ones(4, 2), lambda: 1.0),
        (TypeError, "fake: expected a Tensor, or a function that makes one, got ndarray", torch.ones(4, 2), np.ones(2)),
        (ValueError, "fake: expected samples of shape", torch.ones(4, 2), torch.ones(4, 3)),
        (ValueError, "fake: expected shape", torch.ones(4, 2), torch.ones(3, 2)),
        (TypeError, "fake: expected torch.float32 as of real", torch.ones(4, 2), torch.ones(4, 2).double()),
        (ValueError, "real: expected at least one element", torch.ones(0, 2), torch.ones(4, 2)),
    ],
)
def test_errors_leave_everything_as_it_was(error: type, message: str, real: Any, fake: Any) -> None:
    critic = nn.Linear(2, 1)
    step = CriticStep(critic, adam(critic.parameters()))
    step(torch.randn(4, 2), torch.randn(4, 2))
    before = [tensor.clone() for p in critic.parameters() for tensor in (p.detach(), p.grad)]
    with pytest.raises(error, match=f"^{message}"):
        step(real, fake)
    assert all(map(torch.equal, [tensor for p in critic.parameters() for tensor in (p.detach(), p.grad)], before))


def test_error_after_the_first_term_leaves_no_half_gradient() -> None:
    critic = nn.Linear(2, 1)
    step = CriticStep(critic, adam(critic.parameters()))
    batch = torch.randn(4, 2), torch.randn(4, 2)
    step(*batch)
    before = [parameter.detach().clone() for parameter in critic.parameters()]
    step._critic_loss._scores = lambda *_: 1 / 0  # what is computed behind the penalty
    with pytest.raises(ZeroDivisionError):
        step(*batch)
    assert all(parameter.grad is None for parameter in critic.parameters())
    assert all(map(torch.equal, critic.parameters(), before))


def test_several_processes_without_a_process_group(monkeypatch: pytest.MonkeyPatch) -> None:
    generator, critic = nn.Linear(3, 2), nn.Linear(2, 1)
    adams = adam(critic.parameters()), adam(generator.parameters())
    fake = pytest.importorskip("torch.testing._internal.distributed.fake_pg")
    torch.distributed.init_process_group("fake", rank=0, world_size=2, store=fake.FakeStore())
    try:
        with pytest.warns(UserWarning, match="process_group: 2 processes .* pass process_group=torch.*WORLD") as caught:
            CriticStep(critic, adams[0])
        assert caught[0].filename == __file__ and len(caught) == 1
        with pytest.warns(UserWarning, match="process_group: 2 processes run, and GeneratorStep got no group"):
            GeneratorStep(generator, critic, adams[1])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            CriticStep(critic, adams[0], process_group=torch.distributed.group.WORLD)
            GeneratorStep(DistributedDataParallel(generator), critic, adams[1])
            monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 1)
            CriticStep(critic, adams[0])
    finally:
        torch.distributed.destroy_process_group()


def test_optimizer_of_another_network() -> None:
    generator, critic = nn.Linear(3, 2), nn.Linear(2, 1)
    with pytest.raises(ValueError, match="optimizer: expected the generator's parameters, got some of the critic's"):
        GeneratorStep(generator, critic, adam(critic.parameters()))
    with pytest.raises(TypeError, match="optimizer: LBFGS"):
        CriticStep(critic, torch.optim.LBFGS(critic.parameters()))
    step = CriticStep(critic, adam(critic.parameters()))
    critic.requires_grad_(False)
    with pytest.raises(ValueError, match="optimizer: all of its parameters are frozen"):
        step(torch.randn(4, 2), torch.randn(4, 2))
    step = CriticStep(nn.Linear(2, 1), adam(nn.Linear(2, 1).parameters()))
    with pytest.raises(ValueError, match="optimizer: the loss depends on none of its parameters"):
        step(torch.randn(4, 2), torch.randn(4, 2))
