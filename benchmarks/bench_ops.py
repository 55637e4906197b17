"""A warm call of each operator against its plain-PyTorch reference and the strongest alternative."""

from collections.abc import Callable
from math import inf

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from conftest import Comparison
from wgan_fast import clip_weights_, interpolate, reference
from wgan_fast._critic.layers import CriticLayers
from wgan_fast.ops import gradient_norm_penalty

SHAPES = {
    "toy": (256, 2),
    "tabular": (500, 300),
    "mnist": (64, 1, 28, 28),
    "image": (64, 3, 64, 64),
    "few long rows": (4, 1_000_000),
    "many short rows": (1_000_000, 2),
}
# Outputs of a critic's layers.
ACTIVATIONS = {
    "toy": (256, 512),
    "mnist": (64, 64, 14, 14),
    "image": (64, 64, 32, 32),
}
#: Lists of weights: (count, size).
WEIGHTS = {"60 x 20,000": (60, 20_000), "8 x 500": (8, 500), "4 x 2,000,000": (4, 2_000_000)}
sizes = pytest.mark.parametrize("size", SHAPES)
dtypes = pytest.mark.parametrize("dtype", ["float32", "bfloat16"])


@sizes
@dtypes
def bench_interpolate(compare: Comparison, size: str, dtype: str) -> None:
    shape = SHAPES[size]
    real, fake = torch.randn(2, *shape).to(compare.device, getattr(torch, dtype))
    t = torch.rand(shape[0], device=compare.device)
    t_rows = t.to(real.dtype).view(-1, *[1] * (len(shape) - 1))
    compare(
        lambda: interpolate(real, fake, t),
        bytes_moved=3 * real.nbytes,
        reference=lambda: reference.interpolate(real, fake, t),
        lerp=lambda: torch.lerp(real, fake, t_rows),
    )


@sizes
@dtypes
def bench_gradient_norm_penalty(compare: Comparison, size: str, dtype: str) -> None:
    """The penalty and its derivative."""
    gradient = torch.randn(SHAPES[size]).to(compare.device, getattr(torch, dtype)).requires_grad_()

    def textbook() -> Tensor:
        return 10.0 * ((gradient.flatten(1).norm(2, dim=1) - 1.0) ** 2).mean()

    def derivative(penalty: Tensor) -> Tensor:
        return torch.autograd.grad(penalty, gradient)[0]

    compare(
        lambda: derivative(gradient_norm_penalty(gradient).penalty),
        bytes_moved=3 * gradient.nbytes,
        reference=lambda: derivative(reference.gradient_norm_penalty(gradient, 10.0, 1.0, 2.0, False)[0]),
        textbook=lambda: derivative(textbook()),
    )


@pytest.mark.parametrize("size", ACTIVATIONS)
@dtypes
def bench_piecewise_linear(compare: Comparison, size: str, dtype: str) -> None:
    """LeakyReLU and its derivative."""
    x, grad = torch.randn(2, *ACTIVATIONS[size]).to(compare.device, getattr(torch, dtype))
    x = x.detach().requires_grad_()

    def derivative(y: Tensor) -> Tensor:
        return torch.autograd.grad(y, x, grad)[0]

    def plain() -> Tensor:
        mask = reference.piecewise_linear(x.detach(), 0.2, 0.0, inf)[1]
        return reference.apply_mask(grad, mask, 0.2, x.stride())

    compare(
        lambda: derivative(torch.ops.wgan_fast.piecewise_linear(x, 0.2, 0.0, inf)[0]),
        bytes_moved=4 * x.nbytes + 2 * x.numel() // 8,
        reference=plain,
        leaky_relu=lambda: derivative(F.leaky_relu(x, 0.2)),
    )


CURVED: dict[str, Callable[[Tensor], Tensor]] = {
    "layer_norm": lambda x: F.layer_norm(x, x.shape[1:]),
    "instance_norm": lambda x: F.instance_norm(x if x.dim() > 2 else x[:, None]),
    "silu": F.silu,
    "gelu": F.gelu,
}


@pytest.mark.parametrize("size", ACTIVATIONS)
@pytest.mark.parametrize("layer", CURVED)
def bench_curved_layer(compare: Comparison, layer: str, size: str) -> None:
    """Value, first and second derivative of a normalisation or a smooth activation."""
    x, grad, along = torch.randn(3, *ACTIVATIONS[size], device=compare.device).unbind()
    x.requires_grad_()
    grad.requires_grad_()

    def derivatives(y: Tensor) -> None:
        (first,) = torch.autograd.grad(y, x, grad.view_as(y), create_graph=True)
        torch.autograd.grad(first, (x, grad), along)

    def ours() -> None:
        with CriticLayers():
            y = CURVED[layer](x)
        derivatives(y)

    compare(ours, bytes_moved=(2 + 3 + 5) * x.nbytes, pytorch=lambda: derivatives(CURVED[layer](x)))


@pytest.mark.parametrize("size", WEIGHTS)
@dtypes
def bench_clip_weights_(compare: Comparison, size: str, dtype: str) -> None:
    count, numbers = WEIGHTS[size]
    weights = [torch.randn(numbers).to(compare.device, getattr(torch, dtype)) for _ in range(count)]

    def foreach() -> None:
        torch._foreach_clamp_min_(weights, -0.01)
        torch._foreach_clamp_max_(weights, 0.01)

    compare(
        lambda: clip_weights_(weights, 0.01),
        bytes_moved=2 * sum(weight.nbytes for weight in weights),
        reference=lambda: reference.clip_weights_(weights, 0.01),
        foreach=foreach,
    )
