"""What ``--algorithm`` names: the losses, the penalty, and the settings of the paper that proposed it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from wgan_fast import (
    critic_loss,
    discriminator_loss,
    dragan_penalty,
    generator_loss,
    gradient_penalty,
    minimax_generator_loss,
    non_saturating_generator_loss,
    r1_penalty,
    r1_r2_penalty,
    relativistic_critic_loss,
    relativistic_generator_loss,
    wgan_div_penalty,
)
from wgan_fast.train.data.table_files import TABLES

Settings = dict[str, Any]


@dataclass(frozen=True)
class Algorithm:
    """A GAN.

    Attributes:
        critic_loss: of the scores of real samples and of generated ones.
        generator_loss: of the scores of generated samples; where the algorithm is ``paired``, also of real ones.
        penalty: a penalty of this library, which a CriticStep calls with the samples it is of; or None.
        target: what the penalty draws the norms of the critic's gradient to; None where it has no such target.
        interpolates: whether the penalty takes ``t``, the places between real and generated samples.
        weight: the name of the penalty's argument that ``penalty_weight`` is.
        paper: the published settings, by the name of the setting.
        quick: what differs from ``paper`` to learn a toy distribution in about a minute on two cores.
    """

    critic_loss: Callable[[Tensor, Tensor], Tensor]
    generator_loss: Callable[..., Tensor]
    penalty: Callable[..., Tensor] | None
    paper: Settings
    quick: Settings
    target: float | None = None
    interpolates: bool = False
    weight: str = "weight"

    @property
    def estimate(self) -> str:
        """What the critic's loss without the penalty estimates."""
        return _ESTIMATES[self.critic_loss]

    @property
    def paired(self) -> bool:
        """Whether the generator's loss compares each generated sample with a real one."""
        return self.generator_loss is relativistic_generator_loss

    def weighted_penalty(self, weight: float, rank: int = 0, world: int = 1) -> Callable[..., Tensor] | None:
        """What a CriticStep takes, in the process ``rank`` of ``world``.

        Each process has rows ``rank::world`` of the batch, and of the random numbers that one process would draw for
        all of it. Only DRAGAN's noise and standard deviation are of a process's own samples.
        """
        if self.penalty is None or weight == 0:
            return None
        if world == 1 or not self.interpolates:
            return partial(self.penalty, **{self.weight: weight})

        def penalty(critic: Any, real: Tensor, fake: Tensor, *labels: Tensor, **options: Any) -> Tensor:
            assert self.penalty is not None
            t = torch.rand(len(real) * world, device=real.device)[rank::world]
            return self.penalty(critic, real, fake, *labels, **{self.weight: weight}, t=t, **options)

        return penalty


#: What the loss of a critic estimates, as the history calls it.
_ESTIMATES: dict[Callable[[Tensor, Tensor], Tensor], str] = {
    critic_loss: "wasserstein",
    discriminator_loss: "jensen_shannon",
    relativistic_critic_loss: "relativistic_divergence",
}


def _adam(learning_rate: float, beta1: float, beta2: float) -> Settings:
    return {"optimizer": "adam", "learning_rate": learning_rate, "beta1": beta1, "beta2": beta2}


#: Radford, Metz and Chintala, "Unsupervised Representation Learning with DCGANs", 2016, section 4.
_DCGAN = {**_adam(2e-4, 0.5, 0.999), "batch_size": 128, "n_critic": 1, "norm": "batch"}
#: Gulrajani et al., "Improved Training of Wasserstein GANs", 2017, algorithm 1.
_WGAN_GP = {**_adam(1e-4, 0.0, 0.9), "batch_size": 64, "n_critic": 5, "penalty_weight": 10.0}
_QUICK = {**_adam(2e-3, 0.0, 0.9), "n_critic": 2, "width": 128, "steps": 4000, "decay": True}
_QUICK_GAN = {**_adam(1e-3, 0.5, 0.9), "n_critic": 1, "width": 128, "steps": 4000, "decay": True}
_QUICK_R3GAN = {**_QUICK_GAN, **_adam(2e-3, 0.0, 0.99)}

_wasserstein = partial(Algorithm, critic_loss, generator_loss)
_non_saturating = partial(Algorithm, discriminator_loss, non_saturating_generator_loss)

ALGORITHMS: dict[str, Algorithm] = {
    "gan": Algorithm(discriminator_loss, minimax_generator_loss, None, _DCGAN, _QUICK_GAN),
    "nsgan": _non_saturating(None, _DCGAN, _QUICK_GAN),
    # Arjovsky, Chintala and Bottou, "Wasserstein GAN", 2017, algorithm 1; the boost is that of their published code.
    "wgan": _wasserstein(
        None,
        {
            "optimizer": "rmsprop",
            "learning_rate": 5e-5,
            "batch_size": 64,
            "n_critic": 5,
            "n_critic_boost": 100,
            "clip": 0.01,
            "norm": "batch",
        },
        {"learning_rate": 1e-3, "clip": 0.1, "n_critic_boost": 0, "width": 128, "steps": 4000, "decay": True},
    ),
    "wgan-gp": _wasserstein(gradient_penalty, _WGAN_GP, _QUICK, target=1.0, interpolates=True),
    # Petzka, Fischer and Lukovnikov, "On the Regularization of Wasserstein GANs", 2018, with the settings of WGAN-GP.
    "wgan-lp": _wasserstein(partial(gradient_penalty, one_sided=True), _WGAN_GP, _QUICK, interpolates=True),
    # Wu et al., "Wasserstein Divergence for GANs", 2018: their published code, but k, the weight, is the paper's 2.
    "wgan-div": _wasserstein(
        wgan_div_penalty,
        {**_adam(2e-4, 0.0, 0.9), "batch_size": 64, "n_critic": 4, "penalty_weight": 2.0},
        _QUICK,
        interpolates=True,
        weight="k",
    ),
    # Kodali et al., "On Convergence and Stability of GANs", 2017: their published code.
    "dragan": _non_saturating(
        dragan_penalty,
        {**_adam(1e-4, 0.5, 0.9), "batch_size": 128, "n_critic": 1, "penalty_weight": 10.0},
        _QUICK_GAN,
        target=1.0,
    ),
    # Mescheder, Geiger and Nowozin, "Which Training Methods for GANs do actually Converge?", 2018: the defaults of
    # their published code.
    "r1": _non_saturating(
        r1_penalty,
        {"optimizer": "rmsprop", "learning_rate": 1e-4, "batch_size": 64, "n_critic": 1, "penalty_weight": 10.0},
        _QUICK_GAN,
    ),
    # Huang et al., "The GAN is dead; long live the GAN! A Modern GAN Baseline", 2024: the FFHQ-64 preset of their
    # published code. Over 20 million images it lets the rate fall to 5e-5 and the weight to 0.2, and beta2 rise from
    # 0.9 to 0.99; here rate and weight are those of its start, beta2 that of its end. Its weights for other data start
    # at 0.05 (CIFAR-10), 0.5 (ImageNet of 32 x 32), 1 (of 64 x 64) and 150 (FFHQ of 256 x 256).
    "r3gan": Algorithm(
        relativistic_critic_loss,
        relativistic_generator_loss,
        r1_r2_penalty,
        {**_adam(2e-4, 0.0, 0.99), "batch_size": 256, "n_critic": 1, "penalty_weight": 2.0, "latent_dimension": 64},
        _QUICK_R3GAN,
    ),
}

_OF_ALL: Settings = {
    "optimizer": "adam",
    "beta1": 0.5,
    "beta2": 0.999,
    "n_critic_boost": 0,
    "clip": None,
    "decay": False,
    "norm": "none",
    "penalty_weight": 0.0,
    "latent_dimension": 128,
    "steps": 100_000,
}
#: The toy experiments of Gulrajani et al., 2017: their published code.
_TOY: Settings = {"batch_size": 256, "latent_dimension": 2, "norm": "none"}
_TOY_ADAM = _adam(1e-4, 0.5, 0.9)
_TOY_PENALTY_WEIGHT = 0.1
#: Their CIFAR-10 ResNet, appendix F.
_RESNET: Settings = {"learning_rate": 2e-4, "decay": True}
#: Two minutes on two cores.
_QUICK_DIGITS: Settings = {
    "steps": 3000,
    "learning_rate": 5e-4,
    "width": 32,
    "latent_dimension": 64,
    "n_critic": 2,
    "decay": True,
}


#: A minute or two for a few thousand rows on one core.
_QUICK_TABLES: Settings = {
    "steps": 4000,
    "batch_size": 250,
    "learning_rate": 5e-4,
    "width": 256,
    "depth": 2,
    "n_critic": 2,
    "decay": True,
}


def preset(algorithm: str, data: str, model: str | None, *, toy: bool, faithful: bool) -> Settings:
    """The settings of an algorithm on some data, by name: published, or quick for built-in data and tables."""
    of = ALGORITHMS[algorithm]
    settings = _OF_ALL | of.paper
    if toy:
        settings |= _TOY
        if settings["optimizer"] == "adam":
            settings |= _TOY_ADAM
        if of.paper is _WGAN_GP:
            settings["penalty_weight"] = _TOY_PENALTY_WEIGHT
        return settings if faithful else settings | of.quick
    if model == "resnet" and of.paper is _WGAN_GP:
        settings |= _RESNET
    if data == "digits" and not faithful:
        settings |= _QUICK_DIGITS
    if (data == "DataFrame" or data.lower().endswith(TABLES)) and not faithful:
        settings |= _QUICK_TABLES
    return settings
