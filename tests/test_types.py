"""What type checkers see; `make lint` has mypy and pyright check typed_client.py in strict mode."""

import re
from pathlib import Path
from typing import get_args

import wgan_fast
from wgan_fast import train
from wgan_fast.train import config
from wgan_fast.train.algorithms import ALGORITHMS
from wgan_fast.train.networks.named import MODELS


def test_the_client_uses_every_public_name() -> None:
    words = set(re.findall(r"\w+", Path(__file__).with_name("typed_client.py").read_text()))
    assert {*wgan_fast.__all__, *train.__all__} <= words


def test_the_types_have_every_choice() -> None:
    assert get_args(config.AlgorithmName) == tuple(ALGORITHMS)
    assert get_args(config.ModelName) == tuple(MODELS)
    assert get_args(config.PrecisionName) == tuple(config.PRECISIONS)
