"""Gradient penalties: on the norm of the critic's gradient with respect to its input."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec

import torch
from torch import Tensor, nn

from wgan_fast._checks import (
    ArgumentValueError,
    check_batch,
    check_callable,
    check_flag,
    check_generator,
    check_number,
    check_scaler,
    without_partial,
)
from wgan_fast._critic.gradient import input_gradient
from wgan_fast._library import operators
from wgan_fast._torch import draw_uniform, grad_mode
from wgan_fast.ops import interpolate

_P = ParamSpec("_P")


def _uncompiled(penalty: Callable[_P, Tensor]) -> Callable[_P, Tensor]:
    """Runs the penalty outside the compiler where a function that calls it is compiled."""

    @functools.wraps(penalty)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> Tensor:
        if not torch.compiler.is_compiling():
            return penalty(*args, **kwargs)
        torch._dynamo.graph_break(
            msg="wgan_fast: a compiled function has no second derivative, so a gradient penalty runs outside of the "
            "compiler, which fullgraph=True forbids: leave that out, or call the penalty outside of this function."
        )
        return torch.compiler.disable(penalty)(*args, **kwargs)

    return call


@_uncompiled
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
    scaler: torch.amp.GradScaler | None = None,
    **kwargs: Any,
) -> Tensor:
    r"""The gradient penalty of WGAN-GP, at random points between real and fake samples.

    .. math:: \mathrm{weight} \cdot \frac{1}{B} \sum_i \left( \lVert \nabla_{\hat{x}_i} f(\hat{x}_i) \rVert_2
              - \mathrm{target} \right)^2, \qquad \hat{x}_i = t_i \tilde{x}_i + (1 - t_i) x_i

    Args:
        critic: :math:`f`, any callable from a batch of samples to scores. Scores of any shape are summed. The rows of a
            batch must not influence one another; batch normalisation, which couples them, causes a warning. The critic
            must not change its input in place. A compiled critic runs uncompiled here. See docs/critics.md.
        real: the real samples :math:`x`, of shape (B, ...), in float16, bfloat16, float32 or float64.
        fake: the generated samples :math:`\tilde{x}`, of the same shape, dtype and device.
        args, kwargs: further arguments of the critic (labels, masks, ...), passed on unchanged after the points. The
            keyword arguments below belong to the penalty, and are not passed on.
        weight: factor of the penalty, at least 0.
        target: the norm that is not penalised, at least 0.
        one_sided: penalise only norms above the target (WGAN-LP).
        t: the B numbers :math:`t_i`, of shape (B,) or (B, 1, ..., 1); None draws them from U(0, 1).
        generator: draws ``t`` where that is None.
        scaler: the GradScaler that the loss is scaled with, for a float16 critic: the backward pass to the points is
            scaled too, against overflow and underflow, and the gradient is unscaled in float32.

    Returns:
        A scalar, multiplied by ``weight``, in the samples' dtype; float32 for 16-bit samples. Its gradient with respect
        to the critic's parameters equals the textbook's, also where that is None or zero. For a piecewise-linear critic
        it takes two thirds of the textbook's operations. It can be differentiated again. ``real`` and ``fake`` are
        detached: no gradient reaches the generator. Inside ``torch.no_grad()`` and ``torch.inference_mode()`` the
        penalty has no graph.

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
    _check_critic(critic, scaler)
    check_number("weight", weight, minimum=0.0)
    check_number("target", target, minimum=0.0)
    check_flag("one_sided", one_sided)
    _check_t(t, critic, args)
    points = _interpolates(real, fake, t, generator)
    return _norm_penalty(critic, points, args, kwargs, scaler, weight=weight, target=target, one_sided=one_sided)


@_uncompiled
def r1_penalty(
    critic: Callable[..., Tensor],
    real: Tensor,
    *args: Any,
    weight: float = 10.0,
    scaler: torch.amp.GradScaler | None = None,
    **kwargs: Any,
) -> Tensor:
    r"""The zero-centred gradient penalty at real samples.

    .. math:: \frac{\mathrm{weight}}{2} \cdot \frac{1}{B} \sum_i \lVert \nabla_{x_i} f(x_i) \rVert_2^2

    Args:
        critic: as for :func:`gradient_penalty`.
        real: the real samples :math:`x`, of shape (B, ...).
        args, kwargs: go to the critic untouched.
        weight: twice the factor of the mean, at least 0.
        scaler: as for :func:`gradient_penalty`.

    Return value, errors, autocast and grad modes: as :func:`gradient_penalty`.

    Source: Mescheder, Geiger and Nowozin, "Which Training Methods for GANs do actually Converge?", 2018, section 4.1.
    """
    _check_critic(critic, scaler)
    return _zero_centred_penalty("real", critic, real, args, kwargs, weight, scaler)


@_uncompiled
def r2_penalty(
    critic: Callable[..., Tensor],
    fake: Tensor,
    *args: Any,
    weight: float = 10.0,
    scaler: torch.amp.GradScaler | None = None,
    **kwargs: Any,
) -> Tensor:
    r"""The zero-centred gradient penalty at generated samples: :func:`r1_penalty` with ``fake`` for ``real``."""
    _check_critic(critic, scaler)
    return _zero_centred_penalty("fake", critic, fake, args, kwargs, weight, scaler)


@_uncompiled
def dragan_penalty(
    critic: Callable[..., Tensor],
    real: Tensor,
    *args: Any,
    weight: float = 10.0,
    target: float = 1.0,
    generator: torch.Generator | None = None,
    scaler: torch.amp.GradScaler | None = None,
    **kwargs: Any,
) -> Tensor:
    r"""The gradient penalty of DRAGAN, around the real samples.

    .. math:: \mathrm{weight} \cdot \frac{1}{B} \sum_i
              \left( \lVert \nabla_{\hat{x}_i} f(\hat{x}_i) \rVert_2 - \mathrm{target} \right)^2, \qquad
              \hat{x} = x + \tfrac{1}{2} \operatorname{std}(x) \, u, \quad u \sim U(0, 1)

    with one random number for each element, and the standard deviation over the whole batch.

    Args:
        critic: as for :func:`gradient_penalty`.
        real: the real samples :math:`x`, of shape (B, ...), with at least two elements.
        args, kwargs: go to the critic untouched.
        weight: factor of the mean, at least 0.
        target: the norm that is not penalised, at least 0.
        generator: draws :math:`u` on the device of ``real``; by default PyTorch's generator of the device.
        scaler: as for :func:`gradient_penalty`.

    Return value, errors, autocast and grad modes: as :func:`gradient_penalty`.

    Source: Kodali et al., "On Convergence and Stability of GANs", 2017, algorithm 1.
    """
    _check_critic(critic, scaler)
    check_batch("real", real)
    check_number("weight", weight, minimum=0.0)
    check_number("target", target, minimum=0.0)
    if real.numel() < 2:
        raise ArgumentValueError("real", "expected at least two elements, for a standard deviation, got one")
    with torch.inference_mode(False), torch.no_grad():
        check_generator("generator", generator, "real", real)
        u = draw_uniform(real, real.shape, generator)
        points = (real + 0.5 * real.to(u.dtype).std() * u).to(real.dtype)
    return _norm_penalty(critic, points, args, kwargs, scaler, weight=weight, target=target)


@_uncompiled
def wgan_div_penalty(
    critic: Callable[..., Tensor],
    real: Tensor,
    fake: Tensor,
    *args: Any,
    k: float = 2.0,
    p: float = 6.0,
    t: Tensor | None = None,
    generator: torch.Generator | None = None,
    scaler: torch.amp.GradScaler | None = None,
    **kwargs: Any,
) -> Tensor:
    r"""The penalty of the Wasserstein divergence, at random points between real and fake samples.

    .. math:: k \cdot \frac{1}{B} \sum_i \lVert \nabla f(\hat{x}_i) \rVert_2^p

    Args:
        critic, real, fake, args, kwargs, t, generator, scaler: as for :func:`gradient_penalty`.
        k: factor of the mean, at least 0.
        p: power of the norm, at least 2.

    Return value, errors, autocast and grad modes: as :func:`gradient_penalty`.

    Source: Wu et al., "Wasserstein Divergence for GANs", 2018.
    """
    _check_critic(critic, scaler)
    check_number("k", k, minimum=0.0)
    check_number("p", p, minimum=2.0)
    _check_t(t, critic, args)
    points = _interpolates(real, fake, t, generator)
    return _norm_penalty(critic, points, args, kwargs, scaler, weight=k, target=0.0, power=p)


def _zero_centred_penalty(
    name: str,
    critic: Callable[..., Tensor],
    samples: Tensor,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    weight: float,
    scaler: torch.amp.GradScaler | None,
) -> Tensor:
    check_batch(name, samples)
    check_number("weight", weight, minimum=0.0)
    with grad_mode(False):
        points = samples.clone()  # a critic that changes its input in place must not change the caller's samples
    return _norm_penalty(critic, points, args, kwargs, scaler, weight=weight / 2, target=0.0)


def _interpolates(real: Tensor, fake: Tensor, t: Tensor | None, generator: torch.Generator | None) -> Tensor:
    with grad_mode(False):
        return interpolate(real, fake, t, generator=generator)


def _norm_penalty(
    critic: Callable[..., Tensor],
    points: Tensor,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    scaler: torch.amp.GradScaler | None,
    *,
    weight: float,
    target: float,
    power: float = 2.0,
    one_sided: bool = False,
) -> Tensor:
    """The penalty of :func:`wgan_fast.ops.gradient_norm_penalty` on the critic's gradient at the points."""
    gradient = input_gradient(critic, points, args, kwargs, scaler)
    penalty, _ = operators(gradient.device).gradient_norm_penalty(gradient, weight, target, power, one_sided)
    return penalty


def _check_critic(critic: Any, scaler: Any) -> None:
    check_callable("critic", critic)
    check_scaler("scaler", scaler)


def _check_t(t: Tensor | None, critic: Callable[..., Tensor], args: tuple[Any, ...]) -> None:
    """Refuses a ``t`` that may be meant for the critic, which has an argument of that name without a value."""
    if t is None:
        return
    function, bound = without_partial(critic)
    try:
        signature = inspect.signature(function.forward if isinstance(function, nn.Module) else function)
        bound |= signature.bind_partial(None, *args).arguments
    except (TypeError, ValueError):  # no signature, or other arguments: the critic raises its own error
        return
    if "t" in signature.parameters and "t" not in bound:
        raise ArgumentValueError(
            "t",
            "the penalty would take it for the places between real and fake samples, but the critic has an argument t "
            "too; pass the critic's by position, or in a lambda",
        )
