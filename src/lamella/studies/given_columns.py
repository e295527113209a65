"""The columns of predictions that other tools wrote, given our names: slides, patients, labels and scores."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lamella.cohort.rows import Rows, read_rows
from lamella.cohort.spelling import tidy
from lamella.errors import CohortError

_KINDS = ("prob_", "logit_")
_PATIENTS = ("patient_id", "PATIENT", "patient", "case_id")
_LABELS = ("label", "target", "y_true")
_CLAM = ("slide_id", "Y", "Y_hat")
_SCORE = re.compile(r"p_\d+")  # CLAM's
_INDEX = re.compile(r"|Unnamed: \d+|index")  # of pandas, written without being asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What a table of patients says that tables of predictions may leave out.

    Attributes:
        patients: Patient of each slide.
        labels: Of each slide and patient.
        batches: Of each slide and patient.
        folds: Of each slide and patient.
    """

    patients: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    batches: dict[str, str] = field(default_factory=dict)
    folds: dict[str, str] = field(default_factory=dict)

    def find(self, name: str, row: dict[str, str]) -> str | None:
        """Return the label, batch or fold of a row's slide, else of its patient; None where it is not known."""
        values = {"label": self.labels, "batch": self.batches, "fold": self.folds}[name]
        return values.get(tidy(row.get("slide_id", "")), values.get(tidy(row.get("patient_id", ""))))


def load_known(path: Path | str) -> Known:
    """Return what a table of patients says: `slide_id` or `patient_id` or both, and `label`, `batch`, `fold`.

    Raises:
        CohortError: If it names neither, or says two things of one slide or patient.
    """
    rows = read_rows(Path(path), called="patients")
    whose = f"patients '{Path(path).name}'"
    patient = next((column for column in _PATIENTS if column in rows.columns), None)
    if "slide_id" not in rows.columns and patient is None:
        there = ", ".join(f"'{column}'" for column in rows.columns)
        raise CohortError(f"{whose} has neither a column slide_id nor patient_id; it has {there}. Name one so.")
    if not {"label", "batch", "fold"} & set(rows.columns) and ("slide_id" not in rows.columns or patient is None):
        there = ", ".join(f"'{column}'" for column in rows.columns)
        raise CohortError(
            f"{whose} tells nothing that predictions may lack; it has {there}. Name columns slide_id with patient_id, "
            "label, batch or fold."
        )
    known = Known()
    of_patients: dict[tuple[str, str], set[str]] = {}
    fields = (("label", known.labels), ("batch", known.batches), ("fold", known.folds))
    for number, row in zip(rows.numbers, rows.cells, strict=True):
        ids = [tidy(row.get(name or "", "")) for name in ("slide_id", patient)]
        if ids[0] and ids[1]:
            _put(known.patients, ids[0], ids[1], f"{whose}, row {number}: patient")
        for name, values in fields:
            value = tidy(row.get(name, ""))
            if value:
                _put(values, ids[0] or ids[1], value, f"{whose}, row {number}: {name}")
                of_patients.setdefault((name, ids[1]), set()).add(value)
    for name, values in fields:  # of a patient, where all slides agree
        for (named, whom), said in of_patients.items():
            if named == name and whom and len(said) == 1:
                values.setdefault(whom, next(iter(said)))
    return known


def _put(values: dict[str, str], key: str, value: str, where: str) -> None:
    if values.setdefault(key, value) != value:
        raise CohortError(f"{where} of '{key}' is '{value}', and '{values[key]}' in an earlier row. Keep one.")


def name_columns(rows: Rows, whose: str, known: Known, *, names: dict[str, str]) -> "NamedRows":
    """Return rows with `slide_id, patient_id, label` and `prob_<class>` or `logit_<class>` for each class, or `score`.

    Args:
        rows: As they were read.
        whose: What they are of, for messages.
        known: What the table need not say itself.
        names: What CLAM's numbers stand for.

    Raises:
        CohortError: Naming what is missing, or the row and the cell that cannot be used.
    """
    rows = replace(rows, columns=tuple(column for column in rows.columns if not _INDEX.fullmatch(column)))
    rows, has_slides = _name_units(whose, _keep_tested(whose, rows), known)
    rows = _name_labels(whose, _name_scores(whose, rows, names), known)
    return NamedRows(rows=_take_facts(whose, rows, known), has_slides=has_slides)


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedRows:
    """Rows under our names.

    Attributes:
        rows: With `slide_id, patient_id, label` and a score for each class.
        has_slides: Whether they are of slides, and not of patients.
        notes: What must be said of how they were read.
    """

    rows: Rows
    has_slides: bool
    notes: tuple[str, ...] = ()


def _keep_tested(whose: str, rows: Rows) -> Rows:
    if "side" not in rows.columns:
        return rows
    kept = [i for i, row in enumerate(rows.cells) if tidy(row.get("side", "")) == "test"]
    if not kept:
        raise CohortError(f"{whose}: no row has side 'test', and only those count. Call the tested rows so.")
    return Rows(rows.columns, tuple(rows.cells[i] for i in kept), tuple(rows.numbers[i] for i in kept))


def _name_units(whose: str, rows: Rows, known: Known) -> tuple[Rows, bool]:
    """Return rows with `slide_id` and `patient_id`, and whether they are of slides."""
    patient = next((column for column in _PATIENTS if column in rows.columns), None)
    has_slides = "slide_id" in rows.columns
    if not has_slides and patient is None:
        there = ", ".join(f"'{column}'" for column in rows.columns)
        raise CohortError(
            f"{whose} has neither a column slide_id nor patient_id; it has {there}. Name the column of slides or of "
            "patients so."
        )
    cells = []
    for row in rows.cells:
        slide_id = tidy(row.get("slide_id", "")) if has_slides else tidy(row.get(patient or "", ""))
        whom = tidy(row.get(patient, "")) if patient is not None else known.patients.get(slide_id, slide_id)
        cells.append(row | {"slide_id": slide_id, "patient_id": whom})
    if has_slides and patient is None and known.patients:
        missing = next((row["slide_id"] for row in cells if row["slide_id"] not in known.patients), None)
        if missing is not None:
            raise CohortError(f"{whose}: slide '{missing}' is not in the table of patients. Add it there.")
    return _with(rows, cells, "slide_id", "patient_id"), has_slides


def _name_scores(whose: str, rows: Rows, names: dict[str, str]) -> Rows:
    """Return rows whose scores are called `prob_<class>`, `logit_<class>` or `score`, and CLAM's numbers labels."""
    if any(column.startswith(_KINDS) for column in rows.columns):
        return rows
    if set(_CLAM) <= set(rows.columns):
        return _name_clam(rows, names)
    target = next((column for column in rows.columns if _is_target(rows, column)), None)
    if target is not None:
        classes = [column for column in rows.columns if column.startswith(f"{target}_")]
        named = {column: f"prob_{column.removeprefix(f'{target}_')}" for column in classes}
        cells = [row | {"label": row.get(target, "")} | {new: row.get(old, "") for old, new in named.items()}
                 for row in rows.cells]  # fmt: skip
        return _with(rows, cells, "label", *named.values())
    if "score" in rows.columns:
        return rows
    there = ", ".join(f"'{column}'" for column in rows.columns)
    raise CohortError(
        f"{whose} has no scores that are known; it has {there}. Call them prob_<class> or logit_<class>, one for each "
        "class, or score."
    )


def _is_target(rows: Rows, column: str) -> bool:
    """Whether a column is STAMP's label: every value of it has a column of scores, TARGET_VALUE, and there are two."""
    named = {name.removeprefix(f"{column}_") for name in rows.columns if name.startswith(f"{column}_")}
    return len(named) > 1 and {row.get(column, "") for row in rows.cells} <= named


def find_clam_labels(tables: Sequence[Rows], known: Known, whose: str) -> dict[str, str]:
    """Return the label that each number stands for in CLAM's tables: the one that those slides are known to have.

    Args:
        tables: All files of an arm: in one of them a label may not occur.
        known: Labels; where there are none, the numbers stand for themselves.
        whose: What the tables are of, for messages.

    Raises:
        CohortError: If the slides of a number are known by several labels, or by none.
    """
    clam = [rows for rows in tables if set(_CLAM) <= set(rows.columns)]
    numbers = sorted({name.removeprefix("p_") for rows in clam for name in rows.columns if _SCORE.fullmatch(name)})
    if not known.labels:
        return {number: number for number in numbers}
    labels: dict[str, set[str]] = {number: set() for number in numbers}
    for row in (row for rows in clam for row in rows.cells):
        label, number = known.find("label", row), _read_whole(row.get("Y", ""))
        if label is not None and number in labels:
            labels[number].add(label)
    left = sorted(set(known.labels.values()).difference(*labels.values()))
    empty = [number for number in numbers if not labels[number]]
    if len(left) == len(empty) == 1:
        labels[empty[0]] = {left[0]}
    for number in numbers:
        if len(labels[number]) != 1:
            stands = " and ".join(sorted(labels[number])) or "no slide"
            raise CohortError(
                f"{whose}: Y = {number} stands for {stands} of the table of patients, and one label is needed. Check "
                "that both are of one cohort."
            )
    names = {number: next(iter(labels[number])) for number in numbers}
    if len(set(names.values())) < len(names):
        raise CohortError(f"{whose}: two values of Y stand for one label of the table of patients. Check the labels.")
    return names


def _read_whole(cell: str) -> str:
    """Return a whole number as it is written without a point: pandas makes 1 into 1.0."""
    return re.sub(r"\.0+$", "", cell)


def _name_clam(rows: Rows, names: dict[str, str]) -> Rows:
    cells = []
    for row in rows.cells:
        number = _read_whole(row.get("Y", ""))
        scores = {f"prob_{name}": row.get(f"p_{digit}", "") for digit, name in names.items()}
        cells.append(row | {"label": names.get(number, number)} | scores)
    return _with(rows, cells, "label", *(f"prob_{name}" for name in names.values()))


def _name_labels(whose: str, rows: Rows, known: Known) -> Rows:
    """Return rows with `label`: the table's own, held against the cohort's, or the cohort's."""
    column = next((name for name in _LABELS if name in rows.columns), None)
    if column is None and not known.labels:
        there = ", ".join(f"'{name}'" for name in rows.columns)
        raise CohortError(
            f"{whose} has no column label; it has {there}. Name the column of labels so, or pass a table of patients "
            "with labels (--patients)."
        )
    cells = []
    for number, row in zip(rows.numbers, rows.cells, strict=True):
        stated = known.find("label", row)
        label = tidy(row.get(column, "")) if column is not None else stated or ""
        if stated is not None and label != stated:
            raise CohortError(
                f"{whose}: '{row['slide_id']}' is '{label}' in row {number} and '{stated}' in the table of patients. "
                "Correct one of the two."
            )
        cells.append(row | {"label": label})
    return _with(rows, cells, "label")


def spread_scores(tables: Sequence[NamedRows], whose: Sequence[str], positive: str | None) -> list[NamedRows]:
    """Return an arm's tables, `score` spread to two classes: a probability where all lie in 0 to 1, else log-odds.

    Args:
        tables: All files of an arm: what labels there are, and what the score is, is seen in all of them.
        whose: What each is of, for messages.
        positive: The class that `score` is of; None takes the last label sorted.

    Raises:
        CohortError: If there are not two labels, or a score is no number.
    """
    scored = [not any(column.startswith(_KINDS) for column in table.rows.columns) for table in tables]
    if not any(scored):
        return list(tables)
    labels = sorted({tidy(row["label"]) for table in tables for row in table.rows.cells})
    numbers = [
        [_read_number(of, table.rows, i) for i in range(len(table.rows.cells))] if is_scored else []
        for table, of, is_scored in zip(tables, whose, scored, strict=True)
    ]
    is_share = all(0 <= number <= 1 for part in numbers for number in part)
    return [
        _spread(of, table, part, labels, "prob" if is_share else "logit", positive) if is_scored else table
        for table, of, part, is_scored in zip(tables, whose, numbers, scored, strict=True)
    ]


def _spread(
    whose: str, table: NamedRows, values: list[float], labels: list[str], kind: str, positive: str | None
) -> NamedRows:
    if len(labels) != 2:
        raise CohortError(
            f"{whose}: a column score speaks of two classes and the labels are {', '.join(labels)}. Give prob_<class> "
            "for each class."
        )
    looked_for = labels[-1] if positive is None else tidy(positive)
    if looked_for not in labels:
        raise CohortError(f"{whose}: no label is '{looked_for}'. Name one of {', '.join(labels)} as positive.")
    other = next(label for label in labels if label != looked_for)
    if kind == "prob":
        scored = [{f"prob_{looked_for}": repr(value), f"prob_{other}": repr(1 - value)} for value in values]
        note = f"score is read as the probability of '{looked_for}', for all lie between 0 and 1."
    else:
        scored = [{f"logit_{looked_for}": repr(value), f"logit_{other}": "0"} for value in values]
        note = f"score is read as log-odds of '{looked_for}'; calibration means nothing where it is another number."
    cells = [row | added for row, added in zip(table.rows.cells, scored, strict=True)]
    return replace(table, rows=_with(table.rows, cells, *scored[0]), notes=(note,))


def _read_number(whose: str, rows: Rows, i: int) -> float:
    cell, where = rows.cells[i].get("score", ""), f"{whose}: 'score' in row {rows.numbers[i]}"
    if cell.endswith("%"):
        raise CohortError(f"{where} is '{cell}', per cent, and a share from 0 to 1 is needed. Divide by 100.")
    try:
        value = float(cell)
    except ValueError as error:
        raise CohortError(f"{where} is '{cell}', which is not a number. Correct that cell.") from error
    if not math.isfinite(value):
        raise CohortError(f"{where} is '{cell}' and a finite number is needed. Correct that cell, or delete the row.")
    return value


def _take_facts(whose: str, rows: Rows, known: Known) -> Rows:
    """Return rows with the batches and folds that are known, where the table has none of its own.

    Raises:
        CohortError: If some rows have a fold and some have none: those would count as of one fold.
    """
    for name, values in (("batch", known.batches), ("fold", known.folds)):
        if name not in rows.columns and values:
            rows = _with(rows, [row | {name: known.find(name, row) or ""} for row in rows.cells], name)
            if name == "fold":
                lacking = next((row["slide_id"] for row in rows.cells if not row["fold"]), None)
                if lacking is not None:
                    raise CohortError(
                        f"{whose}: the table of patients gives no fold of '{lacking}'. Add it there, spelt alike."
                    )
    blank = [number for number, row in zip(rows.numbers, rows.cells, strict=True) if not tidy(row.get("fold", ""))]
    if "fold" in rows.columns and blank:
        raise CohortError(f"{whose}: 'fold' is empty in row {blank[0]}. Fill it in, or delete the column.")
    return rows


def _with(rows: Rows, cells: Sequence[dict[str, str]], *columns: str) -> Rows:
    added = tuple(column for column in columns if column not in rows.columns)
    return replace(rows, columns=(*rows.columns, *added), cells=tuple(cells))
