"""What an update costs: operations, memory; and the critics that it is measured on."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

Penalty = Callable[..., Tensor]


class Flops(TorchDispatchMode):
    """Counts on the operators that are dispatched, below autograd. (PyTorch's own mode cannot watch autograd.grad.)"""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.total += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=out)
        return out


def update(penalty: Penalty, critic: nn.Module, shape: tuple[int, ...]) -> None:
    critic.zero_grad()
    generator = torch.Generator().manual_seed(1)
    like = next(critic.parameters())
    real, fake = torch.randn(2, *shape, generator=generator).to(like)
    penalty(critic, real, fake, t=torch.rand(shape[0], generator=generator).to(like)).backward()


def flops(penalty: Penalty, critic: nn.Module, shape: tuple[int, ...]) -> int:
    with Flops() as counted:
        update(penalty, critic, shape)
    return counted.total


def peak_memory(penalty: Penalty, critic: nn.Module, shape: tuple[int, ...]) -> int:
    """The most bytes at once that the allocator had handed out since the beginning."""
    update(penalty, critic, shape)
    critic.zero_grad()
    if next(critic.parameters()).is_cuda:
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        update(penalty, critic, shape)
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiled:
        update(penalty, critic, shape)
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    size = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        size += event.nbytes()
        peak = max(peak, size)
    return peak


def mlp(size: int, width: int, depth: int, inplace: bool = True) -> nn.Module:
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Linear(width if i else size, width), nn.LeakyReLU(0.2, inplace=inplace)]
    return nn.Sequential(*layers, nn.Linear(width, 1))


def convolutional(channels: tuple[int, ...], kernel: int, padding: int, features: int) -> nn.Module:
    layers: list[nn.Module] = []
    for i in range(len(channels) - 1):
        layers += [nn.Conv2d(channels[i], channels[i + 1], kernel, 2, padding), nn.LeakyReLU(0.2, inplace=True)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(features, 1))


class ResidualBlock(nn.Module):
    """Activation first; halves the map."""

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


#: Critics and the shape of their batches.
CRITICS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "toy": (lambda: mlp(2, 512, 3), (256, 2)),
    "tabular": (lambda: mlp(300, 256, 2), (500, 300)),
    "wide": (lambda: mlp(784, 1024, 3), (128, 784)),
    "dcgan": (lambda: convolutional((3, 64, 128, 256), 4, 1, 4096), (64, 3, 32, 32)),
    "mnist": (lambda: convolutional((1, 64, 128, 256), 5, 2, 4096), (50, 1, 28, 28)),
}
#: For a GPU: launches are nearly all of the first, and nothing of the last.
GPU_CRITICS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "toy": CRITICS["toy"],
    "dcgan-64": (lambda: convolutional((3, 64, 128, 256, 512), 4, 1, 8192), (64, 3, 64, 64)),
    "resnet": (lambda: resnet((64, 128, 256, 512, 512), 8192), (256, 3, 64, 64)),
}
