"""What the graph of a critic knows: what is curved, and whose input nobody will ask for."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from critics import CRITICS
from wgan_fast import gradient_penalty, reference
from wgan_fast._library import extension
from wgan_fast.critic_mode import CriticMode

ones = functools.partial(torch.ones, dtype=torch.float64)


def graph_of(critic: Callable[[Tensor], Tensor], points: Tensor) -> Any:
    with CriticMode():
        scores = critic(points)
    return extension.CriticGraph(scores, points)


LINEAR: dict[str, Callable[[Tensor], Tensor]] = {
    "add": lambda x: x + x.flip(1) - 2 * x + 1,
    "rsub": lambda x: 1 - x,
    "neg": lambda x: -x,
    "mul": lambda x: x * ones(4, 8, 6, 6).cumsum(1) * 3,
    "div": lambda x: x / 3 / (2 * ones(8, 1, 1)),
    "cat": lambda x: torch.cat([x, x.roll(1, 0)], 1),
    "stack": lambda x: torch.stack([x, 2 * x]),
    "shapes": lambda x: x.unsqueeze(1).squeeze(1).permute(0, 2, 3, 1).transpose(1, 2).reshape(4, -1).view(4, 8, -1).mT,
    "squeeze": lambda x: x[:, :1].squeeze().unsqueeze(0).squeeze((0,)),
    "select": lambda x: x[:, 0, 1:5:2] + x[:, 1, torch.tensor([0, 3])],
    "index": lambda x: x.index_select(1, torch.tensor([0, 2])).gather(1, torch.ones(4, 1, 6, 6, dtype=torch.long)),
    "split": lambda x: x.chunk(2, 1)[0] + x.split([4, 4], 1)[1] + x.unsafe_split(4, 1)[1],
    "unbind": lambda x: x.unbind(1)[0],
    "expand": lambda x: x[:, :1].expand(-1, 3, -1, -1).repeat(1, 2, 1, 1).clone(),
    "mean": lambda x: x.mean((2, 3)) + x.sum((1, 2, 3))[:, None] + x.sum() + x.mean(),
    "cumsum": lambda x: x.cumsum(1).diagonal(dim1=2, dim2=3),
    "mask": lambda x: x.masked_fill(x > 0.5, 0.1).tril() + torch.where(x > 0, x, 0.2 * x).triu(),
    "clamp": lambda x: x.clamp(-0.3, 0.4) + x.clamp(min=0.1) + x.clamp(max=0.2) + x.clamp(min=0 * ones(6)),
    "clamp min": lambda x: torch.clamp_min(x, 0.1) + torch.clamp_max(x, 0.3),
    "maximum": lambda x: torch.maximum(x, x.flip(1)) + torch.minimum(x, 2 * x),
    "maxout": lambda x: x.view(4, 2, 4, 6, 6).max(1)[0] + x.view(4, 2, 4, 6, 6).min(1)[0],
    "amax": lambda x: x.amax(1) + x.amin((1,)) + x.max() + x.min(),
    "sort": lambda x: x.sort(1)[0][:, :2] + x.topk(2, 1)[0] + x.median(1, keepdim=True)[0] + x.median(),
    "unfold": lambda x: F.unfold(x, 2)[:, :4, :4] + x.unfold(2, 3, 1)[:, :4, 0, :4, 0],
    "shuffle": lambda x: F.pixel_unshuffle(F.pixel_shuffle(x, 2), 2),
    "upsample": lambda x: F.interpolate(x, scale_factor=2) + F.interpolate(x, scale_factor=2, mode="bilinear"),
    "upsample 1d": lambda x: F.interpolate(x[:, :, 0], scale_factor=2) + F.interpolate(x[:, :, 1], 12, mode="linear"),
    "upsample 3d": lambda x: F.interpolate(x[:, None], scale_factor=2),
    "as_strided": lambda x: x.as_strided((4, 5), (x.stride(0), 1)),
    "pad": lambda x: F.pad(x, (1, 1), value=0.5),
    "dropout": lambda x: F.dropout(x, 0.3),
    "matmul": lambda x: (x @ ones(6, 3)).flatten(2) @ ones(4, 18, 2) @ ones(2),
    "einsum": lambda x: torch.einsum("bchw,cd->bdhw", x, ones(8, 3)),
    "baddbmm": lambda x: torch.baddbmm(x[:, 0], x[:, 1], ones(4, 6, 6)) + torch.addmm(x[0, 0], x[0, 1], ones(6, 6)),
    "type": lambda x: x.float().double(),
}  # fmt: skip


class TestInputsAreLetGo:
    @pytest.mark.parametrize("name", LINEAR)
    def test_linear_operators_are_known(self, name: str) -> None:
        """Between two layers each leaves the critic piecewise linear, and nothing asks for an input that is gone."""
        torch.manual_seed(0)
        first, operator = nn.Conv2d(3, 8, 1, dtype=torch.float64), LINEAR[name]
        points = torch.randn(4, 3, 6, 6, dtype=torch.float64)
        last = nn.Linear(operator(first(points)).flatten(1).shape[1] if name != "stack" else 576, 1).double()

        def critic(x: Tensor) -> Tensor:
            torch.manual_seed(1)  # of the dropout
            hidden = operator(first(x)).to(torch.float64)
            return last((hidden.sum(0) if name == "stack" else hidden).reshape(-1, last.in_features))

        assert not graph_of(critic, points.clone().requires_grad_()).curved
        parameters = [first.weight, first.bias, last.weight, last.bias]
        penalties = (gradient_penalty, reference.gradient_penalty)
        ours, textbook = (
            torch.autograd.grad(penalty(critic, points, points, t=torch.rand(4)), parameters, allow_unused=True)
            for penalty in penalties
        )
        for gradient, expected in zip(ours, textbook, strict=True):
            assert (gradient is None) == (expected is None)
            if expected is not None:
                torch.testing.assert_close(gradient, expected, rtol=1e-6 if name == "type" else 1e-10, atol=1e-10)

    @pytest.mark.parametrize("name", CRITICS)
    def test_curvature_is_noticed(self, name: str) -> None:
        make, shape = CRITICS[name]
        critic, points = make().double(), torch.randn(6, *shape, dtype=torch.float64, requires_grad=True)
        linear = {"linear", "mlp", "prelu", "max pool", "residual", "weight norm", "spectral norm", "dcgan", "resnet",
                  "one dimension", "three dimensions", "adaptive pool", "spectral convolution", "modulated",
                  "hypernetwork", "linear convolutions", "no bias", "dynamic filter"}  # fmt: skip
        if name in linear:
            assert not graph_of(critic, points).curved

    @pytest.mark.parametrize(
        "function",
        [
            *(torch.tanh, torch.exp, F.silu, F.elu, F.hardswish),
            *(lambda x: x * x, lambda x: x / (1 + x.abs()), lambda x: x @ x.mT, lambda x: x.softmax(1)),
        ],
    )
    def test_curved_functions(self, function: Callable[[Tensor], Tensor]) -> None:
        assert graph_of(lambda x: function(2 * x).sum(1), torch.randn(4, 4, requires_grad=True)).curved

    def test_what_a_critic_kept_from_a_penalty(self) -> None:
        """It cannot be differentiated any more, and says what to do instead."""
        kept: list[Tensor] = []
        critic = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 1))
        critic[1].register_forward_hook(lambda module, inputs, output: kept.append(output))
        gradient_penalty(critic, *torch.randn(2, 5, 4)).backward()
        with pytest.raises(RuntimeError, match="Call the critic once more, outside of the penalty"):
            kept[0].sum().backward()
        critic(torch.randn(5, 4))
        kept[1].sum().backward()

    def test_weights_changed_before_the_derivative(self) -> None:
        critic = nn.Sequential(nn.Conv2d(1, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 1))
        penalty = gradient_penalty(critic, *torch.randn(2, 5, 1, 3, 3))
        with torch.no_grad():
            critic[0].weight.mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            penalty.backward()
