"""Imports the factories of users' networks and checks their outputs."""

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from wgan_fast._checks import ArgumentError, ArgumentValueError
from wgan_fast.train.networks.base import Models, evaluating, latents

_HERE = str(Path(__file__).parents[2])  # the folder of wgan_fast


def load_factory(name: str, argument: str = "generator") -> Callable[..., nn.Module]:
    """Imports the factory function ``module:function``, such as ``my.module:make_generator``.

    Args:
        name: ``module:function``. The current directory is prepended to ``sys.path`` unless it is there already,
            and stays there, as with ``python -m``.
        argument: the argument's name, with which error messages begin.

    Raises:
        ValueError: ``name`` has another form, there is no such module or function, or importing the module or calling
            the function raises an error.
    """
    module_name, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in (*module_name.split("."), attribute)):
        raise ArgumentValueError(argument, f"expected module:function, such as my.module:make_{argument}, got {name!r}")
    directory = os.getcwd()
    if directory not in sys.path and "" not in sys.path:
        sys.path.insert(0, directory)
    importlib.invalidate_caches()
    with naming_own_code(argument):
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                raise
            raise ArgumentValueError(
                argument, f"there is no module {error.name!r}, neither installed nor in {directory}; got {name!r}"
            ) from error
    if not hasattr(module, attribute):
        raise ArgumentValueError(argument, f"{module.__file__} has no {attribute!r}; got {name!r}")
    factory: Any = getattr(module, attribute)
    if not callable(factory) or isinstance(factory, nn.Module):
        raise ArgumentValueError(
            argument,
            f"expected a function that returns a torch.nn.Module, got {name!r}, "
            f"which is of type {type(factory).__name__}",
        )

    @wraps(factory)
    def make(**arguments: Any) -> Any:
        with naming_own_code(argument):
            return factory(**arguments)

    return make


@contextmanager
def naming_own_code(argument: str) -> Iterator[None]:
    """Turns an error of a user's code into a ValueError that begins with ``argument`` and names the line."""
    try:
        yield
    except (Exception, SystemExit) as error:
        if isinstance(error, ArgumentError) and error.argument == argument:
            raise
        reason = (str(error).strip() or "no message").split("\n", 1)[0]
        raise ArgumentValueError(argument, f"{type(error).__name__}: {reason}{line_of(error)}") from error


def line_of(error: BaseException) -> str:
    """The last traceback frame in the user's code, outside of PyTorch, importlib and this library."""
    libraries = ("<frozen", *(str(Path(module.__file__ or "").parent) for module in (torch, importlib)), _HERE)
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(libraries)]
    return f" ({own[-1].filename}, line {own[-1].lineno})" if own and not isinstance(error, SyntaxError) else ""


def check_models(models: Models, shape: tuple[int, ...], latent_dimension: int, classes: int) -> None:
    """Runs both networks in evaluation mode on batches of 2 and 4 samples, and checks what they return.

    The networks, their buffers and the state of the random generators do not change.

    Args:
        models: the generator and the critic, on one device.
        shape: shape of a sample.
        latent_dimension: coordinates of a latent vector.
        classes: number of classes; with 0 the networks are called without labels.

    Raises:
        ValueError: the generator does not return finite float32 samples (B, \\*shape), or the critic not one finite
            score for each sample, of shape (B,) or (B, 1), or a network raises an error; autograd cannot reach a
            network's weights from what it returns, or the samples from the scores.
    """
    parameter = next(models.generator.parameters(), None)
    device = torch.device("cpu") if parameter is None else parameter.device
    random = torch.Generator(device).manual_seed(0)
    with torch.no_grad(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for count in (2, 4):  # the second batch finds a network with a fixed batch size
            labels = (torch.arange(count, device=device) % classes,) if classes else ()
            with naming_own_code("generator"):
                samples = _evaluate(models.generator, latents(count, latent_dimension, random), *labels)
            wanted = f"finite float32 samples {(count, *shape)} from latent vectors {(count, latent_dimension)}"
            _check("generator", samples, wanted, [(count, *shape)], torch.float32)
            # Not the generator's samples, so that an unusual generator does not fail the critic's check.
            images = torch.rand(count, *shape, generator=random, device=device) * 2 - 1
            with naming_own_code("critic"):
                scores = _evaluate(models.critic, images, *labels)
            wanted = f"one finite score for each sample, of shape {(count,)} or {(count, 1)}, from {(count, *shape)}"
            _check("critic", scores, wanted, [(count,), (count, 1)])
    with torch.enable_grad(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        with naming_own_code("generator"):
            leaves = _leaves(_evaluate(models.generator, latents(count, latent_dimension, random), *labels))
        _check_reached("generator", "its weights", leaves, models.generator.parameters())
        images.requires_grad_()
        with naming_own_code("critic"):
            leaves = _leaves(_evaluate(models.critic, images, *labels))
        _check_reached("critic", "the samples", leaves, [images])
        _check_reached("critic", "its weights", leaves, models.critic.parameters())


def _leaves(output: Tensor) -> set[int]:
    """The ids of the tensors that a backward pass from the output would give a gradient."""
    waiting, seen, leaves = [output.grad_fn], set(), set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [function for function, _ in node.next_functions]
            leaves.add(id(getattr(node, "variable", None)))
    return leaves


def _check_reached(role: str, what: str, leaves: set[int], wanted: Iterable[Tensor]) -> None:
    reachable = {*map(id, wanted)}
    if reachable and leaves.isdisjoint(reachable):
        raise ArgumentValueError(
            role, f"{what} get no gradient from what it returns; is there a detach() or a torch.no_grad()?"
        )


def _evaluate(network: nn.Module, *args: Tensor) -> Any:
    """The output in evaluation mode; the network's buffers and ``training`` flags stay as they were."""
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    with evaluating(network):
        return functional_call(network, buffers, args)


def _check(
    role: str, output: Any, wanted: str, shapes: list[tuple[int, ...]], dtype: torch.dtype | None = None
) -> None:
    if not isinstance(output, Tensor):
        raise ArgumentValueError(role, f"expected {wanted}, got {type(output).__name__}")
    if tuple(output.shape) not in shapes:
        raise ArgumentValueError(role, f"expected {wanted}, got shape {tuple(output.shape)}")
    if output.dtype != (dtype or output.dtype):
        raise ArgumentValueError(role, f"expected {wanted}, got {output.dtype}")
    if not output.isfinite().all():
        raise ArgumentValueError(role, f"expected {wanted}, got NaN or infinity")
