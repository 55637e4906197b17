"""The operators: interpolation, the penalty on gradient norms, weight clipping. Each takes one pass over memory."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from wgan_fast import reference
from wgan_fast._checks import (
    ArgumentTypeError,
    ArgumentValueError,
    accumulate_dtype,
    check_batch,
    check_flag,
    check_generator,
    check_number,
    check_same_device,
    check_same_shape,
    check_tensor,
    check_weights,
)
from wgan_fast._library import operators, register_fake
from wgan_fast._torch import draw_uniform, local_shard, to_same_dtype

__all__ = [
    "NormPenalty",
    "clip_weights_",
    "gradient_norm_penalty",
    "interpolate",
]


class NormPenalty(NamedTuple):
    """What :func:`gradient_norm_penalty` returns."""

    penalty: Tensor  #: scalar
    norms: Tensor  #: shape (B,), not differentiable


def interpolate(
    real: Tensor, fake: Tensor, t: Tensor | None = None, *, generator: torch.Generator | None = None
) -> Tensor:
    r"""Random points between real and fake samples, one random number for each sample.

    .. math:: \hat{x}_i = t_i \tilde{x}_i + (1 - t_i) x_i, \qquad t_i \sim U(0, 1)

    Args:
        real: the samples :math:`x`, of shape (B, ...).
        fake: the samples :math:`\tilde{x}`, of the same shape, dtype and device. Under autocast another dtype is
            converted to that of ``real``.
        t: B numbers of shape (B,) or (B, 1, ..., 1); None draws them from U(0, 1) on the device of ``real``.
        generator: draws ``t`` where that is None; by default PyTorch's generator of the device.

    Returns:
        The points, of the shape, dtype and memory format of ``real``. 16-bit dtypes are computed in float32.

    Differentiable any number of times with respect to ``real``, ``fake`` and ``t``.

    Raises:
        TypeError: an argument is not a tensor of float16, bfloat16, float32 or float64, or the dtypes differ.
        ValueError: shapes or devices differ, a batch is empty, or ``t`` does not hold one number per sample.

    Source: Gulrajani et al., "Improved Training of Wasserstein GANs", 2017, algorithm 1, line 6. There :math:`t` weighs
    the real sample; as it is uniform, the distribution is the same.
    """
    try:
        # Autocast may convert another dtype, before t is drawn.
        plain = generator is None and real.numel() > 0 and (t is not None or real.dtype is fake.dtype)
        if plain and (compute := operators(real.device)) is not reference:
            return compute.interpolate(real, fake, draw_uniform(real, real.shape[0]) if t is None else t)
    except _REFUSALS:
        pass  # the checks say why
    check_batch("real", real)
    check_batch("fake", fake)
    check_same_shape("fake", fake, "real", real)
    check_same_device("fake", fake, "real", real)
    fake = to_same_dtype("fake", fake, "real", real)
    check_generator("generator", generator, "real", real)
    t = draw_uniform(real, len(real), generator) if t is None else _one_per_sample(t, real)
    return operators(real.device).interpolate(real, fake, t)


#: Whose local shard is the tensor itself.
_PLAIN = frozenset({Tensor, nn.Parameter})

#: What a compiled operator raises where it refuses an argument. The checks in Python, which name the argument and the
#: cure, take longer than the operator does on a small batch, so that they run only then.
_REFUSALS = (TypeError, ValueError, RuntimeError, AttributeError, IndexError)


@register_fake("interpolate")
def _(real: Tensor, fake: Tensor, t: Tensor) -> Tensor:
    torch._check_value(real.device == fake.device == t.device, lambda: "real, fake and t: on different devices")
    return _empty_like_batch(real)


def _empty_like_batch(batch: Tensor) -> Tensor:
    return torch.empty_like(batch, memory_format=torch._prims_common.suggest_memory_format(batch))


def _one_per_sample(t: Tensor, real: Tensor) -> Tensor:
    check_tensor("t", t)
    check_same_device("t", t, "real", real)
    if t.dim() == 0 or t.shape[0] != real.shape[0] or t.numel() != t.shape[0]:
        raise ArgumentValueError(
            "t",
            f"expected shape ({real.shape[0]},) or ({real.shape[0]}, 1, ..., 1), one number per sample, "
            f"got {tuple(t.shape)}",
        )
    dtype = accumulate_dtype(real.dtype)
    return t if t.dim() == 1 and t.dtype == dtype else t.reshape(-1).to(dtype)


def gradient_norm_penalty(
    gradient: Tensor, *, weight: float = 10.0, target: float = 1.0, power: float = 2.0, one_sided: bool = False
) -> NormPenalty:
    r"""The penalty on the norms of the critic's gradients.

    .. math:: \mathrm{weight} \cdot \frac{1}{B} \sum_i \lvert n_i - \mathrm{target} \rvert^{\mathrm{power}},
              \qquad n_i = \lVert \mathrm{gradient}_i \rVert_2

    One-sided, it is :math:`\max(0, n_i - \mathrm{target})^{\mathrm{power}}`. The norm is over all dimensions but the
    first.

    Args:
        gradient: of shape (B, ...).
        weight: factor of the mean, at least 0.
        target: the norm that is not penalised, at least 0.
        power: exponent of the distance to the target, at least 2.
        one_sided: penalise only norms above the target.

    Returns:
        The scalar penalty, and the norms of shape (B,), for monitoring. Both have the gradient's dtype, and float32 for
        16-bit gradients, whose squares are summed in float32.

    The penalty is differentiable any number of times with respect to ``gradient``; where a norm is 0 its derivative is
    the subgradient 0. The order of summation is fixed, so that equal inputs give bitwise equal results.

    Raises:
        TypeError: ``gradient`` is not a tensor of float16, bfloat16, float32 or float64, or a number is not one.
        ValueError: ``gradient`` is empty or a scalar, or a number is negative, infinite or NaN.

    Source: Gulrajani et al. 2017, equation 3; one-sided: Petzka et al., "On the regularization of Wasserstein GANs",
    2018, equation 8.
    """
    try:
        numbers_are_floats = type(weight) is type(target) is type(power) is float and type(one_sided) is bool
        if numbers_are_floats and (compute := operators(gradient.device)) is not reference:
            return NormPenalty(*compute.gradient_norm_penalty(gradient, weight, target, power, one_sided))
    except _REFUSALS:
        pass  # the checks say why
    check_batch("gradient", gradient)
    check_number("weight", weight, minimum=0.0)
    check_number("target", target, minimum=0.0)
    check_number("power", power, minimum=2.0)
    check_flag("one_sided", one_sided)
    return NormPenalty(*operators(gradient.device).gradient_norm_penalty(gradient, weight, target, power, one_sided))


@register_fake("gradient_norm_penalty")
def _(gradient: Tensor, weight: float, target: float, power: float, one_sided: bool) -> tuple[Tensor, Tensor]:
    dtype = accumulate_dtype(gradient.dtype)
    return gradient.new_empty((), dtype=dtype), gradient.new_empty(gradient.shape[0], dtype=dtype)


@register_fake("gradient_norm_penalty_backward")
def _(
    grad_penalty: Tensor,
    gradient: Tensor,
    norms: Tensor,
    weight: float,
    target: float,
    power: float,
    one_sided: bool,
) -> Tensor:
    return _empty_like_batch(gradient)


def clip_weights_(module_or_tensors: nn.Module | Iterable[Tensor], bound: float = 0.01) -> None:
    r"""Clips weights in place, all of them in one pass.

    .. math:: w \leftarrow \min(\max(w, -\mathrm{bound}), \mathrm{bound})

    Args:
        module_or_tensors: a Module, all of whose parameters are clipped, or an iterable of tensors, of any mix of
            shapes, strides, dtypes (float16, bfloat16, float32, float64) and devices. On a GPU one launch clips up to
            1,024 tensors of one dtype, of which up to 32 may be non-contiguous with gaps.
        bound: at least 0; rounded to the dtype of each tensor.

    NaN stays NaN. Autograd does not record the change. Version counters are incremented, so that a backward pass which
    saved the old values raises an error.

    Raises:
        TypeError: the argument is neither a Module nor an iterable, or an element is not a dense floating-point tensor.
        ValueError: there is no tensor to clip (an exhausted iterator, say), ``bound`` is negative or not finite, or
            the elements of a tensor share memory. No tensor has been changed then.

    Source: Arjovsky, Chintala and Bottou, "Wasserstein GAN", 2017, algorithm 1, line 7.
    """
    tensors = _tensors(module_or_tensors)
    try:
        plain = type(bound) is float and _PLAIN.issuperset(map(type, tensors))
        if plain and (compute := operators(tensors[0].device)) is not reference:
            compute.clip_weights_(tensors, bound)
            return
    except _REFUSALS:
        pass  # the checks say why
    check_number("bound", bound, minimum=0.0)
    if not tensors:
        raise ArgumentValueError("module_or_tensors", "expected at least one tensor, got none")
    for i, tensor in enumerate(tensors):
        if not isinstance(tensor, Tensor):
            raise ArgumentTypeError(f"module_or_tensors[{i}]", f"expected a Tensor, got {type(tensor).__name__}")
        if tensor.layout != torch.strided:
            raise ArgumentTypeError(f"module_or_tensors[{i}]", f"expected a dense tensor, got layout {tensor.layout}")
    tensors = [local_shard(tensor) for tensor in tensors]
    if some_on_meta(tensors):
        raise ArgumentValueError("module_or_tensors", SOME_ON_META)
    check_weights("module_or_tensors", tensors)
    operators(*{tensor.device for tensor in tensors}).clip_weights_(tensors, bound)


@register_fake("clip_weights_")
def _(tensors: list[Tensor], bound: float) -> None:
    torch._check_value(not some_on_meta(tensors), lambda: f"tensors: {SOME_ON_META}")


SOME_ON_META = "some tensors are on meta, which holds no values; materialise them first"


def some_on_meta(tensors: Iterable[Tensor]) -> bool:
    """Whether some, and not all, hold no values."""
    return len({tensor.is_meta for tensor in tensors}) > 1


@register_fake("nonfinite")
def _(tensors: list[Tensor]) -> Tensor:
    return tensors[0].new_empty((), dtype=torch.float32)


def _tensors(module_or_tensors: Any) -> list[Any]:
    if type(module_or_tensors) is list:
        return module_or_tensors
    if isinstance(module_or_tensors, nn.Module):
        return list(module_or_tensors.parameters())
    if isinstance(module_or_tensors, Tensor):
        return [module_or_tensors]
    if not isinstance(module_or_tensors, Iterable):
        raise ArgumentTypeError(
            "module_or_tensors", f"expected a Module or an iterable of tensors, got {type(module_or_tensors).__name__}"
        )
    return list(module_or_tensors)
