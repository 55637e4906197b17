"""Converts samples of a network to the user's units and writes them to files. A checkpoint can hold a decoder."""

import csv
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from wgan_fast._checks import ArgumentValueError
from wgan_fast.train.data.tables import TableEncoding
from wgan_fast.train.run.atomic import whole_file

MIN_GRID_SIDE = 48  # pixels; smaller images are enlarged in a grid


@dataclass(frozen=True)
class ArrayFormat:
    """How an array of the user's held its samples.

    Attributes:
        dtype: NumPy's name of the type.
        layout: of images: ``HW``, ``HWC`` (with one channel, too) or ``CHW``.
        low, high: what the darkest and the brightest value of images are.
    """

    dtype: str
    layout: Literal["HW", "HWC", "CHW"] | None = None
    low: float = 0.0
    high: float = 255.0

    def cast(self, values: NDArray[np.float64]) -> NDArray[Any]:
        """The values in the array's type; those of integers rounded, and clamped to the type's range."""
        kind = np.dtype(self.dtype)
        if kind.kind == "b":
            return values > 0.5
        if kind.kind in "iu":
            values = np.clip(np.rint(values), np.iinfo(kind).min, np.iinfo(kind).max)
        return values.astype(kind)


@dataclass(frozen=True)
class Decoder:
    """The inverse of the preprocessing: from samples of a network to the user's units.

    Attributes:
        kind: ``vectors``, of shape (B, columns) and standardised; ``table``, rows encoded as vectors; or ``images``, of
            shape (B, 1 or 3, H, W) in [-1, 1].
        columns: the names of a vector's coordinates, or of a table's columns.
        mean: the mean of each column of vectors, in the user's units.
        deviation: the standard deviation of each column of vectors, in the user's units.
        classes: the names of the labels 0, 1, ...; empty without labels.
        table: the encoding of a table.
        label: the name of a table's column of labels.
        array: of an array, how it came: see :class:`ArrayFormat`.
    """

    kind: Literal["vectors", "table", "images"]
    columns: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()
    classes: tuple[str, ...] = ()
    table: TableEncoding | None = None
    label: str = "label"
    array: "ArrayFormat | None" = None

    def restore(self, samples: Tensor) -> NDArray[Any]:
        """Samples in the user's units, and in the type and layout of the user's array where they came in one.

        Returns:
            Vectors (B, columns), ``mean + deviation * samples``. Tables: cells of text (B, columns). Images: uint8
            (B, H, W) or (B, H, W, 3) where no array says otherwise; values beyond the range are clamped.
        """
        samples = samples.detach().cpu()
        if self.table is not None:
            columns = self.table.decode(samples.numpy())
            return np.array([columns[name] for name in self.columns], dtype=object).reshape(len(self.columns), -1).T
        if self.kind == "vectors":
            mean, deviation = (
                torch.tensor(values, dtype=torch.float64, device="cpu") for values in (self.mean, self.deviation)
            )
            restored: NDArray[Any] = (mean + deviation * samples.double()).numpy()
            return restored if self.array is None else self.array.cast(restored)
        if self.array is None:
            return self.pixels(samples)
        low, high, layout = self.array.low, self.array.high, self.array.layout
        shades = samples.double().clamp(-1, 1).add(1).mul((high - low) / 2).add(low)
        if layout != "CHW":
            shades = shades.squeeze(1) if layout == "HW" else shades.permute(0, 2, 3, 1)
        return self.array.cast(shades.contiguous().numpy())

    def pixels(self, samples: Tensor) -> NDArray[np.uint8]:
        """Images for a picture: uint8 (B, H, W) or (B, H, W, 3); values beyond [-1, 1] are clamped."""
        pixels = samples.detach().cpu().float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
        return (pixels.squeeze(1) if pixels.shape[1] == 1 else pixels.permute(0, 2, 3, 1).contiguous()).numpy()

    def numbers(self, samples: Tensor) -> NDArray[np.float64]:
        """Vectors and tables as numbers (B, columns), for a figure: of dates seconds since 1970, of categories their
        place in the sorted list, NaN where a value is missing.
        """
        return self.restore(samples) if self.table is None else self.table.numbers(samples.detach().cpu().numpy())

    def label_values(self, labels: Tensor) -> NDArray[Any]:
        """The user's own values of labels: integers where all of them are, else text."""
        if not self.classes:
            return labels.cpu().numpy()
        whole = all(name.lstrip("-").isdecimal() and str(int(name)) == name for name in self.classes)
        return np.array([int(name) if whole else name for name in self.classes])[labels.cpu().numpy()]

    def resembles(self, other: "Decoder") -> bool:
        """Whether both are equal up to rounding, which differs between machines."""
        exact = ("kind", "columns", "classes", "table", "label", "array")
        if any(getattr(self, name) != getattr(other, name) for name in exact):
            return False
        shift = np.subtract(self.mean, other.mean) / (self.deviation or 1)
        ratio = np.divide(self.deviation, other.deviation)
        return bool((np.abs(shift) < 1e-6).all() and (np.abs(ratio - 1) < 1e-6).all())

    def to_dict(self) -> dict[str, Any]:
        """Plain types, which ``torch.load(weights_only=True)`` accepts."""
        return asdict(self) | {"table": None if self.table is None else self.table.to_list()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Decoder":
        """The decoder that :meth:`to_dict` was called on."""
        table, array = values.get("table"), values.get("array")
        read = {
            "table": None if table is None else TableEncoding.from_list(table),
            "array": None if array is None else ArrayFormat(**array),
        }
        return cls(**values | read)


def save_samples(
    path: Path | str, samples: Tensor, decoder: Decoder, labels: Tensor | None = None, *, columns: int | None = None
) -> None:
    """Writes samples in the user's units.

    Args:
        path: the suffix chooses the format: ``.npy`` (an array), ``.npz`` (arrays ``samples`` and ``labels``), ``.csv``
            or ``.tsv`` (vectors or tables under the names of their columns, and a column of labels), or ``.png`` (a
            grid of images, row by row; images smaller than 48 pixels are enlarged).
        samples: of shape (B, ...).
        decoder: the decoder of the training data.
        labels: of shape (B,). A grid does not show them.
        columns: images in each row of a grid; None makes it nearly square.

    Raises:
        ValueError: the suffix does not fit the kind of samples, or cannot hold labels.
        OSError: the file cannot be written; an existing file stays unchanged.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    fitting = _FITTING[decoder.kind]
    if suffix not in fitting:
        raise ArgumentValueError("path", f"{decoder.kind} go into a file of type {', '.join(fitting)}, got {path}")
    if labels is not None and suffix == ".npy":
        raise ArgumentValueError(
            "path", f"labels need a file of another type than .npy: {', '.join(fitting[1:])}; got {path}"
        )
    restored = decoder.pixels(samples) if suffix == ".png" else decoder.restore(samples)
    with whole_file(path) as unfinished:
        _write(unfinished, restored, decoder, labels, columns)


_FITTING = {
    "vectors": (".npy", ".npz", ".csv", ".tsv"),
    "table": (".csv", ".tsv"),
    "images": (".npy", ".npz", ".png"),
}


def _write(path: Path, restored: NDArray[Any], decoder: Decoder, labels: Tensor | None, columns: int | None) -> None:
    suffix = path.suffix.lower()
    if suffix == ".png":
        _grid(restored, columns or math.ceil(math.sqrt(len(restored)))).save(path)
    elif suffix in (".csv", ".tsv"):
        _write_csv(path, restored, decoder, labels)
    else:
        with path.open("wb") as file:  # given a path, NumPy would append .npy to a name ending in .NPY
            if suffix == ".npy":
                np.save(file, restored)
            elif labels is None:
                np.savez(file, samples=restored)
            else:
                np.savez(file, samples=restored, labels=decoder.label_values(labels))


def _write_csv(path: Path, restored: NDArray[Any], decoder: Decoder, labels: Tensor | None) -> None:
    rows = restored.tolist()
    header = list(decoder.columns)
    if labels is not None:
        header.append(decoder.label)
        for row, label in zip(rows, decoder.label_values(labels).tolist(), strict=True):
            row.append(label)
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter, lineterminator="\n").writerows([header, *rows])


def _grid(images: NDArray[np.uint8], columns: int) -> Image.Image:
    """uint8 images (B, H, W) or (B, H, W, 3) in rows, two pixels apart on white; small ones are enlarged."""
    enlarged = -(-MIN_GRID_SIDE // images.shape[1])
    images = images.repeat(enlarged, axis=1).repeat(enlarged, axis=2)
    count, height, width = images.shape[:3]
    size = (columns * (width + 2) + 2, math.ceil(count / columns) * (height + 2) + 2)
    grid = Image.new("L" if images.ndim == 3 else "RGB", size, "white")
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        grid.paste(Image.fromarray(image), (column * (width + 2) + 2, row * (height + 2) + 2))
    return grid
