"""Predictions that any tool wrote, read into the long table from which arms are judged.

    slide_id or patient_id or both, label, prob_<class> or logit_<class> or score    ours, or a table of one's own
    PATIENT, <target>, pred, <target>_<class>...                                      STAMP's patient-preds.csv
    slide_id, Y, Y_hat, p_0, p_1...                                                   CLAM's fold_0.csv

`fold`, `seed`, `batch` and `arm` count where there are such columns. A folder may be named, too: of a run, of a study,
or one that holds a file a fold.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from lamella.analysis.predictions import PredictionTable, average_by_patient
from lamella.cohort.rows import Rows, read_rows
from lamella.cohort.spelling import refuse_look_alikes, tidy
from lamella.errors import CohortError
from lamella.runs.predictions_table import parse_predictions
from lamella.studies.given_columns import Known, NamedRows, find_clam_labels, name_columns, spread_scores

_FOLD_FILES = ("split-*/patient-preds.csv", "fold-*/patient-preds.csv", "fold_*.csv")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GivenArm:
    """What one tool, or one setting of it, predicted.

    Attributes:
        name: What it is called.
        tables: One a seed, by seed.
        has_folds: Whether the files say in which fold a row was tested.
        has_slides: Whether rows are slides, and not patients.
        notes: What must be said of how it was read.
    """

    name: str
    tables: Mapping[int, PredictionTable]
    has_folds: bool
    has_slides: bool
    notes: tuple[str, ...] = ()


def load_given(
    path: Path | str, *, name: str, known: Known | None = None, positive: str | None = None
) -> list[GivenArm]:
    """Return the arms that a table or folder of predictions holds.

    Args:
        path: A table (CSV, TSV or Parquet); the folder of a run or study of ours; or one that holds a file a fold, as
            STAMP and CLAM write them (`split-0/patient-preds.csv`, `fold_0.csv`).
        name: What the arm is called, where the table has no column `arm`.
        known: Patients, labels, batches and folds that the tables need not have.
        positive: The class that a column `score` is of; None takes the last label sorted.

    Raises:
        CohortError: If a table cannot be read or is of no form that is known, with the row and the cell.
    """
    path = Path(path)
    files = _list_files(path)
    known, tables = known or Known(), [read_rows(file, called="predictions") for file in files]
    names = find_clam_labels(tables, known, f"predictions '{path.name}'")
    of = "" if path.stem == name else f" of {name}"
    whose = [f"predictions '{file.relative_to(path.parent).as_posix()}'{of}" for file in files]
    named = [name_columns(rows, said, known, names=names) for rows, said in zip(tables, whose, strict=True)]
    spread = spread_scores(named, whose, positive)
    read = [_read(part, said, name, positive) for part, said in zip(spread, whose, strict=True)]
    if len(files) == 1:
        arms: dict[str, list[_Part]] = {}
        for part in read[0]:
            arms.setdefault(part.arm or name, []).append(part)
        return [_join_seeds(arm, parts) for arm, parts in arms.items()]
    return [_join_files(name, files, [_take_one(file, parts) for file, parts in zip(files, read, strict=True)])]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Part:
    """The rows of one arm and seed in one file."""

    arm: str | None
    seed: int
    table: PredictionTable
    has_folds: bool
    has_slides: bool
    notes: tuple[str, ...]


def _list_files(path: Path) -> list[Path]:
    """List the tables that a path stands for: itself, or what lies in the folder, a file a fold in their order."""
    if not path.is_dir():
        return [path]
    for name in ("predictions.parquet", "predictions.csv"):  # of a study, of a run
        if (path / name).exists():
            return [path / name]
    for pattern in _FOLD_FILES:
        files = sorted(path.glob(pattern), key=lambda file: _find_numbers(file.relative_to(path).as_posix()))
        if files:
            return files
    raise CohortError(
        f"'{path}' holds no predictions: no predictions.csv or predictions.parquet, and no file a fold "
        f"({', '.join(_FOLD_FILES)}). Name a table."
    )


def _find_numbers(name: str) -> tuple[int, ...]:
    return tuple(int(digits) for digits in re.findall(r"\d+", name))


def _take_one(file: Path, parts: Sequence[_Part]) -> _Part:
    if len(parts) > 1:
        raise CohortError(
            f"'{file.parent.name}/{file.name}' holds {len(parts)} arms or seeds, and a file a fold holds one. Join the "
            "files into one table with a column fold."
        )
    return parts[0]


def _join_seeds(name: str, parts: Sequence[_Part]) -> GivenArm:
    first = parts[0]
    return GivenArm(
        name=name,
        tables={part.seed: part.table for part in parts},
        has_folds=first.has_folds,
        has_slides=first.has_slides,
        notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
    )


def _join_files(name: str, files: Sequence[Path], parts: Sequence[_Part]) -> GivenArm:
    """Return the arm of a file a fold; files that score the same patients are of models on one test set, as seeds are.

    Raises:
        CohortError: If files share some patients and not all, or name other classes.
    """
    tables = [part.table for part in parts]
    classes = {table.classes for table in tables}
    if len(classes) > 1:
        raise CohortError(f"the files of '{name}' have columns for different classes. Give each the same columns.")
    units = [set(table.slide_ids) for table in tables]
    repeats = all(ids == units[0] for ids in units)
    if not repeats:
        for number, ids in enumerate(units):
            shared = sorted(ids & set().union(*units[:number]))
            if shared:
                raise CohortError(
                    f"'{files[number].parent.name}/{files[number].name}' and an earlier file of '{name}' both score "
                    f"'{shared[0]}', and not all the same patients. A patient is tested in one fold, or by every model."
                )
    notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
    if repeats:
        said = (
            f"{name}: its {len(files)} files score the same patients, so they are averaged as models of one test set."
        )
        return GivenArm(
            name=name, tables=dict(enumerate(tables)), has_folds=parts[0].has_folds, has_slides=parts[0].has_slides,
            notes=(*notes, said),
        )  # fmt: skip
    joined = PredictionTable(
        classes=tables[0].classes,
        slide_ids=tuple(name for table in tables for name in table.slide_ids),
        patient_ids=tuple(name for table in tables for name in table.patient_ids),
        labels=tuple(label for table in tables for label in table.labels),
        folds=np.concatenate([np.full(len(table.slide_ids), fold) for fold, table in enumerate(tables)]),
        logits=np.concatenate([table.logits for table in tables]),
        batches=None
        if any(table.batches is None for table in tables)
        else tuple(batch for table in tables for batch in table.batches or ()),
        positive=tables[0].positive,
    )
    return GivenArm(name=name, tables={0: joined}, has_folds=True, has_slides=parts[0].has_slides, notes=notes)


def _read(named: NamedRows, whose: str, name: str, positive: str | None) -> list[_Part]:
    """Return the arms and seeds of one table."""
    rows = named.rows
    has_folds = "fold" in rows.columns
    parts = []
    for (arm, seed), chosen in _group(whose, rows).items():
        said = whose if arm is None else f"{whose}, arm '{arm}'"
        parts.append(
            _Part(
                arm=arm,
                seed=seed,
                table=parse_predictions(chosen, said, positive=positive),
                has_folds=has_folds,
                has_slides=named.has_slides,
                notes=tuple(f"{arm or name}: {note}" for note in named.notes),
            )
        )
    return parts


def _group(whose: str, rows: Rows) -> dict[tuple[str | None, int], Rows]:
    """Return the rows of each arm and seed."""
    groups: dict[tuple[str | None, int], list[int]] = {}
    for i, row in enumerate(rows.cells):
        arm = (tidy(row.get("arm", "")) or None) if "arm" in rows.columns else None
        cell = row.get("seed", "") or "0"
        if not re.fullmatch(r"\d+(\.0+)?", cell):
            raise CohortError(f"{whose}: 'seed' in row {rows.numbers[i]} is '{cell}'. Write 0, 1, 2 and so on.")
        groups.setdefault((arm, int(float(cell))), []).append(i)
    return {
        key: Rows(rows.columns, tuple(rows.cells[i] for i in chosen), tuple(rows.numbers[i] for i in chosen))
        for key, chosen in groups.items()
    }


def join_arms(arms: Sequence[GivenArm]) -> pd.DataFrame:
    """Return the long table of all arms: `arm slide_id patient_id label batch fold seed side logit_<class>`.

    Where one arm has rows of patients, all are brought to patients. Folds are matched by who is in them, for tools
    number them from 0 or from 1.

    Raises:
        CohortError: If arms have other classes, two have one name, or their folds divide patients differently.
    """
    names = [arm.name for arm in arms]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise CohortError(f"two arms are called '{twice}'. Name them: NAME=TABLE.")
    classes = {tuple(sorted(table.classes)) for arm in arms for table in arm.tables.values()}
    if len(classes) > 1:
        said = " and ".join(", ".join(names_) for names_ in sorted(classes))
        raise CohortError(f"the tables speak of different classes: {said}. Name the columns of scores alike.")
    by_patient = not all(arm.has_slides and not _names_patients(arm, arms) for arm in arms)
    folded = [arm for arm in arms if arm.has_folds]
    if folded and len(folded) < len(arms):
        lacking = next(arm.name for arm in arms if not arm.has_folds)
        raise CohortError(
            f"'{folded[0].name}' says in which fold each row was tested and '{lacking}' does not. Add the column fold, "
            "or pass a table of patients with folds (--patients)."
        )
    frames = [
        _frame(arm.name, seed, average_by_patient_id(table) if by_patient else table)
        for arm in arms
        for seed, table in arm.tables.items()
    ]
    frame = pd.concat(frames, ignore_index=True)
    for column, what in (("slide_id", "slides"), ("patient_id", "patients")):
        refuse_look_alikes(dict.fromkeys(frame[column]), whose="the tables", what=what, plural=f"{column}s")
    frame = _match_folds(frame, names) if folded else frame
    return frame if _share_seeds(arms) else _average_seeds(frame)


def _names_patients(arm: GivenArm, arms: Sequence[GivenArm]) -> bool:
    """Say whether the slide ids of an arm are another's patients: it predicted patients (`unit: patient`)."""
    own = {name for table in arm.tables.values() for name in table.slide_ids}
    others = [table for other in arms if other is not arm for table in other.tables.values()]
    return any(own <= set(table.patient_ids) and not own & set(table.slide_ids) for table in others)


def _share_seeds(arms: Sequence[GivenArm]) -> bool:
    """Say whether all arms have the same seeds, each with the same slides."""
    if len({tuple(sorted(arm.tables)) for arm in arms}) > 1:
        return False
    return all(len({frozenset(table.slide_ids) for table in arm.tables.values()}) == 1 for arm in arms)


def _average_seeds(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row an arm and slide: the mean logits over its seeds, which other arms do not have."""
    logits = [name for name in map(str, frame.columns) if name.startswith("logit_")]
    means = frame.groupby(["arm", "slide_id"], sort=False)[logits].mean().reset_index()
    first = frame.drop_duplicates(["arm", "slide_id"]).drop(columns=[*logits, "seed"])
    return first.merge(means, on=["arm", "slide_id"], how="left").assign(seed=0)[list(frame.columns)]


def average_by_patient_id(table: PredictionTable) -> PredictionTable:
    """Return one row a patient, whose id is its slide's too.

    Raises:
        CohortError: If a patient's slides differ in label.
    """
    if table.mixed_patients:
        raise CohortError(
            f"slides of patient '{table.mixed_patients[0]}' differ in label, and another table has one row a patient. "
            "Give both by slide."
        )
    averaged = average_by_patient(table)
    return replace(averaged, slide_ids=averaged.patient_ids)


def _frame(arm: str, seed: int, table: PredictionTable) -> pd.DataFrame:
    columns = {
        "arm": arm, "slide_id": table.slide_ids, "patient_id": table.patient_ids, "label": table.labels,
        "batch": [None] * len(table.slide_ids) if table.batches is None else table.batches, "fold": table.folds,
        "seed": seed, "side": "test",
    }  # fmt: skip
    logits = {f"logit_{name}": table.logits[:, table.classes.index(name)] for name in sorted(table.classes)}
    return pd.DataFrame(columns | logits)


def _match_folds(frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Return a table whose arms call the same fold by the same number: the first arm's, matched by their patients."""
    reference = frame[frame["arm"] == names[0]].drop_duplicates("slide_id").set_index("slide_id")["fold"]
    parts = []
    for name in names:
        part = frame[frame["arm"] == name].copy()
        moved = part.groupby("slide_id")["fold"].nunique() > 1
        if moved.any():
            raise CohortError(
                f"'{name}' tests '{moved.idxmax()}' in another fold with another seed (repeated cross-validation). "
                "Compare one repeat at a time."
            )
        known = part["slide_id"].map(reference)
        pairs = pd.DataFrame({"own": part["fold"], "known": known}).dropna().drop_duplicates()
        if pairs["own"].duplicated().any() or pairs["known"].duplicated().any():
            raise CohortError(
                f"'{names[0]}' and '{name}' were divided into different folds, so AUCs within folds share no pairs "
                "of patients in common. Predict both with the same folds."
            )
        numbers = {int(own): int(fold) for own, fold in pairs.itertuples(index=False)}
        free = max([*reference.tolist(), *numbers.values()], default=-1) + 1
        for own in sorted(set(part["fold"]) - numbers.keys()):  # folds of which the first arm has no patient
            numbers[int(own)], free = int(free), free + 1
        part["fold"] = part["fold"].map(numbers)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)
