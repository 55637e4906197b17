"""The toy distributions as data."""

import numpy as np
import pytest

pytest.importorskip("wgan_fast.train.trainer", reason="the extra wgan_fast[train] is not installed")

from wgan_fast.train.data.sources import make_data
from wgan_fast.train.data.toys import TOYS, make_toy


def test_toys_are_those_of_their_distributions():
    for name in TOYS:
        data, toy = make_data(name), make_toy(name)
        assert data.shape == (2,)
        assert data.classes == ()
        assert data.sigma == toy.sigma
        assert (data.centres is None) == (toy.centres is None)
        batch = data.batch(0, 9, 0).samples
        assert np.array_equal(data.decoder.restore(batch), batch.double().numpy())
    with pytest.raises(ValueError, match="name: expected one of 25gaussians, 8gaussians, swissroll, got 'digits'"):
        make_toy("digits")
