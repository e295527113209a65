"""What a cohort is: slides, patients, labels, folds."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortSlide:
    """One scanned slide and what the table says about it.

    Attributes:
        slide_id: Key of the slide, unique in the cohort and safe as a file name.
        path: The slide's file (or, for DICOM, folder); absolute when read from a table.
        patient_id: Who it is from: the unit of splitting.
        label: Class of the slide, as text; None when not known.
        split: "train", "val" or "test"; None when the table does not say.
        fold: The round in which the slide is tested, from 0; None when the table does not say.
        slide_mpp: Resolution of level 0 in um per pixel, where the table overrides the file; None: the file states it.
        batch: Where or when it was stained or scanned; None when not known.
        slide_image: Which image of a file that holds several, by number from 1 or by name; None: the largest in colour.
    """

    slide_id: str
    path: Path
    patient_id: str
    label: str | None = None
    split: str | None = None
    fold: int | None = None
    slide_mpp: float | None = None
    batch: str | None = None
    slide_image: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortColumns:
    """Names of a cohort table's columns.

    A column that is named other than by default must be there; of the others only `slide` must (and `label`, to learn).
    """

    slide: str = "slide"
    label: str = "label"
    slide_id: str = "slide_id"
    patient_id: str = "patient_id"
    split: str = "split"
    fold: str = "fold"
    slide_mpp: str = "slide_mpp"
    batch: str = "batch"
    slide_image: str = "slide_image"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cohort:
    """Slides with labels, in the order of their table.

    Attributes:
        slides: The slides; their ids are unique.
        classes: The labels that occur, sorted.
        positive: The label whose probability is scored; None without two classes.
        notes: What was assumed and has to be said aloud, one line each.
        patients_given: Whether the table says whose each slide is; else each slide was taken for a patient.
    """

    slides: tuple[CohortSlide, ...]
    classes: tuple[str, ...] = ()
    positive: str | None = None
    notes: tuple[str, ...] = ()
    patients_given: bool = True

    @property
    def folds_are_batches(self) -> bool:
        """Whether each fold is exactly one batch: leave-one-batch-out, where a fold may hold one class only."""
        pairs = {(slide.fold, slide.batch) for slide in self.slides}
        folds = {fold for fold, _ in pairs}
        batches = {batch for _, batch in pairs}
        return len(pairs) == len(folds) == len(batches) >= 2 and None not in folds | batches


def name_slide(path: Path) -> str:
    """Return the name a slide goes by where none is given: its file's without the suffix, a folder's whole name.

    Dots in a folder's name are no suffix (DICOM folders are called by numbers with dots), `.zarr` apart.
    """
    return path.name if path.is_dir() and path.suffix.lower() != ".zarr" else path.stem


def find_missing(cohort: Cohort) -> tuple[CohortSlide, ...]:
    """Return the slides whose file is not there."""
    return tuple(slide for slide in cohort.slides if not slide.path.exists())


def find_mixed_patients(cohort: Cohort) -> tuple[str, ...]:
    """Return the patients whose slides differ in label, sorted."""
    labels: dict[str, set[str | None]] = {}
    for slide in cohort.slides:
        labels.setdefault(slide.patient_id, set()).add(slide.label)
    return tuple(sorted(patient for patient, seen in labels.items() if len(seen) > 1))
