"""Reads tables, from files and from pandas, as columns of text."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wgan_fast._checks import ArgumentValueError
from wgan_fast.train.data.tables import MISSING

#: The types of files that hold tables.
TABLES = (".csv", ".tsv", ".parquet")
_DELIMITERS = ",;\t|"
Columns = dict[str, list[str]]


def read_table(path: Path) -> tuple[Columns, dict[str, str]]:
    """The columns of a table, each of cells of text, and the pandas types of those that have one.

    Raises:
        ValueError: the file is no table with a header; the message names the file and the line.
    """
    if path.suffix.lower() == ".parquet":
        pandas = _pandas()
        try:
            frame = pandas.read_parquet(path)
        except ImportError as error:
            raise ArgumentValueError("data", f"{path}: to read it, pip install pyarrow") from error
        except Exception as error:  # a damaged file may raise anything
            raise ArgumentValueError("data", f"{path} cannot be read as a table: {error}") from error
        return columns_of_frame(frame)
    return _read_text(path), {}


def _read_text(path: Path) -> Columns:
    with path.open(newline="", encoding="utf-8-sig") as file:
        try:
            first = next((line for line in file if line.strip()), "")
            file.seek(0)
            separator = _delimiter(path, first)
            reader = csv.reader(file, strict=True, delimiter=separator)
            header = next((row for row in reader if row), [])
            columns: list[list[str]] = [[] for _ in header]
            _check_header(path, header)
            for row in reader:
                if not row:
                    continue
                if len(row) != len(header):
                    raise ArgumentValueError(
                        "data",
                        f"{path}: line {reader.line_num}: expected {len(header)} cells, separated by {separator!r}, "
                        f"got {len(row)}",
                    )
                for cells, cell in zip(columns, row, strict=True):
                    cells.append(cell.strip())
        except (csv.Error, UnicodeDecodeError) as error:
            line = reader.line_num if "reader" in locals() else 0
            raise ArgumentValueError("data", f"{path}: after line {line}: {error}") from error
    if not columns[0]:
        raise ArgumentValueError("data", f"{path}: expected rows below the header, got none")
    table = dict(zip((name.strip() for name in header), columns, strict=True))
    if _is_index(header[0].strip(), columns[0]):
        del table[header[0].strip()]
    if not table:
        raise ArgumentValueError("data", f"{path}: expected columns beside the index, got none")
    return table


def _delimiter(path: Path, header: str) -> str:
    """The one that the header has most of."""
    return "\t" if path.suffix.lower() == ".tsv" else max(_DELIMITERS, key=header.count)


def _check_header(path: Path, header: Sequence[str]) -> None:
    names = [name.strip() for name in header]
    if not names:
        raise ArgumentValueError(
            "data", f"{path}: expected a line with the names of the columns, but the file is empty"
        )
    # Whole numbers may be names, such as years.
    if all(map(_is_number, names)) and not all(name.isdecimal() for name in names):
        example = ",".join(f"x{column}" for column in range(len(names)))
        raise ArgumentValueError(
            "data",
            f"{path}: the first line holds only numbers; add a line with the names of the columns above it, "
            f"for example {example}",
        )
    for place, name in enumerate(names):
        if (not name and place > 0) or name in names[:place]:
            raise ArgumentValueError("data", f"{path}: expected a unique name for column {place + 1}, got {name!r}")


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", cell) is not None


def _is_index(name: str, cells: Sequence[str]) -> bool:
    """Whether the first column only counts the rows, as pandas writes it."""
    return name in ("", "Unnamed: 0") and all(cell == str(place) for place, cell in enumerate(cells))


def columns_of_frame(frame: Any) -> tuple[Columns, dict[str, str]]:
    """A pandas DataFrame as columns of text, and the types of its columns."""
    columns, types = {}, {}
    for name in frame.columns:
        series = frame[name]
        absent = series.isna().tolist()
        columns[str(name)] = [
            MISSING[0] if gone else _cell(value) for value, gone in zip(series.tolist(), absent, strict=True)
        ]
        types[str(name)] = str(series.dtype)
    return columns, types


def _cell(value: Any) -> str:
    if hasattr(value, "isoformat"):
        text: str = value.isoformat(sep=" ") if hasattr(value, "hour") else value.isoformat()
        return text.removesuffix(" 00:00:00")
    return repr(value) if isinstance(value, float) else str(value)


def frame_of_columns(columns: dict[str, list[Any]], types: dict[str, str]) -> Any:
    """Columns of text as a pandas DataFrame of these types; columns without one stay text."""
    pandas = _pandas()
    frame = pandas.DataFrame()
    for name, cells in columns.items():
        kind = types.get(name, "object")
        values = [None if cell in MISSING else cell for cell in cells]
        if kind.startswith("bool"):
            values = [None if cell is None else cell == "True" for cell in values]
        elif kind.startswith(("int", "uint", "Int", "UInt")):
            values = [None if cell is None else int(cell) for cell in values]
        elif kind.startswith(("float", "Float")):
            values = [None if cell is None else float(cell) for cell in values]
        series = pandas.Series(values, dtype=None if kind.startswith("datetime") else object)
        frame[name] = pandas.to_datetime(series).astype(kind) if kind.startswith("datetime") else series.astype(kind)
    return frame


def _pandas() -> Any:
    try:
        import pandas  # type: ignore[import-untyped]
    except ImportError as error:
        raise ArgumentValueError("data", "DataFrames and .parquet files need pandas: pip install pandas") from error
    return pandas
