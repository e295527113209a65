"""Thresholds: where a probability becomes a yes, found on validation and never on test."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from lamella.analysis.predictions import PredictionTable, average_by_patient
from lamella.errors import SettingsError
from lamella.records import Record

MIN_YOUDEN = 10
"""Validation patients of each class that Youden's rule needs; from fewer its optimum is noise."""


class Threshold(Record):
    """A cut on the probability of the positive class, and where it comes from.

    Attributes:
        value: At or above it a patient is called positive, 0 to 1.
        rule: "youden", "sensitivity" or "prevalence".
        note: Why this rule, in a sentence.
        n_positive: Validation patients of the positive class.
        n_negative: Validation patients of the other.
        prevalence: Share of the positive class in training.
    """

    value: float
    rule: str
    note: str
    n_positive: int
    n_negative: int
    prevalence: float


def find_threshold(validation: PredictionTable, *, prevalence: float, sensitivity: float | None = None) -> Threshold:
    """Find the threshold on validation patients (mean logit over a patient's slides).

    Youden's (largest sensitivity + specificity) with at least 10 patients of each class, else the share of positives
    in training: a probability at the training prevalence leans to neither class there.

    Args:
        validation: Of two classes; may be empty.
        prevalence: Share of the positive class in training, above 0 and below 1.
        sensitivity: Take the highest threshold that keeps at least this sensitivity instead, above 0 to 1.

    Raises:
        SettingsError: If there are more than two classes, or a share is out of range.
    """
    if len(validation.classes) != 2:
        raise SettingsError(
            f"a threshold needs two classes and there are {len(validation.classes)}. With more, the most likely class "
            "is taken; leave the threshold out."
        )
    if not 0 < prevalence < 1:
        raise SettingsError(f"prevalence is {prevalence} and must be above 0 and below 1. Pass the training share.")
    if sensitivity is not None and not 0 < sensitivity <= 1:
        raise SettingsError(f"sensitivity is {sensitivity} and must be above 0 and at most 1. Pass --sensitivity 0.95.")
    table = validation if validation.mixed_patients else average_by_patient(validation)
    scores = table.scores[:, table.positive_index]
    positive = table.targets == table.positive_index
    m, q = int(positive.sum()), int((~positive).sum())
    if sensitivity is not None and m > 0:
        value = _cut_for_sensitivity(scores, positive, sensitivity)
        rule, note = "sensitivity", f"the highest threshold with sensitivity {sensitivity:g} or more on validation"
    elif sensitivity is None and min(m, q) >= MIN_YOUDEN:
        value = _cut_by_youden(scores, positive)
        rule, note = "youden", "the largest sensitivity + specificity on validation"
    else:
        needed = "a sensitivity needs a positive" if sensitivity is not None else f"Youden's needs {MIN_YOUDEN} of each"
        value, rule = prevalence, "prevalence"
        note = f"the training prevalence, because validation has {m} positive and {q} negative patients and {needed}"
    return Threshold(value=value, rule=rule, note=note, n_positive=m, n_negative=q, prevalence=prevalence)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decisions:
    """How probabilities become classes, fold by fold, learned without the fold's test slides.

    Attributes:
        thresholds: Per fold, for two classes; from `find_threshold` on the fold's validation slides.
        prevalences: Per fold, share of each class in training, in the order of the classes; for three classes or more
            the class with the largest probability over its prevalence is taken (without it, the most likely one).
    """

    thresholds: Mapping[int, Threshold] | None = None
    prevalences: Mapping[int, Sequence[float]] | None = None


def decide_classes(table: PredictionTable, decisions: Decisions) -> NDArray[np.int64] | str:
    """Return the class decided for each row, `(n,)` int64; or a sentence on why that cannot be."""
    folds = sorted(set(table.folds.tolist()))
    probabilities = table.probabilities
    if len(table.classes) == 2:
        if decisions.thresholds is None:
            return "no threshold was given"
        missing = [fold for fold in folds if fold not in decisions.thresholds]
        if missing:
            return f"fold {missing[0]} has no threshold"
        cuts = np.array([decisions.thresholds[fold].value for fold in table.folds.tolist()])
        positive = table.positive_index
        return np.where(probabilities[:, positive] >= cuts, positive, 1 - positive).astype(np.int64)
    if decisions.prevalences is not None:
        missing = [fold for fold in folds if fold not in decisions.prevalences]
        if missing:
            return f"fold {missing[0]} has no training prevalences"
        shares = np.array([decisions.prevalences[fold] for fold in table.folds.tolist()])
        probabilities = probabilities / np.maximum(shares.reshape(probabilities.shape), 1e-12)
    return np.asarray(probabilities.argmax(axis=1), dtype=np.int64)


def _cut_by_youden(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Return the cut of the largest Youden index; of several the one amid the widest gap of scores."""
    levels = np.unique(scores)
    if len(levels) < 2:
        return float(expit(levels[0]))
    cuts = (levels[1:] + levels[:-1]) / 2
    hits = (scores[positive][:, np.newaxis] >= cuts).mean(axis=0)
    youden = hits - (scores[~positive][:, np.newaxis] >= cuts).mean(axis=0)
    best = np.flatnonzero(youden >= youden.max() - 1e-12)
    return float(expit(cuts[best[np.argmax(np.diff(levels)[best])]]))


def _cut_for_sensitivity(scores: NDArray[np.float64], positive: NDArray[np.bool_], sensitivity: float) -> float:
    """Return the highest cut that keeps the sensitivity, halfway to the next score below."""
    ups = np.sort(scores[positive])[::-1]
    last = ups[int(np.ceil(sensitivity * len(ups) - 1e-9)) - 1]
    below = scores[scores < last]
    return float(expit((last + below.max()) / 2 if len(below) else last - 1.0))
