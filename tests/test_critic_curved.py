"""Smooth activations and normalisation inside a penalty, against PyTorch's own."""

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from random_critics import RandomCritic
from wgan_fast import (
    dragan_penalty,
    gradient_penalty,
    input_gradient,
    r1_penalty,
    r2_penalty,
    wgan_div_penalty,
)
from wgan_fast._critic.layers import CriticLayers

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "nn.SiLU": nn.SiLU(),
    "nn.SiLU, in place": nn.SiLU(inplace=True),
    "F.silu": F.silu,
    "F.silu, inplace": lambda x: F.silu(x, True),
    "nn.GELU": nn.GELU(),
    "nn.GELU, tanh": nn.GELU("tanh"),
    "F.gelu": lambda x: F.gelu(x, approximate="tanh"),
    "nn.Tanh": nn.Tanh(),
    "torch.tanh": torch.tanh,
    "torch.tanh_": torch.tanh_,
    "F.tanh": F.tanh,
    "Tensor.tanh": lambda x: x.tanh(),
    "Tensor.tanh_": lambda x: x.tanh_(),
    "nn.Sigmoid": nn.Sigmoid(),
    "torch.sigmoid": torch.sigmoid,
    "torch.sigmoid_": torch.sigmoid_,
    "F.sigmoid": F.sigmoid,
    "torch.special.expit": torch.special.expit,
    "Tensor.sigmoid": lambda x: x.sigmoid(),
    "Tensor.sigmoid_": lambda x: x.sigmoid_(),
    "nn.Softplus": nn.Softplus(),
    "nn.Softplus, settings": nn.Softplus(2.0, 1.0),
    "F.softplus": lambda x: F.softplus(x, beta=3),
    "nn.ELU": nn.ELU(0.7),
    "nn.ELU, in place": nn.ELU(inplace=True),
    "F.elu": F.elu,
    "F.elu_": lambda x: F.elu_(x, 0.5),
    "torch._C._nn.elu": lambda x: torch._C._nn.elu(x, 0.5, 1.5, 0.7),
    "torch._C._nn.elu_": torch._C._nn.elu_,
    "nn.SELU": nn.SELU(),
    "nn.SELU, in place": nn.SELU(inplace=True),
    "torch.selu": torch.selu,
    "torch.selu_": torch.selu_,
    # PyTorch rounds 1 / alpha to float32, so alpha is a power of 2.
    "nn.CELU": nn.CELU(0.5),
    "nn.CELU, in place": nn.CELU(0.5, inplace=True),
    "torch.celu": torch.celu,
    "torch.celu_": torch.celu_,
    "nn.Mish": nn.Mish(),
    "nn.Mish, in place": nn.Mish(inplace=True),
    "nn.LogSigmoid": nn.LogSigmoid(),
    "F.logsigmoid": F.logsigmoid,
    "nn.Softsign": nn.Softsign(),
}

#: Module, and the shape of a sample of it.
NORMALISATION: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "LayerNorm": (lambda: nn.LayerNorm(6), (6,)),
    "LayerNorm of two dimensions": (lambda: nn.LayerNorm((4, 6)), (3, 4, 6)),
    "LayerNorm without bias": (lambda: nn.LayerNorm(6, bias=False), (4, 6)),
    "LayerNorm without affine": (lambda: nn.LayerNorm(6, elementwise_affine=False), (6,)),
    "RMSNorm": (lambda: nn.RMSNorm(6), (6,)),
    "RMSNorm with eps": (lambda: nn.RMSNorm((4, 6), 1e-3), (4, 6)),
    "RMSNorm without affine": (lambda: nn.RMSNorm(6, elementwise_affine=False), (6,)),
    "GroupNorm": (lambda: nn.GroupNorm(2, 6), (6, 3, 4)),
    "GroupNorm of vectors": (lambda: nn.GroupNorm(2, 6), (6,)),
    "GroupNorm of one group": (lambda: nn.GroupNorm(1, 6), (6, 5)),
    "GroupNorm without affine": (lambda: nn.GroupNorm(3, 6, affine=False), (6, 2, 2, 2)),
    "InstanceNorm1d": (lambda: nn.InstanceNorm1d(6), (6, 5)),
    "InstanceNorm2d": (lambda: nn.InstanceNorm2d(6, affine=True), (6, 3, 4)),
    "InstanceNorm3d": (lambda: nn.InstanceNorm3d(6), (6, 2, 3, 2)),
    "InstanceNorm2d with running statistics": (
        lambda: nn.InstanceNorm2d(6, affine=True, track_running_stats=True),
        (6, 3, 4),
    ),
    "InstanceNorm2d in eval": (lambda: nn.InstanceNorm2d(6, track_running_stats=True).eval(), (6, 3, 4)),
    "BatchNorm2d in eval": (lambda: nn.BatchNorm2d(6).eval(), (6, 3, 4)),
    "BatchNorm1d in eval, without affine": (lambda: nn.BatchNorm1d(6, affine=False).eval(), (6,)),
}


def randomize(module: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(5)
    for one in [*module.parameters(), *module.buffers()]:
        if one.is_floating_point():
            one.data.copy_(0.5 + torch.rand(one.shape, generator=generator))
    return module


def is_ours(y: Tensor) -> bool:
    return "wgan_fast" in y.grad_fn.name() or "CppFunction" in type(y.grad_fn).__name__


class TestActivations:
    @pytest.mark.parametrize("name", ACTIVATIONS)
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
    def test_same_outputs_and_gradients(self, name: str, dtype: torch.dtype) -> None:
        activation = ACTIVATIONS[name]
        x = torch.randn(3, 5, 4).to(dtype).requires_grad_()
        before = x * 1
        expected = activation(before)
        with CriticLayers():
            given = x * 1
            output = activation(given)
        assert (output is given) == (expected is before)
        assert output._version == expected._version
        assert is_ours(output)
        torch.testing.assert_close(output, expected)
        assert output.stride() == expected.stride()
        v = torch.randn_like(expected).clamp(-1, 1)
        (gradient,), (wanted,) = (torch.autograd.grad(y, x, v) for y in (output, expected))
        # A slope computed from an output of 16 bits has its rounding, 2^-8 of 1.
        atol = {torch.float64: 1e-7, torch.float32: 1e-5, torch.bfloat16: 2**-7}[dtype]
        torch.testing.assert_close(gradient, wanted, rtol=1.6e-2 if dtype == torch.bfloat16 else 1e-5, atol=atol)

    @pytest.mark.parametrize("name", ACTIVATIONS)
    def test_penalty_against_the_textbook(self, name: str) -> None:
        class Applied(nn.Module):
            forward = staticmethod(ACTIVATIONS[name])

        critic = nn.Sequential(nn.Linear(4, 5), Applied(), nn.Linear(5, 5), Applied(), nn.Linear(5, 2)).double()
        compare(critic, (4,))

    @pytest.mark.parametrize(
        "x",
        [
            torch.randn(3, 4)[:, ::2],
            torch.randn(3, 1).expand(3, 4),
            torch.arange(-3, 3),
            torch.randn(0, 3),
            torch.randn(()),
            torch.randn(3, 4).to_sparse(),
            torch.randn(3, dtype=torch.complex64),
        ],
        ids=["gaps", "expanded", "integers", "empty", "scalar", "sparse", "complex"],
    )
    def test_any_tensor(self, x: Tensor) -> None:
        expected = torch.tanh(x)
        with CriticLayers():
            output = torch.tanh(x)
        assert output.layout == expected.layout
        torch.testing.assert_close(output.to_dense(), expected.to_dense())

    def test_errors_and_other_arguments_are_pytorch_s(self) -> None:
        leaf = torch.full((3,), -1.0, requires_grad=True)
        with CriticLayers():
            with pytest.raises(RuntimeError, match="a leaf Variable that requires grad"):
                torch.tanh_(leaf)
            with pytest.raises(TypeError, match="must be Tensor, not NoneType"):
                torch.tanh(None)
            with pytest.raises(RuntimeError, match="approximate argument must be either none or tanh"):
                F.gelu(leaf, approximate="erf")
            y = torch.empty(3)
            assert torch.tanh(leaf.detach(), out=y) is y
            torch.testing.assert_close(F.elu(leaf, -0.5), -0.5 * torch.expm1(leaf))
            assert F.celu(leaf, -2.0).shape == (3,)
        assert leaf.tolist() == [-1.0] * 3


class TestNormalisation:
    @pytest.mark.parametrize(
        ("name", "channels_last"),
        [
            (name, channels_last)
            for name, (_, sample) in NORMALISATION.items()
            for channels_last in ((False, True) if len(sample) == 3 else (False,))
        ],
    )
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
    def test_same_outputs_and_gradients(self, name: str, channels_last: bool, dtype: torch.dtype) -> None:
        make, sample = NORMALISATION[name]
        if dtype == torch.bfloat16 and name in ("RMSNorm", "RMSNorm without affine"):
            pytest.skip("PyTorch chooses eps")
        module = randomize(make()).to(dtype)
        twin = copy.deepcopy(module)
        x = (2 + torch.randn(3, *sample)).to(dtype)
        x = x.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
        x.requires_grad_()
        expected = twin(x)
        with CriticLayers():
            output = module(x)
        tolerance = {torch.float64: 1e-10, torch.float32: 2e-5, torch.bfloat16: 6e-2}[dtype]
        close = partial(torch.testing.assert_close, rtol=tolerance, atol=tolerance)
        assert is_ours(output) or "eval" in name or channels_last  # there the format's copy comes last
        assert output.stride() == expected.stride()
        close(output, expected)
        v = torch.randn_like(expected)
        gradients, wanted = (
            torch.autograd.grad(y, [x, *one.parameters()], v) for y, one in ((output, module), (expected, twin))
        )
        close(gradients, wanted)
        close(list(module.buffers()), list(twin.buffers()))

    @pytest.mark.parametrize("name", NORMALISATION)
    @pytest.mark.parametrize("smooth", [False, True])
    def test_penalty_against_the_textbook(self, name: str, smooth: bool) -> None:
        make, sample = NORMALISATION[name]
        size = torch.Size(sample).numel()
        activation = nn.SiLU() if smooth else nn.LeakyReLU(0.2)
        critic = nn.Sequential(
            nn.Linear(8, size), nn.Unflatten(1, sample), randomize(make()), activation, nn.Flatten(), nn.Linear(size, 2)
        )
        compare(critic.double(), (8,))

    @pytest.mark.parametrize("name", ["LayerNorm", "GroupNorm", "InstanceNorm2d"])
    def test_errors_are_pytorch_s(self, name: str) -> None:
        module, errors = NORMALISATION[name][0](), []
        for function in (module, in_critic_layers(module)):
            with pytest.raises((RuntimeError, ValueError)) as raised:
                function(torch.randn(2, 5, 3, 3))
            errors.append(str(raised.value))
        assert errors[0] == errors[1]

    def test_one_spatial_element_is_refused(self) -> None:
        with CriticLayers(), pytest.raises(ValueError, match="more than 1 spatial element"):
            nn.InstanceNorm1d(3)(torch.randn(2, 3, 1))

    def test_evaluated_batch_norm_is_affine(self) -> None:
        """So a critic with it is piecewise linear, and its inputs are released."""
        critic = nn.Sequential(nn.Linear(4, 6), randomize(nn.BatchNorm1d(6).eval()), nn.LeakyReLU(0.2), nn.Linear(6, 1))
        x = torch.randn(5, 4, requires_grad=True)
        scores, _ = input_gradient(critic, x.detach())
        assert "AffineScores" in str(scores.grad_fn) or "CppFunction" in type(scores.grad_fn).__name__
        compare(critic.double(), (4,))


def test_on_every_device(device: torch.device) -> None:
    critic = nn.Sequential(
        nn.Linear(4, 6),
        randomize(nn.LayerNorm(6)),
        nn.SiLU(),
        nn.Unflatten(1, (3, 2)),
        randomize(nn.GroupNorm(3, 3)),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(6, 1),
    )
    critic.double().to(device)
    with CriticLayers():
        hidden = torch.randn(5, 4, dtype=torch.float64, device=device)
        for layer in critic:
            hidden = layer(hidden)
            assert is_ours(hidden) or not isinstance(layer, nn.LayerNorm | nn.GroupNorm | nn.SiLU | nn.Tanh)
    compare(critic, (4,))


def in_critic_layers(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def inside(x: Tensor) -> Tensor:
        with CriticLayers():
            return function(x)

    return inside


class TestSteppingAside:
    """PyTorch's functions are called, with the same result."""

    class Tagged(Tensor):
        """A subclass of Tensor, which overrides functions itself."""

    @pytest.mark.parametrize("layer", [nn.SiLU(), nn.LayerNorm(4)], ids=str)
    def test_subclasses(self, layer: nn.Module) -> None:
        x = torch.randn(3, 4).as_subclass(self.Tagged)
        with CriticLayers():
            assert isinstance(layer(x), self.Tagged)

    @pytest.mark.parametrize("layer", [nn.SiLU(), nn.LayerNorm(4), nn.Softplus()], ids=str)
    def test_autocast(self, layer: nn.Module) -> None:
        x = torch.randn(3, 4, requires_grad=True)
        with torch.autocast("cpu", torch.bfloat16):
            expected = layer(F.linear(x, torch.eye(4)))
            with CriticLayers():
                output = layer(F.linear(x, torch.eye(4)))
        assert output.dtype == expected.dtype and not is_ours(output)
        torch.testing.assert_close(output, expected)

    @pytest.mark.parametrize("name", ["layer norm and GELU", "group norm and SiLU", "tanh"])
    def test_penalty_under_autocast(self, name: str) -> None:
        """Each function has the precision that PyTorch chooses for it."""
        make, sample = CRITICS[name]
        critic, points = make(), torch.randn(5, *sample)
        parameters = list(critic.parameters())
        found = []
        for penalty in PENALTIES["gradient"]:
            with torch.autocast("cpu", torch.bfloat16):
                value = penalty(critic, points)
            found.append(torch.autograd.grad(value, parameters, allow_unused=True, materialize_grads=True))
        for ours, textbook in zip(*found, strict=True):
            assert ours.dtype == textbook.dtype == torch.float32
            torch.testing.assert_close(ours, textbook, rtol=2e-2, atol=2e-2 * textbook.abs().max().item() + 1e-6)

    @pytest.mark.parametrize("layer", [nn.SiLU(), nn.LayerNorm(4)], ids=str)
    def test_saved_tensors_hooks(self, layer: nn.Module) -> None:
        seen: list[Tensor] = []
        x = torch.randn(3, 4, requires_grad=True)
        hooks = torch.autograd.graph.saved_tensors_hooks(lambda saved: (seen.append(saved), saved)[1], lambda one: one)
        with CriticLayers(), hooks:
            assert not is_ours(layer(x))
        assert seen

    @pytest.mark.parametrize("layer", [nn.SiLU(), nn.LayerNorm(4)], ids=str)
    def test_transforms(self, layer: nn.Module) -> None:
        x = torch.randn(3, 4)
        with CriticLayers():
            output = torch.func.vmap(layer)(x)
            gradient = torch.func.grad(lambda x: layer(x).sum())(x)
        torch.testing.assert_close(output, layer(x))
        assert gradient.shape == x.shape

    def test_mixed_types(self) -> None:
        x = torch.randn(3, 4, dtype=torch.bfloat16)
        weight = torch.randn(4)
        expected = F.layer_norm(x, (4,), weight)
        with CriticLayers():
            assert torch.equal(F.layer_norm(x, (4,), weight), expected)

    def test_outside_of_a_penalty(self) -> None:
        critic = nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.SiLU(), nn.Linear(5, 1))
        gradient_penalty(critic, *torch.randn(2, 6, 4)).backward()
        names = []
        node = critic(torch.randn(3, 4)).grad_fn
        while node is not None:
            names.append(node.name())
            node = next((edge for edge, _ in node.next_functions[1:2] or node.next_functions[:1]), None)
        assert not any("wgan_fast" in name for name in names)

    def test_hooks_that_change_things(self) -> None:
        critic = nn.Sequential(nn.Linear(4, 5), nn.SiLU(), nn.LayerNorm(5), nn.Linear(5, 1)).double()
        critic[0].register_forward_hook(lambda module, inputs, output: 2 * output)
        critic[1].register_forward_pre_hook(lambda module, inputs: (inputs[0] + 0.1,))
        critic[2].register_full_backward_hook(lambda module, grad_in, grad_out: (3 * grad_in[0],))
        compare(critic, (4,))

    def test_parametrizations(self) -> None:
        critic = nn.Sequential(
            nn.utils.parametrizations.spectral_norm(nn.Linear(4, 5)),
            nn.GELU(),
            nn.utils.parametrizations.weight_norm(nn.LayerNorm(5), dim=None),
            nn.Linear(5, 1),
        )
        compare(critic.double().eval(), (4,))


class ResidualBlock(nn.Module):
    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm([channels, size, size]) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.second(F.relu(self.norms[1](self.first(F.relu(self.norms[0](x))))))
        return F.avg_pool2d(hidden + x, 2)


class Conditional(nn.Module):
    """The statistics do not depend on the label, scale and shift do."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.embedding = nn.Linear(6, 8), nn.Linear(8, 1), nn.Linear(3, 16)

    def forward(self, x: Tensor) -> Tensor:
        codes = torch.tanh(torch.arange(3, dtype=x.dtype))
        scale, shift = self.embedding(F.silu(codes)).chunk(2, -1)
        return self.head(F.silu(F.layer_norm(self.body(x), (8,)) * (1 + scale) + shift))


class TransformerBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out, self.mlp = nn.Linear(6, 18), nn.Linear(6, 6), nn.Linear(6, 6)
        self.norms = nn.ModuleList(nn.LayerNorm(6) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norms[0](x)).chunk(3, -1)
        x = x + self.out((q @ k.mT).softmax(-1) @ v)
        return (x + F.gelu(self.mlp(self.norms[1](x)))).mean((1, 2))


def convolutional(norm: Callable[[int], nn.Module], activation: Callable[[], nn.Module]) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, 2, 1), norm(4), activation(), nn.Conv2d(4, 6, 3, 2, 1), norm(6), activation(), nn.Flatten()
    ).append(nn.Linear(24, 1))


def mlp(norm: Callable[[int], nn.Module], activation: Callable[[], nn.Module]) -> nn.Module:
    layers = [layer for _ in range(2) for layer in (nn.Linear(6, 6), norm(6), activation())]
    return nn.Sequential(*layers, nn.Linear(6, 1))


def no_norm(size: int) -> nn.Module:
    return nn.Identity()


IMAGE, VECTOR = (2, 8, 8), (6,)
CRITICS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "instance norm": (lambda: convolutional(nn.InstanceNorm2d, nn.LeakyReLU), IMAGE),
    "affine instance norm": (lambda: convolutional(partial(nn.InstanceNorm2d, affine=True), nn.LeakyReLU), IMAGE),
    "group norm": (lambda: convolutional(partial(nn.GroupNorm, 2), nn.ReLU), IMAGE),
    "one group": (lambda: convolutional(partial(nn.GroupNorm, 1), nn.LeakyReLU), IMAGE),
    "group norm and SiLU": (lambda: convolutional(partial(nn.GroupNorm, 2), nn.SiLU), IMAGE),
    "convolutions and SiLU": (lambda: convolutional(no_norm, nn.SiLU), IMAGE),
    "convolutions and ELU in place": (lambda: convolutional(no_norm, partial(nn.ELU, inplace=True)), IMAGE),
    "convolutions and Mish in place": (lambda: convolutional(no_norm, partial(nn.Mish, inplace=True)), IMAGE),
    "layer norm": (lambda: mlp(nn.LayerNorm, nn.LeakyReLU), VECTOR),
    "RMS norm": (lambda: mlp(nn.RMSNorm, nn.LeakyReLU), VECTOR),
    "layer norm and GELU": (lambda: mlp(nn.LayerNorm, nn.GELU), VECTOR),
    "SiLU": (lambda: mlp(no_norm, nn.SiLU), VECTOR),
    "GELU": (lambda: mlp(no_norm, partial(nn.GELU, "tanh")), VECTOR),
    "tanh": (lambda: mlp(no_norm, nn.Tanh), VECTOR),
    "sigmoid": (lambda: mlp(no_norm, nn.Sigmoid), VECTOR),
    "SELU": (lambda: mlp(no_norm, nn.SELU), VECTOR),
    "Softplus": (lambda: mlp(no_norm, nn.Softplus), VECTOR),
    "residual": (lambda: nn.Sequential(ResidualBlock(2, 8), ResidualBlock(2, 4), nn.Flatten(), nn.Linear(8, 1)), IMAGE),
    "conditional": (Conditional, VECTOR),
    "transformer": (lambda: nn.Sequential(TransformerBlock()), (3, 6)),
}


def textbook(power: float, target: float, factor: float) -> Callable[..., Tensor]:
    def penalty(critic: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
        points = points.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(critic(points).sum(), points, create_graph=True)
        return factor * ((gradient.flatten(1).norm(2, 1) - target).abs() ** power).mean()

    return penalty


PENALTIES: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "gradient": (
        lambda critic, x: gradient_penalty(critic, x, x, t=torch.zeros(len(x)).to(x)),
        textbook(2, 1.0, 10.0),
    ),
    "R1": (r1_penalty, textbook(2, 0.0, 5.0)),
    "R2": (r2_penalty, textbook(2, 0.0, 5.0)),
    "div": (lambda critic, x: wgan_div_penalty(critic, x, x, t=torch.zeros(len(x)).to(x)), textbook(6, 0.0, 2.0)),
}


def compare(critic: nn.Module, sample: tuple[int, ...], name: str = "gradient") -> None:
    """The penalty and the gradients of all parameters, those that are zero, or None for the textbook, included."""
    points = torch.randn(5, *sample, dtype=torch.float64).to(next(critic.parameters()).device)
    results = []
    for penalty in PENALTIES[name]:
        critic.zero_grad()
        value = penalty(critic, points)
        value.backward()
        gradients = [torch.zeros_like(one) if one.grad is None else one.grad.clone() for one in critic.parameters()]
        results.append([value.detach(), *gradients])
    torch.testing.assert_close(*results, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", CRITICS)
class TestCritics:
    @pytest.mark.parametrize("penalty", PENALTIES)
    def test_penalty_against_the_textbook(self, name: str, penalty: str) -> None:
        make, sample = CRITICS[name]
        compare(make().double(), sample, penalty)

    def test_dragan(self, name: str) -> None:
        make, sample = CRITICS[name]
        critic, points = make().double(), torch.randn(5, *sample, dtype=torch.float64)
        ours = dragan_penalty(critic, points, generator=torch.Generator().manual_seed(0))
        noise = torch.rand(points.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        moved = points + 0.5 * points.std() * noise
        expected = textbook(2, 1.0, 10.0)(critic, moved)
        parameters = list(critic.parameters())
        found = [
            torch.autograd.grad(one, parameters, allow_unused=True, materialize_grads=True) for one in (ours, expected)
        ]
        torch.testing.assert_close(*found, rtol=1e-10, atol=1e-10)

    def test_scores_and_gradient_together(self, name: str) -> None:
        make, sample = CRITICS[name]
        critic, points = make().double(), torch.randn(5, *sample, dtype=torch.float64)
        scores, gradient = input_gradient(critic, points)
        leaf = points.clone().requires_grad_()
        expected_scores = critic(leaf)
        (expected,) = torch.autograd.grad(expected_scores.sum(), leaf, create_graph=True)
        parameters = list(critic.parameters())
        found = [
            torch.autograd.grad((s**2).sum() + (g**2).sum(), parameters, allow_unused=True, materialize_grads=True)
            for s, g in ((scores, gradient), (expected_scores, expected))
        ]
        torch.testing.assert_close(*found, rtol=1e-10, atol=1e-10)

    def test_float32(self, name: str) -> None:
        make, sample = CRITICS[name]
        critic, points = make(), torch.randn(5, *sample)
        twin = copy.deepcopy(critic).double()
        value, expected = r1_penalty(critic, points), textbook(2, 0.0, 5.0)(twin, points.double())
        found = [
            torch.autograd.grad(one, list(module.parameters()), allow_unused=True, materialize_grads=True)
            for one, module in ((value, critic), (expected, twin))
        ]
        scale = max(one.abs().max() for one in found[1])
        for ours, exact in zip(*found, strict=True):
            assert (ours - exact).abs().max() <= 1e-4 * scale


def test_random_critics() -> None:
    """Curved layers anywhere: those above the last one have released their inputs, those below have not."""
    compared = 0
    for seed in range(200):
        critic = RandomCritic(seed)
        if not critic.curved:
            continue
        points = torch.randn(4, *critic.shape, dtype=torch.float64)
        parameters = [one for one in critic.parameters() if one.requires_grad]
        found = [
            torch.autograd.grad(penalty(critic, points), parameters, allow_unused=True, materialize_grads=True)
            for penalty in PENALTIES["R1"]
        ]
        torch.testing.assert_close(*found, rtol=1e-9, atol=1e-9, msg=lambda text, s=seed: f"seed {s}: {text}")
        compared += 1
    assert compared > 30
