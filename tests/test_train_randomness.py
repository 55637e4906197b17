"""The random states of a run."""

import random
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("wgan_fast.train.trainer", reason="the extra wgan_fast[train] is not installed")

from wgan_fast.train.run.randomness import own_random_states, random_states, set_random_states

CPU = torch.device("cpu")


def draw() -> tuple[float, ...]:
    """From all generators; an odd count of normal numbers leaves one waiting in those of Python and NumPy."""
    legacy = np.random.normal()  # noqa: NPY002
    return random.gauss(0, 1), random.random(), legacy, torch.randn(1).item()


def test_states_go_through_a_file(tmp_path: Path) -> None:
    with own_random_states(1, CPU):
        draw()
        torch.save(random_states(CPU), tmp_path / "states.pt")
        expected = [draw() for _ in range(3)]
    with own_random_states(2, CPU):
        set_random_states(torch.load(tmp_path / "states.pt", weights_only=True), CPU)
        assert [draw() for _ in range(3)] == expected


def test_a_block_has_the_states_of_its_seed_and_leaves_those_before() -> None:
    def within(seed: int) -> tuple[float, ...]:
        with own_random_states(seed, CPU):
            return draw()

    before = random_states(CPU)
    expected = draw()
    set_random_states(before, CPU)
    first, again, other = within(1), within(1), within(2**40)
    assert first == again and not set(first) & set(other)
    with suppress(KeyError), own_random_states(3, CPU):
        draw()
        raise KeyError
    assert draw() == expected
