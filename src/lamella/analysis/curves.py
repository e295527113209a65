"""Points of the ROC and precision-recall curves."""

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from lamella.analysis.calibration import CalibrationGroup, find_calibration_groups
from lamella.analysis.predictions import PredictionTable
from lamella.records import Record

Floats = NDArray[np.float64]


class RocPoints(Record):
    """Corners of a ROC curve: false and true positive rates."""

    fpr: tuple[float, ...]
    tpr: tuple[float, ...]


class RecallPoints(Record):
    """Recall and precision, from the highest score down."""

    recall: tuple[float, ...]
    precision: tuple[float, ...]


class ClassCurves(Record):
    """The points of one class's plots; what cannot be had is None or empty.

    `roc` is the mean of the folds' curves, weighted by pairs, so that its area is the AUC within folds; `roc_folds`
    holds each fold's. `precision_recall` and `calibration` are over all folds.
    """

    roc: RocPoints | None = None
    roc_folds: dict[str, RocPoints | None] = Field(default_factory=dict)
    precision_recall: RecallPoints | None = None
    prevalence: float | None = None
    calibration: tuple[CalibrationGroup, ...] = ()


def find_curves(table: PredictionTable) -> dict[str, ClassCurves]:
    """Return the points of the plots, per class (the positive one alone, of two)."""
    curves = {}
    for column in table.scored_columns:
        scores, positive = table.scores[:, column], table.targets == column
        folds = {str(fold): find_roc(*_rows(table.folds == fold, scores, positive)) for fold in np.unique(table.folds)}
        recall = find_precision_recall(scores, positive)
        curves[table.classes[column]] = ClassCurves(
            roc=_list_points(find_mean_roc(scores, positive, table.folds)),
            roc_folds={fold: _list_points(curve) for fold, curve in folds.items()},
            precision_recall=None
            if recall is None
            else RecallPoints(recall=recall[0].tolist(), precision=recall[1].tolist()),
            prevalence=float(positive.mean()) if len(positive) else None,
            calibration=tuple(find_calibration_groups(table.probabilities[:, column], positive)),
        )
    return curves


def find_roc(scores: Floats, positive: NDArray[np.bool_]) -> tuple[Floats, Floats] | None:
    """Return the ROC's corners: false and true positive rates, `(p,)` each, from 0 to 1; None for one class."""
    if positive.all() or not positive.any():
        return None
    ups, downs = _count_from_top(scores, positive)
    return np.r_[0.0, downs / downs[-1]], np.r_[0.0, ups / ups[-1]]


def find_mean_roc(
    scores: Floats, positive: NDArray[np.bool_], folds: NDArray[np.int64]
) -> tuple[Floats, Floats] | None:
    """Return the mean of the folds' ROCs at each false positive rate, weighted by pairs: its area is the AUC in folds.

    Returns:
        False and true positive rates, `(p,)` each; None when no fold has both classes.
    """
    curves, pairs = [], []
    for fold in np.unique(folds):
        rows = folds == fold
        curve = find_roc(scores[rows], positive[rows])
        if curve is not None:
            curves.append(_find_limits(*curve))
            pairs.append(int(positive[rows].sum()) * int((~positive[rows]).sum()))
    if not curves:
        return None
    rates = np.unique(np.concatenate([curve[0] for curve in curves]))
    # A fold's curve may jump at a rate that others cross smoothly: keep the value before the jump and the one after.
    limits = [_read_limits(curve, rates) for curve in curves]
    low, high = (np.average([limit[side] for limit in limits], axis=0, weights=pairs) for side in (0, 1))
    return np.repeat(rates, 2), np.stack([low, high], axis=1).reshape(-1)


def find_precision_recall(scores: Floats, positive: NDArray[np.bool_]) -> tuple[Floats, Floats] | None:
    """Return recall and precision at each distinct score, from the highest down; None without positives."""
    if not positive.any():
        return None
    ups, downs = _count_from_top(scores, positive)
    return ups / ups[-1], ups / (ups + downs)


def _count_from_top(scores: Floats, positive: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Count positives and negatives at or above each distinct score, from the highest down."""
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.r_[np.diff(scores[order]) < 0, True])
    return (
        np.cumsum(positive[order])[ends].astype(np.float64),
        np.cumsum(~positive[order])[ends].astype(np.float64),
    )


def _find_limits(fpr: Floats, tpr: Floats) -> tuple[Floats, Floats, Floats]:
    """Return each distinct false positive rate with the lowest and highest true positive rate there."""
    rates, first = np.unique(fpr, return_index=True)
    last = np.r_[first[1:], len(fpr)] - 1
    return rates, tpr[first], tpr[last]


def _read_limits(curve: tuple[Floats, Floats, Floats], rates: Floats) -> tuple[Floats, Floats]:
    """Read a curve just before and just after each rate."""
    curve_rates, low, high = curve
    after = np.clip(np.searchsorted(curve_rates, rates, "left"), 1, len(curve_rates) - 1)
    start, stop = curve_rates[after - 1], curve_rates[after]
    between = high[after - 1] + (low[after] - high[after - 1]) * (rates - start) / (stop - start)
    index = np.clip(np.searchsorted(curve_rates, rates, "left"), 0, len(curve_rates) - 1)
    exact = curve_rates[index] == rates
    return np.where(exact, low[index], between), np.where(exact, high[index], between)


def _rows(mask: NDArray[np.bool_], scores: Floats, positive: NDArray[np.bool_]) -> tuple[Floats, NDArray[np.bool_]]:
    """Return the rows of a mask."""
    return scores[mask], positive[mask]


def _list_points(curve: tuple[Floats, Floats] | None) -> RocPoints | None:
    return None if curve is None else RocPoints(fpr=curve[0].tolist(), tpr=curve[1].tolist())
