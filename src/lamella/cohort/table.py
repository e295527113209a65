"""Cohort tables: read into a `Cohort`, and written back."""

import difflib
import math
import os
import shlex
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path

from lamella.cells import is_formula
from lamella.cohort.cohort import Cohort, CohortColumns, CohortSlide, find_mixed_patients, name_slide, name_some
from lamella.cohort.outcomes import list_label_notes, refuse_measurements
from lamella.cohort.rows import Rows, read_rows
from lamella.cohort.series import merge_series
from lamella.cohort.spelling import find_look, is_missing, name_difference, refuse_look_alikes, tidy
from lamella.errors import CohortError, LeakageError, SettingsError
from lamella.files import write_table

SPLITS = ("train", "val", "test")

# Bounds of a believable light-microscope scan: a 100x oil objective gives 0.06, a whole-mount overview 8 um per pixel.
_FINEST_MPP, _COARSEST_MPP = 0.05, 20.0

_OPTIONS = {
    "slide": "--slide-col",
    "label": "--label-col",
    "slide_id": "--id-col",
    "patient_id": "--patient-col",
    "split": "--split-col",
    "fold": "--fold-col",
    "slide_mpp": "--mpp-col",
    "batch": "--batch-col",
    "slide_image": "--image-col",
}
# What other tables call these columns, to suggest from; never to take silently.
_OTHER_NAMES = {
    "slide": ("path", "file", "filename", "file_name", "wsi", "image", "slide_path", "filepath"),
    "label": ("diagnosis", "class", "target", "y", "grade", "status", "outcome", "labels", "category"),
}
_NOT_IN_FILE_NAMES = frozenset('/\\:*?"<>|')
_MOST_PATH_BYTES, _MOST_NAME_BYTES = 3000, 255  # Linux takes 4096, with the folder of the table
_RESERVED = frozenset(  # devices of Windows, whatever the suffix
    ("CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in "0123456789¹²³"))
)


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
    _check_names(path, rows, columns, labelled=labelled)
    _check_spelling(path, rows, columns, labelled=labelled)
    reader = _CellReader(path, rows, columns)
    # The folder's links are followed once, so that ".." in a cell means what the system means by it.
    folder = path.resolve().parent
    cells = reader.texts("slide")
    reader.refuse(
        "slide",
        cells,
        lambda cell: not _is_path(cell),
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
    rows = [
        {
            "slide": _relative(slide.path, folder),
            "slide_id": slide.slide_id,
            "patient_id": slide.patient_id,
            "label": slide.label,
            "split": slide.split,
            "fold": slide.fold,
            "slide_mpp": slide.slide_mpp,
            "batch": slide.batch,
            "slide_image": slide.slide_image,
        }
        for slide in cohort.slides
    ]
    used = [name for name in _OPTIONS if any(row[name] is not None for row in rows)]
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


class _CellReader:
    """Reads one column after the other, and names the rows that do not fit."""

    def __init__(self, path: Path, rows: Rows, columns: CohortColumns) -> None:
        self.path, self.rows, self.columns = path, rows, columns

    def has(self, field: str) -> bool:
        """Whether the table has the column for `field`."""
        return getattr(self.columns, field) in self.rows.columns

    def raw(self, field: str) -> list[str]:
        """Return the column's cells, "" where there is nothing (or no column); paths as written, the rest tidied."""
        name = getattr(self.columns, field)
        cells = [row.get(name, "") for row in self.rows.cells]
        return cells if field == "slide" else [tidy(cell) for cell in cells]

    def texts(self, field: str) -> list[str]:
        """Return the column's cells; none may be empty."""
        cells = self.raw(field)
        self.refuse(field, cells, lambda cell: not cell, "is empty", "Fill it in, or delete the row.")
        if field != "slide":
            self.refuse_formulas(field, cells)
        return cells

    def refuse_formulas(self, field: str, cells: Sequence[str]) -> None:
        """Refuse ids and labels that a spreadsheet would run when it opens our tables."""
        self.refuse(
            field,
            cells,
            is_formula,
            "has '{cell}', which a spreadsheet would run as a formula,",
            "Begin it with a letter or a digit; +, -, 3+ and numbers are fine.",
        )

    def refuse(self, field: str, cells: Sequence[str], unfit: Callable[[str], bool], says: str, remedy: str) -> None:
        """Raise, naming the rows, if any cell is unfit. "{cell}" in `says` stands for the first unfit cell."""
        found = [(number, cell) for number, cell in zip(self.rows.numbers, cells, strict=True) if unfit(cell)]
        if found:
            numbers = [str(number) for number, _ in found]
            listed = ", ".join(numbers[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
            raise CohortError(
                f"cohort '{self.path.name}': column '{getattr(self.columns, field)}' {says.format(cell=found[0][1])} "
                f"in row{'s' if len(found) > 1 else ''} {listed}. {remedy}"
            )

    def names(self, field: str, what: str, plural: str) -> list[str]:
        """Return ids of patients or slides: none missing, and no two that a person would take for one."""
        cells = self.texts(field)
        self.refuse(
            field, cells, is_missing, "says '{cell}', which stands for nothing,", "Fill it in, or delete the row."
        )
        self.refuse_look_alikes(cells, what, plural)
        return cells

    def refuse_look_alikes(self, cells: Sequence[str | None], what: str, plural: str) -> None:
        """Raise where two texts of a column would be taken for one, naming a row of each."""
        rows: dict[str, int] = {}
        for number, cell in zip(self.rows.numbers, cells, strict=True):
            if cell is not None:
                rows.setdefault(cell, number)
        refuse_look_alikes(
            rows,
            whose=f"cohort '{self.path.name}'",
            what=what,
            plural=plural,
            where=lambda text: f" (row {rows[text]})",
        )

    def slide_ids(self, paths: Sequence[Path]) -> list[str]:
        """Return the ids, unique and safe as file names."""
        given = self.has("slide_id")
        ids = self.texts("slide_id") if given else [tidy(name_slide(path)) for path in paths]
        if given:
            self.refuse(
                "slide_id", ids, is_missing, "says '{cell}', which stands for nothing,", "Give each slide its own id."
            )
        field = "slide_id" if given else "slide"
        self.refuse(
            field,
            ids,
            lambda cell: not _is_file_name(cell),
            "makes the slide id '{cell}', which cannot be a file's name,",
            'Give ids of at most 150 characters without / \\ : * ? " < > | and not beginning with a dot, '
            "in a column slide_id.",
        )
        self.refuse(
            field,
            ids,
            _is_device,
            "makes the slide id '{cell}', which Windows keeps for a device,",
            "Give it another id in a column slide_id.",
        )
        self.refuse_formulas(field, ids)
        folded = [slide_id.casefold() for slide_id in ids]
        twice = next((key for key, count in Counter(folded).items() if count > 1), None)
        if twice is not None:
            places = [i for i, key in enumerate(folded) if key == twice]
            spellings = " and ".join(f"'{ids[i]}' (row {self.rows.numbers[i]})" for i in places[:3])
            remedy = "Give each slide its own id." if given else "Give each its own id in a column slide_id."
            if len({paths[i] for i in places}) == 1:
                remedy = "Both name the same file. Delete one of the rows."
            raise CohortError(
                f"cohort '{self.path.name}' uses a slide id {len(places)} times: {spellings}; "
                f"their results would overwrite each other. {remedy}"
            )
        self.refuse_look_alikes(ids, "slides", "slide ids")
        return ids

    def labels(self, *, labelled: bool) -> list[str | None]:
        """Return the labels; all must be there when `labelled`."""
        cells = self.raw("label")
        if labelled:
            self.refuse(
                "label",
                cells,
                is_missing,
                "has no label ('{cell}')",
                "Fill it in, or delete the row; if it is a class, give it a name that does not stand for nothing, as "
                "in 'absent'."
                if any(cell.casefold() in ("none", "null", "missing") for cell in cells)
                else "Fill it in, or delete the row.",
            )
        labels = [None if is_missing(cell) else cell for cell in cells]
        self.refuse_look_alikes(labels, "classes", "labels")
        if labelled:
            refuse_measurements(
                [label for label in labels if label is not None],
                whose=f"cohort '{self.path.name}'",
                column=self.columns.label,
                columns=self.rows.columns,
            )
        self.refuse_formulas("label", cells)
        return labels

    def splits(self) -> list[str | None]:
        """Return the splits: all given or none."""
        cells = self.raw("split")
        if not any(cells):
            return [None] * len(cells)
        self.refuse("split", cells, lambda cell: cell not in SPLITS, "says '{cell}'", "Write train, val or test.")
        return list(cells)

    def folds(self) -> list[int | None]:
        """Return the folds: all given or none, from 0 without a gap."""
        cells = self.raw("fold")
        if not any(cells):
            return [None] * len(cells)
        remedy = "Write the round in which the slide is tested, 0, 1, 2 and so on."
        self.refuse("fold", cells, lambda cell: _read_whole(cell) is None, "says '{cell}'", remedy)
        folds = [_read_whole(cell) for cell in cells]
        present = {fold for fold in folds if fold is not None}
        gaps = sorted(set(range(max(present) + 1)) - present)
        if gaps:
            raise CohortError(
                f"cohort '{self.path.name}' has folds up to {max(present)} but no slide in fold "
                f"{', '.join(str(gap) for gap in gaps[:5])}. Number the folds from 0 without a gap."
            )
        return folds

    def resolutions(self) -> list[float | None]:
        """Return the resolutions given, in um per pixel."""
        cells = self.raw("slide_mpp")
        self.refuse(
            "slide_mpp",
            cells,
            lambda cell: bool(cell) and not _is_believable(cell),
            "says '{cell}'",
            f"Write um per pixel, {_FINEST_MPP:g} to {_COARSEST_MPP:g}, as in 0.25, or leave it empty where the slide "
            "states it.",
        )
        return [float(cell) if cell else None for cell in cells]

    def batches(self) -> list[str | None]:
        """Return the batches, None where there is nothing."""
        cells = self.raw("batch")
        self.refuse(
            "batch",
            cells,
            lambda cell: bool(cell) and is_missing(cell),
            "says '{cell}', which stands for nothing,",
            "Leave the cell empty where the batch is not known, or name the batch.",
        )
        batches = [cell or None for cell in cells]
        self.refuse_look_alikes(batches, "batches", "batches")
        return batches


def _check_names(path: Path, rows: Rows, columns: CohortColumns, *, labelled: bool) -> None:
    """Refuse a table without a column that is needed, or that was named, with a suggestion from those it has."""
    usual = CohortColumns()
    for field, option in _OPTIONS.items():
        name = getattr(columns, field)
        needed = field == "slide" or (field == "label" and labelled) or name != getattr(usual, field)
        if not needed or name in rows.columns:
            continue
        there = ", ".join(f"'{column}'" for column in rows.columns)
        own = (name.lower(), getattr(usual, field), *_OTHER_NAMES.get(field, ()))
        likely = sorted((c for c in rows.columns if c.lower() in own), key=lambda column: own.index(column.lower()))
        # A column that by its name is another thing is no suggestion, however alike the two are written.
        others = {getattr(usual, other) for other in _OPTIONS if other != field}
        free = [column for column in rows.columns if column not in others]
        likely = likely or difflib.get_close_matches(name, free, n=1)
        what = likely[0] if likely else "NAME"
        shown = f"'{what}'" if " " in what else what
        raise CohortError(f"cohort '{path.name}' has no column '{name}'; it has {there}. Pass {option} {shown}.")


def _check_spelling(path: Path, rows: Rows, columns: CohortColumns, *, labelled: bool) -> None:
    """Refuse a column that is a usual one but for capitals, blanks or dashes: passed over, it would change results.

    Slides without labels are not divided, so how their split, fold and batch are written is of no account.
    """
    for field, option in _OPTIONS.items():
        name = getattr(columns, field)
        if name in rows.columns and name == getattr(CohortColumns(), field):
            _check_rivals(path, rows, name)
        if name in rows.columns or (not labelled and field in ("label", "split", "fold", "batch")):
            continue
        alike = [column for column in rows.columns if _simplify(column) == _simplify(name)]
        if alike:
            raise CohortError(
                f"cohort '{path.name}' has no column '{name}' and a column '{alike[0]}', which would be passed over. "
                f"Pass {option} '{alike[0]}', or give that column another name."
            )


def _check_rivals(path: Path, rows: Rows, name: str) -> None:
    """Refuse a second column that is named like a usual one and says something else."""
    for rival in rows.columns:
        if rival != name and find_look(rival) == find_look(name):
            differing = [
                number
                for number, row in zip(rows.numbers, rows.cells, strict=True)
                if row.get(rival, "") != row.get(name, "")
            ]
            if differing:
                raise CohortError(
                    f"cohort '{path.name}' has the columns '{name}' and '{rival}', which differ in "
                    f"{name_difference(name, rival)} only and disagree in row {differing[0]}. Rename or delete one."
                )


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


def _simplify(name: str) -> str:
    """Return a column's name without capitals, blanks, dashes and underscores."""
    return "".join(character for character in name.casefold() if character.isalnum())


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


def _is_file_name(slide_id: str) -> bool:
    """Whether files can be called so on every system."""
    return (
        slide_id.isprintable()  # bytes that are no UTF-8 are not
        and 0 < len(slide_id.encode()) <= 150
        and not slide_id.startswith(".")
        and not slide_id.endswith((".", " "))
        and not _NOT_IN_FILE_NAMES & set(slide_id)
    )


def is_slide_id(slide_id: str) -> bool:
    """Whether result files may be called so, and tables may hold it."""
    return _is_file_name(slide_id) and not _is_device(slide_id) and not is_formula(slide_id)


def _is_path(cell: str) -> bool:
    """Whether file systems take a text for a path; NUL makes it that of no file."""
    content = cell.encode("utf-8", "surrogatepass")
    return len(content) <= _MOST_PATH_BYTES and max(map(len, content.split(b"/"))) <= _MOST_NAME_BYTES


def _is_device(slide_id: str) -> bool:
    """Whether Windows keeps a name for a device, whatever its suffix."""
    return slide_id.partition(".")[0].rstrip().upper() in _RESERVED


def _read_whole(cell: str) -> int | None:
    """Return a whole number from 0, None for any other text.

    Example:
        >>> _read_whole("3"), _read_whole("3.0"), _read_whole("-1"), _read_whole("1.5"), _read_whole("two")
        (3, 3, None, None, None)
    """
    digits = cell.removesuffix(".0")
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= 6 else None


def _is_believable(cell: str) -> bool:
    """Whether text is a resolution a slide can have."""
    try:
        mpp = float(cell)
    except ValueError:
        return False
    return math.isfinite(mpp) and _FINEST_MPP <= mpp <= _COARSEST_MPP
