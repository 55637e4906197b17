"""The operators against their reference in float64 on random inputs; gradients; errors."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from conftest import FLOATING, assert_close
from sample_inputs import LAYOUTS, batch, dtypes, layouts, seeds, shapes, with_layout
from wgan_fast import clip_weights_, interpolate, reference
from wgan_fast._library import extension
from wgan_fast.ops import gradient_norm_penalty

native = torch.ops.wgan_fast
drawn = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)


def test_extension_is_loaded() -> None:
    assert extension is not None, "the tests mean nothing against the fallback"


class TestInterpolate:
    @drawn
    @given(shape=shapes(), dtype=dtypes, real_layout=layouts, fake_layout=layouts, seed=seeds)
    def test_matches_reference(
        self,
        poisoned_memory: None,
        device: torch.device,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        real_layout: str,
        fake_layout: str,
        seed: int,
    ) -> None:
        real = batch(shape, dtype, real_layout, seed, device)
        fake = batch(shape, dtype, fake_layout, seed + 1, device)
        t = torch.rand(shape[0], dtype=torch.float64).to(device)
        points = interpolate(real, fake, t)
        assert points.dtype == dtype and points.shape == shape
        # The given t is rounded to the type of the arithmetic.
        t = t.to(torch.float64 if dtype == torch.float64 else torch.float32)
        assert_close(points, reference.interpolate(real.double(), fake.double(), t.double()), dtype)

    def test_ends_are_exact(self, device: torch.device, dtype: torch.dtype) -> None:
        real, fake = torch.randn(2, 8, 5, dtype=torch.float64).to(device, dtype)
        assert torch.equal(interpolate(real, fake, torch.zeros(8, device=device)), real)
        assert torch.equal(interpolate(real, fake, torch.ones(8, device=device)), fake)

    def test_one_t_per_sample(self, device: torch.device) -> None:
        points = interpolate(torch.zeros(512, 3, 4, device=device), torch.ones(512, 3, 4, device=device))
        assert torch.equal(points, points[:, :1, :1].expand_as(points))
        drawn_t = points[:, 0, 0]
        assert drawn_t.unique().numel() > 500
        assert drawn_t.min() >= 0 and drawn_t.max() < 1 and abs(drawn_t.mean() - 0.5) < 0.05

    def test_generator_decides(self, device: torch.device) -> None:
        real, fake = torch.randn(2, 8, 5).to(device)
        points = [interpolate(real, fake, generator=torch.Generator(device).manual_seed(3)) for _ in range(2)]
        assert torch.equal(*points)
        assert not torch.equal(points[0], interpolate(real, fake))

    @pytest.mark.parametrize("shape", [(6,), (6, 1), (6, 1, 1, 1)])
    def test_shapes_of_t(self, shape: tuple[int, ...]) -> None:
        real, fake = torch.randn(2, 6, 3)
        t = torch.rand(6)
        assert torch.equal(interpolate(real, fake, t.view(shape)), interpolate(real, fake, t))

    def test_keeps_the_memory_format(self) -> None:
        real = with_layout(torch.randn(4, 3, 5, 6), "channels_last")
        points = interpolate(real, torch.randn(4, 3, 5, 6), torch.rand(4))
        assert points.is_contiguous(memory_format=torch.channels_last)

    @pytest.mark.parametrize("flush", [False, True])
    def test_every_half(self, flush: bool) -> None:
        """Each float16 value survives conversion to float32 and back, also with subnormals flushed to zero."""
        halves = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.float16)
        halves = halves[halves.isfinite()].reshape(2, -1)
        torch.set_flush_denormal(flush)
        try:
            points = interpolate(torch.zeros_like(halves), halves, torch.ones(2))
            norms = gradient_norm_penalty(halves.reshape(-1, 1)).norms
        finally:
            torch.set_flush_denormal(False)
        assert torch.equal(points, halves)
        normal = halves.flatten().double().abs() >= 2.0**-63  # the squares of others are subnormal in float32
        assert_close(norms[normal], halves.flatten()[normal].abs().double(), torch.float32)

    def test_autocast_converts_fake(self, device: torch.device) -> None:
        real, fake = torch.randn(4, 3, device=device), torch.randn(4, 3, device=device, dtype=torch.bfloat16)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            assert interpolate(real, fake).dtype == torch.float32

    def test_gradients(self, device: torch.device) -> None:
        real, fake = torch.randn(2, 3, 2, 2, dtype=torch.float64).to(device).unbind()
        t = torch.rand(3, dtype=torch.float64).to(device)
        inputs = [tensor.clone().requires_grad_() for tensor in (real, fake, t)]
        assert torch.autograd.gradcheck(interpolate, inputs)
        assert torch.autograd.gradgradcheck(interpolate, inputs)

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_opcheck(self, device: torch.device, layout: str) -> None:
        real = batch((3, 2, 4, 5), torch.float32, layout, 0, device).requires_grad_()
        fake = batch((3, 2, 4, 5), torch.float32, "contiguous", 1, device).requires_grad_()
        torch.library.opcheck(native.interpolate.default, (real, fake, torch.rand(3).to(device)))

    @pytest.mark.parametrize(
        ("error", "argument", "change"),
        [
            (TypeError, "real", {"real": [1.0]}),
            (TypeError, "real", {"real": torch.ones(4, 3, dtype=torch.int64), "fake": torch.ones(4, 3)}),
            (TypeError, "fake", {"fake": torch.ones(4, 3, dtype=torch.complex64)}),
            (TypeError, "fake", {"fake": torch.ones(4, 3, dtype=torch.float64)}),
            (TypeError, "fake", {"fake": None}),
            (TypeError, "real", {"real": torch.ones(4, 3).to_sparse()}),
            (ValueError, "fake", {"fake": torch.ones(3, 3)}),
            (ValueError, "fake", {"fake": torch.ones(4, 3, 1)}),
            (ValueError, "fake", {"fake": torch.ones(4, 3, device="meta")}),
            (ValueError, "real", {"real": torch.ones(0, 3), "fake": torch.ones(0, 3)}),
            (ValueError, "real", {"real": torch.ones(4, 0), "fake": torch.ones(4, 0)}),
            (ValueError, "real", {"real": torch.tensor(1.0), "fake": torch.tensor(1.0)}),
            (TypeError, "t", {"t": 0.5}),
            (TypeError, "t", {"t": torch.ones(4, dtype=torch.int64)}),
            (ValueError, "t", {"t": torch.ones(3)}),
            (ValueError, "t", {"t": torch.tensor(0.5)}),
            (ValueError, "t", {"t": torch.ones(1, 4)}),
            (ValueError, "t", {"t": torch.ones(4, 3)}),
            (ValueError, "t", {"t": torch.ones(4, device="meta")}),
            (TypeError, "generator", {"generator": 0}),
            (TypeError, "generator", {"generator": 0, "t": torch.rand(4)}),
        ],
    )
    def test_errors_name_the_argument(self, error: type, argument: str, change: dict) -> None:
        arguments = {"real": torch.ones(4, 3), "fake": torch.ones(4, 3)} | change
        with pytest.raises(error, match=f"^{argument}: expected"):
            interpolate(**arguments)


class TestGradientNormPenalty:
    @drawn
    @given(
        shape=shapes(),
        dtype=dtypes,
        layout=layouts,
        seed=seeds,
        weight=st.sampled_from([0.0, 0.1, 10.0]),
        target=st.sampled_from([0.0, 1.0, 3.5]),
        power=st.sampled_from([2.0, 2.0, 3.0, 6.0]),
        one_sided=st.booleans(),
    )
    def test_matches_reference(
        self,
        poisoned_memory: None,
        device: torch.device,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        layout: str,
        seed: int,
        weight: float,
        target: float,
        power: float,
        one_sided: bool,
    ) -> None:
        gradient = batch(shape, dtype, layout, seed, device).requires_grad_()
        exact = gradient.detach().double().requires_grad_()
        penalty, norms = gradient_norm_penalty(gradient, weight=weight, target=target, power=power, one_sided=one_sided)
        expected, expected_norms = reference.gradient_norm_penalty(exact, weight, target, power, one_sided)
        arithmetic = torch.float64 if dtype == torch.float64 else torch.float32
        assert penalty.dtype == norms.dtype == arithmetic and not norms.requires_grad
        assert_close(norms, expected_norms, arithmetic)
        assert_close(penalty, expected.detach(), arithmetic)
        (derivative,) = torch.autograd.grad(penalty, gradient, torch.full_like(penalty, 1.5))
        (expected_derivative,) = torch.autograd.grad(1.5 * expected, exact)
        assert derivative.dtype == dtype
        assert_close(derivative, expected_derivative, dtype)

    @pytest.mark.parametrize("shape", [(1, 300_001), (3, 100_000), (5, 16_385), (40_000, 1), (9_001, 3), (600, 700)])
    def test_long_and_short_rows(self, poisoned_memory: None, device: torch.device, shape: tuple[int, int]) -> None:
        gradient = torch.randn(shape, dtype=torch.float64).to(device).requires_grad_()
        penalty, norms = gradient_norm_penalty(gradient)
        expected, expected_norms = reference.gradient_norm_penalty(gradient, 10.0, 1.0, 2.0, False)
        assert_close(penalty.detach(), expected.detach(), torch.float64)
        assert_close(norms, expected_norms, torch.float64)
        (derivative,) = torch.autograd.grad(penalty, gradient)
        (expected_derivative,) = torch.autograd.grad(expected, gradient)
        assert_close(derivative, expected_derivative, torch.float64)

    def test_zero_norm_has_zero_gradient(self, device: torch.device, dtype: torch.dtype) -> None:
        gradient = torch.zeros(3, 4, dtype=dtype, device=device)
        gradient[1] = 2.0
        gradient.requires_grad_()
        penalty = gradient_norm_penalty(gradient).penalty
        (first,) = torch.autograd.grad(penalty, gradient, create_graph=True)
        assert torch.equal(first[0], torch.zeros_like(first[0])) and first[1].abs().min() > 0
        (second,) = torch.autograd.grad(first.sum(), gradient)
        assert torch.equal(second[0], torch.zeros_like(second[0])) and second.isfinite().all()

    def test_squared_norm_is_smooth_at_zero(self, device: torch.device) -> None:
        gradient = torch.zeros(2, 3, dtype=torch.float64, device=device, requires_grad=True)
        penalty = gradient_norm_penalty(gradient, weight=5.0, target=0.0).penalty
        (first,) = torch.autograd.grad(penalty, gradient, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), gradient)
        assert torch.equal(first, torch.zeros_like(first))
        assert torch.equal(second, torch.full_like(second, 5.0))  # of 5 / 2 * sum g^2

    def test_nan_is_not_hidden(self, device: torch.device) -> None:
        gradient = torch.ones(3, 4, device=device)
        gradient[2, 1] = torch.nan
        gradient.requires_grad_()
        for one_sided in (False, True):
            penalty, norms = gradient_norm_penalty(gradient, one_sided=one_sided)
            (derivative,) = torch.autograd.grad(penalty, gradient)
            assert penalty.isnan() and norms.isnan().tolist() == [False, False, True]
            assert derivative.isnan().any(dim=1).tolist() == [False, False, True]

    def test_sixteen_bit_norms_do_not_overflow(self, device: torch.device) -> None:
        # The square of an element is infinite in float16.
        gradient = torch.full((2, 10_000), 300.0, dtype=torch.float16, device=device)
        assert_close(gradient_norm_penalty(gradient).norms, torch.full((2,), 3e4, dtype=torch.float64), torch.float32)

    @pytest.mark.parametrize("shape", [(7, 100_003), (100_003, 3)], ids=["long rows", "many rows"])
    def test_same_bits_for_any_number_of_threads(self, shape: tuple[int, int]) -> None:
        gradient = torch.randn(shape)
        threads = torch.get_num_threads()
        try:
            results = []
            for count in (1, 2, 3):
                torch.set_num_threads(count)
                results.append(torch.cat([value.reshape(-1) for value in gradient_norm_penalty(gradient)]))
        finally:
            torch.set_num_threads(threads)
        assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])

    def test_same_bits_every_time(self, device: torch.device) -> None:
        gradient = torch.randn(300, 5_000).to(device)
        assert torch.equal(gradient_norm_penalty(gradient).penalty, gradient_norm_penalty(gradient).penalty)

    @pytest.mark.parametrize("one_sided", [False, True])
    @pytest.mark.parametrize("target", [0.0, 1.0, 2.0])
    @pytest.mark.parametrize("power", [2.0, 3.5, 6.0])
    def test_gradients(self, device: torch.device, one_sided: bool, target: float, power: float) -> None:
        def penalty(gradient: Tensor) -> Tensor:
            formula = {"weight": 0.1, "target": target, "power": power, "one_sided": one_sided}
            return gradient_norm_penalty(gradient, **formula).penalty

        gradient = torch.randn(4, 3, 2, dtype=torch.float64).to(device)
        gradient[0] *= 0.1  # on the other side of the target
        gradient.requires_grad_()
        assert torch.autograd.gradcheck(penalty, gradient)
        assert torch.autograd.gradgradcheck(penalty, gradient)

        def derivative(gradient: Tensor) -> Tensor:
            return torch.autograd.grad(penalty(gradient), gradient, create_graph=True)[0]

        assert torch.autograd.gradgradcheck(derivative, gradient)  # the third derivative of the penalty

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_opcheck(self, device: torch.device, layout: str) -> None:
        gradient = batch((3, 2, 4, 5), torch.float32, layout, 0, device).requires_grad_()
        torch.library.opcheck(native.gradient_norm_penalty.default, (gradient, 10.0, 1.0, 2.0, False))
        norms = gradient.detach().flatten(1).norm(dim=1)
        grad_penalty = torch.ones((), device=device, requires_grad=True)
        torch.library.opcheck(
            native.gradient_norm_penalty_backward.default, (grad_penalty, gradient, norms, 10.0, 1.0, 2.0, True)
        )

    @pytest.mark.parametrize(
        ("error", "argument", "change"),
        [
            (TypeError, "gradient", {"gradient": 1.0}),
            (TypeError, "gradient", {"gradient": torch.ones(2, 2, dtype=torch.int32)}),
            (ValueError, "gradient", {"gradient": torch.ones(0, 2)}),
            (ValueError, "gradient", {"gradient": torch.tensor(1.0)}),
            (TypeError, "weight", {"weight": "10"}),
            (TypeError, "weight", {"weight": True}),
            (ValueError, "weight", {"weight": float("nan")}),
            (ValueError, "weight", {"weight": -1.0}),
            (ValueError, "weight", {"weight": 10**400}),
            (ValueError, "target", {"target": float("inf")}),
            (ValueError, "target", {"target": -0.5}),
            (ValueError, "power", {"power": 1.0}),
            (TypeError, "one_sided", {"one_sided": 1}),
        ],
    )
    def test_errors_name_the_argument(self, error: type, argument: str, change: dict) -> None:
        with pytest.raises(error, match=f"^{argument}: expected"):
            gradient_norm_penalty(**({"gradient": torch.ones(2, 2)} | change))


class TestClipWeights:
    @drawn
    @given(
        tensors=st.lists(st.tuples(shapes(3_000), dtypes, layouts), min_size=1, max_size=12),
        bound=st.sampled_from([0.0, 0.01, 0.5, 3.0]),
        seed=seeds,
    )
    def test_matches_reference(
        self,
        device: torch.device,
        tensors: list[tuple[tuple[int, ...], torch.dtype, str]],
        bound: float,
        seed: int,
    ) -> None:
        weights = [
            batch(shape, dtype, "contiguous" if layout == "expanded" else layout, seed + i, device)
            for i, (shape, dtype, layout) in enumerate(tensors)
        ]
        expected = [weight.clone() for weight in weights]
        memory = [weight.new_empty(0).set_(weight.untyped_storage()) for weight in weights]
        before = [place.clone() for place in memory]
        reference.clip_weights_(expected, bound)
        clip_weights_(weights, bound)
        for weight, wanted, place, was in zip(weights, expected, memory, before, strict=True):
            assert torch.equal(weight, wanted)
            # Nothing between the elements has changed: put the weights back, and all is as it was.
            untouched = torch.ones_like(was, dtype=torch.bool)
            untouched.as_strided(weight.shape, weight.stride(), weight.storage_offset()).fill_(False)
            assert torch.equal(place[untouched].nan_to_num(), was[untouched].nan_to_num())

    def test_special_values(self, device: torch.device, dtype: torch.dtype) -> None:
        values = [float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 0.25, -0.25, 0.26, -0.26, 6e-8, -6e-8]
        weights = torch.tensor(values * 3, dtype=dtype, device=device)
        expected = weights.clone().clamp_(-0.25, 0.25)
        clip_weights_([weights], 0.25)
        assert torch.equal(weights.isnan(), expected.isnan())
        assert torch.equal(weights.nan_to_num(), expected.nan_to_num())
        assert torch.equal(weights.nan_to_num().signbit(), expected.nan_to_num().signbit())

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
    def test_every_sixteen_bit_number(self, device: torch.device, dtype: torch.dtype) -> None:
        weights = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype).to(device)
        for bound in (0.01, 0.1, 1e-7, 60000.0):
            clipped = weights.clone()
            clip_weights_([clipped], bound)
            expected = weights.clone().clamp_(-bound, bound)
            assert torch.equal(clipped.isnan(), weights.isnan())
            assert torch.equal(clipped.nan_to_num(), expected.nan_to_num())

    def test_module_with_shared_and_frozen_parameters(self, device: torch.device) -> None:
        module = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5), nn.BatchNorm1d(5)).to(device)
        module[1].weight = module[0].weight
        module[0].bias.requires_grad_(False)
        running_var = module[2].running_var.clone()
        assert clip_weights_(module, 0.05) is None
        assert all(parameter.abs().max() <= 0.05 for parameter in module.parameters())
        assert torch.equal(module[2].running_var, running_var)

    @pytest.mark.parametrize("layout", ["contiguous", "unaligned", "permuted", "gaps", "row_gaps"])
    def test_large(self, device: torch.device, dtype: torch.dtype, layout: str) -> None:
        """Tensors that are split into chunks for threads or blocks."""
        weights = batch((3, 40_000), dtype, layout, 0, device)
        expected = weights.clone().clamp_(-0.5, 0.5)
        clip_weights_([weights, torch.ones(3, device=device)], 0.5)
        assert torch.equal(weights, expected)

    def test_view_bumps_its_base(self, device: torch.device) -> None:
        base = torch.randn(4, 4, device=device)
        version = base._version
        clip_weights_(base[1:], 0.1)
        assert base._version > version

    def test_bound_beyond_a_type(self, device: torch.device, dtype: torch.dtype) -> None:
        weights = torch.tensor([1.0, -2.0], dtype=dtype, device=device)
        clip_weights_([weights], 1e300)
        assert weights.tolist() == [1.0, -2.0]

    def test_error_of_an_iterator_is_the_user_s(self) -> None:
        def weights() -> Iterator[Tensor]:
            yield torch.ones(3)
            raise TypeError("from the iterator")

        with pytest.raises(TypeError, match="^from the iterator"):
            clip_weights_(weights())

    def test_more_tensors_than_one_launch_holds(self, device: torch.device) -> None:
        weights = [torch.randn(3, device=device) for _ in range(2_100)]
        weights[5:400:20] = [torch.randn(3, 4, device=device)[:, ::2] for _ in weights[5:400:20]]
        clip_weights_(iter(weights), 0.1)
        assert max(weight.abs().max().item() for weight in weights) <= 0.1 + 1e-7

    def test_bumps_versions(self, device: torch.device) -> None:
        weight = torch.randn(3, device=device, requires_grad=True)
        loss = (weight * weight).sum()
        clip_weights_([weight], 0.1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()

    def test_leaves_autograd_alone(self, device: torch.device) -> None:
        weight = torch.randn(3, device=device, requires_grad=True)
        clip_weights_([weight], 0.1)
        assert weight.is_leaf and weight.requires_grad
        weight.sum().backward()
        assert torch.equal(weight.grad, torch.ones_like(weight))

    def test_empty_tensors_and_scalars(self, device: torch.device) -> None:
        weights = [torch.empty(0, 3, device=device), torch.tensor(5.0, device=device), torch.ones(1, 1, device=device)]
        clip_weights_(weights, 0.5)
        assert [weight.flatten().tolist() for weight in weights] == [[], [0.5], [0.5]]

    def test_single_tensor(self) -> None:
        weight = torch.tensor([3.0, -3.0])
        clip_weights_(weight)
        assert torch.equal(weight, torch.tensor([0.01, -0.01]))

    def test_opcheck(self, device: torch.device) -> None:
        weights = [torch.randn(3, 4, device=device), torch.randn(5, device=device)[::2]]
        torch.library.opcheck(native.clip_weights_.default, (weights, 0.1))

    @pytest.mark.parametrize(
        ("error", "message", "arguments"),
        [
            (TypeError, "module_or_tensors: expected a Module", (3,)),
            (TypeError, r"module_or_tensors\[1\]: expected a Tensor", ([torch.ones(2), "x"],)),
            (TypeError, r"module_or_tensors\[1\]: expected float16", ([torch.ones(2), torch.ones(2).int()],)),
            (TypeError, r"module_or_tensors\[1\]: expected a dense", ([torch.ones(2), torch.ones(2).to_sparse()],)),
            (ValueError, r"module_or_tensors\[1\]: several", ([torch.ones(2), torch.ones(1).expand(2)],)),
            (ValueError, "module_or_tensors: expected at least one", ([],)),
            (ValueError, "module_or_tensors: expected at least one", (nn.ReLU(),)),
            (ValueError, "module_or_tensors: some tensors are on meta", ([torch.ones(2), torch.ones(2).to("meta")],)),
            (ValueError, "bound: expected", (torch.ones(2), -0.1)),
            (ValueError, "bound: expected", (torch.ones(2), float("nan"))),
            (TypeError, "bound: expected", (torch.ones(2), None)),
        ],
    )
    def test_errors_name_the_argument(self, error: type, message: str, arguments: tuple) -> None:
        with pytest.raises(error, match=f"^{message}"):
            clip_weights_(*arguments)
        if isinstance(arguments[0], list) and arguments[0]:
            assert torch.equal(arguments[0][0], torch.ones(2)), "written before the error"


class TestNonfinite:
    @drawn
    @given(
        tensors=st.lists(st.tuples(shapes(3_000), dtypes, layouts), min_size=1, max_size=8),
        special=st.sampled_from([float("inf"), -float("inf"), float("nan")]),
        seed=seeds,
        data=st.data(),
    )
    def test_matches_reference(
        self,
        device: torch.device,
        tensors: list[tuple[tuple[int, ...], torch.dtype, str]],
        special: float,
        seed: int,
        data: st.DataObject,
    ) -> None:
        values = [batch(shape, dtype, layout, seed + i, device) for i, (shape, dtype, layout) in enumerate(tensors)]
        assert native.nonfinite(values).item() == reference.nonfinite(values).item() == 0
        value = data.draw(st.sampled_from(values))
        if value.numel() > 0:
            flat = data.draw(st.integers(0, value.numel() - 1))
            value[tuple(int(i) for i in torch.unravel_index(torch.tensor(flat), value.shape))] = special
            assert native.nonfinite(values).item() == reference.nonfinite(values).item() == 1

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
    def test_every_sixteen_bit_number(self, device: torch.device, dtype: torch.dtype) -> None:
        every = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(dtype).to(device)
        assert native.nonfinite([every[every.isfinite()]]).item() == 0
        if device.type == "cpu":
            assert all(native.nonfinite([number[None]]).item() == 1 for number in every[~every.isfinite()][::31])

    def test_extremes(self, device: torch.device, dtype: torch.dtype) -> None:
        info = torch.finfo(dtype)
        smallest = torch.tensor([info.max, info.min, info.tiny, info.smallest_normal / 2, 0.0, -0.0], dtype=dtype)
        assert native.nonfinite([smallest.to(device)]).item() == 0

    def test_more_tensors_than_one_launch_holds(self, device: torch.device) -> None:
        values = [torch.randn(3, device=device) for _ in range(1_100)]
        assert native.nonfinite(values).item() == 0
        values[-1][-1] = torch.nan
        assert native.nonfinite(values).item() == 1

    def test_large(self, device: torch.device) -> None:
        """Several threads; nothing is written."""
        value = torch.zeros(2_000_003, device=device)
        value[1_999_999] = torch.inf
        before, version = value.clone(), value._version
        assert native.nonfinite([value]).item() == 1
        assert torch.equal(value, before) and value._version == version

    def test_opcheck(self, device: torch.device) -> None:
        gradients = [torch.randn(3, 4, device=device), torch.randn(5, dtype=torch.float64, device=device)[::2]]
        torch.library.opcheck(native.nonfinite.default, (gradients,))

    def test_error_names_the_argument(self) -> None:
        with pytest.raises(TypeError, match=r"^tensors\[1\]: expected float16"):
            native.nonfinite([torch.ones(2), torch.ones(2).int()])


def test_reference_types() -> None:
    """The reference returns the dtypes of the operators."""
    for dtype in FLOATING:
        gradient = torch.randn(3, 4).to(dtype)
        compiled = native.gradient_norm_penalty(gradient, 10.0, 1.0, 2.0, False)
        plain = reference.gradient_norm_penalty(gradient, 10.0, 1.0, 2.0, False)
        assert [value.dtype for value in compiled] == [value.dtype for value in plain]
        t = torch.rand(3, dtype=compiled[0].dtype)
        assert reference.interpolate(gradient, gradient, t).dtype == native.interpolate(gradient, gradient, t).dtype
