"""Tables of mixed types as vectors of numbers, and back: each column comes back as it was written."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wgan_fast._checks import ArgumentValueError

#: Cells that stand for a missing value.
MISSING = ("", "NA", "N/A", "NaN", "nan", "NULL", "null", "None", "<NA>")
#: Whole numbers of which at most so many are different, each ten times on average, are categories.
FEW = 20
#: A column of text with more categories would need a wider network than its rows can train.
MAX_CATEGORIES = 500
QUANTILES = 1000  #: at most, of a column of numbers
_EPOCH = datetime(1970, 1, 1)
_COMMA = re.compile(r"[+-]?\d+(,\d+)?")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_KEPT_AS_TEXT = re.compile(r"[+-]?0\d")  # 007 is a name, not the number 7


@dataclass(frozen=True)
class Column:
    """One column: its encoding as coordinates of a vector, and the way back to cells of text.

    Attributes:
        name: in the header.
        kind: ``number``, ``date`` or ``category``.
        categories: the different cells of a column of categories, sorted.
        quantiles: of a column of numbers (of dates: of seconds since 1970), evenly spaced, the first is the least value
            and the last the greatest.
        decimals: digits after the point; None writes as many as a float64 needs.
        missing: the cell that stands for a missing number; None where none is missing.
        pattern: of dates ``days``, or the character between date and time.
        point: of numbers, the decimal point or comma.
        dtype: the type of the column of a DataFrame; empty for one of text.
    """

    name: str
    kind: str
    categories: tuple[str, ...] = ()
    quantiles: tuple[float, ...] = ()
    decimals: int | None = None
    missing: str | None = None
    pattern: str = ""
    point: str = "."
    dtype: str = ""

    @property
    def blocks(self) -> tuple[int, ...]:
        """How many coordinates belong together: 1 is a number, k > 1 the shares of k categories."""
        if self.kind == "category":
            return (len(self.categories),) if len(self.categories) > 1 else ()
        number = (1,) if self.quantiles[0] < self.quantiles[-1] else ()
        return number if self.missing is None else (*number, 2)

    @cached_property
    def _to_normal(self) -> Any:
        """scikit-learn's map from the column's distribution to the standard normal one. Its inverse stays within the
        bounds, keeps what occurs often, and knows no tail too heavy.
        """
        from sklearn.preprocessing import QuantileTransformer  # type: ignore[import-untyped]  # takes a second

        count = len(self.quantiles)
        transformer = QuantileTransformer(n_quantiles=count, output_distribution="normal", subsample=None)
        return transformer.fit(np.array(self.quantiles)[:, None])  # the quantiles of its quantiles are these

    @cached_property
    def _to_shares(self) -> Any:
        from sklearn.preprocessing import OneHotEncoder

        categories = np.array(self.categories, dtype=object)
        return OneHotEncoder(categories=[categories], sparse_output=False).fit(categories[:, None])

    def encode(self, cells: Sequence[str]) -> NDArray[np.float64]:
        """Cells of text to coordinates (N, sum of blocks)."""
        if self.kind == "category":
            named = np.array([self.missing if cell in MISSING else cell for cell in cells], dtype=object)
            width = sum(self.blocks)
            return self._to_shares.transform(named[:, None]) if width else np.empty((len(cells), 0))
        absent = np.array([cell in MISSING for cell in cells])
        parts = []
        if self.quantiles[0] < self.quantiles[-1]:
            middle = self.quantiles[len(self.quantiles) // 2]
            numbers = [middle if gone else self._number(cell) for cell, gone in zip(cells, absent, strict=True)]
            parts.append(self._to_normal.transform(np.array(numbers)[:, None]))
        if self.missing is not None:
            parts.append(np.stack([~absent, absent], axis=1).astype(np.float64))
        return np.concatenate(parts, axis=1) if parts else np.empty((len(cells), 0))

    def decode(self, coordinates: NDArray[np.float64]) -> list[str]:
        """Coordinates (N, sum of blocks) to cells of text. Of shares the greatest counts."""
        count = len(coordinates)
        if self.kind == "category":
            if not self.blocks:
                return [self.categories[0]] * count
            return self._to_shares.inverse_transform(coordinates)[:, 0].tolist()
        if self.quantiles[0] < self.quantiles[-1]:
            numbers = self._to_normal.inverse_transform(coordinates[:, :1])[:, 0]
        else:
            numbers = np.full(count, self.quantiles[0])
        cells = [self._cell(number) for number in numbers.tolist()]
        if self.missing is not None:
            absent = coordinates[:, -1] > coordinates[:, -2]
            cells = [self.missing if gone else cell for cell, gone in zip(cells, absent.tolist(), strict=True)]
        return cells

    def measure(self, cells: Sequence[str]) -> NDArray[np.float64]:
        """Cells as numbers: of categories their place, NaN for a missing number."""
        if self.kind == "category":
            places = {category: place for place, category in enumerate(self.categories)}
            return np.array([places[cell] for cell in cells], dtype=np.float64)
        return np.array([np.nan if cell in MISSING else self._number(cell) for cell in cells])

    def _number(self, cell: str) -> float:
        return _seconds(cell) if self.kind == "date" else float(cell.replace(self.point, "."))

    def _cell(self, number: float) -> str:
        if self.kind == "date":
            moment = _EPOCH + timedelta(seconds=round(number))
            return moment.date().isoformat() if self.pattern == "days" else moment.isoformat(sep=self.pattern)
        text = repr(number) if self.decimals is None else f"{number:.{self.decimals}f}"
        text = text[1:] if text.startswith("-") and not text.strip("-0.") else text  # no -0
        return text.replace(".", self.point)


def column_of(name: str, cells: Sequence[str], dtype: str = "") -> Column:
    """The column that these cells are one of.

    Raises:
        ValueError: nearly all of many texts are different, as keys and names are; or a number is infinite.
    """
    counts = Counter(cells)
    absent = [cell for cell in counts if cell in MISSING]
    missing = max(absent, key=counts.__getitem__) if absent else None
    present = [cell for cell in counts if cell not in MISSING]
    point = "," if any("," in cell for cell in present) and all(_COMMA.fullmatch(cell) for cell in present) else "."
    present = [cell.replace(point, ".") for cell in present]
    if present and all(_NUMBER.fullmatch(cell) and not _KEPT_AS_TEXT.match(cell) for cell in present):
        whole = all(cell.lstrip("+-").isdecimal() for cell in present)
        canonical = all(str(int(cell)) == cell for cell in present) if whole else False
        if not (canonical and len(present) <= FEW and len(cells) >= 10 * len(present)):
            numbers = np.array([float(cell.replace(point, ".")) for cell in cells if cell not in MISSING])
            if not np.isfinite(numbers).all():
                raise ArgumentValueError("data", f"column {name!r}: expected finite numbers, got {numbers.max()}")
            decimals = _decimals(present)
            return Column(name, "number", (), _quantiles(numbers), decimals, missing, point=point, dtype=dtype)
    elif present and (pattern := _pattern(present)) is not None:
        moments = np.array([_seconds(cell) for cell in cells if cell not in MISSING])
        return Column(name, "date", (), _quantiles(moments), None, missing, pattern, dtype=dtype)
    categories = sorted([*present, *([missing] if missing is not None else [])])
    if len(categories) > MAX_CATEGORIES or (len(categories) > FEW and len(categories) > 0.5 * len(cells)):
        raise ArgumentValueError(
            "data",
            f"column {name!r} holds {len(categories):,} different texts in {len(cells):,} rows, such as "
            f"{present[0]!r}, as keys and names do; leave the column out",
        )
    return Column(name, "category", tuple(categories), missing=missing, dtype=dtype)


def _quantiles(numbers: NDArray[np.float64]) -> tuple[float, ...]:
    levels = np.linspace(0, 1, min(QUANTILES, len(numbers)))
    return tuple(np.quantile(numbers, levels).tolist()) if len(numbers) > 1 else (float(numbers[0]),) * 2


def _decimals(cells: Sequence[str]) -> int | None:
    """Digits after the point; None where a number has an exponent, or more digits than float64 holds."""
    if any("e" in cell.lower() for cell in cells):
        return None
    decimals = max(len(cell.partition(".")[2]) for cell in cells)
    return decimals if decimals <= 12 else None


def _pattern(cells: Sequence[str]) -> str | None:
    """``days``, or the character between date and time; None where a cell is no date in the form of ISO 8601."""
    separators = set()
    for cell in cells:
        if not re.fullmatch(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d:\d\d)?", cell):
            return None
        try:
            datetime.fromisoformat(cell)
        except ValueError:
            return None
        separators.add(cell[10] if len(cell) > 10 else "days")
    return separators.pop() if len(separators) == 1 else None


def _seconds(cell: str) -> float:
    return (datetime.fromisoformat(cell) - _EPOCH).total_seconds()


@dataclass(frozen=True)
class TableEncoding:
    """The columns of a table, as the coordinates of one vector for each row."""

    columns: tuple[Column, ...]

    @classmethod
    def of(cls, columns: Mapping[str, Sequence[str]], dtypes: Mapping[str, str] | None = None) -> "TableEncoding":
        """The encoding of a table given by its columns, each of cells of text, and their types in a DataFrame.

        Raises:
            ValueError: a column cannot be learned, or no column varies.
        """
        dtypes = dtypes or {}
        encoding = cls(tuple(column_of(name, cells, dtypes.get(name, "")) for name, cells in columns.items()))
        if not encoding.blocks:
            raise ArgumentValueError("data", "every column holds the same cell in every row; expected one that varies")
        return encoding

    @property
    def blocks(self) -> tuple[int, ...]:
        """The blocks of all columns, in order; their sum is the number of coordinates."""
        return tuple(block for column in self.columns for block in column.blocks)

    def encode(self, columns: Mapping[str, Sequence[str]]) -> NDArray[np.float32]:
        """Columns of text to vectors (N, coordinates)."""
        parts = [column.encode(columns[column.name]) for column in self.columns]
        return np.concatenate(parts, axis=1).astype(np.float32)

    def decode(self, vectors: NDArray[np.floating[Any]]) -> dict[str, list[str]]:
        """Vectors (N, coordinates) to columns of text."""
        coordinates, start, columns = np.asarray(vectors, dtype=np.float64), 0, {}
        for column in self.columns:
            width = sum(column.blocks)
            columns[column.name] = column.decode(coordinates[:, start : start + width])
            start += width
        return columns

    def numbers(self, vectors: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Vectors (N, coordinates) as numbers (N, columns), for a figure: see :meth:`.decoder.Decoder.numbers`."""
        columns = self.decode(vectors)
        return np.stack([column.measure(columns[column.name]) for column in self.columns], axis=1)

    def to_list(self) -> list[dict[str, Any]]:
        """Plain types, for a checkpoint."""
        return [asdict(column) for column in self.columns]

    @classmethod
    def from_list(cls, columns: Sequence[dict[str, Any]]) -> "TableEncoding":
        """The encoding that :meth:`to_list` was called on."""
        return cls(tuple(Column(**column) for column in columns))
