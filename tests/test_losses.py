"""The losses: formulas, gradients, dtypes, errors; what CriticLoss makes of scores and penalty."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wgan_fast import (
    CriticLoss,
    critic_loss,
    discriminator_loss,
    dragan_penalty,
    finite_difference_penalty,
    generator_loss,
    gradient_penalty,
    minimax_generator_loss,
    non_saturating_generator_loss,
    r1_penalty,
    r1_r2_penalty,
    r2_penalty,
    relativistic_critic_loss,
    relativistic_generator_loss,
    wgan_div_penalty,
)


def test_formulas(device: torch.device) -> None:
    real, fake = torch.tensor([1.0, 3.0], device=device), torch.tensor([[4.0], [6.0], [8.0]], device=device)
    assert critic_loss(real, fake).item() == 4.0
    assert generator_loss(fake).item() == -6.0


def test_formulas_of_the_standard_gan(device: torch.device) -> None:
    real, fake = (torch.randn(shape, device=device, dtype=torch.float64) for shape in ((5,), (3, 1)))
    d_real, d_fake = real.sigmoid(), fake.sigmoid()
    expected = -d_real.log().mean() - (1 - d_fake).log().mean()
    torch.testing.assert_close(discriminator_loss(real, fake), expected)
    torch.testing.assert_close(minimax_generator_loss(fake), (1 - d_fake).log().mean())
    torch.testing.assert_close(non_saturating_generator_loss(fake), -d_fake.log().mean())


def test_sure_discriminators_are_finite() -> None:
    sure = torch.tensor([6e4]).half()  # its exponential overflows every type but float64
    assert discriminator_loss(sure, -sure).item() == 0
    assert minimax_generator_loss(sure).item() == -sure.item()
    assert non_saturating_generator_loss(-sure).item() == sure.item()


def test_critic_loss_takes_another_loss_of_the_scores() -> None:
    critic, real, fake = torch.nn.Linear(2, 1), torch.randn(8, 2), torch.randn(6, 2)
    output = CriticLoss(critic, penalty=None, loss=discriminator_loss)(real, fake)
    torch.testing.assert_close(output.loss, discriminator_loss(critic(real), critic(fake)))
    torch.testing.assert_close(output.wasserstein, critic(real).mean().detach() - critic(fake).mean().detach())
    assert output.loss.requires_grad and not output.wasserstein.requires_grad and output.penalty == 0
    with pytest.raises(TypeError, match="^loss: expected a callable, got str"):
        CriticLoss(critic, loss="hinge")
    with pytest.raises(ValueError, match=r"^loss: expected a callable that returns a scalar Tensor, got \(8, 1\)"):
        CriticLoss(critic, penalty=None, loss=lambda real, fake: real)(real, fake)


@pytest.mark.parametrize("name", ["t", "weight"])
def test_a_keyword_that_critic_and_penalty_share(name: str) -> None:
    """It is the critic's, and may not be taken for the penalty's."""
    body = nn.Linear(3, 1)

    def critic(x: Tensor, **keywords: Tensor) -> Tensor:
        return body(x) * keywords[name]

    real, fake = torch.randn(2, 8, 3)
    for penalty in (gradient_penalty, partial(gradient_penalty, weight=0.1), wgan_div_penalty):
        if name == "weight" and penalty is wgan_div_penalty:  # it has none
            continue
        with pytest.raises(ValueError, match=f"^{name}: the critic would get it, but .* `penalty=lambda critic, real"):
            CriticLoss(critic, penalty=penalty)(real, fake, **{name: torch.ones(8, 1)})
    loss = CriticLoss(
        critic,
        penalty=lambda critic, real, fake, **kwargs: gradient_penalty(lambda x: critic(x, **kwargs), real, fake),
    )
    output = loss(real, fake, **{name: torch.full((8, 1), 2.0)})
    torch.testing.assert_close(output.penalty, 10 * (2 * body.weight.norm().detach() - 1) ** 2)


@pytest.mark.parametrize("items", [lambda x: (x, x), lambda x: {"score": x}])
def test_scores_among_other_things(items: Callable[[Tensor], object]) -> None:
    critic = nn.Sequential(nn.Linear(3, 1))
    critic.register_forward_hook(lambda _, __, scores: items(scores))
    with pytest.raises(TypeError, match=r"^critic: .*return the scores alone, or pass one item of it: `lambda \*args"):
        CriticLoss(critic, penalty=None)(*torch.randn(2, 8, 3))
    with pytest.raises(TypeError, match="^fake_scores: .*; pass the scores alone"):
        generator_loss(items(torch.ones(2)))


def test_gradients() -> None:
    real, fake = torch.randn(3, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    assert torch.autograd.gradcheck(critic_loss, (real.requires_grad_(), fake.requires_grad_()))
    assert torch.autograd.gradcheck(discriminator_loss, (real, fake))
    for loss in (generator_loss, minimax_generator_loss, non_saturating_generator_loss):
        assert torch.autograd.gradcheck(loss, fake)


def test_sixteen_bit_scores() -> None:
    real, fake = torch.full((2000,), 1000.0).bfloat16(), torch.full((2000,), 1004.0).bfloat16()
    loss = critic_loss(real, fake)
    assert loss.dtype == torch.float32 and loss.item() == 4.0


@pytest.mark.parametrize(
    ("error", "argument", "scores"),
    [
        (TypeError, "real_scores", (1.0, torch.ones(2))),
        (TypeError, "fake_scores", (torch.ones(2), torch.ones(2).int())),
        (ValueError, "fake_scores", (torch.ones(2), torch.ones(0))),
        (ValueError, "fake_scores", (torch.ones(2), torch.ones(2, device="meta"))),
    ],
)
def test_errors_name_the_argument(error: type, argument: str, scores: tuple) -> None:
    for loss in (critic_loss, discriminator_loss):
        with pytest.raises(error, match=f"^{argument}: expected"):
            loss(*scores)
    if argument == "fake_scores" and scores[1].device.type == "cpu":
        for loss in (generator_loss, minimax_generator_loss, non_saturating_generator_loss):
            with pytest.raises(error, match="^fake_scores: expected"):
                loss(scores[1])


class TestRelativisticPairs:
    def test_formulas(self, device: torch.device) -> None:
        real, fake = torch.randn(2, 5, 1, device=device, dtype=torch.float64)
        torch.testing.assert_close(relativistic_critic_loss(real, fake), (1 + (fake - real).exp()).log().mean())
        torch.testing.assert_close(relativistic_generator_loss(fake, real), (1 + (real - fake).exp()).log().mean())
        assert relativistic_critic_loss(real, real).item() == pytest.approx(0.6931471805599453)

    def test_gradients(self) -> None:
        real, fake = torch.randn(2, 4, dtype=torch.float64).requires_grad_().unbind()
        for loss in (relativistic_critic_loss, relativistic_generator_loss):
            assert torch.autograd.gradcheck(loss, (real, fake))

    def test_sure_critics_are_finite(self) -> None:
        sure = torch.tensor([6e4]).half()  # the difference overflows float16, its exponential float32
        assert relativistic_critic_loss(sure, -sure).item() == 0
        assert relativistic_critic_loss(-sure, sure).item() == 2 * sure.item()
        assert relativistic_generator_loss(-sure, sure).item() == 2 * sure.item()

    @pytest.mark.parametrize(
        ("error", "argument", "scores"),
        [
            (TypeError, "real_scores", (1.0, torch.ones(2))),
            (TypeError, "fake_scores", (torch.ones(2), torch.ones(2).int())),
            (ValueError, "real_scores", (torch.ones(0), torch.ones(2))),
            (ValueError, "fake_scores", (torch.ones(2), torch.ones(3))),
            (ValueError, "fake_scores", (torch.ones(2, 1), torch.ones(2))),  # would broadcast to all pairs
            (ValueError, "fake_scores", (torch.ones(2), torch.ones(2, device="meta"))),
        ],
    )
    def test_errors_name_the_argument(self, error: type, argument: str, scores: tuple) -> None:
        with pytest.raises(error, match=f"^{argument}: expected"):
            relativistic_critic_loss(*scores)

    @pytest.mark.parametrize(
        ("error", "argument", "scores"),
        [
            (TypeError, "fake_scores", (1.0, torch.ones(2))),
            (TypeError, "real_scores", (torch.ones(2), None)),
            (ValueError, "real_scores", (torch.ones(2), torch.ones(3))),
        ],
    )
    def test_errors_of_the_generator_name_the_argument(self, error: type, argument: str, scores: tuple) -> None:
        with pytest.raises(error, match=f"^{argument}: expected"):
            relativistic_generator_loss(*scores)


class Counting(nn.Module):
    """Counts the samples of each forward."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 8), activation, nn.Linear(8, 1)).double()
        self.batches: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.batches.append(len(x))
        return self.layers(x)


def norms(critic: nn.Module, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(critic(x).sum(), x, create_graph=True)[0].flatten(1).norm(dim=1)


class TestCriticLossAtScoredSamples:
    PENALTIES = {  # noqa: RUF012
        "r1": (partial(r1_penalty, weight=4.0), (True, False)),
        "r2": (partial(r2_penalty, weight=4.0), (False, True)),
        "r1 and r2": (partial(r1_r2_penalty, weight=4.0), (True, True)),
    }

    @pytest.mark.parametrize("loss", [critic_loss, discriminator_loss, relativistic_critic_loss])
    @pytest.mark.parametrize("name", PENALTIES)
    @pytest.mark.parametrize("activation", [nn.LeakyReLU(0.2), nn.SiLU()], ids=["piecewise linear", "curved"])
    def test_equals_the_textbook(self, activation: nn.Module, name: str, loss: Callable) -> None:
        critic, (real, fake) = Counting(activation), torch.randn(2, 5, 6, dtype=torch.float64)
        penalty, at = self.PENALTIES[name]
        module = CriticLoss(critic, penalty=penalty, loss=loss)
        output = module(real, fake)
        assert critic.batches == [5, 5]  # one forward of each, also on the first call
        found = [norms(critic, x) for x, penalised in zip((real, fake), at, strict=True) if penalised]
        expected = sum(2.0 * one.square().mean() for one in found)
        whole = loss(critic(real), critic(fake)) + expected
        torch.testing.assert_close(output.loss, whole, rtol=1e-10, atol=0)
        torch.testing.assert_close(output.penalty, expected.detach(), rtol=1e-10, atol=0)
        torch.testing.assert_close(output.wasserstein, -critic_loss(critic(real), critic(fake)).detach())
        torch.testing.assert_close(module.gradient_norms, torch.cat(found).detach(), rtol=1e-10, atol=0)
        assert not output.penalty.requires_grad and not output.wasserstein.requires_grad
        parameters = tuple(critic.parameters())
        for one, other in zip(
            torch.autograd.grad(output.loss, parameters), torch.autograd.grad(whole, parameters), strict=True
        ):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-13)

    @pytest.mark.parametrize("name", PENALTIES)
    def test_other_batch_sizes(self, name: str) -> None:
        critic, penalty = Counting(nn.ReLU()), self.PENALTIES[name][0]
        real, fake = torch.randn(5, 6, dtype=torch.float64), torch.randn(3, 6, dtype=torch.float64)
        output = CriticLoss(critic, penalty=penalty, loss=discriminator_loss)(real, fake)
        samples = {"r1": (real,), "r2": (fake,), "r1 and r2": (real, fake)}[name]
        expected = discriminator_loss(critic(real), critic(fake)) + penalty(critic, *samples)
        torch.testing.assert_close(output.loss, expected, rtol=1e-10, atol=0)

    def test_without_gradients(self) -> None:
        critic, (real, fake) = Counting(nn.ReLU()), torch.randn(2, 5, 6, dtype=torch.float64)
        module = CriticLoss(critic, penalty=r1_penalty, loss=discriminator_loss)
        expected = module(real, fake)
        for without_gradients in (torch.no_grad, torch.inference_mode):
            with without_gradients():
                output = module(real, fake)
            assert not output.loss.requires_grad
            for one, other in zip(output, expected, strict=True):
                torch.testing.assert_close(one, other.detach())

    def test_in_a_penalty_of_ones_own(self) -> None:
        """A function that calls one of the library's is called with real and fake samples."""
        critic, (real, fake) = Counting(nn.ReLU()), torch.randn(2, 5, 6, dtype=torch.float64)

        def penalty(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
            return r1_penalty(critic, real) + r2_penalty(critic, fake)

        own = CriticLoss(critic, penalty=penalty, loss=discriminator_loss)(real, fake)
        ours = CriticLoss(critic, penalty=r1_r2_penalty, loss=discriminator_loss)(real, fake)
        torch.testing.assert_close(own.loss, ours.loss, rtol=1e-12, atol=0)

    def test_a_labelled_critic(self) -> None:
        embedding, layer = nn.Embedding(3, 6).double(), nn.Linear(6, 6).double()

        class Labelled(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.embedding, self.layer = embedding, layer

            def forward(self, x: Tensor, labels: Tensor, *, scale: float = 1.0) -> Tensor:
                return scale * (self.embedding(labels) * F.relu(self.layer(x))).sum(1)

        critic, labels = Labelled(), torch.tensor([0, 2, 1, 0, 0])
        real, fake = torch.randn(2, 5, 6, dtype=torch.float64)
        output = CriticLoss(critic, penalty=r1_r2_penalty)(real, fake, labels, scale=0.5)
        expected = critic_loss(critic(real, labels, scale=0.5), critic(fake, labels, scale=0.5)) + r1_r2_penalty(
            critic, real, fake, labels, scale=0.5
        )
        torch.testing.assert_close(output.loss, expected, rtol=1e-10, atol=0)
        parameters = tuple(critic.parameters())
        for one, other in zip(
            torch.autograd.grad(output.loss, parameters), torch.autograd.grad(expected, parameters), strict=True
        ):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("function", [dragan_penalty, finite_difference_penalty, gradient_penalty])
def test_critic_loss_calls_a_penalty_with_its_samples(function: Callable[..., Tensor]) -> None:
    critic, (real, fake) = nn.Linear(6, 1).double(), torch.randn(2, 5, 6, dtype=torch.float64)

    def seeded() -> Any:
        return partial(function, weight=2.0, generator=torch.Generator().manual_seed(3))

    samples = (real, fake) if function is gradient_penalty else (real,)
    output = CriticLoss(critic, penalty=seeded(), loss=discriminator_loss)(real, fake)
    torch.testing.assert_close(output.penalty, seeded()(critic, *samples).detach(), rtol=1e-10, atol=0)


@pytest.mark.parametrize("penalty", ["r1", 1.0, nn.Linear(2, 1).weight])
def test_critic_loss_refuses_what_is_no_penalty(penalty: Any) -> None:
    with pytest.raises(TypeError, match="^penalty: expected a callable"):
        CriticLoss(nn.Linear(2, 1), penalty=penalty)


def test_critic_loss_refuses_batches_that_do_not_fit() -> None:
    for penalty in (r1_penalty, r1_r2_penalty, gradient_penalty):
        loss = CriticLoss(nn.Linear(2, 1), penalty=penalty, loss=discriminator_loss)
        with pytest.raises(ValueError, match=r"^fake: expected samples of shape \(2,\) as of real, got \(3,\)"):
            loss(torch.ones(4, 2), torch.ones(4, 3))
        with pytest.raises(ValueError, match="^real: "):
            loss(torch.ones(0, 2), torch.ones(4, 2))
        with pytest.raises(TypeError, match="^fake: "):
            loss(torch.ones(4, 2), None)


def test_features_that_a_critic_keeps_can_be_differentiated() -> None:
    """An auxiliary loss on them, such as feature matching, is differentiated after the penalty shared their forward."""

    class Keeping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(4, 6), nn.Linear(6, 1)

        def forward(self, x: Tensor) -> Tensor:
            self.features = torch.relu(self.body(x))
            return self.head(self.features)

    critic = Keeping()
    real, fake = torch.randn(2, 5, 4)
    loss = CriticLoss(critic, penalty=r1_r2_penalty)(real, fake).loss + critic.features.square().mean()
    expected = CriticLoss(critic, penalty=lambda *batch: r1_r2_penalty(*batch))(real, fake).loss
    expected = expected + torch.relu(critic.body(fake)).square().mean()
    for one, other in zip(
        torch.autograd.grad(loss, [*critic.parameters()]),
        torch.autograd.grad(expected, [*critic.parameters()]),
        strict=True,
    ):
        torch.testing.assert_close(one, other)
