"""Tables on standard output, for people or, as JSON, for programs."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from lamella.cells import Cell
from lamella.cli.echo import echo

if TYPE_CHECKING:
    from lamella.analysis.verdict import Verdict
    from lamella.features.failures import Failure


def print_table(columns: Sequence[str], rows: Sequence[Mapping[str, Cell]]) -> None:
    """Print rows under their columns: text left, numbers right, nothing as a dash."""
    echo(format_table(columns, rows))


def print_json(content: object) -> None:
    """Print one JSON document."""
    echo(json.dumps(content, indent=2, allow_nan=False))


def print_verdict(verdict: "Verdict | None", *, cost: str | None = "seconds a slide") -> None:
    """Print a study's arms, and its verdict in three sentences.

    Args:
        verdict: None where no arm ran.
        cost: What costs are in; None leaves them out.
    """
    arms = () if verdict is None else verdict.arms
    is_reference = verdict is not None and verdict.verdict.question == "reference"
    rows = [
        {
            "arm": arm.arm,
            "AUC": f"{arm.auc:.3f}",
            "95% interval": "{:.3f} to {:.3f}".format(*arm.interval),
            "smallest margin": _say_margin(arm.margin_to_whole if is_reference else arm.deficit_upper),
            **({} if cost is None else {cost: None if arm.cost is None else f"{arm.cost:.3g}"}),
        }
        for arm in arms
    ]
    print_table(["arm", "AUC", "95% interval", "smallest margin", *([] if cost is None else [cost])], rows)
    for arm in arms:
        if arm.interval[1] < 0.5:
            echo(
                f"{arm.arm}: AUC {arm.auc:.3f}, its 95% interval wholly below 0.50: the order is reversed. "
                "Check for swapped labels and the positive label."
            )
    if verdict is None:
        echo("No arm ran.")
        return
    if verdict.n_lost:
        n = "1 patient is" if verdict.n_lost == 1 else f"{verdict.n_lost} patients are"
        echo(f"{n} left out of all arms, for an arm lacks a slide of theirs.")
    for text in (verdict.verdict.use, verdict.verdict.worse, verdict.verdict.open):
        if text:
            echo(text)


def _say_margin(bound: float | None) -> str | None:
    """Return the smallest margin at which an arm is accepted by the study's first question."""
    return None if bound is None else f"{bound:.3f}"


def tell_failures(failures: Sequence["Failure"], path: Path) -> None:
    """Name each slide that could not be done on standard error and end with exit 1; return when there is none.

    Args:
        failures: The slides that could not be done.
        path: Where they are listed too.
    """
    for failure in failures:
        echo(f"{failure.slide_id} ({failure.stage}): {' '.join(failure.reason.split())}", err=True)
    if failures:
        echo(f"{len(failures)} not done; see '{path}'.", err=True)
        raise typer.Exit(1)


def describe_bytes(n_bytes: float) -> str:
    """Return a size in words.

    Example:
        >>> describe_bytes(1234), describe_bytes(5.6e6), describe_bytes(7.8e9)
        ('0.0 MB', '5.6 MB', '7.8 GB')
    """
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"


def format_table(columns: Sequence[str], rows: Sequence[Mapping[str, Cell]]) -> str:
    r"""Return rows under their columns as aligned text.

    Example:
        >>> print(format_table(["fold", "slides"], [{"fold": "all", "slides": 12}, {"fold": "0", "slides": None}]))
        fold  slides
        all       12
        0          -
    """
    cells = [[_write(row.get(name)) for name in columns] for row in rows]
    right = [any(isinstance(row.get(name), int | float) for row in rows) for name in columns]
    widths = [max(len(name), *(len(row[i]) for row in cells), 0) for i, name in enumerate(columns)]
    lines = [
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in [list(columns), *cells]
    ]
    return "\n".join(lines)


def _write(value: Cell) -> str:
    """Write a cell: floats in three digits, yes and no for truth, a dash for nothing."""
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
