"""Finite sets of samples: the base class, rows of numbers, and tables. Errors name the source and the place in it."""

import csv
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wgan_fast._checks import ArgumentTypeError, ArgumentValueError
from wgan_fast.train.data.decoder import Decoder
from wgan_fast.train.data.frames import SourceTable
from wgan_fast.train.data.tables import MAX_CATEGORIES, TableEncoding
from wgan_fast.train.data.units import ArrayFormat

MAX_HASHED = 2**30  #: bytes of an array, about a second


class Samples(ABC):
    """A finite set of samples, read by index. Can be pickled, for worker processes.

    Attributes:
        shape: shape of one sample.
        decoder: converts samples to the user's units.
        labels: int64 (N,), indices into ``decoder.classes``; None without labels.
        decoded: whether reading takes time, because each sample is a file to decode.
    """

    shape: tuple[int, ...]
    decoder: Decoder
    labels: NDArray[np.int64] | None = None
    decoded = False

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, indices: NDArray[np.int64]) -> Tensor:
        """The samples at these indices, float32 (B, *shape)."""

    @abstractmethod
    def identity(self) -> Iterator[bytes]:
        """What tells these samples, and their order, from others: names and sizes of files, or rows of an array."""

    def set_labels(self, name: object, labels: NDArray[Any]) -> None:
        """Takes the labels of an array: one whole number, truth value or text for each sample; in an array of objects,
        as pandas holds texts, all of one type.

        Raises:
            ValueError: they are something else.
        """
        labels = labels.astype(object) if labels.dtype.kind == "T" else labels  # NumPy's texts of any length
        if labels.dtype.kind == "O":
            kinds = {*map(type, labels.ravel())}
            if len(kinds) == 1 and issubclass(kinds.pop(), str | int | np.generic):
                labels = np.array(labels.tolist())
        if labels.dtype.kind not in "biuU" or labels.shape != (len(self),):
            cures = {"f": "; labels.astype(int) makes them integers", "S": "; labels.astype(str) makes them texts"}
            raise ArgumentValueError(
                "labels",
                f"{name}: expected labels of integers or texts, of one type, shape {(len(self),)}, "
                f"got {labels.dtype} of shape {labels.shape}{cures.get(labels.dtype.kind, '')}",
            )
        values, places = np.unique(labels, return_inverse=True)
        self.labels = places.astype(np.int64)
        self.decoder = replace(self.decoder, classes=tuple(map(str, values.tolist())), label_type=labels.dtype.str)


class ArraySamples(Samples):
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


class Vectors(ArraySamples):
    """Rows of numbers, standardised: each column has mean 0 and deviation 1 over all rows; a constant one is 0.

    Args:
        name: of the array, for error messages.
        array: numbers of shape (N, D).
        columns: the names of the columns.
    """

    def __init__(self, name: object, array: NDArray[Any], columns: Sequence[str]) -> None:
        super().__init__(array)
        self.shape = array.shape[1:]
        total = np.zeros(self.shape)
        low, high = np.full(self.shape, math.inf), np.full(self.shape, -math.inf)
        for start, rows in pieces(array):
            if not np.isfinite(rows).all():
                row, column = np.argwhere(~np.isfinite(rows))[0]
                raise ArgumentValueError(
                    "data",
                    f"{name}: row {start + row}, column {columns[column]!r}: expected a finite number, "
                    f"got {rows[row, column]}",
                )
            total += rows.sum(axis=0)
            low, high = np.minimum(low, rows.min(axis=0)), np.maximum(high, rows.max(axis=0))
        constant = low == high
        if constant.all() and len(array) > 1:
            raise ArgumentValueError("data", f"{name}: every row is the same; expected rows that differ")
        mean = np.where(constant, low, total / len(array))
        with np.errstate(over="ignore"):
            squares = sum(((rows - mean) ** 2).sum(axis=0) for _, rows in pieces(array))
        deviation = np.where(constant, 0.0, np.sqrt(squares / len(array)))
        for column in np.flatnonzero(~constant).tolist():
            if not 0 < deviation[column] < math.inf:
                raise ArgumentValueError(
                    "data", f"{name}: the standard deviation of column {columns[column]!r} is {deviation[column]}"
                )
        self.mean, self.scale = mean, np.where(constant, 1.0, deviation)
        given = ArrayFormat(array.dtype.str)
        self.decoder = Decoder("vectors", tuple(columns), tuple(mean.tolist()), tuple(deviation.tolist()), array=given)

    def read(self, indices: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(((self.array[indices] - self.mean) / self.scale).astype(np.float32))


class Table(ArraySamples):
    """Rows of a table of mixed types, encoded as vectors.

    Args:
        name: of the table, for error messages.
        table: its columns.
        label: the column of labels, which is then no part of a row; None: there is none.
        drop: names of columns that are left out, separated by commas as in a line of CSV.
    """

    def __init__(self, name: object, table: SourceTable, label: str | None = None, drop: str | None = None) -> None:
        columns, classes, counts, labels = dict(table.columns), (), (), None
        try:
            names_to_drop = next(csv.reader([drop or ""], skipinitialspace=True), [])
        except csv.Error as error:
            raise ArgumentValueError("drop", f"expected names as in a line of CSV, got {drop!r}: {error}") from error
        for dropped in names_to_drop:
            if dropped not in columns:
                raise ArgumentValueError("drop", f"expected columns of {name}, {', '.join(columns)}; got {dropped!r}")
            del columns[dropped]
        kept = tuple(columns)
        refused = [f"{column!r} ({table.refused[column]})" for column in kept if column in table.refused]
        if refused:
            raise ArgumentTypeError(
                "data",
                f"{name}: column {', '.join(refused)}: expected numbers, texts, dates or truth values, and one of "
                "these in a column; make texts of them, data[name] = data[name].astype(str), or leave them out, "
                "drop='name,other'",
            )
        if label is not None:
            if label not in columns:
                raise ArgumentValueError("label", f"expected a column of {name}, {', '.join(columns)}; got {label!r}")
            of_rows = columns.pop(label)
            if None in of_rows:
                raise ArgumentValueError(
                    "label", f"row {list(of_rows).index(None)} of {name} has no {label!r}; fill it in or drop the row"
                )
            names, labels, repeated = np.unique(np.array(of_rows), return_inverse=True, return_counts=True)
            classes, counts = tuple(names.tolist()), tuple(repeated.tolist())
            if not columns:
                raise ArgumentValueError("label", f"{name} has no other column than {label!r}")
            if len(classes) > MAX_CATEGORIES:
                raise ArgumentValueError("label", f"column {label!r} holds {len(classes):,} different labels")
        if not columns:
            raise ArgumentValueError("drop", f"expected columns of {name} that remain, got {drop!r}")
        rows = len(next(iter(columns.values())))
        if rows < 2:
            raise ArgumentValueError("data", f"{name}: expected at least 2 rows, of which 1 is held out, got {rows}")
        header = (*([table.index] if table.index is not None else []), *kept)
        try:
            encoding = TableEncoding.of(
                columns,
                table.frames,
                table.blanks,
                header=header,
                index=table.index,
                first=table.first,
                separator=table.separator,
                label=table.frames.get(label or ""),
                integer_names=table.integer_names,
            )
        except ArgumentValueError as error:
            raise ArgumentValueError("data", f"{name}: {error.message}") from error
        super().__init__(encoding.encode(columns))
        self.shape = self.array.shape[1:]
        self.labels = None if labels is None else labels.astype(np.int64)
        self.decoder = Decoder(
            "table",
            tuple(columns),
            classes=classes,
            counts=counts,
            table=encoding,
            label=label if label is not None else "label",
        )

    def read(self, indices: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(self.array[indices])


def pieces(array: NDArray[Any]) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Chunks of rows in float64, each with the index of its first row. A memory-mapped file may exceed the memory."""
    step = max(1, 2**20 // math.prod(array.shape[1:]))
    for start in range(0, len(array), step):
        yield start, np.asarray(array[start : start + step], dtype=np.float64)
