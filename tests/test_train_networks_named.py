"""The networks that --model names: shapes, size, what training and exporting ask of them, errors."""

import pytest
import torch
from torch import nn

pytest.importorskip("wgan_fast.train.trainer", reason="the extra wgan_fast[train] is not installed")

from training import LATENT, cases, parameter_count, some_labels, tiny_models, with_and_without_classes
from wgan_fast import gradient_penalty
from wgan_fast.train.networks.named import MODELS, check_models, make_models


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
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 28), (2, 48, 48), (1, 31, 57), (4, 100, 64)], ids=str)
def test_images_of_any_size(name, shape):
    models = tiny_models(name, shape)
    samples = models.generator(torch.randn(2, LATENT))
    assert samples.shape == (2, *shape) and models.critic(samples).shape == (2,)


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
            for shape in ((2,), (3, 7, 8), (32, 32))
        ),
    ],
)
def test_what_cannot_be_made_is_named(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make_models(**{"name": "mlp", "shape": (2,), "latent_dimension": 2, **arguments})


def test_a_factory_makes_a_module():
    with pytest.raises(TypeError, match="^critic: expected a function that returns a torch.nn.Module, got NoneType"):
        make_models("mlp", (2,), latent_dimension=2, critic=lambda shape, classes: None)
    with pytest.raises(ValueError, match="^critic: expected a network with parameters to train"):
        make_models("mlp", (2,), latent_dimension=2, critic=lambda shape, classes: nn.Flatten())
