"""Tables of mixed types as vectors of numbers, and back: each column comes back as it was written."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wgan_fast._checks import ArgumentValueError

Cells = Sequence[str | None]  #: of a column, as text; None is a missing value
#: Whole numbers of which at most so many are different, each ten times on average, are categories.
FEW = 20
#: A column of text with more categories would need a wider network than its rows can train.
MAX_CATEGORIES = 500
QUANTILES = 1000  #: at most, of a column of numbers
_EPOCH = datetime(1970, 1, 1)
_TIMESPEC = {0: "seconds", 3: "milliseconds", 6: "microseconds"}  # by decimals
_COMMA = re.compile(r"[+-]?\d+(,\d+)?")
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_WHOLE = re.compile(r"0|-?[1-9][0-9]*")
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d+)?")
_KEPT_AS_TEXT = re.compile(r"[+-]?0\d")  # 007 is a name, not the number 7


@dataclass(frozen=True)
class FrameType:
    """The type of a column of a pandas DataFrame.

    Attributes:
        name: of the dtype.
        of: the type of the values of a column of objects, or of the categories of a categorical column.
        categories: of a categorical column, as text, those that do not occur among them.
        ordered: whether they have an order.
    """

    name: str
    of: str = ""
    categories: tuple[str, ...] = ()
    ordered: bool = False


@dataclass(frozen=True)
class Column:
    """One column: its encoding as coordinates of a vector, and the way back to cells of text.

    Attributes:
        name: in the header.
        kind: ``number``, ``date`` or ``category``.
        categories: the different cells of a column of categories, sorted, without the missing one.
        quantiles: of a column of numbers (of dates: of seconds since 1970), evenly spaced, the first is the least value
            and the last the greatest.
        decimals: digits after the point, of seconds in dates; None writes as many as a float64 needs.
        missing: how a missing value is written; None where none is missing.
        pattern: of dates ``days``, or the character between date and time.
        point: of numbers, the decimal point or comma.
        frame: the type in a DataFrame; None in a file of text.
    """

    name: str
    kind: str
    categories: tuple[str, ...] = ()
    quantiles: tuple[float, ...] = ()
    decimals: int | None = None
    missing: str | None = None
    pattern: str = ""
    point: str = "."
    frame: FrameType | None = None

    @property
    def blocks(self) -> tuple[int, ...]:
        """How many coordinates belong together: 1 is a number, k > 1 the shares of k categories."""
        if self.kind == "category":
            shares = len(self.categories) + (self.missing is not None)
            return (shares,) if shares > 1 else ()
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

        absent = [None] if self.missing is not None else []
        categories = np.array([*self.categories, *absent], dtype=object)
        return OneHotEncoder(categories=[categories], sparse_output=False).fit(categories[:, None])

    def encode(self, cells: Cells) -> NDArray[np.float64]:
        """Cells of text to coordinates (N, sum of blocks)."""
        if not self.blocks:
            return np.empty((len(cells), 0))
        if self.kind == "category":
            return self._to_shares.transform(np.array(cells, dtype=object)[:, None])
        parts = []
        if self.quantiles[0] < self.quantiles[-1]:
            middle = self.quantiles[len(self.quantiles) // 2]
            numbers = np.array([middle if cell is None else self._number(cell) for cell in cells])
            parts.append(self._to_normal.transform(numbers[:, None]))
        if self.missing is not None:
            absent = np.array([cell is None for cell in cells])
            parts.append(np.stack([~absent, absent], axis=1).astype(np.float64))
        return np.concatenate(parts, axis=1)

    def decode(self, coordinates: NDArray[np.float64]) -> list[str | None]:
        """Coordinates (N, sum of blocks) to cells of text. Of shares the greatest counts."""
        count = len(coordinates)
        if self.kind == "category":
            if not self.blocks:
                return [*(self.categories or (None,))] * count
            found: list[str | None] = self._to_shares.inverse_transform(coordinates)[:, 0].tolist()
            return found
        if self.quantiles[0] < self.quantiles[-1]:
            numbers = self._to_normal.inverse_transform(coordinates[:, :1])[:, 0]
        else:
            numbers = np.full(count, self.quantiles[0])
        cells: list[str | None] = [self._cell(number) for number in numbers.tolist()]
        if self.missing is not None:
            absent = coordinates[:, -1] > coordinates[:, -2]
            cells = [None if gone else cell for cell, gone in zip(cells, absent.tolist(), strict=True)]
        return cells

    def measure(self, cells: Cells) -> NDArray[np.float64]:
        """Cells as numbers: of categories their place, of dates seconds since 1970; NaN where missing."""
        places = {category: float(place) for place, category in enumerate(self.categories)}
        number = places.__getitem__ if self.kind == "category" else self._number
        return np.array([np.nan if cell is None else number(cell) for cell in cells], dtype=np.float64)

    def _number(self, cell: str) -> float:
        return _seconds(cell) if self.kind == "date" else float(cell.replace(self.point, "."))

    def _cell(self, number: float) -> str:
        if self.kind == "date":
            moment = _EPOCH + timedelta(microseconds=round(number * 10**6))
            if self.pattern == "days":
                return (moment + timedelta(hours=12)).date().isoformat()
            if not self.decimals:
                moment = (moment + timedelta(microseconds=500_000)).replace(microsecond=0)
            return moment.isoformat(sep=self.pattern, timespec=_TIMESPEC[self.decimals or 0])
        text = repr(number) if self.decimals is None else f"{number:.{self.decimals}f}"
        text = text[1:] if text.startswith("-") and not text.strip("-0.") else text  # no -0
        return text.replace(".", self.point)


def column_of(name: str, cells: Cells, missing: str = "", frame: FrameType | None = None) -> Column:
    """The column that these cells are one of; ``missing`` is how a missing one is written.

    Raises:
        ValueError: nearly all of many texts are different, as keys and names are; or a number is infinite.
    """
    counts = Counter(cell for cell in cells if cell is not None)
    present = [*counts]
    blank = missing if counts.total() < len(cells) else None
    _check_thousands(name, present)
    point = "," if any("," in cell for cell in present) and all(_COMMA.fullmatch(cell) for cell in present) else "."
    named = frame is not None and (frame.name == "category" or frame.name.startswith("bool"))
    plain = [] if named else [cell.replace(point, ".") for cell in present]
    if plain and all(_NUMBER.fullmatch(cell) and not _KEPT_AS_TEXT.match(cell) for cell in plain):
        canonical = all(map(_WHOLE.fullmatch, plain))
        if not (canonical and len(plain) <= FEW and len(cells) >= 10 * len(plain)):
            numbers = np.array([float(cell.replace(point, ".")) for cell in counts.elements()])
            if not np.isfinite(numbers).all():
                raise ArgumentValueError("data", f"column {name!r}: expected finite numbers, got {numbers.max()}")
            return Column(name, "number", (), _quantiles(numbers), _decimals(plain), blank, point=point, frame=frame)
    elif plain and (pattern := _pattern(plain)) is not None:
        moments = np.array([_seconds(cell) for cell in counts.elements()])
        fraction = max(len(cell.partition(".")[2]) for cell in plain)
        decimals = 6 if fraction > 3 else 3 if fraction else 0
        return Column(name, "date", (), _quantiles(moments), decimals, blank, pattern, frame=frame)
    if len(counts) > MAX_CATEGORIES or (len(counts) > FEW and len(counts) > 0.5 * len(cells)):
        strays = [cell for cell in present if not _NUMBER.fullmatch(cell)]
        if 0 < len(strays) < 0.5 * len(present):
            raise ArgumentValueError(
                "data", f"column {name!r} holds numbers, but also {strays[0]!r}; a missing value is an empty cell"
            )
        forms = " (numbers are read as 1234.5, dates as 2024-12-31 or 2024-12-31 23:59:59)"
        raise ArgumentValueError(
            "data",
            f"column {name!r} holds {len(counts):,} different texts in {len(cells):,} rows, such as "
            f"{present[0]!r}, as keys and names do{forms if any(map(str.isdecimal, present[0])) else ''}; leave it out "
            f"with --drop, in Python drop={name!r}",
        )
    return Column(name, "category", tuple(sorted(counts)), missing=blank, frame=frame)


def _check_thousands(name: str, cells: Sequence[str]) -> None:
    """Raises ValueError if the comma of numbers separates thousands, or may do so: ``1,234`` beside ``856``. Where it
    is in each, both readings differ by a factor alone, and are written alike.
    """
    grouped = [cell for cell in cells if _THOUSANDS.fullmatch(cell)]
    others = [cell for cell in cells if not _THOUSANDS.fullmatch(cell)]
    certain = any("." in cell or cell.count(",") > 1 for cell in grouped)
    if grouped and (certain or others) and all(map(_NUMBER.fullmatch, others)):
        raise ArgumentValueError(
            "data", f"column {name!r} has numbers with a comma for thousands, such as {grouped[0]!r}; write 1234.5"
        )


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
        if not re.fullmatch(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d:\d\d(\.\d{3}|\.\d{6})?)?", cell):
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
    """The columns of a table, as the coordinates of one vector for each row.

    Attributes:
        columns: those that a vector holds.
        header: the names of all columns in order; also of those that no vector holds, the labels and the index.
        index: the name of the column that counts the rows; None without one.
        first: the number of the first row in it.
        separator: of the cells in a ``.csv`` file.
        label: the type of the column of labels in a DataFrame.
        integer_names: whether the names of a DataFrame's columns are integers.
    """

    columns: tuple[Column, ...]
    header: tuple[str, ...] = ()
    index: str | None = None
    first: int = 0
    separator: str = ","
    label: FrameType | None = None
    integer_names: bool = False

    @classmethod
    def of(
        cls,
        columns: Mapping[str, Cells],
        frames: Mapping[str, FrameType] | None = None,
        blanks: Mapping[str, str] | None = None,
        **more: Any,
    ) -> "TableEncoding":
        """The encoding of a table: its columns, their types in a DataFrame, and how each writes a missing value.

        Raises:
            ValueError: columns cannot be learned, each of which is named, or no column varies.
        """
        frames, blanks = frames or {}, blanks or {}
        found, wrong = [], []
        for name, cells in columns.items():
            try:
                found.append(column_of(name, cells, blanks.get(name, ""), frames.get(name)))
            except ArgumentValueError as error:  # noqa: PERF203 (all are named at once)
                wrong.append(error.message)
        if wrong:
            raise ArgumentValueError("data", "; ".join(wrong))
        encoding = cls(tuple(found), **more)
        if not encoding.blocks:
            raise ArgumentValueError("data", "every column holds the same cell in every row; expected one that varies")
        return encoding

    @property
    def blocks(self) -> tuple[int, ...]:
        """The blocks of all columns, in order; their sum is the number of coordinates."""
        return tuple(block for column in self.columns for block in column.blocks)

    def encode(self, columns: Mapping[str, Cells]) -> NDArray[np.float32]:
        """Columns of text to vectors (N, coordinates)."""
        parts = [column.encode(columns[column.name]) for column in self.columns]
        return np.concatenate(parts, axis=1).astype(np.float32)

    def decode(self, vectors: NDArray[np.floating[Any]]) -> dict[str, list[str | None]]:
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

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TableEncoding":
        """The encoding that :func:`dataclasses.asdict` was called on."""
        columns = tuple(Column(**column | {"frame": _frame_type(column["frame"])}) for column in values["columns"])
        return cls(**values | {"columns": columns, "label": _frame_type(values["label"])})


def _frame_type(values: dict[str, Any] | None) -> FrameType | None:
    return None if values is None else FrameType(**values)
