"""Mixed precision: the penalty is right where the textbook's overflows."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from wgan_fast import dragan_penalty, gradient_penalty, r1_penalty, r2_penalty, reference, wgan_div_penalty

HALF = torch.float16


def make_critic(gain: float = 1.0) -> nn.Module:
    critic = nn.Sequential(nn.Linear(64, 32), nn.LeakyReLU(0.2), nn.Linear(32, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))
    with torch.no_grad():
        critic[4].weight.mul_(gain)
    return critic


@pytest.fixture
def batches() -> tuple[Tensor, Tensor, Tensor]:
    real, fake = torch.randn(2, 8, 64)
    return real, fake, torch.rand(8)


def naive(critic: nn.Module, real: Tensor, fake: Tensor, *, t: Tensor) -> Tensor:
    """The textbook under autocast, which sums the squares of the norm in the critic's precision."""
    points = reference.interpolate(real, fake, t).to(HALF).requires_grad_()
    scores = critic(points)
    (gradient,) = torch.autograd.grad(scores, points, torch.ones_like(scores), create_graph=True)
    norms = (gradient**2).sum(1).sqrt()
    return 10 * ((norms - 1) ** 2).mean()


def gradients(penalty: Tensor, critic: nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad(penalty, list(critic.parameters())[:5:2]))


class TestHalf:
    def test_norms_beyond_its_range(self, device: torch.device, batches: tuple[Tensor, Tensor, Tensor]) -> None:
        critic = make_critic(gain=20_000.0).to(device)
        real, fake, t = (value.to(device) for value in batches)
        exact = copy.deepcopy(critic).double()
        expected = reference.gradient_penalty(exact, real.double(), fake.double(), t=t.double())
        with torch.autocast(device.type, dtype=HALF):
            overflowed = naive(critic, real, fake, t=t)
            penalty = gradient_penalty(critic, real, fake, t=t)
        # On a GPU PyTorch accumulates the norm of float16 in float32.
        assert device.type == "cuda" or not overflowed.isfinite()
        assert penalty.item() == pytest.approx(expected.item(), rel=0.02)

    @pytest.mark.parametrize(("gain", "scale"), [(1e4, 2.0**-12), (1e-4, 2.0**15)], ids=["overflow", "underflow"])
    def test_signals_beyond_its_range(
        self, device: torch.device, batches: tuple[Tensor, Tensor, Tensor], gain: float, scale: float
    ) -> None:
        """The gradient of the scores overflows float16 within two layers."""
        critic = make_critic(gain).to(device)
        with torch.no_grad():
            critic[2].weight.mul_(gain)
        real, fake, t = (value.to(device) for value in batches)
        exact = copy.deepcopy(critic).double()
        options = {"weight": gain**-4, "target": 0.0}
        expected = reference.gradient_penalty(exact, real.double(), fake.double(), t=t.double(), **options)
        scaler = torch.amp.GradScaler(device.type, init_scale=scale)
        with torch.autocast(device.type, dtype=HALF):
            unscaled = gradient_penalty(critic, real, fake, t=t, **options)
            scaled = gradient_penalty(critic, real, fake, t=t, scaler=scaler, **options)
        assert not unscaled.isfinite() or unscaled < 0.5 * expected
        assert scaled.item() == pytest.approx(expected.item(), rel=0.02)

    def test_scaled_gradients(self, device: torch.device, batches: tuple[Tensor, Tensor, Tensor]) -> None:
        critic = make_critic().to(device)
        real, fake, t = (value.to(device) for value in batches)
        exact = copy.deepcopy(critic).double()
        expected = reference.gradient_penalty(exact, real.double(), fake.double(), t=t.double())
        scaler = torch.amp.GradScaler(device.type, init_scale=256.0)
        with torch.autocast(device.type, dtype=HALF):
            penalty = gradient_penalty(critic, real, fake, t=t, scaler=scaler)
        for gradient, wanted in zip(gradients(scaler.scale(penalty), critic), gradients(expected, exact), strict=True):
            assert (gradient.double() / 256 - wanted).norm() <= 0.02 * wanted.norm()

    def test_training_step(self, device: torch.device, batches: tuple[Tensor, Tensor, Tensor]) -> None:
        """PyTorch's recipe: an overflow halves the scale and skips the step; the next step succeeds."""
        critic = make_critic().to(device)
        real, fake, t = (value.to(device) for value in batches)
        optimizer = torch.optim.SGD(critic.parameters(), lr=0.1)
        scaler = torch.amp.GradScaler(device.type, init_scale=2.0**24)
        weights, scales = [critic[0].weight.detach().clone()], []
        for _ in range(14):
            optimizer.zero_grad()
            with torch.autocast(device.type, dtype=HALF):
                penalty = gradient_penalty(critic, real, fake, t=t, scaler=scaler)
            scaler.scale(penalty).backward()
            scaler.step(optimizer)
            scaler.update()
            weights.append(critic[0].weight.detach().clone())
            scales.append(scaler.get_scale())
        assert scales[0] == 2.0**23 and torch.equal(weights[0], weights[1])
        assert weights[-1].isfinite().all() and not torch.equal(weights[-1], weights[0])

    @pytest.mark.parametrize(
        "penalty",
        [
            lambda critic, real, fake, t, **scaler: gradient_penalty(critic, real, fake, t=t, target=0.0, **scaler),
            lambda critic, real, fake, t, **scaler: wgan_div_penalty(critic, real, fake, t=t, p=2.0, **scaler),
            lambda critic, real, fake, t, **scaler: r1_penalty(critic, real, **scaler),
            lambda critic, real, fake, t, **scaler: r2_penalty(critic, fake, **scaler),
            lambda critic, real, fake, t, **scaler: dragan_penalty(
                critic, real, target=0.0, generator=torch.Generator(real.device).manual_seed(1), **scaler
            ),
        ],
        ids=["wgan-gp", "wgan-div", "r1", "r2", "dragan"],
    )
    @pytest.mark.parametrize("transform", [False, True], ids=["eager", "torch.func"])
    def test_every_penalty_takes_a_scaler(
        self,
        device: torch.device,
        batches: tuple[Tensor, Tensor, Tensor],
        penalty: Callable[..., Tensor],
        transform: bool,
    ) -> None:
        critic = make_critic(gain=1e-4).to(device)
        with torch.no_grad():
            critic[2].weight.mul_(1e-4)
        batches = tuple(value.to(device) for value in batches)
        scaler = torch.amp.GradScaler(device.type, init_scale=2.0**15)
        expected = penalty(critic, *batches)

        def value(**options: object) -> Tensor:
            with torch.autocast(device.type, dtype=HALF):
                if not transform:
                    return penalty(critic, *batches, **options)
                weights = dict(critic.named_parameters())

                def loss(weights: dict[str, Tensor]) -> Tensor:
                    return penalty(lambda x: torch.func.functional_call(critic, weights, (x,)), *batches, **options)

                return torch.func.grad_and_value(loss)(weights)[1]

        assert value() < 0.5 * expected
        torch.testing.assert_close(value(scaler=scaler), expected, rtol=0.02, atol=0)

    def test_disabled_scaler(self, batches: tuple[Tensor, Tensor, Tensor]) -> None:
        critic, (real, fake, t) = make_critic(), batches
        scaler = torch.amp.GradScaler("cpu", enabled=False)
        assert gradient_penalty(critic, real, fake, t=t, scaler=scaler) == gradient_penalty(critic, real, fake, t=t)

    @pytest.mark.parametrize("penalty", [gradient_penalty, r1_penalty])
    def test_scaler_of_another_kind(self, penalty: Callable[..., Tensor], batches: tuple[Tensor, ...]) -> None:
        critic, samples = make_critic(), batches[: 2 if penalty is gradient_penalty else 1]
        state = torch.get_rng_state()
        with pytest.raises(TypeError, match="^scaler: expected a torch.amp.GradScaler, got float"):
            penalty(critic, *samples, scaler=1024.0)
        assert torch.equal(state, torch.get_rng_state())


class TestConvolutions:
    @pytest.mark.parametrize("dtype", [torch.bfloat16, HALF], ids=str)
    def test_autocast(self, device: torch.device, dtype: torch.dtype) -> None:
        critic = nn.Sequential(
            nn.Conv2d(3, 8, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True), nn.Conv2d(8, 8, 4, 2, 1), nn.PReLU(8),
            nn.ConvTranspose2d(8, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 1),
        ).to(device)  # fmt: skip
        real, fake = torch.randn(2, 4, 3, 8, 8).to(device)
        t = torch.rand(4).to(device)
        exact = copy.deepcopy(critic).double()
        expected = reference.gradient_penalty(exact, real.double(), fake.double(), t=t.double())
        seen = []
        critic[0].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
        with torch.autocast(device.type, dtype=dtype):
            penalty = gradient_penalty(critic, real, fake, t=t)
        assert seen == [dtype]
        assert penalty.dtype == torch.float32 and penalty.item() == pytest.approx(expected.item(), rel=0.05)
        parameters = [parameter for parameter in critic.parameters() if parameter.dim() > 1]
        wanted = torch.autograd.grad(expected, [parameter for parameter in exact.parameters() if parameter.dim() > 1])
        for gradient, exact_gradient in zip(torch.autograd.grad(penalty, parameters), wanted, strict=True):
            assert gradient.dtype == torch.float32
            assert (gradient.double() - exact_gradient).norm() <= 0.2 * exact_gradient.norm()  # signs near 0 flip
