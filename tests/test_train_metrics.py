"""Numbers that judge samples."""

import numpy as np
import pytest
import torch

pytest.importorskip("wgan_fast.train.trainer", reason="the extra wgan_fast[train] is not installed")

from training import cli, run
from wgan_fast.train.data.sources import ToyData
from wgan_fast.train.data.toys import GaussianMixture
from wgan_fast.train.view.metrics import evaluate, feature_distances


def test_metrics_of_samples_placed_by_hand():
    data = ToyData(GaussianMixture(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), sigma=0.1))
    samples = torch.tensor([[0.0, 0.29], [0.0, 0.31], [1.0, 0.0], [0.71, 0.0]])
    metrics = evaluate(samples, samples + torch.tensor([3.0, 4.0]), samples, data)
    assert metrics["modes_covered"] == 2
    assert metrics["modes_total"] == 3
    assert metrics["share_within_3_sigma"] == 0.75
    # A shift by a vector costs its length, and so does the distance of the unshifted set from the shifted one.
    assert metrics["earth_movers_distance"] == pytest.approx(5) == metrics["earth_movers_distance_real"]


def test_one_held_out_sample_has_no_distance_to_another(tmp_path, few_samples):
    """The same one twice would be told as a distance of 0 between two real sets."""
    data = tmp_path / "x.npy"
    np.save(data, np.random.default_rng(0).normal(size=(19, 2)))
    metrics = run(tmp_path / "run", data=str(data))
    assert metrics["earth_movers_distance"] > 0 and metrics["earth_movers_distance_real"] is None
    told = cli("train", "--resume", "--out", tmp_path / "run", "--steps", 5)
    assert told.exit_code == 0 and "two real sets" not in told.output
    assert "earth mover's distance to held-out samples " in told.output


def test_fid_of_the_same_features_is_zero_and_grows_with_a_shift() -> None:
    real = torch.randn(400, 8, dtype=torch.float64).float()
    network = torch.nn.Identity()
    assert abs(feature_distances(network, real, real)["fid"]) < 1e-3
    shifted = feature_distances(network, real + 1, real)
    assert shifted["fid"] == pytest.approx(8, rel=1e-3) and shifted["kid"] > 0.1  # ||mean - mean||^2
    with pytest.raises(ValueError, match="^features: expected a network that returns features"):
        feature_distances(torch.nn.Unflatten(1, (2, 4)), real, real)
