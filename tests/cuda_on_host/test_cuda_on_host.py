"""The CUDA kernels' own source, compiled for the CPU, against the reference: under the address and undefined-behaviour
sanitizers, and a few cases under the thread sanitizer, which sees a missing barrier.
"""

import itertools
import os
import subprocess
from collections.abc import Sequence
from math import inf, isinf, nan
from pathlib import Path

import pytest
import torch
from torch import Tensor

from conftest import FLOATING, TOLERANCE, assert_close
from sample_inputs import with_layout
from wgan_fast import reference
from wgan_fast._checks import accumulate_dtype
from wgan_fast._library import extension  # noqa: F401 (registers the operators)

HERE = Path(__file__).parent
KERNELS = HERE.parents[1] / "csrc"
ADDRESS = ["-fsanitize=address", "-fno-sanitize-recover=all"]
PROGRAMS = {
    "address": [*ADDRESS, "-fsanitize=undefined"],  # takes half as long again to compile, so one program has it
    # Grids of a few blocks, so that the loops over the grid go round on small inputs.
    "small grid": [
        *ADDRESS,
        *("-DWGAN_FAST_MAX_BLOCKS=2", "-DWGAN_FAST_MAX_ROW_BLOCKS=3", "-DWGAN_FAST_MIN_SEGMENT=64"),
        *("-DWGAN_FAST_LIST_BLOCKS=2", "-DWGAN_FAST_MAX_VECTORS=700", "-DWGAN_FAST_MAX_ROWS=40"),
    ],
    "thread": ["-fsanitize=thread"],
}
Formula = tuple[float, float, float]  # negative_slope, lower, upper
Activation = tuple[str, list[float]]  # kind, parameters
#: In the order of SmoothKind
SMOOTH = ["silu", "gelu", "gelu_tanh", "tanh", "sigmoid", "softplus", "elu", "elu_of_output"]
SMOOTH += ["mish", "logsigmoid", "softsign"]
ELUS = ("elu", "elu_of_output")
native = torch.ops.wgan_fast
NAMES = {dtype: str(dtype).removeprefix("torch.") for dtype in FLOATING}


def build(folder: Path, name: str) -> Path:
    program = folder / "kernels"
    kernels = sorted((KERNELS / "kernels").glob("*.cu"))
    flags = ["-std=c++20", "-O1", "-g1", "-Wall", "-Wextra", "-Werror", "-pthread", *PROGRAMS[name]]
    compiler = os.environ.get("CXX", "g++")
    subprocess.run(
        [compiler, *flags, f"-I{HERE}", f"-I{KERNELS}", "-xc++", *kernels, HERE / "main.cpp", "-o", program],
        check=True,
        timeout=1200,
    )
    return program


@pytest.fixture(scope="session")
def address_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("address"), "address")


@pytest.fixture(scope="session")
def small_grid_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("small_grid"), "small grid")


@pytest.fixture(scope="session")
def thread_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("thread"), "thread")


def to_bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def run(program: Path, *arguments: object, tensors: list[Tensor]) -> bytearray:
    result = subprocess.run(
        [program, *map(str, arguments)],
        input=b"".join(map(to_bytes, tensors)),
        capture_output=True,
        timeout=120,  # threads that part ways at a barrier never end
        env={**os.environ, "TSAN_OPTIONS": "halt_on_error=1"},
    )
    assert result.returncode == 0, result.stderr.decode()[-4000:]
    return bytearray(result.stdout)


def split(data: bytearray, *parts: tuple[torch.dtype, int]) -> list[Tensor]:
    tensors, start = [], 0
    for dtype, count in parts:
        stop = start + count * dtype.itemsize
        tensors.append(torch.frombuffer(data[start:stop], dtype=dtype))
        start = stop
    assert start == len(data)
    return tensors


def check_interpolate(program: Path, dtype: torch.dtype, rows: int, length: int, offset: int) -> None:
    real, fake = torch.randn(2, rows, length).to(dtype)
    t = torch.rand(rows, dtype=accumulate_dtype(dtype))
    data = run(program, "interpolate", NAMES[dtype], rows, length, offset, tensors=[real, fake, t])
    (points,) = split(data, (dtype, rows * length))
    assert_close(points.view(rows, length), reference.interpolate(real.double(), fake.double(), t.double()), dtype)


def check_penalty(program: Path, dtype: torch.dtype, rows: int, length: int, offset: int, one_sided: bool) -> None:
    gradient = torch.randn(rows, length).to(dtype)
    if rows > 1:
        gradient[0] = 0.0
    arithmetic = accumulate_dtype(dtype)
    grad_penalty = torch.tensor([1.5], dtype=arithmetic)
    target = length**0.5  # some norms on each side
    power = 2.0 + rows % 2
    data = run(
        program,
        *("gradient_norm_penalty", NAMES[dtype], rows, length, offset, 10.0, repr(target), power, int(one_sided)),
        tensors=[gradient, grad_penalty],
    )
    penalty, norms, derivative = split(data, (arithmetic, 1), (arithmetic, rows), (dtype, rows * length))
    exact = gradient.double().requires_grad_()
    expected, expected_norms = reference.gradient_norm_penalty(exact, 10.0, target, power, one_sided)
    (expected_derivative,) = torch.autograd.grad(1.5 * expected, exact)
    assert_close(norms, expected_norms, arithmetic)
    torch.testing.assert_close(penalty[0].double(), expected.detach(), rtol=1e-3, atol=1e-6)  # a difference of norms
    assert_close(derivative.view(rows, length), expected_derivative, dtype)


def check_piecewise_linear(
    program: Path, dtype: torch.dtype, counts: Sequence[int], offsets: tuple[int, int, int], formula: Formula
) -> None:
    tensors = []
    for count in counts:
        x, grad = torch.randn(2, count).to(dtype)
        for i, value in enumerate((torch.nan, torch.inf, -torch.inf, *formula[1:])):
            x[i + 2 :: 37] = value
        tensors += [x, grad]
    bounds = [torch.nan if isinf(bound) else bound for bound in formula[1:]]
    data = run(program, "piecewise_linear", NAMES[dtype], *offsets, formula[0], *bounds, *counts, tensors=tensors)
    expected = []
    for x, grad in zip(tensors[::2], tensors[1::2], strict=True):
        y, mask = reference.piecewise_linear(x, *formula)
        expected += [y, mask, reference.apply_mask(grad, mask, formula[0], [1]), y, mask]
    results = split(data, *((value.dtype, value.numel()) for value in expected))
    for result, wanted in zip(results, expected, strict=True):
        torch.testing.assert_close(result, wanted, rtol=0, atol=0, equal_nan=True)


def check_smooth_activation(
    program: Path, dtype: torch.dtype, counts: Sequence[int], offsets: tuple[int, int], activation: Activation
) -> None:
    """Bit by bit what the CPU kernels compute: they have the same formulas."""
    kind, parameters = activation
    tensors, expected = [], []
    for count in counts:
        x, grad, grad_grad = (3 * torch.randn(3, count)).to(dtype)
        x[2::37] = torch.nan
        x[3::37] = -200.0
        tensors += [x, grad, grad_grad]
        y = native.smooth_activation(x, *activation)
        slopes = [native.smooth_activation_backward(grad, x, *activation, order) for order in range(3)]
        expected += [y, *slopes, *native.smooth_activation_double_backward(grad_grad, grad, x, *activation), y]
    numbers = [*parameters, 0.0, 0.0, 0.0][:3]
    if kind in ELUS:
        numbers[0] *= numbers[1]
    data = run(
        program, "smooth_activation", NAMES[dtype], *offsets, SMOOTH.index(kind), *numbers, *counts, tensors=tensors
    )
    results = split(data, *((value.dtype, value.numel()) for value in expected))
    for result, wanted in zip(results, expected, strict=True):
        torch.testing.assert_close(result, wanted, rtol=0, atol=0, equal_nan=True)


def check_normalization(
    program: Path,
    dtype: torch.dtype,
    samples: int,
    shape: tuple[int, int, int],
    offset: int,
    *,
    centered: bool,
    weighted: bool,
    mean: float = 0.0,
) -> None:
    """Against the CPU operators in float64."""
    groups, channels, inner = shape
    arithmetic = accumulate_dtype(dtype)
    x, grad, grad_grad = torch.randn(3, samples, groups * channels, inner)
    x, grad, grad_grad = (mean + x).to(dtype), grad.to(dtype), grad_grad.to(dtype)
    weight, bias = torch.randn(2, groups * channels).to(dtype)
    tensors = [x, grad, grad_grad, *([weight, bias] if weighted else [])]
    formula = shape, 1e-3, centered
    data = run(
        program,
        *("normalization", NAMES[dtype], samples, *shape, int(centered), offset, int(weighted), 1e-3),
        tensors=tensors,
    )
    sample = groups * channels * inner
    rows = samples * groups
    parts = (len(data) - 4 * x.numel() * dtype.itemsize) // arithmetic.itemsize - 3 * rows
    parts //= 3 * sample
    y, *rest = split(data, *[(dtype, x.numel())] * 4, (arithmetic, 3 * rows), *[(arithmetic, parts * sample)] * 3)
    firsts, seconds, statistics, sums = rest[:1], rest[1:3], rest[3].view(rows, 3), rest[4:]
    of_weight, of_bias, second_weight = (one.view(parts, -1, inner).sum((0, 2)) for one in sums)

    u, g, exact = grad_grad.double(), grad.double(), x.double()
    w, b = (weight.double(), bias.double()) if weighted else (None, None)
    expected, exact_statistics = native.normalization(exact, w, b, *formula)
    expected_firsts = native.normalization_backward(g, exact, exact_statistics, w, *formula, [True] * 3)
    expected_seconds = native.normalization_double_backward(u, g, exact, exact_statistics, w, *formula, True)
    assert_near(y, expected, dtype)
    assert_near(statistics[:, :2].sum(1), exact_statistics[:, :2].sum(1), arithmetic)
    assert_near(statistics[:, 2], exact_statistics[:, 2], arithmetic)
    for result, wanted in zip([*firsts, *seconds], [expected_firsts[0], *expected_seconds[:2]], strict=True):
        assert_near(result, wanted, dtype)
    for result, wanted in zip(
        [of_weight, of_bias, second_weight], [*expected_firsts[1:], expected_seconds[2]], strict=True
    ):
        assert_near(result, wanted, arithmetic)


def assert_near(actual: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    """Relative to the largest number, of which the others are differences."""
    scale = expected.abs().max().clamp(min=1).item()
    torch.testing.assert_close(actual.double(), expected.view(actual.shape), rtol=0, atol=2 * scale * TOLERANCE[dtype])


def check_clip_weights(program: Path, tensors: list[Tensor], bound: float) -> None:
    memory = [tensor.new_empty(0).set_(tensor.untyped_storage()) for tensor in tensors]
    arguments: list[object] = []
    for tensor, place in zip(tensors, memory, strict=True):
        start = tensor.storage_offset()
        dense = tensor.is_contiguous()
        sizes, strides = ([tensor.numel()], [1]) if dense else (tensor.shape, tensor.stride())
        # The launcher is given the address of the first element, so what lies before it travels as the offset.
        arguments += [FLOATING.index(tensor.dtype), start * tensor.element_size()]
        arguments += [(place.numel() - start) * tensor.element_size(), tensor.numel(), len(sizes), *sizes, *strides]
    starts = [place[tensor.storage_offset() :] for tensor, place in zip(tensors, memory, strict=True)]
    expected = [tensor.clone().clamp_(-bound, bound) for tensor in tensors]
    data = run(program, "clip_weights", bound, *arguments, tensors=starts)
    results = split(data, *((start.dtype, start.numel()) for start in starts))
    for tensor, wanted, start, result in zip(tensors, expected, starts, results, strict=True):
        start.copy_(result)  # the tensor itself now shows what the kernel wrote
        assert torch.equal(tensor.isnan(), wanted.isnan())
        assert torch.equal(tensor.nan_to_num(), wanted.nan_to_num())


def check_nonfinite(program: Path, tensors: Sequence[tuple[torch.dtype, int, int]]) -> None:
    """Each tensor: its type, offset, number of elements. One number after the other is infinite or NaN, of the first
    and last of each tensor and one in its middle."""
    arguments = [number for dtype, offset, count in tensors for number in (FLOATING.index(dtype), offset, count)]
    values = [torch.randn(count).to(dtype) for dtype, _, count in tensors]

    def found() -> float:
        return split(run(program, "nonfinite", *arguments, tensors=values), (torch.float32, 1))[0].item()

    assert found() == 0
    for i, value in enumerate(values):
        for place, special in zip((0, len(value) // 2, -1), (inf, nan, -inf), strict=True):
            kept = value[place].clone()
            value[place] = special
            assert found() == 1, (tensors[i], place)
            value[place] = kept


def check_rmsprop(
    program: Path,
    parameters: Sequence[tuple[torch.dtype, int, tuple[int, int, int]]],
    *,
    weight_decay: float = 0.0,
    maximize: bool = False,
    clip: float = inf,
    found_inf: float = 0.0,
) -> None:
    """Each parameter: its type, its number of elements, the offsets of weight, gradient and average."""
    numbers = torch.tensor(0.1, dtype=torch.float64), torch.tensor(3.0), torch.tensor(found_inf)
    arguments: list[object] = [0.9, 1e-3, weight_decay, clip, int(maximize)]
    tensors = []
    for dtype, count, offsets in parameters:
        arguments += [FLOATING.index(dtype), *offsets, count]
        weight, gradient, average = torch.randn(3, count).to(dtype).unbind()
        tensors += [weight, gradient, average.square()]
    data = run(program, "rmsprop", *arguments, tensors=[*numbers, *tensors])
    results = split(data, *((tensor.dtype, tensor.numel()) for tensor in tensors))
    exact = [tensor.double() for tensor in tensors]
    learning_rate, scale, verdict = numbers
    rest = (0.9, 1e-3, weight_decay, maximize, clip, scale, verdict)
    reference.rmsprop_(exact[::3], exact[1::3], exact[2::3], learning_rate, *rest)
    for i, (result, wanted) in enumerate(zip(results, exact, strict=True)):
        if i % 3 == 1 or found_inf:
            assert torch.equal(result, tensors[i]), "written, and must not be"
        else:
            assert_close(result, wanted, result.dtype)


#: 2^31 vectors of 16 bytes, in elements.
LIMIT = {torch.float16: 2**34, torch.bfloat16: 2**34, torch.float32: 2**33, torch.float64: 2**32}


@pytest.mark.parametrize("rows", [1, 64])
def test_choice_by_size(address_program: Path, dtype: torch.dtype, rows: int) -> None:
    """Whole vectors with indices of 32 bits up to 2^31 vectors, then any rows with indices of 64 bits. Nothing of that
    size is allocated."""
    width = 16 // dtype.itemsize

    def chosen(aligned: bool, length: int) -> list[str]:
        data = run(address_program, "policies", NAMES[dtype], int(aligned), rows, length, tensors=[])
        return data.decode().splitlines()

    whole, partial, single = f"whole {width}", f"any {width}", "any 1"
    limit = LIMIT[dtype] // rows
    assert chosen(True, limit - 4 * width) == [whole, whole]
    assert chosen(True, limit) == [partial, partial]
    assert chosen(True, 2 * limit) == [partial, partial]
    assert chosen(False, 4 * width) == [single, single]
    assert chosen(True, 4 * width) == [whole, whole]
    # All elements of 64 such rows are whole vectors again.
    assert chosen(True, 4 * width + 1) == [partial, partial if rows == 1 else whole]


def test_quotients(address_program: Path) -> None:
    assert run(address_program, "quotients", "", tensors=[]).decode() == ""


@pytest.mark.parametrize(("length", "offset"), [(65_536, 0), (65_535, 0), (65_536, 1)])
def test_beyond_32_bits(address_program: Path, length: int, offset: int) -> None:
    """The last of more than 2^32 elements, by every kernel. The arrays take memory only where they are written."""
    assert run(address_program, "far", 65_552, length, offset, tensors=[]).decode() == ""
    assert run(address_program, "far and curved", 65_552, length, offset, tensors=[]).decode() == ""


SHAPES = [(1, 1), (1, 7), (3, 1), (5, 2), (2, 33), (70, 4), (3, 129), (9, 40), (2, 2049), (300, 3)]
# Rows of whole vectors, of one and of more tiles; more rows of one vector than a tile has.
SHAPES += [(5, 2_056), (1_030, 8)]


@pytest.mark.parametrize(("rows", "length"), SHAPES)
@pytest.mark.parametrize("offset", [0, 1])
def test_interpolate(address_program: Path, dtype: torch.dtype, rows: int, length: int, offset: int) -> None:
    check_interpolate(address_program, dtype, rows, length, offset)


# Short, middle and long rows; rows in segments, more of them and more rows than one round of the summing block takes.
SEGMENTED = [(1, 8_192), (2, 33_001), (2, 33_004), (9, 8_200)]


@pytest.mark.parametrize(("rows", "length"), [*SHAPES, *SEGMENTED])
@pytest.mark.parametrize("offset", [0, 1])
def test_gradient_norm_penalty(address_program: Path, dtype: torch.dtype, rows: int, length: int, offset: int) -> None:
    check_penalty(address_program, dtype, rows, length, offset, one_sided=(rows + length) % 2 == 0)


@pytest.mark.parametrize(("rows", "length"), [(300, 70), (1_100, 70), (1, 140_001), (600, 3)])
def test_gradient_norm_penalty_in_many_blocks(address_program: Path, rows: int, length: int) -> None:
    check_penalty(address_program, torch.float32, rows, length, 0, one_sided=False)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("rows", "length"), [(9, 3), (2_000, 2), (150, 40), (17, 90), (7, 2_100), (1, 200), (2, 1_001)]
)
def test_small_grid(small_grid_program: Path, dtype: torch.dtype, rows: int, length: int) -> None:
    check_interpolate(small_grid_program, dtype, rows, length, 0)
    check_penalty(small_grid_program, dtype, rows, length, 0, one_sided=False)


def test_clip_weights_in_a_small_grid(small_grid_program: Path) -> None:
    check_clip_weights(small_grid_program, [torch.randn(20_000), torch.randn(9_000, 2)[:, :1], torch.randn(5)], 0.3)


def test_clip_weights(address_program: Path) -> None:
    layouts = ["contiguous", "unaligned", "gaps", "row_gaps"]
    shapes = [(1,), (17,), (3, 5), (2, 3, 4), (9, 1_001)]
    tensors = [
        with_layout(torch.randn(shape).to(dtype), layout)
        for dtype, layout, shape in itertools.product(FLOATING, layouts, shapes)
    ]
    tensors[0].fill_(torch.nan)
    check_clip_weights(address_program, tensors, 0.3)  # more tensors with gaps than one launch holds


def test_clip_weights_of_a_long_list(address_program: Path) -> None:
    check_clip_weights(address_program, [torch.randn(3) for _ in range(1_030)], 0.3)


RMSPROP = list(
    itertools.product(FLOATING, [1, 2, 7, 16, 33, 255, 2_049, 9_001], [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)])
)


@pytest.mark.parametrize(
    "formula",
    [{}, {"weight_decay": 0.1, "maximize": True}, {"clip": 0.3}, {"clip": 0.3, "found_inf": 1.0}],
    ids=str,
)
def test_rmsprop(address_program: Path, formula: dict) -> None:
    check_rmsprop(address_program, RMSPROP, **formula)


def test_nonfinite(address_program: Path) -> None:
    tensors = [(dtype, offset, count) for dtype in FLOATING for offset, count in ((0, 9_001), (1, 333), (0, 1))]
    check_nonfinite(address_program, tensors)


def test_nonfinite_in_a_small_grid(small_grid_program: Path) -> None:
    check_nonfinite(small_grid_program, [(torch.float32, 0, 20_000), (torch.float16, 0, 5)])


def test_rmsprop_of_a_long_list(address_program: Path) -> None:
    check_rmsprop(address_program, [(torch.float32, 3, (0, 0, 0))] * 770, clip=0.3)


def test_rmsprop_in_a_small_grid(small_grid_program: Path) -> None:
    parameters = [(dtype, count, (0, 0, 0)) for dtype in FLOATING for count in (20_000, 9_001, 5)]
    check_rmsprop(small_grid_program, parameters, clip=0.3)


# Around the elements of a byte of the mask, of a thread's part of it, of a warp and of a block; multiples of a part.
COUNTS = [*range(1, 18), 31, 32, 33, 63, 64, 65, 96, 255, 256, 257, 2047, 2048, 2049, 4096, 4128, 8192 + 32, 8192 + 8]
# What is beyond the last element counts as 0: outside the bounds of the first formula, inside those of the second.
FORMULAS = [(0.2, 0.0, inf), (0.0, -0.75, 0.5)]


# Of input, output and mask, in elements.
@pytest.mark.parametrize("offsets", [(0, 0, 0), (1, 1, 0), (0, 1, 0), (1, 0, 0), (0, 0, 1)], ids=str)
@pytest.mark.parametrize("formula", FORMULAS, ids=str)
def test_piecewise_linear(
    address_program: Path, dtype: torch.dtype, offsets: tuple[int, int, int], formula: Formula
) -> None:
    check_piecewise_linear(address_program, dtype, COUNTS, offsets, formula)


@pytest.mark.parametrize("count", [4_096, 4_097, 9_001, 20_000])
def test_piecewise_linear_in_a_small_grid(small_grid_program: Path, dtype: torch.dtype, count: int) -> None:
    check_piecewise_linear(small_grid_program, dtype, [count], (0, 0, 0), FORMULAS[0])


ACTIVATIONS: list[Activation] = [(kind, []) for kind in SMOOTH if kind not in ("softplus", *ELUS)]
ACTIVATIONS += [("softplus", [2.0, 3.0]), *((kind, [0.7, 1.5, 0.9]) for kind in ELUS)]
# Around a vector of each type, a warp's, a tile, and several tiles.
SMOOTH_COUNTS = [*range(1, 18), 255, 256, 257, 2_048, 4_095, 4_100]


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
@pytest.mark.parametrize("offsets", [(0, 0), (1, 0), (0, 1)], ids=str)
def test_smooth_activation(
    address_program: Path, dtype: torch.dtype, offsets: tuple[int, int], activation: Activation
) -> None:
    counts = SMOOTH_COUNTS if activation[0] == "silu" else [7, 2_051]
    check_smooth_activation(address_program, dtype, counts, offsets, activation)


@pytest.mark.parametrize("count", [699, 701, 5_600, 5_601, 20_003])
def test_smooth_activation_in_a_small_grid(small_grid_program: Path, dtype: torch.dtype, count: int) -> None:
    """And in several launches."""
    check_smooth_activation(small_grid_program, dtype, [count], (0, 0), ("mish", []))
    check_smooth_activation(small_grid_program, dtype, [count], (1, 1), ("mish", []))


# Samples, then groups, channels and elements of a run: rows for 8 threads, a warp, a block; runs of one element, of
# whole vectors, and that end inside of one; rows that no vector divides; more samples than one part takes.
# Each thread of a block is one of the host, so that many rows take a minute.
NORMALIZED = [
    (3, (1, 1, 1)),
    (5, (1, 24, 1)),
    (2, (3, 8, 1)),
    (9, (1, 67, 1)),
    pytest.param(70, (1, 67, 1), marks=pytest.mark.long),
    pytest.param(1_030, (1, 264, 1), marks=pytest.mark.long),
    (4, (1, 2_064, 1)),
    (3, (2, 4, 16)),
    (5, (2, 8, 9)),
    (5, (4, 1, 49)),
    pytest.param(40, (4, 1, 49), marks=pytest.mark.long),
    (2, (1, 16, 36)),
    (2, (3, 2, 1_200)),
    pytest.param(1, (1, 3, 9_001), marks=pytest.mark.long),
]


@pytest.mark.parametrize(("samples", "shape"), NORMALIZED, ids=str)
@pytest.mark.parametrize("offset", [0, pytest.param(1, marks=pytest.mark.long)])
def test_normalization(
    address_program: Path, dtype: torch.dtype, samples: int, shape: tuple[int, int, int], offset: int
) -> None:
    kinds = ((True, True), (False, True), (True, False))
    for centered, weighted in kinds if offset == 0 else kinds[:1]:  # each takes seconds
        check_normalization(address_program, dtype, samples, shape, offset, centered=centered, weighted=weighted)


@pytest.mark.parametrize(("samples", "shape"), [(5, (2, 8, 9)), (2, (1, 16, 36))], ids=str)
def test_unaligned_normalization(
    address_program: Path, dtype: torch.dtype, samples: int, shape: tuple[int, int, int]
) -> None:
    check_normalization(address_program, dtype, samples, shape, 1, centered=True, weighted=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("samples", "shape"), [(90, (3, 2, 8)), (45, (1, 320, 1)), (9, (1, 2, 1_300)), (2, (50, 1, 7))]
)
def test_normalization_in_a_small_grid(
    small_grid_program: Path, dtype: torch.dtype, samples: int, shape: tuple[int, int, int]
) -> None:
    """And in several launches."""
    check_normalization(small_grid_program, dtype, samples, shape, 0, centered=True, weighted=True)


@pytest.mark.parametrize("shape", [(1, 264, 1), (4, 2, 16), (1, 2_064, 1)], ids=str)
def test_normalization_with_a_large_mean(address_program: Path, shape: tuple[int, int, int]) -> None:
    """Of 10,000 standard deviations."""
    check_normalization(address_program, torch.float32, 5, shape, 0, centered=True, weighted=True, mean=1e4)


@pytest.mark.parametrize(("samples", "shape"), [(3, (2, 4, 16)), (2, (1, 2_064, 1)), (2, (1, 8, 37))])
def test_normalization_in_threads(thread_program: Path, samples: int, shape: tuple[int, int, int]) -> None:
    check_normalization(thread_program, torch.float32, samples, shape, 0, centered=True, weighted=True)


@pytest.mark.parametrize(("rows", "length"), [(5, 2), (9, 40), (3, 2_100), (2, 33_000)])
def test_threads_meet_at_barriers(thread_program: Path, rows: int, length: int) -> None:
    check_penalty(thread_program, torch.float32, rows, length, 0, one_sided=False)


def test_threads_write_apart(thread_program: Path) -> None:
    check_interpolate(thread_program, torch.float32, 5, 203, 0)
    check_piecewise_linear(thread_program, torch.float16, [203, 2_049], (0, 1, 0), FORMULAS[0])
    check_piecewise_linear(thread_program, torch.float32, [203, 2_049, 4_128], (0, 0, 0), FORMULAS[0])
    check_smooth_activation(thread_program, torch.float32, [203, 2_049], (0, 0), ("silu", []))
    check_clip_weights(thread_program, [torch.randn(300), torch.randn(7, 6)[:, ::2]], 0.3)
    check_nonfinite(thread_program, [(torch.float32, 0, 300)])
    check_rmsprop(thread_program, [(torch.float32, 5_000, (0, 0, 0)), (torch.float16, 300, (1, 0, 0))])
