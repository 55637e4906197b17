"""Counts of what a function costs (operations, memory, launches), and the critics that costs are measured on."""

import gc
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import DeviceType
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from wgan_fast.bench import MNIST, TOY, Workload, convolutional, mlp

Penalty = Callable[..., Tensor]


class Counter(TorchDispatchMode):
    """Counts the operators dispatched below autograd, including views, and their floating-point operations. (PyTorch's
    FlopCounterMode does not support autograd.grad.)
    """

    def __init__(self) -> None:
        super().__init__()
        self.operators = self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.operators += 1
        if func is torch.ops.aten.matmul.default:  # not in PyTorch's table; its parts are not dispatched
            self.flops += 2 * out.numel() * args[0].shape[-1]
        elif func._overloadpacket in flop_registry:
            self.flops += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=out)
        return out


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
FOR_CPU = ("toy", "tabular", "wide", "dcgan", "mnist")
FOR_GPU = ("toy", "dcgan-64", "resnet")
