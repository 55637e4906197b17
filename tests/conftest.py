"""Fixtures that every test shares: the devices, the types, and memory that is never what a kernel forgot to write."""

from collections.abc import Iterator

import pytest
import torch

FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
TOLERANCE = {torch.float16: 2e-3, torch.bfloat16: 2e-2, torch.float32: 2e-5, torch.float64: 1e-12}

torch.backends.cudnn.allow_tf32 = False  # float32 tolerances are those of float32; TF32 keeps 10 bits

_CUDA = pytest.param(
    "cuda",
    marks=[pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")],
)


@pytest.fixture(params=["cpu", _CUDA], scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


@pytest.fixture(params=FLOATING, ids=str, scope="session")
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def poisoned_memory() -> Iterator[None]:
    """New tensors hold NaN until somebody writes them."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


def assert_close(actual: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> None:
    """Within the rounding of `dtype`, and infinite where its range ends; `expected` is of float64."""
    torch.testing.assert_close(
        actual.double().cpu(),
        expected.to(dtype).double().cpu(),
        rtol=TOLERANCE[dtype],
        atol=TOLERANCE[dtype],
        equal_nan=True,
    )
