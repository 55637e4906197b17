"""The trainer's data: batches as a function of their number, files good and bad, the way back to the user's units."""

import gc
import io
import itertools
import multiprocessing
import pickle
import time
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("wgan_fast.train", reason="the extra wgan_fast[train] is not installed")

from PIL import Image

from wgan_fast.train.data.decoder import Decoder, save_samples
from wgan_fast.train.data.samples import Samples
from wgan_fast.train.data.sources import DATASETS, FiniteData, batches, make_data
from wgan_fast.train.data.toys import TOYS, make_toy

# Where other threads live, Python 3.12 warns of every fork, also of a loader's.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@dataclass
class Counted(Samples):
    """Samples that are their own indices."""

    count: int
    shape = (1,)
    decoder = Decoder("vectors", ("index",), (0.0,), (1.0,))

    def __len__(self):
        return self.count

    def read(self, indices):
        return torch.from_numpy(indices).float().unsqueeze(1)


def counted(count, seed=0):
    return FiniteData(Counted(count), seed)


def assert_same(batch, other):
    assert torch.equal(batch.samples, other.samples)
    assert (batch.labels is None) == (other.labels is None)
    assert batch.labels is None or torch.equal(batch.labels, other.labels)


def take(count, *arguments, **settings):
    return list(itertools.islice(batches(*arguments, **settings), count))


def write_image(path, mode="RGB", size=(20, 20), **options):
    path.parent.mkdir(exist_ok=True, parents=True)
    Image.effect_noise(size, 50).convert(mode).save(path, **options)


@pytest.fixture
def classes_folder(tmp_path):
    """Two classes, of 7 and 5 images."""
    for name, count in {"cats": 7, "ants": 5}.items():
        for number in range(count):
            write_image(tmp_path / "animals" / name / f"{number}.png")
    (tmp_path / "animals" / ".hidden").write_text("not an image")
    return tmp_path / "animals"


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text('\ufeffa,"b, c"\n1,10\n\n2,20\n4,"5"\n')
    return path


# Batches ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", DATASETS)
def test_a_batch_is_a_function_of_seed_and_number(source):
    data = make_data(source, seed=1)
    batch = data.batch(3, 32, seed=5)
    assert batch.samples.shape == (32, *data.shape)
    assert batch.samples.dtype == torch.float32
    assert (batch.labels is not None) == bool(data.classes)
    data.batch(4, 32, seed=5), data.held_out(10, seed=5)
    assert_same(data.batch(3, 32, seed=5), batch)
    assert_same(make_data(source, seed=1).batch(3, 32, seed=5), batch)
    assert not torch.equal(data.batch(4, 32, seed=5).samples, batch.samples)
    assert not torch.equal(data.batch(3, 32, seed=6).samples, batch.samples)
    assert not torch.equal(data.held_out(32, seed=5).samples, batch.samples)
    assert_same(data.held_out(32, seed=5), data.held_out(32, seed=5))


@settings(deadline=None)
@given(count=st.integers(2, 60), size=st.integers(1, 150), seed=st.integers(0, 2**40))
def test_an_epoch_holds_every_training_sample_once_and_none_that_is_held_out(count, size, seed):
    data = counted(count, seed)
    held_out = data.held_out(10**6, seed).samples.flatten().tolist()
    training = count - len(held_out)
    assert len(held_out) == max(1, count // 10)
    wanted = 3 * training
    drawn = torch.cat([data.batch(number, size, seed).samples for number in range(-(-wanted // size))]).flatten()
    epochs = drawn[:wanted].reshape(3, training).tolist()
    for epoch in epochs:
        assert sorted(epoch + held_out) == list(range(count))
    assert training < 8 or epochs[0] != epochs[1]


def test_at_most_2500_samples_are_held_out_and_fewer_can_be_asked_for():
    data = counted(30_000)
    assert len(data.held_out(10**6, 0).samples) == 2500
    assert data.held_out(10, 0).samples.unique().numel() == 10
    assert not torch.equal(counted(30_000, 1).held_out(10, 0).samples, data.held_out(10, 0).samples)


@settings(deadline=None)
@given(world=st.integers(1, 5), rows=st.integers(1, 9), start=st.integers(0, 20))
def test_processes_share_the_global_batch(world, rows, start):
    for data in (counted(17), make_data("8gaussians")):
        whole = take(2, data, world * rows, 3, start=start)
        parts = [take(2, data, world * rows, 3, start=start, rank=rank, world=world) for rank in range(world)]
        for number, batch in enumerate(whole):
            for rank in range(world):
                assert torch.equal(parts[rank][number].samples, batch.samples[rank::world])


def test_starting_at_a_number_is_skipping_what_is_before():
    for data in (counted(17), make_data("swissroll")):
        for late, early in zip(take(3, data, 8, 0, start=4), take(7, data, 8, 0)[4:], strict=True):
            assert_same(late, early)


def test_workers_change_nothing_and_end_with_the_iterator(classes_folder, capfd):
    state = torch.get_rng_state()
    data = make_data(str(classes_folder), size=16)
    for start in (0, 3):
        with_workers = batches(data, 4, 0, start=start, workers=2)
        for batch in take(5, data, 4, 0, start=start):
            assert_same(next(with_workers), batch)
        workers = multiprocessing.active_children()
        assert len(workers) == 2
        del with_workers
        gc.collect()
        deadline = time.monotonic() + 10
        while any(worker.is_alive() for worker in workers):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert capfd.readouterr() == ("", "")
    assert torch.equal(torch.get_rng_state(), state)


def test_data_can_be_sent_to_a_fresh_process(classes_folder, table, tmp_path):
    vectors, images = tmp_path / "vectors.npy", tmp_path / "images.npy"
    np.save(vectors, np.random.default_rng(0).normal(size=(5000, 3)))
    np.save(images, np.random.default_rng(0).integers(256, size=(50, 20, 30, 1), dtype=np.uint8))
    sources = {str(classes_folder): 32, str(table): None, "digits": None, "8gaussians": None}
    for source, size in (sources | {str(vectors): None, str(images): 16}).items():
        data = make_data(source, size=size)
        sent = pickle.dumps(data)
        assert_same(pickle.loads(sent).batch(2, 5, 1), data.batch(2, 5, 1))
        if source in (str(vectors), str(images)):
            # The order of 4,500 samples, but not their content.
            assert len(sent) < 50_000


def test_a_batch_that_processes_cannot_share_is_refused_at_once():
    with pytest.raises(ValueError, match="size: expected a multiple of the 3 training processes, got 8"):
        batches(counted(10), 8, 0, world=3)


# Sources ------------------------------------------------------------------------------------------


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


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    data = make_data("digits")
    assert data.shape == (1, 16, 16)
    assert data.classes == tuple("0123456789")
    held_out = data.held_out(10**6, 0)
    epoch = data.batch(0, 1797 - len(held_out.samples), 0)
    samples, labels = torch.cat([epoch.samples, held_out.samples]), torch.cat([epoch.labels, held_out.labels])
    assert samples.min() == -1 and samples.max() == 1
    assert torch.bincount(labels).tolist() == np.bincount(load_digits().target).tolist()
    # What an image holds in all is kept by the change of size, up to its border.
    for digit in range(10):
        theirs = load_digits().images[load_digits().target == digit].mean() / 16
        assert samples[labels == digit].add(1).div(2).mean().item() == pytest.approx(theirs, rel=0.02)
    assert make_data("digits", size=32, colour=True).shape == (3, 32, 32)


def test_folders_are_classes_and_hidden_files_are_none(classes_folder):
    data = make_data(str(classes_folder))
    assert data.classes == ("ants", "cats")
    assert data.shape == (3, 32, 32)
    held_out, epoch = data.held_out(9, 0), data.batch(0, 11, 0)
    assert sorted(torch.cat([held_out.labels, epoch.labels]).tolist()) == [0] * 5 + [1] * 7
    plain = make_data(str(classes_folder / "ants"), size=16, colour=False)
    assert plain.classes == ()
    assert plain.batch(0, 2, 0).labels is None
    assert plain.shape == plain.batch(0, 2, 0).samples[0].shape == (1, 16, 16)


def read_one(path, **settings):
    """The image at this path, restored, from a folder that holds it twice."""
    folder = path.parent / f"folder of {path.stem}"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / f"{name}{path.suffix}").write_bytes(path.read_bytes())
    data = make_data(str(folder), **settings)
    samples = data.batch(0, 1, 0).samples
    assert samples.min() >= -1 and samples.max() <= 1
    return data.decoder.restore(samples)[0]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
@pytest.mark.parametrize("size", [(1, 1), (17, 400), (401, 33), (16, 16)], ids=str)
def test_images_of_any_mode_and_size(tmp_path, mode, size):
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    grey = Image.effect_noise(size, 50)
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    (deep if mode == "I;16" else grey.convert(mode)).save(path)
    with Image.open(path) as saved:
        assert saved.mode == mode
    assert read_one(path, size=16).shape == (16, 16, 3)
    one = read_one(path.rename(path.with_stem("again")), size=16, colour=False)
    assert one.shape == (16, 16)
    if size == (16, 16) and mode in ("L", "LA", "I;16"):
        assert np.array_equal(one, np.asarray(grey))


def test_images_are_upright_square_and_white_where_transparent(tmp_path):
    pixels = np.zeros((32, 48), np.uint8)
    pixels[:16, 8:24] = 255  # the top left quarter of the centre square
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise by a quarter
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    turned = read_one(tmp_path / "turned.png", size=16, colour=False)
    assert turned[:7, 9:].min() == 255
    assert turned[9:].max() == turned[:, :7].max() == 0

    pixels = np.zeros((16, 16, 4), np.uint8)
    pixels[:8, :, 0], pixels[:8, :, 3] = 200, 255
    Image.fromarray(pixels).save(tmp_path / "half.png")
    half = read_one(tmp_path / "half.png", size=16)
    assert (half[:8] == [200, 0, 0]).all()
    assert (half[8:] == 255).all()


def test_large_jpegs_are_what_they_are_at_full_size(tmp_path):
    gradient = Image.linear_gradient("L").resize((1024, 1024))
    gradient.convert("RGB").save(tmp_path / "large.jpg", quality=95)
    found = read_one(tmp_path / "large.jpg", size=32).astype(int)
    assert np.abs(found - np.asarray(gradient.resize((32, 32), Image.Resampling.BOX))[..., None]).max() <= 2


@pytest.mark.parametrize("shape", [(16, 16), (16, 16, 1), (16, 16, 3), (32, 32)], ids=str)
def test_arrays_of_images_come_back(tmp_path, shape):
    pixels = np.random.default_rng(0).integers(256, size=(12, *shape), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", samples=pixels, labels=np.arange(12) // 4 * 10)
    data = make_data(str(tmp_path / "images.npz"))
    assert data.shape == (3 if shape[2:] == (3,) else 1, *shape[:2])
    assert data.classes == ("0", "10", "20")
    batch = data.batch(0, 11, 0)
    for image, label in zip(data.decoder.restore(batch.samples), batch.labels.tolist(), strict=True):
        (place,) = np.flatnonzero((pixels.reshape(12, *image.shape) == image).all(axis=tuple(range(1, image.ndim + 1))))
        assert place // 4 == label


def test_arrays_of_images_are_resized_like_files(tmp_path):
    pixels = np.random.default_rng(0).integers(256, size=(2, 28, 20), dtype=np.uint8)
    (tmp_path / "files").mkdir()
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "files" / f"{number}.png")
    np.save(tmp_path / "images.npy", pixels)
    for colour in (False, True):
        files = make_data(str(tmp_path / "files"), size=16, colour=colour)
        assert_same(
            make_data(str(tmp_path / "images.npy"), size=16, colour=colour).batch(0, 3, 0), files.batch(0, 3, 0)
        )


def test_float_images_are_taken_as_they_are(tmp_path):
    images = np.random.default_rng(0).uniform(-1, 1, size=(4, 3, 16, 16)).astype(">f8")
    np.save(tmp_path / "images.npy", images)
    data = make_data(str(tmp_path / "images.npy"))
    both = torch.cat([data.batch(0, 3, 0).samples, data.held_out(1, 0).samples])
    assert sorted(both[:, 0, 0, 0].tolist()) == sorted(images[:, 0, 0, 0].astype(np.float32).tolist())


def test_tables_are_standardised_and_come_back(table):
    data = make_data(str(table))
    assert data.decoder.columns == ("a", "b, c")
    both = torch.cat([data.batch(0, 2, 0).samples, data.held_out(1, 0).samples])
    torch.testing.assert_close(both.mean(dim=0), torch.zeros(2))
    torch.testing.assert_close(both.std(dim=0, correction=0), torch.ones(2))
    restored = data.decoder.restore(both)
    assert restored.dtype == np.float64
    np.testing.assert_allclose(sorted(restored.tolist()), [[1, 10], [2, 20], [4, 5]], rtol=1e-6)


def test_arrays_of_vectors_larger_than_a_piece_are_standardised(tmp_path):
    array = np.random.default_rng(0).normal(1e6, [1e-3, 7.0], size=(700_000, 2))
    np.save(tmp_path / "vectors.npy", array)
    decoder = make_data(str(tmp_path / "vectors.npy")).decoder
    np.testing.assert_allclose(decoder.mean, array.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(decoder.deviation, array.std(axis=0), rtol=1e-6)


# Decoder --------------------------------------------------------------------------------------------


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


def test_samples_are_saved_in_the_users_units(table, tmp_path):
    data = make_data(str(table))
    samples = data.batch(0, 2, 0).samples
    restored = data.decoder.restore(samples)
    for suffix in (".npy", ".npz", ".csv", ".NPY"):
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
        ("a.png", Decoder("vectors"), None, "path: vectors go into a file of type .npy, .npz, .csv, got "),
        ("a.csv", Decoder("images"), None, "path: images go into a file of type .npy, .npz, .png, got "),
        ("a.npy", Decoder("images"), torch.zeros(2), "path: labels need a file of another type than .npy: .npz, .png"),
    ],
)
def test_samples_that_a_file_cannot_hold(tmp_path, name, decoder, labels, message):
    with pytest.raises(ValueError, match=message):
        save_samples(tmp_path / name, torch.zeros(2, 2), decoder, labels)
    assert not (tmp_path / name).exists()


# Errors -------------------------------------------------------------------------------------------


def folder_of(**files):
    def write(path):
        path.mkdir()
        for name, content in files.items():
            target = path / name.replace("__", "/").replace("_", ".")
            target.parent.mkdir(exist_ok=True)
            if isinstance(content, bytes):
                target.write_bytes(content)
            elif content is None:
                target.mkdir()
            else:
                content.save(target)

    return write


def array_of(content):
    return lambda path: np.save(path, content)


def arrays_of(**contents):
    return lambda path: np.savez(path, **contents)


def text(content):
    return lambda path: path.write_bytes(content.encode() if isinstance(content, str) else content)


IMAGE = Image.new("L", (16, 16))
HOLES = np.ones((3, 2)) * np.arange(3)[:, None]
HOLES[1, 1] = np.nan

BAD = [
    # name, what is written there, settings, message
    ("moons", None, {}, "data: expected one of 25gaussians, .*digits, or a folder of images.*, got 'moons'"),
    ("8gausians", None, {}, "did you mean 8gaussians?"),
    ("none.csv", None, {}, "data: there is no .*none.csv; expected 25gaussians"),
    ("x.txt", text("1"), {}, "data: expected a folder of images, or a file .npy, .npz or .csv, got .*x.txt"),
    ("empty", folder_of(), {}, "data: .*empty contains no images"),
    ("one", folder_of(a_png=IMAGE), {}, "data: expected at least 2 samples"),
    ("mix", folder_of(a_png=IMAGE, b__c_png=IMAGE), {}, "data: .*mix contains both files .a.png. and folders .b."),
    ("deep", folder_of(a=None, a__b=None), {}, "data: .*a is a class folder; expected images, got .*b"),
    ("hollow", folder_of(a__b_png=IMAGE, c=None), {}, "data: .*c is a class folder; expected images, got none"),
    ("other", folder_of(a_png=IMAGE, b_txt=b"hello"), {}, "data: .*b.txt cannot be read as an image: unknown format"),
    ("zero", folder_of(a_png=IMAGE, b_png=b""), {}, "data: .*b.png cannot be read as an image: unknown format"),
    ("odd", folder_of(a_png=IMAGE, b_png=IMAGE), {"size": 24}, "size: expected a power of two of at least 16, got 24"),
    ("digits", None, {"size": 8}, "size: expected a power of two of at least 16, got 8"),
    ("swissroll", None, {"size": 16}, "size: applies to images only, and swissroll holds vectors; got 16"),
    ("x.npy", text("hello, this is text"), {}, "data: .*x.npy cannot be read as an array"),
    ("x.npy", text(""), {}, "data: .*x.npy cannot be read as an array"),
    ("x.npy", array_of(np.array([{}, 1], object)), {}, "data: .*x.npy cannot be read as an array: .*bject"),
    ("x.npy", array_of(np.ones((3, 2)) * 1j), {}, "data: .*x.npy: expected numbers of shape .* got complex128"),
    ("x.npy", array_of(np.zeros((0, 2))), {}, r"data: .*x.npy"),
    ("x.npy", array_of(np.float64(1)), {}, r"data: .*x.npy: expected numbers .* got float64 of shape \(\)"),
    ("x.npy", array_of(np.ones(5)), {}, r"data: .*x.npy: expected numbers .* got float64 of shape \(5,\)"),
    ("x.npy", array_of(np.ones((5, 16, 16))), {}, r"got float64 of shape \(5, 16, 16\)"),
    ("x.npy", array_of(np.ones((5, 16, 16, 3))), {}, r"got float64 of shape \(5, 16, 16, 3\)"),
    ("x.npy", array_of(HOLES), {}, "data: .*x.npy: row 1, column 'x1': expected a finite number, got nan"),
    ("x.npy", array_of(HOLES[:, :1] * [[1, 0]]), {}, "data: .*x.npy: column 'x1' is 0 in every row; remove it"),
    ("x.npy", array_of(HOLES[:, :1] * 1e300), {}, "data: .*x.npy: the standard deviation of column 'x0' is inf"),
    ("x.npy", array_of(HOLES[:, :1]), {"colour": True}, "colour: applies to images only, and .*x.npy holds vectors"),
    ("x.npy", array_of(np.zeros((3, 28, 28), np.uint8)), {}, "data: .*x.npy holds images of 28 x 28; .* pass a size"),
    ("x.npy", array_of(np.full((3, 1, 16, 16), 255.0)), {}, "data: .*x.npy: expected images of floats within"),
    ("x.npy", array_of(np.full((3, 1, 16, 16), np.nan)), {}, "data: .*x.npy: .* sample 0 has values outside"),
    (
        "x.npy",
        array_of(np.zeros((3, 1, 16, 16))),
        {"size": 32},
        "size: float images are not resized, .* size 16; got 32",
    ),
    (
        "x.npy",
        array_of(np.zeros((3, 1, 16, 16))),
        {"colour": True},
        "colour: float images are not converted, .* got True",
    ),
    ("x.npz", arrays_of(a=HOLES, b=HOLES), {}, "data: .*x.npz: expected an array named samples, got a, b"),
    ("x.npz", arrays_of(labels=HOLES), {}, "data: .*x.npz: expected an array named samples, got none"),
    ("x.npz", arrays_of(a=HOLES[:, :1], labels=np.arange(2)), {}, r"expected labels of integers, shape \(3,\), got"),
    ("x.npz", arrays_of(a=HOLES[:, :1], labels=np.ones(3)), {}, "expected labels of integers, .* got float64"),
    ("x.npz", arrays_of(a=np.array([{}], object)), {}, "data: .*x.npz cannot be read as arrays: Object arrays"),
    ("x.npz", text("PK"), {}, "data: .*x.npz cannot be read as arrays"),
    ("x.csv", text(""), {}, "data: .*x.csv: expected a line with the names of the columns, but the file is empty"),
    ("x.csv", text("1,2\n3,4\n"), {}, "data: .*x.csv: the first line holds only numbers; add .* for example x0,x1"),
    ("x.csv", text("a,b\n"), {}, "data: .*x.csv: expected rows of numbers below the header, got none"),
    ("x.csv", text("a,b\n1,2\n"), {}, "data: .*x.csv: column 'a' is 1 in every row"),
    ("x.csv", text("a,a\n1,2\n"), {}, "data: .*x.csv: expected a unique name for column 2, got 'a'"),
    ("x.csv", text("a,\n1,2\n"), {}, "data: .*x.csv: expected a unique name for column 2, got ''"),
    ("x.csv", text("a,b\n1,2\n\n3,\n"), {}, "data: .*x.csv: line 4, column 'b': expected a number, got ''"),
    ("x.csv", text("a,b\n1,2\n3,red\n"), {}, "data: .*x.csv: line 3, column 'b': expected a number, got 'red'"),
    ("x.csv", text("a,b\n1,2\n\n3,inf\n"), {}, "data: .*x.csv: line 4, column 'b': expected a finite number, got inf"),
    ("x.csv", text("a,b\n1,2\n3\n"), {}, "data: .*x.csv: line 3: expected 2 cells, separated by commas, got 1"),
    ("x.csv", text("a,b\n1,2,3\n"), {}, "data: .*x.csv: line 2: expected 2 cells, separated by commas, got 3"),
    ("x.csv", text("a;b\n1;2\n"), {}, "data: .*x.csv: line 2, column 'a;b': expected a number, got '1;2'"),
    ("x.csv", text(b"a,b\n1,\xff\n"), {}, "data: .*x.csv: after line 0: 'utf-8' codec"),
    ("x.csv", text('a,b\n1,"2\n'), {}, "data: .*x.csv: after line 2: unexpected end of data"),
    ("x.csv", text("a,b\n1,2\n2,3\n"), {"size": 16}, "size: applies to images only, and .*x.csv holds vectors"),
]


@pytest.mark.parametrize(
    ("name", "write", "settings", "message"), BAD, ids=[f"{i}-{case[0]}" for i, case in enumerate(BAD)]
)
def test_bad_sources_are_named(tmp_path, name, write, settings, message):
    if write is not None:
        write(tmp_path / name)
        name = str(tmp_path / name)
    with pytest.raises(FileNotFoundError if name == "none.csv" else ValueError, match=message):
        make_data(name, **settings)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_image_that_breaks_off_is_named_when_it_is_read(tmp_path, workers):
    for number in range(2):
        path = tmp_path / "images" / f"{number}.png"
        write_image(path, size=(64, 64))
        path.write_bytes(path.read_bytes()[:2000])
    data = make_data(str(tmp_path / "images"))
    with pytest.raises(ValueError, match=f"^data: {tmp_path}/images/[01].png cannot be read as an image: .*truncated"):
        next(batches(data, 2, 0, workers=workers))
