"""How a critic's layers are called inside a penalty: without work that nobody reads, and always twice differentiable."""

from collections.abc import Callable
from math import inf
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from wgan_fast._library import extension

Layer = Callable[..., Any]


class CriticMode(TorchFunctionMode):
    """While it is active, layers and activations are the library's own: the same outputs and gradients, in place where the
    caller asked for it.

    - Linear layers and convolutions can let go of their input.
    - Piecewise-linear activations keep one bit for each element.
    - Attention and recurrent layers take the implementation that PyTorch can differentiate twice.

    What the library's operators do not know (a subclass of Tensor, a layout with gaps, a transform) stays PyTorch's.
    """

    def __torch_function__(
        self, func: Layer, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _LAYERS and _PLAIN.issuperset(types):  # a subclass of Tensor has its own idea of every function
            output = _LAYERS[func](*args, **kwargs)
            return func(*args, **kwargs) if output is None else output
        if func in _ATTENTION:
            with sdpa_kernel(SDPBackend.MATH):
                return func(*args, **kwargs)
        if func in _RECURRENT:
            with torch.backends.cudnn.flags(enabled=False):
                return func(*args, **kwargs)
        return func(*args, **kwargs)


# Each takes the arguments of PyTorch's function, and gives its result, or None where it does not know it.


def _relu(input: Tensor, inplace: bool = False) -> Tensor | None:
    return extension.activation(input, 0.0, 0.0, inf, inplace)


def _relu_(input: Tensor) -> Tensor | None:
    return extension.activation(input, 0.0, 0.0, inf, True)


def _leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor | None:
    return extension.activation(input, negative_slope, 0.0, inf, inplace)


def _leaky_relu_(input: Tensor, negative_slope: float = 0.01) -> Tensor | None:
    return extension.activation(input, negative_slope, 0.0, inf, True)


def _hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor | None:
    return extension.activation(input, 0.0, min_val, max_val, inplace)


def _hardtanh_(input: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor | None:
    return extension.activation(input, 0.0, min_val, max_val, True)


def _relu6(input: Tensor, inplace: bool = False) -> Tensor | None:
    return extension.activation(input, 0.0, 0.0, 6.0, inplace)


def _relu6_(input: Tensor) -> Tensor | None:
    return extension.activation(input, 0.0, 0.0, 6.0, True)


def _rrelu(
    input: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False, inplace: bool = False
) -> Tensor | None:
    return None if training else extension.activation(input, (lower + upper) / 2, 0.0, inf, inplace)


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor | None:
    return extension.linear(input, weight, bias)


def _convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor | None:
    if isinstance(padding, str):
        padding = _symmetric(padding, weight.shape[2:], _numbers(dilation))
        if padding is None:
            return None
    return extension.convolution(
        input, weight, bias, _numbers(stride), _numbers(padding), _numbers(dilation), False, (0,), groups
    )


def _transposed_convolution(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor | None:
    return extension.convolution(
        input,
        weight,
        bias,
        _numbers(stride),
        _numbers(padding),
        _numbers(dilation),
        True,
        _numbers(output_padding),
        groups,
    )


def _prelu(input: Tensor, weight: Tensor) -> Tensor | None:
    return extension.prelu(input, weight)


def _numbers(value: Any) -> tuple[int, ...]:
    return (value,) if isinstance(value, int) else tuple(value)


def _symmetric(padding: str, kernel: torch.Size, dilation: tuple[int, ...]) -> tuple[int, ...] | None:
    """The numbers that the word ``padding`` stands for, if it is the same on both sides."""
    if padding == "valid":
        return (0,)
    total = [d * (k - 1) for k, d in zip(kernel, dilation * (len(kernel) // len(dilation)), strict=True)]
    return None if padding != "same" or any(n % 2 for n in total) else tuple(n // 2 for n in total)


_PLAIN = {Tensor, torch.nn.Parameter}
_nn = torch._C._nn
_LAYERS: dict[Layer, Layer] = {}
if extension is not None:
    _LAYERS = {
        F.linear: _linear,
        **dict.fromkeys((torch.conv1d, torch.conv2d, torch.conv3d), _convolution),
        **dict.fromkeys(
            (torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d), _transposed_convolution
        ),
        **dict.fromkeys((F.relu, torch.relu, Tensor.relu), _relu),
        **dict.fromkeys((torch.relu_, Tensor.relu_), _relu_),
        **dict.fromkeys((F.leaky_relu, _nn.leaky_relu), _leaky_relu),
        _nn.leaky_relu_: _leaky_relu_,
        **dict.fromkeys((F.hardtanh, _nn.hardtanh), _hardtanh),
        _nn.hardtanh_: _hardtanh_,
        **dict.fromkeys((F.relu6, _nn.relu6), _relu6),
        _nn.relu6_: _relu6_,
        **dict.fromkeys((torch.prelu, Tensor.prelu), _prelu),
        F.rrelu: _rrelu,
    }
_ATTENTION = {F.scaled_dot_product_attention, F.multi_head_attention_forward}
_RECURRENT = {torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu}
