"""Rows of a cohort table as text, from CSV or Parquet.

The `csv` module and not pandas reads CSV: a label "NA" or "007" arrives as it was written.
"""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamella.cells import unescape_cell
from lamella.errors import CohortError

_TEXT_SUFFIXES = (".csv", ".tsv", ".txt")
_PARQUET_SUFFIXES = (".parquet", ".pq")


@dataclass(frozen=True, slots=True)
class Rows:
    """A table as text.

    Attributes:
        columns: Names of the columns.
        cells: One mapping a row, column to text; "" where the table has nothing.
        numbers: The number of each row as a spreadsheet shows it (the header is row 1).
    """

    columns: tuple[str, ...]
    cells: tuple[dict[str, str], ...]
    numbers: tuple[int, ...]


def read_rows(path: Path) -> Rows:
    """Read a table; rows without any content are left out.

    Raises:
        CohortError: If there is no such table, or it is neither CSV nor Parquet, or has no rows.
    """
    if not path.exists():
        raise CohortError(
            f"there is no cohort table '{path}'. "
            "Give the path of a CSV or Parquet table with the columns slide and label."
        )
    if path.is_dir():
        raise CohortError(f"'{path}' is a folder and a cohort is a table. Give the path of a CSV or Parquet file.")
    suffix = path.suffix.lower()
    if suffix not in _TEXT_SUFFIXES + _PARQUET_SUFFIXES:
        raise CohortError(
            f"cohort '{path.name}' ends in '{suffix}' and is read as .csv, .tsv or .parquet only. "
            "Save it as CSV (UTF-8)."
        )
    try:
        rows = _read_parquet(path) if suffix in _PARQUET_SUFFIXES else _read_text(path)
    except PermissionError as error:
        raise CohortError(f"cohort '{path}' may not be read by this user. Ask for access, or copy it.") from error
    if not rows.cells:
        raise CohortError(f"cohort '{path.name}' has a header and no rows. Add one row a slide.")
    return rows


def _read_text(path: Path) -> Rows:
    """Read comma, semicolon or tab separated text, whichever the header uses most."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CohortError(
            f"cohort '{path.name}' is not UTF-8 text (byte {error.start}). Save it as 'CSV UTF-8'."
        ) from error
    if not text.strip():
        raise CohortError(f"cohort '{path.name}' is empty. Write a header with slide and label, and one row a slide.")
    header = text.lstrip().splitlines()[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count))
    try:
        lines = [(reader.line_num, cells) for cells in reader]
    except csv.Error as error:
        raise CohortError(
            f"cohort '{path.name}' stops being CSV at line {reader.line_num} ({error}). Save it as 'CSV UTF-8' anew."
        ) from error
    lines = [(number, cells) for number, cells in lines if any(cell.strip() for cell in cells)]
    columns = _check_columns(path, lines[0][1])
    return _collect(path, columns, lines[1:])


def _read_parquet(path: Path) -> Rows:
    """Read Parquet; whole numbers that were stored as floats become whole again (a gap turns 0/1 into 0.0/1.0)."""
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise CohortError(f"cohort '{path.name}' is not a Parquet file that can be read. Write it anew.") from error
    columns = _check_columns(path, table.column_names)
    values = [column.to_pylist() for column in table.columns]
    lines = [
        (number, [_to_text(value) for value in row]) for number, row in enumerate(zip(*values, strict=True), start=2)
    ]
    return _collect(path, columns, lines)


def _check_columns(path: Path, names: Sequence[str]) -> tuple[str, ...]:
    """Return the header's names without blanks around them; each may occur once."""
    columns = tuple(name.strip() for name in names)
    for name in columns:
        if name and columns.count(name) > 1:
            raise CohortError(f"cohort '{path.name}' has {columns.count(name)} columns '{name}'. Rename all but one.")
    return columns


def _collect(path: Path, columns: tuple[str, ...], lines: Sequence[tuple[int, Sequence[str]]]) -> Rows:
    """Put lines of cells under their columns; refuse a line with more cells than the header."""
    cells, numbers = [], []
    for number, line in lines:
        if any(cell.strip() for cell in line[len(columns) :]):
            raise CohortError(
                f"cohort '{path.name}' has {len(line)} cells in row {number} and {len(columns)} columns. "
                'Put a cell that contains the separator in "quotes".'
            )
        found = {name: unescape_cell(cell.strip()) for name, cell in zip(columns, line, strict=False)}
        if any(found.values()):
            cells.append(found)
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
