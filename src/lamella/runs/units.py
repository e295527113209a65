"""What is predicted: each slide, or each patient, whose slides are then one bag."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lamella.cohort import Cohort, CohortSlide
from lamella.defaults import UnitName
from lamella.errors import CohortError
from lamella.features.rows import join_stored
from lamella.mil import SlidePrediction
from lamella.runs.bags import RunBags, hash_json
from lamella.runs.facts import BagFacts
from lamella.words import name_some


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Units:
    """A cohort whose rows are what is predicted, and a bag of each.

    Attributes:
        cohort: A row a unit. That of a patient goes by the patient's id in place of a slide's.
        origin: The cohort of slides.
        bags: A bag a unit; a patient's holds the tiles of its slides, in the order of their ids.
        slides: By unit, the slides whose tiles its bag holds, in their order.
        parts: The bags of these slides.
        notes: What must be said aloud.
    """

    cohort: Cohort
    origin: Cohort
    bags: RunBags
    slides: Mapping[str, tuple[str, ...]]
    parts: RunBags
    notes: tuple[str, ...] = ()

    def split_attention(self, prediction: SlidePrediction) -> dict[str, NDArray[np.float32]]:
        """Return attention slide by slide, `(n,)` each: shares of the whole unit, which sum to 1 over its slides."""
        parts: dict[str, NDArray[np.float32]] = {}
        start = 0
        for slide_id in self.slides[prediction.slide_id]:
            stop = start + len(self.parts.features[slide_id])
            parts[slide_id] = prediction.attention[start:stop]
            start = stop
        return parts


def gather_units(cohort: Cohort, bags: RunBags, unit: UnitName) -> Units:
    """Return what is predicted of a cohort, with its bags.

    Args:
        cohort: Slides.
        bags: Of those of them that could be done.
        unit: `slide` or `patient`.

    Raises:
        CohortError: If slides of one patient differ in label, and patients are predicted.
    """
    if unit == "slide":
        own = {slide_id: (slide_id,) for slide_id in bags.features}
        return Units(cohort=cohort, origin=cohort, bags=bags, slides=own, parts=bags)
    rows, notes = merge_patients(cohort)
    slides = {
        patient: kept
        for patient, ids in list_slides_of(cohort).items()
        if (kept := tuple(slide_id for slide_id in ids if slide_id in bags.features))
    }
    features = {patient: join_stored([bags.features[i] for i in ids]) for patient, ids in slides.items()}
    return Units(
        cohort=rows,
        origin=cohort,
        bags=RunBags(
            features=features,
            corners_l0={patient: np.zeros((0, 2), np.int64) for patient in slides},  # of several slides: see `parts`
            facts={patient: _merge_facts(patient, ids, bags) for patient, ids in slides.items()},
            given=bags.given,
        ),
        slides=slides,
        parts=bags,
        notes=notes,
    )


def list_slides_of(cohort: Cohort) -> dict[str, tuple[str, ...]]:
    """Return the slides of each patient, in the order of their ids; patients in the order of the cohort."""
    slides: dict[str, list[str]] = {}
    for row in cohort.slides:
        slides.setdefault(row.patient_id, []).append(row.slide_id)
    return {patient: tuple(sorted(ids)) for patient, ids in slides.items()}


def merge_patients(cohort: Cohort) -> tuple[Cohort, tuple[str, ...]]:
    """Return a cohort of one row a patient, by the patient's id, and what must be said aloud of it.

    Raises:
        CohortError: If slides of one patient differ in label.
    """
    first: dict[str, CohortSlide] = {}
    mixed: list[str] = []
    for row in cohort.slides:
        kept = first.setdefault(row.patient_id, dataclasses.replace(row, slide_id=row.patient_id))
        if kept.label != row.label:
            other = next(slide for slide in cohort.slides if slide.patient_id == row.patient_id)
            raise CohortError(
                f"slides '{other.slide_id}' and '{row.slide_id}' of patient '{row.patient_id}' are labelled "
                f"'{other.label}' and '{row.label}', and with unit patient a patient has one label. Correct the "
                "table, or predict slides: unit slide."
            )
        if kept.batch is not None and kept.batch != row.batch:
            mixed.append(row.patient_id)
            first[row.patient_id] = dataclasses.replace(kept, batch=None)
    notes = []
    if mixed:
        names = list(dict.fromkeys(mixed))
        said = "1 patient has slides" if len(names) == 1 else f"{len(names)} patients have slides"
        notes.append(f"{said} of several batches ({name_some(names, 3)}), and so no batch.")
    if not cohort.patients_given:
        notes.append("The table does not say whose each slide is: each slide is a patient of its own.")
    rows = tuple(first.values())
    return dataclasses.replace(cohort, slides=rows, notes=()), tuple(notes)


def refuse_mixed_labels(cohort: Cohort, unit: UnitName) -> None:
    """Refuse patients whose slides differ in label, where patients are predicted, before anything long begins.

    Raises:
        CohortError: Naming two slides.
    """
    if unit == "patient":
        merge_patients(cohort)


def name_slides(predictions: Sequence[SlidePrediction], cohort: Cohort, unit: UnitName) -> list[SlidePrediction]:
    """Return predictions by slide, for pictures: that of a patient stands for each of its slides."""
    if unit == "slide":
        return list(predictions)
    slides = list_slides_of(cohort)
    return [
        dataclasses.replace(prediction, slide_id=slide_id)
        for prediction in predictions
        for slide_id in slides[prediction.slide_id]
    ]


def _merge_facts(patient: str, slide_ids: Sequence[str], bags: RunBags) -> BagFacts:
    """Return what the bag of a patient states: what its slides share, their tissue added up, their colours averaged."""
    facts = [bags.facts[slide_id] for slide_id in slide_ids]
    areas = [bag.tissue_um2 for bag in facts if bag.tissue_um2 is not None]
    colours = [bag.colours for bag in facts if bag.colours is not None]
    is_known = len(areas) == len(colours) == len(facts)
    return facts[0].model_copy(
        update={
            "slide_id": patient,
            "slide_sha256": hash_json([bags.key(slide_id) for slide_id in slide_ids]),
            "images": tuple(image for bag in facts for image in bag.list_images()),
            "tissue_um2": float(sum(areas)) if is_known else None,
            "colour": tuple(np.average(colours, axis=0, weights=np.add(areas, 1.0)).tolist()) if is_known else None,
            "tile_width_l0": None,
            "tile_height_l0": None,
        }
    )
