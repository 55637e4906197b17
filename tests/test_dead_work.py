"""What a penalty does not do: what nobody reads. It is compared with the textbook's; test_costs.py has exact counts."""

import copy

import pytest
import torch
from torch import Tensor, nn

from costs import Penalty, flops, peak_memory, update
from wgan_fast import gradient_penalty, reference
from wgan_fast.bench import CRITICS, mlp


class TestFlops:
    @pytest.mark.parametrize("name", CRITICS)
    def test_two_thirds_of_the_textbook(self, name: str) -> None:
        make, shape = CRITICS[name]
        critic = make()
        assert flops(gradient_penalty, critic, shape) <= 0.68 * flops(reference.gradient_penalty, critic, shape)

    @pytest.mark.parametrize("name", CRITICS)
    def test_same_gradients(self, name: str) -> None:
        make, shape = CRITICS[name]
        ours = make().double()
        textbook = copy.deepcopy(ours)
        update(gradient_penalty, ours, shape)
        update(reference.gradient_penalty, textbook, shape)
        for parameter, expected in zip(ours.parameters(), textbook.parameters(), strict=True):
            torch.testing.assert_close(parameter.grad, expected.grad, rtol=1e-10, atol=1e-10)

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
    @pytest.mark.parametrize("name", CRITICS)
    def test_in_place_activations(self, name: str) -> None:
        make, shape = CRITICS[name]
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
