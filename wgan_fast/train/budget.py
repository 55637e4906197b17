"""How many steps a time budget has room for, measured before a run begins."""

import time
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from wgan_fast.train.algorithms import ALGORITHMS
from wgan_fast.train.build import Seeds, make_networks
from wgan_fast.train.config import TrainConfig, seconds_of
from wgan_fast.train.data.sources import Data
from wgan_fast.train.launch import cpu_threads
from wgan_fast.train.run.randomness import own_random_states
from wgan_fast.train.steps import Steps

#: The share of the budget for steps. The rest is for evaluations, pictures, checkpoints, and a machine that slows down.
SHARE = 0.9
#: Rounds before the timed ones: the first calls of a step probe the critic, and on a GPU they capture a graph.
_UNTIMED = {"cpu": 1, "cuda": 12}
#: Timed seconds, at least.
_TIMED = 2.0


def steps_within(
    config: TrainConfig, data: Data, networks: dict[str, Any], seeds: Seeds, fabric: Fabric, threads: int
) -> int:
    """The number of generator steps, from 1 to ``config.steps``, that end within ``config.budget``.

    Networks that are thrown away are trained for some seconds, so that the run is the one of as many steps given. All
    processes return the number of the first one.
    """
    assert config.budget is not None
    models = make_networks(networks, seeds.weights, fabric)
    steps = Steps(config, models, fabric)
    with torch.enable_grad(), cpu_threads(threads), own_random_states(seeds.training, fabric.device):
        critic, generator = _seconds(config, data, models.generator, steps, networks["classes"], fabric)
    left, count = SHARE * seconds_of(config.budget), 0
    while count < config.steps:
        left -= steps.critic_updates(count) * critic + generator
        if left < 0:
            break
        count += 1
    found: int = fabric.broadcast(max(1, count))
    return found


def _seconds(
    config: TrainConfig, data: Data, generator: nn.Module, steps: Steps, classes: int, fabric: Fabric
) -> tuple[float, float]:
    """The mean seconds of an update of the critic, with reading its batch, and of one of the generator."""
    rank, world, device = fabric.global_rank, fabric.world_size, fabric.device
    local = config.batch_size // world
    # As in the run: a captured graph reads the labels at one address.
    labels = (torch.zeros(local, dtype=torch.int64, device=device),) if classes else ()

    def latents() -> Tensor:
        return torch.randn(local, config.latent_dimension, device=device)

    def fakes() -> Tensor:
        samples: Tensor = generator(latents(), *labels)
        return samples

    def update(number: int) -> tuple[float, float, float]:
        started = _now(device)
        batch = data.batch(number, config.batch_size, config.seed, slice(rank, None, world))
        for held in labels:
            assert batch.labels is not None
            held.copy_(batch.labels)
        real = batch.samples.to(device)
        with fabric.autocast():
            steps.critic_step(number)(real, fakes, *labels)
            updated = _now(device)
            compared = {"real": real} if ALGORITHMS[config.algorithm].paired else {}
            steps.generator_step(latents, *labels, **compared)
        return started, updated, _now(device)

    number = 0
    for number in range(_UNTIMED[device.type]):
        update(number)
    times: list[tuple[float, float, float]] = []
    # The first process decides for all, which wait for one another in each update.
    while fabric.broadcast(len(times) < 2 or sum(end - start for start, _, end in times) < _TIMED):
        times.append(update(number := number + 1))
    critic = sum(updated - started for started, updated, _ in times)
    return critic / len(times), sum(ended - updated for _, updated, ended in times) / len(times)


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
