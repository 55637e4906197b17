"""Penalties on the gradient of the critic."""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_map_only

from wgan_fast._checks import check_batch, check_flag, check_number, check_scores
from wgan_fast._library import extension, warn_user
from wgan_fast.critic_mode import CriticMode
from wgan_fast.ops import check_generator, draw_uniform, gradient_norm_penalty, interpolate


def gradient_penalty(
    critic: Callable[..., Tensor],
    real: Tensor,
    fake: Tensor,
    *args: Any,
    weight: float = 10.0,
    target: float = 1.0,
    one_sided: bool = False,
    t: Tensor | None = None,
    generator: torch.Generator | None = None,
    **kwargs: Any,
) -> Tensor:
    r"""The gradient penalty of WGAN-GP, at random points between real and fake samples.

    .. math:: \mathrm{weight} \cdot \frac{1}{B} \sum_i \left( \lVert \nabla_{\hat{x}_i} f(\hat{x}_i) \rVert_2
              - \mathrm{target} \right)^2, \qquad \hat{x}_i = t_i \tilde{x}_i + (1 - t_i) x_i

    Args:
        critic: :math:`f`, any callable from a batch of samples to scores. Scores of any shape are summed. The rows of a
            batch must not influence one another, so batch normalisation, which makes them, is warned about. It must not
            change its input in place. A compiled critic has no second derivative in PyTorch: pass the module that
            was given to ``torch.compile``.
        real: the real samples :math:`x`, of shape (B, ...), in float16, bfloat16, float32 or float64.
        fake: the generated samples :math:`\tilde{x}`, of the same shape, type and device.
        args, kwargs: go to the critic untouched, after the points (labels, masks, ...).
        weight: factor of the penalty, at least 0.
        target: the norm that costs nothing, at least 0.
        one_sided: penalise only norms above the target (WGAN-LP).
        t: None, or the B numbers :math:`t_i`, of shape (B,) or (B, 1, ..., 1). None draws them from U(0, 1).
        generator: draws ``t``, where that is None.

    Returns:
        A scalar, already times ``weight``; float32 for 16-bit samples, else of their type. Its gradient reaches the
        critic's parameters. ``real`` and ``fake`` are constants: nothing reaches the generator. Inside
        ``torch.no_grad()`` and ``torch.inference_mode()`` it is the value alone.

    Raises:
        TypeError: an argument is of the wrong type, or the critic returned no floating-point tensor.
        ValueError: shapes or devices differ, the batch is empty, a number is negative or not finite, or the critic's
            scores do not depend on the samples.

    Under autocast the critic runs in the lower precision; the gradient, its norm and the penalty are float32.

    Source: Gulrajani et al., "Improved Training of Wasserstein GANs", 2017, equation 3; one-sided: Petzka et al., "On
    the regularization of Wasserstein GANs", 2018, equation 8.

    Example:
        >>> critic = torch.nn.Linear(2, 1, bias=False)
        >>> real, fake = torch.randn(8, 2), torch.randn(8, 2)
        >>> gradient_penalty(critic, real, fake).backward()
    """
    _check_critic(critic)
    check_number("weight", weight, minimum=0.0)
    check_number("target", target, minimum=0.0)
    check_flag("one_sided", one_sided)
    points = _interpolates(real, fake, t, generator)
    return _norm_penalty(critic, points, args, kwargs, weight=weight, target=target, one_sided=one_sided)


def r1_penalty(critic: Callable[..., Tensor], real: Tensor, *args: Any, weight: float = 10.0, **kwargs: Any) -> Tensor:
    r"""The zero-centred gradient penalty at real samples.

    .. math:: \frac{\mathrm{weight}}{2} \cdot \frac{1}{B} \sum_i \lVert \nabla_{x_i} f(x_i) \rVert_2^2

    Args:
        critic: as for :func:`gradient_penalty`.
        real: the real samples :math:`x`, of shape (B, ...).
        args, kwargs: go to the critic untouched.
        weight: twice the factor of the mean, at least 0.

    Returns, raises, and works under autocast and without gradients as :func:`gradient_penalty`.

    Source: Mescheder, Geiger and Nowozin, "Which Training Methods for GANs do actually Converge?", 2018, section 4.1.
    """
    _check_critic(critic)
    return _zero_centred_penalty("real", critic, real, args, kwargs, weight)


def r2_penalty(critic: Callable[..., Tensor], fake: Tensor, *args: Any, weight: float = 10.0, **kwargs: Any) -> Tensor:
    r"""The zero-centred gradient penalty at generated samples: :func:`r1_penalty` with ``fake`` for ``real``."""
    _check_critic(critic)
    return _zero_centred_penalty("fake", critic, fake, args, kwargs, weight)


def dragan_penalty(
    critic: Callable[..., Tensor],
    real: Tensor,
    *args: Any,
    weight: float = 10.0,
    target: float = 1.0,
    generator: torch.Generator | None = None,
    **kwargs: Any,
) -> Tensor:
    r"""The gradient penalty of DRAGAN, around the real samples.

    .. math:: \mathrm{weight} \cdot \frac{1}{B} \sum_i
              \left( \lVert \nabla_{\hat{x}_i} f(\hat{x}_i) \rVert_2 - \mathrm{target} \right)^2, \qquad
              \hat{x} = x + \tfrac{1}{2} \operatorname{std}(x) \, u, \quad u \sim U(0, 1)

    with one random number for each element, and the standard deviation over the whole batch.

    Args:
        critic: as for :func:`gradient_penalty`.
        real: the real samples :math:`x`, of shape (B, ...), at least two numbers.
        args, kwargs: go to the critic untouched.
        weight: factor of the mean, at least 0.
        target: the norm that costs nothing, at least 0.
        generator: draws :math:`u`, on the device of ``real``; PyTorch's default generator of the device if None.

    Returns, raises, and works under autocast and without gradients as :func:`gradient_penalty`.

    Source: Kodali et al., "On Convergence and Stability of GANs", 2017, algorithm 1.
    """
    _check_critic(critic)
    check_batch("real", real)
    check_number("weight", weight, minimum=0.0)
    check_number("target", target, minimum=0.0)
    if real.numel() < 2:
        raise ValueError("real: expected at least two numbers, whose standard deviation is taken, got one")
    with torch.inference_mode(False), torch.no_grad():
        check_generator(generator, real)
        u = draw_uniform(real, real.shape, generator)
        points = (real + 0.5 * real.to(u.dtype).std() * u).to(real.dtype)
    return _norm_penalty(critic, points, args, kwargs, weight=weight, target=target)


def wgan_div_penalty(
    critic: Callable[..., Tensor],
    real: Tensor,
    fake: Tensor,
    *args: Any,
    k: float = 2.0,
    p: float = 6.0,
    t: Tensor | None = None,
    generator: torch.Generator | None = None,
    **kwargs: Any,
) -> Tensor:
    r"""The penalty of the Wasserstein divergence, at random points between real and fake samples.

    .. math:: k \cdot \frac{1}{B} \sum_i \lVert \nabla f(\hat{x}_i) \rVert_2^p

    Args:
        critic, real, fake, args, kwargs, t, generator: as for :func:`gradient_penalty`.
        k: factor of the mean, at least 0.
        p: power of the norm, at least 2.

    Returns, raises, and works under autocast and without gradients as :func:`gradient_penalty`.

    Source: Wu et al., "Wasserstein Divergence for GANs", 2018.
    """
    _check_critic(critic)
    check_number("k", k, minimum=0.0)
    check_number("p", p, minimum=2.0)
    points = _interpolates(real, fake, t, generator)
    return _norm_penalty(critic, points, args, kwargs, weight=k, target=0.0, power=p)


def _zero_centred_penalty(
    name: str,
    critic: Callable[..., Tensor],
    samples: Tensor,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    weight: float,
) -> Tensor:
    check_batch(name, samples)
    check_number("weight", weight, minimum=0.0)
    with _grad_mode(False):
        points = samples.clone() if samples.is_inference() else samples.detach()
    return _norm_penalty(critic, points, args, kwargs, weight=weight / 2, target=0.0)


def _interpolates(real: Tensor, fake: Tensor, t: Tensor | None, generator: torch.Generator | None) -> Tensor:
    with _grad_mode(False):
        return interpolate(real, fake, t, generator=generator)


def _norm_penalty(
    critic: Callable[..., Tensor], points: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any], **formula: Any
) -> Tensor:
    """The penalty of :func:`wgan_fast.ops.gradient_norm_penalty` on the critic's gradient at the points."""
    return gradient_norm_penalty(_input_gradient(critic, points, args, kwargs), **formula).penalty


def _input_gradient(
    critic: Callable[..., Tensor], points: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Tensor:
    """The gradient of the sum of the scores with respect to the points, with a graph where gradients are enabled."""
    if torch._C._are_functorch_transforms_active():
        return _input_gradient_in_transform(critic, points, args, kwargs)
    create_graph = torch.is_grad_enabled()
    if torch.is_inference_mode_enabled():  # its tensors cannot be saved for a derivative
        args, kwargs = tree_map_only(Tensor, _ordinary, (args, kwargs))
    with _grad_mode(True):
        points.requires_grad_()
        scores = _scores(critic, points, args, kwargs)
        gradient = None
        if scores.requires_grad:
            graph = _CriticGraph(scores, points)
            graph.let_go_of_inputs()
            # Autocast is for the forward; the type of each backward operation follows from it.
            with _without_autocast(points.device.type):
                (gradient,) = torch.autograd.grad(
                    scores, points, torch.ones_like(scores), create_graph=create_graph, allow_unused=True
                )
            if create_graph and gradient is not None:
                gradient = graph.without_dead_work(gradient)
    if gradient is None:
        raise ValueError("critic: its scores do not depend on the samples, so there is no gradient to penalise")
    return gradient


def _input_gradient_in_transform(
    critic: Callable[..., Tensor], points: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Tensor:
    """The same inside a ``torch.func`` transform, which knows no ``requires_grad_``."""
    scores, pull_back = torch.func.vjp(lambda points: _scores(critic, points, args, kwargs), points)[:2]
    return pull_back(torch.ones_like(scores))[0]


def _scores(critic: Callable[..., Tensor], points: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    with CriticMode() as mode:
        scores = critic(points, *args, **kwargs)
    check_scores("critic", scores)
    if mode.batch_statistics:
        _warn_of_batch_statistics(critic)
    return scores


class _PyTorchGraph:
    """In place of the extension's graph, where that is missing."""

    def __init__(self, scores: Tensor, points: Tensor) -> None:
        pass

    def let_go_of_inputs(self) -> None:
        pass

    def without_dead_work(self, gradient: Tensor) -> Tensor:
        return gradient


_CriticGraph: Any = _PyTorchGraph if extension is None else extension.CriticGraph


def _grad_mode(enabled: bool) -> AbstractContextManager[Any]:
    """Gradients enabled or not, and no inference mode. Nothing, which is what it usually costs, where it is so."""
    if torch.is_inference_mode_enabled():
        stack = ExitStack()
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.set_grad_enabled(enabled))
        return stack
    return nullcontext() if enabled and torch.is_grad_enabled() else torch.set_grad_enabled(enabled)


def _ordinary(tensor: Tensor) -> Tensor:
    with torch.inference_mode(False):
        return tensor.clone() if tensor.is_inference() else tensor


def _without_autocast(device_type: str) -> AbstractContextManager[Any]:
    if torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()


def _check_critic(critic: Any) -> None:
    if not callable(critic):
        raise TypeError(f"critic: expected a callable, got {type(critic).__name__}")


_warned_critics: WeakSet[Any] = WeakSet()


def _warn_of_batch_statistics(critic: Any) -> None:
    module = getattr(critic, "__self__", critic)  # a bound method belongs to its module
    if module in _warned_critics:
        return
    _warned_critics.add(module)
    modules = module.named_modules() if isinstance(module, nn.Module) else ()
    names = (f"{name or 'it'} is a {type(layer).__name__}" for name, layer in modules if isinstance(layer, _BatchNorm))
    warn_user(
        f"critic: {next(names, 'it uses batch normalisation')}, which lets the samples of a batch influence one another; "
        "the norm of each sample's gradient is then not what the penalty means. Layer, instance or group normalisation "
        "does not have this fault.",
        UserWarning,
    )
