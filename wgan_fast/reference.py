"""Every operator in plain PyTorch: the specification, the fallback, and the baseline of tests and benchmarks.

The signatures are those of ``torch.ops.wgan_fast``; arguments are checked in :mod:`wgan_fast.ops`.
"""

from collections.abc import Callable, Iterable, Sequence
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wgan_fast._checks import accumulate_dtype

__all__ = [
    "apply_mask",
    "clip_weights_",
    "critic_step",
    "gradient_norm_penalty",
    "gradient_penalty",
    "interpolate",
    "nonfinite",
    "normalization",
    "piecewise_linear",
    "piecewise_linear_",
    "rmsprop_",
    "smooth_activation",
    "smooth_activation_",
]


def interpolate(real: Tensor, fake: Tensor, t: Tensor) -> Tensor:
    """``t_i fake_i + (1 - t_i) real_i`` with one ``t_i`` per sample; ``t`` has shape (B,)."""
    t = t.reshape(-1, *[1] * (real.dim() - 1))
    return (t * fake + (1 - t) * real).to(real.dtype)


def gradient_norm_penalty(
    gradient: Tensor, weight: float, target: float, power: float, one_sided: bool
) -> tuple[Tensor, Tensor]:
    """``weight * mean_i |n_i - target|^power`` and the norms ``n_i = ||gradient_i||_2``, of shape (B,)."""
    rows = gradient.reshape(gradient.shape[0], -1).to(accumulate_dtype(gradient.dtype))
    squares = (rows * rows).sum(dim=1)
    zero = squares == 0
    # The subgradient at a zero norm is 0: the root is taken of 1 there, and the norm then set to 0.
    norms = squares.masked_fill(zero, 1.0).sqrt().masked_fill(zero, 0.0)
    excess = norms - target
    if one_sided:
        excess = excess.clamp(min=0.0)
    return weight * excess.abs().pow(power).mean(), norms.detach()


def piecewise_linear(x: Tensor, negative_slope: float, lower: float, upper: float) -> tuple[Tensor, Tensor]:
    """``x`` strictly between the bounds, else ``c + negative_slope (x - c)`` with the nearer bound c; and the mask, one
    bit for each element, set between the bounds. An infinite bound is no bound.
    """
    wide = x.to(accumulate_dtype(x.dtype))
    below, above = (wide <= lower) & isfinite(lower), (wide >= upper) & isfinite(upper)
    bound = torch.where(below, wide.new_tensor(lower), wide.new_tensor(upper))
    beyond = bound + negative_slope * (wide - bound) if negative_slope else bound
    outside = below | above
    return torch.where(outside, beyond, wide).to(x.dtype), _pack(~outside)


def piecewise_linear_(x: Tensor, negative_slope: float, lower: float, upper: float) -> Tensor:
    """The same in place; returns the mask."""
    y, mask = piecewise_linear(x, negative_slope, lower, upper)
    x.copy_(y)
    return mask


def apply_mask(x: Tensor, mask: Tensor, negative_slope: float, stride: Sequence[int]) -> Tensor:
    """``x`` where the mask is set, else ``negative_slope * x``. ``stride`` is that of the activation's input: the order
    of the mask's bits.
    """
    wide = x.to(accumulate_dtype(x.dtype))
    beyond = negative_slope * wide if negative_slope else torch.zeros_like(wide)
    y = torch.where(_unpack(mask, x.shape, stride), wide, beyond)
    return torch.empty_strided(x.shape, stride, dtype=x.dtype, device=x.device).copy_(y)


def _pack(flags: Tensor) -> Tensor:
    """Eight flags to a byte, in the order of memory, the first in the lowest bit; the last byte is padded with 0."""
    flat = flags.as_strided((flags.numel(),), (1,))
    rows = F.pad(flat, (0, -flat.numel() % 8)).view(-1, 8)
    return (rows << torch.arange(8, device=flags.device)).sum(1).to(torch.uint8)


def _unpack(mask: Tensor, shape: Sequence[int], stride: Sequence[int]) -> Tensor:
    flat = (mask[:, None] >> torch.arange(8, device=mask.device) & 1).bool().flatten()
    return flat.as_strided(shape, stride)


#: Smooth activations, as functions of x and of their parameters.
SMOOTH_ACTIVATIONS: dict[str, Callable[..., Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": lambda x, beta, threshold: F.softplus(x, beta, threshold),
    "elu": torch._C._nn.elu,
    "elu_of_output": torch._C._nn.elu,
    "mish": F.mish,
    "logsigmoid": F.logsigmoid,
    "softsign": F.softsign,
}


def smooth_activation(x: Tensor, kind: str, parameters: Sequence[float]) -> Tensor:
    """The activation of this name. ``parameters``: beta and threshold of softplus; alpha, scale and rate of elu, of
    which SELU and CELU are cases. ``elu_of_output`` saves its output instead of its input.
    """
    return SMOOTH_ACTIVATIONS[kind](x.to(accumulate_dtype(x.dtype)), *parameters).to(x.dtype)


def smooth_activation_(x: Tensor, kind: str, parameters: Sequence[float]) -> None:
    """The same in place."""
    x.copy_(smooth_activation(x, kind, parameters))


def normalization(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, shape: Sequence[int], eps: float, centered: bool
) -> tuple[Tensor, Tensor]:
    """``(x - mean) / sqrt(variance + eps)``, times weight plus bias, over rows of ``channels * inner`` elements; and
    the rows' mean, in two parts, and ``1 / sqrt(variance + eps)``. ``shape``: groups, channels and inner elements. A
    channel of a group has one weight. Not centred, the mean is 0.
    """
    wide = x.to(accumulate_dtype(x.dtype)).reshape(-1, *shape)
    mean = wide.mean((2, 3), keepdim=True) if centered else wide.new_zeros(wide.shape[0], shape[0], 1, 1)
    r = ((wide - mean).square().mean((2, 3), keepdim=True) + eps).rsqrt()
    y = (wide - mean) * r
    if weight is not None:
        y = y * weight.view(1, shape[0], shape[1], 1)
    if bias is not None:
        y = y + bias.view(1, shape[0], shape[1], 1)
    statistics = torch.stack([mean.flatten(), torch.zeros_like(mean).flatten(), r.flatten()], 1)
    return y.reshape(x.shape).to(x.dtype), statistics.detach()


def clip_weights_(tensors: Iterable[Tensor], bound: float) -> None:
    """``w <- min(max(w, -bound), bound)`` in place."""
    with torch.no_grad():
        for tensor in tensors:
            if bound <= torch.finfo(tensor.dtype).max:  # a larger bound clips nothing, and clamp_ refuses it
                tensor.clamp_(-bound, bound)


def nonfinite(tensors: Sequence[Tensor]) -> Tensor:
    """1 if an element of a tensor is infinite or NaN, else 0."""
    return torch.stack([tensor.isfinite().all() for tensor in tensors]).all().logical_not().float()


def rmsprop_(
    params: Iterable[Tensor],
    grads: Iterable[Tensor],
    square_averages: Iterable[Tensor],
    lr: Tensor,
    alpha: float,
    eps: float,
    weight_decay: float,
    maximize: bool,
    clip: float,
    grad_scale: Tensor | None,
    found_inf: Tensor | None,
) -> None:
    """``v <- alpha v + (1 - alpha) g^2``, then ``w <- clip(w - lr g / (sqrt(v) + eps))``, in place. If ``found_inf`` is
    not 0, nothing is changed; an infinite ``clip`` clips nothing.
    """
    with torch.no_grad():
        for weight, gradient, square_average in zip(params, grads, square_averages, strict=True):
            device, arithmetic = weight.device, accumulate_dtype(weight.dtype)
            w, g, v = (tensor.to(arithmetic) for tensor in (weight, gradient, square_average))
            if grad_scale is not None:
                g = g * grad_scale.to(device, arithmetic).reciprocal()
            if maximize:
                g = -g
            if weight_decay:
                g = g + weight_decay * w
            v = alpha * v + (1 - alpha) * (g * g)
            w = (w - lr.to(device, arithmetic) * (g / (v.sqrt() + eps))).to(weight.dtype)
            clip_weights_([w], clip)
            if found_inf is not None:
                skipped = found_inf.to(device) != 0
                w, v = torch.where(skipped, weight, w), torch.where(skipped, square_average, v.to(weight.dtype))
            weight.copy_(w)
            square_average.copy_(v)


def gradient_penalty(
    critic: Callable[..., Tensor],
    real: Tensor,
    fake: Tensor,
    *args: Any,
    weight: float = 10.0,
    target: float = 1.0,
    one_sided: bool = False,
    t: Tensor | None = None,
    **kwargs: Any,
) -> Tensor:
    """The gradient penalty as most repositories have it, without their usual mistakes."""
    real, fake = real.detach(), fake.detach()
    if t is None:
        t = torch.rand(real.shape[0], device=real.device, dtype=accumulate_dtype(real.dtype))
    points = interpolate(real, fake, t.reshape(-1)).requires_grad_()
    scores = critic(points, *args, **kwargs)
    (gradient,) = torch.autograd.grad(scores, points, torch.ones_like(scores), create_graph=True)
    norms = gradient.flatten(1).norm(2, dim=1)
    excess = (norms - target).clamp(min=0.0) if one_sided else norms - target
    return weight * (excess**2).mean()


def critic_step(
    critic: nn.Module,
    optimizer: torch.optim.Optimizer,
    real: Tensor,
    fake: Tensor,
    *args: Any,
    penalty: Callable[..., Tensor] = gradient_penalty,
) -> Tensor:
    """The textbook update of a critic: real and fake samples scored one after the other, one backward pass. Returns
    loss, Wasserstein estimate and penalty, computed before the update.
    """
    optimizer.zero_grad()
    wasserstein = critic(real, *args).mean() - critic(fake, *args).mean()
    penalised = penalty(critic, real, fake, *args)
    loss = penalised - wasserstein
    loss.backward()
    optimizer.step()
    return torch.stack([loss, wasserstein, penalised]).detach()
