"""Piecewise-linear activations and their masks against the reference and against PyTorch's own."""

from functools import partial
from math import inf, isinf, nan

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from sample_inputs import LAYOUTS, batch, dtypes, layouts, seeds, shapes, with_layout
from wgan_fast import reference
from wgan_fast._library import extension  # noqa: F401 (registers the operators)

native = torch.ops.wgan_fast
DENSE = ("contiguous", "unaligned", "permuted", "channels_last")
GAPS = ("gaps", "row_gaps", "expanded")

# negative_slope, lower, upper. float32 holds these bounds exactly.
FORMULAS = {
    "relu": (0.0, 0.0, inf),
    "leaky_relu": (0.2, 0.0, inf),
    "negative slope": (-0.3, 0.0, inf),
    "hardtanh": (0.0, -1.0, 1.0),
    "both sides sloped": (0.1, -0.75, 0.5),
    "upper bound alone": (0.3, -inf, 0.25),
    "no bound": (0.3, -inf, inf),
}
# Bounds that no floating-point type holds exactly are among them.
ACTIVATIONS = {
    "relu": (F.relu, (0.0, 0.0, inf)),
    "leaky_relu": (partial(F.leaky_relu, negative_slope=0.2), (0.2, 0.0, inf)),
    "steep leaky_relu": (partial(F.leaky_relu, negative_slope=1.5), (1.5, 0.0, inf)),
    "falling leaky_relu": (partial(F.leaky_relu, negative_slope=-0.3), (-0.3, 0.0, inf)),
    "flat leaky_relu": (partial(F.leaky_relu, negative_slope=0.0), (0.0, 0.0, inf)),
    "relu6": (F.relu6, (0.0, 0.0, 6.0)),
    "hardtanh": (F.hardtanh, (0.0, -1.0, 1.0)),
    "hardtanh between others": (partial(F.hardtanh, min_val=-0.3, max_val=0.7), (0.0, -0.3, 0.7)),
    "hardtanh above 0": (partial(F.hardtanh, min_val=0.1, max_val=1 / 3), (0.0, 0.1, 1 / 3)),
    "hardtanh at a point": (partial(F.hardtanh, min_val=0.5, max_val=0.5), (0.0, 0.5, 0.5)),
}
Formula = tuple[float, float, float]

formulas = pytest.mark.parametrize("formula", FORMULAS.values(), ids=FORMULAS)
activations = pytest.mark.parametrize(("activation", "formula"), ACTIVATIONS.values(), ids=ACTIVATIONS)
drawn = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)


def with_kinks(x: Tensor, formula: Formula) -> Tensor:
    """Some elements lie exactly on a bound."""
    for start, bound in enumerate(formula[1:]):
        if not isinf(bound):
            x[torch.arange(start, x.shape[0], 3, device=x.device), ..., -1] = bound
    return x


def away_from_kinks(shape: tuple[int, ...], formula: Formula) -> Tensor:
    x = torch.randn(shape, dtype=torch.float64)
    for bound in formula[1:]:
        x[(x - bound).abs() < 0.1] += 0.3
    return x


def derivative(y: Tensor, x: Tensor, grad: Tensor) -> Tensor:
    return torch.autograd.grad(y, x, grad, retain_graph=True)[0]


def assert_equal(actual: Tensor, expected: Tensor) -> None:
    """Number for number; 0.0 equals -0.0, NaN equals NaN."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)


class TestReference:
    @drawn
    @given(
        shape=shapes(),
        dtype=dtypes,
        layout=st.sampled_from(DENSE),
        grad_layout=layouts,
        formula=st.sampled_from(list(FORMULAS.values())),
        seed=seeds,
    )
    def test_matches(
        self,
        poisoned_memory: None,
        device: torch.device,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        layout: str,
        grad_layout: str,
        formula: Formula,
        seed: int,
    ) -> None:
        x = with_kinks(batch(shape, dtype, layout, seed, device), formula).requires_grad_()
        grad = batch(shape, dtype, grad_layout, seed + 1, device)
        expected, expected_mask = reference.piecewise_linear(x.detach(), *formula)
        expected_derivative = reference.apply_mask(grad, expected_mask, formula[0], x.stride())
        y, mask = native.piecewise_linear(x, *formula)
        assert torch.equal(y, expected) and torch.equal(mask, expected_mask)
        masked = native.apply_mask(grad, mask, formula[0], x.stride())
        dx = derivative(y, x, grad)
        assert torch.equal(masked, expected_derivative) and torch.equal(dx, expected_derivative)
        assert y.stride() == masked.stride() == dx.stride() == x.stride()
        assert y.dtype == masked.dtype == dtype and not mask.requires_grad

        x = with_layout(x.detach(), layout)
        assert torch.equal(native.piecewise_linear_(x, *formula), expected_mask) and torch.equal(x, expected)

    def test_bounds_of_float64(self, device: torch.device) -> None:
        x = torch.tensor([-2.0, 2.0], dtype=torch.float64, device=device)
        assert torch.equal(reference.piecewise_linear(x, 0.0, -0.3, 0.7)[0], F.hardtanh(x, -0.3, 0.7))

    def test_tails(self, poisoned_memory: None, device: torch.device, dtype: torch.dtype) -> None:
        """Around the elements of a byte of the mask, of a vector and of a block; every bit, the unused ones too."""
        for count in [*range(1, 18), 63, 64, 65, 71, 127, 128, 129, 255, 256, 257, 2047, 2048, 2049]:
            for layout in ("contiguous", "unaligned"):
                x = with_layout(torch.randn(count).to(device, dtype), layout)
                y, mask = native.piecewise_linear(x, 0.2, 0.0, inf)
                bits = [byte >> k & 1 for byte in mask.tolist() for k in range(8)]
                assert bits == (x > 0).int().tolist() + [0] * (-count % 8)
                assert torch.equal(y, F.leaky_relu(x, 0.2))
                expected = torch.where(x > 0, 1.5, torch.full_like(x, 1.5) * 0.2)
                assert torch.equal(native.apply_mask(torch.full_like(x, 1.5), mask, 0.2, [1]), expected)

    def test_neighbours_in_memory_are_left_alone(self, device: torch.device, dtype: torch.dtype) -> None:
        memory = torch.full((75,), -1.0, dtype=dtype, device=device)
        native.piecewise_linear_(memory[1:71], 0.0, 0.0, inf)
        assert memory.tolist() == [-1.0] + [0.0] * 70 + [-1.0] * 4

    @pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1, 1)])
    def test_scalars_and_empty_tensors(self, device: torch.device, shape: tuple[int, ...]) -> None:
        x = torch.full(shape, -2.0, device=device, requires_grad=True)
        y, mask = native.piecewise_linear(x, 0.25, 0.0, inf)
        assert torch.equal(y, torch.full_like(x, -0.5)) and mask.tolist() == [0] * x.numel()
        assert torch.equal(derivative(y, x, torch.ones_like(y)), torch.full_like(x, 0.25))

    @pytest.mark.parametrize("count", [65_535, 65_536, 65_537, 100_003, 300_000])
    def test_same_bits_for_any_number_of_threads(self, poisoned_memory: None, dtype: torch.dtype, count: int) -> None:
        x, grad = torch.randn(2, count).to(dtype)
        threads = torch.get_num_threads()
        results = []
        try:
            for number in (1, 2, 3):
                torch.set_num_threads(number)
                y, mask = native.piecewise_linear(x, 0.2, -0.5, 0.5)
                inplace = x.clone()
                mask_of_inplace = native.piecewise_linear_(inplace, 0.2, -0.5, 0.5)
                results.append([y, mask, native.apply_mask(grad, mask, 0.2, [1]), inplace, mask_of_inplace])
        finally:
            torch.set_num_threads(threads)
        y, mask = reference.piecewise_linear(x, 0.2, -0.5, 0.5)
        expected = [y, mask, reference.apply_mask(grad, mask, 0.2, [1]), y, mask]
        for result in results:
            assert all(map(torch.equal, result, expected))


class TestPyTorch:
    @activations
    def test_special_values(self, device: torch.device, dtype: torch.dtype, activation, formula: Formula) -> None:
        tiny, largest = torch.finfo(dtype).smallest_normal, torch.finfo(dtype).max
        points = [bound for bound in formula[1:] if not isinf(bound)]
        special = torch.tensor([nan, inf, -inf, 0.0, -0.0, tiny, -tiny, largest, -largest, *points, 1.0, -1.0])
        special = special.to(dtype)
        up, down = (special.nextafter(torch.tensor(end, dtype=dtype)) for end in (inf, -inf))
        x = torch.cat([special, up, down, torch.randn(1_000).to(dtype)]).to(device).requires_grad_()
        y, expected = native.piecewise_linear(x, *formula)[0], activation(x)
        # Where PyTorch scales by a slope of 0, infinity becomes NaN: see test_slope_of_zero_leaves_nothing.
        same = torch.full_like(x, True, dtype=torch.bool)
        if activation is ACTIVATIONS["flat leaky_relu"][0]:
            same = x != -inf
        assert_equal(y[same], expected[same])
        known = ~x.isnan()  # see test_gradient_passes_nan
        for grad in (torch.randn(x.shape).to(x), torch.ones_like(x), torch.zeros_like(x)):
            dx, expected_dx = (derivative(value, x, grad) for value in (y, expected))
            assert_equal(dx[known], expected_dx[known])

    @activations
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
    def test_every_sixteen_bit_number(
        self, device: torch.device, dtype: torch.dtype, activation, formula: Formula
    ) -> None:
        every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
        x = every[every.isfinite()].to(device).requires_grad_()
        y, expected = native.piecewise_linear(x, *formula)[0], activation(x)
        assert_equal(y, expected)
        for grad in (x.detach().flip(0), torch.randn(x.shape).to(x)):
            assert_equal(derivative(y, x, grad), derivative(expected, x, grad))

    @formulas
    def test_infinite_gradients(self, device: torch.device, dtype: torch.dtype, formula: Formula) -> None:
        x = with_kinks(batch((40, 7), dtype, "contiguous", 0, device), formula).requires_grad_()
        y, mask = native.piecewise_linear(x, *formula)
        inside = reference._unpack(mask, x.shape, x.stride())
        for grad in (inf, -inf, nan):
            dx = derivative(y, x, torch.full_like(x, grad))
            assert_equal(dx[inside], torch.full_like(dx[inside], grad))
            outside = grad * formula[0] if formula[0] else 0.0
            assert_equal(dx[~inside], torch.full_like(dx[~inside], outside))


class TestDifferencesFromPyTorch:
    """All of them: at NaN, at infinity, and in the sign of zero."""

    @formulas
    def test_gradient_passes_nan(self, device: torch.device, dtype: torch.dtype, formula: Formula) -> None:
        """At x = NaN the mask is set, because no comparison with a bound is true. PyTorch's ReLU does the same; its
        LeakyReLU scales the gradient there, and its Hardtanh and ReLU6 on CPU pass it or not, depending on whether the
        element comes to lie in a full vector.
        """
        x = torch.full((67,), nan, dtype=dtype, device=device, requires_grad=True)
        y, mask = native.piecewise_linear(x, *formula)
        assert y.isnan().all() and mask.tolist() == [255] * 8 + [7]
        grad = torch.randn(67).to(x)
        assert torch.equal(derivative(y, x, grad), grad)
        assert torch.equal(derivative(F.relu(x), x, grad), grad)
        assert_equal(derivative(F.leaky_relu(x, 0.5), x, grad), 0.5 * grad)

    def test_slope_of_zero_leaves_nothing(self, device: torch.device, dtype: torch.dtype) -> None:
        """PyTorch's LeakyReLU of the slope 0 makes infinity NaN; its ReLU does not, and this is like it."""
        x = torch.tensor([-inf, -1.0], dtype=dtype, device=device, requires_grad=True)
        y = native.piecewise_linear(x, 0.0, 0.0, inf)[0]
        grad = torch.full_like(x, inf)
        assert y.tolist() == F.relu(x).tolist() == derivative(y, x, grad).tolist() == [0.0, 0.0]
        assert derivative(F.relu(x), x, grad).tolist() == [0.0, 0.0]
        assert F.leaky_relu(x, 0.0)[0].isnan()
        assert derivative(F.leaky_relu(x, 0.0), x, grad).isnan().all()

    def test_infinity_is_within_an_infinite_bound(self, device: torch.device, dtype: torch.dtype) -> None:
        """An infinite bound is none, and so infinity has the derivative 1; PyTorch's Hardtanh gives it 0."""
        x = torch.tensor([inf, -inf], dtype=dtype, device=device, requires_grad=True)
        y = native.piecewise_linear(x, 0.0, -inf, inf)[0]
        assert torch.equal(y, F.hardtanh(x, -inf, inf))
        assert derivative(y, x, torch.ones_like(x)).tolist() == [1.0, 1.0]
        assert derivative(F.hardtanh(x, -inf, inf), x, torch.ones_like(x)).tolist() == [0.0, 0.0]

    @pytest.mark.parametrize("slope", [0.0, 0.2, -0.3])
    def test_zero_is_positive(self, device: torch.device, dtype: torch.dtype, slope: float) -> None:
        """At the bound the bound is given: 0.0, where PyTorch's ReLU gives -0.0 for -0.0."""
        x = torch.tensor([0.0, -0.0], dtype=dtype, device=device)
        y = native.piecewise_linear(x, slope, 0.0, inf)[0]
        assert y.tolist() == [0.0, 0.0] and not y.signbit().any()


class TestGradients:
    @formulas
    def test_gradients(self, device: torch.device, formula: Formula) -> None:
        def inplace(x: Tensor) -> Tensor:
            y = x.clone()
            native.piecewise_linear_(y, *formula)
            return y

        x = away_from_kinks((3, 4, 5), formula).to(device).permute(2, 0, 1).requires_grad_()
        mask = native.piecewise_linear(x, *formula)[1]
        grad = torch.randn(5, 3, 4, dtype=torch.float64).to(device).requires_grad_()
        cases = [
            (lambda x: native.piecewise_linear(x, *formula)[0], x),
            (inplace, x),
            (lambda grad: native.apply_mask(grad, mask, formula[0], x.stride()), grad),
        ]
        for function, argument in cases:
            assert torch.autograd.gradcheck(function, argument)
            assert torch.autograd.gradgradcheck(function, argument)

    @pytest.mark.parametrize("inplace", [False, True])
    def test_second_derivative_sends_nothing_to_x(self, device: torch.device, inplace: bool) -> None:
        leaf = torch.randn(5, 7, device=device, requires_grad=True)
        x = leaf * 1.0
        if inplace:
            y, mask = x, native.piecewise_linear_(x, 0.2, 0.0, inf)
        else:
            y, mask = native.piecewise_linear(x, 0.2, 0.0, inf)
        grad = torch.randn(5, 7, device=device, requires_grad=True)
        (dx,) = torch.autograd.grad(y, leaf, grad, create_graph=True)
        v = torch.randn(5, 7, device=device)
        to_x, to_grad = torch.autograd.grad(dx, (leaf, grad), v, allow_unused=True)
        assert to_x is None
        assert torch.equal(to_grad, native.apply_mask(v, mask, 0.2, x.stride()))

    def test_undefined_gradient_stays_undefined(self, device: torch.device) -> None:
        class Nothing(torch.autograd.Function):
            @staticmethod
            def forward(context, x: Tensor) -> Tensor:
                return x.clone()

            @staticmethod
            def backward(context, grad: Tensor) -> None:
                return None

        x = torch.randn(5, device=device, requires_grad=True)
        y, mask = native.piecewise_linear(x, 0.2, 0.0, inf)
        for result in (y, native.apply_mask(x, mask, 0.2, [1])):
            assert torch.autograd.grad(Nothing.apply(result).sum(), x, allow_unused=True) == (None,)

    def test_no_graph_without_need(self, device: torch.device) -> None:
        x = torch.randn(5, device=device)
        assert not native.piecewise_linear(x, 0.2, 0.0, inf)[0].requires_grad
        with torch.no_grad():
            assert not native.piecewise_linear(x.requires_grad_(), 0.2, 0.0, inf)[0].requires_grad


class TestInPlace:
    def test_bumps_the_version(self, device: torch.device) -> None:
        x = torch.randn(5, device=device)
        version = x._version
        native.piecewise_linear_(x, 0.2, 0.0, inf)
        assert x._version > version
        leaf = torch.randn(5, device=device, requires_grad=True)
        x = leaf * 1.0
        loss = (x * x).sum()
        native.piecewise_linear_(x, 0.2, 0.0, inf)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()

    @pytest.mark.parametrize("view", [lambda x: x[1:3], lambda x: x.t(), lambda x: x[2]], ids=["rows", "t", "row"])
    def test_on_a_view(self, device: torch.device, view) -> None:
        leaf = torch.randn(4, 6, device=device, requires_grad=True)
        results = []
        for activation in (lambda x: native.piecewise_linear_(x, 0.2, 0.0, inf), lambda x: F.leaky_relu_(x, 0.2)):
            base = leaf * 1.0
            version = base._version
            activation(view(base))
            assert base._version > version
            results.append([base, *torch.autograd.grad((base**3).sum(), leaf)])
        assert all(map(torch.equal, *results))

    def test_refuses_a_leaf(self, device: torch.device) -> None:
        leaf = torch.randn(4, 6, device=device, requires_grad=True)
        with pytest.raises(RuntimeError, match="a leaf Variable that requires grad"):
            native.piecewise_linear_(leaf, 0.2, 0.0, inf)
        with pytest.raises(RuntimeError, match="a view of a leaf Variable that requires grad"):
            native.piecewise_linear_(leaf[1:], 0.2, 0.0, inf)

    def test_refused_leaf_is_not_written(self, device: torch.device) -> None:
        leaf = torch.full((4,), -1.0, device=device, requires_grad=True)
        with pytest.raises(RuntimeError, match="a leaf Variable that requires grad"):
            native.piecewise_linear_(leaf, 0.2, 0.0, inf)
        assert leaf.tolist() == [-1.0] * 4

    def test_inference_mode_counts_changes(self, device: torch.device) -> None:
        x = torch.randn(4, device=device)
        with torch.inference_mode():
            native.piecewise_linear_(x, 0.2, 0.0, inf)
            assert x._version == 1
            native.piecewise_linear_(x + 0, 0.2, 0.0, inf)

    def test_changed_mask_and_second_backward_are_noticed(self, device: torch.device) -> None:
        x = torch.randn(4, device=device, requires_grad=True)
        y, mask = native.piecewise_linear(x, 0.2, 0.0, inf)
        y.sum().backward()
        with pytest.raises(RuntimeError, match="a second time"):
            y.sum().backward()
        y, mask = native.piecewise_linear(x, 0.2, 0.0, inf)
        mask.zero_()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()

    def test_leaf_without_grad_mode(self, device: torch.device) -> None:
        leaf = torch.randn(4, 6, device=device, requires_grad=True)
        expected = F.leaky_relu(leaf.detach(), 0.2)
        with torch.no_grad():
            native.piecewise_linear_(leaf, 0.2, 0.0, inf)
        assert torch.equal(leaf, expected) and leaf.is_leaf and leaf.requires_grad


class TestOpcheck:
    # Asked of an inner node, whose x is to be overwritten, opcheck looks for a .grad.
    @pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
    @pytest.mark.parametrize("layout", DENSE)
    def test_piecewise_linear(self, device: torch.device, layout: str) -> None:
        x = batch((3, 2, 4, 5), torch.float32, layout, 0, device)
        torch.library.opcheck(native.piecewise_linear_.default, (x.clone(), 0.2, -1.0, 1.0))
        x.requires_grad_()
        torch.library.opcheck(native.piecewise_linear.default, (x, 0.2, -1.0, 1.0))
        torch.library.opcheck(native.piecewise_linear_.default, (x * 1.0, 0.2, -1.0, 1.0))

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_apply_mask(self, device: torch.device, layout: str) -> None:
        x = batch((3, 2, 4, 5), torch.float32, "channels_last", 0, device)
        mask = native.piecewise_linear(x, 0.2, 0.0, inf)[1]
        grad = batch((3, 2, 4, 5), torch.float32, layout, 1, device).requires_grad_()
        torch.library.opcheck(native.apply_mask.default, (grad, mask, 0.2, list(x.stride())))


class TestErrors:
    @pytest.mark.parametrize("layout", GAPS)
    def test_gaps_in_memory(self, device: torch.device, dtype: torch.dtype, layout: str) -> None:
        x = batch((3, 2, 4), dtype, layout, 0, device)
        before = x.clone()
        for operator in (native.piecewise_linear, native.piecewise_linear_):
            with pytest.raises(ValueError, match="^x: expected a tensor without gaps in memory"):
                operator(x, 0.2, 0.0, inf)
        assert torch.equal(x, before)

    @pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64, torch.float8_e5m2], ids=str)
    def test_types_of_x(self, device: torch.device, dtype: torch.dtype) -> None:
        x = torch.ones(3).to(device, dtype)
        mask = torch.zeros(1, dtype=torch.uint8, device=device)
        for operator, *arguments in (
            (native.piecewise_linear, x, 0.2, 0.0, inf),
            (native.piecewise_linear_, x, 0.2, 0.0, inf),
            (native.apply_mask, x, mask, 0.2, [1]),
        ):
            with pytest.raises(TypeError, match="^x: expected float16, bfloat16, float32 or float64"):
                operator(*arguments)

    @pytest.mark.parametrize(
        ("error", "message", "change"),
        [
            (TypeError, "mask: expected uint8", {"mask": torch.zeros(2, dtype=torch.int32)}),
            (ValueError, "mask: expected 2 bytes", {"mask": torch.zeros(3, dtype=torch.uint8)}),
            (ValueError, "mask: expected 2 bytes", {"mask": torch.zeros(1, 2, dtype=torch.uint8)}),
            (ValueError, "stride: expected 2 numbers", {"stride": [1]}),
            (ValueError, "stride: expected 2 numbers", {"stride": [12, 4, 1]}),
            (ValueError, r"stride: \[8, 1\] does not fill the memory", {"stride": [8, 1]}),
            (ValueError, r"stride: \[0, 1\] does not fill the memory", {"stride": [0, 1]}),
        ],
    )
    def test_errors_of_apply_mask(self, device: torch.device, error: type, message: str, change: dict) -> None:
        arguments = {"mask": torch.zeros(2, dtype=torch.uint8), "stride": [4, 1]} | change
        with pytest.raises(error, match=f"^{message}"):
            native.apply_mask(torch.ones(3, 4, device=device), arguments["mask"].to(device), 0.2, arguments["stride"])

    def test_errors_of_mask_with_gaps(self, device: torch.device) -> None:
        mask = torch.zeros(4, dtype=torch.uint8, device=device)[::2]
        with pytest.raises(ValueError, match="^mask: expected 2 bytes"):
            native.apply_mask(torch.ones(3, 4, device=device), mask, 0.2, [4, 1])

    def test_mask_on_another_device(self) -> None:
        if not torch.cuda.is_available():
            pytest.skip("one device only")
        mask = torch.zeros(1, dtype=torch.uint8)
        with pytest.raises(ValueError, match="^mask is on cpu and x on cuda:0"):
            native.apply_mask(torch.ones(3, device="cuda"), mask, 0.2, [1])
