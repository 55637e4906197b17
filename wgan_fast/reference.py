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
    # At a zero norm the subgradient is 0: the root is kept away from its pole, then the norm is put back.
    norms = squares.masked_fill(zero, 1.0).sqrt().masked_fill(zero, 0.0)
    excess = norms - target
    if one_sided:
        excess = excess.clamp(min=0.0)
    return weight * excess.abs().pow(power).mean(), norms.detach()


def piecewise_linear(x: Tensor, closed_slope: float, lower: float, upper: float) -> tuple[Tensor, Tensor]:
    """``x`` between the bounds, from a bound c on ``c + closed_slope (x - c)``; and the gates, a bit for each element,
    which are open between the bounds. An infinite bound is none.
    """
    wide = x.to(accumulate_dtype(x.dtype))
    below, above = (wide <= lower) & isfinite(lower), (wide >= upper) & isfinite(upper)
    bound = torch.where(below, wide.new_tensor(lower), wide.new_tensor(upper))
    beyond = bound + closed_slope * (wide - bound) if closed_slope else bound
    closed = below | above
    return torch.where(closed, beyond, wide).to(x.dtype), _pack(~closed)


def piecewise_linear_(x: Tensor, closed_slope: float, lower: float, upper: float) -> Tensor:
    """The same in place; returns the gates."""
    y, gates = piecewise_linear(x, closed_slope, lower, upper)
    x.copy_(y)
    return gates


def gate(x: Tensor, gates: Tensor, closed_slope: float, stride: Sequence[int]) -> Tensor:
    """``x`` where the gates are open, else ``closed_slope * x``. ``stride`` is that of what the gates came from."""
    wide = x.to(accumulate_dtype(x.dtype))
    beyond = closed_slope * wide if closed_slope else torch.zeros_like(wide)
    y = torch.where(_unpack(gates, x.shape, stride), wide, beyond)
    return torch.empty_strided(x.shape, stride, dtype=x.dtype, device=x.device).copy_(y)


def _pack(flags: Tensor) -> Tensor:
    """Eight flags to a byte, in the order of memory, the first to the lowest bit; the last byte is filled up with 0."""
    flat = flags.as_strided((flags.numel(),), (1,))
    rows = F.pad(flat, (0, -flat.numel() % 8)).view(-1, 8)
    return (rows << torch.arange(8, device=flags.device)).sum(1).to(torch.uint8)


def _unpack(gates: Tensor, shape: Sequence[int], stride: Sequence[int]) -> Tensor:
    flat = (gates[:, None] >> torch.arange(8, device=gates.device) & 1).bool().flatten()
    return flat.as_strided(shape, stride)


def clip_weights_(tensors: Iterable[Tensor], bound: float) -> None:
    """``w <- min(max(w, -bound), bound)`` in place."""
    with torch.no_grad():
        for tensor in tensors:
            if bound <= torch.finfo(tensor.dtype).max:  # a larger bound clips nothing, and clamp_ refuses it
                tensor.clamp_(-bound, bound)


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
    """``v <- alpha v + (1 - alpha) g^2``, then ``w <- clip(w - lr g / (sqrt(v) + eps))``, in place. Nothing happens
    where ``found_inf`` is not 0; an infinite ``clip`` is none.
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
    """The textbook gradient penalty, as it is copied from repository to repository, without its usual mistakes."""
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
