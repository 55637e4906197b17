"""Comparison of a step with the textbook's; critics whose real and fake samples may not be scored in one batch."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from critics import Modulated
from wgan_fast import CriticStep, reference

BATCH = 6
Optimizer = Callable[..., torch.optim.Optimizer]
# Adam divides a gradient by its own size, and so makes the rounding of a gradient that is zero as large as a step.
sgd = partial(torch.optim.SGD, lr=1e-2, fused=True)
adam = partial(torch.optim.Adam, lr=1e-2, betas=(0.0, 0.9), fused=True)


class MinibatchStandardDeviation(nn.Module):
    """A feature that all samples of the batch share."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(13, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.cat([x, x.std(0).mean().expand(len(x), 1)], 1))


class RunningSum(nn.Module):
    """Each row depends on those before it."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(12, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.cumsum(0)).tanh()


class FixedBatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(12, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.view(BATCH, 12)).sigmoid()


#: Critics that may not score real and fake samples in one batch.
COUPLED: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "minibatch standard deviation": (MinibatchStandardDeviation, (12,)),
    "running sum": (RunningSum, (12,)),
    "one size of batch": (FixedBatch, (12,)),
    "batch normalisation": (
        lambda: nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1)),
        (12,),
    ),
    "spectral normalisation": (
        lambda: nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(12, 8)), nn.ReLU(), nn.Linear(8, 1)),
        (12,),
    ),
    "position in the batch": (Modulated, (12,)),
    "dropout": (lambda: nn.Sequential(nn.Linear(12, 8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 1)), (12,)),
}


def samples(shape: tuple[int, ...], count: int = BATCH, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    return torch.randn(count, *shape, dtype=dtype), torch.rand(count, *shape, dtype=dtype)


def updated(critic: nn.Module, update: Callable[..., Any], batches: list[tuple[Tensor, ...]]) -> list[Tensor]:
    """Everything that the updates change or return."""
    torch.manual_seed(1)
    outputs = []
    for batch in batches:
        output = update(*batch)
        outputs.append(output if isinstance(output, Tensor) else torch.stack(output))
    return [*outputs, *(value.detach().clone() for value in critic.state_dict().values())]


assert_close = partial(torch.testing.assert_close, rtol=1e-10, atol=1e-10)


def compare_with_textbook(
    critic: nn.Module, batches: list[tuple[Tensor, ...]], backend: str = "eager", optimizer: Optimizer = sgd
) -> None:
    other = copy.deepcopy(critic)
    expected = updated(other, partial(reference.critic_step, other, optimizer(other.parameters())), batches)
    actual = updated(critic, CriticStep(critic, optimizer(critic.parameters()), backend=backend), batches)
    assert_close(actual, expected)
