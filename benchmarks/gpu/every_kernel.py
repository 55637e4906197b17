"""Runs every kernel for each type, alignment and length of rows, for compute-sanitizer: `python -m gpu.every_kernel`.

Values are not compared here (gpu/checks.py does). tests/cuda_stand_in/test_gpu_report.py fails if a compiled kernel is
not launched: a new operator takes a function of its own in ON_BATCHES or ON_LISTS. Kernels for more than 2^31 vectors
are those for unaligned data, so a memory checker need not spend hours on them.
"""

import itertools
import sys
from collections.abc import Callable
from functools import partial
from math import inf

import torch
from torch import Tensor

from gpu.cases import DTYPES, laid_out
from gpu.journal import Comparisons
from rehearsal import REHEARSED
from wgan_fast._library import extension  # noqa: F401 (registers the operators)

native = torch.ops.wgan_fast
#: Rows for 1, 8, 32 and 256 threads, and in segments; of vectors of 8, 4, 2 and 1 elements.
SHAPES = (
    *((3, length) for length in (4, 2, 3)),
    *((3, length) for length in (8, 12, 6, 5)),
    *((1024, length) for length in (72, 68, 66, 65)),
    *((3, length) for length in (1032, 68, 66, 65)),
    *((2, length) for length in (8192, 8196, 8194, 8193)),
)
BATCHES = [(shape, "contiguous") for shape in SHAPES]
BATCHES += [(shape, "unaligned") for shape in ((3, 4), (3, 12), (2, 8196))]
TENSORS = (2, 65)  # of a list: the kernels for few and for many, and more with gaps than one launch holds
FORMULAS = ((10.0, 1.0, 2.0, False), (10.0, 1.0, 2.0, True), (10.0, 1.0, 6.0, False))
SMOOTH = dict.fromkeys(("silu", "gelu", "gelu_tanh", "tanh", "sigmoid", "mish", "logsigmoid", "softsign"), ()) | {
    "softplus": (1.0, 20.0),
    "elu": (1.0, 1.0, 1.0),
    "elu_of_output": (1.0, 1.0, 1.0),
}
New = Callable[[], Tensor]
NewList = Callable[[], list[Tensor]]


def on_device(values: Tensor, layout: str) -> Tensor:
    """The values on the GPU, which got them in a copy of all memory around them from the host: initcheck counts what
    only a kernel of PyTorch has written as uninitialised, as these kernels are not instrumented.
    """
    on_host = laid_out(values, layout)
    memory = on_host.new_empty(0).set_(on_host.untyped_storage())
    return memory.cuda().as_strided(on_host.shape, on_host.stride(), on_host.storage_offset())


def drawn(shape: tuple[int, ...], dtype: torch.dtype, layout: str) -> Tensor:
    return on_device(torch.rand(shape).to(dtype), layout)


def numbers(value: float, dtype: torch.dtype, *shape: int) -> Tensor:
    """On the GPU, in the precision that kernels for ``dtype`` compute in."""
    return torch.full(shape, value, dtype=torch.float64 if dtype == torch.float64 else torch.float32).cuda()


def interpolate(new: New) -> None:
    x = new()
    native.interpolate(x, new(), numbers(0.5, x.dtype, len(x)))


def gradient_norm_penalty(new: New) -> None:
    x = new()
    for formula in FORMULAS:
        _, norms = native.gradient_norm_penalty(x, *formula)
        native.gradient_norm_penalty_backward(numbers(1.0, x.dtype), x, norms, *formula)


def piecewise_linear(new: New) -> None:
    for slope, lower, upper in ((0.2, 0.0, inf), (0.0, -0.5, 0.5)):
        x = new()
        _, mask = native.piecewise_linear(x, slope, lower, upper)
        native.apply_mask(new(), mask, slope, x.stride())
        native.piecewise_linear_(x, slope, lower, upper)


def smooth_activation(new: New) -> None:
    for kind, parameters in SMOOTH.items():
        x, grad = new(), new()
        native.smooth_activation(x, kind, parameters)
        for order in range(3):
            native.smooth_activation_backward(grad, x, kind, parameters, order)
        native.smooth_activation_double_backward(grad, grad, x, kind, parameters)
        native.smooth_activation_(x, kind, parameters)


def normalization(new: New) -> None:
    """Over a sample; over two, for lengths that no sample has; over two groups, each a channel of its own."""
    x, grad, eps = new(), new(), 1e-5
    length = x[0].numel()
    shapes = [(1, length, 1)] + [(1, 2 * length, 1), (2, 1, length)] * (len(x) % 2 == 0)
    for shape, centered in itertools.product(shapes, (True, False)):
        weight = drawn((shape[0] * shape[1],), x.dtype, "contiguous")
        _, statistics = native.normalization(x, weight, weight, shape, eps, centered)
        native.normalization_backward(grad, x, statistics, weight, shape, eps, centered, [True] * 3)
        native.normalization_double_backward(grad, grad, x, statistics, weight, shape, eps, centered, True)


ON_BATCHES = (interpolate, gradient_norm_penalty, piecewise_linear, smooth_activation, normalization)


def clip_weights(new: NewList) -> None:
    native.clip_weights_(new(), 0.5)


def nonfinite(new: NewList) -> None:
    tensors = new()
    if are_dense(tensors):
        native.nonfinite(tensors)


def are_dense(tensors: list[Tensor]) -> bool:
    """Others are copied first, by kernels of PyTorch, whose output initcheck counts as uninitialised."""
    return all(tensor.is_contiguous() for tensor in tensors)


def rmsprop(new: NewList) -> None:
    weights = new()
    if are_dense(weights):
        rate, scale, found_inf = (numbers(value, weights[0].dtype) for value in (0.1, 2.0, 0.0))
        native.rmsprop_(weights, new(), new(), rate, 0.99, 1e-8, 0.1, False, 0.5, scale, found_inf)


ON_LISTS = (clip_weights, nonfinite, rmsprop)


def run_on_batches(shape: tuple[int, ...], dtype: torch.dtype, layout: str) -> None:
    for operator in ON_BATCHES:
        operator(partial(drawn, shape, dtype, layout))
    torch.cuda.synchronize()


def run_on_lists(count: int, dtype: torch.dtype, layout: str) -> None:
    """Weights of many sizes."""
    for operator in ON_LISTS:
        operator(lambda: [drawn((1 + i % 7, 3 + i % 29), dtype, layout) for i in range(count)])
    torch.cuda.synchronize()


def main() -> int:
    if REHEARSED:
        import computing  # noqa: F401 (PyTorch's operators compute under the stand-in for CUDA)
    run = Comparisons()
    for dtype in DTYPES:
        for count, layout in itertools.product(TENSORS, ("contiguous", "unaligned", "gaps")):
            run(f"lists {count} {dtype} {layout}", partial(run_on_lists, count, dtype, layout))
        for shape, layout in BATCHES:
            run(f"batch {shape} {dtype} {layout}", partial(run_on_batches, shape, dtype, layout))
    return int(run.failed > 0)


if __name__ == "__main__":
    sys.exit(main())
