"""One evaluation of a critic: its scores and their gradient with respect to its input, differentiable again."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_map_only

from wgan_fast._checks import ArgumentValueError, accumulate_dtype, call_critic, check_scores, module_of
from wgan_fast._critic.layers import CriticLayers
from wgan_fast._library import extension
from wgan_fast._torch import grad_mode, held_with_history, is_compiled, ordinary, warn_user, without_autocast

Points = tuple[Tensor, ...]


def evaluate(
    critic: Callable[..., Tensor],
    points: Points,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    scaler: torch.amp.GradScaler | None = None,
    *,
    scored: bool = False,
) -> tuple[Tensor, Points]:
    """The scores at the points, and the gradient of their sum with respect to the points.

    With gradients enabled, the gradient is differentiable with respect to everything but the points; with ``scored``
    the scores are too, and without it they must not be differentiated. Both together cost 4 forwards with their
    derivative where the critic is affine in each sample for fixed masks (see ``CriticGraph.affine``), and 6 elsewhere.

    ``scaler`` scales the backward pass through a float16 critic, against overflow and underflow.
    """
    if torch._C._are_functorch_transforms_active():
        return _evaluate_in_transform(critic, points, args, kwargs, scaler)
    create_graph = torch.is_grad_enabled()
    scored = scored and create_graph
    if torch.is_inference_mode_enabled():  # autograd cannot save inference tensors
        args, kwargs = tree_map_only(Tensor, ordinary, (args, kwargs))
    with grad_mode(True):
        for point in points:
            point.requires_grad_()
        scores, graph = _scores_and_graph(critic, points, args, kwargs, scored)
        if not scores.requires_grad:
            raise _no_dependence()
        affine = scored and graph.affine and scaler is None and not _keeps_features(critic, graph)
        edges = graph.signal_edges() if affine else None
        if not scored or edges is not None:
            graph.let_go_of_inputs()
        wanted: list[Any] = [*points, *(GradientEdge(*edge) for edge in edges or ())]
        # Autocast is for the forward alone; the dtypes of the backward follow from those of the forward.
        with without_autocast(points[0].device.type):
            seeds = _scaled_ones(scores, scaler)
            found = torch.autograd.grad(scores, wanted, seeds, create_graph=create_graph, allow_unused=True)
            gradients = [None if one is None else _unscaled(one, scaler) for one in found[: len(points)]]
        if all(gradient is None for gradient in gradients):
            raise _no_dependence()
        if create_graph:
            gradients = graph.without_dead_work(gradients)
        full = tuple(
            torch.zeros_like(point) if gradient is None else gradient
            for point, gradient in zip(points, gradients, strict=True)
        )
        if edges is not None:
            scores = graph.affine_scores(full, found[len(points) :])
        return scores if scored or create_graph else scores.detach(), full


def evaluate_with_history(
    critic: Callable[..., Tensor], points: Points, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Tensor, Points]:
    """As :func:`evaluate`, differentiable with respect to the points and what they were computed from as well."""
    scores = _scores(critic, points, args, kwargs)
    if not scores.requires_grad:
        raise _no_dependence()
    with without_autocast(points[0].device.type):
        found = torch.autograd.grad(
            scores, points, torch.ones_like(scores), create_graph=True, allow_unused=True, materialize_grads=True
        )
    return scores, found


def _keeps_features(critic: Any, graph: Any) -> bool:
    """Whether the critic holds a tensor that it computed from the points. It may be differentiated later, which needs
    the layers' inputs.
    """
    module = module_of(critic)
    return module is not None and any(map(graph.comes_from_points, held_with_history(module)))


def _no_dependence() -> ArgumentValueError:
    return ArgumentValueError("critic", "its scores do not depend on the samples, so there is no gradient to penalise")


def _evaluate_in_transform(
    critic: Callable[..., Tensor],
    points: Points,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    scaler: torch.amp.GradScaler | None,
) -> tuple[Tensor, Points]:
    """The same inside a ``torch.func`` transform, where ``requires_grad_`` is not allowed."""
    scores, pull_back = torch.func.vjp(lambda *points: _scores(critic, points, args, kwargs), *points)[:2]
    with without_autocast(points[0].device.type):
        gradients = pull_back(_scaled_ones(scores, scaler))
        return scores, tuple(_unscaled(gradient, scaler) for gradient in gradients)


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
    critic: Callable[..., Tensor], points: Points, args: tuple[Any, ...], kwargs: dict[str, Any], scored: bool
) -> tuple[Tensor, Any]:
    """Runs the critic uncompiled, because compiled code has no second derivative in PyTorch. A critic of which only a
    submodule is compiled is recognised by its graph, and runs once more.
    """

    def run() -> tuple[Tensor, Any]:
        graph = _CriticGraph(points)
        scores = _scores(critic, points, args, kwargs, graph if scored else None)
        graph.close(scores, scored)
        return scores, graph

    if not is_compiled(critic) and not _is_in(_compiled_critics, critic):
        scores, graph = run()
        if not graph.compiled:
            return scores, graph
        _add(_compiled_critics, critic)
    with torch.compiler.set_stance("force_eager"):
        scores, graph = run()
    if graph.compiled:
        raise RuntimeError(
            "critic: a part of it was compiled ahead of time and has no second derivative; pass the critic that it was "
            "compiled from"
        )
    return scores, graph


def _scores(
    critic: Callable[..., Tensor], points: Points, args: tuple[Any, ...], kwargs: dict[str, Any], graph: Any = None
) -> Tensor:
    with CriticLayers(graph) as layers:
        scores = call_critic(critic, points, args, kwargs)
    check_scores("critic", scores, len(points[0]))
    if layers.batch_statistics:
        _warn_of_batch_statistics(critic)
    return scores


class _PyTorchGraph:
    """Takes the place of ``CriticGraph`` where the extension is missing."""

    compiled = affine = False

    def __init__(self, points: Points) -> None:
        pass

    def note_sum(self, output: Tensor, operands: list[Tensor | None], factors: list[float]) -> None:
        pass

    def note_product(self, output: Tensor, addend: Tensor, factor: float) -> None:
        pass

    def note_concatenation(self, output: Tensor, operands: list[Tensor], dim: int) -> None:
        pass

    def close(self, scores: Tensor, scored: bool) -> None:
        pass

    def let_go_of_inputs(self) -> None:
        pass

    def without_dead_work(self, gradients: list[Tensor | None]) -> list[Tensor | None]:
        return gradients


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
