"""Normalisation of rows and its derivatives against the reference and against PyTorch's own layers."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from conftest import TOLERANCE
from sample_inputs import LAYOUTS, dtypes, layouts, seeds, with_layout
from wgan_fast import reference
from wgan_fast._library import extension  # noqa: F401 (registers the operators)

native = torch.ops.wgan_fast
EPS = 1e-3
#: groups, channels, inner elements
SHAPES = {
    "layer": (1, 6, 1),
    "long layer": (1, 67, 1),
    "group": (2, 3, 5),
    "one group": (1, 4, 18),
    "instance": (4, 1, 17),
    "one element": (3, 1, 1),
}
drawn = settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
shapes = st.one_of(
    st.tuples(st.just(1), st.integers(1, 300), st.just(1)),
    st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 70)),
    st.tuples(st.integers(1, 40), st.just(1), st.integers(1, 300)),
    st.tuples(st.just(1), st.integers(1, 3), st.integers(1000, 9000)),
)


def parameters(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    weight, bias = torch.randn(2, shape[0] * shape[1], generator=torch.Generator().manual_seed(3))
    return (1 + weight / 2).to(device, dtype), bias.to(device, dtype)


def batch(
    rows: int, shape: tuple[int, ...], dtype: torch.dtype, layout: str, seed: int, device: torch.device
) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, shape[0] * shape[1], shape[2], 1, generator=generator)
    return with_layout(values.to(device=device, dtype=dtype), layout)


def assert_close(actual: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    """Relative to the largest number, of which the others are differences."""
    scale = expected.abs().max().clamp(min=1).item() if expected.numel() else 1.0
    torch.testing.assert_close(actual.double(), expected.double(), rtol=0, atol=2 * scale * TOLERANCE[dtype])


class TestReference:
    @drawn
    @given(
        rows=st.sampled_from([1, 2, 17, 33]),
        shape=shapes,
        dtype=dtypes,
        layout=layouts,
        grad_layout=layouts,
        seed=seeds,
        centered=st.booleans(),
        weighted=st.booleans(),
    )
    def test_matches(
        self,
        poisoned_memory: None,
        device: torch.device,
        rows: int,
        shape: tuple[int, int, int],
        dtype: torch.dtype,
        layout: str,
        grad_layout: str,
        seed: int,
        centered: bool,
        weighted: bool,
    ) -> None:
        rows = min(rows, max(1, 40_000 // (shape[0] * shape[1] * shape[2])))
        x = batch(rows, shape, dtype, layout, seed, device)
        u, g = (batch(rows, shape, dtype, grad_layout, seed + k, device) for k in (1, 2))
        weight, bias = parameters(shape, dtype, device) if weighted else (None, None)
        exact = [one if one is None else one.double().requires_grad_() for one in (x, weight, bias)]
        expected, expected_statistics = reference.normalization(*exact, shape, EPS, centered)
        y, statistics = native.normalization(x, weight, bias, shape, EPS, centered)
        assert_close(y, expected, dtype)
        assert y.dtype == dtype and y.is_contiguous()
        assert_close(statistics[:, 0] + statistics[:, 1], expected_statistics[:, 0], torch.float32)
        assert_close(statistics[:, 2], expected_statistics[:, 2], torch.float32)

        grad = g.double().requires_grad_()
        wanted = [one for one in exact if one is not None]
        firsts = torch.autograd.grad(expected, wanted, grad, create_graph=True)
        mask = [True, weighted, weighted]
        found = native.normalization_backward(g, x, statistics, weight, shape, EPS, centered, mask)
        for one, first in zip(found, firsts, strict=False):
            assert_close(one, first, dtype)
        alone = native.normalization_backward(g, x, statistics, weight, shape, EPS, centered, [True, False, False])
        assert_close(alone[0], firsts[0], dtype)
        assert alone[1].numel() == alone[2].numel() == 0

        seconds = torch.autograd.grad(firsts[0], [grad, *wanted[:2]], u.double(), allow_unused=True)
        found = native.normalization_double_backward(u, g, x, statistics, weight, shape, EPS, centered, weighted)
        for one, second in zip(found, seconds, strict=False):
            assert_close(one, second, dtype)

    @pytest.mark.parametrize("centered", [True, False])
    @pytest.mark.parametrize(
        "shape", [(1, 256, 1), (4, 8, 64), (8, 1, 1000), (1, 8, 2048), (1, 70_001, 1), (1, 1, 70_001)]
    )
    def test_large_mean(self, device: torch.device, shape: tuple[int, ...], centered: bool) -> None:
        """The mean is 10,000 standard deviations away from 0. The rounding of x is not ours: the exact result for the
        rounded x is expected, up to the rounding of the result.
        """
        x = (1e4 + torch.randn(5, shape[0] * shape[1], shape[2])).to(device)
        g, u = torch.randn(2, *x.shape).to(device)
        weight, bias = parameters(shape, torch.float32, device)
        exact = x.double().requires_grad_()
        expected, _ = reference.normalization(exact, weight.double(), bias.double(), shape, 1e-5, centered)
        y, statistics = native.normalization(x, weight, bias, shape, 1e-5, centered)
        torch.testing.assert_close(y.double(), expected, rtol=0, atol=4e-6)
        grad = g.double().requires_grad_()
        (first,) = torch.autograd.grad(expected, exact, grad, create_graph=True)
        found = native.normalization_backward(g, x, statistics, weight, shape, 1e-5, centered, [True, False, False])
        assert_close(found[0], first, torch.float32)
        seconds = torch.autograd.grad(first, (grad, exact), u.double())
        found = native.normalization_double_backward(u, g, x, statistics, weight, shape, 1e-5, centered, False)
        for one, second in zip(found, seconds, strict=False):
            assert_close(one, second, torch.float32)

    @pytest.mark.parametrize("eps", [1e-12, 1e-5, 1.0])
    @pytest.mark.parametrize("shape", [(1, 256, 1), (4, 8, 16), (8, 1, 4)])
    def test_small_variance(self, device: torch.device, shape: tuple[int, ...], eps: float) -> None:
        """Of 1e-8, around 1: far below eps, and far above it. Results are as exact as those of well-scaled rows,
        relative to their largest number.
        """
        x = (1 + 1e-4 * torch.randn(5, shape[0] * shape[1], shape[2])).to(device)
        g, u = torch.randn(2, *x.shape).to(device)
        exact, grad = x.double().requires_grad_(), g.double().requires_grad_()
        expected, _ = reference.normalization(exact, None, None, shape, eps, True)
        (first,) = torch.autograd.grad(expected, exact, grad, create_graph=True)
        seconds = torch.autograd.grad(first, (grad, exact), u.double())
        y, statistics = native.normalization(x, None, None, shape, eps, True)
        found = [
            y,
            native.normalization_backward(g, x, statistics, None, shape, eps, True, [True, False, False])[0],
            *native.normalization_double_backward(u, g, x, statistics, None, shape, eps, True, False)[:2],
        ]
        for one, wanted in zip(found, (expected, first, *seconds), strict=True):
            scale = wanted.abs().max().item()
            torch.testing.assert_close(one.double(), wanted, rtol=0, atol=1e-5 * scale)

    def test_constant_rows(self, device: torch.device) -> None:
        x = torch.full((3, 50), 7.3, device=device)
        y, statistics = native.normalization(x, None, None, (1, 50, 1), EPS, True)
        torch.testing.assert_close(y, torch.zeros_like(y), rtol=0, atol=2e-5)
        torch.testing.assert_close(statistics[:, 2], torch.full((3,), EPS**-0.5, device=device))

    def test_same_bits_for_any_number_of_threads(self, dtype: torch.dtype) -> None:
        shape = (4, 8, 49)
        x, u, g = (batch(150, shape, dtype, "contiguous", k, torch.device("cpu")) for k in range(3))
        weight, bias = parameters(shape, dtype, torch.device("cpu"))
        threads = torch.get_num_threads()
        results = []
        try:
            for number in (1, 2, 3):
                torch.set_num_threads(number)
                y, statistics = native.normalization(x, weight, bias, shape, EPS, True)
                first = native.normalization_backward(g, x, statistics, weight, shape, EPS, True, [True] * 3)
                second = native.normalization_double_backward(u, g, x, statistics, weight, shape, EPS, True, True)
                results.append([y, statistics, *first, *second])
        finally:
            torch.set_num_threads(threads)
        for result in results[1:]:
            assert all(map(torch.equal, results[0], result))

    def test_empty_batch(self, device: torch.device) -> None:
        x = torch.empty(0, 6, device=device, requires_grad=True)
        weight, bias = (one.requires_grad_() for one in parameters((1, 6, 1), torch.float32, device))
        y, statistics = native.normalization(x, weight, bias, (1, 6, 1), EPS, True)
        assert y.shape == (0, 6) and statistics.shape == (0, 3)
        gradients = torch.autograd.grad(y.sum(), (x, weight, bias))
        assert [gradient.shape for gradient in gradients] == [(0, 6), (6,), (6,)]
        assert gradients[1].tolist() == [0.0] * 6


LAYERS: dict[str, tuple[Callable[..., Tensor], tuple[int, ...], tuple[int, int, int], bool]] = {
    "layer_norm": (lambda x, w, b: F.layer_norm(x, (12,), w, b, EPS), (3, 5, 12), (1, 12, 1), True),
    "rms_norm": (lambda x, w, b: F.rms_norm(x, (12,), w, EPS), (3, 5, 12), (1, 12, 1), False),
    "group_norm": (lambda x, w, b: F.group_norm(x, 3, w, b, EPS), (4, 6, 5, 7), (3, 2, 35), True),
    "instance_norm": (
        lambda x, w, b: F.instance_norm(x, weight=w, bias=b, eps=EPS),
        (4, 6, 5, 7),
        (6, 1, 35),
        True,
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_pytorch(device: torch.device, name: str) -> None:
    layer, sizes, shape, centered = LAYERS[name]
    x = torch.randn(sizes, dtype=torch.float64).to(device)
    weight, bias = parameters(shape, torch.float64, device)
    if not centered:
        bias = None
    y, _ = native.normalization(x, weight, bias, shape, EPS, centered)
    torch.testing.assert_close(y, layer(x, weight, bias), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("centered", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
class TestDerivatives:
    def inputs(self, shape: tuple[int, ...], weighted: bool, device: torch.device) -> list[Tensor]:
        x = batch(2, shape, torch.float64, "contiguous", 0, device).requires_grad_()
        return [x, *(one.requires_grad_() for one in parameters(shape, torch.float64, device))][: 3 if weighted else 1]

    def test_gradcheck(self, device: torch.device, shape: tuple[int, ...], centered: bool, weighted: bool) -> None:
        if shape == SHAPES["one element"] and not centered:
            pytest.skip("a sign in all but name: numerical derivatives are too coarse")

        def function(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
            return native.normalization(x, weight, bias, shape, 0.1, centered)[0]

        inputs = self.inputs(shape, weighted, device)
        assert torch.autograd.gradcheck(function, inputs)
        assert torch.autograd.gradgradcheck(function, inputs, fast_mode=inputs[0].numel() > 100)

    def test_higher_derivatives(
        self, device: torch.device, shape: tuple[int, ...], centered: bool, weighted: bool
    ) -> None:
        """Of the cubes, along random directions, with respect to all inputs: orders 1 to 4."""
        inputs = self.inputs(shape, weighted, device)
        directions = [[torch.randn_like(one) for one in inputs] for _ in range(4)]
        results = []
        for operator in (native.normalization, reference.normalization):
            y, _ = operator(*inputs, *[None] * (3 - len(inputs)), shape, 0.1, centered)
            found = [(y**3).sum()]
            for along in directions:
                gradients = torch.autograd.grad(found[-1], inputs, create_graph=True, allow_unused=True)
                found.append(
                    sum((one * v).sum() for one, v in zip(gradients, along, strict=True) if one is not None)
                    + 0 * y.sum()
                )
            results.append(found)
        torch.testing.assert_close(*results, rtol=1e-9, atol=1e-9)

    def test_double_backward_as_an_operator(
        self, device: torch.device, shape: tuple[int, ...], centered: bool, weighted: bool
    ) -> None:
        x, *rest = self.inputs(shape, weighted, device)
        u, g = (batch(2, shape, torch.float64, "contiguous", k, device).requires_grad_() for k in (1, 2))
        weight = rest[0] if weighted else None
        v = [torch.randn_like(x), torch.randn_like(x), torch.randn(shape[0] * shape[1]).to(x)]

        def results(second: Callable[..., tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
            leaves = [u, g, x, *rest[:1]]
            total = sum((one * along).sum() for one, along in zip(second(), v, strict=False) if one.numel())
            return torch.autograd.grad(total, leaves, allow_unused=True, materialize_grads=True)

        def ours() -> tuple[Tensor, ...]:
            _, statistics = native.normalization(x.detach(), weight, None, shape, 0.1, centered)
            return native.normalization_double_backward(u, g, x, statistics, weight, shape, 0.1, centered, weighted)

        def composed() -> tuple[Tensor, ...]:
            y, _ = reference.normalization(x, weight, None, shape, 0.1, centered)
            (first,) = torch.autograd.grad(y, x, g, create_graph=True)
            return torch.autograd.grad(first, [g, x, *rest[:1]], u, create_graph=True)

        torch.testing.assert_close(results(ours), results(composed), rtol=1e-9, atol=1e-9)


class TestOpcheck:
    @pytest.mark.parametrize(
        "layout",
        [one if one in ("contiguous", "permuted") else pytest.param(one, marks=pytest.mark.long) for one in LAYOUTS],
    )
    def test_opcheck(self, device: torch.device, layout: str) -> None:
        shape = (2, 3, 4)
        x, u, g = (batch(3, shape, torch.float32, layout, k, device).requires_grad_() for k in range(3))
        weight, bias = (one.requires_grad_() for one in parameters(shape, torch.float32, device))
        _, statistics = native.normalization(x.detach(), None, None, shape, EPS, True)
        torch.library.opcheck(native.normalization.default, (x, weight, bias, shape, EPS, True))
        torch.library.opcheck(native.normalization.default, (x, None, None, shape, EPS, False))
        for mask in ([True, True, True], [True, False, False]):
            torch.library.opcheck(
                native.normalization_backward.default, (g, x, statistics, weight, shape, EPS, True, mask)
            )
        for wanted in (True, False):
            torch.library.opcheck(
                native.normalization_double_backward.default,
                (u, g, x, statistics, weight, shape, EPS, True, wanted),
            )


class TestErrors:
    @pytest.mark.parametrize(
        ("error", "message", "change"),
        [
            (
                TypeError,
                "x: expected float16, bfloat16, float32 or float64",
                {"x": torch.ones(2, 6, dtype=torch.int64)},
            ),
            (ValueError, "shape: expected groups, channels and inner elements", {"shape": [6, 1]}),
            (ValueError, "shape: expected groups, channels and inner elements", {"shape": [6, 1, 0]}),
            (ValueError, r"shape: \[5, 1, 1\] does not divide the 12 elements of x", {"shape": [5, 1, 1]}),
            (ValueError, r"weight: expected shape \[6\], got \[5\]", {"weight": torch.ones(5)}),
            (TypeError, "weight is Double and x Float", {"weight": torch.ones(6).double()}),
            (ValueError, r"bias: expected shape \[6\], got \[1, 6\]", {"bias": torch.ones(1, 6)}),
        ],
    )
    def test_normalization(self, device: torch.device, error: type, message: str, change: dict) -> None:
        arguments = {"x": torch.ones(2, 6), "weight": None, "bias": None, "shape": [1, 6, 1]} | change
        arguments = {name: one.to(device) if isinstance(one, Tensor) else one for name, one in arguments.items()}
        with pytest.raises(error, match=f"^{message}"):
            native.normalization(*arguments.values(), EPS, True)

    @pytest.mark.parametrize(
        ("error", "message", "grad", "statistics"),
        [
            (ValueError, "grad has shape", torch.ones(2, 5), torch.ones(2, 3)),
            (ValueError, r"statistics: expected shape \[2, 3\], got \[2, 2\]", torch.ones(2, 6), torch.ones(2, 2)),
            (TypeError, "statistics: expected Float, got Double", torch.ones(2, 6), torch.ones(2, 3).double()),
        ],
    )
    def test_derivatives(
        self, device: torch.device, error: type, message: str, grad: Tensor, statistics: Tensor
    ) -> None:
        x, grad, statistics = torch.ones(2, 6, device=device), grad.to(device), statistics.to(device)
        for operator, arguments, last in (
            (native.normalization_backward, (grad, x, statistics), [True] * 3),
            (native.normalization_double_backward, (x, grad, x, statistics), True),
        ):
            with pytest.raises(error, match=f"^{message}"):
                operator(*arguments, None, [1, 6, 1], EPS, True, last)
