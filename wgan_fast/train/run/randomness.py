"""The global random states of Python, NumPy and PyTorch, saved in checkpoints and restored after a run."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import distributed as dist


def random_states(device: torch.device) -> dict[str, Any]:
    """The current states, as plain types and tensors, which ``torch.load(weights_only=True)`` accepts."""
    _, key, *rest = np.random.get_state(legacy=True)  # noqa: NPY002 (a user's network may draw from it)
    states = {
        "python": random.getstate(),
        "numpy": (torch.from_numpy(np.asarray(key, np.int64)), *rest),
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def all_random_states(fabric: Fabric) -> list[dict[str, Any]]:
    """Those of every process of a run, by rank. A collective."""
    states: list[Any] = [random_states(fabric.device)]
    if fabric.world_size > 1:
        own, states = states[0], [None] * fabric.world_size
        dist.all_gather_object(states, own)
    return states


def set_random_states(states: dict[str, Any], device: torch.device) -> None:
    """Restores the states that :func:`random_states` returned."""
    random.setstate(states["python"])
    key, *rest = states["numpy"]
    np.random.set_state(("MT19937", key.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if device.type == "cuda" and "cuda" in states:  # the states may come from a machine without a GPU
        torch.cuda.set_rng_state(states["cuda"], device)


@contextmanager
def own_random_states(seed: int, device: torch.device) -> Iterator[None]:
    """Seeds all generators for the block and restores their former states at its end."""
    before = random_states(device)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
    try:
        yield
    finally:
        set_random_states(before, device)
