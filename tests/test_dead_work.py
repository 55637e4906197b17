"""What a penalty costs: operations, memory, and nothing that nobody reads."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from wgan_fast import gradient_penalty, reference

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
    dtype = next(critic.parameters()).dtype
    real, fake = torch.randn(2, *shape, generator=generator).to(dtype)
    penalty(critic, real, fake, t=torch.rand(shape[0], generator=generator).to(dtype)).backward()


def flops(penalty: Penalty, critic: nn.Module, shape: tuple[int, ...]) -> int:
    with Flops() as counted:
        update(penalty, critic, shape)
    return counted.total


def peak_memory(penalty: Penalty, critic: nn.Module, shape: tuple[int, ...]) -> int:
    """The most bytes at once that the allocator had handed out since the beginning."""
    update(penalty, critic, shape)
    critic.zero_grad()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
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


COSTLY: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "toy": (lambda: mlp(2, 512, 3), (64, 2)),
    "tabular": (lambda: mlp(300, 256, 2), (100, 300)),
    "wide": (lambda: mlp(784, 1024, 3), (128, 784)),
    "dcgan": (lambda: convolutional((3, 32, 64, 128), 4, 1, 2048), (16, 3, 32, 32)),
    "mnist": (lambda: convolutional((1, 64, 128, 256), 5, 2, 4096), (16, 1, 28, 28)),
}


class TestFlops:
    @pytest.mark.parametrize("name", COSTLY)
    def test_two_thirds_of_the_textbook(self, name: str) -> None:
        make, shape = COSTLY[name]
        critic = make()
        assert flops(gradient_penalty, critic, shape) <= 0.68 * flops(reference.gradient_penalty, critic, shape)

    @pytest.mark.parametrize("name", COSTLY)
    def test_same_gradients(self, name: str) -> None:
        make, shape = COSTLY[name]
        ours = make().double()
        textbook = copy.deepcopy(ours)
        update(gradient_penalty, ours, shape)
        update(reference.gradient_penalty, textbook, shape)
        for parameter, expected in zip(ours.parameters(), textbook.parameters(), strict=True):
            torch.testing.assert_close(parameter.grad, expected.grad, rtol=1e-10, atol=1e-10)

    def test_four_forwards(self) -> None:
        critic, shape = mlp(256, 256, 6), (64, 256)
        forward = 2 * 64 * (6 * 256 * 256 + 256)
        assert flops(gradient_penalty, critic, shape) == pytest.approx(4 * forward, rel=0.01)
        assert flops(reference.gradient_penalty, critic, shape) == pytest.approx(6 * forward, rel=0.1)

    @pytest.mark.parametrize(
        "layer",
        [
            nn.ReLU(),
            nn.ReLU(inplace=True),
            nn.ReLU6(),
            nn.LeakyReLU(0.3),
            nn.Hardtanh(),
            nn.PReLU(),
            nn.PReLU(4),
            nn.RReLU().eval(),
            nn.RReLU(),
            nn.Threshold(0.1, 0.2),
            nn.Hardshrink(),
            nn.Softshrink(),
            nn.MaxPool2d(2),
            nn.AvgPool2d(2),
            nn.AdaptiveMaxPool2d(3),
            nn.AdaptiveAvgPool2d(3),
            nn.AdaptiveAvgPool2d(1),
            nn.FractionalMaxPool2d(2, 3),
            nn.ReflectionPad2d(1),
            nn.ReplicationPad2d(1),
            nn.ConstantPad2d(1, 0.5),
            nn.Dropout(0.3),
            nn.PixelUnshuffle(2),
            nn.Upsample(scale_factor=2),
        ],
        ids=str,
    )
    def test_no_zeros_travel(self, layer: nn.Module) -> None:
        """The first layer is the costly one: its output's gradient, were it computed, would show."""
        critic = nn.Sequential(nn.Conv2d(32, 4, 3, bias=False), layer, nn.Flatten(), nn.LazyLinear(1))
        shape = (2, 32, 8, 8)
        forward = flops(lambda critic, real, fake, t: critic(real).sum(), critic, shape) / 2
        assert flops(gradient_penalty, critic, shape) <= 4.2 * forward

    def test_points_receive_nothing_from_a_curved_critic(self) -> None:
        critic, shape = nn.Sequential(nn.Linear(512, 8), nn.Tanh(), nn.Linear(8, 1)), (64, 512)
        first = 2 * 64 * 512 * 8
        assert flops(gradient_penalty, critic, shape) == pytest.approx(5 * first, rel=0.05)
        assert flops(reference.gradient_penalty, critic, shape) == pytest.approx(6 * first, rel=0.05)

    def test_layers_unknown_to_the_mode_are_cut_too(self) -> None:
        aten, critic, shape = torch.ops.aten, mlp(64, 64, 4), (32, 64)

        def same(x: Tensor) -> Tensor:
            for layer in critic[:-1:2]:
                x = aten.leaky_relu(aten.linear(x, layer.weight, layer.bias), 0.2)
            return critic[-1](x)

        def penalised(penalty: Penalty) -> int:
            return flops(lambda critic, *points, t: penalty(same, *points, t=t), critic, shape)

        assert penalised(gradient_penalty) <= 0.7 * penalised(reference.gradient_penalty)


class TestMemory:
    @pytest.mark.parametrize("name", ["wide", "dcgan", "mnist"])
    def test_in_place_activations(self, name: str) -> None:
        make, shape = COSTLY[name]
        critic = make()
        ours, textbook = (
            peak_memory(penalty, critic, shape) for penalty in (gradient_penalty, reference.gradient_penalty)
        )
        assert ours <= 0.7 * textbook

    @pytest.mark.parametrize(
        "critic",
        [
            mlp(256, 256, 4, inplace=False),
            nn.Sequential(nn.Linear(256, 256), nn.Tanh(), nn.Linear(256, 256), nn.LayerNorm(256), nn.Linear(256, 1)),
            nn.Sequential(nn.Linear(256, 256), nn.PReLU(), nn.Linear(256, 1)),
        ],
        ids=["mlp", "curved", "prelu"],
    )
    def test_never_more_than_the_textbook(self, critic: nn.Module) -> None:
        ours, textbook = (
            peak_memory(penalty, critic, (2048, 256)) for penalty in (gradient_penalty, reference.gradient_penalty)
        )
        assert ours <= textbook
