"""The columns of a cohort table, read one after the other; what does not fit is refused with its rows."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from lamella.cells import is_formula
from lamella.cohort.cohort import CohortColumns, name_slide
from lamella.cohort.outcomes import refuse_measurements
from lamella.cohort.rows import Rows
from lamella.cohort.spelling import is_missing, refuse_look_alikes, tidy
from lamella.errors import CohortError

SPLITS = ("train", "val", "test")

# Bounds of a believable light-microscope scan: a 100x oil objective gives 0.06, a whole-mount overview 8 um per pixel.
_FINEST_MPP, _COARSEST_MPP = 0.05, 20.0

_NOT_IN_FILE_NAMES = frozenset('/\\:*?"<>|')
_MOST_PATH_BYTES, _MOST_NAME_BYTES = 3000, 255  # Linux takes 4096, with the folder of the table
_RESERVED = frozenset(  # devices of Windows, whatever the suffix
    ("CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in "0123456789¹²³"))
)


class ColumnReader:
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
        refused = [(number, cell) for number, cell in zip(self.rows.numbers, cells, strict=True) if unfit(cell)]
        if refused:
            numbers = [str(number) for number, _ in refused]
            listed = ", ".join(numbers[:5]) + (f" and {len(refused) - 5} more" if len(refused) > 5 else "")
            raise CohortError(
                f"cohort '{self.path.name}': column '{getattr(self.columns, field)}' {says.format(cell=refused[0][1])} "
                f"in row{'s' if len(refused) > 1 else ''} {listed}. {remedy}"
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
            same = [i for i, key in enumerate(folded) if key == twice]
            spellings = " and ".join(f"'{ids[i]}' (row {self.rows.numbers[i]})" for i in same[:3])
            remedy = "Give each slide its own id." if given else "Give each its own id in a column slide_id."
            if len({paths[i] for i in same}) == 1:
                remedy = "Both name the same file. Delete one of the rows."
            raise CohortError(
                f"cohort '{self.path.name}' uses a slide id {len(same)} times: {spellings}; "
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


def is_path(cell: str) -> bool:
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
