"""Smooth activations of a critic inside a penalty. PyTorch composes their second derivative of many passes over memory;
here each derivative is one kernel, and is differentiable again.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from wgan_fast._library import extension, register_fake

# ruff: noqa: A002  the names are PyTorch's

Layer = Callable[..., Any]
_C: Any = extension
_nn = torch._C._nn


@register_fake("smooth_activation")
def _(x: Tensor, kind: str, parameters: list[float]) -> Tensor:
    return torch.empty_like(x)


@register_fake("smooth_activation_")
def _(x: Tensor, kind: str, parameters: list[float]) -> None:
    pass


@register_fake("smooth_activation_backward")
def _(grad: Tensor, saved: Tensor, kind: str, parameters: list[float], order: int) -> Tensor:
    return torch.empty_like(saved)


@register_fake("smooth_activation_double_backward")
def _(grad_grad: Tensor, grad: Tensor, saved: Tensor, kind: str, parameters: list[float]) -> tuple[Tensor, Tensor]:
    return torch.empty_like(saved), torch.empty_like(saved)


# Each takes the arguments of PyTorch's function. It returns the result, or None: then PyTorch's function is called.


def _plain(kind: str) -> Layer:
    return lambda input: _C.smooth_activation(input, kind, (), False)


def _plain_(kind: str) -> Layer:
    return lambda input: _C.smooth_activation(input, kind, (), True)


def _optionally_in_place(kind: str) -> Layer:
    return lambda input, inplace=False: _C.smooth_activation(input, kind, (), inplace)


def _gelu(input: Tensor, *, approximate: str = "none") -> Tensor | None:
    kind = {"none": "gelu", "tanh": "gelu_tanh"}.get(approximate)
    return None if kind is None else _C.smooth_activation(input, kind, (), False)


def _softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor | None:
    return _C.smooth_activation(input, "softplus", (beta, threshold), False) if beta > 0 else None


def _elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor | None:
    return _scaled_elu(input, alpha, 1.0, 1.0, inplace)


def _scaled_elu(
    input: Tensor, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0, inplace: bool = False
) -> Tensor | None:
    if alpha <= 0 or scale <= 0 or input_scale <= 0:  # the derivative must be a function of the output
        return None
    return _C.smooth_activation(input, "elu", (alpha, scale, input_scale), inplace)


def _elu_(input: Tensor, alpha: float = 1.0) -> Tensor | None:
    return _elu(input, alpha, True)


def _scaled_elu_(input: Tensor, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Tensor | None:
    return _scaled_elu(input, alpha, scale, input_scale, True)


def _selu(input: Tensor, inplace: bool = False) -> Tensor | None:
    return _scaled_elu(input, 1.6732632423543772848170429916717, 1.0507009873554804934193349852946, 1.0, inplace)


def _selu_(input: Tensor) -> Tensor | None:
    return _selu(input, True)


def _celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor | None:
    return _scaled_elu(input, alpha, 1.0, 1.0 / alpha, inplace) if alpha > 0 else None


def _celu_(input: Tensor, alpha: float = 1.0) -> Tensor | None:
    return _celu(input, alpha, True)


LAYERS: dict[Layer, Layer] = {}


def _replace(layer: Layer, *functions: Layer) -> None:
    LAYERS.update(dict.fromkeys(functions, layer))


if _C is not None:
    _replace(_optionally_in_place("silu"), F.silu, _nn.silu)
    _replace(_plain_("silu"), _nn.silu_)
    _replace(_gelu, F.gelu)
    _replace(_plain("tanh"), torch.tanh, Tensor.tanh, F.tanh)
    _replace(_plain_("tanh"), torch.tanh_, Tensor.tanh_)
    _replace(_plain("sigmoid"), torch.sigmoid, Tensor.sigmoid, torch.special.expit, F.sigmoid)
    _replace(_plain_("sigmoid"), torch.sigmoid_, Tensor.sigmoid_)
    _replace(_softplus, F.softplus)
    _replace(_elu, F.elu)
    _replace(_elu_, F.elu_)
    _replace(_scaled_elu, _nn.elu)
    _replace(_scaled_elu_, _nn.elu_)
    _replace(_selu, F.selu, torch.selu)
    _replace(_selu_, torch.selu_)
    _replace(_celu, F.celu, torch.celu)
    _replace(_celu_, torch.celu_)
    _replace(_optionally_in_place("mish"), F.mish, _nn.mish)
    _replace(_plain_("mish"), _nn.mish_)
    _replace(_plain("logsigmoid"), F.logsigmoid)
    _replace(_plain("softsign"), F.softsign)
