"""Runs every kernel once for each type, alignment and layout, for compute-sanitizer: `python -m gpu.every_kernel`.

Values are not compared here (gpu/checks.py does). Rows have the lengths and counts at which the operators change
kernels, and odd sizes end in each tail. Kernels for more than 2^31 vectors are left out: a memory checker would take
hours.
"""

import itertools
import sys
from functools import partial

import torch
from torch import nn

from gpu.cases import DTYPES, LAYOUTS, SHAPES, laid_out
from gpu.journal import Comparisons
from rehearsal import REHEARSED
from wgan_fast import clip_weights_, gradient_penalty, optim
from wgan_fast._library import extension  # noqa: F401 (registers the operators)

native = torch.ops.wgan_fast
TENSORS = (1, 40, 200, 1100)  # of a list: the kernels over lists have versions for few and for many


def on_batches(shape: tuple[int, ...], dtype: torch.dtype, layout: str) -> None:
    x, y = (laid_out(torch.randn(shape).to(dtype).cuda(), layout) for _ in range(2))
    t = torch.rand(shape[0], dtype=torch.float64 if dtype == torch.float64 else torch.float32).cuda()
    native.interpolate(x, y, t)
    for power, one_sided in ((2.0, False), (2.0, True), (6.0, False)):
        rest = 10.0, 1.0, power, one_sided
        _, norms = native.gradient_norm_penalty(x, *rest)
        native.gradient_norm_penalty_backward(t[0], x, norms, *rest)
    dense = [value if layout == "channels_last" else value.contiguous() for value in (x, y)]
    if layout == "unaligned":
        dense = [x, y]
    for slope, lower, upper in ((0.2, 0.0, torch.inf), (0.0, -0.5, 0.5)):
        found, mask = native.piecewise_linear(dense[0], slope, lower, upper)
        native.apply_mask(dense[1], mask, slope, found.stride())
        native.piecewise_linear_(dense[0].clone(), slope, lower, upper)
    if layout != "expanded":
        clip_weights_([x, y], 0.5)
        rate, scale, found_inf = torch.tensor([0.1, 2.0, 0.0]).cuda().unbind()
        lists = [laid_out(torch.rand(shape).to(dtype).cuda(), layout) for _ in range(3)]
        native.rmsprop_(*([each] for each in lists), rate, 0.99, 1e-8, 0.1, False, 0.5, scale, found_inf)
    torch.cuda.synchronize()


def on_lists(count: int, dtype: torch.dtype, layout: str) -> None:
    """Weights of many sizes, in one launch."""
    sizes = [(1 + i % 7, 3 + i % 5) for i in range(count)]
    weights = [nn.Parameter(laid_out(torch.randn(size).to(dtype).cuda(), layout)) for size in sizes]
    clip_weights_(weights, 0.5)
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    optim.RMSprop(weights, clip=0.1).step()
    torch.cuda.synchronize()


def penalty_and_backward(dtype: torch.dtype) -> None:
    real, fake = (torch.randn(33, 17).to(dtype).cuda() for _ in range(2))
    weight = torch.randn(17).to(dtype).cuda().requires_grad_()
    gradient_penalty(lambda x: (x * weight).square(), real, fake).backward()
    torch.cuda.synchronize()


def main() -> int:
    if REHEARSED:
        import computing  # noqa: F401 (PyTorch's operators compute under the stand-in for CUDA)
    run = Comparisons()
    for dtype in DTYPES:
        run(f"penalty {dtype}", partial(penalty_and_backward, dtype))
        for count, layout in itertools.product(TENSORS, ("contiguous", "unaligned", "channels_last")):
            run(f"lists {count} {dtype} {layout}", partial(on_lists, count, dtype, layout))
        for shape, layout in itertools.product(SHAPES, LAYOUTS):
            run(f"batch {shape} {dtype} {layout}", partial(on_batches, shape, dtype, layout))
    return int(run.failed > 0)


if __name__ == "__main__":
    sys.exit(main())
