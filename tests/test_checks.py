"""The error of a wrong argument: its name and message apart, for Python and for the command line."""

import math
import pickle
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
import torch

from wgan_fast import (
    ArgumentError,
    CriticLoss,
    CriticStep,
    GeneratorStep,
    _library,
    clip_weights_,
    distances,
    finite_difference_penalty,
    generator_loss,
    gradient_penalty,
    interpolate,
    optim,
    r1_penalty,
)
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


class _Inside(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + object()


_CRITIC, _GENERATOR = torch.nn.Linear(2, 1), torch.nn.Linear(3, 2)
_ADAM = partial(torch.optim.Adam, _CRITIC.parameters())
_X = torch.ones(4, 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gradient_penalty(_CRITIC, _X, _X, 10.0), "critic: .*too many positional.*named, as in weight=10.0"),
        (lambda: gradient_penalty(_CRITIC, _X, _X, lambda_=10.0), "critic: .*keyword argument 'lambda_'.*weight"),
        (lambda: r1_penalty(_CRITIC, _X, gamma=10.0), "critic: .*keyword argument 'gamma'.*weight"),
        (lambda: finite_difference_penalty(_CRITIC, _X, _X), "critic: .*too many positional"),
        (lambda: gradient_penalty(torch.nn.Linear, _X, _X), "critic: .*the class Linear; make an instance"),
        (lambda: CriticLoss(_CRITIC, loss=torch.nn.BCEWithLogitsLoss()), "loss: .*with a target.*discriminator_loss"),
        (lambda: CriticLoss(_CRITIC, loss=torch.nn.functional.mse_loss), "loss: .*with a target"),
        (lambda: CriticLoss(_CRITIC, loss=generator_loss), "loss: expected loss.real_scores.*got generator_loss"),
        (lambda: CriticStep(_CRITIC, _ADAM())(_X, _GENERATOR), "fake: .*without arguments.*Linear.*lambda"),
        (lambda: GeneratorStep(_GENERATOR, _CRITIC, None, loss=lambda: 0), "loss: expected loss.fake_scores"),
        (lambda: optim.RMSprop(_CRITIC), "params: expected tensors, got Linear; pass its .parameters()"),
    ],
)
def test_usual_mistakes(call: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        call()


def test_errors_inside_the_critic_stay_its_own() -> None:
    with pytest.raises(TypeError, match="unsupported operand") as caught:
        gradient_penalty(_Inside(), _X, _X)
    assert not isinstance(caught.value, ArgumentError)


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
