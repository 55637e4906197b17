"""The gradient of a critic at points, ready to be differentiated again without dead work."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_map_only

from wgan_fast._checks import accumulate_dtype, check_scores, module_of
from wgan_fast._critic.layers import CriticLayers
from wgan_fast._library import extension
from wgan_fast._torch import grad_mode, is_compiled, ordinary, warn_user, without_autocast


def input_gradient(
    critic: Callable[..., Tensor],
    points: Tensor,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    scaler: torch.amp.GradScaler | None,
) -> Tensor:
    """The gradient of the sum of the scores with respect to the points, with a graph where gradients are enabled.

    ``scaler`` scales the backward pass through a critic in float16, whose numbers would otherwise leave its range.
    """
    if torch._C._are_functorch_transforms_active():
        return _input_gradient_in_transform(critic, points, args, kwargs, scaler)
    create_graph = torch.is_grad_enabled()
    if torch.is_inference_mode_enabled():  # its tensors cannot be saved for a derivative
        args, kwargs = tree_map_only(Tensor, ordinary, (args, kwargs))
    with grad_mode(True):
        points.requires_grad_()
        scores, graph = _scores_and_graph(critic, points, args, kwargs)
        gradient = None
        if scores.requires_grad:
            graph.let_go_of_inputs()
            # Autocast is for the forward; the type of each backward operation follows from it.
            with without_autocast(points.device.type):
                (gradient,) = torch.autograd.grad(
                    scores, points, _scaled_ones(scores, scaler), create_graph=create_graph, allow_unused=True
                )
                if gradient is not None:
                    gradient = _unscaled(gradient, scaler)
            if create_graph and gradient is not None:
                gradient = graph.without_dead_work(gradient)
    if gradient is None:
        raise ValueError("critic: its scores do not depend on the samples, so there is no gradient to penalise")
    return gradient


def _input_gradient_in_transform(
    critic: Callable[..., Tensor],
    points: Tensor,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    scaler: torch.amp.GradScaler | None,
) -> Tensor:
    """The same inside a ``torch.func`` transform, which knows no ``requires_grad_``."""
    scores, pull_back = torch.func.vjp(lambda points: _scores(critic, points, args, kwargs), points)[:2]
    with without_autocast(points.device.type):
        return _unscaled(pull_back(_scaled_ones(scores, scaler))[0], scaler)


def _scaled_ones(scores: Tensor, scaler: torch.amp.GradScaler | None) -> Tensor:
    ones = torch.ones_like(scores)
    return ones if scaler is None else scaler.scale(ones)


def _unscaled(gradient: Tensor, scaler: torch.amp.GradScaler | None) -> Tensor:
    if scaler is None:
        return gradient
    gradient = gradient.to(accumulate_dtype(gradient.dtype))
    return gradient / scaler.scale(gradient.new_ones(()))


_compiled_critics: WeakSet[Any] = WeakSet()


def _scores_and_graph(
    critic: Callable[..., Tensor], points: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Tensor, Any]:
    """The critic runs uncompiled, for what is compiled has no second derivative in PyTorch. Where only a part of it is,
    the graph tells, and the critic runs once more.
    """
    if not is_compiled(critic) and not _is_in(_compiled_critics, critic):
        scores = _scores(critic, points, args, kwargs)
        graph = _CriticGraph(scores, points)
        if not graph.compiled:
            return scores, graph
        _add(_compiled_critics, critic)
    with torch.compiler.set_stance("force_eager"):
        scores = _scores(critic, points, args, kwargs)
    graph = _CriticGraph(scores, points)
    if graph.compiled:
        raise RuntimeError(
            "critic: a part of it was compiled ahead of time and has no second derivative; pass the critic that it was "
            "compiled from"
        )
    return scores, graph


def _scores(critic: Callable[..., Tensor], points: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    with CriticLayers() as layers:
        scores = critic(points, *args, **kwargs)
    check_scores("critic", scores)
    if layers.batch_statistics:
        _warn_of_batch_statistics(critic)
    return scores


class _PyTorchGraph:
    """In place of the extension's graph, where that is missing."""

    compiled = False

    def __init__(self, scores: Tensor, points: Tensor) -> None:
        pass

    def let_go_of_inputs(self) -> None:
        pass

    def without_dead_work(self, gradient: Tensor) -> Tensor:
        return gradient


_CriticGraph: Any = _PyTorchGraph if extension is None else extension.CriticGraph


_warned_critics: WeakSet[Any] = WeakSet()


def _warn_of_batch_statistics(critic: Any) -> None:
    if _is_in(_warned_critics, critic):
        return
    _add(_warned_critics, critic)
    module = module_of(critic)
    modules = () if module is None else module.named_modules()
    names = (
        f"{name or 'it'} is a {type(layer).__name__}"
        for name, layer in modules
        if isinstance(layer, _BatchNorm) and (layer.training or layer.running_mean is None)
    )
    warn_user(
        f"critic: {next(names, 'it uses batch normalisation')}, which lets the samples of a batch influence one "
        "another; the norm of each sample's gradient is then not what the penalty means. Layer, instance or group "
        "normalisation does not have this fault.",
        UserWarning,
    )


def _identity(critic: Any) -> Any:
    """What stays the same from call to call: the module of a bound method, the code of a function."""
    if isinstance(critic, nn.Module):  # it is slow to say what it does not have
        return critic
    return getattr(critic, "__self__", getattr(critic, "__code__", critic))


# What has no hash or no weak references is in no set.
def _is_in(critics: WeakSet[Any], critic: Any) -> bool:
    try:
        return _identity(critic) in critics
    except TypeError:
        return False


def _add(critics: WeakSet[Any], critic: Any) -> None:
    with suppress(TypeError):
        critics.add(_identity(critic))
