"""Penalties on the gradient of the critic."""

import warnings
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from wgan_fast._checks import check_scores
from wgan_fast.ops import check_penalty, gradient_norm_penalty, interpolate


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
            batch must not influence one another, so batch normalisation, which makes them, is warned about.
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
    check_penalty(weight, target, one_sided)
    with torch.inference_mode(False), torch.no_grad():
        points = interpolate(real, fake, t, generator=generator)
    gradient = _input_gradient(critic, points, args, kwargs)
    return gradient_norm_penalty(gradient, weight=weight, target=target, one_sided=one_sided).penalty


def _input_gradient(
    critic: Callable[..., Tensor], points: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Tensor:
    """The gradient of the sum of the scores with respect to the points, with a graph where gradients are enabled."""
    create_graph = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.enable_grad():
        points.requires_grad_()
        scores = critic(points, *args, **kwargs)
        check_scores("critic", scores)
        gradient = None
        if scores.requires_grad:
            # Autocast is for the forward; the type of each backward operation follows from it.
            with torch.autocast(points.device.type, enabled=False):
                (gradient,) = torch.autograd.grad(
                    scores, points, torch.ones_like(scores), create_graph=create_graph, allow_unused=True
                )
    if gradient is None:
        raise ValueError("critic: its scores do not depend on the samples, so there is no gradient to penalise")
    return gradient


_checked_critics: WeakSet[nn.Module] = WeakSet()


def _check_critic(critic: Any) -> None:
    if not callable(critic):
        raise TypeError(f"critic: expected a callable, got {type(critic).__name__}")
    if not isinstance(critic, nn.Module) or critic in _checked_critics:
        return
    _checked_critics.add(critic)
    for name, module in critic.named_modules():
        if isinstance(module, _BatchNorm) and module.training:
            warnings.warn(
                f"critic: {name or 'it'} is a {type(module).__name__}, which lets the samples of a batch influence one "
                "another; the norm of each sample's gradient is then not what the penalty means. Layer, instance or "
                "group normalisation does not have this fault.",
                UserWarning,
                stacklevel=3,
            )
            return
