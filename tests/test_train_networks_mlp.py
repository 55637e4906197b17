"""Multilayer perceptrons: their layers."""

import pytest
import torch
from torch import nn

pytest.importorskip("wgan_fast.train.trainer", reason="the extra wgan_fast[train] is not installed")

from wgan_fast.train.networks.mlp import MLPCritic, MLPGenerator


def test_mlp_of_vectors_is_linear_layers_and_relu():
    critic, generator = MLPCritic(2, 8, 3), MLPGenerator(5, 2, 8, 3)
    assert [type(layer) for layer in critic.layers] == [nn.Linear, nn.ReLU] * 3 + [nn.Linear]
    points = torch.randn(3, 2)
    assert torch.equal(critic(points), critic.layers(points).squeeze(1))
    assert torch.equal(generator(torch.ones(3, 5)), generator.layers(torch.ones(3, 5)))
    assert generator.latent_dimension == 5
