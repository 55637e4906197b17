"""Fixtures that every test shares: the devices, the types, and memory that is never what a kernel forgot to write."""

import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
TOLERANCE = {torch.float16: 2e-3, torch.bfloat16: 2e-2, torch.float32: 2e-5, torch.float64: 1e-12}

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
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


@pytest.fixture
def classes_folder(tmp_path: Path) -> Path:
    """Two classes, of 7 and 5 images."""
    from training import write_image  # needs the extra wgan_fast[train]

    for name, count in {"cats": 7, "ants": 5}.items():
        for number in range(count):
            write_image(tmp_path / "animals" / name / f"{number}.png")
    (tmp_path / "animals" / ".hidden").write_text("not an image")
    return tmp_path / "animals"


@pytest.fixture
def table_file(tmp_path: Path) -> Path:
    """With a byte order mark, an empty line, a comma in a name and a number in quotes."""
    path = tmp_path / "table.csv"
    path.write_text('\ufeffa,"b, c"\n1,10\n\n2,20\n4,"5"\n')
    return path


@pytest.fixture
def few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """The earth mover's distance of the full number of samples takes a second."""
    monkeypatch.setattr("wgan_fast.train.view.evaluation.SAMPLES", 50)


@pytest.fixture
def digits_run(few_samples: None, tmp_path: Path) -> Path:
    """The folder of a run on digits with labels."""
    from training import run

    run(tmp_path / "digits", data="digits", conditional=True, latent_dimension=4, steps=2)
    return tmp_path / "digits"


@pytest.fixture
def table_run(few_samples: None, tmp_path: Path) -> Path:
    """The folder of a run on a table."""
    from training import run

    values = np.random.default_rng(0).normal((40, 1e5, 3), (10, 1e4, 1), (200, 3))
    np.savetxt(tmp_path / "people.csv", values, "%.6g", ",", header="age,income,rooms", comments="")
    run(tmp_path / "table", data=str(tmp_path / "people.csv"))
    return tmp_path / "table"


@pytest.fixture
def mixed_run(few_samples: None, tmp_path: Path) -> Path:
    """The folder of a run on a table of numbers, texts and dates, some of them missing."""
    from training import run

    random = np.random.default_rng(0)
    lines = [
        f"{random.integers(18, 90)},{random.choice(['Bern', 'Zug', ''])},{random.normal():.3f},"
        f"{np.datetime64('2020-01-01') + random.integers(1000)}"
        for _ in range(200)
    ]
    (tmp_path / "mixed.csv").write_text("age,city,gain,day\n" + "\n".join(lines) + "\n")
    run(tmp_path / "mixed", data=str(tmp_path / "mixed.csv"))
    return tmp_path / "mixed"


def assert_close(actual: torch.Tensor, expected: torch.Tensor, dtype: torch.dtype) -> None:
    """Within the rounding of `dtype`, and infinite where its range ends; `expected` is of float64."""
    torch.testing.assert_close(
        actual.double().cpu(),
        expected.to(dtype).double().cpu(),
        rtol=TOLERANCE[dtype],
        atol=TOLERANCE[dtype],
        equal_nan=True,
    )
