"""Makes the generator and the critic of a run: the networks of ``--model`` or a user's."""

from collections.abc import Callable, Sequence
from functools import partial

from torch import nn

from wgan_fast._checks import ArgumentTypeError, ArgumentValueError
from wgan_fast.train.networks.base import Models, latents
from wgan_fast.train.networks.custom import check_models, load_factory
from wgan_fast.train.networks.dcgan import DCGANCritic, DCGANGenerator
from wgan_fast.train.networks.mlp import MLPCritic, MLPGenerator
from wgan_fast.train.networks.resnet import ResNetCritic, ResNetGenerator

__all__ = ["MODELS", "MLPCritic", "MLPGenerator", "Models", "check_models", "latents", "load_factory", "make_models"]

#: ``--model``: (class of the generator, class of the critic).
MODELS: dict[str, tuple[Callable[..., nn.Module], Callable[..., nn.Module]]] = {
    "mlp": (MLPGenerator, MLPCritic),
    "dcgan": (DCGANGenerator, DCGANCritic),
    "resnet": (ResNetGenerator, ResNetCritic),
}


def make_models(
    name: str,
    shape: tuple[int, ...],
    *,
    latent_dimension: int,
    width: int | None = None,
    depth: int | None = None,
    classes: int = 0,
    blocks: Sequence[int] = (),
    norm: str = "none",
    generator: Callable[..., nn.Module] | None = None,
    critic: Callable[..., nn.Module] | None = None,
) -> Models:
    """A generator and a critic, freshly initialised.

    Args:
        name: a key of :data:`MODELS`.
        shape: shape of a sample, (D,) or (channels, height, width).
        latent_dimension: coordinates of a latent vector.
        width: units of each hidden layer (mlp) or channels; None means 512 for mlp, 64 for dcgan, 128 for resnet.
        depth: hidden layers of mlp; None means 3. The depth of dcgan and resnet follows from the size of the images.
        classes: number of classes; 0 makes networks that take no labels.
        blocks: of a table, which coordinates belong together, for the generator of mlp; see :class:`.mlp.Shares`.
        norm: normalisation of the named critic, ``batch`` or ``none``. With a gradient penalty it must be ``none``.
        generator: makes the generator in place of the named class, called as
            ``generator(shape=..., latent_dimension=..., classes=...)``; see :func:`load_factory`.
        critic: makes the critic in place of the named class, called as ``critic(shape=..., classes=...)``.

    Raises:
        TypeError: ``generator`` or ``critic`` does not return a Module.
        ValueError: ``name`` or ``norm`` is unknown, the model cannot make samples of this shape, ``depth`` is given for
            a model other than mlp, or a network has no parameters to train.
    """
    if name not in MODELS:
        raise ArgumentValueError("model", f"expected one of {', '.join(MODELS)}, got {name!r}")
    if norm not in ("batch", "none"):
        raise ArgumentValueError("norm", f"expected batch or none, got {norm!r}")
    if depth is not None and name != "mlp":
        raise ArgumentValueError(
            "depth", f"expected none for {name}, whose depth follows from the size of the images, got {depth}"
        )
    sizes = {argument: value for argument, value in (("width", width), ("depth", depth)) if value is not None}
    named_generator, named_critic = MODELS[name]
    of_tables = {"blocks": blocks} if blocks and name == "mlp" else {}
    make_generator = generator or partial(named_generator, **sizes, **of_tables)
    make_critic = critic or partial(named_critic, batch_norm=norm == "batch", **sizes)
    models = Models(
        make_generator(shape=shape, latent_dimension=latent_dimension, classes=classes),
        make_critic(shape=shape, classes=classes),
    )
    for role, network in models._asdict().items():
        if not isinstance(network, nn.Module):
            raise ArgumentTypeError(
                role, f"expected a function that returns a torch.nn.Module, got {type(network).__name__}"
            )
        if not any(parameter.requires_grad for parameter in network.parameters()):
            raise ArgumentValueError(role, "expected a network with parameters to train, got none")
    return models
