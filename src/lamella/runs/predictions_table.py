"""Predictions read from a table of any origin, each cell checked: what `lamella measure` measures."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lamella.analysis.predictions import PredictionTable
from lamella.cohort.rows import Rows, read_rows
from lamella.cohort.spelling import is_missing, refuse_look_alikes, tidy
from lamella.errors import CohortError

_KINDS = ("logit_", "prob_")
_SUM_TOLERANCE = 0.02  # probabilities rounded to two digits, of a few classes, add up to 1 within this


def load_predictions(path: Path, *, positive: str | None = None) -> PredictionTable:
    """Load a predictions table: `slide_id, label, fold`, and `logit_<class>` or `prob_<class>` for each class.

    Args:
        path: CSV or Parquet as `lamella run` writes it; `patient_id`, `fold` and `batch` may be absent.
        positive: The class that is scored; None takes the last.

    Raises:
        CohortError: Naming the row and the cell that cannot be used.
    """
    rows = read_rows(Path(path), called="predictions")
    return parse_predictions(rows, f"predictions '{Path(path).name}'", positive=positive)


def parse_predictions(rows: Rows, whose: str, *, positive: str | None = None) -> PredictionTable:
    """Return rows of text as predictions.

    Args:
        rows: With the columns that `load_predictions` takes.
        whose: What they are of, for messages.
        positive: As `load_predictions` takes it.

    Raises:
        CohortError: As `load_predictions`.
    """
    kind = next((kind for kind in _KINDS if any(name.startswith(kind) for name in rows.columns)), None)
    missing = [name for name in ("slide_id", "label") if name not in rows.columns] + ([] if kind else ["prob_<class>"])
    if missing or kind is None:
        there = ", ".join(f"'{name}'" for name in rows.columns)
        raise CohortError(
            f"{whose} has no column '{missing[0]}'; it has {there}. Name the predictions.csv of a run, or write the "
            "columns slide_id, label and prob_<class> for each class."
        )
    classes = tuple(sorted(name.removeprefix(kind) for name in rows.columns if name.startswith(kind)))
    if len(classes) < 2:
        other = f"{kind}<other class>"
        raise CohortError(
            f"{whose} has one column of scores, '{kind}{classes[0]}', and one a class is needed. Add '{other}'"
            + (f", 1 less '{kind}{classes[0]}'." if kind == "prob_" else ".")
        )
    values = np.array(
        [[_read_score(whose, rows, i, f"{kind}{name}") for name in classes] for i in range(len(rows.cells))]
    )
    if kind == "prob_":
        _check_sums(whose, rows, values)
    slide_ids = _read_names(whose, rows, "slide_id", "slides")
    labels = _read_names(whose, rows, "label", "classes")
    _check_twice(whose, rows, slide_ids)
    for number, label in zip(rows.numbers, labels, strict=True):
        if label not in classes:
            raise CohortError(
                f"{whose}: label '{label}' in row {number} is no class of the columns, which are "
                f"{', '.join(kind + name for name in classes)}. Write the labels as the columns do."
            )
    refuse_look_alikes([*classes, *dict.fromkeys(labels)], whose=whose, what="classes", plural="labels")
    has_patients = "patient_id" in rows.columns
    batches = [tidy(row["batch"]) or None for row in rows.cells] if "batch" in rows.columns else None
    return PredictionTable(
        classes=classes,
        slide_ids=tuple(slide_ids),
        patient_ids=tuple(_read_names(whose, rows, "patient_id", "patients") if has_patients else slide_ids),
        labels=tuple(labels),
        folds=np.array([_read_fold(whose, rows, i) for i in range(len(rows.cells))], dtype=np.int64),
        logits=values if kind == "logit_" else np.log(np.clip(values, np.finfo(np.float64).tiny, 1)),
        batches=None if batches is None else tuple(batches),
        positive=None if positive is None else tidy(positive),
    )


def _read_names(whose: str, rows: Rows, column: str, what: str) -> list[str]:
    """Return the cells of a column: none missing, no two that a person would take for one."""
    cells = [tidy(row.get(column, "")) for row in rows.cells]
    for number, cell in zip(rows.numbers, cells, strict=True):
        if is_missing(cell):
            raise CohortError(f"{whose}: '{column}' is '{cell}' in row {number}. Fill it in, or delete the row.")
    refuse_look_alikes(dict.fromkeys(cells), whose=whose, what=what, plural=f"{column}s")
    return cells


def _read_score(whose: str, rows: Rows, i: int, column: str) -> float:
    """Return a probability or a logit."""
    cell, where = rows.cells[i].get(column, ""), f"{whose}: '{column}' in row {rows.numbers[i]}"
    if cell.endswith("%"):
        raise CohortError(f"{where} is '{cell}', per cent, and a share from 0 to 1 is needed. Divide by 100.")
    try:
        value = float(cell)
    except ValueError as error:
        comma = cell.count(",") == 1 and cell.replace(",", "").lstrip("+-").isdigit()
        remedy = f"Write {cell.replace(',', '.')}, with a decimal point." if comma else "Correct that cell."
        raise CohortError(f"{where} is '{cell}', which is not a number. {remedy}") from error
    if not math.isfinite(value):
        raise CohortError(f"{where} is '{cell}' and a finite number is needed. Correct that cell, or delete the row.")
    if column.startswith("prob_") and not 0 <= value <= 1:
        cells = [float(c) for row in rows.cells if _is_number(c := row.get(column, ""))]
        percent = 1 < max(cells) <= 100 and min(cells) >= 0
        remedy = "If the column holds per cent, divide it by 100." if percent else "Name logits logit_<class>."
        raise CohortError(f"{where} is {cell} and a probability from 0 to 1 is needed. {remedy}")
    return value


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


def _read_fold(whose: str, rows: Rows, i: int) -> int:
    """Return a fold, 0 where there is none."""
    cell = rows.cells[i].get("fold", "")
    if not _is_number(cell or "0") or float(cell or 0) % 1 or float(cell or 0) < 0:
        raise CohortError(f"{whose}: 'fold' in row {rows.numbers[i]} is '{cell}'. Write 0, 1, 2 and so on.")
    return int(float(cell or 0))


def _check_sums(whose: str, rows: Rows, values: NDArray[np.float64]) -> None:
    """Refuse probabilities that do not add up to 1."""
    sums = values.sum(axis=1)
    wrong = np.flatnonzero(np.abs(sums - 1) > _SUM_TOLERANCE)
    if len(wrong):
        raise CohortError(
            f"{whose}: the probabilities in row {rows.numbers[int(wrong[0])]} add up to {sums[wrong[0]]:.3g} and must "
            f"add up to 1 ({len(wrong)} such row{'' if len(wrong) == 1 else 's'}). Give one column for each class."
        )


def _check_twice(whose: str, rows: Rows, slide_ids: Sequence[str]) -> None:
    """Refuse a slide in two rows."""
    first: dict[str, int] = {}
    for number, slide_id in zip(rows.numbers, slide_ids, strict=True):
        if slide_id in first:
            raise CohortError(
                f"{whose}: slide '{slide_id}' stands in rows {first[slide_id]} and {number}. Keep one row a slide."
            )
        first[slide_id] = number
