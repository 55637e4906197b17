"""What an update costs: operations, memory, launches; and further critics that it is measured on."""

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

from wgan_fast.bench import CRITICS, convolutional, mlp

Penalty = Callable[..., Tensor]


class Counter(TorchDispatchMode):
    """Counts the operators that are dispatched below autograd, views among them, and their floating-point operations.
    (PyTorch's own mode cannot watch autograd.grad.)
    """

    def __init__(self) -> None:
        super().__init__()
        self.operators = self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.operators += 1
        if func is torch.ops.aten.matmul.default:  # PyTorch's table knows its parts alone, which C++ calls unseen
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
    """The most bytes that the allocator has handed out at once when it is called again, above those at its beginning.

    On a CPU the profiler knows the sizes of those blocks alone that it saw handed out, so it watches both calls.
    """
    gc.collect()  # garbage would be freed at any time
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
    """The kernels that a GPU runs for it when it is called again; copies and fills of memory are none."""
    function()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA], acc_events=True) as profiled:
        function()
        torch.cuda.synchronize()
    on_device = [event for event in profiled.events() if event.device_type == DeviceType.CUDA]
    return [event.name for event in on_device if not event.name.startswith(("Memcpy", "Memset"))]


def flops(penalty: Penalty, critic: nn.Module, shape: tuple[int, ...]) -> int:
    return flops_of(lambda: update(penalty, critic, shape))


def peak_memory(penalty: Penalty, critic: nn.Module, shape: tuple[int, ...]) -> int:
    """The gradients among it: an update begins by letting go of the last one's."""
    gradients = sum(parameter.nbytes for parameter in critic.parameters())
    return gradients + peak_bytes_of(lambda: update(penalty, critic, shape), next(critic.parameters()).device)


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


#: Nothing but overhead.
TINY: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {"tiny": (lambda: mlp(2, 16, 1), (8, 2))}
#: For a GPU: launches are nearly all of the first, and nothing of the last.
GPU_CRITICS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "toy": CRITICS["toy"],
    "dcgan-64": (lambda: convolutional((3, 64, 128, 256, 512), 4, 1, 8192), (64, 3, 64, 64)),
    "resnet": (lambda: resnet((64, 128, 256, 512, 512), 8192), (256, 3, 64, 64)),
}
