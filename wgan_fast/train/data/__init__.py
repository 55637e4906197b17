"""Training data: toy distributions, images, arrays and tables, as endless batches."""

from wgan_fast.train.data.toys import Distribution, make_toy

__all__ = ["Distribution", "make_toy"]
