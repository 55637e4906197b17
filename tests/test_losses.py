"""The losses: formulas, gradients, dtypes, errors."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from wgan_fast import (
    CriticLoss,
    critic_loss,
    discriminator_loss,
    generator_loss,
    gradient_penalty,
    minimax_generator_loss,
    non_saturating_generator_loss,
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
