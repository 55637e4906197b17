"""The critics of the benchmarks, tiny ones in a rehearsal of the GPU report, and an iteration of training with ours."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import rivals
from costs import CRITICS, resnet
from rehearsal import REHEARSED
from wgan_fast import CriticStep, GeneratorStep
from wgan_fast.bench import Workload, convolutional, mlp

N_CRITIC = 5  # updates of the critic for each of the generator

TINY: dict[str, Workload] = {
    "toy": (lambda: mlp(2, 8, 2), (8, 2)),
    "dcgan-64": (lambda: convolutional((3, 4, 4, 4, 4), 4, 1, 64), (2, 3, 64, 64)),
    "resnet": (lambda: resnet((2, 2, 2, 2, 2), 32), (2, 3, 64, 64)),
}


def workload(name: str) -> Workload:
    """The critic of that name, and the shape of a batch of samples."""
    return TINY[name] if REHEARSED else CRITICS[name]


def our_iteration(
    generator: nn.Module, critic: nn.Module, batches: Sequence[Tensor], latent_shape: tuple[int, ...], **options: Any
) -> Callable[[], None]:
    """A critic step for each batch, with fresh fakes, and one generator step; ``options`` of Adam."""
    device = next(critic.parameters()).device
    critic_step = CriticStep(critic, rivals.adam(critic, **options))
    generator_step = GeneratorStep(generator, critic, rivals.adam(generator, **options))

    def latent() -> Tensor:
        return torch.randn(latent_shape, device=device)

    def iteration() -> None:
        for real in batches:
            critic_step(real, lambda: generator(latent()))
        generator_step(latent)

    return iteration
