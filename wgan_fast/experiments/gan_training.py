"""Four algorithms that train the same two networks, for comparison in experiments.

The minimax GAN and the non-saturating GAN train a discriminator D = sigmoid(critic), and differ in the generator's
loss: mean log(1 - D(x~)), or -mean log D(x~). WGAN trains a critic with clipped weights, WGAN-GP one with the gradient
penalty. Source: Goodfellow et al., "Generative Adversarial Nets", 2014, algorithm 1 and section 3; Arjovsky, Chintala
and Bottou, "Wasserstein GAN", 2017, algorithm 1; Gulrajani et al., "Improved Training of Wasserstein GANs", 2017,
algorithm 1.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam, Optimizer
from torch.optim.lr_scheduler import LinearLR

from wgan_fast import (
    CriticStep,
    GeneratorStep,
    critic_loss,
    discriminator_loss,
    generator_loss,
    gradient_penalty,
    minimax_generator_loss,
    non_saturating_generator_loss,
    optim,
)
from wgan_fast.train.data import Distribution
from wgan_fast.train.networks import MLPCritic, MLPGenerator

LATENT_DIMENSION, WIDTH, DEPTH, BATCH = 2, 64, 3, 128


class Algorithm(NamedTuple):
    """The losses of critic and generator, and the constraint on the critic's slope."""

    critic_loss: Callable[[Tensor, Tensor], Tensor] = critic_loss
    generator_loss: Callable[[Tensor], Tensor] = generator_loss
    penalty: Callable[..., Tensor] | None = None
    clip: float | None = None  #: clipping bound; if given, both networks use RMSprop, otherwise Adam
    slower: float = 1.0  #: divides the generator's learning rate, since a clipped critic follows more slowly


ALGORITHMS = {
    "minimax GAN": Algorithm(discriminator_loss, minimax_generator_loss),
    "non-saturating GAN": Algorithm(discriminator_loss, non_saturating_generator_loss),
    "WGAN, clipping": Algorithm(clip=0.05, slower=4.0),
    "WGAN-GP": Algorithm(penalty=partial(gradient_penalty, weight=0.1)),
}


class SideBySide(nn.Module):
    """Several independent MLPs of one shape, evaluated together; for small MLPs this costs little more than one.

    Row i of a batch goes to network i modulo the number of networks.
    """

    def __init__(self, networks: Sequence[MLPGenerator | MLPCritic]) -> None:
        super().__init__()
        self.count = len(networks)
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for layers in zip(*(network.layers for network in networks), strict=True):
            if isinstance(layers[0], nn.Linear):
                self.weights.append(torch.stack([layer.weight.detach().T for layer in layers]))
                self.biases.append(torch.stack([layer.bias.detach()[None] for layer in layers]))

    def forward(self, batch: Tensor) -> Tensor:
        """From (B, inputs) to (B, outputs); B is a multiple of the number of networks."""
        values = batch.unflatten(0, (-1, self.count)).transpose(0, 1)
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            values = torch.baddbmm(bias, F.relu(values) if i else values, weight)
        return values.transpose(0, 1).flatten(0, 1)


class Pairs:
    """A generator and a critic for each distribution: MLPs with ReLU and without normalisation."""

    def __init__(self, data: Sequence[Distribution]) -> None:
        self.data = data
        self.generators = SideBySide([MLPGenerator(LATENT_DIMENSION, one.dimension, WIDTH, DEPTH) for one in data])
        self.critics = SideBySide([MLPCritic(one.dimension, WIDTH, DEPTH) for one in data])

    def real(self, count: int = BATCH) -> Tensor:
        """``count`` samples of each distribution, in turn."""
        return torch.stack([one.sample(count, torch.default_generator) for one in self.data], 1).flatten(0, 1)

    def latent(self, count: int = BATCH) -> Tensor:
        """``count`` latent vectors for each generator, in turn."""
        return torch.randn(count * len(self.data), LATENT_DIMENSION)

    def fake(self, count: int = BATCH) -> Tensor:
        """``count`` samples of each generator, in turn."""
        fake: Tensor = self.generators(self.latent(count))
        return fake


def train(
    algorithm: Algorithm,
    data: Sequence[Distribution],
    steps: int,
    *,
    critic_updates: int,
    first_critic_updates: int,
    critic_rate: float,
    generator_rate: float,
) -> Iterator[Pairs]:
    """Trains an independent generator and critic for each distribution, all at once.

    Each generator step follows ``critic_updates`` critic steps, the first one ``first_critic_updates`` more.
    Yields the pairs after the critic steps, before each generator step and at the end. Learning rates decay linearly to
    0. All random numbers come from PyTorch's default generator.
    """
    pairs = Pairs(data)
    generator_rate /= algorithm.slower
    critic_optimizer: Optimizer
    generator_optimizer: Optimizer
    if algorithm.clip:
        critic_optimizer = optim.RMSprop(pairs.critics.parameters(), critic_rate, clip=algorithm.clip)
        generator_optimizer = optim.RMSprop(pairs.generators.parameters(), generator_rate)
    else:
        critic_optimizer = Adam(pairs.critics.parameters(), critic_rate, (0.5, 0.9))
        generator_optimizer = Adam(pairs.generators.parameters(), generator_rate, (0.5, 0.9))
    critic_step = CriticStep(pairs.critics, critic_optimizer, penalty=algorithm.penalty, loss=algorithm.critic_loss)
    generator_step = GeneratorStep(pairs.generators, pairs.critics, generator_optimizer, loss=algorithm.generator_loss)
    schedules = [LinearLR(one, 1.0, 0.0, total_iters=steps + 1) for one in (critic_optimizer, generator_optimizer)]
    for step in range(steps + 1):
        for _ in range(critic_updates if step else critic_updates + first_critic_updates):
            critic_step(pairs.real(), pairs.fake)
        yield pairs
        if step < steps:
            generator_step(pairs.latent)
            for schedule in schedules:
                schedule.step()
