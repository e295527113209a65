"""How far an arm follows the batch: neighbours of its features, reading it from them, what scores gain."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lamella.analysis.auc import estimate_auc, find_auc_interval
from lamella.analysis.baselines import predict_from_vectors
from lamella.analysis.figure import Figure
from lamella.analysis.predictions import number_groups
from lamella.analysis.robustness import RobustnessIndex, find_batch_gap, find_robustness_index
from lamella.cohort import Cohort, Round
from lamella.errors import LamellaError
from lamella.mil.batches import Bag
from lamella.mil.standardise import find_moments
from lamella.studies.looks import BatchGap
from lamella.studies.outcome import ArmOutcome, average_arm

N_NEIGHBOURS = 11


def measure_features(
    features: Mapping[str, Bag], rounds: Sequence[Round], cohort: Cohort
) -> tuple[RobustnessIndex, Figure] | None:
    """Return the robustness index of an encoder's features, and how well the batch can be read from them.

    Args:
        features: `(N, D)` of each slide.
        rounds: The folds; slides are read by a classifier that never saw them.
        cohort: Labels, batches, patients.

    Returns:
        None with fewer than two batches.
    """
    slides = [slide for slide in cohort.slides if slide.slide_id in features and slide.batch is not None]
    batches = tuple(sorted({str(slide.batch) for slide in slides}))
    if len(batches) < 2:
        return None
    means = {slide.slide_id: find_moments(features[slide.slide_id])[0] for slide in slides}
    index = find_robustness_index(
        np.stack([means[slide.slide_id] for slide in slides]),
        number_groups([str(slide.label) for slide in slides]),
        number_groups([str(slide.batch) for slide in slides]),
        number_groups([slide.patient_id for slide in slides]),
        k=N_NEIGHBOURS,
    )
    return index, _read_batch(means, rounds, cohort, batches)


def measure_gap(outcome: ArmOutcome, cohort: Cohort) -> BatchGap | None:
    """Return an arm's AUC over all pairs less that within batches, with its standard error; None without batches."""
    table = average_arm(outcome.predictions, cohort)
    if table.batches is None:
        return None
    known = np.flatnonzero([batch is not None for batch in table.batches])
    part = table.take(known)
    several = len(set(part.patient_ids)) < len(part.patient_ids)
    batches = number_groups([str(batch) for batch in part.batches or ()])
    if len(set(batches.tolist())) < 2:
        return None
    gap = find_batch_gap(part.logits, part.targets, part.folds, batches, patients=part.patients if several else None)
    return None if gap is None else BatchGap(value=gap[0], standard_error=gap[1])


def _read_batch(
    means: Mapping[str, NDArray[np.float64]], rounds: Sequence[Round], cohort: Cohort, batches: tuple[str, ...]
) -> Figure:
    """Return the AUC of reading the batch from mean features, over pairs of the same fold."""
    by_id = {slide.slide_id: slide for slide in cohort.slides}
    labels = {slide_id: str(by_id[slide_id].batch) for slide_id in means}
    tested: list[str] = []
    logits, folds = [], []
    try:
        for round_ in rounds:
            train, test = ([i for i in side if i in means] for side in (round_.train, round_.test))
            read = predict_from_vectors(means, labels, train=train, test=test, classes=batches)
            tested += list(read)
            logits += list(read.values())
            folds += [round_.fold] * len(read)
    except LamellaError as error:
        return Figure(value=None, interval=None, reason=str(error))
    patients = number_groups([by_id[i].patient_id for i in tested])
    targets = np.array([batches.index(labels[i]) for i in tested])
    estimate = estimate_auc(np.array(logits), targets, folds=np.array(folds), patients=patients)
    if estimate is None:
        return Figure(value=None, interval=None, reason="no fold holds two batches")
    return Figure(value=float(estimate.auc[0]), interval=find_auc_interval(estimate), reason=None)
