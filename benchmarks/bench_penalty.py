"""One penalty with its backward, against the textbook's: time, floating-point operations, peak memory."""

import pytest
import torch

from conftest import Comparison
from costs import TINY, flops, flops_of, peak_memory, update
from wgan_fast import gradient_penalty, reference
from wgan_fast.bench import CRITICS

PENALTIES = {"ours": gradient_penalty, "textbook": reference.gradient_penalty}


@pytest.mark.parametrize("name", [*CRITICS, *TINY])
def bench_gradient_penalty(compare: Comparison, name: str) -> None:
    make, shape = (CRITICS | TINY)[name]
    critic = make().to(compare.device)
    with torch.no_grad():
        forward = flops_of(lambda: critic(torch.randn(shape, device=compare.device)))
    compare.count("forwards", **{name: flops(p, critic, shape) / forward for name, p in PENALTIES.items()})
    compare.count("peak_bytes", **{name: peak_memory(p, critic, shape) for name, p in PENALTIES.items()})
    compare(
        lambda: update(gradient_penalty, critic, shape),
        textbook=lambda: update(reference.gradient_penalty, critic, shape),
    )
