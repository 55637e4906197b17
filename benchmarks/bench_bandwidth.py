"""Each kernel against a copy of the same number of bytes: the ratio is its share of the copy's bandwidth. On a GPU the
time is that of replays of a CUDA graph, without the host's.
"""

from collections.abc import Callable
from math import inf

import pytest
import torch

from conftest import Comparison
from rehearsal import unless_rehearsed
from wgan_fast import clip_weights_, interpolate
from wgan_fast.ops import gradient_norm_penalty

MEBIBYTES = (64, 256)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
CALLS = 10  # in a graph
Case = tuple[Callable[[], object], float]  # the call, and the batches that it reads and writes


def cases(device: torch.device, count: int, dtype: torch.dtype) -> dict[str, Case]:
    """Of a batch of ``count`` numbers."""
    rows = 64
    a, b, c = torch.rand(3, rows, count // rows, device=device).to(dtype)
    t = torch.rand(rows, device=device)
    bits = 1 / (8 * dtype.itemsize)  # of a mask
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
        "piecewise_linear": (lambda: operators.piecewise_linear(a, 0.2, 0.0, inf), 2 + bits),
        "apply_mask": (lambda: operators.apply_mask(a, mask, 0.2, a.stride()), 2 + bits),
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


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mebibytes", [f"{size} MiB" for size in MEBIBYTES])
@pytest.mark.parametrize("name", NAMES)
def bench_bandwidth(compare: Comparison, name: str, mebibytes: str, dtype: str) -> None:
    on_gpu = compare.device.type == "cuda"
    if not on_gpu and (dtype != "float32" or mebibytes != "64 MiB"):
        pytest.skip("of interest on a GPU")
    size = unless_rehearsed(int(mebibytes.split()[0]) * 2**20, 2**12)
    kernel, passes = cases(compare.device, size // DTYPES[dtype].itemsize, DTYPES[dtype])[name]
    source = torch.rand(int(size * passes / 8), device=compare.device)
    target = torch.empty_like(source)
    # Most kernels allocate their output, as a clone does.
    copies = {"copy": lambda: target.copy_(source), "clone": source.clone}
    in_graph = {"calls": CALLS, "in_graph": True, "seconds": unless_rehearsed(0.5, 0.01)} if on_gpu else {}
    compare(kernel, bytes_moved=int(size * passes), **in_graph, **copies)
