"""What every network of the trainer shares: labels, latent vectors."""

import pytest
import torch

pytest.importorskip("wgan_fast.train.trainer", reason="the extra wgan_fast[train] is not installed")

from training import LATENT, cases, tiny_models
from wgan_fast.train.networks.mlp import MLPCritic
from wgan_fast.train.networks.named import latents


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


def test_latents_are_seeded():
    first, again = (latents(1000, 3, torch.Generator().manual_seed(1)) for _ in range(2))
    assert first.shape == (1000, 3)
    assert torch.equal(first, again)
