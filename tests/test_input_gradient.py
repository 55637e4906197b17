"""Scores and their input gradient from one forward: every loss of both has the textbook's gradients."""

import copy
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from critics import CRITICS, Modulated, Projection
from random_critics import RandomCritic
from wgan_fast import (
    CriticLoss,
    discriminator_loss,
    dragan_penalty,
    gradient_penalty,
    input_gradient,
    r1_penalty,
    r1_r2_penalty,
    r2_penalty,
    reference,
)
from wgan_fast.penalties import declare_piecewise_linear

BATCH = 4
Make = Callable[[], nn.Module]
Shape = tuple[int, ...]


class Formula(nn.Module):
    """A critic given by a function of itself and its input; modules, parameters and buffers are its members."""

    def __init__(self, function: Callable[..., Tensor], **members: nn.Module | Tensor) -> None:
        super().__init__()
        self.function = function
        for name, member in members.items():
            if isinstance(member, nn.Module | nn.Parameter):
                setattr(self, name, member)
            else:
                self.register_buffer(name, member)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.function(self, *args, **kwargs)


def weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape))


def textbook(critic: Callable[..., Tensor], x: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
    x = x.detach().clone().requires_grad_()
    scores = critic(x, *args, **kwargs)
    (gradient,) = torch.autograd.grad(scores.sum(), x, create_graph=True)
    return scores, gradient


def gradients(loss: Tensor, critic: nn.Module) -> list[Tensor | None]:
    critic.zero_grad()
    if loss.requires_grad:
        loss.backward()
    return [parameter.grad for parameter in critic.parameters()]


def assert_same(ours: Tensor | None, expected: Tensor | None) -> None:
    """Equal to 1e-10 of the largest element, None where that is None. What cancels to zero, as the gradient of a bias
    before a normalisation, is left with the rounding of a hundred summands.
    """
    assert (ours is None) == (expected is None)
    if ours is not None and expected is not None:
        atol = 1e-10 * expected.abs().max().item() + 1e-13
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=atol)


def r1(gradient: Tensor) -> Tensor:
    return gradient.flatten(1).square().sum(1).mean()


def mixed(scores: Tensor, gradient: Tensor) -> Tensor:
    """Neither a sum over samples nor a sum of a term of the scores and one of the gradient."""
    of_samples = scores.expand(len(gradient)) if scores.dim() == 0 else scores.reshape(len(gradient), -1).sum(1)
    norms = gradient.flatten(1).square().sum(1)
    return (of_samples.tanh() * (norms + 1).sqrt()).sum() + F.softplus(of_samples.roll(1) * norms).mean()


def samples(shape: tuple[int, ...], batch: int = BATCH) -> Tensor:
    return torch.randn(batch, *shape, dtype=torch.float64)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "logistic and R1": lambda scores, gradient: F.softplus(-scores).mean() + 0.5 * r1(gradient),
    "mixed": mixed,
    "scores": lambda scores, gradient: (scores * torch.arange(1.0, scores.numel() + 1).view_as(scores)).sin().sum(),
    "gradient": lambda scores, gradient: (gradient.flatten(1).square().sum(1) - 1).square().mean(),
}


def assert_parity(critic: nn.Module, x: Tensor, *args: Tensor, losses: Iterable[str] = LOSSES) -> None:
    """In each loss; on copies, for a critic may change its buffers."""
    critic = critic.double()
    for loss in map(LOSSES.__getitem__, losses):
        ours, theirs = copy.deepcopy(critic), copy.deepcopy(critic)
        torch.manual_seed(1)  # of dropout
        scores, gradient = input_gradient(ours, x, *args)
        torch.manual_seed(1)
        expected = textbook(theirs, x, *args)
        assert_same(scores, expected[0])
        assert_same(gradient, expected[1])
        found = gradients(loss(scores, gradient), ours)
        for one, other in zip(found, gradients(loss(*expected), theirs), strict=True):
            assert_same(one, other)


# Critics that are affine in each sample for fixed masks: 4 forwards.


def linear(width: int = 6, outputs: int = 1) -> nn.Module:
    return nn.Linear(width, outputs)


def stack(*layers: nn.Module, width: int) -> nn.Module:
    return nn.Sequential(*layers, nn.Flatten(), linear(width))


def around(function: Callable[..., Tensor], width: int = 6, **members: nn.Module | Tensor) -> Make:
    """A layer, the function, ReLU, and the head for features of this width."""

    def forward(m: Formula, x: Tensor) -> Tensor:
        return m.head(F.relu(function(m, m.body(x))).flatten(1))

    return lambda: Formula(forward, body=linear(6, 6), head=linear(width), **copy.deepcopy(members))


def filtered(m: Formula, x: Tensor) -> Tensor:
    """FIR filter: each channel by itself, as StyleGAN's upfirdn2d."""
    hidden = F.leaky_relu(m.body(x), 0.2)
    batch, channels, *size = hidden.shape
    kernel = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype)
    kernel = (kernel[:, None] * kernel)[None, None] / 64
    hidden = F.conv2d(F.pad(hidden.reshape(batch * channels, 1, *size), (1, 2, 1, 2)), kernel, stride=2)
    return m.head(hidden.reshape(batch, -1))


def equalised(m: Formula, x: Tensor) -> Tensor:
    """StyleGAN's layers: weights and biases times a gain, the bias added by an operation of its own."""
    hidden = F.conv2d(x, m.kernel * 0.3, padding=1) + m.bias[:, None, None] * 0.5
    hidden = F.leaky_relu(hidden, 0.2) * 2**0.5
    hidden = F.leaky_relu(torch.addmm(m.shift[None] * 0.1, hidden.flatten(1), (m.matrix * 0.2).t()), 0.2) * 2**0.5
    return hidden @ m.last + 0.1 * m.offset


def packed(m: Formula, x: Tensor) -> Tensor:
    """PacGAN with packs inside a sample: two images of each become channels."""
    return m.head(F.relu(m.body(x.reshape(len(x), 4, 3, 3))).flatten(1))


def unpacked(m: Formula, x: Tensor) -> Tensor:
    """Several rows for each sample, then one score for each sample."""
    rows = F.relu(m.body(x.reshape(len(x) * 3, 4)) + m.shift)
    return m.head(rows.reshape(len(x), -1))


def projected(m: Formula, x: Tensor, labels: Tensor) -> Tensor:
    features = F.relu(m.body(x))
    return m.head(features) + (m.embedding(labels) * features).sum(1, keepdim=True)


def concatenated(m: Formula, x: Tensor, labels: Tensor) -> Tensor:
    hidden = torch.cat([x, m.embedding(labels)], 1)
    return m.head(torch.cat((m.shift.expand(len(x), 2), F.relu(m.body(hidden))), dim=-1))


def label_maps(m: Formula, x: Tensor, labels: Tensor) -> Tensor:
    maps = m.embedding(labels).view(-1, 1, 5, 5)
    return m.head(F.leaky_relu(m.body(torch.cat([x, maps], 1)), 0.2).flatten(1))


def channels_last(m: Formula, x: Tensor) -> Tensor:
    hidden = F.relu(m.body(x.permute(0, 3, 1, 2)))
    return m.head(F.relu(hidden.transpose(1, 3)).flatten(1))


def residual(m: Formula, x: Tensor) -> Tensor:
    hidden = m.second(F.relu_(m.first(F.relu(x))))
    hidden = (hidden + x) * 0.7 + m.short(x)
    return m.head(F.avg_pool2d(F.leaky_relu_(hidden, 0.2), 2).flatten(1))


def frozen_first_layer() -> nn.Module:
    critic = nn.Sequential(linear(6, 5), nn.LeakyReLU(0.2), linear(5, 4), nn.ReLU(), linear(4))
    critic[0].requires_grad_(False)
    critic[4].bias.requires_grad_(False)
    return critic


def with_an_unused_part() -> nn.Module:
    return Formula(lambda m, x: m.head(F.relu(m.body(x))), body=linear(6, 5), head=linear(5), unused=linear(3, 3))


def frozen() -> nn.Module:
    return nn.Sequential(linear(6, 5), nn.ReLU(), linear(5)).requires_grad_(False)


LABELS = torch.tensor([2, 0, 1, 2])

AFFINE: dict[str, tuple[Make, Shape, tuple[Tensor, ...]]] = {
    "linear": (linear, (6,), ()),
    "perceptron": (lambda: stack(linear(6, 5), nn.ReLU(inplace=True), linear(5, 4), nn.ReLU(), width=4), (6,), ()),
    "grouped": (
        lambda: stack(nn.Conv2d(4, 8, 3, groups=2), nn.LeakyReLU(0.2), nn.Conv2d(8, 2, 2), width=2 * 4),
        (4, 5, 5),
        (),
    ),
    "depthwise": (
        lambda: stack(nn.Conv2d(3, 6, 3, padding=1, groups=3), nn.ReLU(), nn.Conv2d(6, 2, 1), width=32),
        (3, 4, 4),
        (),
    ),
    "dilated": (lambda: stack(nn.Conv2d(2, 3, 3, dilation=2, stride=2), nn.ReLU(), width=12), (2, 7, 7), ()),
    "transposed": (
        lambda: stack(
            nn.ConvTranspose2d(2, 4, 3, stride=2, padding=1, output_padding=1, groups=2), nn.ReLU(), width=144
        ),
        (2, 3, 3),
        (),
    ),
    "one dimension": (
        lambda: stack(nn.Conv1d(2, 3, 3, padding=1), nn.ReLU(), nn.ConvTranspose1d(3, 2, 2, stride=2), width=24),
        (2, 6),
        (),
    ),
    "three dimensions": (
        lambda: stack(nn.Conv3d(2, 3, 2), nn.LeakyReLU(0.1), nn.ConvTranspose3d(3, 1, 2), width=27),
        (2, 3, 3, 3),
        (),
    ),
    "same padding": (
        lambda: stack(nn.Conv2d(2, 3, 3, padding="same", dilation=2), nn.ReLU(), width=75),
        (2, 5, 5),
        (),
    ),
    "PReLU": (lambda: stack(linear(6, 5), nn.PReLU(), linear(5, 4), nn.PReLU(4), width=4), (6,), ()),
    "PReLU of channels": (lambda: stack(nn.Conv2d(2, 3, 2), nn.PReLU(3), width=12), (2, 3, 3), ()),
    "hardtanh": (
        lambda: stack(linear(6, 8), nn.Hardtanh(-0.2, 0.3), linear(8, 8), nn.Hardtanh(0.1, 0.2, True), width=8),
        (6,),
        (),
    ),
    "ReLU6": (
        lambda: Formula(lambda m, x: m.head(F.relu6(40 * m.body(x))), body=linear(6, 8), head=linear(8)),
        (6,),
        (),
    ),
    "RReLU in evaluation": (lambda: stack(linear(6, 8), nn.RReLU(), width=8).eval(), (6,), ()),
    "average pool": (lambda: stack(nn.Conv2d(2, 3, 2), nn.AvgPool2d(2), nn.ReLU(), width=12), (2, 5, 5), ()),
    "max pool": (lambda: stack(nn.Conv2d(2, 3, 2), nn.MaxPool2d(2), nn.ReLU(), width=12), (2, 5, 5), ()),
    "adaptive pools": (
        lambda: stack(nn.Conv2d(2, 3, 2), nn.AdaptiveMaxPool2d(3), nn.AdaptiveAvgPool2d(2), width=12),
        (2, 5, 5),
        (),
    ),
    "pools of one dimension": (
        lambda: stack(nn.Conv1d(2, 3, 2), nn.MaxPool1d(2), nn.ReLU(), nn.AvgPool1d(2), width=6),
        (2, 9),
        (),
    ),
    "pools of three dimensions": (
        lambda: stack(nn.Conv3d(1, 3, 2), nn.MaxPool3d(2), nn.AdaptiveAvgPool3d(1), width=3),
        (1, 5, 5, 5),
        (),
    ),
    "sum pool": (
        lambda: Formula(lambda m, x: m.head(F.relu(m.body(x)).sum((2, 3))), body=nn.Conv2d(2, 3, 2), head=linear(3)),
        (2, 5, 5),
        (),
    ),
    "zero padding": (
        lambda: stack(nn.Conv2d(2, 3, 2), nn.ZeroPad2d((1, 0, 2, 1)), nn.Conv2d(3, 2, 2), width=30),
        (2, 4, 4),
        (),
    ),
    "reflecting padding": (
        lambda: stack(nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), nn.ReLU(), width=48),
        (2, 4, 4),
        (),
    ),
    "replicating padding": (
        lambda: stack(nn.Conv1d(2, 3, 3, padding=2, padding_mode="replicate"), nn.ReLU(), width=24),
        (2, 6),
        (),
    ),
    "upsampled": (
        lambda: stack(nn.Conv2d(2, 3, 2), nn.Upsample(scale_factor=2), nn.ReLU(), nn.PixelUnshuffle(2), width=48),
        (2, 3, 3),
        (),
    ),
    "residual": (
        lambda: Formula(
            residual,
            first=nn.Conv2d(3, 3, 3, padding=1),
            second=nn.Conv2d(3, 3, 3, padding=1),
            short=nn.Conv2d(3, 3, 1, bias=False),
            head=linear(12),
        ),
        (3, 4, 4),
        (),
    ),
    "labels concatenated": (
        lambda: Formula(concatenated, embedding=nn.Embedding(3, 2), body=linear(8, 5), shift=weight(2), head=linear(7)),
        (6,),
        (LABELS,),
    ),
    "labels as a channel": (
        lambda: Formula(label_maps, embedding=nn.Embedding(3, 25), body=nn.Conv2d(3, 2, 2), head=linear(32)),
        (2, 5, 5),
        (LABELS,),
    ),
    "labels projected": (
        lambda: Formula(projected, embedding=nn.Embedding(3, 5), body=linear(6, 5), head=linear(5)),
        (6,),
        (LABELS,),
    ),
    "labels scale and shift": (Modulated, (12,), ()),
    "packed": (lambda: Formula(packed, body=nn.Conv2d(4, 3, 2), head=linear(12)), (2, 2, 3, 3), ()),
    "rows of a sample": (lambda: Formula(unpacked, body=linear(4, 3), shift=weight(3), head=linear(9)), (12,), ()),
    "FIR filter": (lambda: Formula(filtered, body=nn.Conv2d(2, 3, 2), head=linear(12)), (2, 5, 5), ()),
    "equalised": (
        lambda: Formula(
            equalised,
            kernel=weight(3, 2, 3, 3),
            bias=weight(3),
            matrix=weight(5, 48),
            shift=weight(5),
            last=weight(5, 1),
            offset=weight(1),
        ),
        (2, 4, 4),
        (),
    ),
    "bias": (around(lambda m, h: h + m.shift, shift=weight(6)), (6,), ()),
    "bias in place": (around(lambda m, h: h.add_(m.shift), shift=weight(6)), (6,), ()),
    "bias with a gain": (around(lambda m, h: torch.add(h, m.shift, alpha=0.3), shift=weight(1, 6)), (6,), ()),
    "bias on the left": (around(lambda m, h: m.shift + 2 * h, shift=weight(6)), (6,), ()),
    "bias subtracted": (around(lambda m, h: torch.sub(h, m.shift, alpha=2), shift=weight(6)), (6,), ()),
    "subtracted from a bias": (around(lambda m, h: m.shift - h, shift=weight(6)), (6,), ()),
    "one minus": (around(lambda m, h: 1 - h), (6,), ()),
    "a number more": (around(lambda m, h: (h + 0.25) * 3 - 0.5), (6,), ()),
    "one bias for all": (around(lambda m, h: h + m.shift, shift=weight(1)), (6,), ()),
    "bias of no dimension": (around(lambda m, h: h - m.shift, shift=weight()), (6,), ()),
    "bias of each sample": (around(lambda m, h: h + m.shift, shift=weight(BATCH, 1)), (6,), ()),
    "bias of all elements": (around(lambda m, h: h + m.shift, shift=weight(BATCH, 6)), (6,), ()),
    "frozen bias": (around(lambda m, h: h + m.shift, shift=torch.randn(6)), (6,), ()),
    "bias that a network computes": (
        around(
            lambda m, h: h + m.net(m.code), net=nn.Sequential(linear(3, 4), nn.Tanh(), linear(4, 6)), code=weight(3)
        ),
        (6,),
        (),
    ),
    "bias of maps": (
        lambda: Formula(
            lambda m, x: m.head((m.body(x) + m.shift + m.channels[:, None, None]).flatten(1)),
            body=nn.Conv2d(2, 3, 2),
            shift=weight(1, 1, 4, 1),
            channels=weight(3),
            head=linear(48),
        ),
        (2, 5, 5),
        (),
    ),
    "several biases of one sum": (around(lambda m, h: h + m.shift + (m.shift * 2 + 1) + h, shift=weight(6)), (6,), ()),
    "bias used twice": (around(lambda m, h: F.relu(h + m.shift) + m.shift.square(), shift=weight(6)), (6,), ()),
    "detached copy added": (around(lambda m, h: h + h.detach().tanh()), (6,), ()),
    "no bias": (lambda: stack(nn.Linear(6, 4, bias=False), nn.ReLU(), width=4), (6,), ()),
    "convolutions of the scores": (
        lambda: nn.Sequential(nn.Conv2d(2, 3, 2), nn.ReLU(), nn.Conv2d(3, 1, 3)),
        (2, 4, 4),
        (),
    ),
    "scores without a second dimension": (
        lambda: Formula(lambda m, x: m.head(F.relu(m.body(x))).squeeze(1), body=linear(6, 5), head=linear(5)),
        (6,),
        (),
    ),
    "scores as a sum": (lambda: Formula(lambda m, x: F.relu(m.body(x)).sum(1), body=linear(6, 5)), (6,), ()),
    "channels last": (lambda: Formula(channels_last, body=nn.Conv2d(2, 3, 2), head=linear(48)), (5, 5, 2), ()),
    "sequence": (
        lambda: Formula(lambda m, x: m.head(F.relu(m.body(x))).mean(1), body=linear(4, 5), head=linear(5)),
        (3, 4),
        (),
    ),
    "maxout": (around(lambda m, h: h.view(-1, 3, 2).max(2)[0] + torch.maximum(h, -h)[:, :3], width=3), (6,), ()),
    "sorted": (around(lambda m, h: h.view(-1, 3, 2).sort(2)[0]), (6,), ()),
    "select and split": (
        around(lambda m, h: h[:, 1:5:2] + h.split([2, 4], 1)[0] + h.flip(1)[:, :2], width=2),
        (6,),
        (),
    ),
    "matrix products": (
        around(
            lambda m, h: torch.baddbmm(m.shift, h.view(BATCH, 2, 3), m.mix.expand(BATCH, 3, 3)),
            shift=weight(BATCH, 2, 3),
            mix=weight(3, 3),
        ),
        (6,),
        (),
    ),
    "spectral norm": (
        lambda: nn.Sequential(
            nn.utils.parametrizations.spectral_norm(linear(6, 5)), nn.ReLU(), nn.utils.spectral_norm(linear(5))
        ).eval(),
        (6,),
        (),
    ),
    "weight norm": (lambda: stack(nn.utils.parametrizations.weight_norm(linear(6, 5)), nn.ReLU(), width=5), (6,), ()),
    "dropout in evaluation": (lambda: stack(linear(6, 5), nn.Dropout(0.5), nn.ReLU(), width=5).eval(), (6,), ()),
    "dropout in training": (lambda: stack(linear(6, 5), nn.Dropout(0.5), nn.ReLU(), width=5), (6,), ()),
    "frozen first layer": (frozen_first_layer, (6,), ()),
    "unused part": (with_an_unused_part, (6,), ()),
    "buffer added": (around(lambda m, h: h + m.noise * m.gain, noise=torch.randn(6), gain=weight()), (6,), ()),
    "types mixed": (
        lambda: Formula(
            lambda m, x: m.head(F.relu(m.body(x) + m.shift.float())), body=linear(6, 5), shift=weight(5), head=linear(5)
        ),
        (6,),
        (),
    ),
    "shared layers": (
        lambda: Formula(lambda m, x: m.head(F.relu(m.body(F.relu(m.body(x)) + x))), body=linear(6, 6), head=linear()),
        (6,),
        (),
    ),
    "hypernetwork": CRITICS["hypernetwork"] + ((),),
}


# Critics that PyTorch's graph differentiates: 6 forwards.


def coupled(function: Callable[[Tensor], Tensor], width: int = 6) -> Make:
    return around(lambda m, h: function(h), width)


def standard_deviation(m: Formula, x: Tensor) -> Tensor:
    """Minibatch standard deviation, in groups of two, as another channel."""
    hidden = F.leaky_relu(m.body(x), 0.2)
    deviation = hidden.view(2, -1, *hidden.shape[1:]).var(0, unbiased=False).add(1e-8).sqrt().mean((1, 2, 3))
    maps = deviation.view(-1, 1, 1, 1).repeat(2, 1, *hidden.shape[2:])
    return m.head(torch.cat([hidden, maps], 1).flatten(1))


def batch_norm() -> nn.Module:
    critic = stack(nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3), nn.ReLU(), width=27)
    critic(torch.randn(8, 2, 4, 4))  # running statistics of some samples
    return critic.eval()


GRAPH: dict[str, tuple[Make, Shape, tuple[Tensor, ...]]] = {
    "mean over the batch": (coupled(lambda h: h - h.mean(0)), (6,), ()),
    "mean over all": (coupled(lambda h: h - h.mean()), (6,), ()),
    "flip of the batch": (coupled(lambda h: h + 0.5 * h.flip(0)), (6,), ()),
    "roll of the batch": (coupled(lambda h: h + 0.5 * h.roll(1, 0)), (6,), ()),
    "permutation of the batch": (coupled(lambda h: h[torch.tensor([1, 0, 3, 2])]), (6,), ()),
    "cumulative sum over the batch": (coupled(lambda h: h.cumsum(0)), (6,), ()),
    "maximum over the batch": (coupled(lambda h: h - h.amax(0)), (6,), ()),
    "transposed batch": (coupled(lambda h: h[:, :4].t(), width=4), (6,), ()),
    "mixed rows": (coupled(lambda h: torch.ones(4, 4, dtype=h.dtype).tril() @ h), (6,), ()),
    "packs of samples": (
        lambda: Formula(
            lambda m, x: m.head(F.relu(m.body(x.view(2, 12)))).view(BATCH), body=linear(12, 5), head=linear(5, 2)
        ),
        (6,),
        (),
    ),
    "concatenated neighbours": (coupled(lambda h: torch.cat([h[2:], h[:2]])), (6,), ()),
    "minibatch standard deviation": (
        lambda: Formula(standard_deviation, body=nn.Conv2d(2, 3, 2), head=linear(36)),
        (2, 4, 4),
        (),
    ),
    "scores of patches": (lambda: nn.Sequential(nn.Conv2d(2, 3, 2), nn.ReLU(), nn.Conv2d(3, 1, 2)), (2, 6, 6), ()),
    "two scores": (lambda: nn.Sequential(linear(6, 5), nn.ReLU(), linear(5, 2)), (6,), ()),
    "scores of steps": (lambda: nn.Sequential(linear(4, 5), nn.ReLU(), linear(5)), (3, 4), ()),
    "one score for the batch": (lambda: Formula(lambda m, x: m.body(x).mean(), body=linear()), (6,), ()),
    "tanh": (lambda: stack(linear(6, 5), nn.Tanh(), width=5), (6,), ()),
    "SiLU": (lambda: stack(linear(6, 5), nn.SiLU(), width=5), (6,), ()),
    "GELU": (lambda: stack(linear(6, 5), nn.GELU(), width=5), (6,), ()),
    "softplus after ReLU": (lambda: stack(linear(6, 5), nn.ReLU(), linear(5, 5), nn.Softplus(), width=5), (6,), ()),
    "curved last": (lambda: nn.Sequential(linear(6, 5), nn.ReLU(), linear(5), nn.Sigmoid()), (6,), ()),
    "layer norm": (lambda: stack(linear(6, 5), nn.LayerNorm(5), nn.ReLU(), width=5), (6,), ()),
    "instance norm": (
        lambda: stack(nn.Conv2d(2, 3, 2), nn.InstanceNorm2d(3, affine=True), nn.ReLU(), width=27),
        (2, 4, 4),
        (),
    ),
    "group norm": (lambda: stack(nn.Conv2d(2, 4, 2), nn.GroupNorm(2, 4), nn.ReLU(), width=36), (2, 4, 4), ()),
    "product of features": (coupled(lambda h: h * h.flip(1)), (6,), ()),
    "projection with curved features": (Projection, (12,), (LABELS,)),
}

# Either way is right.
OTHERS: dict[str, tuple[Make, Shape, tuple[Tensor, ...]]] = {
    "batch norm in evaluation": (batch_norm, (2, 4, 4), ()),
    "frozen": (frozen, (6,), ()),
    "softshrink": (lambda: stack(linear(6, 5), nn.Softshrink(0.2), width=5), (6,), ()),
    "hardshrink": (lambda: stack(linear(6, 5), nn.Hardshrink(0.2), width=5), (6,), ()),
    "threshold": (lambda: stack(linear(6, 5), nn.Threshold(0.1, 0.7), width=5), (6,), ()),
    "clamp": (coupled(lambda h: h.clamp(-0.2, 0.3)), (6,), ()),
    "maximum with a bias": (around(lambda m, h: torch.maximum(h, m.shift), shift=weight(6)), (6,), ()),
    "where": (around(lambda m, h: torch.where(h > m.shift, h, m.shift), shift=weight(6)), (6,), ()),
    "masked": (coupled(lambda h: h.masked_fill(h > 0.2, 0.7)), (6,), ()),
    "constant padding": (
        lambda: stack(nn.Conv2d(2, 3, 2), nn.ConstantPad2d(1, 0.7), nn.ReLU(), width=75),
        (2, 4, 4),
        (),
    ),
    "circular padding": (
        lambda: stack(nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), nn.ReLU(), width=48),
        (2, 4, 4),
        (),
    ),
    "stacked with a bias": (
        around(lambda m, h: torch.stack([h, m.shift.expand_as(h)], 1), width=12, shift=weight(6)),
        (6,),
        (),
    ),
    "bias added to a view": (around(lambda m, h: h.view(-1, 2, 3).add_(m.shift), shift=weight(3)), (6,), ()),
    "absolute value": (coupled(torch.abs), (6,), ()),
    "vmap": (
        lambda: Formula(
            lambda m, x: torch.func.vmap(lambda row: (m.body(row) + m.shift).relu().sum())(x),
            body=linear(6, 5),
            shift=weight(5),
        ),
        (6,),
        (),
    ),
    "checkpointed bias": (
        lambda: Formula(
            lambda m, x: m.head(checkpoint(lambda x: F.relu(m.body(x) + m.shift), x, use_reentrant=False)),
            body=linear(6, 5),
            shift=weight(5),
            head=linear(5),
        ),
        (6,),
        (),
    ),
}

SEVERAL_SAMPLES = {
    "affine: matrix products",
    "graph: permutation of the batch",
    "graph: transposed batch",
    "graph: mixed rows",
    "graph: packs of samples",
    "graph: minibatch standard deviation",
}

ALL = {
    f"{kind}: {name}": case
    for kind, cases in (("affine", AFFINE), ("graph", GRAPH), ("other", OTHERS))
    for name, case in cases.items()
} | {f"critics.py: {name}": (make, shape, ()) for name, (make, shape) in CRITICS.items()}


def made(name: str) -> tuple[nn.Module, Tensor, tuple[Tensor, ...]]:
    make, shape, args = ALL[name]
    return make().double(), samples(shape), args


def is_affine(scores: Tensor) -> bool:
    return "AffineScores" in scores.grad_fn.name()


@pytest.mark.parametrize("name", ALL)
def test_critics(name: str) -> None:
    critic, x, args = made(name)
    assert_parity(critic, x, *args)


@pytest.mark.parametrize("name", [name for name in ALL if name not in SEVERAL_SAMPLES and "critics.py" not in name])
def test_one_sample(name: str) -> None:
    """Samples cannot mix, so that more critics are affine."""
    critic, x, args = made(name)
    assert_parity(critic, x[:1], *(arg[:1] for arg in args), losses=("mixed",))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("affine: perceptron", ()),
        ("affine: scores without a second dimension", (-1,)),
        ("affine: residual", (-1, 1)),
        ("affine: convolutions of the scores", (-1, 1, 1, 1)),
        ("affine: equalised", (-1, 1, 1)),
        ("graph: scores of patches", (-1, 1, 4, 4)),
    ],
)
def test_shapes_of_scores(name: str, shape: Shape) -> None:
    critic, x, args = made(name)
    if shape:
        inner = critic
        critic = Formula(lambda m, *inputs: m.inner(*inputs).reshape(shape), inner=inner)
    scores = input_gradient(critic, x, *args)[0]
    assert is_affine(scores) == (scores.numel() == len(x))
    assert_parity(critic, x, *args)


SECOND = ("perceptron", "grouped", "PReLU", "hardtanh", "residual", "labels projected", "equalised", "FIR filter")


def composed_layer_norm(x: Tensor, shape: list[int], weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """PyTorch's own has a wrong third derivative: it takes mean and deviation for constants."""
    deviation = x - x.mean(-1, keepdim=True)
    return deviation * (deviation.square().mean(-1, keepdim=True) + eps).rsqrt() * weight + bias


@pytest.mark.parametrize(
    "name", [*(f"affine: {name}" for name in SECOND), "graph: mean over the batch", "graph: tanh", "graph: layer norm"]
)
@pytest.mark.parametrize("loss", LOSSES)
def test_second_derivatives_of_parameters(name: str, loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    critic, x, args = made(name)
    found = []
    for evaluate in (input_gradient, textbook):
        if evaluate is textbook:
            monkeypatch.setattr(F, "layer_norm", composed_layer_norm)
        value = LOSSES[loss](*evaluate(critic, x, *args))
        first = torch.autograd.grad(value, list(critic.parameters()), create_graph=True, allow_unused=True)
        squares = [one.square().sum() for one in first if one is not None]
        found.append(gradients(torch.stack(squares).sum(), critic))
    for one, other in zip(*found, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("name", [name for name in ALL if not name.startswith("critics.py")])
def test_relativistic_pairs(name: str) -> None:
    """Two calls, of which one loss takes the scores together and both gradients."""
    critic, real, args = made(name)
    fake, found = samples(real.shape[1:]), []
    for evaluate in (input_gradient, textbook):
        torch.manual_seed(1)  # of dropout
        (real_scores, at_real), (fake_scores, at_fake) = evaluate(critic, real, *args), evaluate(critic, fake, *args)
        loss = F.softplus(fake_scores - real_scores).mean() + 0.5 * (r1(at_real) + r1(at_fake))
        found.append(gradients(loss, critic))
    for one, other in zip(*found, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("name", AFFINE)
def test_path_of_affine_critics(name: str) -> None:
    critic, x, args = made(f"affine: {name}")
    assert is_affine(input_gradient(critic, x, *args)[0])


@pytest.mark.parametrize("name", GRAPH)
def test_path_of_other_critics(name: str) -> None:
    critic, x, args = made(f"graph: {name}")
    assert not is_affine(input_gradient(critic, x, *args)[0])


@pytest.mark.parametrize("name", ["parametrization", "hook"])
def test_spectral_norm_in_training(name: str) -> None:
    """A step of its power iteration changes buffers in each forward, of which there is one."""
    norm = {"parametrization": nn.utils.parametrizations.spectral_norm, "hook": nn.utils.spectral_norm}[name]
    critic = nn.Sequential(norm(linear(6, 5)), nn.ReLU(), norm(linear(5))).double()
    assert_parity(critic, samples((6,)))
    state = copy.deepcopy(critic)
    input_gradient(critic, samples((6,)))
    state(samples((6,)))
    for one, other in zip(critic.buffers(), state.buffers(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("critic", [lambda x: x, lambda x: 2 * x + 1, lambda x: x.sum(1)], ids=["x", "2x + 1", "sum"])
def test_critics_without_parameters(critic: Callable[[Tensor], Tensor]) -> None:
    x = samples((1,))
    for one, other in zip(input_gradient(critic, x), textbook(critic, x), strict=True):
        torch.testing.assert_close(one, other)


def concatenated_code(m: Formula, x: Tensor, code: Tensor, *, scale: float) -> Tensor:
    return m.head(F.relu(m.body(torch.cat([x, code], 1)) + scale * code[:, :1]))


def modulated(m: Formula, x: Tensor, code: Tensor, *, scale: float) -> Tensor:
    return m.head(F.relu(m.body(torch.cat([x * code[:, :1], 0 * code], 1)) * scale))


def curved(m: Formula, x: Tensor, code: Tensor, *, scale: float) -> Tensor:
    return m.head(torch.tanh(m.body(torch.cat([x, scale * code], 1))))


@pytest.mark.parametrize("function", [concatenated_code, modulated, curved])
@pytest.mark.parametrize("loss", LOSSES)
def test_arguments_that_require_gradients(function: Callable[..., Tensor], loss: str) -> None:
    """Such as the text encoder's output."""
    critic, x = Formula(function, body=linear(8, 5), head=linear(5)).double(), samples((6,))
    found = []
    for evaluate in (input_gradient, textbook):
        code = torch.linspace(-1, 1, 2 * BATCH, dtype=torch.float64).view(BATCH, 2).requires_grad_()
        value = LOSSES[loss](*evaluate(critic, x, code, scale=0.5))
        found.append([*gradients(value, critic), code.grad])
    for one, other in zip(*found, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("name", ["affine: residual", "affine: labels concatenated", "graph: tanh"])
def test_backward_in_two_passes(name: str) -> None:
    """Scores first, then the gradient, and the other way round."""
    critic, x, args = made(name)
    scores, gradient = textbook(critic, x, *args)
    wanted = gradients(scores.sin().sum() + r1(gradient), critic)
    for scores_first in (True, False):
        scores, gradient = input_gradient(critic, x, *args)
        losses = [scores.sin().sum(), r1(gradient)]
        critic.zero_grad()
        losses[not scores_first].backward(retain_graph=True)
        losses[scores_first].backward()
        for one, other in zip(critic.parameters(), wanted, strict=True):
            assert_same(one.grad, other)


@pytest.mark.parametrize("name", ["affine: residual", "affine: labels projected", "graph: tanh"])
def test_input_that_requires_a_gradient(name: str) -> None:
    critic, x, args = made(name)
    found = []
    for history in (False, True):
        leaf = x.clone().requires_grad_()
        if history:
            scores = critic(leaf, *args)
            (gradient,) = torch.autograd.grad(scores.sum(), leaf, create_graph=True)
        else:
            scores, gradient = input_gradient(critic, leaf, *args)
        found.append([*gradients(mixed(scores, gradient), critic), leaf.grad])
    for one, other in zip(*found, strict=True):
        assert_same(one, other)


@pytest.mark.parametrize("without_gradients", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", ["affine: residual", "graph: tanh"])
def test_without_gradients(name: str, without_gradients: Callable[[], Any]) -> None:
    critic, x, args = made(name)
    expected = textbook(critic, x, *args)
    with without_gradients():
        found = input_gradient(critic, x, *args)
    for one, other in zip(found, expected, strict=True):
        assert_same(one, other.detach())
        assert not one.requires_grad
    assert not x.requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_types(device: torch.device, dtype: torch.dtype) -> None:
    critic, x, _ = made("affine: residual")
    critic, x = critic.to(device, dtype), x.to(device, dtype)
    scores, gradient = input_gradient(critic, x)
    assert scores.dtype == gradient.dtype == dtype and is_affine(scores)
    exact = copy.deepcopy(critic).double()
    wanted = gradients(mixed(*textbook(exact, x.double())), exact)
    for one, other in zip(gradients(mixed(scores.double(), gradient.double()), critic), wanted, strict=True):
        error = (one.double() - other).norm() / other.norm()
        assert error < 50 * torch.finfo(dtype).eps


def test_autocast(device: torch.device) -> None:
    critic, x, _ = made("affine: residual")
    critic, x = critic.to(device, torch.float32), x.to(device, torch.float32)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        scores, gradient = input_gradient(critic, x)
    assert is_affine(scores)
    wanted = gradients(mixed(*textbook(critic, x)), critic)
    for one, other in zip(gradients(mixed(scores.float(), gradient.float()), critic), wanted, strict=True):
        assert (one - other).norm() < 50 * torch.finfo(torch.bfloat16).eps * other.norm()


@pytest.mark.parametrize(
    ("error", "argument", "critic", "x"),
    [
        (TypeError, "critic", None, torch.ones(2, 3)),
        (TypeError, "critic", lambda x: 1.0, torch.ones(2, 3)),
        (TypeError, "critic", lambda x: x.argmax(1), torch.ones(2, 3)),
        (ValueError, "critic", lambda x: x.detach().sum(1), torch.ones(2, 3)),
        (ValueError, "critic", lambda x: torch.ones(2, requires_grad=True), torch.ones(2, 3)),
        (TypeError, "x", lambda x: x, [1.0]),
        (TypeError, "x", lambda x: x, torch.ones(2, 3, dtype=torch.int64)),
        (ValueError, "x", lambda x: x, torch.ones(0, 3)),
        (ValueError, "x", lambda x: x, torch.tensor(1.0)),
    ],
)
def test_errors_name_the_argument(error: type, argument: str, critic: Any, x: Any) -> None:
    with pytest.raises(error, match=f"^{argument}: "):
        input_gradient(critic, x)


# Penalties, alone and in a loss.


def norms(critic: Callable[..., Tensor], x: Tensor, *args: Tensor) -> Tensor:
    return textbook(critic, x, *args)[1].flatten(1).norm(dim=1)


def textbook_r1(critic: nn.Module, real: Tensor, fake: Tensor, *args: Tensor) -> Tensor:
    return 3.0 / 2 * norms(critic, real, *args).square().mean()


def textbook_r2(critic: nn.Module, real: Tensor, fake: Tensor, *args: Tensor) -> Tensor:
    return textbook_r1(critic, fake, real, *args)


def textbook_r1_r2(critic: nn.Module, real: Tensor, fake: Tensor, *args: Tensor) -> Tensor:
    return textbook_r1(critic, real, fake, *args) + textbook_r2(critic, real, fake, *args)


def textbook_gradient_penalty(critic: nn.Module, real: Tensor, fake: Tensor, *args: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    t = torch.rand(len(real), dtype=real.dtype, generator=generator)
    return reference.gradient_penalty(critic, real, fake, *args, weight=3.0, target=0.7, t=t)


def textbook_dragan(critic: nn.Module, real: Tensor, fake: Tensor, *args: Tensor) -> Tensor:
    u = torch.rand(real.shape, dtype=real.dtype, generator=torch.Generator().manual_seed(7))
    return 3.0 * (norms(critic, real + 0.5 * real.std() * u, *args) - 0.7).square().mean()


def seeded(penalty: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def call(*args: Any) -> Tensor:
        return penalty(*args, weight=3.0, target=0.7, generator=torch.Generator().manual_seed(7))

    return call


#: The penalty, as CriticLoss takes it, the samples that it takes, and its textbook.
PENALTIES: dict[str, tuple[Callable[..., Tensor], Callable[[Tensor, Tensor], tuple[Tensor, ...]], Any]] = {
    "r1": (partial(r1_penalty, weight=3.0), lambda real, fake: (real,), textbook_r1),
    "r2": (partial(r2_penalty, weight=3.0), lambda real, fake: (fake,), textbook_r2),
    "r1 and r2": (partial(r1_r2_penalty, weight=3.0), lambda real, fake: (real, fake), textbook_r1_r2),
    "gradient penalty": (seeded(gradient_penalty), lambda real, fake: (real, fake), textbook_gradient_penalty),
    "dragan": (seeded(dragan_penalty), lambda real, fake: (real,), textbook_dragan),
}


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize(
    "name", [name for name in ALL if name not in ("affine: dropout in training", "affine: types mixed")]
)
def test_penalties(name: str, penalty: str) -> None:
    """Without a critic that draws random numbers, and one whose float32 part rounds sums in their order."""
    (critic, real, args), (ours, samples_of, formula) = made(name), PENALTIES[penalty]
    fake = samples(real.shape[1:])
    # With the scores of both, as a module; DRAGAN's is called with the real samples alone.
    in_loss = partial(dragan_penalty, weight=3.0, target=0.7, generator=torch.Generator().manual_seed(7))
    loss = CriticLoss(critic, penalty=in_loss if penalty == "dragan" else ours, loss=discriminator_loss)

    expected = formula(critic, real, fake, *args)
    wanted = gradients(expected, critic)
    value = ours(critic, *samples_of(real, fake), *args)
    assert_same(value, expected)
    for one, other in zip(gradients(value, critic), wanted, strict=True):
        assert_same(one, other)

    expected = formula(critic, real, fake, *args)
    of_scores = F.softplus(-critic(real, *args)).mean() + F.softplus(critic(fake, *args)).mean()
    wanted = gradients(of_scores + expected, critic)
    output = loss(real, fake, *args)
    assert_same(output.penalty, expected.detach())
    assert_same(output.loss, (of_scores + expected).detach())
    for one, other in zip(gradients(output.loss, critic), wanted, strict=True):
        assert_same(one, other)


# Critics of random operators.


def check_random_critic(seed: int) -> bool:
    """Whether it is affine."""
    critic = RandomCritic(seed, BATCH)
    x = samples(critic.shape)
    for name, loss in LOSSES.items():
        scores, gradient = input_gradient(critic, x)
        expected = textbook(critic, x)
        try:
            assert_same(scores, expected[0])
            assert_same(gradient, expected[1])
            found = gradients(loss(scores, gradient), critic)
            for one, other in zip(found, gradients(loss(*expected), critic), strict=True):
                assert_same(one, other)
        except Exception as error:
            raise AssertionError(f"seed {seed}, loss {name}, steps {critic.names}") from error
    return is_affine(scores)


def test_random_critics() -> None:
    affine = sum(check_random_critic(seed) for seed in range(200))
    assert 50 < affine < 150  # both paths are drawn


@pytest.mark.long
@pytest.mark.parametrize("first", range(200, 2200, 100), ids="from seed {}".format)
def test_more_random_critics(first: int) -> None:
    for seed in range(first, first + 100):
        check_random_critic(seed)


# Critics whose sums need care.


def doubled(m: Formula, x: Tensor) -> Tensor:
    """The sum's other operand is changed afterwards, which PyTorch allows: addition saves nothing."""
    shift = 2 * m.shift
    hidden = x + shift
    shift.mul_(3)
    return m.head(hidden)


def activated_later(m: Formula, x: Tensor) -> Tensor:
    shift = 2 * m.shift
    hidden = m.body(x) + shift
    return m.head(hidden + F.relu_(shift))


def counting(m: Formula, x: Tensor) -> Tensor:
    hidden = x * m.scale + m.count
    m.count.add_(1)
    return m.head(hidden)


def added_to_a_constant(m: Formula, x: Tensor) -> Tensor:
    hidden = (2 * m.shift).expand(len(x), -1).clone()
    hidden += x * m.scale
    return m.head(F.relu(hidden))


def added_to_zeros(m: Formula, x: Tensor) -> Tensor:
    hidden = torch.zeros_like(x)
    hidden += m.body(x)
    return m.head(F.relu(hidden))


def subtracted_from_a_constant(m: Formula, x: Tensor) -> Tensor:
    hidden = (2 * m.shift).expand(len(x), -1).clone()
    hidden -= x * m.scale
    return m.head(F.relu(hidden))


SUMS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "matrix product added to features": (
        lambda: Formula(
            lambda m, x: m.head(torch.addmm(x, m.code, m.mix)), head=linear(), code=weight(BATCH, 3), mix=weight(3, 6)
        ),
        (6,),
    ),
    "batched matrix product added to features": (
        lambda: Formula(
            lambda m, x: m.head(torch.baddbmm(x, m.code, m.mix)).mean((1, 2)),
            head=linear(),
            code=weight(BATCH, 2, 3),
            mix=weight(BATCH, 3, 6),
        ),
        (2, 6),
    ),
    "rsub": (lambda: Formula(lambda m, x: m.head(torch.rsub(m.shift, x)), head=linear(), shift=weight(6)), (6,)),
    "rsub with a factor": (
        lambda: Formula(lambda m, x: m.head(torch.rsub(m.shift, x, alpha=2)), head=linear(), shift=weight(6)),
        (6,),
    ),
    "a number as the bias of the scores": (
        lambda: Formula(lambda m, x: m.head(x).squeeze(1) + m.shift, head=linear(), shift=weight()),
        (6,),
    ),
    "one element as the bias of the scores": (
        lambda: Formula(lambda m, x: m.head(x).squeeze(1) + m.shift, head=linear(), shift=weight(1)),
        (6,),
    ),
    "operand changed later": (lambda: Formula(doubled, head=linear(), shift=weight(6)), (6,)),
    "operand activated later": (
        lambda: Formula(activated_later, body=linear(6, 6), head=linear(), shift=weight(6)),
        (6,),
    ),
    "buffer counted up later": (
        lambda: Formula(counting, head=linear(), scale=weight(6), count=torch.zeros(6)),
        (6,),
    ),
    "added in place to a constant": (
        lambda: Formula(added_to_a_constant, head=linear(), shift=weight(6), scale=weight(6)),
        (6,),
    ),
    "added in place to zeros": (lambda: Formula(added_to_zeros, body=linear(6, 6), head=linear()), (6,)),
    "subtracted in place from a constant": (
        lambda: Formula(subtracted_from_a_constant, head=linear(), shift=weight(6), scale=weight(6)),
        (6,),
    ),
    "minus infinity below a maximum": (
        lambda: Formula(
            lambda m, x: m.head((m.body(x).unflatten(1, (2, 3)) + m.mask).amax(2)),
            body=linear(6, 6),
            head=linear(2),
            mask=torch.tensor([0.0, -torch.inf, 0.0]),
        ),
        (6,),
    ),
    "learned, with minus infinity below a maximum": (
        lambda: Formula(
            lambda m, x: m.head((m.body(x).unflatten(1, (2, 3)) + m.shift.masked_fill(m.mask, -torch.inf)).amax(2)),
            body=linear(6, 6),
            head=linear(2),
            shift=weight(3),
            mask=torch.tensor([False, True, False]),
        ),
        (6,),
    ),
    "integers with a factor": (
        lambda: Formula(
            lambda m, x: m.head(torch.add(m.body(x), torch.arange(6), alpha=0.3).relu()),
            body=linear(6, 6),
            head=linear(),
        ),
        (6,),
    ),
    "sparse": (
        lambda: Formula(
            lambda m, x: m.head((m.body(x) + torch.eye(len(x), 6, dtype=x.dtype).to_sparse()).relu()),
            body=linear(6, 6),
            head=linear(),
        ),
        (6,),
    ),
    "complex": (
        lambda: Formula(
            lambda m, x: m.head(torch.view_as_real(m.body(x) * m.scale + m.shift).flatten(1).relu()),
            body=linear(6, 6),
            head=linear(12),
            scale=nn.Parameter(torch.randn(6, dtype=torch.complex128)),
            shift=nn.Parameter(torch.randn(6, dtype=torch.complex128)),
        ),
        (6,),
    ),
    "padding that moves rows": (
        lambda: Formula(lambda m, x: m.head(F.pad(m.body(x), (0, 0, 1, -1))), body=linear(6, 6), head=linear()),
        (6,),
    ),
    "output padding beyond the stride": (
        lambda: Formula(
            lambda m, x: m.head(m.body(x).flatten(1)),
            body=nn.ConvTranspose1d(1, 2, 3, dilation=2, output_padding=1),
            head=linear(22),
        ),
        (1, 6),
    ),
    "checkpointed convolution": (
        lambda: Formula(
            lambda m, x: m.head(checkpoint(m.body, x, use_reentrant=False).flatten(1)),
            body=nn.Conv1d(1, 2, 3),
            head=linear(8),
        ),
        (1, 6),
    ),
    "torch.convolution": (
        lambda: Formula(
            lambda m, x: m.head(
                torch.convolution(x, m.body.weight, m.body.bias, [1], [0], [1], False, [0], 1).flatten(1)
            ),
            body=nn.Conv1d(1, 2, 3),
            head=linear(8),
        ),
        (1, 6),
    ),
}


@pytest.mark.parametrize("name", SUMS)
def test_sums_that_need_care(name: str) -> None:
    make, shape = SUMS[name]
    assert_parity(make(), samples(shape))


@pytest.mark.filterwarnings("ignore:Casting complex values to real discards the imaginary part:UserWarning")
def test_a_complex_sum_of_which_the_real_part_is_kept() -> None:
    critic = Formula(
        lambda m, x: m.head((m.body(x) * 1j + m.shift).mul(2 - 1j).to(x.dtype).relu()),
        body=linear(6, 6),
        head=linear(),
        shift=nn.Parameter(torch.randn(6, dtype=torch.complex128)),
    )
    assert_parity(critic, samples((6,)))


FROM_ONE_SAMPLE: dict[str, Callable[[Formula, Tensor], Tensor]] = {
    "bias of a linear layer": lambda m, x: F.linear(m.code, m.mix, m.body(x)[0]),
    "weight of a linear layer": lambda m, x: F.linear(m.code, torch.outer(m.shift, m.body(x)[0]), m.shift),
    "weight and bias of a linear layer": lambda m, x: F.linear(
        m.code, torch.outer(m.shift, m.body(x)[0]), m.body(x)[0]
    ),
    "bias of a convolution": lambda m, x: F.conv1d(m.code[:, None], m.mix[:, None], m.body(x)[0]).flatten(1),
    "weight of a convolution": lambda m, x: F.conv1d(m.code[:, None], m.body(x)[0, :, None, None], m.shift).sum(2),
    "slope of a PReLU": lambda m, x: F.prelu(m.code, m.body(x)[0]),
}


@pytest.mark.parametrize("name", FROM_ONE_SAMPLE)
def test_layers_with_parameters_that_come_from_one_sample(name: str) -> None:
    """What they make of their own input is an added term then, that nothing shows."""
    function = FROM_ONE_SAMPLE[name]
    critic = Formula(
        lambda m, x: m.head(function(m, x).relu()),
        body=linear(6, 6),
        head=linear(),
        code=weight(1, 6),
        mix=weight(6, 6),
        shift=weight(6),
    )
    assert_parity(critic, samples((6,), batch=1))


@pytest.mark.parametrize("at", ["features", "scores"])
def test_features_that_retain_their_gradient(at: str) -> None:
    """``Tensor.retain_grad`` waits for what PyTorch's second backward sends, as a hook does."""
    kept: list[Tensor] = []

    def retaining(m: Formula, x: Tensor) -> Tensor:
        hidden = m.body(x)
        scores = m.head(hidden.relu())
        kept.append(hidden if at == "features" else scores)
        kept[-1].retain_grad()
        return scores

    critic, x = Formula(retaining, body=linear(6, 6), head=linear()).double(), samples((6,))
    for evaluation in (input_gradient, textbook):
        scores, gradient = evaluation(critic, x)
        mixed(scores, gradient).backward()
    assert_same(kept[0].grad, kept[1].grad)


def test_a_sum_that_the_critic_drops() -> None:
    """Its nodes are freed while the critic runs, and later nodes may take their memory."""

    def with_a_dropped_sum(m: Formula, x: Tensor) -> Tensor:
        (m.scale * m.scale + 1).detach()
        hidden = x * m.shift
        return m.head(torch.cat([hidden, x], 1))

    def with_a_dropped_concatenation(m: Formula, x: Tensor) -> Tensor:
        torch.cat([m.scale * m.scale, m.shift * m.shift]).sum().item()
        hidden = x * m.shift
        return m.head(torch.cat([hidden + x.flip(1), x], 1))

    for function in (with_a_dropped_sum, with_a_dropped_concatenation):
        for _ in range(5):
            assert_parity(Formula(function, head=linear(12), scale=weight(6), shift=weight(6)), samples((6,)))


class Blur(torch.autograd.Function):
    """Linear, and its own derivative's function: a filter along the last dimension."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x + 0.5 * (x.roll(1, -1) + x.roll(-1, -1))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return Blur.apply(gradient)


class BiasedLeaky(torch.autograd.Function):
    """LeakyReLU of x + bias, fused."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x + bias > 0)
        return F.leaky_relu(x + bias, 0.2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        (mask,) = ctx.saved_tensors
        of_input = torch.where(mask, gradient, 0.2 * gradient)
        return of_input, of_input.sum(0)


def test_declared_functions() -> None:
    def of_both(m: Formula, x: Tensor) -> Tensor:
        return m.head(BiasedLeaky.apply(Blur.apply(F.leaky_relu(m.body(x))), m.bias))

    def of_one(m: Formula, x: Tensor) -> Tensor:
        return m.head(F.leaky_relu(Blur.apply(m.body(x)) + m.bias))

    for declare in (lambda: None, lambda: declare_piecewise_linear(Blur)):
        declare()
        critics = [
            Formula(function, body=linear(6, 6), head=linear(), bias=weight(6)).double()
            for function in (of_both, of_one)
        ]
        for critic in critics:
            assert_parity(critic, samples((6,)))
    assert [is_affine(input_gradient(critic, samples((6,)))[0]) for critic in critics] == [False, True]
    declare_piecewise_linear(BiasedLeaky, adds=True)
    assert_parity(critics[0], samples((6,)))
    assert not is_affine(input_gradient(critics[0], samples((6,)))[0])
    with pytest.raises(TypeError, match="^function: expected a subclass of torch.autograd.Function"):
        declare_piecewise_linear(nn.ReLU)


@pytest.mark.parametrize("detached", [False, True])
def test_minibatch_standard_deviation(detached: bool) -> None:
    """The textbook's gradients in both cases; detached, each sample's own gradient, and 4 forwards."""

    def function(m: Formula, x: Tensor) -> Tensor:
        hidden = F.relu(m.body(x))
        deviation = (hidden.var(0) + 1e-8).sqrt().mean().expand(len(x), 1)
        return m.head(torch.cat([hidden, deviation.detach() if detached else deviation], 1))

    critic, x = Formula(function, body=linear(6, 6), head=linear(7)).double(), samples((6,))
    assert_parity(critic, x)
    scores, gradient = input_gradient(critic, x)
    assert is_affine(scores) == detached
    points = x.clone().requires_grad_()
    (of_first,) = torch.autograd.grad(critic(points)[0], points)
    assert torch.allclose(of_first[0], gradient[0]) == detached
