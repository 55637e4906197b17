"""PyTorch's modes and contexts."""

import warnings
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from wgan_fast import _torch


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("outside", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_grad_mode(outside: type, enabled: bool) -> None:
    with outside():
        before = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        with _torch.grad_mode(enabled):
            assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == (enabled, False)
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == before


def test_an_inference_tensor_becomes_an_ordinary_one() -> None:
    plain = torch.ones(2)
    with torch.inference_mode():
        inference = torch.ones(2)
        assert _torch.ordinary(plain) is plain
        copy = _torch.ordinary(inference)
    assert not copy.is_inference() and torch.equal(copy, inference)


def test_without_autocast() -> None:
    a = torch.ones(2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        with _torch.without_autocast("cpu"):
            assert (a @ a).dtype == torch.float32
        assert (a @ a).dtype == torch.bfloat16
    with _torch.without_autocast("meta"):  # which has none
        pass


def test_dtypes_may_differ_under_autocast_alone() -> None:
    value, other = torch.ones(2, dtype=torch.bfloat16), torch.ones(2)
    assert _torch.to_same_dtype("fake", other, "real", other) is other
    with pytest.raises(TypeError, match="^fake: expected torch.float32 as of real, got torch.bfloat16$"):
        _torch.to_same_dtype("fake", value, "real", other)
    with torch.autocast("cpu", torch.bfloat16):
        assert _torch.to_same_dtype("fake", value, "real", other).dtype == torch.float32


def test_training_mode_is_that_of_each_part_and_its_dropout() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.25))
    network[0].eval()
    assert _torch.training_mode(network) == ((True, None), (False, None), (True, 0.25))


def test_what_is_compiled() -> None:
    module, changed = nn.Linear(1, 1), nn.Linear(1, 1)
    assert not any(_torch.is_compiled(each) for each in (module, changed, torch.sin, print))
    changed.compile(backend="eager")
    compiled = torch.compile(module, backend="eager"), changed, torch.compile(lambda x: x, backend="eager")
    assert all(_torch.is_compiled(each) for each in compiled)


def test_local_shard() -> None:
    tensor, shard = torch.ones(2), torch.zeros(1)
    assert _torch.local_shard(tensor) is tensor
    assert _torch.local_shard(SimpleNamespace(to_local=lambda: shard)) is shard


def test_numbers_are_drawn_in_the_type_of_sums() -> None:
    for dtype, drawn in ((torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64,) * 2):
        numbers = _torch.draw_uniform(torch.ones(1, dtype=dtype), (3,), torch.Generator().manual_seed(1))
        assert torch.equal(numbers, torch.rand(3, dtype=drawn, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("inner", ["wgan_fast.ops", "torch.nn.modules.module"])
def test_a_warning_is_of_the_users_line(inner: str) -> None:
    frames = {"__name__": inner, "warn_user": _torch.warn_user}
    exec(compile("def library():\n    warn_user('text', RuntimeWarning)", "library.py", "exec"), frames)
    user = {"__name__": "__main__", "library": frames["library"]}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        exec(compile("\n\nlibrary()", "user.py", "exec"), user)
    assert [(each.filename, each.lineno) for each in caught] == [("user.py", 3)]
