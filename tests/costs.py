"""What an update costs: operations, memory; and the larger critics that it is measured on."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from wgan_fast.benchmark import CRITICS, convolutional

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


def flops_of(function: Callable[[], object]) -> int:
    with Flops() as counted:
        function()
    return counted.total


def peak_bytes_of(function: Callable[[], object], device: torch.device) -> int:
    """The most bytes at once that the allocator had handed out since the beginning, when it is called again."""
    function()
    if device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        function()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiled:
        function()
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    size = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        size += event.nbytes()
        peak = max(peak, size)
    return peak


def flops(penalty: Penalty, critic: nn.Module, shape: tuple[int, ...]) -> int:
    return flops_of(lambda: update(penalty, critic, shape))


def peak_memory(penalty: Penalty, critic: nn.Module, shape: tuple[int, ...]) -> int:
    return peak_bytes_of(lambda: update(penalty, critic, shape), next(critic.parameters()).device)


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


#: For a GPU: launches are nearly all of the first, and nothing of the last.
GPU_CRITICS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "toy": CRITICS["toy"],
    "dcgan-64": (lambda: convolutional((3, 64, 128, 256, 512), 4, 1, 8192), (64, 3, 64, 64)),
    "resnet": (lambda: resnet((64, 128, 256, 512, 512), 8192), (256, 3, 64, 64)),
}
