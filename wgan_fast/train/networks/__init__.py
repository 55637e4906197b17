"""Generators and critics: fully connected, DCGAN, residual, and users' networks."""

from wgan_fast.train.networks.mlp import MLPCritic, MLPGenerator

__all__ = ["MLPCritic", "MLPGenerator"]
