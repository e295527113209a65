"""How the columns of a cohort table are called, and what is said of one that is absent or spelled otherwise."""

import difflib
from pathlib import Path

from lamella.cohort.cohort import CohortColumns
from lamella.cohort.rows import Rows
from lamella.cohort.spelling import find_look, name_difference
from lamella.errors import CohortError

OPTIONS = {
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


def check_names(path: Path, rows: Rows, columns: CohortColumns, *, labelled: bool) -> None:
    """Refuse a table without a column that is needed, or that was named, with a suggestion from those it has."""
    usual = CohortColumns()
    for field, option in OPTIONS.items():
        name = getattr(columns, field)
        needed = field == "slide" or (field == "label" and labelled) or name != getattr(usual, field)
        if not needed or name in rows.columns:
            continue
        there = ", ".join(f"'{column}'" for column in rows.columns)
        known = (name.lower(), getattr(usual, field), *_OTHER_NAMES.get(field, ()))
        likely = sorted((c for c in rows.columns if c.lower() in known), key=lambda column: known.index(column.lower()))
        # A column that by its name is another thing is no suggestion, however alike the two are written.
        others = {getattr(usual, other) for other in OPTIONS if other != field}
        free = [column for column in rows.columns if column not in others]
        likely = likely or difflib.get_close_matches(name, free, n=1)
        what = likely[0] if likely else "NAME"
        shown = f"'{what}'" if " " in what else what
        raise CohortError(f"cohort '{path.name}' has no column '{name}'; it has {there}. Pass {option} {shown}.")


def check_spelling(path: Path, rows: Rows, columns: CohortColumns, *, labelled: bool) -> None:
    """Refuse a column that is a usual one but for capitals, blanks or dashes: passed over, it would change results.

    Slides without labels are not divided, so how their split, fold and batch are written is of no account.
    """
    for field, option in OPTIONS.items():
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


def _simplify(name: str) -> str:
    """Return a column's name without capitals, blanks, dashes and underscores."""
    return "".join(character for character in name.casefold() if character.isalnum())
