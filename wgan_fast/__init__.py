"""Wasserstein GAN training, right and fast."""

from wgan_fast.losses import critic_loss, generator_loss
from wgan_fast.ops import clip_weights_, interpolate
from wgan_fast.penalties import gradient_penalty

__all__ = ["clip_weights_", "critic_loss", "generator_loss", "gradient_penalty", "interpolate"]
__version__ = "0.1.0"
