"""Critics built like published ones, in plain PyTorch, with their published updates."""

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# The filter [1, 3, 3, 1] of both networks, normalised.
FILTER = torch.tensor([1.0, 3.0, 3.0, 1.0])
FILTER = torch.outer(FILTER, FILTER) / FILTER.sum() ** 2


def resample(x: Tensor, kernel: Tensor, padding: int, down: int) -> Tensor:
    """A FIR filter on each channel, by a reshape to one channel; then each ``down``-th element."""
    batch, channels, height, width = x.shape
    x = F.pad(x.reshape(batch * channels, 1, height, width), [padding] * 4)
    x = F.conv2d(x, kernel[None, None])[:, :, ::down, ::down]
    return x.reshape(batch, channels, *x.shape[2:])


class BiasedActivation(nn.Module):
    """Adds a bias of its own to each channel, then LeakyReLU with the gain that keeps the variance."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x + self.bias.view(1, -1, 1, 1), 0.2) * math.sqrt(2 / (1 + 0.2**2))


class R3GANBlock(nn.Module):
    """1x1, grouped 3x3, 1x1, with biased activations between them, added to the input."""

    def __init__(self, channels: int, expansion: int = 2, group: int = 16) -> None:
        super().__init__()
        wide = channels * expansion
        self.first = nn.Conv2d(channels, wide, 1, bias=False)
        self.second = nn.Conv2d(wide, wide, 3, padding=1, groups=wide // group, bias=False)
        self.third = nn.Conv2d(wide, channels, 1, bias=False)
        self.activations = nn.ModuleList([BiasedActivation(wide), BiasedActivation(wide)])

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.second(self.activations[0](self.first(x)))
        return x + self.third(self.activations[1](hidden))


class R3GANCritic(nn.Module):
    """Residual stages with FIR downsampling, a depthwise basis of the last map, and a projection of the label.

    Source: Huang et al., "The GAN is dead; long live the GAN! A Modern GAN Baseline", 2024.
    """

    kernel: Tensor

    def __init__(self, size: int = 32, channels: tuple[int, ...] = (64, 64, 64, 64), blocks: int = 2) -> None:
        super().__init__()
        self.register_buffer("kernel", FILTER.clone())
        self.extraction = nn.Conv2d(3, channels[0], 1, bias=False)
        self.stages = nn.ModuleList(nn.ModuleList(R3GANBlock(width) for _ in range(blocks)) for width in channels)
        last = channels[-1]
        self.basis = nn.Conv2d(last, last, size >> (len(channels) - 1), groups=last, bias=False)
        self.linear = nn.Linear(last, last, bias=False)
        self.embedding = nn.Embedding(10, last)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        x = self.extraction(x)
        for i, stage in enumerate(self.stages):
            x = resample(x, self.kernel, 1, 2) if i > 0 else x
            for block in stage:
                x = block(x)
        features = self.linear(self.basis(x).flatten(1))
        return (features * self.embedding(labels)).sum(1, keepdim=True) / math.sqrt(features.shape[1])


class Equalised(nn.Module):
    """A convolution, or a linear layer on vectors, whose weights are scaled when it runs, with a scaled activation."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 0, *, bias: bool = True, linear: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, *[kernel] * (2 if kernel else 0)))
        self.gain = 1 / math.sqrt(inputs * max(kernel, 1) ** 2)
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.kernel, self.linear = kernel, linear

    def forward(self, x: Tensor, stride: int = 1, gain: float = 1.0) -> Tensor:
        weight = self.weight * self.gain
        if self.kernel:
            x = F.conv2d(x, weight, None, stride, self.kernel // 2 if stride == 1 else 0)
            x = x if self.bias is None else x + self.bias.view(1, -1, 1, 1)
        else:
            x = x.matmul(weight.t()) if self.bias is None else torch.addmm(self.bias[None], x, weight.t())
        return x * gain if self.linear else F.leaky_relu(x, 0.2) * (math.sqrt(2) * gain)


class StyleGAN2Block(nn.Module):
    kernel: Tensor

    def __init__(self, channels: int, wider: int) -> None:
        super().__init__()
        self.register_buffer("kernel", FILTER.clone())
        self.first = Equalised(channels, channels, 3)
        self.second = Equalised(channels, wider, 3)
        self.skip = Equalised(channels, wider, 1, bias=False, linear=True)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.skip(resample(x, self.kernel, 1, 2), gain=math.sqrt(0.5))
        hidden = self.second(resample(self.first(x), self.kernel, 2, 1), stride=2, gain=math.sqrt(0.5))
        return skip.add_(hidden)


def minibatch_deviation(x: Tensor, group: int = 4) -> Tensor:
    """Appends a channel with the standard deviation over groups of samples."""
    batch, channels, height, width = x.shape
    y = x.reshape(group, batch // group, channels, height, width)
    y = (y - y.mean(0)).square().mean(0)
    y = (y + 1e-8).sqrt().mean((1, 2, 3)).reshape(-1, 1, 1, 1).repeat(group, 1, height, width)
    return torch.cat([x, y], 1)


class StyleGAN2Critic(nn.Module):
    """Equalised convolutions, scaled activations, FIR downsampling, skip connections, a minibatch deviation.

    Source: Karras et al., "Training Generative Adversarial Networks with Limited Data", 2020.
    """

    def __init__(self, channels: tuple[int, ...] = (32, 64, 128, 128)) -> None:
        super().__init__()
        self.first = Equalised(3, channels[0], 1)
        self.blocks = nn.ModuleList(StyleGAN2Block(a, b) for a, b in itertools.pairwise(channels))
        last = channels[-1]
        self.convolution = Equalised(last + 1, last, 3)
        self.hidden = Equalised(last * 16, last)
        self.output = Equalised(last, 1, linear=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        x = self.convolution(minibatch_deviation(x))
        return self.output(self.hidden(x.flatten(1)))


def r3gan_gradients(critic: Callable[..., Tensor], real: Tensor, fake: Tensor, *labels: Tensor) -> Tensor:
    """The loss of R3GAN's published update, differentiated: R1 + R2 with gamma 10."""
    scores, penalties = [], []
    for samples in (real, fake):
        points = samples.detach().requires_grad_()
        scores.append(critic(points, *labels))
        (gradient,) = torch.autograd.grad(scores[-1].sum(), points, create_graph=True)
        penalties.append(gradient.square().sum([1, 2, 3]))
    losses = F.softplus(scores[1] - scores[0]).flatten() + 5 * (penalties[0] + penalties[1])
    losses.mean().backward()
    return losses.mean().detach()


def stylegan2_gradients(critic: Callable[..., Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """The losses of StyleGAN2-ADA's published update with R1 in it, differentiated: gamma 10."""
    of_fake = F.softplus(critic(fake)).mean()
    of_fake.backward()
    points = real.detach().requires_grad_()
    scores = critic(points)
    (gradient,) = torch.autograd.grad([scores.sum()], [points], create_graph=True)
    of_real = (F.softplus(-scores) + 5 * gradient.square().sum([1, 2, 3])[:, None]).mean()
    of_real.backward()
    return (of_fake + of_real).detach()
