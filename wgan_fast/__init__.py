"""Wasserstein GAN training, right and fast."""

import importlib
from types import ModuleType

# Without torch the package imports all the same, so that `wgan-fast doctor` can say what to do; any use raises.
try:
    importlib.import_module("torch")
except (ImportError, OSError) as error:
    _torch_failure: Exception | None = error
else:
    _torch_failure = None
    from wgan_fast import distances, losses, ops, optim, penalties, reference, step
    from wgan_fast._checks import ArgumentError
    from wgan_fast.losses import (
        CriticLoss,
        CriticOutput,
        critic_loss,
        discriminator_loss,
        generator_loss,
        minimax_generator_loss,
        non_saturating_generator_loss,
        relativistic_critic_loss,
        relativistic_generator_loss,
    )
    from wgan_fast.ops import clip_weights_, interpolate
    from wgan_fast.penalties import (
        dragan_penalty,
        finite_difference_penalty,
        gradient_penalty,
        input_gradient,
        r1_penalty,
        r1_r2_penalty,
        r2_penalty,
        wgan_div_penalty,
    )
    from wgan_fast.step import CriticStep, GeneratorStep

__all__ = [
    "ArgumentError",
    "CriticLoss",
    "CriticOutput",
    "CriticStep",
    "GeneratorStep",
    "bench",
    "clip_weights_",
    "critic_loss",
    "discriminator_loss",
    "distances",
    "doctor",
    "dragan_penalty",
    "experiments",
    "finite_difference_penalty",
    "generator_loss",
    "gradient_penalty",
    "input_gradient",
    "interpolate",
    "losses",
    "minimax_generator_loss",
    "non_saturating_generator_loss",
    "ops",
    "optim",
    "penalties",
    "r1_penalty",
    "r1_r2_penalty",
    "r2_penalty",
    "reference",
    "relativistic_critic_loss",
    "relativistic_generator_loss",
    "step",
    "train",
    "wgan_div_penalty",
]
__version__ = "0.1.0"  # also in pyproject.toml


def __getattr__(name: str) -> ModuleType:
    """Imports modules when they are first used: ``bench`` and ``doctor`` also run as commands; ``experiments`` and
    ``train`` are seldom needed, and their own modules need the packages of ``wgan_fast[train]``.
    """
    if name == "doctor" or (name in ("bench", "experiments", "train") and _torch_failure is None):
        return importlib.import_module(f"wgan_fast.{name}")
    if _torch_failure is not None and name in __all__:
        raise ImportError(
            f"wgan_fast.{name} needs PyTorch, which cannot be imported: {_torch_failure}; "
            "`wgan-fast doctor` says what to do"
        ) from _torch_failure
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
