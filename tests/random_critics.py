"""Critics of random operators: piecewise linear or curved, of independent or coupled samples."""

import math
import random
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Step = Callable[[list[Tensor]], Tensor]  #: from all earlier tensors, the samples first, to the next one

SHAPES = ((6,), (3, 4), (2, 4, 4), (1, 5), (2, 2, 3, 2))
LARGEST = 64  #: elements of a sample, which longer steps are cut to


class RandomCritic(nn.Module):
    """The same seed gives the same critic. The steps keep no state, and each changes at most a new tensor in place."""

    def __init__(self, seed: int, batch: int = 4) -> None:
        super().__init__()
        self.random = random.Random(seed)
        torch.manual_seed(seed)
        self.batch = batch
        self.parts = nn.ModuleList()
        self.weights = nn.ParameterList()
        self.steps: list[Step] = []
        self.names: list[str] = []
        self.shape = self.random.choice(SHAPES)
        self.curved, self.coupled = self.random.random() < 0.25, self.random.random() < 0.2
        self.grow()
        del self.random

    def forward(self, x: Tensor) -> Tensor:
        tensors = [x]
        for step in self.steps:
            tensors.append(step(tensors))
        return tensors[-1]

    def grow(self) -> None:
        tensors = [torch.randn(self.batch, *self.shape, dtype=torch.float64)]

        def add(name: str, step: Step | None) -> bool:
            if step is None:
                return False
            self.steps.append(step)
            self.names.append(name)
            tensors.append(step(tensors))
            return True

        kinds: list[Callable[[list[Tensor]], Step | None]] = [
            *[self.layer] * 4,
            *[self.activation] * 4,
            *[self.constant] * 3,
            *[self.factor, self.residual, self.residual, self.concatenation, self.concatenation],
            *[self.shapes] * 3,
            *[self.pool, self.product, self.chosen],
            *[self.coupling] * self.coupled,
            *[self.rare] * 3,
            *[self.curvature] * self.curved,
        ]
        for _ in range(self.random.randint(2, 9)):
            kind = self.random.choice(kinds)
            add(kind.__name__, kind(tensors))
            if tensors[-1].numel() > LARGEST * self.batch:
                add("cut", lambda tensors: tensors[-1].reshape(self.batch, -1)[:, :LARGEST])
        add("flat", lambda tensors: tensors[-1].reshape(self.batch, -1))
        head = self.part(nn.Linear(tensors[-1].shape[1], self.random.choice([1, 1, 1, 1, 2])))
        ending = self.random.choice(["head", "head", "sum", "maps", "vector"])
        if ending == "head":
            add(ending, lambda tensors: head(tensors[-1]))
        elif ending == "maps":
            add(ending, lambda tensors: head(tensors[-1])[:, :1, None, None])
        elif ending == "vector":
            add(ending, lambda tensors: head(tensors[-1])[:, 0])
        else:
            add(ending, lambda tensors: tensors[-1].sum(1))

    def part(self, module: nn.Module) -> nn.Module:
        module = module.double()
        if self.random.random() < 0.1:
            module.requires_grad_(False)
        self.parts.append(module)
        return module

    def weight(self, *shape: int) -> Tensor:
        self.weights.append(nn.Parameter(torch.randn(shape, dtype=torch.float64)))
        index = len(self.weights) - 1
        if self.random.random() < 0.1:
            self.weights[index].requires_grad_(False)
        return self.weights[index]

    def broadcast(self, tensor: Tensor) -> Tensor:
        """A weight that broadcasts to the tensor, of at most as many dimensions."""
        shape = [1 if self.random.random() < 0.4 else size for size in tensor.shape]
        return self.weight(*shape[self.random.randint(0, len(shape)) :])

    def new(self) -> bool:
        """Whether nothing else holds the last tensor, so that it may be changed in place."""
        return bool(self.names) and self.names[-1] == "layer"

    def layer(self, tensors: list[Tensor]) -> Step | None:
        shape = tensors[-1].shape
        if len(shape) < 2:
            return None
        bias = self.random.random() < 0.7
        if len(shape) in (3, 4, 5) and self.random.random() < 0.7:
            dims, channels = len(shape) - 2, shape[1]
            size = min(self.random.randint(1, 3), *shape[2:])
            groups = channels if self.random.random() < 0.3 else 1
            options = {"bias": bias, "groups": groups, "stride": self.random.choice([1, 1, 2])}
            outputs = groups * self.random.randint(1, 3)
            if self.random.random() < 0.25:
                kind = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[dims - 1]
                layer = self.part(kind(channels, outputs, size, **options))
            else:
                kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
                mode = self.random.choice(["zeros", "replicate", "circular"])
                layer = self.part(kind(channels, outputs, size, padding=size // 2, padding_mode=mode, **options))
            return lambda tensors: layer(tensors[-1])
        width = self.random.randint(1, 6)
        if len(shape) == 2 and self.random.random() < 0.3:
            shift, matrix, beta = self.weight(width), self.weight(shape[1], width), self.random.choice([1, 0.5])
            return lambda tensors: torch.addmm(shift, tensors[-1], matrix, beta=beta, alpha=0.5)
        if self.random.random() < 0.2:
            matrix = self.weight(shape[-1], width)
            return lambda tensors: tensors[-1] @ matrix
        layer = self.part(nn.Linear(shape[-1], width, bias=bias))
        return lambda tensors: layer(tensors[-1])

    def activation(self, tensors: list[Tensor]) -> Step:
        if self.new() and self.random.random() < 0.4:
            in_place = self.random.choice(
                [F.relu_, lambda x: F.leaky_relu_(x, 0.2), lambda x: F.hardtanh_(x, -0.4, 0.5), lambda x: x.mul_(2)]
            )
            return lambda tensors: in_place(tensors[-1])
        channels = tensors[-1].shape[1] if tensors[-1].dim() > 1 else 1
        prelu = self.part(nn.PReLU(self.random.choice([1, channels])))
        function = self.random.choice(
            [
                *[F.relu, F.relu, lambda x: F.leaky_relu(x, 0.2), lambda x: F.hardtanh(x, -0.3, 0.4), F.relu6, prelu],
                *[lambda x: F.hardtanh(x, 0.2, 0.9), lambda x: x.clamp(min=-0.2), lambda x: x.clamp(-0.1, 0.6)],
                *[
                    torch.abs,
                    F.softshrink,
                    lambda x: F.threshold(x, 0.1, 0.3),
                    lambda x: torch.where(x > 0, x, 0.1 * x),
                ],
            ]
        )
        return lambda tensors: function(tensors[-1])

    def curvature(self, tensors: list[Tensor]) -> Step:
        function = self.random.choice([torch.tanh, F.silu, F.gelu, F.softplus, lambda x: F.layer_norm(x, x.shape[-1:])])
        return lambda tensors: function(tensors[-1])

    def constant(self, tensors: list[Tensor]) -> Step:
        c, number = self.broadcast(tensors[-1]), self.random.choice([1, -0.5])
        if self.new() and self.random.random() < 0.4:
            return lambda tensors: tensors[-1].add_(c)
        return self.random.choice(
            [
                *[lambda tensors: tensors[-1] + c, lambda tensors: c + tensors[-1], lambda tensors: tensors[-1] - c],
                *[lambda tensors: c - tensors[-1], lambda tensors: number - tensors[-1]],
                *[lambda tensors: tensors[-1] + number, lambda tensors: torch.add(tensors[-1], c, alpha=0.3)],
                *[lambda tensors: tensors[-1] + c * number + c.square(), lambda tensors: tensors[-1] + c.detach()],
                *[
                    lambda tensors: tensors[-1] + tensors[-1].detach().tanh(),
                    lambda tensors: tensors[-1].sub(c, alpha=2),
                ],
            ]
        )

    def rare(self, tensors: list[Tensor]) -> Step | None:
        """Other ways to add: terms that are changed in place before or after, and terms of PyTorch's own nodes."""
        shape, c, like = tensors[-1].shape, self.broadcast(tensors[-1]), self.weight(*tensors[-1].shape)

        def to_a_constant(tensors: list[Tensor]) -> Tensor:
            total = 2 * like
            total += tensors[-1]
            return total

        def from_a_constant(tensors: list[Tensor]) -> Tensor:
            total = 2 * like
            total -= tensors[-1]
            return total

        def changed_later(tensors: list[Tensor]) -> Tensor:
            operand = 2 * c
            total = tensors[-1] + operand
            operand.mul_(3)
            return total

        def dropped(tensors: list[Tensor]) -> Tensor:
            (c * c + 1).detach()
            return torch.cat([tensors[-1] * c, tensors[-1]], -1)

        options = [
            *[to_a_constant, from_a_constant, changed_later, dropped],
            *[lambda tensors: torch.rsub(c, tensors[-1]), lambda tensors: torch.rsub(tensors[-1], c)],
            *[lambda tensors: torch.rsub(c, tensors[-1], alpha=2), lambda tensors: torch.rsub(tensors[-1], c, alpha=2)],
        ]
        if len(shape) == 2:
            left, right = self.weight(shape[0], 2), self.weight(2, shape[1])
            options.append(lambda tensors: torch.addmm(tensors[-1], left, right, beta=0.5))
        if len(shape) == 3:
            kernel, bias = self.weight(2, shape[1], 1), self.weight(2)
            options.append(
                lambda tensors: torch.convolution(tensors[-1], kernel, bias, [1], [0], [1], False, [0], 1),
            )
        return self.random.choice(options)

    def factor(self, tensors: list[Tensor]) -> Step:
        c = self.broadcast(tensors[-1])
        return self.random.choice(
            [
                *[lambda tensors: tensors[-1] * c, lambda tensors: 0.5 * tensors[-1], lambda tensors: -tensors[-1]],
                *[lambda tensors: tensors[-1] / (1 + c.square()), lambda tensors: tensors[-1] / 3],
            ]
        )

    def earlier(self, tensors: list[Tensor], fits: Callable[[Tensor], bool]) -> int | None:
        found = [i for i, tensor in enumerate(tensors) if fits(tensor)]
        return self.random.choice(found) if found else None

    def residual(self, tensors: list[Tensor]) -> Step | None:
        i = self.earlier(tensors, lambda tensor: tensor.shape == tensors[-1].shape)
        if i is None:
            return None
        return self.random.choice(
            [
                *[lambda tensors: tensors[-1] + tensors[i], lambda tensors: tensors[-1] - 0.5 * tensors[i]],
                *[
                    lambda tensors: torch.maximum(tensors[-1], tensors[i]),
                    lambda tensors: tensors[i] + F.relu(tensors[-1]),
                ],
            ]
        )

    def product(self, tensors: list[Tensor]) -> Step | None:
        if not self.curved:
            return None
        i = self.earlier(tensors, lambda tensor: tensor.shape == tensors[-1].shape)
        return None if i is None else lambda tensors: tensors[-1] * tensors[i]

    def concatenation(self, tensors: list[Tensor]) -> Step | None:
        last = tensors[-1]
        if last.dim() < 2:
            return None
        dim = self.random.randint(1, last.dim() - 1)

        def fits(tensor: Tensor) -> bool:
            return tensor.dim() == last.dim() and all(
                one == other for d, (one, other) in enumerate(zip(tensor.shape, last.shape, strict=True)) if d != dim
            )

        i = self.earlier(tensors, fits)
        c, count = self.weight(*last.shape), self.random.choice([dim, dim - last.dim()])
        options = [
            lambda tensors: torch.cat([tensors[-1], c], count),
            lambda tensors: torch.cat([c.relu(), tensors[-1], c], dim=count),
            lambda tensors: torch.cat((tensors[-1], tensors[i]), count),
            lambda tensors: torch.cat((tensors[i], c * 2, tensors[-1]), count),
        ]
        return self.random.choice(options[: None if i is not None else 2])

    def shapes(self, tensors: list[Tensor]) -> Step:
        shape, batch = tensors[-1].shape, self.batch
        elements = math.prod(shape) // batch
        k = self.random.choice([k for k in (1, 2, 3, 4) if elements % k == 0])
        dims = list(range(1, len(shape)))
        self.random.shuffle(dims)
        options = [
            lambda tensors: tensors[-1].reshape(batch, k, -1),
            lambda tensors: tensors[-1].reshape(batch * k, -1),
            lambda tensors: tensors[-1].reshape(batch, -1),
            lambda tensors: tensors[-1].reshape(batch * k, 1, -1),
            lambda tensors: tensors[-1].unsqueeze(1),
        ]
        if dims:
            options += [
                lambda tensors: tensors[-1].permute(0, *dims),
                lambda tensors: tensors[-1].transpose(1, -1),
                lambda tensors: tensors[-1].flip(dims[:1]),
                lambda tensors: F.pad(tensors[-1], (1, 0)),
                lambda tensors: F.pad(tensors[-1], (0, 1), value=0.3),
                lambda tensors: tensors[-1].roll(1, 1),
                lambda tensors: tensors[-1][:, : max(1, shape[1] - 1)],
            ]
        return self.random.choice(options)

    def pool(self, tensors: list[Tensor]) -> Step | None:
        shape = tensors[-1].shape
        if len(shape) < 2:
            return None
        options = [
            lambda tensors: tensors[-1].mean(-1, keepdim=True),
            lambda tensors: tensors[-1].sum(1),
            lambda tensors: tensors[-1].amax(1, keepdim=True),
            lambda tensors: tensors[-1].max(1)[0],
            lambda tensors: tensors[-1].cumsum(-1),
            lambda tensors: tensors[-1].sort(-1)[0],
        ]
        if len(shape) == 4 and min(shape[2:]) > 1:
            options += [lambda tensors: F.avg_pool2d(tensors[-1], 2), lambda tensors: F.max_pool2d(tensors[-1], 2)]
        if len(shape) == 3 and shape[2] > 1:
            options += [lambda tensors: F.avg_pool1d(tensors[-1], 2), lambda tensors: F.max_pool1d(tensors[-1], 2)]
        return self.random.choice(options)

    def chosen(self, tensors: list[Tensor]) -> Step | None:
        """Rows that several samples share, and matrix products of each sample."""
        shape = tensors[-1].shape
        if len(shape) != 3:
            return None
        left, right = self.weight(shape[0], 2, shape[1]), self.weight(shape[0], shape[2], 2)
        shift = self.weight(shape[0], shape[1], 2)
        return self.random.choice(
            [
                *[lambda tensors: torch.bmm(tensors[-1], right), lambda tensors: torch.bmm(left, tensors[-1])],
                *[lambda tensors: torch.baddbmm(shift, tensors[-1], right), lambda tensors: tensors[-1] @ right[0]],
                *[lambda tensors: left[0] @ tensors[-1]],
            ]
        )

    def coupling(self, tensors: list[Tensor]) -> Step:
        batch = self.batch
        order = torch.randperm(tensors[-1].shape[0])
        return self.random.choice(
            [
                *[lambda tensors: tensors[-1] - tensors[-1].mean(0), lambda tensors: tensors[-1] + tensors[-1].flip(0)],
                *[lambda tensors: tensors[-1].roll(1, 0), lambda tensors: tensors[-1].cumsum(0)],
                *[lambda tensors: tensors[-1][order], lambda tensors: tensors[-1] + 0.1 * tensors[-1].sum()],
                *[lambda tensors: tensors[-1].reshape(2, batch // 2, -1).flip(0).reshape(batch, -1)],
                *[
                    lambda tensors: tensors[-1].reshape(-1, batch).t(),
                    lambda tensors: tensors[-1] - tensors[-1].amax(0),
                ],
            ]
        )
