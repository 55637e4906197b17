"""A whole iteration of WGAN-GP: five critic steps, each with fresh fakes, and one generator step."""

from copy import deepcopy

import pytest
import torch
from torch import nn

import rivals
from conftest import Comparison
from costs import CRITICS
from workloads import our_iteration

N_CRITIC, LATENT = 5, 128
#: Critic -> a generator of its size.
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
    batches = list(torch.randn(N_CRITIC, *shape, device=device))
    latent_shape = (shape[0], LATENT)
    options = {"fused": True, "capturable": True} if on_gpu else {}
    forms = {"textbook": rivals.textbook_iteration, "joint": rivals.joint_iteration}
    iterations = {
        name: form(deepcopy(generator), deepcopy(critic), batches, latent_shape) for name, form in forms.items()
    }
    compare(our_iteration(generator, critic, batches, latent_shape, **options), **iterations)
