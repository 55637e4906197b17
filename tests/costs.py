"""Counts of what a function costs (operations, memory, launches), and the critics that costs are measured on."""

import functools
import gc
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import DeviceType
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from wgan_fast.bench import MNIST, TOY, Workload, convolutional, mlp

Penalty = Callable[..., Tensor]


class Counter(TorchDispatchMode):
    """Counts the operators dispatched below autograd, including views, their floating-point operations, and the bytes
    of their arguments and results, without views and allocations. (PyTorch's FlopCounterMode does not support
    autograd.grad.)
    """

    def __init__(self) -> None:
        super().__init__()
        self.operators = self.flops = self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.operators += 1
        if not func.is_view and func._overloadpacket not in _WITHOUT_TRAFFIC:
            tensors = (leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, Tensor))
            self.bytes += sum(tensor.nbytes for tensor in tensors)
        if func is torch.ops.aten.matmul.default:  # not in PyTorch's table; its parts are not dispatched
            self.flops += 2 * out.numel() * args[0].shape[-1]
        elif func._overloadpacket in flop_registry:
            self.flops += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=out)
        return out


_WITHOUT_TRAFFIC = {torch.ops.aten.detach, torch.ops.aten.empty, torch.ops.aten.empty_like}


def update(penalty: Penalty, critic: nn.Module, shape: tuple[int, ...]) -> None:
    critic.zero_grad()
    generator = torch.Generator().manual_seed(1)
    like = next(critic.parameters())
    real, fake = torch.randn(2, *shape, generator=generator).to(like)
    penalty(critic, real, fake, t=torch.rand(shape[0], generator=generator).to(like)).backward()


def flops_of(function: Callable[[], object]) -> int:
    return count(function).flops


def count(function: Callable[[], object]) -> Counter:
    with Counter() as counter:
        function()
    return counter


def peak_bytes_of(function: Callable[[], object], device: torch.device) -> int:
    """The peak of allocated bytes during the second call, above the bytes at its start.

    On a CPU the profiler knows the size of a freed block only if it saw the allocation, so it watches both calls.
    """
    gc.collect()  # otherwise garbage might be freed during the call
    if device.type == "cuda":
        function()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        function()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiled:
        function()
        with record_function("again"):
            function()
    events = sorted(profiled.profiler.kineto_results.events(), key=lambda event: event.start_ns())
    (beginning,) = (event.start_ns() for event in events if event.name() == "again")
    size = peak = 0
    for event in events:
        if event.name() == "[memory]" and event.start_ns() >= beginning:
            size += event.nbytes()
            peak = max(peak, size)
    return peak


def launches_of(function: Callable[[], object]) -> int:
    return len(kernels_of(function))


def kernels_of(function: Callable[[], object]) -> list[str]:
    """The kernels that a GPU runs in the second call, without copies and fills of memory."""
    function()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA], acc_events=True) as profiled:
        function()
        torch.cuda.synchronize()
    on_device = [event for event in profiled.events() if event.device_type == DeviceType.CUDA]
    names = [event.name for event in on_device if not event.is_user_annotation]
    return [name for name in names if not name.startswith(("Memcpy", "Memset"))]


def flops(penalty: Penalty, critic: nn.Module, shape: tuple[int, ...]) -> int:
    return flops_of(lambda: update(penalty, critic, shape))


def peak_memory(penalty: Penalty, critic: nn.Module, shape: tuple[int, ...]) -> int:
    """Includes the gradients, because ``update`` first releases those of the last call."""
    gradients = sum(parameter.nbytes for parameter in critic.parameters())
    return gradients + peak_bytes_of(lambda: update(penalty, critic, shape), next(critic.parameters()).device)


class ResidualBlock(nn.Module):
    """A pre-activation block that halves height and width."""

    def __init__(self, channels: int, wider: int) -> None:
        super().__init__()
        self.shortcut = nn.Conv2d(channels, wider, 1)
        self.first, self.second = nn.Conv2d(channels, wider, 3, padding=1), nn.Conv2d(wider, wider, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.second(F.relu(self.first(F.relu(x))))
        return F.avg_pool2d(hidden + self.shortcut(x), 2)


def resnet(channels: tuple[int, ...], features: int) -> nn.Module:
    blocks = [ResidualBlock(channels[i], channels[i + 1]) for i in range(len(channels) - 1)]
    return nn.Sequential(
        nn.Conv2d(3, channels[0], 3, padding=1), *blocks, nn.ReLU(), nn.Flatten(), nn.Linear(features, 1)
    )


#: The critics of the benchmarks and of test_costs.py. A step of "tiny" is overhead alone; one of "resnet" hides it.
CRITICS: dict[str, Workload] = {
    "toy": TOY,
    "tabular": (lambda: mlp(300, 256, 2), (500, 300)),
    "wide": (lambda: mlp(784, 1024, 3), (128, 784)),
    "dcgan": (lambda: convolutional((3, 64, 128, 256), 4, 1, 4096), (64, 3, 32, 32)),
    "mnist": MNIST,
    "tiny": (lambda: mlp(2, 16, 1), (8, 2)),
    "dcgan-64": (lambda: convolutional((3, 64, 128, 256, 512), 4, 1, 8192), (64, 3, 64, 64)),
    "resnet": (lambda: resnet((64, 128, 256, 512, 512), 8192), (256, 3, 64, 64)),
}


def curved_convolutional(
    norm: Callable[[int], nn.Module] | None, activation: Callable[[], nn.Module], features: int = 4096
) -> nn.Module:
    """DCGAN-32 with this activation and, above the first layer, this normalisation."""
    layers: list[nn.Module] = []
    for i, (narrow, wide) in enumerate(((3, 64), (64, 128), (128, 256))):
        layers += [nn.Conv2d(narrow, wide, 4, 2, 1), *([norm(wide)] if norm and i else []), activation()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, 1))


def curved_mlp(norm: Callable[[int], nn.Module] | None, activation: Callable[[], nn.Module]) -> nn.Module:
    """784-512x3 with this activation and normalisation."""
    layers: list[nn.Module] = []
    for i in range(3):
        layers += [nn.Linear(512 if i else 784, 512), *([norm(512)] if norm else []), activation()]
    return nn.Sequential(*layers, nn.Linear(512, 1))


FOR_CPU = ("toy", "tabular", "wide", "dcgan", "mnist")
FOR_GPU = ("toy", "dcgan-64", "resnet")


class NormalisedBlock(nn.Module):
    """A pre-activation block with layer normalisation, as in WGAN-GP's ResNet, that halves height and width."""

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm([channels, size, size]) for _ in range(2))
        self.first, self.second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.second(F.relu(self.norms[1](self.first(F.relu(self.norms[0](x))))))
        return F.avg_pool2d(hidden + x, 2)


def normalised_resnet() -> nn.Module:
    blocks = [NormalisedBlock(64, size) for size in (32, 16, 8)]
    return nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), *blocks, nn.ReLU(), nn.Flatten(), nn.Linear(1024, 1))


class AttentionBlock(nn.Module):
    """Self-attention and an MLP, with layer normalisation before each. Only PyTorch's composed attention has a second
    derivative.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norms[0](x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        with sdpa_kernel(SDPBackend.MATH):
            x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return x + self.mlp(self.norms[1](x))


def transformer(width: int = 64, heads: int = 4, blocks: int = 2) -> nn.Module:
    layers = [AttentionBlock(width, heads) for _ in range(blocks)]
    return nn.Sequential(nn.Linear(48, width), *layers, nn.Flatten(), nn.Linear(64 * width, 1))


_leaky_relu = functools.partial(nn.LeakyReLU, 0.2)
#: Critics with curved layers, by name.
CURVED: dict[str, Workload] = {
    **{
        name: (functools.partial(curved_convolutional, norm, activation), (64, 3, 32, 32))
        for name, norm, activation in (
            ("DCGAN-32, InstanceNorm", nn.InstanceNorm2d, _leaky_relu),
            ("DCGAN-32, GroupNorm(8)", functools.partial(nn.GroupNorm, 8), _leaky_relu),
            ("DCGAN-32, GroupNorm(1)", functools.partial(nn.GroupNorm, 1), _leaky_relu),
            ("DCGAN-32, SiLU", None, nn.SiLU),
        )
    },
    "ResNet-32, LayerNorm": (normalised_resnet, (32, 3, 32, 32)),
    **{
        name: (functools.partial(curved_mlp, norm, activation), (128, 784))
        for name, norm, activation in (
            ("MLP, LayerNorm", nn.LayerNorm, _leaky_relu),
            ("MLP, RMSNorm", nn.RMSNorm, _leaky_relu),
            ("MLP, SiLU", None, nn.SiLU),
            ("MLP, GELU", None, nn.GELU),
            ("MLP, tanh", None, nn.Tanh),
        )
    },
    "Transformer of 64 tokens": (transformer, (64, 64, 48)),
}
