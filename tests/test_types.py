"""What type checkers see; `make lint` has mypy and pyright check typed_client.py in strict mode."""

import importlib
import re
from pathlib import Path
from typing import get_args

import wgan_fast
from wgan_fast.train import config
from wgan_fast.train.algorithms import ALGORITHMS
from wgan_fast.train.networks.named import MODELS

TESTS = Path(__file__).parent


def test_the_client_uses_every_public_name() -> None:
    """Of the package, and of each module on the page of the API."""
    words = set(re.findall(r"\w+", (TESTS / "typed_client.py").read_text()))
    page = (TESTS.parent / "docs" / "api.md").read_text()
    documented = [importlib.import_module(name) for name in re.findall(r"automodule:: (.+)", page)]
    assert len(documented) >= 10
    public = {name for module in (wgan_fast, *documented) for name in getattr(module, "__all__", ())}
    public |= {path.rpartition(".")[2] for path in re.findall(r"auto(?:class|data|exception|function):: (.+)", page)}
    assert public - words == set()
    operators = {
        name
        for name, value in vars(wgan_fast.reference).items()
        if getattr(value, "__module__", "") == "wgan_fast.reference"
    }
    assert {name for name in operators if not name.startswith("_")} <= public


def test_the_types_have_every_choice() -> None:
    assert get_args(config.AlgorithmName) == tuple(ALGORITHMS)
    assert get_args(config.ModelName) == tuple(MODELS)
    assert get_args(config.PrecisionName) == tuple(config.PRECISIONS)
