"""Reads tables from files, as columns of text."""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from wgan_fast._checks import ArgumentValueError
from wgan_fast.train.data.frames import SourceTable, are_whole, import_pandas, table_of_frame

#: The types of files that hold tables.
TABLES = (".csv", ".tsv", ".parquet")
_DELIMITERS = ",;\t|"
#: Cells of a file of text that stand for a missing value.
MISSING = ("", "NA", "N/A", "NaN", "nan", "NULL", "null", "None", "<NA>")


def read_table(path: Path) -> SourceTable:
    """The table in a file.

    Raises:
        ValueError: the file is no table with a header; the message names the file and the line.
    """
    if path.suffix.lower() != ".parquet":
        return _read_text(path)
    pandas = import_pandas()
    try:
        frame = pandas.read_parquet(path)
    except ImportError as error:
        raise ArgumentValueError("data", f"{path}: to read it, pip install pyarrow") from error
    except Exception as error:  # a damaged file may raise anything
        raise ArgumentValueError("data", f"{path} cannot be read as a table: {error}") from error
    return table_of_frame(frame)


def _read_text(path: Path) -> SourceTable:
    with path.open(newline="", encoding=_encoding(path)) as file:
        try:
            first = next((line for line in file if line.strip()), "")
            file.seek(0)
            separator = _delimiter(path, first)
            reader = csv.reader(_without_nul(file), strict=True, delimiter=separator)
            header = [name.strip() for name in next((row for row in reader if row), [])]
            columns: list[list[str]] = [[] for _ in header]
            _check_header(path, header)
            for row in reader:
                if not row:
                    continue
                if len(row) != len(header):
                    raise ArgumentValueError(
                        "data",
                        f"{path}: line {reader.line_num}: expected {len(header)} cells, as in the header, separated "
                        f"by {separator!r}, got {len(row)}",
                    )
                for cells, cell in zip(columns, row, strict=True):
                    cells.append(cell.strip())
        except (csv.Error, UnicodeDecodeError) as error:
            line = reader.line_num if "reader" in locals() else 0
            cure = "; save the table as text in UTF-8" if isinstance(error, UnicodeDecodeError) else ""
            raise ArgumentValueError("data", f"{path}: after line {line}: {error}{cure}") from error
    if not columns[0]:
        raise ArgumentValueError("data", f"{path}: expected rows below the header, got none")
    index = header[0] if _is_index(header[0], columns[0]) else None
    table = SourceTable({}, index=index, separator="," if path.suffix.lower() == ".tsv" else separator)
    if index is not None:
        table.first = min(map(int, columns[0]))
    for name, cells in zip(header, columns, strict=True):
        if name == index:
            continue
        absent = Counter(cell for cell in cells if cell in MISSING)
        table.columns[name] = [None if cell in MISSING else cell for cell in cells]
        table.blanks[name] = absent.most_common(1)[0][0] if absent else ""
    if not table.columns:
        raise ArgumentValueError("data", f"{path}: expected columns beside the index, got none")
    return table


def _encoding(path: Path) -> str:
    """UTF-8, or the UTF-16 of a spreadsheet's "Unicode text", which begins with a mark."""
    with path.open("rb") as file:
        return "utf-16" if file.read(2) in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"


def _without_nul(lines: Iterable[str]) -> Iterator[str]:
    """The lines. Python before 3.11 refuses a zero byte; later it keeps one, which NumPy drops at the end of a text."""
    for line in lines:
        if "\0" in line:
            raise csv.Error("the next line holds a zero byte; save the table as text in UTF-8")
        yield line


def _delimiter(path: Path, header: str) -> str:
    """The one that the header has most of."""
    return "\t" if path.suffix.lower() == ".tsv" else max(_DELIMITERS, key=header.count)


def _check_header(path: Path, header: Sequence[str]) -> None:
    if not header:
        raise ArgumentValueError(
            "data", f"{path}: expected a line with the names of the columns, but the file is empty"
        )
    # Whole numbers may be names, such as years.
    if all(map(_is_number, header)) and not all(name.isdecimal() for name in header):
        example = ",".join(f"x{column}" for column in range(len(header)))
        raise ArgumentValueError(
            "data",
            f"{path}: the first line holds only numbers; add a line with the names of the columns above it, "
            f"for example {example}",
        )
    for place, name in enumerate(header):
        if (not name and place > 0) or name in header[:place]:
            raise ArgumentValueError("data", f"{path}: expected a unique name for column {place + 1}, got {name!r}")


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", cell) is not None


def _is_index(name: str, cells: Sequence[str]) -> bool:
    """Whether the first column only numbers the rows, in any order, as pandas and R write it."""
    return name in ("", "Unnamed: 0") and are_whole(cells) and len({*cells}) == len(cells)
