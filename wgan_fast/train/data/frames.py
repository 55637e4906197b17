"""pandas' DataFrames as columns of text, and back; pandas itself is imported when it is needed."""

import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wgan_fast._checks import ArgumentTypeError, ArgumentValueError
from wgan_fast.train.data.tables import Cells, Column, FrameType


@dataclass
class SourceTable:
    """A table as it came.

    Attributes:
        columns: cells of text; None is a missing value.
        frames: the types of the columns of a DataFrame, by name.
        blanks: how each column of a file writes a missing value, by name.
        index: the name of the column of a file that only numbered the rows, which is left out of ``columns``.
        first: the least of these numbers.
        separator: of the cells in a ``.csv`` file.
        integer_names: whether the names of a DataFrame's columns are integers.
        refused: the names of columns of a DataFrame that text cannot hold, and their types.
    """

    columns: dict[str, Cells]
    frames: dict[str, FrameType] = field(default_factory=dict)
    blanks: dict[str, str] = field(default_factory=dict)
    index: str | None = None
    first: int = 0
    separator: str = ","
    integer_names: bool = False
    refused: dict[str, str] = field(default_factory=dict)


def table_of_frame(frame: Any) -> SourceTable:
    """A pandas DataFrame as columns of text, and their types. The index is left out, with a warning where it holds more
    than numbers of rows.

    Raises:
        TypeError: the names of columns are neither texts nor integers.
        ValueError: two columns have one name, or there are no rows or columns.
    """
    pandas = import_pandas()
    names = [str(name) for name in frame.columns]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice or not names or not len(frame):
        got = f"two columns {twice[0]!r}" if twice else f"shape {frame.shape}"
        raise ArgumentValueError("data", f"expected a DataFrame with rows, and columns of unique names, got {got}")
    integers = all(isinstance(name, int | np.integer) and not isinstance(name, bool) for name in frame.columns)
    if not integers and not all(isinstance(name, str) for name in frame.columns):
        raise ArgumentTypeError(
            "data",
            "expected a DataFrame whose columns have texts or integers as names; "
            "data.columns = [*map(str, data.columns)] makes them texts",
        )
    if frame.index.nlevels > 1 or frame.index.name is not None or frame.index.dtype.kind not in "iu":
        told = "data: the index of the DataFrame is left out; data.reset_index() makes it a column"
        warnings.warn(told, UserWarning, stacklevel=4)
    table = SourceTable({}, integer_names=integers)
    for place, name in enumerate(names):
        series = frame.iloc[:, place]
        try:
            table.columns[name], table.frames[name] = _column(series)
            # On trial: after hours of training it should not be found that there is no way back.
            some = series if series.dtype == object else series[:100]
            back = _series(pandas, table.columns[name][: len(some)], table.frames[name])
            lost = back.dtype != series.dtype
            if not str(series.dtype).startswith(_MOMENTS):  # which may lose nanoseconds
                lost = lost or back.dropna().tolist() != some.dropna().tolist()
        except Exception:  # values may be of anybody's type
            lost = True
        if lost:
            table.columns[name] = []
            table.refused[name] = str(series.dtype)
    return table


#: Names of types of dates with a time begin with this: of NumPy's and Arrow's.
_MOMENTS = ("datetime", "timestamp")
#: The type of Arrow's texts has the name of another one of pandas; :attr:`.FrameType.of` tells them apart.
_OF_ARROW = "string[pyarrow]"


def _column(series: Any) -> tuple[Cells, FrameType]:
    """The cells of a Series, and its type."""
    kind = str(series.dtype)
    absent = series.isna().tolist()
    if kind == "category":
        of = series.cat.categories
        texts = tuple(_cells(of.to_series()))
        codes = series.cat.codes.tolist()
        of_levels = FrameType("category", str(of.dtype), texts, bool(series.cat.ordered))
        return [None if code < 0 else texts[code] for code in codes], of_levels
    found = FrameType(kind, kind if kind == _OF_ARROW else "")
    if kind == "object":
        values = (value for value, gone in zip(series.tolist(), absent, strict=True) if not gone)
        kinds = {type(value.item() if isinstance(value, np.generic) else value).__name__ for value in values}
        found = replace(found, of="float" if kinds == {"int", "float"} else kinds.pop() if len(kinds) == 1 else "str")
    return [None if gone else cell for cell, gone in zip(_cells(series), absent, strict=True)], found


def _cells(series: Any) -> list[str]:
    """The values of a Series as text; what stands for missing ones does not matter."""
    kind = str(series.dtype)
    if kind.startswith("timedelta"):
        return [str(value) for value in series.astype("int64").tolist()]
    if kind.startswith(_MOMENTS) and "," in kind:  # of a time zone
        series = series.dt.tz_convert("UTC").dt.tz_localize(None)
    if kind in ("float16", "float32"):
        return [str(value) for value in series.to_numpy()]  # the shortest that names it
    cells = [_cell(value) for value in series.tolist()]
    if kind.startswith(_MOMENTS) and all(cell == "NaT" or cell.endswith(" 00:00:00") for cell in cells):
        cells = [cell.removesuffix(" 00:00:00") for cell in cells]
    return cells


def _cell(value: Any) -> str:
    if isinstance(value, datetime):
        text: str = value.isoformat(sep=" ")
        return text[:26]  # of a pandas Timestamp nanoseconds
    return value.isoformat() if isinstance(value, date) else str(value)


def frame_of_columns(columns: Mapping[str, Cells], frames: Mapping[str, FrameType]) -> Any:
    """Columns of text as a pandas DataFrame with columns of these types; one without a type is text."""
    pandas = import_pandas()
    found = {
        name: _series(pandas, cells, frames.get(name, FrameType("object", "str"))) for name, cells in columns.items()
    }
    return pandas.DataFrame(found)


#: From the cells of a column of objects to its values.
_OBJECTS: dict[str, Callable[[str], Any]] = {
    "bool": lambda cell: cell == "True",
    "bool_": lambda cell: cell == "True",
    "int": int,
    "float": float,
    "date": date.fromisoformat,
    "datetime": datetime.fromisoformat,
    "Timestamp": datetime.fromisoformat,
    "Decimal": Decimal,
}


def _series(pandas: Any, cells: Cells, frame: FrameType) -> Any:
    kind = frame.name
    if kind == "category":
        levels = _series(pandas, frame.categories, FrameType(frame.of, "str"))
        places = {text: place for place, text in enumerate(frame.categories)}
        codes = [-1 if cell is None else places[cell] for cell in cells]
        index = pandas.Index(levels)
        return pandas.Series(pandas.Categorical.from_codes(codes, categories=index, ordered=frame.ordered))
    if kind.startswith(_MOMENTS):
        moments = pandas.to_datetime(pandas.Series(cells, dtype=object), utc="," in kind, format="ISO8601")
        return moments.astype(kind)
    if frame.of == _OF_ARROW:
        import pyarrow  # type: ignore[import-untyped]

        return pandas.Series(cells, dtype=pandas.ArrowDtype(pyarrow.string()))
    convert: Callable[[str], Any] = _OBJECTS.get(frame.of, str)
    if kind.lower().startswith("bool"):
        convert = _OBJECTS["bool"]
    elif kind.lower().startswith(("int", "uint", "timedelta")):
        bounds = np.iinfo("int64" if kind.startswith("timedelta") else kind.lower().removesuffix("[pyarrow]"))
        convert = lambda cell: min(max(int(cell), bounds.min), bounds.max)  # noqa: E731
    elif kind.lower().startswith("float"):
        convert = float
    values = [None if cell is None else convert(cell) for cell in cells]
    return pandas.Series(values, dtype=object).astype(kind)


def type_of_column(column: Column) -> FrameType:
    """The type in the user's DataFrame, or what pandas would give a column of a file."""
    if column.frame is not None:
        return column.frame
    if column.kind == "date":
        return FrameType("datetime64[us]")
    if column.kind == "number" and (column.decimals != 0 or max(map(abs, column.quantiles)) >= 2**63):
        return FrameType("float64")
    if column.kind == "number" or (column.categories and are_whole(column.categories)):
        return FrameType("int64" if column.missing is None else "Int64")
    return FrameType("object", "str")


def are_whole(names: Sequence[str]) -> bool:
    """Whether all are whole numbers as Python writes them, of 64 bits."""
    return all(map(re.compile(r"0|-?[1-9][0-9]{0,17}").fullmatch, names))


def type_of_labels(classes: tuple[str, ...]) -> FrameType:
    """As :func:`type_of_column`, of a file's column of labels."""
    return FrameType("int64") if are_whole(classes) else FrameType("object", "str")


def frame_of_arrays(columns: Mapping[str, NDArray[Any]]) -> Any:
    """Arrays as the columns of a pandas DataFrame."""
    return import_pandas().DataFrame(dict(columns))


def import_pandas() -> Any:
    try:
        import pandas  # type: ignore[import-untyped]
    except ImportError as error:
        raise ArgumentValueError("data", "DataFrames and .parquet files need pandas: pip install pandas") from error
    return pandas
