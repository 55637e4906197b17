"""The operator under the optimizer RMSprop against its reference, in float64 and on drawn lists; its errors."""

from math import inf
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from conftest import assert_close
from sample_inputs import batch, dtypes, layouts, seeds, shapes
from wgan_fast import reference

native = torch.ops.wgan_fast.rmsprop_
drawn = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)


def arguments_of(dtype: torch.dtype = torch.float32, **changed: Any) -> dict[str, Any]:
    """Arguments of the operator."""
    return {
        "params": [torch.ones(2, 3, dtype=dtype), torch.ones(4)],
        "grads": [torch.ones(2, 3, dtype=dtype), torch.ones(4)],
        "square_averages": [torch.ones(2, 3, dtype=dtype), torch.ones(4)],
        "lr": torch.tensor(0.1),
        "alpha": 0.9,
        "eps": 1e-8,
        "weight_decay": 0.0,
        "maximize": False,
        "clip": 0.5,
        "grad_scale": None,
        "found_inf": None,
    } | changed


@drawn
@given(
    tensors=st.lists(st.tuples(shapes(3_000), dtypes, layouts, layouts, layouts), max_size=8),
    weight_decay=st.sampled_from([0.0, 0.1]),
    maximize=st.booleans(),
    clip=st.sampled_from([inf, 0.5, 0.0]),
    scaled=st.booleans(),
    seed=seeds,
)
def test_matches_reference(
    poisoned_memory: None,
    device: torch.device,
    tensors: list[tuple[tuple[int, ...], torch.dtype, str, str, str]],
    weight_decay: float,
    maximize: bool,
    clip: float,
    scaled: bool,
    seed: int,
) -> None:
    def draw(position: int, offset: int) -> list[Tensor]:
        drawn_tensors = []
        for i, (shape, dtype, *three) in enumerate(tensors):
            layout = three[position]
            if position != 1 and layout == "expanded":  # only gradients may share their memory
                layout = "contiguous"
            drawn_tensors.append(batch(shape, dtype, layout, seed + offset + i, device))
        return drawn_tensors

    weights, gradients, square_averages = draw(0, 0), draw(1, 100), draw(2, 200)
    for square_average in square_averages:
        square_average.square_()
    exact = [[tensor.double() for tensor in list_] for list_ in (weights, gradients, square_averages)]
    changed = [*weights, *square_averages]
    memory = [tensor.new_empty(0).set_(tensor.untyped_storage()) for tensor in changed]
    before = [place.clone() for place in memory]
    scale = torch.tensor(3.0, device=device) if scaled else None
    rest = (torch.tensor(0.1), 0.9, 1e-3, weight_decay, maximize, clip, scale, None)
    native(weights, gradients, square_averages, *rest)
    reference.rmsprop_(*exact, *rest)
    for tensor, wanted in zip(changed, exact[0] + exact[2], strict=True):
        assert_close(tensor, wanted, tensor.dtype)
    for tensor, place, was in zip(changed, memory, before, strict=True):
        untouched = torch.ones_like(was, dtype=torch.bool)
        untouched.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset()).fill_(False)
        assert torch.equal(place[untouched].nan_to_num(), was[untouched].nan_to_num()), "written between elements"


def test_reference_has_the_same_numbers(device: torch.device, dtype: torch.dtype) -> None:
    ours, plain = ([torch.linspace(-2, 2, 999).to(device, dtype) for _ in range(3)] for _ in range(2))
    for compute, (weight, gradient, square_average) in ((native, ours), (reference.rmsprop_, plain)):
        square_average.square_()
        rest = (torch.tensor(0.1), 0.9, 1e-8, 0.1, True, 0.3, None, None)
        compute([weight], [gradient], [square_average], *rest)
    for a, b in zip(ours, plain, strict=True):
        assert_close(a, b.double(), dtype)


def test_special_values(device: torch.device, dtype: torch.dtype) -> None:
    """NaN stays, infinite weights are clipped, weight decay of 0 makes no NaN of them."""
    weights = torch.tensor([torch.nan, inf, -inf, 1.0, 1.0, 0.0], dtype=dtype, device=device)
    gradients = torch.tensor([1.0, 1.0, 1.0, torch.nan, 0.0, 0.0], dtype=dtype, device=device)
    averages = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0, 0.0], dtype=dtype, device=device)
    native([weights], [gradients], [averages], torch.tensor(0.1), 0.75, 1e-3, 0.0, False, 0.5, None, None)
    assert weights.isnan().tolist() == [True, False, False, True, False, False]
    assert weights.nan_to_num().tolist() == [0.0, 0.5, -0.5, 0.0, 0.5, 0.0]
    assert averages.isnan().tolist() == [False, False, False, True, False, False]
    assert averages.nan_to_num().tolist() == [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("found_inf", [0.0, 1.0, 2.0])
def test_found_inf(device: torch.device, dtype: torch.dtype, found_inf: float) -> None:
    lists = [[torch.full((5, 4), 2.0, dtype=dtype, device=device).t()] for _ in range(3)]
    lists[1][0] = lists[1][0].contiguous()  # through a copy
    expected = [[tensor.clone() for tensor in tensors] for tensors in lists]
    verdict = torch.tensor([found_inf], device=device)
    rest = (torch.tensor(0.1), 0.9, 1e-8, 0.0, False, 0.5, None, verdict)
    native(*lists, *rest)
    reference.rmsprop_(*expected, *rest)
    assert_close(lists[0][0], expected[0][0].double(), dtype)
    assert_close(lists[2][0], expected[2][0].double(), dtype)
    assert (lists[0][0][0, 0].item() == 2.0) == (found_inf != 0)


def test_long_list(device: torch.device) -> None:
    """More tensors than one launch holds."""
    weights = [torch.full((3,), float(i), device=device) for i in range(1_600)]
    ones = [[torch.ones(3, device=device) for _ in weights] for _ in range(2)]
    native(weights, *ones, torch.tensor(0.5), 1.0, 0.0, 0.0, False, inf, None, None)
    assert all(torch.equal(weight, torch.full_like(weight, i - 0.5)) for i, weight in enumerate(weights))


def test_bumps_versions(device: torch.device) -> None:
    weight, average = torch.randn(3, device=device, requires_grad=True), torch.ones(3, device=device)
    loss, version = (weight * weight).sum(), average._version
    native([weight], [torch.ones(3, device=device)], [average], torch.tensor(0.1), 0.9, 1e-8, 0, False, 1, None, None)
    assert average._version > version and weight.is_leaf and weight.requires_grad
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_opcheck(device: torch.device) -> None:
    lists = [[torch.rand(3, 4, device=device), torch.rand(9, device=device)[::2]] for _ in range(3)]
    scale, found_inf = torch.tensor(2.0, device=device), torch.tensor(0.0, device=device)
    for tensors in ((None, None), (scale, found_inf)):
        torch.library.opcheck(native.default, (*lists, torch.tensor(0.1), 0.9, 1e-8, 0.1, True, 0.5, *tensors))


@pytest.mark.parametrize("device_type", ["cpu", "meta"])
def test_nothing_to_do(device_type: str) -> None:
    empty = [torch.empty(0, 3, device=device_type)]
    for tensors in ([], empty):
        native(**arguments_of(params=tensors, grads=tensors, square_averages=tensors))


@pytest.mark.parametrize(
    ("error", "message", "change"),
    [
        (ValueError, "grads: expected 2 tensors", {"grads": [torch.ones(2, 3)]}),
        (ValueError, "square_averages: expected 2 tensors", {"square_averages": []}),
        (ValueError, r"grads\[1\] has shape \[3\]", {"grads": [torch.ones(2, 3), torch.ones(3)]}),
        (TypeError, r"grads\[1\] is Double", {"grads": [torch.ones(2, 3), torch.ones(4).double()]}),
        (TypeError, r"square_averages\[1\] is Half", {"square_averages": [torch.ones(2, 3), torch.ones(4).half()]}),
        (ValueError, r"params\[1\]: several", {"params": [torch.ones(2, 3), torch.ones(1).expand(4)]}),
        (
            ValueError,
            r"square_averages\[1\]: several",
            {"square_averages": [torch.ones(2, 3), torch.ones(1).expand(4)]},
        ),
        (TypeError, r"params\[1\]: expected float16", {"params": [torch.ones(2, 3), torch.ones(4).int()]}),
        (ValueError, "params: some tensors are on meta", {"params": [torch.ones(2, 3), torch.ones(4).to("meta")]}),
        (ValueError, "lr: it is on meta", {"lr": torch.tensor(0.1, device="meta")}),
        (ValueError, "grad_scale: it is on meta", {"grad_scale": torch.tensor(1.0, device="meta")}),
        (ValueError, "lr: expected one number", {"lr": torch.ones(2)}),
        (TypeError, "lr: expected a floating-point", {"lr": torch.tensor(1)}),
        (ValueError, "grad_scale: expected one number", {"grad_scale": torch.ones(2)}),
        (ValueError, "found_inf: expected one number", {"found_inf": torch.ones(0)}),
        (ValueError, "clip: expected a number >= 0", {"clip": float("nan")}),
    ],
)
def test_errors_name_the_argument(error: type, message: str, change: dict[str, Any]) -> None:
    arguments = arguments_of(**change)
    with pytest.raises(error, match=f"^{message}"):
        native(**arguments)
    assert torch.equal(arguments["params"][0], torch.ones(2, 3)), "written before the error"
