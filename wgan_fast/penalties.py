"""Gradient penalties: on the norm of the critic's gradient with respect to its input."""

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from wgan_fast._checks import (
    ArgumentTypeError,
    ArgumentValueError,
    accumulate_dtype,
    call_critic,
    check_batch,
    check_callable,
    check_flag,
    check_generator,
    check_number,
    check_same_device,
    check_same_samples,
    check_scaler,
    check_scores,
    without_partial,
)
from wgan_fast._critic.gradient import Points, evaluate, evaluate_with_history
from wgan_fast._library import extension, operators
from wgan_fast._torch import draw_uniform, grad_mode
from wgan_fast.ops import interpolate

__all__ = [  # noqa: RUF022 (the order of the API's page)
    "gradient_penalty",
    "r1_penalty",
    "r2_penalty",
    "r1_r2_penalty",
    "dragan_penalty",
    "wgan_div_penalty",
    "finite_difference_penalty",
    "input_gradient",
    "declare_piecewise_linear",
]

_P = ParamSpec("_P")
_R = TypeVar("_R")
#: A batch; of a critic of several inputs, one for each.
Samples = Tensor | tuple[Tensor, ...]


def _uncompiled(penalty: Callable[_P, _R]) -> Callable[_P, _R]:
    """Runs the penalty outside the compiler where a function that calls it is compiled."""

    @functools.wraps(penalty)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        if not torch.compiler.is_compiling():
            return penalty(*args, **kwargs)
        torch._dynamo.graph_break(
            msg="wgan_fast: a compiled function has no second derivative, so a gradient penalty runs outside of the "
            "compiler, which fullgraph=True forbids: leave that out, or call the penalty outside of this function."
        )
        return torch.compiler.disable(penalty)(*args, **kwargs)

    return call


@_uncompiled
def input_gradient(
    critic: Callable[..., Tensor], x: Tensor | tuple[Tensor, ...], *args: Any, **kwargs: Any
) -> tuple[Tensor, Any]:
    r"""The scores of a critic and their gradient with respect to its input, from one forward.

    .. math:: f(x_i), \qquad \nabla_{x_i} \sum_j f(x_j)

    The primitive of every gradient penalty; also of physics-informed networks, force fields and Kantorovich potentials.

    Args:
        critic: :math:`f`, as for :func:`gradient_penalty`; called as ``critic(x, *args, **kwargs)``.
        x: the input, of shape (B, ...); or a tuple of inputs, called as ``critic(*x, *args, **kwargs)``.
        args, kwargs: further arguments of the critic.

    Returns:
        ``(scores, gradient)``; the gradient is a tuple where ``x`` is one. Both are differentiable any number of times
        with respect to the critic's parameters and other tensors that require a gradient. They are differentiable with
        respect to ``x`` where that requires a gradient, else ``x`` is a constant. Inside ``torch.no_grad()`` neither
        has a graph.

    Scores, gradient and the derivative of any loss of both cost 4 forwards in all where the critic is piecewise linear
    and scores each sample by itself, with one score for each; 6 elsewhere. PyTorch's own way costs 6.

    Raises:
        TypeError: an argument is of the wrong type, or the critic returned no floating-point tensor.
        ValueError: ``x`` is empty, or the scores do not depend on it.

    Example:
        >>> critic = torch.nn.Linear(2, 1)
        >>> scores, gradient = input_gradient(critic, torch.randn(8, 2))
        >>> (scores.mean() + gradient.square().sum()).backward()
    """
    _check_critic(critic, None)
    points = _inputs("x", x)
    if torch.is_grad_enabled() and any(point.requires_grad for point in points):
        scores, gradients = evaluate_with_history(critic, points, args, kwargs)
    else:
        scores, gradients = evaluate(critic, tuple(map(_constant, points)), args, kwargs, scored=True)
    return scores, gradients if isinstance(x, tuple) else gradients[0]


def declare_piecewise_linear(function: type[torch.autograd.Function], *, adds: bool = False) -> None:
    r"""Says that a custom autograd function is piecewise linear in its first argument. Critics that call it then cost
    as little as with PyTorch's operators.

    .. math:: y_i = J(x_i) \, x_i + c, \qquad J \text{ constant near almost every } x_i

    Without a declaration such a function counts as curved: penalties keep the layers' inputs, and scores and gradient
    cost 6 forwards instead of 4. Examples are FIR resampling, which is linear, and LeakyReLU with a gain.

    Args:
        function: a subclass of ``torch.autograd.Function`` whose backward can be differentiated. Output i must depend
            on row i of the first argument alone, and other arguments must not depend on the critic's input.
        adds: whether :math:`c` is not 0, as for a fused bias and activation. Then memory is saved all the same, and
            scores and gradient cost 6 forwards; for 4, add the bias by an operation of its own.

    Raises:
        TypeError: ``function`` is no subclass of ``torch.autograd.Function``, or ``adds`` no bool.

    A wrong declaration gives wrong gradients of :func:`input_gradient`, without an error.
    """
    if not (isinstance(function, type) and issubclass(function, torch.autograd.Function)):
        raise ArgumentTypeError("function", f"expected a subclass of torch.autograd.Function, got {function!r}")
    check_flag("adds", adds)
    if extension is not None:
        extension.declare_piecewise_linear(function._backward_cls, adds)  # type: ignore[attr-defined]


@_uncompiled
def gradient_penalty(
    critic: Callable[..., Tensor],
    real: Samples,
    fake: Samples,
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
        real: the real samples :math:`x`, of shape (B, ...), in float16, bfloat16, float32 or float64. A critic of
            several inputs takes a tuple of tensors: it is called as ``critic(*points, *args)``, the inputs of a sample
            share :math:`t_i`, and the norm is over all of them.
        fake: the generated samples :math:`\tilde{x}`, of the same shape, dtype and device; a tuple as ``real``.
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


def r1_penalty(
    critic: Callable[..., Tensor],
    real: Samples,
    *args: Any,
    weight: float = 10.0,
    scaler: torch.amp.GradScaler | None = None,
    **kwargs: Any,
) -> Tensor:
    r"""The zero-centred gradient penalty at real samples.

    .. math:: \frac{\mathrm{weight}}{2} \cdot \frac{1}{B} \sum_i \lVert \nabla_{x_i} f(x_i) \rVert_2^2

    Args:
        critic: as for :func:`gradient_penalty`.
        real: the real samples :math:`x`, of shape (B, ...); or a tuple, as for :func:`gradient_penalty`.
        args, kwargs: further arguments of the critic.
        weight: twice the factor of the mean, at least 0.
        scaler: as for :func:`gradient_penalty`.

    Return value, errors, autocast and grad modes: as :func:`gradient_penalty`.

    Source: Mescheder, Geiger and Nowozin, "Which Training Methods for GANs do actually Converge?", 2018, section 4.1.
    """
    _check_critic(critic, scaler)
    return _zero_centred_penalty("real", critic, real, args, kwargs, weight, scaler)[1]


def r2_penalty(
    critic: Callable[..., Tensor],
    fake: Samples,
    *args: Any,
    weight: float = 10.0,
    scaler: torch.amp.GradScaler | None = None,
    **kwargs: Any,
) -> Tensor:
    r"""The zero-centred gradient penalty at generated samples: :func:`r1_penalty` with ``fake`` for ``real``."""
    _check_critic(critic, scaler)
    return _zero_centred_penalty("fake", critic, fake, args, kwargs, weight, scaler)[1]


def r1_r2_penalty(
    critic: Callable[..., Tensor],
    real: Samples,
    fake: Samples,
    *args: Any,
    weight: float = 10.0,
    scaler: torch.amp.GradScaler | None = None,
    **kwargs: Any,
) -> Tensor:
    r"""The zero-centred gradient penalties at real and at generated samples: :func:`r1_penalty` + :func:`r2_penalty`.

    .. math:: \frac{\mathrm{weight}}{2} \left( \frac{1}{B} \sum_i \lVert \nabla f(x_i) \rVert_2^2
              + \frac{1}{B'} \sum_i \lVert \nabla f(\tilde{x}_i) \rVert_2^2 \right)

    ``real`` and ``fake`` hold samples of one shape; their numbers B and B' may differ. Arguments, return value, errors,
    autocast and grad modes: as :func:`r1_penalty`.

    Source: Huang et al., "The GAN is dead; long live the GAN! A Modern GAN Baseline", 2024, section 2.2.
    """
    if isinstance(real, Tensor) and isinstance(fake, Tensor):
        check_same_samples("fake", fake, "real", real)
    at_real = r1_penalty(critic, real, *args, weight=weight, scaler=scaler, **kwargs)
    return at_real + r2_penalty(critic, fake, *args, weight=weight, scaler=scaler, **kwargs)


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
        args, kwargs: further arguments of the critic.
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
    return _norm_penalty(critic, (points,), args, kwargs, scaler, weight=weight, target=target)


@_uncompiled
def wgan_div_penalty(
    critic: Callable[..., Tensor],
    real: Samples,
    fake: Samples,
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


def finite_difference_penalty(
    critic: Callable[..., Tensor],
    x: Tensor,
    *args: Any,
    weight: float = 10.0,
    sigma: float = 0.01,
    target: float = 0.0,
    generator: torch.Generator | None = None,
    **kwargs: Any,
) -> Tensor:
    r"""An approximation of a gradient penalty by a difference of scores, without a second derivative.

    .. math:: \mathrm{weight} \cdot \frac{1}{B} \sum_i \left( \left\lvert
              \frac{f(x_i + \sigma e_i) - f(x_i)}{\sigma} \right\rvert - \mathrm{target} \right)^2, \qquad
              e_i \sim N(0, I)

    For critics that cannot be differentiated twice: flash attention, compiled code, FSDP layer by layer. The scores
    of a sample are summed. The expectation over :math:`e` for ``target`` 0 is
    :math:`\mathrm{weight} \cdot \frac{1}{B} \sum_i \lVert \nabla f(x_i) \rVert^2` up to a term of order
    :math:`\sigma^2`; its standard deviation for one sample is :math:`\sqrt 2` times the mean. With a target it is
    biased: :math:`\lvert \nabla f \cdot e \rvert` varies about the norm, and its mean is
    :math:`\sqrt{2/\pi} \lVert \nabla f \rVert`. See docs/critics.md for numbers.

    Args:
        critic: :math:`f`, any callable from a batch of samples to scores; called twice.
        x: the points, of shape (B, ...): real or fake samples, or interpolates. Detached.
        args, kwargs: further arguments of the critic.
        weight: factor of the mean, at least 0. It is twice that of :func:`r1_penalty` for the same strength.
        sigma: length of the step in each coordinate, in units of ``x``, above 0.
        target: the directional derivative that is not penalised, at least 0.
        generator: draws :math:`e`; by default PyTorch's generator of the device.

    Returns:
        A scalar; float32 for 16-bit scores, whose differences need ``sigma`` well above their rounding.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: ``x`` is empty, or a number is negative or not finite.

    Source: Lin et al., "Diffusion Adversarial Post-Training for One-Step Video Generation", 2025, section 3.4.
    """
    check_callable("critic", critic)
    check_batch("x", x)
    for name, number in (("weight", weight), ("sigma", sigma), ("target", target)):
        check_number(name, number, minimum=0.0)
    if sigma == 0:
        raise ArgumentValueError("sigma", f"expected a number above 0, got {sigma}")
    check_generator("generator", generator, "x", x)
    with grad_mode(False):
        x = _constant(x)
        noise = torch.randn(x.shape, dtype=accumulate_dtype(x.dtype), device=x.device, generator=generator)
        moved = (x + sigma * noise).to(x.dtype)
    scores, moved_scores = (call_critic(critic, (points,), args, kwargs) for points in (x, moved))
    check_scores("critic", scores)
    check_scores("critic", moved_scores)
    dtype = accumulate_dtype(scores.dtype)
    slopes = (moved_scores.to(dtype) - scores.to(dtype)).reshape(len(x), -1).sum(1) / sigma
    return weight * (slopes.abs() - target).square().mean()


#: Penalties at samples that a loss scores too: whether they are at the real and whether at the fake samples.
AT_SCORED_SAMPLES: dict[Any, tuple[bool, bool]] = {
    r1_penalty: (True, False),
    r2_penalty: (False, True),
    r1_r2_penalty: (True, True),
}


#: Those that take a GradScaler.
SCALED_PENALTIES = {*AT_SCORED_SAMPLES, gradient_penalty, dragan_penalty, wgan_div_penalty}


def scores_and_penalty(
    name: str,
    critic: Callable[..., Tensor],
    samples: Tensor,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    *,
    weight: float = 10.0,
    scaler: torch.amp.GradScaler | None = None,
) -> tuple[Tensor, Tensor]:
    """The scores of samples and the zero-centred penalty at them, differentiable together."""
    return _zero_centred_penalty(name, critic, samples, args, kwargs, weight, scaler, scored=True)


@_uncompiled
def _zero_centred_penalty(
    name: str,
    critic: Callable[..., Tensor],
    samples: Samples,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    weight: float,
    scaler: torch.amp.GradScaler | None,
    scored: bool = False,
) -> tuple[Tensor, Tensor]:
    """The scores, differentiable where they are ``scored``, and the penalty."""
    check_number("weight", weight, minimum=0.0)
    inputs = _inputs(name, samples)
    # A loss scores its samples themselves, as the textbook does.
    points = tuple(point.detach() for point in inputs) if scored else tuple(map(_constant, inputs))
    scores, gradients = evaluate(critic, points, args, kwargs, scaler, scored=scored)
    return scores, _penalise(_joined(gradients), weight / 2)


def _interpolates(real: Samples, fake: Samples, t: Tensor | None, generator: torch.Generator | None) -> Points:
    if not isinstance(real, tuple) and not isinstance(fake, tuple):
        with grad_mode(False):
            return (interpolate(real, fake, t, generator=generator),)
    reals, fakes = _inputs("real", real), _inputs("fake", fake)
    if len(reals) != len(fakes):
        raise ArgumentValueError("fake", f"expected {len(reals)} tensors, as many as real, got {len(fakes)}")
    with grad_mode(False):
        if t is None:
            check_generator("generator", generator, "real", reals[0])
            t = draw_uniform(reals[0], len(reals[0]), generator)
        return tuple(interpolate(one, other, t) for one, other in zip(reals, fakes, strict=True))


def _inputs(name: str, samples: Samples) -> Points:
    """The penalised inputs as a tuple: batches of one size, on one device."""
    if not isinstance(samples, tuple):
        check_batch(name, samples)
        return (samples,)
    if not samples:
        raise ArgumentValueError(name, "expected at least one tensor, got an empty tuple")
    for i, tensor in enumerate(samples):
        check_batch(f"{name}[{i}]", tensor)
        check_same_device(f"{name}[{i}]", tensor, f"{name}[0]", samples[0])
        if len(tensor) != len(samples[0]):
            raise ArgumentValueError(f"{name}[{i}]", f"expected {len(samples[0])} samples, got {len(tensor)}")
    return samples


def _constant(samples: Tensor) -> Tensor:
    """A detached copy: a critic that changes its input in place does not change the user's samples."""
    with grad_mode(False):
        return samples.detach().clone()


def _joined(gradients: Points) -> Tensor:
    """One gradient for each sample, over all inputs."""
    if len(gradients) == 1:
        return gradients[0]
    return torch.cat([gradient.flatten(1) if gradient.dim() > 1 else gradient[:, None] for gradient in gradients], 1)


def _norm_penalty(
    critic: Callable[..., Tensor],
    points: Points,
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
    gradients = evaluate(critic, points, args, kwargs, scaler)[1]
    return _penalise(_joined(gradients), weight, target, power, one_sided)


def _penalise(
    gradient: Tensor, weight: float, target: float = 0.0, power: float = 2.0, one_sided: bool = False
) -> Tensor:
    penalty, norms = operators(gradient.device).gradient_norm_penalty(gradient, weight, target, power, one_sided)
    watched = _watched_norms.get()
    if watched is not None:
        watched.append(norms.detach())
    return penalty


_watched_norms: ContextVar[list[Tensor] | None] = ContextVar("_watched_norms", default=None)


@contextmanager
def watching_norms() -> Iterator[list[Tensor]]:
    """The norms of the gradients that penalties inside the block computed, each of shape (B,), detached."""
    norms: list[Tensor] = []
    token = _watched_norms.set(norms)
    try:
        yield norms
    finally:
        _watched_norms.reset(token)


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
