"""What a call of a public function costs beside its work: on 8 samples of 2 numbers, against the operator that it
calls, or the formula in plain PyTorch.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from conftest import Comparison
from wgan_fast import clip_weights_, critic_loss, discriminator_loss, generator_loss, interpolate
from wgan_fast.ops import gradient_norm_penalty
from wgan_fast.optim import RMSprop

Call = Callable[[], object]


def calls(device: torch.device) -> dict[str, tuple[Call, Call]]:
    """The public call, and what it is compared with."""
    native = torch.ops.wgan_fast
    real, fake = torch.randn(2, 8, 2, device=device)
    t, scores, others = torch.rand(3, 8, device=device)
    weights = [torch.randn(8, device=device) for _ in range(4)]
    return {
        "interpolate": (lambda: interpolate(real, fake, t), lambda: native.interpolate(real, fake, t)),
        "interpolate, draws t": (
            lambda: interpolate(real, fake),
            lambda: native.interpolate(real, fake, torch.rand(8, device=device)),
        ),
        "gradient_norm_penalty": (
            lambda: gradient_norm_penalty(real),
            lambda: native.gradient_norm_penalty(real, 10.0, 1.0, 2.0, False),
        ),
        "clip_weights_": (lambda: clip_weights_(weights, 0.5), lambda: native.clip_weights_(weights, 0.5)),
        "critic_loss": (lambda: critic_loss(scores, others), lambda: others.mean() - scores.mean()),
        "generator_loss": (lambda: generator_loss(scores), lambda: -scores.mean()),
        "discriminator_loss": (lambda: discriminator_loss(scores, others), lambda: _discriminator_loss(scores, others)),
        "RMSprop.step": _rmsprop(weights),
    }


def _discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def _rmsprop(weights: list[Tensor]) -> tuple[Call, Call]:
    parameters = [weight.clone().requires_grad_() for weight in weights]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    copies, gradients, averages = ([torch.zeros_like(weight) for weight in weights] for _ in range(3))
    lr = torch.tensor(5e-5, dtype=torch.float64)
    settings: Any = (0.99, 1e-8, 0.0, False, 0.01, None, None)
    native = torch.ops.wgan_fast
    optimizer = RMSprop(parameters, clip=0.01)
    return optimizer.step, lambda: native.rmsprop_(copies, gradients, averages, lr, *settings)


@pytest.mark.parametrize("name", calls(torch.device("cpu")))
def bench_call(compare: Comparison, name: str) -> None:
    ours, operator = calls(compare.device)[name]
    compare(ours, calls=200, seconds=1.0, operator=operator)
