"""Rows of a cohort table as text, from CSV or Parquet.

The `csv` module and not pandas reads CSV: a label "NA" or "007" arrives as it was written.
"""

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamella.cells import unescape_cell
from lamella.cohort.spelling import tidy
from lamella.errors import CohortError
from lamella.machine import refuse_passing
from lamella.memory import refuse_beyond_memory
from lamella.regular import read_regular, refuse_irregular

_TEXT_SUFFIXES = (".csv", ".tsv", ".txt")
_MOST_CELLS = 10_000_000  # of Parquet, which packs a billion equal cells into a few bytes
_PARQUET_SUFFIXES = (".parquet", ".pq")
_MAX_TEXT_BYTES = 1 << 28
_CELL_BYTES = 64  # of a cell as Python holds it
_EXCEL_SUFFIXES = (".xlsx", ".xls", ".xlsm", ".xlsb", ".ods")


@dataclass(frozen=True, slots=True)
class Rows:
    """A table as text.

    Attributes:
        columns: Names of the columns.
        cells: One mapping a row, column to text without blanks around it; "" where the table has nothing.
        numbers: The number of each row as a spreadsheet shows it (the header is row 1).
    """

    columns: tuple[str, ...]
    cells: tuple[dict[str, str], ...]
    numbers: tuple[int, ...]


def read_rows(path: Path, *, called: str = "cohort") -> Rows:
    """Read a table; rows without any content are left out.

    Args:
        path: CSV or Parquet.
        called: What the table is, for messages.

    Raises:
        CohortError: If there is no such table, or it is neither CSV nor Parquet, or has no rows.
    """
    if not path.exists():
        raise CohortError(
            f"there is no {called} table '{path}'. "
            + (
                "Give the path of a CSV or Parquet table with the columns slide and label."
                if called == "cohort"
                else "Check the path."
            )
        )
    if path.is_dir():
        noun = "a cohort is" if called == "cohort" else f"{called} are"
        raise CohortError(f"'{path}' is a folder and {noun} a table. Give the path of a CSV or Parquet file.")
    refuse_irregular(path, f"{called} '{path}'", CohortError)
    suffix, name = path.suffix.lower(), f"{called} '{path.name}'"
    if suffix in _EXCEL_SUFFIXES:
        raise CohortError(
            f"{name} is an Excel workbook and is read as .csv, .tsv or .parquet only. In Excel, save the "
            "sheet with File > Save As as 'CSV UTF-8', and name that file."
        )
    if suffix not in _TEXT_SUFFIXES + _PARQUET_SUFFIXES:
        raise CohortError(
            f"{name} ends in '{suffix}' and is read as .csv, .tsv or .parquet only. Save it as CSV (UTF-8)."
        )
    try:
        rows = _read_parquet(path, name) if suffix in _PARQUET_SUFFIXES else _read_text(path, name)
    except PermissionError as error:
        raise CohortError(f"{called} '{path}' may not be read by this user. Ask for access, or copy it.") from error
    except OSError as error:
        refuse_passing(error, str(path))
        raise CohortError(f"{called} '{path}' cannot be read ({error.strerror or error}). Copy it anew.") from error
    if not rows.cells:
        raise CohortError(f"{name} has a header and no rows. Add one row a slide.")
    return rows


def _read_text(path: Path, name: str) -> Rows:
    """Read text separated as Excel's line `sep=;` says, else by comma, semicolon or tab, the header's commonest."""
    text = _decode(path, name)
    if not text.strip():
        raise CohortError(f"{name} is empty. Write a header with slide and label, and one row a slide.")
    if text.lstrip()[0] in "{[":
        raise CohortError(f"{name} holds JSON and a CSV table is needed. Save it as CSV, one row a slide.")
    told = re.match(r"""\s*"?sep=(.)"?[,;\t]*\r?\n""", text, re.IGNORECASE)
    n_told = 0 if told is None else text[: told.end()].count("\n")
    text = text if told is None else text[told.end() :]
    header = text.lstrip().splitlines()[0] if text.strip() else ""
    separator = max(",;\t", key=header.count) if told is None else told[1]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        lines = [(n_told + reader.line_num, cells) for cells in reader]
    except csv.Error as error:
        raise CohortError(
            f"{name} stops being CSV at line {n_told + reader.line_num} ({error}). Save it as 'CSV UTF-8' again."
        ) from error
    lines = [(number, cells) for number, cells in lines if any(cell.strip() for cell in cells)]
    if not lines:
        raise CohortError(f"{name} is empty. Write a header with slide and label, and one row a slide.")
    columns = _check_columns(name, lines[0][1])
    return _collect(name, columns, lines[1:])


def _decode(path: Path, name: str) -> str:
    """Return a file's text: UTF-8, or UTF-16 where its first bytes say so (Excel's 'Unicode text')."""
    remedy = "Keep one row a slide, and the columns that are needed."
    content = read_regular(path, f"{name} is", error=CohortError, max_bytes=_MAX_TEXT_BYTES, remedy=remedy)
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    if content[:4] == b"PK\x03\x04":
        raise CohortError(
            f"{name} is an Excel workbook whatever its ending says. In Excel, save the sheet with File > "
            "Save As as 'CSV UTF-8', and name that file."
        )
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        kind = "UTF-16" if encoding == "utf-16" else "UTF-8"
        raise CohortError(f"{name} is not {kind} text (byte {error.start}). Save it as 'CSV UTF-8'.") from error


def _read_parquet(path: Path, name: str) -> Rows:
    """Read Parquet; whole numbers that were stored as floats become whole again (a gap turns 0/1 into 0.0/1.0)."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            n_cells = file.metadata.num_rows * file.metadata.num_columns
            if n_cells > _MOST_CELLS:
                raise CohortError(f"{name} claims {n_cells:,} cells and may have {_MOST_CELLS:,}. Name another table.")
            what = f"{name}, {file.metadata.num_rows:,} rows of {file.metadata.num_columns:,} columns,"
            refuse_beyond_memory(n_cells * _CELL_BYTES, what, "Keep one row a slide.", error=CohortError)
            table = file.read()
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, OSError):
            refuse_passing(error, str(path))
        raise CohortError(f"{name} is not a Parquet file that can be read. Write it anew.") from error
    columns = _check_columns(name, table.column_names)
    values = [column.to_pylist() for column in table.columns]
    lines = [
        (number, [_to_text(value) for value in row]) for number, row in enumerate(zip(*values, strict=True), start=2)
    ]
    return _collect(name, columns, lines)


def _check_columns(name: str, names: Sequence[str]) -> tuple[str, ...]:
    """Return the header's names without blanks around them; each may occur once."""
    columns = tuple(tidy(str(name)) for name in names)
    for column in columns:
        if column and columns.count(column) > 1:
            raise CohortError(f"{name} has {columns.count(column)} columns '{column}'. Rename all but one.")
    return columns


def _collect(name: str, columns: tuple[str, ...], lines: Sequence[tuple[int, Sequence[str]]]) -> Rows:
    """Put lines of cells under their columns; refuse a line with more cells than the header."""
    cells, numbers = [], []
    for number, line in lines:
        if any(cell.strip() for cell in line[len(columns) :]):
            raise CohortError(
                f"{name} has {len(line)} cells in row {number} and {len(columns)} columns. "
                'Put a cell that contains the separator in "quotes".'
            )
        row = {column: unescape_cell(cell.strip()) for column, cell in zip(columns, line, strict=False)}
        if any(row.values()):
            cells.append(row)
            numbers.append(number)
    return Rows(columns, tuple(cells), tuple(numbers))


def _to_text(value: Any) -> str:
    """Write a Parquet cell as the text CSV would hold.

    Example:
        >>> _to_text(1.0), _to_text(0.25), _to_text(None), _to_text("x")
        ('1', '0.25', '', 'x')
    """
    if value is None:
        return ""
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return str(int(value))
    return str(value)
