"""The residual networks against the paper and its published code."""

import math

import pytest
import torch

pytest.importorskip("wgan_fast.train.trainer", reason="the extra wgan_fast[train] is not installed")

from training import convolution, parameter_count
from wgan_fast.train.networks.resnet import ResNetCritic


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


def test_shortcut_is_that_of_the_published_code():
    """Which resamples at the full size: pooling after the 1 x 1 convolution, and convolving after upsampling."""
    pool, pointwise = ResNetCritic((3, 16, 16), width=4).layers[0].shortcut
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(pointwise(pool(images)), pool(pointwise(images)))
