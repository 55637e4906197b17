"""Wasserstein GAN training, right and fast."""

from wgan_fast import distances, optim
from wgan_fast.losses import (
    CriticLoss,
    CriticOutput,
    critic_loss,
    discriminator_loss,
    generator_loss,
    minimax_generator_loss,
    non_saturating_generator_loss,
)
from wgan_fast.ops import clip_weights_, interpolate
from wgan_fast.penalties import dragan_penalty, gradient_penalty, r1_penalty, r2_penalty, wgan_div_penalty
from wgan_fast.step import CriticStep, GeneratorStep

__all__ = [
    "CriticLoss",
    "CriticOutput",
    "CriticStep",
    "GeneratorStep",
    "clip_weights_",
    "critic_loss",
    "discriminator_loss",
    "distances",
    "dragan_penalty",
    "generator_loss",
    "gradient_penalty",
    "interpolate",
    "minimax_generator_loss",
    "non_saturating_generator_loss",
    "optim",
    "r1_penalty",
    "r2_penalty",
    "wgan_div_penalty",
]
__version__ = "0.1.0"
