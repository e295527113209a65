"""Public data sets, read from their folders as downloaded.

CAMELYON16 is 399 slides of sentinel lymph nodes from two hospitals (Ehteshami Bejnordi et al., JAMA 2017; Litjens et
al., GigaScience 2018). What is left out here, and which outlines are incomplete, is as its own readme says
(camelyon16_readme.md of the challenge's data page, "Notes about the data"):

- `normal_86`: "Originally misclassified, renamed to tumor_111"; `test_049`: "Duplicate slide". Both were removed by the
  organisers; copies from before still hold them.
- 20 training slides and `test_114` are not exhaustively annotated: their labels count, their outlines don't.

A cohort such as the paper's duodenal biopsies, several slides a patient, needs no reader: it is a table with the column
`patient_id` (`load_cohort`), which `split_holdout` divides 65/15/20 by patient.
"""

import csv
import hashlib
import io
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from lamella.cohort.cohort import Cohort, CohortSlide
from lamella.cohort.rounds import list_rounds
from lamella.errors import CohortError
from lamella.files import replacing
from lamella.words import name_some

N_SLIDES = 399
VAL_SHARE = 0.2
"""Share of the training slides that validate: as PatchCamelyon and its users hold out (54 of 270)."""

LEFT_OUT: Mapping[str, str] = {
    "normal_086": "it was misclassified and is tumor_111 since",
    "test_049": "it is a duplicate",
}
PARTLY_ANNOTATED = frozenset(
    f"tumor_{number:03d}"
    for number in (10, 15, 18, 20, 25, 29, 33, 34, 44, 46, 51, 54, 55, 56, 67, 79, 85, 92, 95, 110)
) | {"test_114"}

_SUFFIXES = (".tif", ".tiff")
_OUTLINES = ("training/lesion_annotations", "testing/lesion_annotations")


def is_camelyon16(folder: Path) -> bool:
    """Whether a folder has the form of CAMELYON16: `training/normal`, `training/tumor`, `testing/images`."""
    return all((folder / name).is_dir() for name in ("training/normal", "training/tumor", "testing/images"))


def load_camelyon16(folder: Path | str, *, seed: int = 0) -> Cohort:
    """Read CAMELYON16 with its official split; part of its training slides validates, drawn by class.

    The data set does not say which slides are of one patient, so each counts as its own. Slides that were not
    downloaded are not in the cohort; a note says how many of the 399 are.

    Args:
        folder: Holds `training/normal`, `training/tumor`, `testing/images` and `testing/reference.csv`.
        seed: Another seed, other slides that validate.

    Raises:
        CohortError: If a folder or the reference is absent, or a test slide has no class in it.
    """
    folder = Path(folder).resolve()
    for name in ("training/normal", "training/tumor", "testing/images"):
        if not (folder / name).is_dir():
            raise CohortError(
                f"'{folder}' has no folder '{name}' and CAMELYON16 has training/normal, training/tumor and "
                "testing/images. Name the folder that holds training and testing."
            )
    train = [
        _slide(path, label=label, split="train")
        for label in ("normal", "tumor")
        for path in _list_slides(folder / "training" / label)
    ]
    test = _list_test(folder)
    slides = [slide for slide in [*train, *test] if _canonical(slide.slide_id) not in LEFT_OUT]
    gone = sorted(slide.slide_id for slide in [*train, *test] if _canonical(slide.slide_id) in LEFT_OUT)
    for label in ("normal", "tumor"):
        slides = _choose_val(slides, label, seed)
    cohort = Cohort(
        slides=tuple(slides), classes=("normal", "tumor"), positive="tumor", notes=_list_notes(slides, gone)
    )
    list_rounds(cohort)
    return cohort


def list_camelyon16_outlines(folder: Path | str) -> dict[str, Path]:
    """List the outlines of lesions, slide id to XML; those of slides that are not exhaustively annotated are left out.

    Raises:
        CohortError: If there are none: the data set brings them as archives, which have to be extracted.
    """
    folder = Path(folder).resolve()
    outlines = {
        path.stem: path
        for name in _OUTLINES
        for path in sorted((folder / name).glob("*.xml"))
        if _canonical(path.stem) not in PARTLY_ANNOTATED | LEFT_OUT.keys()
    }
    if not outlines:
        packed = next((name for name in _OUTLINES if (folder / f"{name}.zip").is_file()), None)
        what = f"'{packed}.zip' is packed" if packed else f"'{folder}' has no {' and no '.join(_OUTLINES)}"
        raise CohortError(f"no outlines of CAMELYON16 are there: {what}. Extract both lesion_annotations.zip in place.")
    return outlines


def gather_camelyon16_outlines(folder: Path | str, out: Path) -> Path:
    """Copy outlines of training and test slides into one folder, as `lamella localise --lesions` takes it; return it.

    Slides labelled `tumor` without outlines there, the partly annotated ones, are left out of localisation and noted.

    Raises:
        CohortError: If there are no outlines.
        OutputError: If the folder cannot be written.
    """
    for slide_id, path in list_camelyon16_outlines(folder).items():
        with replacing(out / f"{slide_id}.xml") as temporary:
            shutil.copyfile(path, temporary)
    return out


def _canonical(slide_id: str) -> str:
    """Return a slide's id as the readme writes most of them, so that `Normal_86` is `normal_086`.

    Example:
        >>> _canonical("Normal_86"), _canonical("test_114")
        ('normal_086', 'test_114')
    """
    name, _, number = slide_id.lower().rpartition("_")
    return f"{name}_{int(number):03d}" if number.isascii() and number.isdigit() else slide_id.lower()


def _list_slides(folder: Path) -> list[Path]:
    """List the slides of a folder; what lies beside them is none of our business."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES and path.name[0] != ".")


def _slide(path: Path, *, label: str, split: str) -> CohortSlide:
    return CohortSlide(slide_id=path.stem, path=path, patient_id=path.stem, label=label, split=split)


def _list_test(folder: Path) -> list[CohortSlide]:
    """List the test slides with the classes of `reference.csv`."""
    labels = _read_reference(folder / "testing" / "reference.csv")
    paths = [path for path in _list_slides(folder / "testing" / "images") if _canonical(path.stem) not in LEFT_OUT]
    unknown = [path.stem for path in paths if _canonical(path.stem) not in labels]
    if unknown:
        raise CohortError(
            f"testing/reference.csv gives no class for {name_some(unknown)}. Get it again, or take these slides "
            "out of testing/images."
        )
    return [_slide(path, label=labels[_canonical(path.stem)], split="test") for path in paths]


def _read_reference(path: Path) -> dict[str, str]:
    """Read the classes of the test slides: rows of id, class and more, without a header (or with one)."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CohortError(
            f"'{path}' cannot be read and holds the classes of CAMELYON16's test slides. Get it again."
        ) from error
    labels = {}
    for number, row in enumerate(csv.reader(io.StringIO(text, newline="")), start=1):
        cells = [cell.strip() for cell in row]
        if not any(cells):
            continue
        label = cells[1].lower() if len(cells) > 1 else ""
        if label in ("normal", "tumor"):
            labels[_canonical(Path(cells[0]).stem)] = label
        elif number > 1:
            raise CohortError(
                f"'{path.name}' says '{','.join(cells)}' in row {number} and a slide's id with Normal or Tumor is "
                "needed. Get it again."
            )
    return labels


def _choose_val(slides: list[CohortSlide], label: str, seed: int) -> list[CohortSlide]:
    """Return the slides with some training slides of a class validating: chosen by a hash of seed and id."""
    ids = [_canonical(slide.slide_id) for slide in slides if slide.split == "train" and slide.label == label]
    if len(ids) < 2:
        raise CohortError(
            f"training/{label} holds {len(ids)} slide{'' if len(ids) == 1 else 's'} and 2 are needed, one to learn "
            "from and one to validate on. Add slides."
        )
    n = min(max(1, round(VAL_SHARE * len(ids))), len(ids) - 1)
    chosen = sorted(ids, key=lambda slide_id: (hashlib.sha256(f"{seed}\0{slide_id}".encode()).digest(), slide_id))[:n]
    return [
        replace(slide, split="val")
        if slide.split == "train" and slide.label == label and _canonical(slide.slide_id) in chosen
        else slide
        for slide in slides
    ]


def _list_notes(slides: list[CohortSlide], gone: list[str]) -> tuple[str, ...]:
    """List what was assumed and left out."""
    notes = ["CAMELYON16 does not say which slides are of one patient, so each slide counts as its own patient."]
    notes += [f"slide '{slide_id}' is left out: {LEFT_OUT[_canonical(slide_id)]}." for slide_id in gone]
    partly = [slide.slide_id for slide in slides if _canonical(slide.slide_id) in PARTLY_ANNOTATED]
    if partly:
        notes.append(f"Outlines of {name_some(partly)} are incomplete: they count for AUC and not for localisation.")
    if len(slides) != N_SLIDES:
        notes.append(f"{len(slides)} of CAMELYON16's {N_SLIDES} slides are in the folder.")
    return tuple(notes)
