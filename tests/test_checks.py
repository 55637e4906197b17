"""The error of a wrong argument: its name and message apart, for Python and for the command line."""

import pickle

import pytest
import torch

from wgan_fast import ArgumentError, interpolate, optim
from wgan_fast._checks import (
    ArgumentFileExistsError,
    ArgumentFileNotFoundError,
    ArgumentOSError,
    ArgumentTypeError,
    ArgumentValueError,
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
    """Also after a journey to another process."""
    for error in (kind("size", "expected 1"), pickle.loads(pickle.dumps(kind("size", "expected 1")))):
        assert (error.argument, error.message, str(error)) == ("size", "expected 1", "size: expected 1")
        assert isinstance(error, KINDS[kind]) and isinstance(error, ArgumentError)


def test_wrong_arguments_raise_it() -> None:
    with pytest.raises(ArgumentError) as caught:
        interpolate(torch.zeros(2, 3), torch.zeros(2, 4))
    assert caught.value.argument == "fake" and isinstance(caught.value, ValueError)
    with pytest.raises(ArgumentError) as caught:
        optim.RMSprop([torch.zeros(1)], lr="fast")
    assert caught.value.argument == "lr" and isinstance(caught.value, TypeError)
