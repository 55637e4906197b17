"""The trainer's generators and critics, and those that users write."""

import math
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("wgan_fast.train", reason="the extra wgan_fast[train] is not installed")

from wgan_fast import gradient_penalty
from wgan_fast.train.networks.dcgan import DCGANCritic
from wgan_fast.train.networks.mlp import MLPCritic, MLPGenerator
from wgan_fast.train.networks.named import MODELS, Models, check_models, latents, load_factory, make_models
from wgan_fast.train.networks.resnet import ResNetCritic

LATENT = 6
CASES = [
    ("mlp", (2,)),
    ("mlp", (1, 5, 7)),
    *((name, (channels, side, side)) for name in ("dcgan", "resnet") for channels, side in ((3, 16), (1, 32), (3, 64))),
]
cases = pytest.mark.parametrize(("name", "shape"), CASES)
with_and_without_classes = pytest.mark.parametrize("classes", [0, 3])


def tiny_models(name: str, shape: tuple[int, ...], classes: int = 0, norm: str = "none", width: int = 4) -> Models:
    return make_models(name, shape, latent_dimension=LATENT, width=width, classes=classes, norm=norm)


def some_labels(count: int, classes: int) -> tuple[Tensor, ...]:
    return (torch.arange(count) % classes,) if classes else ()


def parameter_count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


# The networks --------------------------------------------------------------------------------------


@with_and_without_classes
@pytest.mark.parametrize("norm", ["batch", "none"])
@cases
def test_samples_and_scores_have_their_shapes(name, shape, norm, classes):
    models = tiny_models(name, shape, classes, norm)
    labels = some_labels(4, classes)
    samples = models.generator(torch.randn(4, LATENT), *labels)
    assert samples.shape == (4, *shape)
    assert samples.dtype == torch.float32
    assert len(shape) == 1 or samples.abs().max() <= 1
    assert models.critic(samples, *labels).shape == (4,)
    check_models(models, shape, LATENT, classes)
    normalised = [module for module in models.critic.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert bool(normalised) == (norm == "batch")


@pytest.mark.parametrize("name", ["dcgan", "resnet"])
def test_networks_of_large_images_stay_affordable(name):
    with torch.device("meta"):
        models = make_models(name, (3, 256, 256), latent_dimension=128)
        samples = models.generator(torch.empty(2, 128))
        assert samples.shape == (2, 3, 256, 256)
        assert models.critic(samples).shape == (2,)
    assert parameter_count(models.generator) + parameter_count(models.critic) < 40e6


def convolution(inputs: int, outputs: int, size: int) -> int:
    """Weights and biases."""
    return inputs * outputs * size**2 + outputs


def test_dcgan_critic_has_the_parameters_of_the_paper():
    convolutions = convolution(3, 64, 4) + convolution(64, 128, 4) + convolution(128, 256, 4) + convolution(256, 512, 4)
    assert parameter_count(DCGANCritic((3, 64, 64))) == convolutions + 512 * 4 * 4 + 1
    # A scale and a shift for each channel replace a bias.
    batch_norm = DCGANCritic((3, 64, 64), batch_norm=True)
    assert parameter_count(batch_norm) == convolutions + 128 + 256 + 512 + 512 * 4 * 4 + 1


def test_resnet_critic_has_the_parameters_of_the_paper():
    first = convolution(3, 128, 3) + convolution(128, 128, 3) + convolution(3, 128, 1)
    down = 2 * convolution(128, 128, 3) + convolution(128, 128, 1)
    plain = 2 * convolution(128, 128, 3)
    assert parameter_count(ResNetCritic((3, 32, 32))) == first + down + 2 * plain + 128 + 1


def test_resnet_begins_as_in_the_published_code():
    critic = ResNetCritic((3, 32, 32), width=64)
    block = critic.layers[1]
    assert block.branch[1].weight.std().item() == pytest.approx(math.sqrt(4 / (2 * 64 * 9)), rel=0.05)
    assert block.shortcut[1].weight.std().item() == pytest.approx(math.sqrt(2 / (2 * 64)), rel=0.05)
    assert not any(p.any() for name, p in critic.named_parameters() if name.endswith("bias"))


def test_dcgan_begins_as_in_the_paper():
    for name, parameter in DCGANCritic((1, 32, 32), width=64).named_parameters():
        assert parameter.square().mean().sqrt().item() == pytest.approx(0 if name.endswith("bias") else 0.02, rel=0.1)


def test_shortcut_is_that_of_the_published_code():
    """Which resamples at the full size: pooling after the 1 x 1 convolution, and convolving after upsampling."""
    pool, pointwise = ResNetCritic((3, 16, 16), width=4).layers[0].shortcut
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(pointwise(pool(images)), pool(pointwise(images)))


def test_mlp_of_vectors_is_linear_layers_and_relu():
    critic, generator = MLPCritic(2, 8, 3), MLPGenerator(5, 2, 8, 3)
    assert [type(layer) for layer in critic.layers] == [nn.Linear, nn.ReLU] * 3 + [nn.Linear]
    points = torch.randn(3, 2)
    assert torch.equal(critic(points), critic.layers(points).squeeze(1))
    assert torch.equal(generator(torch.ones(3, 5)), generator.layers(torch.ones(3, 5)))
    assert generator.latent_dimension == 5


# Labels --------------------------------------------------------------------------------------------


@cases
def test_labels_change_the_output(name, shape):
    models = tiny_models(name, shape, classes=3, width=16)
    models.generator.eval()
    latent, samples = torch.randn(1, LATENT).expand(3, LATENT), torch.rand(1, *shape).expand(3, *shape)
    for outputs in (models.generator(latent, torch.arange(3)).flatten(1), models.critic(samples, torch.arange(3))):
        assert not any(torch.equal(outputs[i], outputs[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


def test_scores_project_the_label_on_the_features():
    critic = MLPCritic(2, 4, 1, classes=3)
    samples, labels = torch.randn(5, 2), torch.tensor([2, 0, 1, 1, 2])
    features = torch.relu(critic.layers[0](samples))
    weights = critic.layers[2].weight + critic.embedding.weight[labels]
    torch.testing.assert_close(critic(samples, labels), (features * weights).sum(1) + critic.layers[2].bias)


def test_labels_belong_to_networks_with_classes():
    with pytest.raises(ValueError, match="^labels: expected one of 3 classes for each sample, got none$"):
        tiny_models("mlp", (2,), classes=3).generator(torch.randn(2, LATENT))
    with pytest.raises(ValueError, match="^labels: expected none, because this network was made without classes$"):
        tiny_models("mlp", (2,)).critic(torch.randn(2, 2), torch.zeros(2, dtype=torch.int64))


# What training and exporting ask of them ------------------------------------------------------------


@with_and_without_classes
@pytest.mark.parametrize("autocast", [False, True])
@cases
def test_penalty_has_finite_gradients_and_the_textbooks_value(name, shape, classes, autocast):
    critic = tiny_models(name, shape, classes).critic
    if len(shape) == 3:
        critic.to(memory_format=torch.channels_last)
    real, fake, t = torch.rand(4, *shape), torch.rand(4, *shape), torch.rand(4)
    labels = some_labels(4, classes)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        penalty = gradient_penalty(critic, real, fake, *labels, t=t)
    penalty.backward()
    gradients = [parameter.grad for parameter in critic.parameters() if parameter.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)

    points = torch.lerp(real, fake, t.view(-1, *[1] * len(shape))).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(points, *labels).sum(), points)
    expected = 10 * (gradient.flatten(1).norm(dim=1) - 1).square().mean()
    torch.testing.assert_close(penalty, expected, **({"rtol": 0.05, "atol": 0.0} if autocast else {}))


@pytest.mark.parametrize("name", ["dcgan", "resnet"])
def test_generator_in_bfloat16_and_channels_last(name):
    generator = tiny_models(name, (3, 16, 16)).generator
    latent = torch.randn(4, LATENT)
    expected = generator(latent)
    torch.testing.assert_close(generator.to(memory_format=torch.channels_last)(latent), expected)
    with torch.autocast("cpu", torch.bfloat16):
        samples = generator(latent)
    samples.float().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in generator.parameters())
    torch.testing.assert_close(samples.float(), expected, rtol=0, atol=0.1)


@with_and_without_classes
@pytest.mark.parametrize("name", MODELS)
def test_generator_can_be_exported_for_batches_of_any_size(name, classes):
    generator = tiny_models(name, (3, 16, 16), classes).generator.eval()
    arguments = torch.randn(2, LATENT), *some_labels(2, classes)
    batch = torch.export.Dim("batch", min=1, max=1024)
    dynamic = tuple({0: batch} for _ in arguments)
    program = torch.export.export(generator, arguments, dynamic_shapes=dynamic)
    for count in (1, 5):
        arguments = torch.randn(count, LATENT), *some_labels(count, classes)
        torch.testing.assert_close(program.module()(*arguments), generator(*arguments))


def test_latents_are_seeded():
    first, again = (latents(1000, 3, torch.Generator().manual_seed(1)) for _ in range(2))
    assert first.shape == (1000, 3)
    assert torch.equal(first, again)


# Errors --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "vit"}, "model: expected one of mlp, dcgan, resnet, got 'vit'"),
        ({"norm": "layer"}, "norm: expected batch or none, got 'layer'"),
        (
            {"name": "resnet", "shape": (3, 32, 32), "depth": 2},
            "depth: expected none for resnet, whose depth follows .* got 2",
        ),
        *(
            (
                {"name": name, "shape": shape},
                r"model: dcgan and resnet make images .*got shape \(.*\): use mlp.*--size",
            )
            for name in ("dcgan", "resnet")
            for shape in ((2,), (3, 8, 8), (3, 24, 24), (3, 32, 64), (32, 32))
        ),
    ],
)
def test_what_cannot_be_made_is_named(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make_models(**{"name": "mlp", "shape": (2,), "latent_dimension": 2, **arguments})


# Networks that users write ---------------------------------------------------------------------------


@pytest.fixture
def user_module(tmp_path, monkeypatch):
    """Writes a module into the current directory, and forgets it afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    before = set(sys.modules)

    def write(text: str, path: str = "their_networks.py") -> None:
        Path(path).parent.mkdir(exist_ok=True)
        Path(path).write_text(text)

    yield write
    for name in set(sys.modules) - before:
        if name.startswith("their_"):
            del sys.modules[name]


FACTORY = """
import torch

def make_generator(shape, latent_dimension, classes):
    assert classes == 0
    return torch.nn.Linear(latent_dimension, *shape)

network = torch.nn.Linear(1, 1)
number = 3
"""


@pytest.mark.parametrize("path", ["their_networks.py", "their_package/networks.py"])
def test_a_users_generator_replaces_the_named_one(path, user_module):
    user_module(FACTORY, path)
    factory = load_factory(f"{path.removesuffix('.py').replace('/', '.')}:make_generator")
    models = make_models("mlp", (2,), latent_dimension=LATENT, generator=factory)
    assert type(models.generator) is nn.Linear
    assert type(models.critic) is MLPCritic
    check_models(models, (2,), LATENT, 0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("their_networks", "expected module:function, such as my.module:make_generator, got 'their_networks'"),
        ("their_networks.py:make_generator", "there is no module 'their_networks.py'"),
        ("./their_networks.py:make_generator", "expected module:function"),
        ("their_networks:", "expected module:function"),
        (".their_networks:make_generator", "expected module:function"),
        ("their_network:make_generator", "there is no module 'their_network', neither installed nor in "),
        ("their_networks:make_critic", ".*their_networks.py has no 'make_critic'"),
        ("their_networks:number", "expected a function that returns .*, got .*, which is of type int"),
        ("their_networks:network", "expected a function that returns .*, got .*, which is of type Linear"),
    ],
)
def test_a_factory_that_is_not_there_is_named(name, message, user_module):
    user_module(FACTORY)
    with pytest.raises(ValueError, match=f"^generator: {message}"):
        load_factory(name)
    with pytest.raises(ValueError, match="^critic: "):
        load_factory(name, argument="critic")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import their_missing_dependency", "ModuleNotFoundError: No module named .* line 1"),
        ("def make(:", r"SyntaxError: invalid syntax \(their_networks.py, line 1\)"),
        ("def make(shape): pass", "TypeError: make.. got an unexpected keyword argument"),
        ("def make(**given):\n    raise KeyError('layers')", "KeyError: 'layers' .*their_networks.py, line 2"),
        (
            "import wgan_fast\ndef make(**given):\n    wgan_fast.critic_loss(1, 2)",
            r"\w*TypeError: real_scores: .*their_networks.py, line 3",
        ),
    ],
)
def test_an_error_inside_of_a_users_module_is_named_with_its_line(text, message, user_module):
    user_module(text)
    with pytest.raises(ValueError, match=f"^generator: {message}"):
        load_factory("their_networks:make")(shape=(2,), latent_dimension=2, classes=0)


def test_a_factory_makes_a_module():
    with pytest.raises(TypeError, match="^critic: expected a function that returns a torch.nn.Module, got NoneType"):
        make_models("mlp", (2,), latent_dimension=2, critic=lambda shape, classes: None)
    with pytest.raises(ValueError, match="^critic: expected a network with parameters to train"):
        make_models("mlp", (2,), latent_dimension=2, critic=lambda shape, classes: nn.Flatten())


class Returns(nn.Module):
    """What a function makes of the input."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, inputs: Tensor):
        return self.function(inputs)


@pytest.mark.parametrize(
    ("role", "function", "message"),
    [
        ("generator", lambda z: z[:, :3], r"finite float32 samples \(2, 2\) from .*\(2, 6\), got shape \(2, 3\)"),
        ("generator", lambda z: z[:2, :2], r"finite float32 samples \(4, 2\) from .*, got shape \(2, 2\)"),
        ("generator", lambda z: z[:, :2].double(), "finite float32 samples .*, got torch.float64"),
        ("generator", lambda z: z[:, :2] / 0, "finite float32 samples .*, got NaN or infinity"),
        ("generator", lambda z: (z, z), "finite float32 samples .*, got tuple"),
        ("critic", lambda x: x, r"one finite score for each sample, of shape \(2,\) or \(2, 1\), .*got shape \(2, 2\)"),
        ("critic", lambda x: x.mean(), r"one finite score .*, got shape \(\)"),
        ("critic", lambda x: x[:, 0] * math.nan, "one finite score .*, got NaN or infinity"),
    ],
)
def test_what_a_network_must_return(role, function, message):
    models = Models(Returns(lambda z: z[:, :2]), Returns(lambda x: x[:, :1]))
    check_models(models, (2,), LATENT, 0)
    with pytest.raises(ValueError, match=f"^{role}: expected {message}"):
        check_models(models._replace(**{role: Returns(function)}), (2,), LATENT, 0)


def test_checking_changes_nothing():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.frozen = nn.Linear(LATENT, 2), nn.BatchNorm1d(2).eval()
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, latent: Tensor) -> Tensor:
            assert not self.training
            self.calls += 1
            self.calls = self.calls + 1
            return self.frozen(self.body(latent)) + torch.randn(len(latent), 2)

    generator, critic = Counting(), MLPCritic(2, 4, 1)
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    random_state = torch.get_rng_state()
    check_models(Models(generator, critic), (2,), LATENT, 0)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert generator.training and not generator.frozen.training
    assert generator.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())
