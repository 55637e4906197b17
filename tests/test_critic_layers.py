"""The library's layers against PyTorch's: same outputs, gradients, errors and hooks."""

import copy
import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from critics import CRITICS
from wgan_fast import gradient_penalty, r1_penalty, reference
from wgan_fast._critic.layers import CriticLayers

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "nn.ReLU": nn.ReLU(),
    "nn.ReLU, in place": nn.ReLU(inplace=True),
    "F.relu": F.relu,
    "F.relu_": F.relu_,
    "F.relu, inplace": lambda x: F.relu(x, True),
    "torch.relu": torch.relu,
    "torch.relu_": torch.relu_,
    "Tensor.relu": lambda x: x.relu(),
    "Tensor.relu_": lambda x: x.relu_(),
    "nn.LeakyReLU": nn.LeakyReLU(0.3),
    "nn.LeakyReLU, in place": nn.LeakyReLU(0.3, inplace=True),
    "nn.LeakyReLU, negative": nn.LeakyReLU(-0.5),
    "F.leaky_relu": F.leaky_relu,
    "F.leaky_relu, keywords": lambda x: F.leaky_relu(input=x, negative_slope=0.2, inplace=True),
    "F.leaky_relu_": lambda x: F.leaky_relu_(x, 0.2),
    "torch._C._nn.leaky_relu": lambda x: torch._C._nn.leaky_relu(x, negative_slope=0.2),
    "torch._C._nn.leaky_relu_": torch._C._nn.leaky_relu_,
    "nn.ReLU6": nn.ReLU6(),
    "nn.ReLU6, in place": nn.ReLU6(inplace=True),
    "F.relu6": lambda x: F.relu6(4 * x),
    "nn.Hardtanh": nn.Hardtanh(-0.5, 0.25),
    "nn.Hardtanh, in place": nn.Hardtanh(-0.5, 0.25, inplace=True),
    "F.hardtanh": F.hardtanh,
    "F.hardtanh_": lambda x: F.hardtanh_(x, 0.1, 0.6),
    "nn.PReLU": nn.PReLU(),
    "nn.PReLU, channels": nn.PReLU(5),
    "F.prelu": lambda x: F.prelu(x, x.new_tensor([0.3])),
    "nn.RReLU": nn.RReLU().eval(),
    "nn.RReLU, in place": nn.RReLU(inplace=True).eval(),
    "F.rrelu": lambda x: F.rrelu(x, 0.1, 0.2),
}


class TestActivations:
    @pytest.mark.parametrize("name", ACTIVATIONS)
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
    def test_same_outputs_and_gradients(self, device: torch.device, name: str, dtype: torch.dtype) -> None:
        activation = ACTIVATIONS[name]
        if isinstance(activation, nn.Module):
            activation = copy.deepcopy(activation).to(device, dtype)
        x = torch.randn(3, 5, 4).to(device, dtype).requires_grad_()
        before = x * 1
        expected = activation(before)
        with CriticLayers():
            given = x * 1
            output = activation(given)
        assert (output is given) == (expected is before)
        assert output._version == expected._version
        assert "wgan_fast" in output.grad_fn.name() or "CppFunction" in type(output.grad_fn).__name__
        assert torch.equal(output, expected) and output.stride() == expected.stride()
        v = torch.randn_like(expected)
        (gradient,), (wanted,) = (torch.autograd.grad(y, x, v) for y in (output, expected))
        assert torch.equal(gradient, wanted)

    @pytest.mark.parametrize("name", ACTIVATIONS)
    def test_penalty_against_the_textbook(self, device: torch.device, name: str) -> None:
        activation = ACTIVATIONS[name]
        layers = [activation if isinstance(activation, nn.Module) else nn.Identity()]
        critic = nn.Sequential(nn.Linear(4, 5), copy.deepcopy(layers[0]), nn.Linear(5, 2)).to(device, torch.float64)
        if not isinstance(activation, nn.Module):
            critic[1].forward = activation
        real, fake = torch.randn(2, 6, 4, dtype=torch.float64).to(device)
        t = torch.rand(6, dtype=torch.float64).to(device)
        results = []
        for penalty in (gradient_penalty, reference.gradient_penalty):
            critic.zero_grad()
            value = penalty(critic, real, fake, t=t)
            value.backward()
            results.append((value, [parameter.grad.clone() for parameter in list(critic.parameters())[:-1]]))
        torch.testing.assert_close(*results, rtol=1e-10, atol=1e-10)

    def test_no_mask_without_gradients(self) -> None:
        with CriticLayers(), torch.no_grad():
            assert not nn.ReLU()(torch.randn(3, requires_grad=True)).requires_grad

    @pytest.mark.parametrize(
        "x",
        [
            torch.randn(3, 4)[:, ::2],
            torch.randn(3, 1).expand(3, 4),
            torch.arange(-3, 3),
            torch.randn(0, 3),
            torch.randn(()),
            torch.randn(3, 4).to_sparse(),
        ],
        ids=["gaps", "expanded", "integers", "empty", "scalar", "sparse"],
    )
    def test_any_tensor(self, x: Tensor) -> None:
        expected = torch.relu(x)
        with CriticLayers():
            output = torch.relu(x)
        assert output.layout == expected.layout and torch.equal(output.to_dense(), expected.to_dense())

    def test_training_rrelu_stays_random(self) -> None:
        with CriticLayers():
            slopes = F.rrelu(-torch.ones(100), training=True).neg()
        assert slopes.std() > 0.01 and (slopes >= 1 / 8).all() and (slopes <= 1 / 3).all()

    def test_errors_are_pytorch_s(self) -> None:
        with CriticLayers():
            with pytest.raises(ValueError, match="min_val cannot be greater than max_val"):
                F.hardtanh(torch.randn(3), 1.0, 0.0)
            leaf = torch.full((3,), -1.0, requires_grad=True)
            with pytest.raises(RuntimeError, match="a leaf Variable that requires grad"):
                torch.relu_(leaf)
            assert leaf.tolist() == [-1.0] * 3
            with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
                nn.Linear(3, 2)(torch.randn(2, 4))
            with pytest.raises(RuntimeError, match="expected input"):
                nn.Conv2d(3, 2, 1)(torch.randn(2, 4, 3, 3))
            with pytest.raises(TypeError, match=r"must be Tensor, not NoneType"):
                F.relu(None)
            y = torch.empty(3)
            assert torch._C._nn.leaky_relu(-torch.ones(3), 0.5, out=y) is y and (y == -0.5).all()


class Tagged(Tensor):
    """A subclass of Tensor, which overrides functions itself."""


class TestLayers:
    @pytest.mark.parametrize("layer", [nn.Linear(4, 3), nn.Conv1d(4, 3, 3), nn.ConvTranspose1d(4, 3, 2)], ids=str)
    @pytest.mark.parametrize("shape", [(4, 4), (2, 4, 4), (2, 2, 4, 4)])
    def test_inputs_of_any_dimensions(self, layer: nn.Module, shape: tuple[int, ...]) -> None:
        if len(shape) == 4 and not isinstance(layer, nn.Linear):
            pytest.skip("not a shape of this layer")
        x = torch.randn(shape, requires_grad=True)
        expected = layer(x)
        with CriticLayers():
            output = layer(x)
        torch.testing.assert_close(output, expected)
        v = torch.randn_like(expected)
        leaves = [x, layer.weight, layer.bias]
        gradients = [torch.autograd.grad(y, leaves, v) for y in (output, expected)]
        torch.testing.assert_close(*gradients)

    @pytest.mark.parametrize("number", [2, (2,), [2], torch.tensor(2), np.int64(2)], ids=str)
    def test_numbers_of_any_kind(self, number: object) -> None:
        x, weight = torch.randn(2, 3, 8), torch.randn(4, 3, 3)
        expected = F.conv1d(x, weight, stride=number)
        with CriticLayers():
            assert torch.equal(F.conv1d(x, weight, stride=number), expected)

    @pytest.mark.parametrize("channels", [1, 3, 4, 5])
    @pytest.mark.parametrize(
        "options", [{}, {"stride": 2, "padding": 1}, {"stride": 3, "dilation": 2, "padding": (2, 0)}]
    )
    def test_back_to_few_channels(self, device: torch.device, channels: int, options: dict) -> None:
        """The input gradient for images of few channels, a special case on the CPU."""
        layer = nn.Conv2d(channels, 6, (3, 2), **options).to(device, torch.float64)
        critic = nn.Sequential(layer, nn.LeakyReLU(0.2), nn.Flatten(), nn.LazyLinear(1)).to(device, torch.float64)
        points = torch.randn(2, 3, channels, 10, 11, dtype=torch.float64).to(device)
        t = torch.rand(3, dtype=torch.float64).to(device)
        critic(points[0])
        results = []
        for penalty in (gradient_penalty, reference.gradient_penalty):
            value = penalty(critic, *points, t=t)
            results.append((value, *torch.autograd.grad(value, [layer.weight, critic[3].weight])))
        torch.testing.assert_close(*results, rtol=1e-10, atol=1e-12)

    def test_differentiable_many_times(self, device: torch.device) -> None:
        critic = nn.Sequential(nn.Conv2d(2, 3, 2), nn.LeakyReLU(0.2), nn.Conv2d(3, 1, 2, stride=2), nn.Flatten())
        critic.to(device, torch.float64)

        def scores(x: Tensor) -> Tensor:
            with CriticLayers():
                return critic(x).square()

        x = torch.randn(2, 2, 4, 4, dtype=torch.float64).to(device).requires_grad_()
        assert torch.autograd.gradcheck(scores, (x,))
        assert torch.autograd.gradgradcheck(scores, (x,))

    def test_subclasses_are_left_alone(self) -> None:
        x = torch.randn(3, 4).as_subclass(Tagged)
        with CriticLayers():
            assert isinstance(F.relu(nn.Linear(4, 2)(x)), Tagged)

    def test_hooks_that_change_things(self) -> None:
        critic = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 1)).double()
        critic[0].register_forward_hook(lambda module, inputs, output: 2 * output)
        critic[1].register_forward_pre_hook(lambda module, inputs: (inputs[0] + 0.1,))
        critic[2].register_full_backward_hook(lambda module, grad_in, grad_out: (3 * grad_in[0],))
        real, fake = torch.randn(2, 6, 4).double()
        t = torch.rand(6).double()
        results = [
            torch.autograd.grad(penalty(critic, real, fake, t=t), list(critic.parameters())[:3])
            for penalty in (gradient_penalty, reference.gradient_penalty)
        ]
        torch.testing.assert_close(*results, rtol=1e-10, atol=1e-10)

    def test_frozen_layers(self) -> None:
        critic = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 1)).double()
        critic[2].requires_grad_(False)
        real, fake = torch.randn(2, 6, 4).double()
        t = torch.rand(6).double()
        results = []
        for penalty in (gradient_penalty, reference.gradient_penalty):
            critic.zero_grad()
            penalty(critic, real, fake, t=t).backward()
            results.append([parameter.grad for parameter in critic.parameters()])
        torch.testing.assert_close(*results, rtol=1e-10, atol=1e-10)
        critic.requires_grad_(False)
        gradient_penalty(critic, real, fake, t=t).backward()

    def test_saved_tensors_hooks_see_what_is_saved(self) -> None:
        critic, seen = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 1)), []

        def watched(x: Tensor) -> Tensor:
            with torch.autograd.graph.saved_tensors_hooks(
                lambda saved: (seen.append(saved), saved)[1], lambda saved: saved
            ):
                return critic(x)

        gradient_penalty(watched, *torch.randn(2, 6, 4)).backward()
        assert len(seen) >= 5


class Fused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.projection, self.head = nn.Linear(4, 12), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.scaled_dot_product_attention(*self.projection(x).chunk(3, -1))).mean(1)


def transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
    return nn.Sequential(layer, nn.Flatten(), nn.Linear(12, 1))


class TestTwiceDifferentiable:
    """Layers whose fused implementation in PyTorch has no second derivative."""

    @pytest.mark.parametrize("make", [Fused, transformer])
    def test_attention(self, device: torch.device, make: Callable[[], nn.Module]) -> None:
        critic = make().to(device, torch.float64)
        points = torch.randn(6, 3, 4, dtype=torch.float64).to(device)
        with sdpa_kernel(SDPBackend.MATH):
            expected = reference.gradient_penalty(critic, points, points)
        penalty = gradient_penalty(critic, points, points)
        torch.testing.assert_close(penalty, expected, rtol=1e-10, atol=1e-12)
        results = [torch.autograd.grad(p, list(critic.parameters()), allow_unused=True) for p in (penalty, expected)]
        torch.testing.assert_close(*results, rtol=1e-10, atol=1e-10)

    @pytest.mark.parametrize("make", [Fused, transformer, CRITICS["lstm"][0]])
    def test_checkpointed(self, device: torch.device, make: Callable[[], nn.Module]) -> None:
        """What a backward pass recomputes is what the forward computed."""
        critic, points = make().to(device), torch.randn(6, 3, 4).to(device)
        results = []
        for function in (critic, lambda x: checkpoint(critic, x, use_reentrant=False)):
            critic.zero_grad()
            for penalty in (r1_penalty(function, points), r1_penalty(function, 2 * points)):
                penalty.backward()
            results.append([parameter.grad for parameter in critic.parameters() if parameter.grad is not None])
        torch.testing.assert_close(*results)

    @pytest.mark.parametrize("inplace", [False, True])
    def test_hardsigmoid(self, inplace: bool) -> None:
        critic = nn.Sequential(nn.Linear(4, 5), nn.Hardsigmoid(inplace), nn.Linear(5, 1)).double()

        def exact(x: Tensor) -> Tensor:
            return critic[2](F.relu6(critic[0](x) + 3) / 6)

        points = 4 * torch.randn(6, 4, dtype=torch.float64)
        penalty, expected = gradient_penalty(critic, points, points), reference.gradient_penalty(exact, points, points)
        torch.testing.assert_close(penalty, expected, rtol=1e-10, atol=1e-12)
        weights = [critic[0].weight, critic[2].weight]
        torch.testing.assert_close(torch.autograd.grad(penalty, weights), torch.autograd.grad(expected, weights))

    @pytest.mark.parametrize("name", ["recurrent", "lstm", "rnn"])
    def test_recurrent_layers(self, device: torch.device, name: str) -> None:
        make, shape = CRITICS[name]
        critic = make().to(device)
        enabled = torch.backends.cudnn.enabled
        r1_penalty(critic, torch.randn(6, *shape).to(device)).backward()
        assert torch.backends.cudnn.enabled == enabled
        assert all(parameter.grad.isfinite().all() for parameter in list(critic.parameters())[:-1])

    def test_threads_leave_settings_as_they_were(self) -> None:
        make, shape = CRITICS["lstm"]

        def work() -> None:
            for critic in (make(), Fused()):
                for _ in range(10):
                    r1_penalty(critic, torch.randn(2, *shape)).backward()

        flash, enabled = torch.backends.cuda.flash_sdp_enabled(), torch.backends.cudnn.enabled
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert torch.backends.cuda.flash_sdp_enabled() == flash and torch.backends.cudnn.enabled == enabled

    def test_cudnn_is_off_for_recurrent_layers_only(self) -> None:
        seen: dict[str, bool] = {}

        class Spy(torch.overrides.TorchFunctionMode):
            """Lies below CriticLayers, and so receives the calls that it makes."""

            def __torch_function__(self, func, types, args=(), kwargs=None):
                seen[getattr(func, "__name__", str(func))] = torch.backends.cudnn.enabled
                return func(*args, **(kwargs or {}))

        critic = nn.GRU(4, 5, batch_first=True)
        with Spy(), CriticLayers():
            torch.sin(critic(torch.randn(2, 3, 4))[0])
        assert seen["gru"] is False and seen["sin"] is True
