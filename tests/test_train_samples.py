"""Samples of files and of scikit-learn's digits: images, arrays and tables, good and bad."""

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("wgan_fast.train.trainer", reason="the extra wgan_fast[train] is not installed")

from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from training import assert_same, write_image
from wgan_fast.train.data.opening import Preparation, open_memory
from wgan_fast.train.data.sample_files import save_images, save_samples
from wgan_fast.train.data.sources import batches, make_data
from wgan_fast.train.data.toys import TOYS, make_toy

# Where other threads live, Python 3.12 warns of every fork, also of a loader's.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


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
    assert make_data(str(classes_folder), size="20x24").shape == (3, 20, 24)
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
    grey_mode = mode in ("1", "L", "LA", "I;16")
    assert read_one(path, size=16).shape == ((16, 16) if grey_mode else (16, 16, 3))
    one = read_one(path.rename(path.with_stem("again")), size=16, colour=False)
    assert one.shape == (16, 16)
    if size == (16, 16) and mode in ("L", "LA", "I;16"):
        assert np.array_equal(one, np.asarray(deep if mode == "I;16" else grey))


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


@pytest.mark.parametrize(
    "array",
    [
        np.random.default_rng(0).random((4, 3, 16, 16)).astype(np.float32),
        np.random.default_rng(0).random((4, 1, 16, 16)) * 2 - 1,
        np.random.default_rng(0).integers(0, 256, (4, 16, 16, 1)).astype(np.uint8),
        np.random.default_rng(0).integers(0, 256, (4, 16, 16)).astype(np.uint8),
        np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3)).astype(np.uint8),
        np.random.default_rng(0).integers(-5, 100, (4, 3)),
        np.random.default_rng(0).random((4, 3)).astype(np.float32),
        np.array([[True, False], [False, True], [True, True], [False, False]]),
    ],
    ids=lambda array: f"{array.dtype}-{array.shape}",
)
def test_arrays_come_back_as_they_were(tmp_path, array):
    np.save(tmp_path / "x.npy", array)
    data = make_data(str(tmp_path / "x.npy"))
    both = torch.cat([data.batch(0, 3, 0).samples, data.held_out(1, 0).samples])
    if len(array.shape) > 2:
        assert both.min() < -0.8 and both.max() > 0.8  # the whole range of the networks
    restored = data.decoder.restore(both)
    assert restored.dtype == array.dtype and restored.shape == array.shape
    np.testing.assert_allclose(
        sorted(restored.reshape(4, -1).tolist()), sorted(array.reshape(4, -1).tolist()), atol=1e-6, rtol=1e-6
    )


@st.composite
def image_arrays(draw):
    """Images of any type, layout, size and range, but all the same."""
    kind = np.dtype(draw(st.sampled_from(["b1", "u1", "u2", "i2", "i4", "u8", "f2", "f4", ">f8"])))
    height, width, channels = (draw(st.integers(1, 9)) for _ in range(3))
    channels = 1 + channels % 4
    height, width = max(height, 5), max(width, 5)  # no side that could be the channels
    shape = draw(st.sampled_from([(height, width), (height, width, channels), (channels, height, width)]))
    random = np.random.default_rng(draw(st.integers(0, 99)))
    if kind.kind == "f":
        low, high = draw(st.sampled_from([(0, 1), (-1, 1), (0, 255), (-1000, 3000)]))
        images = random.uniform(low, high, (6, *shape)).astype(kind)
    else:
        bits = 1 if kind.kind == "b" else draw(st.integers(1, 8 * kind.itemsize - (kind.kind == "i")))
        images = random.integers(0, 2**bits, (6, *shape), dtype=np.uint64).astype(kind)
    images[0].flat[:2] = [images.min(), images.max() if images.max() > images.min() else 1]
    return images


@settings(deadline=None, max_examples=40)
@given(image_arrays())
def test_any_array_of_images_comes_back(images):
    """In its type, layout and range; transparency too, on request."""
    samples = open_memory(images, None, Preparation(alpha=True))
    read = samples.read(np.arange(6))
    assert read.shape == (6, *samples.shape) and read.dtype == torch.float32
    assert read.min() >= -1.0001 and read.max() <= 1.0001
    if images.shape[1:] != samples.decoder.give(read).shape[1:]:  # without a channel of alpha, now with one
        samples = open_memory(images, None, Preparation())
        read = samples.read(np.arange(6))
    back = samples.decoder.give(read)
    assert back.dtype == images.dtype and back.shape == images.shape
    spread = float(images.max()) - float(images.min())
    error = np.abs(back.astype(np.float64) - images.astype(np.float64)).max()
    assert (
        error
        <= 1e-6 * spread + (spread > 2**22) * (images.dtype.kind != "f") + 1e-3 * (images.dtype == np.float16) * spread
    )
    noise = samples.decoder.give(torch.randn(20, *samples.shape) * 3).astype(np.float64)
    if images.dtype.kind == "f" and np.abs(images).max() <= 1:
        low, high = (-1 if images.min() < 0 else 0), 1
    else:
        low, high = min(images.min(), 0), max(images.max(), 255 * (images.dtype == np.uint8), 1)
    assert noise.min() >= low and noise.max() <= high


def test_twelve_bits_in_sixteen_use_the_whole_range(tmp_path):
    deep = (np.arange(16 * 16).reshape(16, 16) * 16).astype(np.uint16)  # up to 4080
    (tmp_path / "x").mkdir()
    for name in "ab":
        Image.fromarray(deep).save(tmp_path / "x" / f"{name}.png")
    data = make_data(str(tmp_path / "x"), size=16)
    both = data.batch(0, 1, 0).samples
    assert both.shape == (1, 1, 16, 16) and both.min() == -1 and both.max() == 1
    assert np.array_equal(data.decoder.restore(both)[0], deep) and data.decoder.restore(both).dtype == np.uint16
    files = [*save_images(tmp_path / "out", both, data.decoder)]
    with Image.open(files[0]) as image:
        assert np.array_equal(np.asarray(image), deep)


def test_transparency_is_kept_on_request(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 4), dtype=np.uint8)
    (tmp_path / "x").mkdir()
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "x" / f"{number}.png")
    data = make_data(str(tmp_path / "x"), size=16, alpha=True)
    assert data.shape == (4, 16, 16)
    found = torch.cat([data.batch(0, 3, 0).samples, data.held_out(1, 0).samples])
    for number, path in enumerate(save_images(tmp_path / "out", found, data.decoder)):
        assert path.name == f"{number:06d}.png"
    read = sorted(np.asarray(Image.open(path)).tolist() for path in (tmp_path / "out").iterdir())
    assert read == sorted(pixels.tolist())
    save_samples(tmp_path / "grid.jpg", found, data.decoder)
    with Image.open(tmp_path / "grid.jpg") as grid:
        assert grid.format == "JPEG" and grid.mode == "RGB"


def test_labels_keep_the_users_values(tmp_path):
    np.savez(tmp_path / "x.npz", samples=np.random.default_rng(0).normal(size=(30, 2)), labels=np.arange(30) % 3 + 1)
    data = make_data(str(tmp_path / "x.npz"))
    assert data.classes == ("1", "2", "3")
    save_samples(tmp_path / "o.npz", torch.zeros(3, 2), data.decoder, torch.tensor([2, 0, 1]))
    with np.load(tmp_path / "o.npz") as file:
        assert file["labels"].tolist() == [3, 1, 2]


def test_another_default_device(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(6.0).reshape(3, 2))
    with torch.device("meta"):
        decoder = make_data(str(tmp_path / "x.npy")).decoder
        samples = [make_toy(name).sample(3, torch.Generator()) for name in TOYS]
    assert all(drawn.isfinite().all() for drawn in samples)
    with torch.device("meta"):
        restored = decoder.restore(samples[0])
    assert np.isfinite(restored).all()


def test_vectors_are_standardised_and_come_back(tmp_path):
    array = np.array([[1, 10], [2, 20], [4, 5]], dtype=np.int16)
    np.save(tmp_path / "x.npy", array)
    data = make_data(str(tmp_path / "x.npy"))
    both = torch.cat([data.batch(0, 2, 0).samples, data.held_out(1, 0).samples])
    torch.testing.assert_close(both.mean(dim=0), torch.zeros(2))
    torch.testing.assert_close(both.std(dim=0, correction=0), torch.ones(2))
    restored = data.decoder.restore(both)
    assert restored.dtype == np.int16 and sorted(restored.tolist()) == array.tolist()


def test_a_table_of_numbers_comes_back(table_file):
    data = make_data(str(table_file))
    assert data.decoder.columns == ("a", "b, c")
    both = torch.cat([data.batch(0, 2, 0).samples, data.held_out(1, 0).samples])
    rows = [[float(cell) for cell in row] for row in data.decoder.restore(both).tolist()]
    np.testing.assert_allclose(sorted(rows), [[1, 10], [2, 20], [4, 5]], rtol=1e-6)


def test_arrays_of_vectors_larger_than_a_piece_are_standardised(tmp_path):
    array = np.random.default_rng(0).normal(1e6, [1e-3, 7.0], size=(700_000, 2))
    np.save(tmp_path / "vectors.npy", array)
    decoder = make_data(str(tmp_path / "vectors.npy")).decoder
    np.testing.assert_allclose(decoder.mean, array.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(decoder.deviation, array.std(axis=0), rtol=1e-6)


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
    ("x.txt", text("1"), {}, "data: expected a folder of images, a file .npy or .npz, or a table .csv, .* got .*x.txt"),
    ("empty", folder_of(), {}, "data: .*empty contains no images"),
    ("one", folder_of(a_png=IMAGE), {}, "data: expected at least 2 samples"),
    ("mix", folder_of(a_png=IMAGE, b__c_png=IMAGE), {}, "data: .*mix contains both files .a.png. and folders .b."),
    ("deep", folder_of(a=None, a__b=None), {}, "data: .*b is a folder inside the class folder a; move its images"),
    ("hollow", folder_of(a__b_png=IMAGE, c=None), {}, "data: the class folder .*c contains no images"),
    ("other", folder_of(a_png=IMAGE, b_txt=b"hello"), {}, "data: .*b.txt cannot be read as an image: unknown format"),
    ("zero", folder_of(a_png=IMAGE, b_png=b""), {}, "data: .*b.png cannot be read as an image: unknown format"),
    ("odd", folder_of(a_png=IMAGE, b_png=IMAGE), {"size": 0}, "size: expected a number of pixels, .* got 0"),
    ("digits", None, {"size": "8x8x8"}, "size: expected a number of pixels, such as 64, or 48x64, got '8x8x8'"),
    ("x.npy", text("hello, this is text"), {}, "data: .*x.npy cannot be read as an array"),
    ("x.npy", text(""), {}, "data: .*x.npy cannot be read as an array"),
    ("x.npy", array_of(np.array([{}, 1], object)), {}, "data: .*x.npy cannot be read as an array: .*bject"),
    ("x.npy", array_of(np.ones((3, 2)) * 1j), {}, "data: .*x.npy: expected numbers of shape .* got complex128"),
    ("x.npy", array_of(np.zeros((0, 2))), {}, r"data: .*x.npy"),
    ("x.npy", array_of(np.float64(1)), {}, r"data: .*x.npy: expected numbers .* got float64 of shape \(\)"),
    ("x.npy", array_of(np.ones(5)), {}, r"data: .*x.npy: expected numbers .* got float64 of shape \(5,\)"),
    ("x.npy", array_of(np.ones((5, 16, 16, 7))), {}, r"got float64 of shape \(5, 16, 16, 7\)"),
    ("x.npy", array_of(HOLES), {}, "data: .*x.npy: row 1, column 'x1': expected a finite number, got nan"),
    ("x.npy", array_of(np.ones((3, 2))), {}, "data: .*x.npy: every row is the same; expected rows that differ"),
    ("x.npy", array_of(HOLES[:, :1] * 1e300), {}, "data: .*x.npy: the standard deviation of column 'x0' is inf"),
    ("x.npy", array_of(HOLES[:, :1]), {"colour": True}, "colour: applies to images only, and .*x.npy holds vectors"),
    (
        "x.npy",
        array_of(np.full((3, 1, 16, 16), 9.0)),
        {},
        "data: .*x.npy: every value is 9; expected images that differ",
    ),
    ("x.npy", array_of(np.full((3, 1, 16, 16), np.nan)), {}, "data: .*x.npy: sample 0 has values that are NaN"),
    ("x.npz", arrays_of(a=HOLES, b=HOLES), {}, "data: .*x.npz: expected an array named samples, got a, b"),
    ("x.npz", arrays_of(labels=HOLES), {}, "data: .*x.npz: expected an array named samples, got none"),
    ("x.npz", arrays_of(a=HOLES[:, :1], labels=np.arange(2)), {}, r"labels: .* of one type, shape \(3,\), got"),
    ("x.npz", arrays_of(a=HOLES[:, :1], labels=np.ones(3)), {}, "labels: .* integers or texts, .* got float64"),
    ("x.npz", arrays_of(a=np.array([{}], object)), {}, "data: .*x.npz cannot be read as arrays: Object arrays"),
    ("x.npz", text("PK"), {}, "data: .*x.npz is not an archive of arrays, as numpy.savez writes it$"),
    ("x.csv", text(""), {}, "data: .*x.csv: expected a line with the names of the columns, but the file is empty"),
    ("x.csv", text("1.5,2\n3,4\n"), {}, "data: .*x.csv: the first line holds only numbers; add .* for example x0,x1"),
    ("x.csv", text("a,b\n"), {}, "data: .*x.csv: expected rows below the header, got none"),
    ("x.csv", text("a,b\n1,2\n"), {}, "data: .*x.csv: expected at least 2 rows, of which 1 is held out, got 1"),
    ("x.csv", text("a,b\n1,2\n1,2\n"), {}, "data: .*x.csv: every column holds the same cell in every row"),
    ("x.csv", text("a,a\n1,2\n"), {}, "data: .*x.csv: expected a unique name for column 2, got 'a'"),
    ("x.csv", text("a,\n1,2\n"), {}, "data: .*x.csv: expected a unique name for column 2, got ''"),
    ("x.csv", text("a,b\n1,2\n\n3,1e999\n"), {}, "data: .*x.csv: column 'b': expected finite numbers, got inf"),
    (
        "x.csv",
        text("a,b\n1,2\n3\n"),
        {},
        "data: .*x.csv: line 3: expected 2 cells, as in the header, .* got 1",
    ),
    (
        "x.csv",
        text("a,b\n1,2,3\n"),
        {},
        "data: .*x.csv: line 2: expected 2 cells, as in the header, .* got 3",
    ),
    ("x.csv", text("k\n" + "".join(f"id{i}\n" for i in range(99))), {}, "data: .*x.csv: column 'k' holds 99 different"),
    (
        "x.csv",
        text("k,l\n" + "".join(f"id{i},no{i}\n" for i in range(99))),
        {},
        "column 'k' holds .* leave it out with --drop, in Python drop='k'; column 'l' holds .* drop='l'$",
    ),
    ("x.csv", text("a,b\n1,2\n2,3\n"), {"drop": "a,c"}, "drop: expected columns of .*x.csv, b; got 'c'"),
    ("x.csv", text("a,b\n1,2\n2,3\n"), {"drop": "a,b"}, "drop: expected columns of .*x.csv that remain, got 'a,b'"),
    ("digits", None, {"drop": "a"}, "drop: names a column of a table, and digits is none"),
    ("x.csv", text("a,b\n1,2\n2,3\n"), {"label": "c"}, "label: expected a column of .*x.csv, a, b; got 'c'"),
    ("x.csv", text("a\n1\n2\n"), {"label": "a"}, "label: .*x.csv has no other column than 'a'"),
    ("digits", None, {"label": "a"}, "label: names a column of a table, and digits is none"),
    ("x.csv", text(b"a,b\n1,\xff\n"), {}, "data: .*x.csv: after line [01]: 'utf-8' codec"),
    ("x.csv", text(b"a,b\n1,2\n3,x\0\n"), {}, "data: .*x.csv: after line 2: the next line holds a zero byte; "),
    ("x.csv", text("a,b\n1,2\n".encode("utf-16-le")), {}, "data: .*x.csv: after line 0: the next line holds a zero"),
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
    with pytest.raises(ValueError, match=message):
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


def test_no_postscript_is_run(tmp_path: Path) -> None:
    """For EPS, whatever the file is called, Pillow starts Ghostscript."""
    Image.new("RGB", (20, 20)).save(tmp_path / "x.eps")
    (tmp_path / "x.eps").rename(tmp_path / "x.png")
    with pytest.raises(ValueError, match="^data: .*x.png cannot be read as an image: unknown format"):
        make_data(str(tmp_path))


def test_of_many_images_some_headers_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A damaged one among the others is named when it is read; one image of 16 bits has all read, for their white."""
    monkeypatch.setattr("wgan_fast.train.data.images.MAX_HEADERS", 5)
    for number in range(12):
        write_image(tmp_path / f"{number:02}.png")
    (tmp_path / "01.png").write_text("no image")
    data = make_data(str(tmp_path))
    with pytest.raises(ValueError, match="^data: .*01.png cannot be read as an image"):
        data._samples.read(np.arange(3))
    Image.fromarray(np.full((20, 20), 900, np.uint16)).save(tmp_path / "04.png")
    Image.fromarray(np.full((20, 20), 90, np.uint16)).save(tmp_path / "06.png")
    with pytest.raises(ValueError, match="^data: .*01.png cannot be read as an image"):
        make_data(str(tmp_path))
    write_image(tmp_path / "01.png")
    assert make_data(str(tmp_path))._samples.white == 900


def test_what_systems_leave_is_no_data(tmp_path: Path) -> None:
    for number in range(4):
        write_image(tmp_path / "ab"[number % 2] / f"{number}.png")
    (tmp_path / "__MACOSX").mkdir()
    for name in ("__MACOSX/._0.png", "a/Thumbs.db", "b/desktop.ini"):
        (tmp_path / name).write_text("x")
    data = make_data(str(tmp_path))
    assert (data.classes, data.identity()["count"]) == (("a", "b"), 4)


def test_an_archive_that_unpacks_to_more_than_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "x.npz", samples=np.zeros((1000, 16, 16), np.uint8))
    monkeypatch.setattr("wgan_fast.train.data.opening.physical_memory", lambda: 500_000)
    with pytest.raises(ValueError, match="^data: .*x.npz cannot be read as arrays: unpacked it takes 0.0 GiB"):
        make_data(str(tmp_path / "x.npz"))
