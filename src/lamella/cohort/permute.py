"""Labels exchanged between patients: nothing is left to learn but what folds and batches give away."""

import dataclasses

import numpy as np

from lamella.cohort.cohort import Cohort


def permute_labels(cohort: Cohort, *, seed: int = 0, within_batch: bool = False) -> Cohort:
    """Return a cohort whose patients have exchanged their labels within each fold or split, so that none is empty.

    Slides of a patient keep one label. Where a fold's patients are all of one label, so they stay.

    Args:
        cohort: With folds or splits.
        seed: Of the exchange.
        within_batch: Whether labels also stay within their batch, so that what a batch gives away is kept.
    """
    rng = np.random.default_rng([71, seed])
    label_of: dict[str, str] = {}
    groups: dict[tuple[str | int | None, ...], list[str]] = {}
    for row in cohort.slides:
        if row.patient_id not in label_of:
            group = (row.split, row.fold, row.batch if within_batch else None)
            groups.setdefault(group, []).append(row.patient_id)
            label_of[row.patient_id] = str(row.label)
    exchanged: dict[str, str] = {}
    for patients in groups.values():
        labels = [label_of[patient] for patient in patients]
        exchanged.update(zip(patients, rng.permutation(labels).tolist(), strict=True))
    slides = tuple(dataclasses.replace(row, label=exchanged[row.patient_id]) for row in cohort.slides)
    return dataclasses.replace(cohort, slides=slides)
