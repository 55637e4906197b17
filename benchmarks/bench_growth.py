"""How time and peak memory grow with the batch, the critic's width and depth, and the number of clipped weights."""

from copy import deepcopy

import pytest
import torch

import rivals
from conftest import Comparison
from costs import peak_bytes_of
from wgan_fast import CriticStep, clip_weights_
from wgan_fast.bench import mlp
from workloads import N_CRITIC

#: An MLP with 64 inputs, where one size grows. A CPU takes about a second for the largest.
SIZE, BATCH, WIDTH, DEPTH = 64, 128, 256, 3
GROWTH = {
    "batch": (8, 32, 128, 512, 2048, 4096),
    "width": (32, 64, 128, 256, 512, 1024, 2048),
    "depth": (1, 2, 4, 8, 16),
}


@pytest.mark.parametrize(("measure", "value"), [(name, value) for name, values in GROWTH.items() for value in values])
def bench_growth(compare: Comparison, measure: str, value: int) -> None:
    size = {"batch": BATCH, "width": WIDTH, "depth": DEPTH, measure: value}
    critic = mlp(SIZE, size["width"], size["depth"]).to(compare.device)
    real, fake = torch.randn(2, size["batch"], SIZE, device=compare.device)
    options = {"fused": True, "capturable": True} if compare.device.type == "cuda" else {}
    textbook = rivals.textbook(deepcopy(critic), real, fake)
    step = CriticStep(critic, rivals.adam(critic, **options))

    def ours() -> None:
        step(real, fake)

    calls = N_CRITIC if compare.device.type == "cuda" else 1
    compare(ours, calls=calls, textbook=textbook, fused=rivals.textbook(deepcopy(critic), real, fake, fused=True))
    copied = deepcopy(critic)
    eager = CriticStep(copied, rivals.adam(copied), backend="eager")  # a captured graph keeps its memory
    of_each = {"ours": lambda: eager(real, fake), "textbook": textbook}
    compare.count("peak_bytes", **{who: peak_bytes_of(what, compare.device) for who, what in of_each.items()})
    compare.count("all_reduce_bytes", ours=sum(parameter.nbytes for parameter in critic.parameters()))


@pytest.mark.parametrize("numbers", [10**exponent for exponent in range(3, 9)])
def bench_clipped(compare: Comparison, numbers: int) -> None:
    """Clips tensors of up to 20,000 numbers; beyond 20 million numbers, 1,000 larger tensors."""
    weights = list(torch.randn(numbers, device=compare.device).split(max(min(numbers, 20_000), numbers // 1000)))

    def foreach() -> None:
        torch._foreach_clamp_min_(weights, -0.01)
        torch._foreach_clamp_max_(weights, 0.01)

    def loop() -> None:
        for weight in weights:
            weight.clamp_(-0.01, 0.01)

    compare(lambda: clip_weights_(weights), bytes_moved=8 * numbers, textbook=loop, foreach=foreach)
