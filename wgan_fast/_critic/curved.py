"""Smooth activations and normalisation of a critic inside a penalty. PyTorch composes their second derivative of many
passes over memory; here each derivative is one kernel, and is differentiable again.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from wgan_fast._checks import accumulate_dtype
from wgan_fast._library import extension, register_fake

# ruff: noqa: A002, A006  the names are PyTorch's

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


@register_fake("normalization")
def _(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, shape: list[int], eps: float, centered: bool
) -> tuple[Tensor, Tensor]:
    rows = x.numel() // (shape[1] * shape[2])
    return _contiguous(x), x.new_empty((rows, 3), dtype=accumulate_dtype(x.dtype))


@register_fake("normalization_backward")
def _(
    grad: Tensor,
    x: Tensor,
    statistics: Tensor,
    weight: Tensor | None,
    shape: list[int],
    eps: float,
    centered: bool,
    mask: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    of_weight, of_bias = (x.new_empty(shape[0] * shape[1] if wanted else 0) for wanted in mask[1:])
    return _contiguous(x) if mask[0] else x.new_empty(0), of_weight, of_bias


@register_fake("normalization_double_backward")
def _(
    grad_grad: Tensor,
    grad: Tensor,
    x: Tensor,
    statistics: Tensor,
    weight: Tensor | None,
    shape: list[int],
    eps: float,
    centered: bool,
    weight_wanted: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return _contiguous(x), _contiguous(x), x.new_empty(shape[0] * shape[1] if weight_wanted else 0)


def _contiguous(x: Tensor) -> Tensor:
    return x.new_empty(x.shape)


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
    if not inplace:
        return _C.smooth_activation(input, "elu", (alpha, scale, input_scale), False)
    if alpha <= 0 or scale <= 0 or input_scale <= 0:  # the derivative must be a function of the output
        return None
    return _C.smooth_activation(input, "elu_of_output", (alpha, scale, input_scale), True)


def _elu_(input: Tensor, alpha: float = 1.0) -> Tensor | None:
    return _elu(input, alpha, True)


def _scaled_elu_(input: Tensor, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Tensor | None:
    return _scaled_elu(input, alpha, scale, input_scale, True)


def _selu(input: Tensor, inplace: bool = False) -> Tensor | None:
    return _scaled_elu(input, 1.6732632423543772848170429916717, 1.0507009873554804934193349852946, 1.0, inplace)


def _selu_(input: Tensor) -> Tensor | None:
    return _selu(input, True)


def _celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor | None:
    return _scaled_elu(input, alpha, 1.0, 1.0 / alpha, inplace) if alpha != 0 else None


def _celu_(input: Tensor, alpha: float = 1.0) -> Tensor | None:
    return _celu(input, alpha, True)


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor | None:
    """In eval mode: affine for each channel, and seen as such by the graph's analysis."""
    if training or running_mean is None or running_var is None or not _C.is_plain(input):
        return None
    if input.dim() < 2 or any(one is not None and one.dtype != input.dtype for one in (running_mean, weight, bias)):
        return None
    scale = (running_var.to(accumulate_dtype(input.dtype)) + eps).rsqrt()  # in 16 bits a large mean would lose digits
    if weight is not None:
        scale = weight * scale
    shift = -running_mean * scale if bias is None else bias - running_mean * scale
    per_channel = (-1, *[1] * (input.dim() - 2))
    return (input * scale.view(per_channel) + shift.view(per_channel)).to(input.dtype)


def _layer_norm(
    input: Tensor,
    normalized_shape: Any,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enable: bool = True,
) -> Tensor | None:
    return _over_last_dimensions(input, normalized_shape, weight, bias, eps, True)


def _rms_norm(
    input: Tensor, normalized_shape: Any, weight: Tensor | None = None, eps: float | None = None
) -> Tensor | None:
    if eps is None:
        if input.dtype not in (torch.float32, torch.float64):
            return None
        eps = torch.finfo(input.dtype).eps
    return _over_last_dimensions(input, normalized_shape, weight, None, eps, False)


def _over_last_dimensions(
    input: Tensor, normalized_shape: Any, weight: Tensor | None, bias: Tensor | None, eps: float, centered: bool
) -> Tensor | None:
    shape = torch.Size(normalized_shape)
    if not shape or input.shape[-len(shape) :] != shape:
        return None
    if any(parameter is not None and parameter.shape != shape for parameter in (weight, bias)):
        return None
    result = _C.normalization(input, weight, bias, (1, shape.numel(), 1), eps, centered)
    return None if result is None else result[0]


def _group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    cudnn_enabled: bool = True,
) -> Tensor | None:
    if input.dim() < 2 or num_groups < 1 or input.shape[1] % num_groups:
        return None
    shape = (num_groups, input.shape[1] // num_groups, input.shape[2:].numel())
    result = _C.normalization(input, weight, bias, shape, eps, True)
    if result is None:
        return None
    return result[0].contiguous(memory_format=torch._prims_common.suggest_memory_format(input))


def _instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor | None:
    if not use_input_stats:
        evaluated = _batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
        return None if evaluated is None else evaluated.contiguous()
    if input.dim() < 3 or (inner := input.shape[2:].numel()) < 2:  # PyTorch's error
        return None
    channels = input.shape[1]
    result = _C.normalization(input, weight, bias, (channels, 1, inner), eps, True)
    if result is None:
        return None
    y, statistics = result
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            mean, rest, r = statistics.view(-1, channels, 3).unbind(2)
            variance = (1 / (r * r) - eps) * (inner / (inner - 1))
            running_mean.lerp_((mean + rest).mean(0).to(running_mean.dtype), momentum)
            running_var.lerp_(variance.mean(0).to(running_var.dtype), momentum)
    return y


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
    _replace(_layer_norm, F.layer_norm, torch.layer_norm)
    _replace(_rms_norm, F.rms_norm, torch.rms_norm)
    _replace(_group_norm, F.group_norm, torch.group_norm)
    _replace(_instance_norm, F.instance_norm)
    _replace(_batch_norm, F.batch_norm)
