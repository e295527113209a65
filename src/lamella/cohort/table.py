"""Cohort tables: read into a `Cohort`, and written back."""

import os
import shlex
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path

from lamella.cohort.cohort import Cohort, CohortColumns, CohortSlide, find_mixed_patients
from lamella.cohort.column_names import OPTIONS, check_names, check_spelling
from lamella.cohort.columns import ColumnReader, is_path
from lamella.cohort.outcomes import list_label_notes
from lamella.cohort.rows import read_rows
from lamella.cohort.series import merge_series
from lamella.cohort.spelling import tidy
from lamella.errors import CohortError, LeakageError, SettingsError
from lamella.files import write_table
from lamella.words import name_some


def load_cohort(
    path: Path | str,
    *,
    columns: CohortColumns | None = None,
    positive: str | None = None,
    labelled: bool = True,
) -> Cohort:
    """Read a cohort table, CSV or Parquet.

    Slides need not be there yet (`find_missing` lists those that are not), and patients may stand in two splits
    (`list_rounds` refuses that), so that a table can be read to be mended.

    Args:
        path: The table. Slide paths in it are relative to its folder.
        columns: Names of the columns, where they differ from the usual ones.
        positive: The label whose probability is scored; None takes the last one sorted, and says so in the notes.
        labelled: Whether every slide must have a label, and two classes must occur. False: labels may be absent.

    Raises:
        CohortError: If the table is absent, unreadable, or does not hang together.
        LeakageError: If one file stands under two ids.
        SettingsError: If `positive` is not a label of the table.
    """
    path = Path(path)
    columns = columns or CohortColumns()
    rows = read_rows(path)
    check_names(path, rows, columns, labelled=labelled)
    check_spelling(path, rows, columns, labelled=labelled)
    reader = ColumnReader(path, rows, columns)
    # The folder's links are followed once, so that ".." in a cell means what the system means by it.
    folder = path.resolve().parent
    cells = reader.texts("slide")
    reader.refuse(
        "slide",
        cells,
        lambda cell: not is_path(cell),
        "holds a text that is too long for the name of a file,",
        "Write the path of the slide's file.",
    )
    reader.refuse(
        "slide",
        cells,
        lambda cell: os.sep == "/" and "\\" in cell and not (folder / cell).exists(),
        "says '{cell}', whose backslashes are no folders here,",
        "Write / between folders.",
    )
    paths = [_find_file(folder, cell) for cell in cells]
    slide_ids = reader.slide_ids(paths)
    _check_same_files(path, slide_ids, paths)
    patients = reader.names("patient_id", "patients", "patient ids") if reader.has("patient_id") else slide_ids
    values = zip(
        slide_ids,
        paths,
        patients,
        reader.labels(labelled=labelled),
        reader.splits(),
        reader.folds(),
        reader.resolutions(),
        reader.batches(),
        [cell or None for cell in reader.raw("slide_image")],
        strict=True,
    )
    names = [field.name for field in fields(CohortSlide)]
    slides = tuple(CohortSlide(**dict(zip(names, value, strict=True))) for value in values)
    slides, merged = merge_series(path, slides, patients_given=reader.has("patient_id"))
    _check_one_plan(path, slides)
    classes = tuple(sorted({slide.label for slide in slides if slide.label is not None}))
    if labelled and len(classes) == 1:
        raise CohortError(
            f"cohort '{path.name}' has one class, '{classes[0]}', in all its {len(slides)} slides and two or more are "
            "needed. Add slides of another class, or name the right column with --label-col."
        )
    chosen = _choose_positive(classes, positive, labelled=labelled)
    cohort = Cohort(slides=slides, classes=classes, positive=chosen, patients_given=reader.has("patient_id"))
    return replace(cohort, notes=(*_list_notes(cohort, columns, chosen_by_us=positive is None), *merged))


def save_cohort(cohort: Cohort, path: Path | str) -> None:
    """Write a cohort as CSV, under the usual column names; reading it again gives the same slides.

    Slide paths become relative to the table where both lie under one folder other than the root. Columns without
    content are left out, and so is `patient_id` where each slide was only taken for a patient: an assumption must not
    turn into data.

    Raises:
        OutputError: If the file cannot be written.
    """
    path = Path(path)
    folder = path.parent.resolve()
    rows = [asdict(slide) | {"slide": _relative(slide.path, folder)} for slide in cohort.slides]
    used = [name for name in OPTIONS if any(row[name] is not None for row in rows)]
    if not cohort.patients_given:
        used.remove("patient_id")
    write_table(path, used, ({name: row[name] for name in used} for row in rows))


def _relative(slide: Path, folder: Path) -> str:
    """Return `slide` as seen from `folder`, or as it is when the two share nothing but the root."""
    if not slide.is_absolute():
        slide = slide.absolute()
    try:
        shared = Path(os.path.commonpath([slide, folder]))
    except ValueError:  # two drives
        return str(slide)
    return str(slide) if shared == Path(shared.anchor) else Path(os.path.relpath(slide, folder)).as_posix()


def _find_file(folder: Path, cell: str) -> Path:
    """Return the path of a cell; where no such file is there, the one whose name differs in accents' encoding only.

    macOS writes names decomposed (NFD), tables hold them composed (NFC), and Linux tells the two apart.
    """
    spellings = [cell, *(unicodedata.normalize(form, cell) for form in ("NFC", "NFD")), tidy(cell)]
    paths = [Path(os.path.normpath(folder / Path(text).expanduser())) for text in spellings]
    try:
        return next((path for path in paths if path.exists()), paths[0])
    except OSError:  # a name longer than a file system takes is that of no file
        return paths[0]


def _check_same_files(table: Path, slide_ids: Sequence[str], paths: Sequence[Path]) -> None:
    """Refuse one file under two ids."""
    first: dict[Path, str] = {}
    for slide_id, path in zip(slide_ids, paths, strict=True):
        other = first.setdefault(path, slide_id)
        if other != slide_id:
            raise LeakageError(
                f"slides '{other}' and '{slide_id}' of cohort '{table.name}' are the same file '{path.name}'. "
                "Delete one of the two rows."
            )


def _check_one_plan(path: Path, slides: Sequence[CohortSlide]) -> None:
    """Refuse a table that both splits once and folds."""
    if any(slide.split for slide in slides) and any(slide.fold is not None for slide in slides):
        raise CohortError(
            f"cohort '{path.name}' has both a column of splits and one of folds, and only one can be followed. "
            "Delete one of the two columns."
        )


def _choose_positive(classes: Sequence[str], positive: str | None, *, labelled: bool) -> str | None:
    """Return the label that is scored; slides still to be predicted need not show it."""
    if positive is None:
        return classes[-1] if len(classes) > 1 else None
    positive = tidy(positive)
    if labelled and positive not in classes:
        raise SettingsError(
            f"no slide has the label '{positive}' that is to be the positive one; the labels are "
            f"{name_some(tuple(classes))}. Pass --positive {shlex.quote(classes[-1])}."
        )
    return positive


def _list_notes(cohort: Cohort, columns: CohortColumns, *, chosen_by_us: bool) -> tuple[str, ...]:
    """List what was assumed."""
    notes = []
    if not cohort.patients_given:
        notes.append(
            f"There is no column '{columns.patient_id}', so each slide counts as its own patient. If patients have "
            "several slides, name their column with --patient-col."
        )
    notes += list_label_notes(cohort.classes)
    if chosen_by_us and len(cohort.classes) == 2:
        notes.append(f"The positive label is '{cohort.positive}', the last one sorted; --positive chooses another.")
    mixed = find_mixed_patients(cohort)
    if mixed:
        verb = "has" if len(mixed) == 1 else "have"
        notes.append(
            f"{len(mixed)} patient{'' if len(mixed) == 1 else 's'} {verb} slides that differ in label: "
            f"{name_some(mixed)}."
        )
    return tuple(notes)
