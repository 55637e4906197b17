"""Finite sets of samples: images, NumPy arrays, tables of numbers. Errors name the file and the place in it."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from wgan_fast._checks import ArgumentValueError
from wgan_fast.train.data.decoder import ArrayFormat, Decoder
from wgan_fast.train.data.table_files import TABLES, Columns, read_table
from wgan_fast.train.data.tables import MAX_CATEGORIES, TableEncoding
from wgan_fast.train.networks.base import is_image_side
from wgan_fast.train.run.contents import holds_only_runs

#: What :func:`open_samples` reads beside ``digits``.
PATHS = "a folder of images, a file .npy or .npz, or a table .csv, .tsv or .parquet"
MAX_HASHED = 2**30  #: bytes of an array, about a second
_SHAPES = (
    "expected numbers of shape (N, D) for vectors, uint8 of shape (N, H, W) or (N, H, W, 1, 3 or 4) for images, "
    "or floats of shape (N, 1 or 3, S, S) within [-1, 1] or [0, 1] for images"
)


class Samples(ABC):
    """A finite set of samples, read by index. Can be pickled, for worker processes.

    Attributes:
        shape: shape of one sample.
        decoder: converts samples to the user's units.
        labels: int64 (N,), indices into ``decoder.classes``; None without labels.
    """

    shape: tuple[int, ...]
    decoder: Decoder
    labels: NDArray[np.int64] | None = None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, indices: NDArray[np.int64]) -> Tensor:
        """The samples at these indices, float32 (B, *shape)."""

    @abstractmethod
    def identity(self) -> Iterator[bytes]:
        """What tells these samples, and their order, from others: names and sizes of files, or rows of an array."""


def open_samples(source: str, size: int | None, colour: bool | None, label: str | None = None) -> Samples:
    """Opens scikit-learn's ``digits``, or the data at a path; see :func:`wgan_fast.train.data.sources.make_data`."""
    if size is not None and not is_image_side(size):
        raise ArgumentValueError("size", f"expected a power of two of at least 16, got {size}")
    path = Path(source)
    if path.exists() and not path.is_dir() and not path.is_file():
        raise ArgumentValueError("data", f"expected {PATHS}; {source} is another thing, a pipe or a device perhaps")
    if path.suffix.lower() in TABLES and not path.is_dir():
        refuse_image_settings(source, size, colour)
        return Table(path, *read_table(path), label)
    if label is not None:
        raise ArgumentValueError("label", f"names a column of a table, and {source} is none; got {label!r}")
    if source == "digits":
        return _digits(size or 16, bool(colour))
    if path.is_dir():
        return ImageFolder(path, size or 32, colour is not False)
    match path.suffix.lower():
        case ".npy":
            with _naming(path, "an array"):
                array = np.lib.format.open_memmap(path, mode="r")
            return _open_array(path, array, None, size, colour)
        case ".npz":
            return _open_array(path, *_read_npz(path), size, colour)
    raise ArgumentValueError("data", f"expected {PATHS}, got {source}")


def refuse_image_settings(source: object, size: int | None, colour: bool | None) -> None:
    """Raises ValueError if ``size`` or ``colour``, which apply to images only, is given for vectors."""
    for name, value in {"size": size, "colour": colour}.items():
        if value is not None:
            raise ArgumentValueError(name, f"applies to images only, and {source} holds vectors; got {value}")


@contextmanager
def _naming(path: Path, wanted: str) -> Iterator[None]:
    """Turns any error of a reader into one that names the file. A damaged file may raise anything."""
    try:
        yield
    except Exception as error:
        reason = "unknown format" if isinstance(error, UnidentifiedImageError) else error
        raise ArgumentValueError("data", f"{path} cannot be read as {wanted}: {reason}") from error


# Images -------------------------------------------------------------------------------------------


class ImageFolder(Samples):
    """The images in a folder or in its sub-folders. The classes are the sorted names of the sub-folders.

    Hidden files are ignored. The constructor reads the header of every file; pixels are read on demand.
    """

    def __init__(self, folder: Path, size: int, colour: bool) -> None:
        folders, self.paths = _visible(folder)
        if folders and self.paths:
            raise ArgumentValueError(
                "data",
                f"{folder} contains both files ({self.paths[0].name}) and folders ({folders[0].name}); "
                "expected either images or one folder per class",
            )
        labels = []
        for label, of_class in enumerate(folders):
            deeper, paths = _visible(of_class)
            if deeper or not paths:
                raise ArgumentValueError(
                    "data",
                    f"{of_class} is a class folder; expected images, got {deeper[0] if deeper else 'none'}",
                )
            self.paths += paths
            labels += [label] * len(paths)
        if not self.paths:
            raise ArgumentValueError("data", f"{folder} contains no images")
        for path in self.paths:
            with _naming(path, "an image"), Image.open(path) as image:
                _refuse_floats(image)
        self.labels = np.array(labels) if folders else None
        self.decoder = Decoder("images", classes=tuple(of_class.name for of_class in folders))
        self.size, self.colour = size, colour
        self.shape = (3 if colour else 1, size, size)

    def __len__(self) -> int:
        return len(self.paths)

    def identity(self) -> Iterator[bytes]:
        for path in self.paths:  # the class is in the labels; the folder may have moved
            yield f"{path.name}\0{path.stat().st_size}\0".encode(errors="surrogateescape")

    def read(self, indices: NDArray[np.int64]) -> Tensor:
        return _scale(np.stack([self._load(self.paths[index]) for index in indices]))

    def _load(self, path: Path) -> NDArray[np.uint8]:
        with _naming(path, "an image"), Image.open(path) as image:
            # Faster: a large JPEG is decoded at a reduced size, at least twice the size kept.
            image.draft("RGB" if self.colour else "L", (2 * self.size, 2 * self.size))
            return _fit(ImageOps.exif_transpose(image), self.size, self.colour)


class _ArraySamples(Samples):
    """Samples stored as the rows of an array."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    def identity(self) -> Iterator[bytes]:
        whole = self.array.nbytes <= MAX_HASHED  # of more, every so many rows
        rows = self.array if whole else self.array[:: -(-self.array.nbytes // MAX_HASHED)]
        yield f"{self.array.dtype.str} {self.array.shape}".encode()
        for start in range(0, len(rows), 1024):
            yield np.ascontiguousarray(rows[start : start + 1024]).tobytes()

    def __getstate__(self) -> dict[str, Any]:
        # A pickled memory map would carry the whole file to every worker.
        return self.__dict__ | ({"array": self.array.filename} if isinstance(self.array, np.memmap) else {})

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if not isinstance(self.array, np.ndarray):
            self.array = np.lib.format.open_memmap(self.array, mode="r")


class ImageArray(_ArraySamples):
    """uint8 images, of shape (N, H, W) or (N, H, W, 1, 3 or 4)."""

    def __init__(self, pixels: NDArray[np.uint8], size: int, colour: bool, classes: tuple[str, ...] = ()) -> None:
        super().__init__(pixels)
        self.size, self.colour = size, colour
        self.shape = (3 if colour else 1, size, size)
        layout: Literal["HW", "HWC"] = "HW" if pixels.ndim == 3 and not colour else "HWC"
        self.decoder = Decoder("images", classes=classes, array=ArrayFormat("|u1", layout))

    def read(self, indices: NDArray[np.int64]) -> Tensor:
        pixels = self.array[indices]
        if pixels.shape[3:] == (1,):
            pixels = pixels[..., 0]
        if pixels.shape[1:] != ((self.size, self.size, 3) if self.colour else (self.size, self.size)):
            pixels = np.stack([_fit(Image.fromarray(image), self.size, self.colour) for image in pixels])
        return _scale(pixels)


def _visible(folder: Path) -> tuple[list[Path], list[Path]]:
    """The sub-folders and the files of a folder, sorted, without hidden ones and without runs of the trainer."""
    folders: list[Path] = []
    files: list[Path] = []
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            folders += [] if holds_only_runs(entry) else [entry]
        elif entry.is_file():
            files.append(entry)
        else:
            raise ArgumentValueError("data", f"{entry} is neither a file nor a folder; remove it from the data")
    return folders, files


def _refuse_floats(image: Image.Image) -> None:
    if image.mode.startswith("F"):
        raise ValueError("its pixels are floating-point numbers, whose range is unknown")


def _fit(image: Image.Image, size: int, colour: bool) -> NDArray[np.uint8]:
    """The centre square, resized, uint8 (size, size) or (size, size, 3). Transparent pixels are blended with white."""
    if image.mode.startswith("I"):  # 16 bits, which Pillow would clamp to 255
        deep = np.asarray(image)
        if deep.min() < 0 or deep.max() > 65535:
            raise ValueError("its pixels exceed 16 bits")
        image = Image.fromarray(np.round(deep / 257).astype(np.uint8))
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    side = min(image.size)
    left, top = ((length - side) // 2 for length in image.size)
    image = image.convert("RGB" if colour else "L").crop((left, top, left + side, top + side))
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


def _scale(pixels: NDArray[np.uint8]) -> Tensor:
    """From uint8 (B, H, W) or (B, H, W, 3) to float32 (B, 1 or 3, H, W) in [-1, 1]."""
    images = torch.from_numpy(pixels)
    images = images.unsqueeze(1) if images.dim() == 3 else images.permute(0, 3, 1, 2).contiguous()
    return images.float().div_(127.5).sub_(1)


def _digits(size: int, colour: bool) -> Samples:
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]  # importing it takes a second

    data = load_digits()
    pixels = np.round(data.images * (255 / 16)).astype(np.uint8)
    pixels = np.stack([_fit(Image.fromarray(image), size, colour) for image in pixels])
    samples = ImageArray(pixels, size, colour, classes=tuple(map(str, data.target_names)))
    samples.labels = data.target.astype(np.int64)
    return samples


# Numbers ------------------------------------------------------------------------------------------


class Vectors(_ArraySamples):
    """Rows of numbers, standardised: each column has mean 0 and deviation 1 over all rows.

    Args:
        path: file name for error messages.
        array: numbers of shape (N, D).
        columns: the names of the columns.
    """

    def __init__(self, path: Path, array: NDArray[Any], columns: Sequence[str]) -> None:
        super().__init__(array)
        self.shape = array.shape[1:]
        total = np.zeros(self.shape)
        low, high = np.full(self.shape, math.inf), np.full(self.shape, -math.inf)
        for start, rows in _pieces(array):
            if not np.isfinite(rows).all():
                row, column = np.argwhere(~np.isfinite(rows))[0]
                raise ArgumentValueError(
                    "data",
                    f"{path}: row {start + row}, column {columns[column]!r}: expected a finite number, "
                    f"got {rows[row, column]}",
                )
            total += rows.sum(axis=0)
            low, high = np.minimum(low, rows.min(axis=0)), np.maximum(high, rows.max(axis=0))
        self.mean = total / len(array)
        with np.errstate(over="ignore"):
            squares = sum(((rows - self.mean) ** 2).sum(axis=0) for _, rows in _pieces(array))
        self.deviation = np.sqrt(squares / len(array))
        for column, name in enumerate(columns):
            if low[column] == high[column]:
                raise ArgumentValueError("data", f"{path}: column {name!r} is {low[column]:g} in every row; remove it")
            if not 0 < self.deviation[column] < math.inf:
                raise ArgumentValueError(
                    "data", f"{path}: the standard deviation of column {name!r} is {self.deviation[column]}"
                )
        self.decoder = Decoder(
            "vectors",
            tuple(columns),
            tuple(self.mean.tolist()),
            tuple(self.deviation.tolist()),
            array=ArrayFormat(array.dtype.str),
        )

    def read(self, indices: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(((self.array[indices] - self.mean) / self.deviation).astype(np.float32))


class Table(_ArraySamples):
    """Rows of a table of mixed types, encoded as vectors.

    Args:
        path: the file, for error messages.
        columns: cells of text.
        types: the types of the columns of a DataFrame.
        label: the column of labels, which is then no part of a row; None: there is none.
    """

    def __init__(self, path: Path | str, columns: Columns, types: dict[str, str], label: str | None = None) -> None:
        columns = dict(columns)
        labels, classes = None, ()
        if label is not None:
            if label not in columns:
                raise ArgumentValueError("label", f"expected a column of {path}, {', '.join(columns)}; got {label!r}")
            names, labels = np.unique(np.array(columns.pop(label)), return_inverse=True)
            classes = tuple(names.tolist())
            if not columns:
                raise ArgumentValueError("label", f"{path} has no other column than {label!r}")
            if len(classes) > MAX_CATEGORIES:
                raise ArgumentValueError("label", f"column {label!r} holds {len(classes):,} different labels")
        try:
            encoding = TableEncoding.of(columns, types)
        except ArgumentValueError as error:
            raise ArgumentValueError("data", f"{path}: {error.message}") from error
        super().__init__(encoding.encode(columns))
        self.shape = self.array.shape[1:]
        self.labels = None if labels is None else labels.astype(np.int64)
        self.decoder = Decoder(
            "table", tuple(columns), classes=classes, table=encoding, label=label if label is not None else "label"
        )

    def read(self, indices: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(self.array[indices])


class FloatImages(_ArraySamples):
    """Images of shape (N, 1 or 3, S, S) within [-1, 1], or within [0, 1], not resized."""

    def __init__(self, path: Path, array: NDArray[Any]) -> None:
        super().__init__(array)
        self.shape = array.shape[1:]
        self.low = 0.0
        for start, images in _pieces(array):
            within = (np.abs(images) <= 1).all(axis=(1, 2, 3))  # False for NaN
            if not within.all():
                raise ArgumentValueError(
                    "data",
                    f"{path}: expected images of floats within [-1, 1] or [0, 1], but sample "
                    f"{start + int(np.argmin(within))} has values outside, or NaN; scale or mend it, or pass uint8",
                )
            self.low = -1.0 if images.min() < 0 else self.low
        self.decoder = Decoder("images", array=ArrayFormat(array.dtype.str, "CHW", self.low, 1.0))

    def read(self, indices: NDArray[np.int64]) -> Tensor:
        images = torch.from_numpy(self.array[indices].astype(np.float32))
        return images if self.low < 0 else images.mul_(2).sub_(1)


def _pieces(array: NDArray[Any]) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Chunks of rows in float64, each with the index of its first row. A memory-mapped file may exceed the memory."""
    step = max(1, 2**20 // math.prod(array.shape[1:]))
    for start in range(0, len(array), step):
        yield start, np.asarray(array[start : start + step], dtype=np.float64)


def _open_array(
    path: Path, array: NDArray[Any], labels: NDArray[Any] | None, size: int | None, colour: bool | None
) -> Samples:
    given = f"{array.dtype} of shape {array.shape}"
    samples: Samples
    if array.dtype.kind not in "biuf" or array.size == 0:
        raise ArgumentValueError("data", f"{path}: {_SHAPES}; got {given}")
    if array.ndim == 2:
        refuse_image_settings(path, size, colour)
        samples = Vectors(path, array, [f"x{column}" for column in range(array.shape[1])])
    elif array.dtype == np.uint8 and (array.ndim == 3 or (array.ndim == 4 and array.shape[3] in (1, 3, 4))):
        if size is None:
            size = _own_size(path, *array.shape[1:3])
        samples = ImageArray(array, size, array.shape[3:] not in ((), (1,)) if colour is None else colour)
    elif array.dtype.kind == "f" and array.ndim == 4 and array.shape[1] in (1, 3):
        own = _own_size(path, *array.shape[2:])
        if size not in (None, own):
            raise ArgumentValueError(
                "size", f"float images are not resized, and those of {path} have size {own}; got {size}"
            )
        if colour not in (None, array.shape[1] == 3):
            raise ArgumentValueError(
                "colour", f"float images are not converted, and {path} holds {given}; got {colour}"
            )
        samples = FloatImages(path, array)
    else:
        raise ArgumentValueError("data", f"{path}: {_SHAPES}; got {given}")
    if labels is not None:
        if labels.dtype.kind not in "iu" or labels.shape != array.shape[:1]:
            raise ArgumentValueError(
                "data",
                f"{path}: expected labels of integers, shape {array.shape[:1]}, "
                f"got {labels.dtype} of shape {labels.shape}",
            )
        values, places = np.unique(labels, return_inverse=True)
        samples.labels = places.astype(np.int64)
        samples.decoder = replace(samples.decoder, classes=tuple(map(str, values)))
    return samples


def _own_size(path: Path, height: int, width: int) -> int:
    if height != width or not is_image_side(height):
        raise ArgumentValueError(
            "data",
            f"{path} holds images of {height} x {width}; networks need squares whose side is a power of two of "
            "at least 16; pass a size (uint8 images are cropped and resized to it)",
        )
    return height


def _read_npz(path: Path) -> tuple[NDArray[Any], NDArray[Any] | None]:
    with _naming(path, "arrays"), np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    labels = arrays.pop("labels", None)
    if "samples" not in arrays and len(arrays) != 1:
        raise ArgumentValueError("data", f"{path}: expected an array named samples, got {', '.join(arrays) or 'none'}")
    return arrays.get("samples", next(iter(arrays.values()))), labels
