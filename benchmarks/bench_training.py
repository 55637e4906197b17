"""A whole iteration of WGAN-GP: five updates of the critic, each with fresh fakes, and one of the generator."""

from copy import deepcopy

import pytest
import torch
from torch import nn

import rivals
from conftest import Comparison
from wgan_fast import CriticStep, GeneratorStep
from wgan_fast.bench import CRITICS

N_CRITIC, LATENT = 5, 128
#: By critic, a generator of its size.
GENERATORS = {
    "toy": lambda: nn.Sequential(
        nn.Linear(LATENT, 512),
        nn.ReLU(),
        nn.Linear(512, 512),
        nn.ReLU(),
        nn.Linear(512, 2),
    ),
    "mnist": lambda: nn.Sequential(
        nn.Linear(LATENT, 256 * 49),
        nn.ReLU(),
        nn.Unflatten(1, (256, 7, 7)),
        nn.ConvTranspose2d(256, 64, 4, 2, 1),
        nn.ReLU(),
        nn.ConvTranspose2d(64, 1, 4, 2, 1),
        nn.Tanh(),
    ),
}


@pytest.mark.parametrize("name", GENERATORS)
def bench_training(compare: Comparison, name: str) -> None:
    make, shape = CRITICS[name]
    device, on_gpu = compare.device, compare.device.type == "cuda"
    critic, generator = make().to(device), GENERATORS[name]().to(device)
    batches = torch.randn(N_CRITIC, *shape, device=device)
    latent_shape = (shape[0], LATENT)
    options = {"fused": True, "capturable": True} if on_gpu else {}
    adams: dict[str, dict[str, bool]] = {"textbook": {}, "fused": {"fused": True}}
    textbooks = {
        name: rivals.textbook_iteration(deepcopy(generator), deepcopy(critic), list(batches), latent_shape, **chosen)
        for name, chosen in adams.items()
    }
    critic_step = CriticStep(critic, rivals.adam(critic, **options))
    generator_step = GeneratorStep(generator, critic, rivals.adam(generator, **options))

    def latent() -> torch.Tensor:
        return torch.randn(latent_shape, device=device)

    def fake() -> torch.Tensor:
        return generator(latent())

    def ours() -> None:
        for real in batches:
            critic_step(real, fake)
        generator_step(latent)

    compare(ours, **textbooks)
