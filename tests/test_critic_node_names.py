"""PyTorch still gives its backward nodes the names that csrc/critic/linearity.cpp knows.

A name that is gone makes the critic curved: same gradients, but 6 forwards where 4 would do.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

SOURCE = (Path(__file__).parents[1] / "csrc" / "critic" / "linearity.cpp").read_text()
TABLES = re.search(r"LINEAR\[\] = \{.*?(?=constexpr const char\* ADDING)", SOURCE, re.DOTALL)
assert TABLES is not None
KNOWN = {word for text in re.findall(r'"([^"]+)"', TABLES[0]) for word in text.split()}
KNOWN |= {"Addmm", "Baddbmm", "Div", "Abs", "PreluKernel"}

x = torch.randn(4, 4, requires_grad=True)
line, image, volume = (torch.randn(2, 4, *[8] * n, requires_grad=True) for n in (1, 2, 3))
batch = torch.randn(2, 4, 4, requires_grad=True)
chosen = torch.tensor([0, 1])
aten = torch.ops.aten
CALLS: dict[str, Callable[[], Tensor | tuple[Tensor, ...]]] = {
    "Add": lambda: x + x,
    "Alias": lambda: aten.alias(x),
    "Clamp": lambda: x.clamp(-1, 1),
    "ClampMax": lambda: x.clamp_max(1),
    "ClampMin": lambda: x.clamp_min(1),
    "Clone": lambda: x.clone(),
    "Expand": lambda: x[:1].expand(3, 4),
    "MaskedFill": lambda: x.masked_fill(x > 0, 0.0),
    "Maximum": lambda: torch.maximum(x, -x),
    "Minimum": lambda: torch.minimum(x, -x),
    "NativeDropout": lambda: torch.native_dropout(x, 0.5, True)[0],
    "Neg": lambda: -x,
    "Rsub": lambda: torch.rsub(x, 1.0),
    "Sub": lambda: x - 1.0,
    "ToCopy": lambda: x.to(torch.float64),
    "Where": lambda: torch.where(x > 0, x, -x),
    "ReshapeAlias": lambda: aten._reshape_alias(x, [16], [1]),
    "Squeeze": lambda: x[:1].squeeze(0),
    "UnsafeView": lambda: aten._unsafe_view(x, [16]),
    "Unsqueeze": lambda: x.unsqueeze(0),
    "View": lambda: x.view(16),
    "ConstantPadNd": lambda: F.pad(x, (1, 1)),
    "Im2Col": lambda: F.unfold(image, 2),
    "PixelShuffle": lambda: F.pixel_shuffle(image, 2),
    "PixelUnshuffle": lambda: F.pixel_unshuffle(image, 2),
    "UpsampleBilinear2D": lambda: F.interpolate(image, scale_factor=2, mode="bilinear"),
    "UpsampleLinear1D": lambda: F.interpolate(line, scale_factor=2, mode="linear"),
    "UpsampleNearest1D": lambda: F.interpolate(line, scale_factor=2),
    "UpsampleNearest2D": lambda: F.interpolate(image, scale_factor=2),
    "UpsampleNearest3D": lambda: F.interpolate(volume, scale_factor=2),
    "Amax": lambda: x.amax(1),
    "Amin": lambda: x.amin(1),
    "Cat": lambda: torch.cat([x, x]),
    "Cumsum": lambda: x.cumsum(1),
    "Flip": lambda: x.flip(1),
    "Gather": lambda: x.gather(1, chosen[:, None]),
    "IndexSelect": lambda: x.index_select(1, chosen),
    "Max": lambda: x.max(1)[0],
    "Mean": lambda: x.mean(1),
    "Median": lambda: x.median(1)[0],
    "Min": lambda: x.min(1)[0],
    "Roll": lambda: x.roll(1, 1),
    "Select": lambda: x.select(1, 0),
    "Slice": lambda: x[:, 1:],
    "Sort": lambda: x.sort(1)[0],
    "Split": lambda: x.split(2, 1),
    "SplitWithSizes": lambda: x.split([1, 3], 1),
    "Stack": lambda: torch.stack([x, x]),
    "Sum": lambda: x.sum(1),
    "Topk": lambda: x.topk(2, 1)[0],
    "Unbind": lambda: x.unbind(1),
    "UnsafeSplit": lambda: torch.unsafe_split(x, 2, 1),
    "Permute": lambda: x.permute(1, 0),
    "Transpose": lambda: x.transpose(0, 1),
    "AsStrided": lambda: x.as_strided((2,), (1,)),
    "Diagonal": lambda: x.diagonal(),
    "Index": lambda: x[chosen],
    "Repeat": lambda: x.repeat(2, 1),
    "T": lambda: x.t(),
    "Tril": lambda: x.tril(),
    "Triu": lambda: x.triu(),
    "Unfold": lambda: x.unfold(1, 2, 1),
    "Mul": lambda: x * x,
    "Bmm": lambda: batch @ batch,
    "Convolution": lambda: F.conv2d(image, torch.randn(1, 4, 3, 3)),
    "Mm": lambda: x @ x,
    "Mv": lambda: x @ x[0],
    "Hardshrink": lambda: F.hardshrink(x),
    "Hardtanh": lambda: F.hardtanh(x),
    "LeakyRelu": lambda: F.leaky_relu(x),
    "Relu": lambda: F.relu(x),
    "RreluWithNoise": lambda: F.rrelu(x, training=True),
    "Softshrink": lambda: F.softshrink(x),
    "Threshold": lambda: F.threshold(x, 0.0, 0.0),
    "AdaptiveAvgPool2D": lambda: F.adaptive_avg_pool2d(image, 2),
    "AdaptiveAvgPool3D": lambda: F.adaptive_avg_pool3d(volume, 2),
    "AdaptiveMaxPool2D": lambda: F.adaptive_max_pool2d(image, 2),
    "AdaptiveMaxPool3D": lambda: F.adaptive_max_pool3d(volume, 2),
    "AvgPool2D": lambda: F.avg_pool2d(image, 2),
    "AvgPool3D": lambda: F.avg_pool3d(volume, 2),
    "FractionalMaxPool2D": lambda: F.fractional_max_pool2d(image, 2, output_size=3),
    "FractionalMaxPool3D": lambda: F.fractional_max_pool3d(volume, 2, output_size=3),
    "MaxPool2DWithIndices": lambda: F.max_pool2d(image, 2),
    "MaxPool3DWithIndices": lambda: F.max_pool3d(volume, 2),
    "ReflectionPad1D": lambda: F.pad(line, (1, 1), "reflect"),
    "ReflectionPad2D": lambda: F.pad(image, (1, 1, 1, 1), "reflect"),
    "ReflectionPad3D": lambda: F.pad(volume, (1, 1, 1, 1, 1, 1), "reflect"),
    "ReplicationPad1D": lambda: F.pad(line, (1, 1), "replicate"),
    "ReplicationPad2D": lambda: F.pad(image, (1, 1, 1, 1), "replicate"),
    "ReplicationPad3D": lambda: F.pad(volume, (1, 1, 1, 1, 1, 1), "replicate"),
    "Addmm": lambda: F.linear(x, x, x[0]),
    "Baddbmm": lambda: torch.baddbmm(batch, batch, batch),
    "Div": lambda: x / x,
    "Abs": lambda: x.abs(),
    "PreluKernel": lambda: F.prelu(x, torch.ones(4)),
}


def nodes_of(result: Tensor | tuple[Tensor, ...]) -> Iterator[str]:
    """The names of all nodes behind a result."""
    tensor = result if isinstance(result, Tensor) else result[0]
    todo = [tensor.grad_fn]
    while todo:
        if (node := todo.pop()) is not None:
            yield node.name()
            todo += [following for following, _ in node.next_functions]


def test_every_known_name_has_a_call() -> None:
    assert CALLS.keys() == KNOWN


@pytest.mark.parametrize("name", CALLS)
def test_the_call_has_a_node_of_the_known_name(name: str) -> None:
    assert any(re.fullmatch(f"{name}Backward[012]", node) for node in nodes_of(CALLS[name]()))


PIECEWISE = re.search(r"PIECEWISE\[\] = \{(.*?)\};", SOURCE, re.DOTALL)
assert PIECEWISE is not None


@pytest.mark.parametrize("name", [w for text in re.findall(r'"([^"]+)"', PIECEWISE[1]) for w in text.split()])
def test_the_second_derivative_has_the_known_name(name: str) -> None:
    """These nodes' zeros are cut off by name: <name>BackwardBackward0; ReLU's derivative is threshold's."""
    result = CALLS[name]()
    assert isinstance(result, Tensor)
    leaf = {2: x, 3: line, 4: image, 5: volume}[result.dim()]
    (gradient,) = torch.autograd.grad(result.square().sum(), leaf, create_graph=True)
    name = "Threshold" if name == "Relu" else name
    assert f"{name}BackwardBackward0" in set(nodes_of(gradient))
