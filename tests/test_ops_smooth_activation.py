"""Smooth activations and their derivatives against the reference and against PyTorch's own."""

from math import inf, nan

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from conftest import assert_close
from sample_inputs import batch, dtypes, layouts, seeds, shapes, with_layout
from wgan_fast import reference
from wgan_fast._library import extension  # noqa: F401 (registers the operators)

native = torch.ops.wgan_fast
DENSE = ("contiguous", "unaligned", "permuted", "channels_last")
GAPS = ("gaps", "row_gaps", "expanded")
ACTIVATIONS: dict[str, tuple[str, list[float]]] = {
    **{name: (name, []) for name in ("silu", "gelu", "gelu_tanh", "tanh", "sigmoid", "mish", "logsigmoid", "softsign")},
    "softplus": ("softplus", [1.0, 20.0]),
    "steep softplus": ("softplus", [3.0, 4.0]),
    "elu": ("elu", [1.0, 1.0, 1.0]),
    "selu": ("elu", [1.6732632423543772, 1.0507009873554805, 1.0]),
    "celu": ("elu", [0.5, 1.0, 2.0]),
}
SAVE_THE_OUTPUT = ("tanh", "sigmoid", "elu")
Activation = tuple[str, list[float]]

activations = pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=ACTIVATIONS)
drawn = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)


def wide_points(shape: tuple[int, ...]) -> Tensor:
    """float64, away from 0, where ELU and Softsign have kinks."""
    x = 2 * torch.randn(shape, dtype=torch.float64)
    x[x.abs() < 0.1] += 0.3
    return x


def derivatives(x: Tensor, activation: Activation, function=reference.smooth_activation) -> list[Tensor]:
    """The value and the first three derivatives, in the type of x."""
    x = x.detach().requires_grad_()
    found = [function(x, *activation)]
    for _ in range(3):
        last = found[-1]
        grad = torch.autograd.grad(last, x, torch.ones_like(last), create_graph=True)[0] if last.requires_grad else None
        found.append(torch.zeros_like(x) if grad is None else grad)
    return [one.detach() for one in found]


def saved_by(x: Tensor, activation: Activation) -> Tensor:
    return native.smooth_activation(x, *activation) if activation[0] in SAVE_THE_OUTPUT else x


class TestReference:
    @drawn
    @given(
        shape=shapes(),
        dtype=dtypes,
        layout=st.sampled_from(DENSE),
        grad_layout=layouts,
        activation=st.sampled_from(list(ACTIVATIONS.values())),
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
        activation: Activation,
        seed: int,
    ) -> None:
        x = batch(shape, dtype, layout, seed, device)
        u, g = (batch(shape, dtype, grad_layout, seed + k, device) for k in (1, 2))
        y = native.smooth_activation(x, *activation)
        assert_close(y, reference.smooth_activation(x.double(), *activation), dtype)
        assert y.stride() == x.stride() and y.dtype == dtype
        saved = saved_by(x, activation)
        if activation[0] in SAVE_THE_OUTPUT:
            slope = {
                "tanh": lambda y: 1 - y * y,
                "sigmoid": lambda y: y * (1 - y),
                "elu": lambda y: torch.where(
                    y > 0, activation[1][1] + 0 * y, activation[1][2] * (y + activation[1][0] * activation[1][1])
                ),
            }[activation[0]]
            z = saved.double().requires_grad_()
            exact = [slope(z)]
            exact.append(torch.autograd.grad(exact[0].sum(), z, create_graph=True)[0])
        else:
            exact = derivatives(x.double(), activation)[1:]
        for order, expected in enumerate(exact):
            result = native.smooth_activation_backward(g, saved, *activation, order)
            assert_close(result, g.double() * expected.detach(), dtype)
            assert result.stride() == x.stride()
        both = native.smooth_activation_double_backward(u, g, saved, *activation)
        assert_close(both[0], u.double() * exact[0].detach(), dtype)
        assert_close(both[1], u.double() * g.double() * exact[1].detach(), dtype)
        assert both[0].stride() == both[1].stride() == x.stride()

        x = with_layout(x, layout)
        native.smooth_activation_(x, *activation)
        assert torch.equal(x, y)

    @activations
    def test_float32_everywhere(self, device: torch.device, activation: Activation) -> None:
        """Within a few units of the last place of 1, or of the value where that is larger, far into both tails."""
        x = torch.cat([torch.linspace(-100, 100, 20_001), torch.linspace(-0.01, 0.01, 2_001)]).to(device)
        x = x[x != 0]
        bounds = (4e-7, 2e-6, 2e-6, 1e-5)
        for function, order in ((native.smooth_activation, 0), (None, 1), (None, 2)):
            exact = derivatives(x.double(), activation)[order]
            if function is not None:
                ours = function(x, *activation)
            elif activation[0] in SAVE_THE_OUTPUT and order == 2:
                z = saved_by(x, activation)
                ours = native.smooth_activation_backward(torch.ones_like(x), z, *activation, 0)
                ours = native.smooth_activation_backward(ours, z, *activation, 1)
            else:
                ours = native.smooth_activation_backward(
                    torch.ones_like(x), saved_by(x, activation), *activation, order - 1
                )
            error = ((ours.double() - exact).abs() / exact.abs().clamp(min=1)).max().item()
            assert error <= bounds[order], (order, error)

    def test_tails_of_memory(self, poisoned_memory: None, device: torch.device, dtype: torch.dtype) -> None:
        """Around the elements of a vector and of a block; neighbours are left alone."""
        for count in [*range(1, 18), 31, 32, 33, 511, 512, 513, 1025]:
            memory = torch.full((count + 2,), -1.0, dtype=dtype, device=device)
            x = torch.randn(count).to(memory)
            memory[1:-1] = x
            native.smooth_activation_(memory[1:-1], "silu", [])
            assert_close(memory[1:-1], reference.smooth_activation(x.double(), "silu", []), dtype)
            assert memory[0] == memory[-1] == -1

    @activations
    def test_special_values(self, device: torch.device, dtype: torch.dtype, activation: Activation) -> None:
        x = torch.tensor([nan, inf, -0.0, 0.0, 30.0, -30.0], dtype=dtype, device=device)
        expected = reference.smooth_activation(x.double(), *activation)
        assert_close(native.smooth_activation(x, *activation), expected, dtype)
        slope = native.smooth_activation_backward(torch.ones_like(x), saved_by(x, activation), *activation, 0)
        assert slope[0].isnan() and slope[2:].isfinite().all()

    @pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1, 1)])
    def test_scalars_and_empty_tensors(self, device: torch.device, shape: tuple[int, ...]) -> None:
        x = torch.full(shape, -2.0, device=device, requires_grad=True)
        y = native.smooth_activation(x, "tanh", [])
        torch.testing.assert_close(y, x.tanh())
        (gradient,) = torch.autograd.grad(y.sum(), x)
        torch.testing.assert_close(gradient, 1 - x.tanh() ** 2)

    @pytest.mark.parametrize("count", [65_535, 65_537, 300_000])
    def test_same_bits_for_any_number_of_threads(self, poisoned_memory: None, dtype: torch.dtype, count: int) -> None:
        x, u, g = torch.randn(3, count).to(dtype)
        threads = torch.get_num_threads()
        results = []
        try:
            for number in (1, 3):
                torch.set_num_threads(number)
                results.append(
                    [
                        native.smooth_activation(x, "gelu", []),
                        native.smooth_activation_backward(g, x, "gelu", [], 0),
                        *native.smooth_activation_double_backward(u, g, x, "gelu", []),
                    ]
                )
        finally:
            torch.set_num_threads(threads)
        assert all(map(torch.equal, *results))


class TestDerivatives:
    @activations
    def test_gradcheck(self, device: torch.device, activation: Activation) -> None:
        x = wide_points((3, 5)).to(device).requires_grad_()

        def function(x: Tensor) -> Tensor:
            return native.smooth_activation(x, *activation)

        assert torch.autograd.gradcheck(function, (x,))
        assert torch.autograd.gradgradcheck(function, (x,))

    @activations
    def test_third_and_fourth_derivative(self, device: torch.device, activation: Activation) -> None:
        """Of the cubes, whose derivatives mix all orders, along random directions."""
        x = wide_points((3, 4)).to(device).requires_grad_()
        directions = torch.randn(4, 3, 4, dtype=torch.float64).to(device)
        results = []
        for function in (native.smooth_activation, reference.smooth_activation):
            found = [(function(x, *activation) ** 3).sum()]
            for direction in directions:
                (gradient,) = torch.autograd.grad(found[-1], x, create_graph=True)
                found.append((gradient * direction).sum())
            results.append(found)
        torch.testing.assert_close(*results, rtol=1e-9, atol=1e-9)

    @activations
    def test_double_backward_as_an_operator(self, device: torch.device, activation: Activation) -> None:
        x = wide_points((3, 4)).to(device)
        saved = saved_by(x, activation).detach().requires_grad_()
        u, g = (torch.randn(3, 4, dtype=torch.float64).to(device).requires_grad_() for _ in range(2))

        def function(u: Tensor, g: Tensor, saved: Tensor) -> tuple[Tensor, Tensor]:
            return native.smooth_activation_double_backward(u, g, saved, *activation)

        assert torch.autograd.gradcheck(function, (u, g, saved))

    @activations
    @pytest.mark.parametrize("view", [lambda x: x, lambda x: x[1:3], lambda x: x.t(), lambda x: x[2]])
    def test_in_place(self, device: torch.device, activation: Activation, view) -> None:
        leaf = wide_points((4, 6)).to(device).requires_grad_()
        results = []
        for inplace in (False, True):
            base = leaf * 1.0
            version = base._version
            part = view(base)
            if inplace:
                native.smooth_activation_(part, *activation)
            else:
                part.copy_(reference.smooth_activation(part.clone(), *activation))
            assert base._version > version
            (gradient,) = torch.autograd.grad((base**3).sum(), leaf, create_graph=True)
            results.append([base, gradient, *torch.autograd.grad((gradient**2).sum(), leaf)])
        torch.testing.assert_close(*results, rtol=1e-10, atol=1e-10)

    def test_in_place_refuses_a_leaf(self, device: torch.device) -> None:
        leaf = torch.full((4,), -1.0, device=device, requires_grad=True)
        with pytest.raises(RuntimeError, match="a leaf Variable that requires grad"):
            native.smooth_activation_(leaf, "silu", [])
        assert leaf.tolist() == [-1.0] * 4

    def test_inference_mode_counts_changes(self, device: torch.device) -> None:
        x = torch.randn(4, device=device)
        with torch.inference_mode():
            native.smooth_activation_(x, "silu", [])
        assert x._version == 1

    def test_changed_input_is_noticed(self, device: torch.device) -> None:
        x = torch.randn(4, device=device, requires_grad=True)
        hidden = x * 1
        y = native.smooth_activation(hidden, "silu", [])
        hidden.zero_()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()


class TestOpcheck:
    @pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
    @pytest.mark.parametrize("activation", [("silu", []), ("tanh", []), ("softplus", [1.0, 20.0])], ids=str)
    def test_opcheck(self, device: torch.device, activation: Activation) -> None:
        x = batch((3, 2, 4, 5), torch.float32, "channels_last", 0, device)
        torch.library.opcheck(native.smooth_activation_.default, (x.clone(), *activation))
        x.requires_grad_()
        u, g = (batch(x.shape, torch.float32, "contiguous", k, device).requires_grad_() for k in (1, 2))
        torch.library.opcheck(native.smooth_activation.default, (x, *activation))
        torch.library.opcheck(native.smooth_activation_.default, (x * 1.0, *activation))
        torch.library.opcheck(native.smooth_activation_backward.default, (g, x, *activation, 0))
        torch.library.opcheck(native.smooth_activation_backward.default, (g, x, *activation, 1))
        torch.library.opcheck(native.smooth_activation_double_backward.default, (u, g, x, *activation))


class TestErrors:
    @pytest.mark.parametrize("layout", GAPS)
    def test_gaps_in_memory(self, device: torch.device, dtype: torch.dtype, layout: str) -> None:
        x = batch((3, 2, 4), dtype, layout, 0, device)
        for operator in (native.smooth_activation, native.smooth_activation_):
            with pytest.raises(ValueError, match="^x: expected a tensor without gaps in memory"):
                operator(x, "silu", [])

    @pytest.mark.parametrize("dtype", [torch.int64, torch.complex64], ids=str)
    def test_types(self, device: torch.device, dtype: torch.dtype) -> None:
        with pytest.raises(TypeError, match="^x: expected float16, bfloat16, float32 or float64"):
            native.smooth_activation(torch.ones(3).to(device, dtype), "silu", [])

    @pytest.mark.parametrize(
        ("kind", "parameters", "message"),
        [
            ("relu", [], "kind: no smooth activation has the name relu"),
            ("silu", [1.0], "parameters: silu has 0, got 1"),
            ("softplus", [], "parameters: softplus has 2, got 0"),
            ("elu", [-1.0, 1.0, 1.0], "parameters: expected alpha and scale of one sign"),
        ],
    )
    def test_kinds(self, device: torch.device, kind: str, parameters: list[float], message: str) -> None:
        with pytest.raises(ValueError, match=f"^{message}"):
            native.smooth_activation(torch.ones(3, device=device), kind, parameters)

    @pytest.mark.parametrize(
        ("error", "message", "grad", "order"),
        [
            (ValueError, "grad has shape", torch.ones(3), 0),
            (TypeError, "grad is Double", torch.ones(4).double(), 0),
            (ValueError, "order: expected 0, 1 or 2, got 3", torch.ones(4), 3),
        ],
    )
    def test_gradients(self, device: torch.device, error: type, message: str, grad: Tensor, order: int) -> None:
        with pytest.raises(error, match=f"^{message}"):
            native.smooth_activation_backward(grad.to(device), torch.ones(4, device=device), "silu", [], order)
