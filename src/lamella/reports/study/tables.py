"""Tables of a study's page: rows of text, ready to sort, filter and download."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

NONE = "-"
PRETRAINING = {"imagenet": "ImageNet", "histology": "histology", "random": "random"}
NOT_ADJUSTED = "Intervals are of 95%, each by itself: they are not adjusted for there being many."
HELD_FIXED = (
    "Bootstrap intervals hold the trained models fixed and draw patients; under cross-validation they are too narrow."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row.

    Attributes:
        cells: Its texts, the first being its name.
        kind: `recommended`, `best`, `starred`, `absent` (it did not run), or nothing.
        badges: Words beside the name, which are not part of it.
    """

    cells: tuple[str, ...]
    kind: str = ""
    badges: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyTable:
    """A table with its name in files.

    Attributes:
        key: Name of its download.
        title: Its heading.
        head: Names of the columns.
        rows: The rows.
        note: What must be said below it.
        empty: What is said in its place when it has no row.
    """

    key: str
    title: str
    head: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str = ""
    empty: str = "There is nothing to show."

    @property
    def badged(self) -> bool:
        """Whether any row bears a badge; a download then has a column for them."""
        return any(row.badges for row in self.rows)


def tabulate_rows(key: str, title: str, rows: Sequence[dict[str, str]], *, empty: str, note: str = "") -> StudyTable:
    """Return rows as they stand, their keys being the columns."""
    return StudyTable(
        key=key,
        title=title,
        head=tuple(rows[0]) if rows else (),
        rows=tuple(Row(cells=tuple(str(value) for value in row.values())) for row in rows),
        note=note,
        empty=empty,
    )


def format_number(value: Any, digits: int = 3) -> str:
    """Return a number with so many digits; a dash where there is none.

    Example:
        >>> format_number(0.91349), format_number(None)
        ('0.913', '-')
    """
    return NONE if value is None else f"{float(value):.{digits}f}"


def format_short(value: Any) -> str:
    """Return a number to three figures, never in powers of ten.

    Example:
        >>> format_short(0.0063108), format_short(1234.5), format_short(None)
        ('0.00631', '1234', '-')
    """
    if value is None:
        return NONE
    text = f"{float(value):.3g}"
    return f"{float(value):.0f}" if "e+" in text else f"{float(value):.6f}" if "e-" in text else text


def format_interval(interval: Any, *, signed: bool = False, digits: int = 3) -> str:
    """Return an interval in words; a dash where there is none.

    Example:
        >>> format_interval([-0.12, 0.034], signed=True)
        '-0.120 to +0.034'
    """
    if interval is None:
        return NONE
    sign = "+" if signed else ""
    return f"{interval[0]:{sign}.{digits}f} to {interval[1]:{sign}.{digits}f}"


def format_p(p: Any) -> str:
    """Return a p value as it is printed.

    Example:
        >>> format_p(0.00021), format_p(0.0421)
        ('<0.001', '0.042')
    """
    return NONE if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def format_seconds(seconds: Any) -> str:
    """Return a duration in words.

    Example:
        >>> format_seconds(42.3), format_seconds(754), format_seconds(9000), format_seconds(None)
        ('42 s', '13 min', '2.5 h', '-')
    """
    if seconds is None:
        return NONE
    value = float(seconds)
    return f"{value:.0f} s" if value < 90 else f"{value / 60:.0f} min" if value < 5400 else f"{value / 3600:.1f} h"
