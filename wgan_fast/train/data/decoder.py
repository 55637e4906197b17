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
from wgan_fast.train.run.atomic import whole_file

MIN_GRID_SIDE = 48  # pixels; smaller images are enlarged in a grid


@dataclass(frozen=True)
class Decoder:
    """The inverse of the preprocessing: from samples of a network to the user's units.

    Attributes:
        kind: ``vectors``, of shape (B, columns) and standardised; or ``images``, of shape (B, 1 or 3, H, W) in [-1, 1].
        columns: the names of a vector's coordinates.
        mean: the mean of each column, in the user's units.
        deviation: the standard deviation of each column, in the user's units.
        classes: the names of the labels 0, 1, ...; empty without labels.
    """

    kind: Literal["vectors", "images"]
    columns: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()
    classes: tuple[str, ...] = ()

    def restore(self, samples: Tensor) -> NDArray[Any]:
        """Samples in the user's units.

        Returns:
            Vectors: float64 (B, columns), ``mean + deviation * samples``. Images: uint8 (B, H, W) or (B, H, W, 3);
            values beyond [-1, 1] are clamped.
        """
        samples = samples.detach().cpu()
        if self.kind == "vectors":
            mean, deviation = (
                torch.tensor(values, dtype=torch.float64, device="cpu") for values in (self.mean, self.deviation)
            )
            return (mean + deviation * samples.double()).numpy()
        pixels = samples.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8)
        return (pixels.squeeze(1) if pixels.shape[1] == 1 else pixels.permute(0, 2, 3, 1).contiguous()).numpy()

    def resembles(self, other: "Decoder") -> bool:
        """Whether both are equal up to rounding, which differs between machines."""
        if (self.kind, self.columns, self.classes) != (other.kind, other.columns, other.classes):
            return False
        shift = np.subtract(self.mean, other.mean) / (self.deviation or 1)
        ratio = np.divide(self.deviation, other.deviation)
        return bool((np.abs(shift) < 1e-6).all() and (np.abs(ratio - 1) < 1e-6).all())

    def to_dict(self) -> dict[str, Any]:
        """Plain types, which ``torch.load(weights_only=True)`` accepts."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Decoder":
        """The decoder that :meth:`to_dict` was called on."""
        return cls(**values)


def save_samples(
    path: Path | str, samples: Tensor, decoder: Decoder, labels: Tensor | None = None, *, columns: int | None = None
) -> None:
    """Writes samples in the user's units.

    Args:
        path: the suffix chooses the format: ``.npy`` (an array), ``.npz`` (arrays ``samples`` and ``labels``), ``.csv``
            (vectors under the names of their columns, and a column ``label``) or ``.png`` (a grid of images, row by
            row; images smaller than 48 pixels are enlarged).
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
    fitting = (".npy", ".npz", ".csv") if decoder.kind == "vectors" else (".npy", ".npz", ".png")
    if suffix not in fitting:
        raise ArgumentValueError("path", f"{decoder.kind} go into a file of type {', '.join(fitting)}, got {path}")
    if labels is not None and suffix == ".npy":
        raise ArgumentValueError(
            "path", f"labels need a file of another type than .npy: {', '.join(fitting[1:])}; got {path}"
        )
    restored = decoder.restore(samples)
    with whole_file(path) as unfinished:
        _write(unfinished, restored, decoder, labels, columns)


def _write(path: Path, restored: NDArray[Any], decoder: Decoder, labels: Tensor | None, columns: int | None) -> None:
    suffix = path.suffix.lower()
    if suffix == ".png":
        _grid(restored, columns or math.ceil(math.sqrt(len(restored)))).save(path)
    elif suffix == ".csv":
        _write_csv(path, restored, decoder, labels)
    else:
        with path.open("wb") as file:  # given a path, NumPy would append .npy to a name ending in .NPY
            if suffix == ".npy":
                np.save(file, restored)
            elif labels is None:
                np.savez(file, samples=restored)
            else:
                np.savez(file, samples=restored, labels=labels.cpu().numpy())


def _write_csv(path: Path, restored: NDArray[Any], decoder: Decoder, labels: Tensor | None) -> None:
    rows = restored.tolist()
    header = list(decoder.columns)
    if labels is not None:
        header.append("label")
        for row, label in zip(rows, labels.tolist(), strict=True):
            row.append(decoder.classes[label] if decoder.classes else label)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


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
