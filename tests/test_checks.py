"""The error of a wrong argument: its name and message apart, for Python and for the command line."""

import math
import pickle
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch

from wgan_fast import ArgumentError, _library, clip_weights_, distances, interpolate, optim
from wgan_fast._checks import (
    ArgumentFileExistsError,
    ArgumentFileNotFoundError,
    ArgumentOSError,
    ArgumentTypeError,
    ArgumentValueError,
    check_number,
)

KINDS = {
    ArgumentTypeError: TypeError,
    ArgumentValueError: ValueError,
    ArgumentOSError: OSError,
    ArgumentFileExistsError: FileExistsError,
    ArgumentFileNotFoundError: FileNotFoundError,
}


@pytest.mark.parametrize("kind", KINDS)
def test_name_and_message(kind: type[ArgumentError]) -> None:
    """Also after a journey to another process. The name is no errno."""
    for error in (kind("size", "expected 1"), pickle.loads(pickle.dumps(kind("size", "expected 1")))):
        assert (error.argument, error.message, str(error)) == ("size", "expected 1", "size: expected 1")
        assert isinstance(error, KINDS[kind]) and isinstance(error, ArgumentError)
        if isinstance(error, OSError):
            assert (error.errno, error.strerror, error.filename) == (None, None, None)


def test_wrong_arguments_raise_it() -> None:
    with pytest.raises(ArgumentError) as caught:
        interpolate(torch.zeros(2, 3), torch.zeros(2, 4))
    assert caught.value.argument == "fake" and isinstance(caught.value, ValueError)
    with pytest.raises(ArgumentError) as caught:
        optim.RMSprop([torch.zeros(1)], lr="fast")
    assert caught.value.argument == "lr" and isinstance(caught.value, TypeError)


_SHARED, _INTEGERS = torch.ones(1).expand(2), torch.ones(2).int()
_HALVES, _THIRDS = torch.full((2,), 0.5), torch.full((2,), 1 / 3)


@pytest.mark.parametrize(
    ("argument", "kind", "call"),
    [
        ("module_or_tensors[1]", TypeError, lambda: clip_weights_([torch.ones(2), "x"])),
        ("module_or_tensors[0]", TypeError, lambda: clip_weights_([torch.ones(2).to_sparse()])),
        ("module_or_tensors[0]", TypeError, lambda: clip_weights_([_INTEGERS])),
        ("module_or_tensors[0]", ValueError, lambda: clip_weights_([_SHARED])),
        ("params[0]", TypeError, lambda: optim.RMSprop([torch.ones(2).to_sparse()])),
        ("params[0]", TypeError, lambda: optim.RMSprop([torch.ones(2, dtype=torch.complex64)])),
        ("params[1]", ValueError, lambda: optim.RMSprop([torch.ones(2), _SHARED])),
        ("q", ValueError, lambda: distances.kl_divergence(_HALVES, _THIRDS)),
        ("p", ValueError, lambda: distances.kl_divergence(_THIRDS, _HALVES, weights=torch.ones(2))),
        ("generator", TypeError, lambda: distances.sliced_wasserstein(*torch.ones(2, 3, 2), generator=0)),
        (
            "y_weights",
            ValueError,
            lambda: distances.transport_plan(torch.ones(2, 2), x_weights=_HALVES, y_weights=_THIRDS),
        ),
    ],
)
@pytest.mark.parametrize("operators", [nullcontext, _library.traceable], ids=["compiled", "reference"])
def test_elements_and_totals_are_named(
    operators: Callable[[], Any], argument: str, kind: type, call: Callable[[], Any]
) -> None:
    with operators(), pytest.raises(ArgumentError) as caught:
        call()
    assert caught.value.argument == argument and isinstance(caught.value, kind)
    assert str(caught.value) == f"{argument}: {caught.value.message}"


@pytest.mark.parametrize(
    ("value", "bounds", "message"),
    [
        (-1, {"minimum": 0.0}, "expected a number >= 0, got -1"),
        (0, {"above": 0.0}, "expected a number > 0, got 0"),
        (1.0, {"minimum": 0.0, "below": 1.0}, "expected a number >= 0 and < 1, got 1.0"),
        (1.0, {"below": 1.0, "wanted": "a share"}, "expected a share, got 1.0"),
        (math.nan, {"minimum": 0.0}, "expected a finite number, got nan"),
        (10**400, {"wanted": "a share"}, f"expected a share, got {10**400}"),
        ("1", {}, "expected a number, got str"),
        (True, {"wanted": "a share"}, "expected a share, got bool"),
    ],
)
def test_numbers(value: Any, bounds: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        check_number("x", value, **bounds)
    assert (caught.value.argument, caught.value.message) == ("x", message)


def test_numbers_at_their_bounds() -> None:
    check_number("x", 0, minimum=0.0)
    check_number("x", 1e-300, above=0.0)
    check_number("x", 1 - 1e-15, minimum=0.0, below=1.0)
