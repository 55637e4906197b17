"""Each kernel against a copy of the same number of bytes: the ratio is its share of the copy's bandwidth."""

from collections.abc import Callable
from math import inf

import pytest
import torch

from conftest import Comparison
from wgan_fast import clip_weights_, interpolate
from wgan_fast.ops import gradient_norm_penalty

MEBIBYTES = 64
COUNT = MEBIBYTES * 2**20 // 4
Case = tuple[Callable[[], object], float]  # the call, and the numbers that it reads and writes, in units of COUNT


def cases(device: torch.device) -> dict[str, Case]:
    rows = 64
    a, b, c = torch.rand(3, rows, COUNT // rows, device=device)
    t = torch.rand(rows, device=device)
    _, norms = gradient_norm_penalty(a)
    _, mask = torch.ops.wgan_fast.piecewise_linear(a, 0.2, 0.0, inf)
    weights, gradients, averages, rate = list(a), list(b), list(c), torch.tensor(1e-5, device=device)
    operators = torch.ops.wgan_fast
    return {
        "interpolate": (lambda: interpolate(a, b, t), 3),
        "gradient_norm_penalty": (lambda: gradient_norm_penalty(a), 1),
        "gradient_norm_penalty_backward": (
            lambda: operators.gradient_norm_penalty_backward(t[0], a, norms, 10.0, 1.0, 2.0, False),
            2,
        ),
        "piecewise_linear": (lambda: operators.piecewise_linear(a, 0.2, 0.0, inf), 2 + 1 / 32),
        "apply_mask": (lambda: operators.apply_mask(a, mask, 0.2, a.stride()), 2 + 1 / 32),
        "clip_weights_": (lambda: clip_weights_(weights), 2),
        "rmsprop_": (
            lambda: operators.rmsprop_(weights, gradients, averages, rate, 0.99, 1e-8, 0.0, False, inf, None, None),
            5,
        ),
    }


NAMES = (
    "interpolate",
    "gradient_norm_penalty",
    "gradient_norm_penalty_backward",
    "piecewise_linear",
    "apply_mask",
    "clip_weights_",
    "rmsprop_",
)


@pytest.mark.parametrize("name", NAMES)
def bench_bandwidth(compare: Comparison, name: str) -> None:
    kernel, passes = cases(compare.device)[name]
    source = torch.rand(int(COUNT * passes / 2), device=compare.device)
    target = torch.empty_like(source)
    # Most kernels allocate their output, as a clone does.
    copies = {"copy": lambda: target.copy_(source), "clone": source.clone}
    compare(kernel, bytes_moved=int(COUNT * passes) * 4, **copies)
