"""Small critics of many kinds, for correctness; those that costs are measured on are in costs.py."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 3, padding=1)
        self.second = nn.Conv2d(3, 3, 3, padding=1)
        self.last = nn.Linear(48, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.second(F.leaky_relu_(self.first(x), 0.2))
        return self.last(F.relu(x + hidden).flatten(1))


class Projection(nn.Module):
    """Conditional: the label's embedding is projected on the features."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.embedding = nn.Linear(12, 8), nn.Linear(8, 1), nn.Embedding(4, 8)

    def forward(self, x: Tensor, labels: Tensor, *, scale: float = 1.0) -> Tensor:
        features = torch.tanh(self.body(x))
        return self.head(features).squeeze(1) + scale * (self.embedding(labels) * features).sum(1)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRU(4, 5, batch_first=True), nn.Linear(5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x)[0])  # a score for each step


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        weights = (self.query(x) @ self.key(x).mT / 2).softmax(-1)
        return (weights @ self.value(x)).mean((1, 2))


class Block(nn.Module):
    """The pre-activation block of a ResNet critic: one activation is in place, and the output is pooled."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.second(F.relu_(self.first(F.relu(x))))
        return F.avg_pool2d(hidden + x, 2)


class Modulated(nn.Module):
    """Conditional: labels scale and shift the features."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(12, 8), nn.Linear(8, 1)
        self.scale = nn.Sequential(nn.Embedding(4, 6), nn.Linear(6, 8), nn.ReLU(inplace=True))
        self.shift = nn.Sequential(nn.Embedding(4, 6), nn.LeakyReLU(0.1), nn.Linear(6, 8))

    def forward(self, x: Tensor) -> Tensor:
        labels = torch.arange(len(x)) % 4
        labels = labels.to(x.device)
        return self.head(F.leaky_relu(self.body(x) * self.scale(labels) + self.shift(labels), 0.3))


class DynamicFilter(nn.Module):
    """The samples determine the kernel of a convolution over a learned image."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel, self.image = nn.Linear(12, 9), nn.Parameter(torch.randn(1, 1, 5, 5))

    def forward(self, x: Tensor) -> Tensor:
        maps = F.conv2d(self.image, self.kernel(x).view(-1, 1, 3, 3))
        return F.leaky_relu(maps, 0.2).mean((0, 2, 3))


class Hypernetwork(nn.Module):
    """A network computes the layer's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 12 * 6))
        self.code, self.head = nn.Parameter(torch.randn(3)), nn.Linear(6, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(F.linear(x, self.weight(self.code).view(6, 12))))


class Spectrum(nn.Module):
    """The absolute values of complex numbers are curved."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.head = nn.Linear(12, 12), nn.Linear(7, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.fft.rfft(self.mix(x)).abs())


class Views(nn.Module):
    """An in-place activation of a view, and an activation whose result is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(12, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        F.leaky_relu_(hidden[:, :4], 0.2)
        features = F.hardtanh_(self.second(hidden), -0.3, 0.4)
        return features + features.roll(1, 1)


class Checkpointed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(12, 8), nn.LeakyReLU(0.2), nn.Linear(8, 8))
        self.head = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(checkpoint(self.body, x, use_reentrant=False)))


class Ensemble(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.heads = nn.Linear(12, 8), nn.Parameter(torch.randn(3, 8, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.func.vmap(lambda head: F.leaky_relu(self.body(x), 0.1) @ head)(self.heads).mean(0)


class LastStep(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.cell, self.head = getattr(nn, kind)(4, 5, batch_first=True), nn.Linear(5, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x)[0][:, -1])


def convolutional(normalisation: Callable[[int], nn.Module]) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1),
        normalisation(4),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Flatten(),
        nn.Linear(16, 2),
    )


def dcgan() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 4, 2, 1),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(4, 6, 4, 2, 1, bias=False),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(6, 1, 2),
    )


def mixed_convolutions() -> nn.Module:
    """Groups, dilation, transposition, padding given by name, padding modes other than zeros."""
    return nn.Sequential(
        nn.Conv2d(4, 4, 3, padding="same", groups=2),
        nn.ReLU6(),
        nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1),
        nn.Hardtanh(-0.4, 0.5, inplace=True),
        nn.Conv2d(6, 4, 3, stride=2, dilation=2, padding=1, padding_mode="reflect"),
        nn.PReLU(4),
        nn.Conv2d(4, 2, 2, padding="same", padding_mode="circular"),
        nn.RReLU().eval(),
        nn.Conv2d(2, 1, 2, padding="valid"),
    )


CRITICS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(12, 1), (12,)),
    "mlp": (lambda: nn.Sequential(nn.Linear(12, 16), nn.ReLU(inplace=True), nn.Linear(16, 1)), (12,)),
    "smooth": (lambda: nn.Sequential(nn.Linear(12, 16), nn.SiLU(), nn.Linear(16, 3)), (12,)),
    "prelu": (lambda: nn.Sequential(nn.Linear(12, 16), nn.PReLU(), nn.Linear(16, 1)), (12,)),
    "sequence": (lambda: nn.Sequential(nn.Conv1d(3, 4, 3), nn.ELU(), nn.Flatten(), nn.Linear(24, 1)), (3, 8)),
    "instance norm": (lambda: convolutional(nn.InstanceNorm2d), (3, 4, 4)),
    "group norm": (lambda: convolutional(lambda channels: nn.GroupNorm(2, channels)), (3, 4, 4)),
    "layer norm": (lambda: nn.Sequential(nn.Linear(12, 8), nn.LayerNorm(8), nn.GELU(), nn.Linear(8, 1)), (12,)),
    "max pool": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4, 1)), (3, 4, 4)),
    "volume": (lambda: nn.Sequential(nn.Conv3d(2, 3, 2), nn.Softplus(), nn.Flatten(), nn.Linear(24, 1)), (2, 3, 3, 3)),
    "five dimensions": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(32, 4), nn.Tanh(), nn.Linear(4, 1)), (2,) * 5),
    "spectral norm": (lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(12, 1)).eval(), (12,)),
    "weight norm": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(12, 1)), (12,)),
    "residual": (Residual, (3, 4, 4)),
    "recurrent": (Recurrent, (3, 4)),
    "attention": (Attention, (3, 4)),
    "dcgan": (dcgan, (3, 8, 8)),
    "resnet": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 1), Block(4), Block(4), nn.ReLU(), nn.Flatten(), nn.Linear(4, 1)),
        (3, 4, 4),
    ),
    "mixed convolutions": (mixed_convolutions, (4, 6, 6)),
    "one dimension": (
        lambda: nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.MaxPool1d(2), nn.ConvTranspose1d(4, 1, 3)),
        (2, 8),
    ),
    "three dimensions": (
        lambda: nn.Sequential(
            nn.Conv3d(2, 4, 2, groups=2), nn.LeakyReLU(0.2), nn.AvgPool3d(2), nn.ConvTranspose3d(4, 1, 2)
        ),
        (2, 4, 4, 4),
    ),
    "adaptive pool": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 1)),
        (3, 6, 6),
    ),
    "batch norm": (lambda: convolutional(nn.BatchNorm2d).eval(), (3, 4, 4)),
    "spectral convolution": (
        lambda: nn.Sequential(
            nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, 4, 3)),
            nn.LeakyReLU(0.1),
            nn.Flatten(),
            nn.utils.parametrizations.weight_norm(nn.Linear(16, 1)),
        ).eval(),
        (3, 4, 4),
    ),
    "modulated": (Modulated, (12,)),
    "dynamic filter": (DynamicFilter, (12,)),
    "hypernetwork": (Hypernetwork, (12,)),
    "spectrum": (Spectrum, (12,)),
    "views": (Views, (12,)),
    "checkpointed": (Checkpointed, (12,)),
    "ensemble": (Ensemble, (12,)),
    "lstm": (lambda: LastStep("LSTM"), (3, 4)),
    "rnn": (lambda: LastStep("RNN"), (3, 4)),
    "linear convolutions": (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 1, 2)), (3, 4, 4)),
    "no bias": (lambda: nn.Sequential(nn.Linear(12, 8, bias=False), nn.ReLU(), nn.Linear(8, 1, bias=False)), (12,)),
}
