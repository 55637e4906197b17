"""The way back to the user's units, and the files that samples are saved in."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("wgan_fast.train.trainer", reason="the extra wgan_fast[train] is not installed")

from PIL import Image

from wgan_fast.train.data.decoder import Decoder
from wgan_fast.train.data.sample_files import save_samples
from wgan_fast.train.data.sources import make_data


@given(values=st.lists(st.floats(-1e6, 1e6, width=32), min_size=4, max_size=4))
def test_vectors_come_back_unclipped(values):
    decoder = Decoder("vectors", ("a", "b"), (1e3, -2.0), (0.5, 1e4))
    samples = torch.tensor(values).reshape(2, 2)
    assert np.array_equal(
        decoder.restore(samples), np.array([1e3, -2.0]) + np.array([0.5, 1e4]) * samples.double().numpy()
    )


def test_every_shade_comes_back_and_what_is_beyond_is_cut():
    decoder = Decoder("images")
    shades = torch.arange(256).div(127.5).sub(1).reshape(1, 1, 16, 16)
    assert decoder.restore(shades).flatten().tolist() == list(range(256))
    assert decoder.restore(torch.tensor([-9.0, 9.0]).reshape(2, 1, 1, 1)).flatten().tolist() == [0, 255]


@pytest.mark.parametrize(
    "decoder", [Decoder("images", classes=("a", "b")), Decoder("vectors", ("x",), (0.1,), (3.0,), ("c",))], ids=str
)
def test_a_codec_survives_a_checkpoint(decoder):
    file = io.BytesIO()
    torch.save({"decoder": decoder.to_dict()}, file)
    file.seek(0)
    assert Decoder.from_dict(torch.load(file, weights_only=True)["decoder"]) == decoder


def test_samples_are_saved_in_the_users_units(tmp_path):
    np.save(tmp_path / "vectors.npy", np.random.default_rng(0).normal([3.0, -1e3], [1e-2, 5.0], size=(3, 2)))
    data = make_data(str(tmp_path / "vectors.npy"))
    samples = data.batch(0, 2, 0).samples
    restored = data.decoder.restore(samples)
    for suffix in (".npy", ".npz", ".NPY"):
        save_samples(tmp_path / f"out{suffix}", samples, data.decoder)
        reread = make_data(str(tmp_path / f"out{suffix}"))
        both = torch.cat([reread.batch(0, 1, 0).samples, reread.held_out(1, 0).samples])
        np.testing.assert_allclose(sorted(reread.decoder.restore(both).tolist()), sorted(restored.tolist()), rtol=1e-6)
    labelled = Decoder("vectors", ("a", "b, c"), (0.0, 0.0), (1.0, 1.0), ("no", "yes"))
    save_samples(tmp_path / "out.csv", torch.tensor([[0.5, 1], [2, 3]]), labelled, torch.tensor([1, 0]))
    assert (tmp_path / "out.csv").read_text() == 'a,"b, c",label\n0.5,1.0,yes\n2.0,3.0,no\n'
    save_samples(tmp_path / "out.npz", samples, data.decoder, torch.tensor([1, 0]))
    with np.load(tmp_path / "out.npz") as file:
        assert np.array_equal(file["samples"], restored) and file["labels"].tolist() == [1, 0]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_grid_shows_every_image(tmp_path, channels):
    samples = torch.linspace(-1, 1, 7).reshape(7, 1, 1, 1).expand(7, channels, 16, 16)
    save_samples(tmp_path / "grid.png", samples, Decoder("images"))
    with Image.open(tmp_path / "grid.png") as image:
        grid = np.asarray(image.convert("L"))
    assert grid.shape == (152, 152)  # three times 16 pixels and 2 between, three times
    shades = Decoder("images").restore(samples).reshape(7, -1)[:, 0]
    assert np.array_equal(grid[2:50, 2:50], np.full((48, 48), shades[0]))
    assert grid[2::50, 2::50][:3].flatten().tolist() == [*shades, 255, 255]


@pytest.mark.parametrize(
    ("name", "decoder", "labels", "message"),
    [
        (
            "a.png",
            Decoder("vectors"),
            None,
            "path: vectors go into a file of type .npy, .npz, .csv, .tsv, .parquet, got ",
        ),
        ("a.csv", Decoder("images"), None, "path: images go into a file of type .npy, .npz, .png, .jpg, .jpeg, got "),
        (
            "a.npy",
            Decoder("images"),
            torch.zeros(2),
            "path: labels need a file of another type than .npy: .npz, .png, .jpg, .jpeg",
        ),
    ],
)
def test_samples_that_a_file_cannot_hold(tmp_path, name, decoder, labels, message):
    with pytest.raises(ValueError, match=message):
        save_samples(tmp_path / name, torch.zeros(2, 2), decoder, labels)
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("kind", ["nan", (), None, float("nan")])
def test_an_unknown_kind_is_refused(kind: object) -> None:
    with pytest.raises(ValueError, match="kind"):
        Decoder.from_dict(Decoder("vectors", ("a",), (0.0,), (1.0,)).to_dict() | {"kind": kind})
