"""DCGAN against the paper."""

import pytest

pytest.importorskip("wgan_fast.train.trainer", reason="the extra wgan_fast[train] is not installed")

from training import convolution, parameter_count
from wgan_fast.train.networks.dcgan import DCGANCritic


def test_dcgan_critic_has_the_parameters_of_the_paper():
    convolutions = convolution(3, 64, 4) + convolution(64, 128, 4) + convolution(128, 256, 4) + convolution(256, 512, 4)
    assert parameter_count(DCGANCritic((3, 64, 64))) == convolutions + 512 * 4 * 4 + 1
    # A scale and a shift for each channel replace a bias.
    batch_norm = DCGANCritic((3, 64, 64), batch_norm=True)
    assert parameter_count(batch_norm) == convolutions + 128 + 256 + 512 + 512 * 4 * 4 + 1


def test_dcgan_begins_as_in_the_paper():
    for name, parameter in DCGANCritic((1, 32, 32), width=64).named_parameters():
        assert parameter.square().mean().sqrt().item() == pytest.approx(0 if name.endswith("bias") else 0.02, rel=0.1)
