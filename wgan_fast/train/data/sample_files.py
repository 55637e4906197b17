"""Writes samples into files, in the user's units."""

import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from wgan_fast._checks import ArgumentValueError
from wgan_fast.train.data.decoder import Decoder
from wgan_fast.train.run.atomic import whole_file

MIN_GRID_SIDE = 48  # pixels; smaller images are enlarged in a grid
_FITTING = {
    "vectors": (".npy", ".npz", ".csv", ".tsv", ".parquet"),
    "table": (".csv", ".tsv", ".parquet"),
    "images": (".npy", ".npz", ".png", ".jpg", ".jpeg"),
}
_PICTURES = (".png", ".jpg", ".jpeg")


def save_samples(
    path: Path | str, samples: Tensor, decoder: Decoder, labels: Tensor | None = None, *, columns: int | None = None
) -> None:
    """Writes samples in the user's units.

    Args:
        path: the suffix chooses the format: ``.npy`` (an array), ``.npz`` (arrays ``samples`` and ``labels``),
            ``.csv``, ``.tsv`` or ``.parquet`` (vectors or tables under the names of their columns, and a column of
            labels), or ``.png`` or ``.jpg`` (a grid of images, row by row; images smaller than 48 pixels are
            enlarged).
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
    with whole_file(path) as unfinished:
        if suffix in _PICTURES:
            _grid(decoder.pixels(samples), columns or math.ceil(math.sqrt(len(samples)))).save(unfinished)
        elif suffix == ".parquet":
            decoder.frame(samples, labels).to_parquet(unfinished)
        elif suffix in (".csv", ".tsv"):
            separator = decoder.table.separator if decoder.table is not None else ","
            _write_csv(unfinished, "\t" if suffix == ".tsv" else separator, samples, decoder, labels)
        else:
            _write_arrays(
                unfinished, decoder.restore(samples), None if labels is None else decoder.label_values(labels)
            )


def save_images(
    folder: Path, samples: Tensor, decoder: Decoder, labels: Tensor | None = None, suffix: str = ".png"
) -> Iterator[Path]:
    """Writes each image into a file of its own, those of a label into a folder of its name, which can be trained on.

    Args:
        folder: made if it is missing.
        samples, decoder, labels: as for :func:`save_samples`.
        suffix: ``.png``, of 16 bits where the user's images are; ``.jpg``, with 8 bits and without transparency.

    Yields:
        Each file, before it is written.

    Raises:
        ValueError: the samples are no images, ``suffix`` is another, or a label is no name of a folder.
        OSError: a file cannot be written.
    """
    if decoder.kind != "images":
        fitting = ", ".join(_FITTING[decoder.kind])
        raise ArgumentValueError("path", f"{decoder.kind} go into a file of type {fitting}, got {folder}")
    if suffix not in _PICTURES:
        raise ArgumentValueError("suffix", f"expected one of {', '.join(_PICTURES)}, got {suffix!r}")
    if labels is not None:
        for name in decoder.classes:
            # Not a path: a stranger's checkpoint would write anywhere.
            if name in ("", ".", "..") or any(sign in name for sign in "/\\\0"):
                raise ArgumentValueError(
                    "path",
                    f"the label {name!r} cannot be the name of a folder; write a file of type .npz, not {folder}",
                )
    deep = decoder.array is not None and decoder.array.dtype[1:] == "u2" and samples.shape[1] == 1
    images = decoder.restore(samples).reshape(len(samples), *samples.shape[2:]) if deep and suffix == ".png" else None
    images = decoder.pixels(samples) if images is None else images
    for number, image in enumerate(images):
        place = folder if labels is None else folder / str(decoder.classes[int(labels[number])])
        place.mkdir(parents=True, exist_ok=True)
        path = place / f"{number:06d}{suffix}"
        yield path
        with whole_file(path) as unfinished:
            picture = Image.fromarray(image)
            (picture if suffix == ".png" else _opaque(picture)).save(unfinished)


def _write_arrays(path: Path, restored: NDArray[Any], labels: NDArray[Any] | None) -> None:
    with path.open("wb") as file:  # given a path, NumPy would append .npy to a name ending in .NPY
        if path.suffix.lower() == ".npy":
            np.save(file, restored)
        elif labels is None:
            np.savez(file, samples=restored)
        else:
            np.savez(file, samples=restored, labels=labels)


def _write_csv(path: Path, delimiter: str, samples: Tensor, decoder: Decoder, labels: Tensor | None) -> None:
    if decoder.table is not None:
        columns = decoder.cells(samples, labels)
        blanks = {column.name: column.missing or "" for column in decoder.table.columns}
        cells = {name: [blanks[name] if cell is None else cell for cell in of] for name, of in columns.items()}
    else:
        restored = decoder.restore(samples)
        cells = {name: restored[:, place].tolist() for place, name in enumerate(decoder.columns)}
        if labels is not None:
            cells[decoder.label] = decoder.label_values(labels).tolist()
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = zip(*cells.values(), strict=True)
        csv.writer(file, delimiter=delimiter, lineterminator="\n").writerows([cells, *rows])


def _opaque(image: Image.Image) -> Image.Image:
    """The image on white."""
    if not image.has_transparency_data:
        return image
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB" if image.mode == "RGBA" else "L")


def _grid(images: NDArray[np.uint8], columns: int) -> Image.Image:
    """uint8 images (B, H, W[, channels]) in rows, two pixels apart on white; small ones are enlarged."""
    enlarged = -(-MIN_GRID_SIDE // min(images.shape[1:3]))
    images = images.repeat(enlarged, axis=1).repeat(enlarged, axis=2)
    count, height, width = images.shape[:3]
    size = (columns * (width + 2) + 2, math.ceil(count / columns) * (height + 2) + 2)
    grid = Image.new("RGB" if images.shape[3:] in ((3,), (4,)) else "L", size, "white")
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        grid.paste(_opaque(Image.fromarray(image)), (column * (width + 2) + 2, row * (height + 2) + 2))
    return grid
