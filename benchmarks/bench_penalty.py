"""A penalty with its backward against the textbook's: time, floating-point operations, peak memory."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from conftest import Comparison
from costs import CRITICS, CURVED, FOR_CPU, Penalty, flops, flops_of, peak_memory
from limits import products
from wgan_fast import gradient_penalty, reference

PENALTIES = {"ours": gradient_penalty, "textbook": reference.gradient_penalty}


@pytest.mark.parametrize("name", [*FOR_CPU, "tiny"])
def bench_gradient_penalty(compare: Comparison, name: str) -> None:
    compare_penalties(compare, *CRITICS[name])


@pytest.mark.parametrize("name", CURVED)
def bench_curved_penalty(compare: Comparison, name: str) -> None:
    """Beside one forward of the critic, the unit of its time."""
    compare_penalties(compare, *CURVED[name])


def compare_penalties(compare: Comparison, make: Callable[[], nn.Module], shape: tuple[int, ...]) -> None:
    critic = make().to(compare.device)
    real, fake = torch.randn(2, *shape, device=compare.device)
    t = torch.rand(len(real), device=compare.device)

    def forward() -> None:
        with torch.no_grad():
            critic(real)

    def penalised(penalty: Penalty) -> None:
        critic.zero_grad()
        penalty(critic, real, fake, t=t).backward()

    unit = flops_of(forward)
    compare.count("forwards", **{name: flops(p, critic, shape) / unit for name, p in PENALTIES.items()})
    compare.count("peak_bytes", **{name: peak_memory(p, critic, shape) for name, p in PENALTIES.items()})

    def ours() -> None:
        penalised(gradient_penalty)

    limit = {} if compare.device.type == "cuda" else {"products": products(ours)}  # there the host's time would count
    compare(ours, textbook=lambda: penalised(reference.gradient_penalty), forward=forward, **limit)
