"""A step of RMSprop with clipping against torch.optim.RMSprop and clamps: tensor by tensor, PyTorch's default on a CPU,
and with foreach.
"""

import copy

import pytest
import torch
from torch import nn

from conftest import Comparison
from costs import CRITICS
from wgan_fast.optim import RMSprop

WEIGHTS = {name: CRITICS[name][0] for name in ("toy", "wide", "dcgan-64")} | {
    "60 x 20,000": lambda: nn.ParameterList(nn.Parameter(torch.randn(20_000)) for _ in range(60))
}
CASES = [*((name, "float32") for name in WEIGHTS), ("dcgan-64", "bfloat16")]


@pytest.mark.parametrize(("name", "dtype"), CASES)
@pytest.mark.parametrize("caches", ["warm", "cold"])
def bench_rmsprop(compare: Comparison, name: str, dtype: str, caches: str) -> None:
    """Warm: ten calls in a row. Cold: one call, after a baseline has evicted the caches."""
    critic = WEIGHTS[name]().to(compare.device, getattr(torch, dtype))
    params, others, loops = (list(copy.deepcopy(critic).parameters()) for _ in range(3))
    for param, *copies in zip(params, others, loops, strict=True):
        param.grad = torch.randn_like(param)
        for other in copies:
            other.grad = param.grad.clone()
    optimizer = RMSprop(params, clip=0.01)
    baseline = torch.optim.RMSprop(others, lr=5e-5, foreach=True)
    textbook = torch.optim.RMSprop(loops, lr=5e-5, foreach=False)

    def step_and_clamp() -> None:
        baseline.step()
        with torch.no_grad():
            torch._foreach_clamp_min_(others, -0.01)
            torch._foreach_clamp_max_(others, 0.01)

    def loop() -> None:
        textbook.step()
        with torch.no_grad():
            for other in loops:
                other.clamp_(-0.01, 0.01)

    compare(
        optimizer.step,
        calls=10 if caches == "warm" else 1,
        bytes_moved=5 * sum(param.nbytes for param in params),
        textbook=loop,
        foreach=step_and_clamp,
    )
