"""Files of one DICOM slide in several rows of a table: one slide."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lamella.cohort.cohort import CohortSlide
from lamella.dicom import find_series_uid
from lamella.errors import CohortError


def merge_series(
    table: Path, slides: Sequence[CohortSlide], *, patients_given: bool
) -> tuple[tuple[CohortSlide, ...], tuple[str, ...]]:
    """Return the slides with each DICOM slide once, its first row standing for all, and notes that say so.

    Args:
        table: The table, for the message.
        slides: A slide a row.
        patients_given: Whether the table says whose each slide is; else the rows' patients are their own ids.

    Raises:
        CohortError: If rows of one slide differ in label, patient, split, fold, resolution or batch.
    """
    first: dict[tuple[Path, str], CohortSlide] = {}
    rows: dict[str, int] = {}
    kept = []
    for slide in slides:
        uid = find_series_uid(slide.path) if slide.path.suffix.lower() == ".dcm" or slide.path.is_dir() else None
        if uid is None:
            kept.append(slide)
            continue
        home = slide.path if slide.path.is_dir() else slide.path.parent
        head = first.setdefault((home, uid), slide)
        rows[head.slide_id] = rows.get(head.slide_id, 0) + 1
        if head is slide:
            kept.append(slide)
            continue
        alike = replace(slide, slide_id=head.slide_id, path=head.path)
        if not patients_given:
            alike = replace(alike, patient_id=head.patient_id)
        if alike != head:
            raise CohortError(
                f"cohort '{table.name}' lists files of one DICOM slide as '{head.slide_id}' and '{slide.slide_id}', "
                "and these rows differ beyond the file. Keep one row for the slide."
            )
    notes = [
        f"{n} rows name files of one DICOM slide, which counts once, as '{slide_id}'."
        for slide_id, n in rows.items()
        if n > 1
    ]
    return tuple(kept), tuple(notes)
