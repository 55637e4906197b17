"""One step of RMSprop with clipping against torch.optim.RMSprop and PyTorch's clamps: of one weight after the other, as
PyTorch does by default on a CPU, and of whole lists.
"""

import copy
import itertools

import pytest
import torch
from torch import nn

from conftest import Comparison
from wgan_fast.bench import mlp
from wgan_fast.optim import RMSprop


def dcgan_64() -> nn.Module:
    """The critic of DCGAN for 64 x 64 images."""
    widths = (3, 64, 128, 256, 512)
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Conv2d(before, after, 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(512, 1, 4, bias=False))


CRITICS = {
    "mlp 2-512x3": lambda: mlp(2, 512, 3),
    "mlp 784-1024x3": lambda: mlp(784, 1024, 3),
    "dcgan-64": dcgan_64,
    "60 x 20,000": lambda: nn.ParameterList(nn.Parameter(torch.randn(20_000)) for _ in range(60)),
}
CASES = [*((name, "float32") for name in CRITICS), ("dcgan-64", "bfloat16")]


@pytest.mark.parametrize(("name", "dtype"), CASES)
@pytest.mark.parametrize("caches", ["warm", "cold"])
def bench_rmsprop(compare: Comparison, name: str, dtype: str, caches: str) -> None:
    """Ten calls in a row, or one after what the other has left in the caches."""
    critic = CRITICS[name]().to(compare.device, getattr(torch, dtype))
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
