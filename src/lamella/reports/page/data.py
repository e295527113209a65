"""A page's data file: every number of its tables and charts in one long table, and what stands around them.

`report.parquet` has a row a cell: `part` (key of the table or chart), `form` (`table` or `chart`), `row`, `position`
and `column`, the `text` that is shown and, where it is a number, its `value`, with `low` and `high` where it has an
interval. `mark` and `badges` are of a table's row. Titles, sentences and captions stand in the file's metadata.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from lamella.errors import ModelError
from lamella.files import replacing
from lamella.reports.charts.marks import Mark
from lamella.reports.page.drawings import DRAWN
from lamella.reports.page.parts import Block, Chart, Charts, Page, Row, Table
from lamella.reports.words import Printed

DATA, FORMAT = "report.parquet", 1
_KEY = b"lamella.page"
_GUIDE = "guide"
_STRUCTURE = TypeAdapter(Page)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cell:
    """A row of the data file."""

    part: str
    form: str
    row: int
    position: int
    column: str
    text: str | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    mark: str = ""
    badges: str = ""


def save_data(page: Page, path: Path) -> None:
    """Write what a page holds, without its pictures.

    Raises:
        OutputError: If the file cannot be written.
    """
    cells = [cell for block in page.list_blocks() for cell in _list_cells(block)]
    columns = [field.name for field in dataclasses.fields(_Cell)]
    types = dict.fromkeys(("row", "position"), pa.int32()) | dict.fromkeys(("value", "low", "high"), pa.float64())
    schema = pa.schema([(name, types.get(name, pa.string())) for name in columns])
    structure = _STRUCTURE.dump_json(page.map_blocks(_empty))
    schema = schema.with_metadata({_KEY: structure, b"lamella.format": str(FORMAT).encode()})
    table = pa.table({name: [getattr(cell, name) for cell in cells] for name in columns}, schema=schema)
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def load_data(path: Path) -> Page | None:
    """Read what a page holds.

    Returns:
        The page; None where there is no such file, or it is of a version that this one does not know.

    Raises:
        ModelError: If it is damaged.
    """
    if not path.is_file():
        return None
    try:
        table = pq.read_table(path)
        metadata = table.schema.metadata or {}
        if metadata.get(b"lamella.format") != str(FORMAT).encode():
            return None
        page = _STRUCTURE.validate_json(metadata[_KEY])
        frame = table.to_pandas().sort_values(["part", "form", "row", "position"], kind="stable")
        groups = dict(iter(frame.groupby(["part", "form"], sort=False)))
        return page.map_blocks(lambda block: _fill(block, groups))
    except (ArithmeticError, LookupError, OSError, TypeError, ValueError) as error:
        said = " ".join(str(error).split())[:120]
        raise ModelError(f"'{path}' is damaged ({said}). Remove it, and run `lamella report` again.") from error


def _list_cells(block: Block) -> Iterator[_Cell]:
    if isinstance(block, Table):
        for number, row in enumerate(block.rows):
            for position, (column, text) in enumerate(zip(block.head, row.cells, strict=True)):
                figure = text if isinstance(text, Printed) else Printed(text)
                yield _Cell(
                    part=block.key,
                    form="table",
                    row=number,
                    position=position,
                    column=column,
                    text=str(text),
                    value=figure.value,
                    low=figure.low,
                    high=figure.high,
                    mark=row.kind,
                    badges="\n".join(row.badges),
                )
    elif isinstance(block, Charts):
        for chart in block.charts:
            yield from _list_chart(chart)


def _list_chart(chart: Chart) -> Iterator[_Cell]:
    number = 0
    for number, mark in enumerate(chart.marks):
        for position, (column, value) in enumerate(_flatten(mark)):
            text, figure = (value, None) if isinstance(value, str) else (None, float(value))
            yield _Cell(part=chart.key, form="chart", row=number, position=position, column=column, text=text,
                        value=figure)  # fmt: skip
    for position, value in enumerate(chart.guides):
        yield _Cell(part=chart.key, form="chart", row=number + 1, position=position, column=_GUIDE, value=value)


def _flatten(mark: Mark) -> Iterator[tuple[str, str | float]]:
    """Yield the fields of a mark that are known, each item of a sequence as one of its own."""
    for field in dataclasses.fields(mark):
        value = getattr(mark, field.name)
        if isinstance(value, tuple):
            yield from ((f"{field.name}.{number}", item) for number, item in enumerate(value))
        elif value is not None:
            yield field.name, value


def _empty(block: Block) -> Block:
    """Return a block without its numbers, which stand in the table."""
    if isinstance(block, Table):
        return replace(block, rows=())
    if isinstance(block, Charts):
        return replace(block, charts=tuple(replace(chart, marks=(), guides=()) for chart in block.charts))
    return block


def _fill(block: Block, groups: dict[Any, pd.DataFrame]) -> Block:
    """Return a block with its numbers."""
    if isinstance(block, Table):
        group = groups.get((block.key, "table"))
        if group is None:
            return block
        rows = tuple(_restore_row(cells) for _, cells in group.groupby("row", sort=True))
        if any(len(row.cells) != len(block.head) for row in rows):
            raise ValueError(f"a row of '{block.key}' has not the {len(block.head)} cells of its head")
        return replace(block, rows=rows)
    if isinstance(block, Charts):
        return replace(block, charts=tuple(_restore_chart(chart, groups) for chart in block.charts))
    return block


def _restore_row(cells: pd.DataFrame) -> Row:
    texts = cells["text"].tolist()
    numbers = [[None if pd.isna(value) else float(value) for value in cells[name]] for name in ("value", "low", "high")]
    figures = tuple(Printed(text, *three) for text, *three in zip(texts, *numbers, strict=True))
    badges = str(cells["badges"].iloc[0])
    return Row(cells=figures, kind=str(cells["mark"].iloc[0]), badges=tuple(badges.split("\n")) if badges else ())


def _restore_chart(chart: Chart, groups: dict[Any, pd.DataFrame]) -> Chart:
    group = groups[chart.key, "chart"]
    is_guide = group["column"] == _GUIDE
    adapter: TypeAdapter[Mark] = TypeAdapter(DRAWN[chart.drawn].mark)
    marks = []
    for _, cells in group[~is_guide].groupby("row", sort=True):
        fields: dict[str, Any] = {}
        for column, text, value in zip(cells["column"], cells["text"], cells["value"], strict=True):
            name, _, item = column.partition(".")
            known = value if text is None or pd.isna(text) else text
            if item:
                fields[name] = (*fields.get(name, ()), known)
            else:
                fields[name] = known
        marks.append(adapter.validate_python(fields))
    return replace(chart, marks=tuple(marks), guides=tuple(group.loc[is_guide, "value"].tolist()))
