"""Converts samples of a network to the user's units. A checkpoint can hold a decoder."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wgan_fast.train.data.frames import are_whole, frame_of_arrays, frame_of_columns, type_of_column, type_of_labels
from wgan_fast.train.data.tables import Cells, TableEncoding
from wgan_fast.train.data.units import ArrayFormat, ImageUnits, TableUnits, VectorUnits

Kind = Literal["vectors", "table", "images"]


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
        counts: of a table, how many rows have each label; empty in checkpoints that do not know.
        label: the name of a table's column of labels.
        label_type: NumPy's name of the type of an array of labels.
        array: of an array or a tensor, how it came: see :class:`.units.ArrayFormat`.
    """

    kind: Kind
    columns: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()
    classes: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()
    table: TableEncoding | None = None
    label: str = "label"
    label_type: str = ""
    array: ArrayFormat | None = None

    def units(self, channels: int = 1) -> VectorUnits | ImageUnits | TableUnits:
        """The way back as tensor operations, to float64 numbers; see :mod:`.units`."""
        if self.table is not None:
            return TableUnits(self.table.columns)
        if self.kind == "vectors":
            return VectorUnits(self.mean, self.deviation, self.array)
        return ImageUnits(self.array or ArrayFormat(layout="HW" if channels == 1 else "HWC"))

    def restore(self, samples: Tensor) -> NDArray[Any]:
        """Vectors or images in the user's units, in the type and layout of the user's array where they came in one.

        Returns:
            Vectors (B, columns), ``mean + deviation * samples``. Tables: as :meth:`numbers`. Images: uint8 (B, H, W) or
            (B, H, W, channels) where no array says otherwise; values beyond the range are clamped.
        """
        units = self.units(samples.shape[1])
        restored: Tensor = units(samples.detach().cpu())
        array = None if isinstance(units, TableUnits) else units.array
        return restored.numpy() if array is None else array.array(restored)

    def give(self, samples: Tensor, labels: Tensor | None = None) -> Any:
        """Samples in the user's units and type: an array, a tensor or a DataFrame, which holds the labels too.

        Of arrays and tensors with labels ``(samples, labels)``.
        """
        if self.table is not None:
            return self.frame(samples, labels)
        array = self.array or ArrayFormat()
        given = array.give(self.restore(samples))
        if labels is None:
            return given
        values = self.label_values(labels)
        return given, torch.from_numpy(values) if array.tensor and values.dtype.kind in "biu" else values

    def cells(self, samples: Tensor, labels: Tensor | None = None) -> dict[str, Cells]:
        """The columns of a table as text, in the order of the user's table; None is a missing value."""
        assert self.table is not None
        columns: dict[str, Cells] = {**self.table.decode(samples.detach().cpu().numpy())}
        if self.table.index is not None:
            columns[self.table.index] = [str(self.table.first + row) for row in range(len(samples))]
        if labels is not None:
            columns[self.label] = [self.classes[label] for label in labels.tolist()]
        first = [name for name in self.table.header if name in columns]
        return {name: columns[name] for name in (*first, *(name for name in columns if name not in first))}

    def frame(self, samples: Tensor, labels: Tensor | None = None) -> Any:
        """Rows as a pandas DataFrame: of the user's types, or of those that pandas gives columns of a file.

        Raises:
            ValueError: pandas is not installed.
        """
        if self.table is None:
            restored = self.restore(samples)
            numbers = {name: restored[:, place] for place, name in enumerate(self.columns)}
            return frame_of_arrays(numbers if labels is None else numbers | {self.label: self.label_values(labels)})
        cells = self.cells(samples, labels)
        types = {column.name: type_of_column(column) for column in self.table.columns}
        if self.label in cells:
            types[self.label] = self.table.label or type_of_labels(self.classes)
        if self.table.index is not None:  # a DataFrame counts its own rows
            del cells[self.table.index]
        for column in self.table.columns:
            if column.frame is None and column.point != ".":  # a file's text, which becomes a number
                of = cells[column.name]
                cells[column.name] = [None if cell is None else cell.replace(column.point, ".") for cell in of]
        frame = frame_of_columns(cells, types)
        return frame.rename(columns=int) if self.table.integer_names else frame

    def torch_dtype(self) -> torch.dtype:
        """That of samples in the user's units; float64 of tables."""
        if self.table is not None or (self.array is None and self.kind == "vectors"):
            return torch.float64
        array = self.array or ArrayFormat()
        found: torch.dtype = getattr(torch, array.tensor or np.dtype(array.dtype).name)
        return found

    def describe(self) -> dict[str, Any]:
        """What the numbers of an exported generator mean, for a reader without this library."""
        found: dict[str, Any] = {"kind": self.kind, "labels": self.classes, "columns": self.columns}
        found |= {"counts": self.counts} if self.counts else {}
        if self.table is not None:
            found["columns"] = [
                {"name": column.name, "kind": column.kind, "categories": column.categories, "decimals": column.decimals}
                for column in self.table.columns
            ]
        elif self.array is not None:
            found |= {"dtype": np.dtype(self.array.dtype).name, "layout": self.array.layout}
            found |= {"range": [self.array.low, self.array.high]} if self.kind == "images" else {}
        return found

    def pixels(self, samples: Tensor) -> NDArray[np.uint8]:
        """Images for a picture: uint8 (B, H, W) or (B, H, W, 2, 3 or 4); values beyond [-1, 1] are clamped."""
        array = ArrayFormat(layout="HW" if samples.shape[1] == 1 else "HWC")
        return array.array(ImageUnits(array)(samples.detach().cpu()))

    def numbers(self, samples: Tensor) -> NDArray[np.float64]:
        """Vectors and tables as numbers (B, columns), for a figure: of dates seconds since 1970, of categories their
        place in the sorted list, NaN where a value is missing.
        """
        numbers: Tensor = self.units()(samples.detach().cpu())
        return numbers.numpy()

    def label_values(self, labels: Tensor) -> NDArray[Any]:
        """The user's own values of labels, in the type of the user's array of labels, else text or whole numbers."""
        indices = labels.cpu().numpy()
        if not self.classes:
            return indices
        if self.label_type.endswith("b1"):
            return np.array([name == "True" for name in self.classes])[indices]
        values = np.array([*map(int, self.classes)] if are_whole(self.classes) else self.classes)
        return values.astype(self.label_type or values.dtype)[indices]

    def resembles(self, other: "Decoder") -> bool:
        """Whether both are equal up to rounding, which differs between machines."""
        exact = ("kind", "columns", "classes", "table", "label", "label_type", "array")
        if any(getattr(self, name) != getattr(other, name) for name in exact):
            return False
        scale = np.where(np.equal(self.deviation, 0), 1, self.deviation)  # 0 of a constant column
        shift = np.subtract(self.mean, other.mean) / scale
        spread = np.subtract(self.deviation, other.deviation) / scale
        return bool((np.abs(shift) < 1e-6).all() and (np.abs(spread) < 1e-6).all())

    def to_dict(self) -> dict[str, Any]:
        """Plain types, which ``torch.load(weights_only=True)`` accepts."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Decoder":
        """The decoder that :meth:`to_dict` was called on. A file may hold anything, and raise anything here."""
        if values["kind"] not in get_args(Kind):
            raise ValueError(f"kind {values['kind']!r}")
        classes, counts = values["classes"], values.get("counts", ())
        if counts and not (len(counts) == len(classes) and all(type(n) is int and 0 < n < 2**48 for n in counts)):
            raise ValueError(f"counts of {len(classes)} labels: {counts!r}")
        table, array = values.get("table"), values.get("array")
        read = {
            "table": None if table is None else TableEncoding.from_dict(table),
            "array": None if array is None else ArrayFormat(**array),
        }
        return cls(**values | read)
