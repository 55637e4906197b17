"""Critics built like published ones: our updates have the gradients of theirs."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from published import R3GANCritic, StyleGAN2Critic, r3gan_gradients, stylegan2_gradients
from wgan_fast import (
    CriticLoss,
    discriminator_loss,
    input_gradient,
    r1_penalty,
    r1_r2_penalty,
    relativistic_critic_loss,
)

R3GAN = (
    lambda: R3GANCritic(16, (32, 32, 32), 1),
    r3gan_gradients,
    {"penalty": r1_r2_penalty, "loss": relativistic_critic_loss},
    True,
)
STYLEGAN2 = (
    lambda: StyleGAN2Critic((8, 16, 16)),
    stylegan2_gradients,
    {"penalty": r1_penalty, "loss": discriminator_loss},
    False,
)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
@pytest.mark.parametrize(("make", "gradients", "options", "affine"), [R3GAN, STYLEGAN2], ids=["R3GAN", "StyleGAN2"])
def test_gradients_of_the_published_update(
    make: Callable[[], nn.Module],
    gradients: Callable[..., Any],
    options: dict[str, Any],
    affine: bool,
    dtype: torch.dtype,
    tolerance: float,
) -> None:
    """A minibatch deviation lets samples influence one another: then 6 forwards, else 4."""
    critic = make().to(dtype)
    for parameter in critic.parameters():
        if parameter.dim() == 1:  # biases that are zero at first
            nn.init.normal_(parameter)
    other = copy.deepcopy(critic)
    real, fake = torch.randn(2, 8, 3, 16, 16, dtype=dtype)
    labels = (torch.arange(8) % 10,) if affine else ()
    gradients(critic, real, fake, *labels)
    CriticLoss(other, **options)(real, fake, *labels).loss.backward()
    for one, expected in zip(other.parameters(), critic.parameters(), strict=True):
        assert (one.grad is None) == (expected.grad is None)
        if expected.grad is not None:
            scale = expected.grad.abs().max().item()
            torch.testing.assert_close(one.grad, expected.grad, rtol=tolerance, atol=tolerance * scale)
    scores, _ = input_gradient(critic, real, *labels)
    assert ("AffineScores" in scores.grad_fn.name()) == affine
