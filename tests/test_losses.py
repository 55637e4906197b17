"""The losses: formulas, gradients, types, errors."""

import pytest
import torch

from wgan_fast import critic_loss, generator_loss


def test_formulas(device: torch.device) -> None:
    real, fake = torch.tensor([1.0, 3.0], device=device), torch.tensor([[4.0], [6.0], [8.0]], device=device)
    assert critic_loss(real, fake).item() == 4.0
    assert generator_loss(fake).item() == -6.0


def test_gradients() -> None:
    real, fake = torch.randn(3, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    assert torch.autograd.gradcheck(critic_loss, (real.requires_grad_(), fake.requires_grad_()))
    assert torch.autograd.gradcheck(generator_loss, fake)


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
    with pytest.raises(error, match=f"^{argument}: expected"):
        critic_loss(*scores)
    if argument == "fake_scores" and scores[1].device.type == "cpu":
        with pytest.raises(error, match="^fake_scores: expected"):
            generator_loss(scores[1])
