"""Critics of many kinds, small."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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


def convolutional(normalisation: Callable[[int], nn.Module]) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1),
        normalisation(4),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Flatten(),
        nn.Linear(16, 2),
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
}
