"""Critics of several inputs, given as a tuple: one norm over the gradients at all of them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wgan_fast import gradient_penalty, input_gradient, r1_penalty, r1_r2_penalty, r2_penalty, wgan_div_penalty

BATCH = 5
Inputs = tuple[Tensor, ...]


class ImageAndText(nn.Module):
    """Affine in both inputs for fixed masks."""

    def __init__(self, activation: Callable[[Tensor], Tensor] = F.relu) -> None:
        super().__init__()
        self.activation = activation
        self.image, self.text, self.head = nn.Conv2d(2, 3, 2), nn.Linear(4, 5), nn.Linear(32, 1)
        self.gate = nn.Linear(4, 12)

    def features(self, image: Tensor, text: Tensor) -> Tensor:
        return torch.cat([self.activation(self.image(image)).flatten(1), self.activation(self.text(text))], 1)

    def forward(self, image: Tensor, text: Tensor, scale: float = 1.0) -> Tensor:
        return self.head(self.activation(scale * self.features(image, text)))


class Product(ImageAndText):
    """Linear in each input, and a product of both."""

    def forward(self, image: Tensor, text: Tensor, scale: float = 1.0) -> Tensor:
        return (self.image(image).flatten(1)[:, :12] * self.gate(text)).sum(1) * scale


class Coupled(ImageAndText):
    """The first input by itself, the second with its mean over the batch."""

    def forward(self, image: Tensor, text: Tensor, scale: float = 1.0) -> Tensor:
        return super().forward(image, text - text.mean(0), scale)


class Alone(ImageAndText):
    """The second input is not used."""

    def forward(self, image: Tensor, text: Tensor, scale: float = 1.0) -> Tensor:
        return super().forward(image, torch.ones_like(text), scale)


CRITICS: dict[str, Callable[[], nn.Module]] = {
    "affine": ImageAndText,
    "curved": lambda: ImageAndText(torch.tanh),
    "product": Product,
    "coupled": Coupled,
    "second input unused": Alone,
}


def made(name: str) -> nn.Module:
    return CRITICS[name]().double()


def inputs() -> Inputs:
    return torch.randn(BATCH, 2, 4, 4, dtype=torch.float64), torch.randn(BATCH, 4, dtype=torch.float64)


def textbook(critic: Callable[..., Tensor], x: Inputs, *args: Any) -> tuple[Tensor, Inputs]:
    x = tuple(one.detach().clone().requires_grad_() for one in x)
    scores = critic(*x, *args)
    return scores, torch.autograd.grad(scores.sum(), x, create_graph=True, materialize_grads=True)


def norms(critic: Callable[..., Tensor], x: Inputs, *args: Any) -> Tensor:
    return torch.cat([one.flatten(1) for one in textbook(critic, x, *args)[1]], 1).norm(dim=1)


def gradients(loss: Tensor, critic: nn.Module) -> list[Tensor | None]:
    critic.zero_grad()
    loss.backward()
    return [parameter.grad for parameter in critic.parameters()]


def assert_same(loss: Tensor, expected: Tensor, critic: nn.Module) -> None:
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-13)
    for one, other in zip(gradients(loss, critic), gradients(expected, critic), strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("name", CRITICS)
def test_input_gradient(name: str) -> None:
    critic, x = made(name), inputs()
    values = []
    for evaluate in (input_gradient, textbook):
        scores, gradient = evaluate(critic, x, 0.5)
        assert isinstance(gradient, tuple) and [one.shape for one in gradient] == [one.shape for one in x]
        squares = sum(one.flatten(1).square().sum(1) for one in gradient)
        values.append((F.softplus(-scores.reshape(BATCH)) * (1 + squares)).mean() + gradient[0].sin().sum())
    assert_same(*values, critic)


@pytest.mark.parametrize("name", CRITICS)
def test_path(name: str) -> None:
    scores, _ = input_gradient(made(name), inputs())
    assert ("AffineScores" in scores.grad_fn.name()) == (name in ("affine", "second input unused"))


@pytest.mark.parametrize("name", CRITICS)
def test_penalties(name: str) -> None:
    critic, real, fake = made(name), inputs(), inputs()
    t = torch.rand(BATCH, dtype=torch.float64)
    points = tuple(
        t.view(-1, *[1] * (one.dim() - 1)) * other + (1 - t.view(-1, *[1] * (one.dim() - 1))) * one
        for one, other in zip(real, fake, strict=True)
    )
    of_points = norms(critic, points, 0.5)
    penalty = gradient_penalty(critic, real, fake, 0.5, t=t, weight=3.0, target=0.2)
    assert_same(penalty, 3 * (of_points - 0.2).square().mean(), critic)
    penalty = gradient_penalty(critic, real, fake, 0.5, t=t, target=0.2, one_sided=True)
    assert_same(penalty, 10 * (norms(critic, points, 0.5) - 0.2).clamp(min=0).square().mean(), critic)
    penalty = wgan_div_penalty(critic, real, fake, 0.5, t=t)
    assert_same(penalty, 2 * (norms(critic, points, 0.5) ** 6).mean(), critic)
    at_real = 1.5 * norms(critic, real, 0.5).square().mean()
    assert_same(r1_penalty(critic, real, 0.5, weight=3.0), at_real, critic)
    at_fake = 1.5 * norms(critic, fake, 0.5).square().mean()
    assert_same(r2_penalty(critic, fake, 0.5, weight=3.0), at_fake, critic)
    both = 1.5 * (norms(critic, real, 0.5).square().mean() + norms(critic, fake, 0.5).square().mean())
    assert_same(r1_r2_penalty(critic, real, fake, 0.5, weight=3.0), both, critic)


def test_inputs_share_the_random_numbers() -> None:
    """f(x, y) = x y has the gradient (y, x), so that the norm tells whether one t was drawn for both."""
    ones = torch.ones(BATCH, 1, dtype=torch.float64)
    seen: list[Inputs] = []

    def critic(x: Tensor, y: Tensor) -> Tensor:
        seen.append((x.detach(), y.detach()))
        return x * y

    gradient_penalty(critic, (0 * ones, 0 * ones), (ones, 3 * ones), generator=torch.Generator().manual_seed(3))
    gradient_penalty(critic, (0 * ones, 0 * ones), (ones, 3 * ones), generator=torch.Generator().manual_seed(3))
    for x, y in seen:
        torch.testing.assert_close(3 * x, y)
    assert seen[0][0].unique().numel() == BATCH and torch.equal(seen[0][0], seen[1][0])


def test_a_tuple_of_one_is_that_input() -> None:
    critic, (real, fake) = nn.Linear(4, 1).double(), torch.randn(2, BATCH, 4, dtype=torch.float64)
    t = torch.rand(BATCH)
    assert torch.equal(gradient_penalty(critic, (real,), (fake,), t=t), gradient_penalty(critic, real, fake, t=t))
    scores, gradient = input_gradient(critic, (real,))
    assert torch.equal(scores, critic(real)) and isinstance(gradient, tuple) and len(gradient) == 1


def test_inputs_of_one_dimension() -> None:
    """A time for each sample, as in a diffusion model's critic."""
    x, time = torch.randn(BATCH, 3, dtype=torch.float64), torch.rand(BATCH, dtype=torch.float64)
    penalty = r1_penalty(lambda x, time: x.sum(1) * 2 + 3 * time, (x, time), weight=2.0)
    torch.testing.assert_close(penalty, torch.tensor(3 * 4.0 + 9.0, dtype=torch.float64))


def test_inputs_that_require_gradients() -> None:
    critic, x = made("curved"), inputs()
    found = []
    for evaluate in (input_gradient, textbook_with_history):
        leaves = tuple(one.clone().requires_grad_() for one in x)
        scores, gradient = evaluate(critic, leaves)
        loss = scores.sin().sum() + sum(one.square().sum() for one in gradient)
        found.append(torch.autograd.grad(loss, (*leaves, *critic.parameters()), allow_unused=True))
    for one, other in zip(*found, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-13)


def textbook_with_history(critic: nn.Module, x: Inputs) -> tuple[Tensor, Inputs]:
    scores = critic(*x)
    return scores, torch.autograd.grad(scores.sum(), x, create_graph=True)


def test_samples_are_untouched() -> None:
    critic, x = made("affine"), inputs()
    before = tuple(one.clone() for one in x)
    input_gradient(critic, x)
    gradient_penalty(critic, x, inputs())
    for one, other in zip(x, before, strict=True):
        assert torch.equal(one, other) and not one.requires_grad


@pytest.mark.parametrize(
    ("error", "message", "real", "fake"),
    [
        (ValueError, r"^real: ", (), ()),
        (ValueError, r"^fake: expected 2 tensors, as many as real, got 1", inputs(), inputs()[:1]),
        (ValueError, r"^real\[1\]: expected 5 samples, got 4", (inputs()[0], inputs()[1][:4]), inputs()),
        (TypeError, r"^real\[1\]: ", (inputs()[0], 1.0), inputs()),
        (TypeError, r"^fake\[0\]: ", inputs(), (torch.ones(BATCH, 2, dtype=torch.long), inputs()[1])),
        (ValueError, r"^real\[0\]: ", (torch.ones(0, 3), torch.ones(0, 3)), inputs()),
        (ValueError, r"^real\[1\]: ", (torch.ones(BATCH, 3), torch.ones(BATCH, 3, device="meta")), inputs()),
        (ValueError, r"^fake: expected 2 tensors", inputs(), inputs()[0]),
        (ValueError, r"^fake: ", inputs(), (inputs()[0], torch.ones(BATCH, 3, dtype=torch.float64))),
    ],
)
def test_errors(error: type, message: str, real: Any, fake: Any) -> None:
    with pytest.raises(error, match=message):
        gradient_penalty(made("affine"), real, fake)


@pytest.mark.parametrize(
    ("error", "message", "x"),
    [
        (ValueError, r"^x: expected at least one tensor", ()),
        (ValueError, r"^x\[1\]: expected 5 samples, got 4", (inputs()[0], inputs()[1][:4])),
        (TypeError, r"^x\[1\]: ", (inputs()[0], None)),
        (ValueError, r"^critic: its scores do not depend", (torch.ones(BATCH, 2, 4, 4), torch.ones(BATCH, 4))),
    ],
)
def test_errors_of_input_gradient(error: type, message: str, x: Any) -> None:
    with pytest.raises(error, match=message):
        input_gradient(lambda image, text: nn.Linear(4, 1)(torch.ones(BATCH, 4)), x)
