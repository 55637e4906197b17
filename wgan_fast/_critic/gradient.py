"""The gradient of a critic's scores with respect to its input, differentiable again without dead work."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_map_only

from wgan_fast._checks import ArgumentValueError, accumulate_dtype, check_scores, module_of
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
    """The gradient of the sum of the scores with respect to the points, with a graph if gradients are enabled.

    ``scaler`` scales the backward pass through a float16 critic, against overflow and underflow.
    """
    if torch._C._are_functorch_transforms_active():
        return _input_gradient_in_transform(critic, points, args, kwargs, scaler)
    create_graph = torch.is_grad_enabled()
    if torch.is_inference_mode_enabled():  # autograd cannot save inference tensors
        args, kwargs = tree_map_only(Tensor, ordinary, (args, kwargs))
    with grad_mode(True):
        points.requires_grad_()
        scores, graph = _scores_and_graph(critic, points, args, kwargs)
        gradient = None
        if scores.requires_grad:
            graph.let_go_of_inputs()
            # Autocast is for the forward alone; the dtypes of the backward follow from those of the forward.
            with without_autocast(points.device.type):
                (gradient,) = torch.autograd.grad(
                    scores, points, _scaled_ones(scores, scaler), create_graph=create_graph, allow_unused=True
                )
                if gradient is not None:
                    gradient = _unscaled(gradient, scaler)
            if create_graph and gradient is not None:
                gradient = graph.without_dead_work(gradient)
    if gradient is None:
        raise ArgumentValueError(
            "critic", "its scores do not depend on the samples, so there is no gradient to penalise"
        )
    return gradient


def _input_gradient_in_transform(
    critic: Callable[..., Tensor],
    points: Tensor,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    scaler: torch.amp.GradScaler | None,
) -> Tensor:
    """The same inside a ``torch.func`` transform, where ``requires_grad_`` is not allowed."""
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
    """Runs the critic uncompiled, because compiled code has no second derivative in PyTorch. A critic of which only a
    submodule is compiled is recognised by its graph, and runs once more.
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
    check_scores("critic", scores, len(points))
    if layers.batch_statistics:
        _warn_of_batch_statistics(critic)
    return scores


class _PyTorchGraph:
    """Takes the place of ``CriticGraph`` where the extension is missing."""

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
        "another, so that the penalty is not on the gradient of each sample's own score. Use layer, instance or group "
        "normalisation instead.",
        UserWarning,
    )


def _identity(critic: Any) -> Any:
    """An object that stays the same between calls: the module of a bound method, the code of a function."""
    if isinstance(critic, nn.Module):  # a failing getattr() is slow on a Module
        return critic
    return getattr(critic, "__self__", getattr(critic, "__code__", critic))


# An object without hash or weak references cannot be in a WeakSet: it is examined anew at each call.
def _is_in(critics: WeakSet[Any], critic: Any) -> bool:
    try:
        return _identity(critic) in critics
    except TypeError:
        return False


def _add(critics: WeakSet[Any], critic: Any) -> None:
    with suppress(TypeError):
        critics.add(_identity(critic))
