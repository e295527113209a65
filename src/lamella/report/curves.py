"""Curves: the points of ROC, precision-recall and calibration plots, as arrays.

Figures of the study (areas, intervals) are computed in `lamella.analysis`; this is only what the charts draw.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_Z = 1.959963984540054


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Scores of slides and whether they are positive.

    Attributes:
        name: What is scored, for the legend.
        truth: `(N,)` bool, True on positive slides.
        score: `(N,)` float64, higher for positive.
        fold: `(N,)` int64 round in which each was tested.
    """

    name: str
    truth: NDArray[np.bool_]
    score: NDArray[np.float64]
    fold: NDArray[np.int64]

    def split(self) -> list["Scores"]:
        """Return the folds that hold both positive and negative slides, in order."""
        parts = [self.fold == fold for fold in np.unique(self.fold)]
        return [
            Scores(self.name, self.truth[part], self.score[part], self.fold[part])
            for part in parts
            if 0 < self.truth[part].sum() < part.sum()
        ]


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationBins:
    """Predicted and observed shares of groups of slides, each `(n_bins,)` float64.

    Attributes:
        predicted: Mean predicted probability.
        observed: Share of positive slides.
        low: Lower end of the 95% Wilson interval of `observed`.
        high: Upper end.
    """

    predicted: NDArray[np.float64]
    observed: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def find_roc(truth: NDArray[np.bool_], score: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Find the ROC curve; equal scores make one slanting line, so the area under it counts ties one half.

    Returns:
        `(n,)` 1 - specificity and `(n,)` sensitivity, from (0, 0) to (1, 1).

    Example:
        >>> x, y = find_roc(np.array([True, True, False]), np.array([0.9, 0.4, 0.4]))
        >>> x.tolist(), y.tolist()
        ([0.0, 0.0, 1.0], [0.0, 0.5, 1.0])
    """
    true_counts, false_counts = _count_down(truth, score)
    return false_counts / false_counts[-1], true_counts / true_counts[-1]


def find_mean_roc(scores: Scores) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Average the folds' ROC curves at each specificity, weighted by their pairs of positive and negative slides.

    The area under the result is the within-fold AUC (LeDell et al. 2015).

    Returns:
        `(n,)` 1 - specificity and `(n,)` sensitivity; empty when no fold holds both kinds of slides.
    """
    folds = scores.split()
    if not folds:
        return np.empty(0), np.empty(0)
    curves = [find_roc(fold.truth, fold.score) for fold in folds]
    pairs = np.array([fold.truth.sum() * (~fold.truth).sum() for fold in folds], dtype=np.float64)
    at = np.unique(np.concatenate([x for x, _ in curves]))
    # A curve may jump at one x: its lower and its upper end there are averaged apart.
    ends = np.array([_find_ends(x, y, at) for x, y in curves])
    mean = np.tensordot(pairs / pairs.sum(), ends, axes=1)
    return np.repeat(at, 2), mean.T.ravel()


def find_precision_recall(
    truth: NDArray[np.bool_], score: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Find precision at each recall that some threshold gives.

    Returns:
        `(n,)` recall and `(n,)` precision, beginning at recall 0 with the first precision.
    """
    true_counts, false_counts = _count_down(truth, score)
    precision = true_counts[1:] / (true_counts[1:] + false_counts[1:])
    recall = true_counts / true_counts[-1]
    return recall, np.concatenate([precision[:1], precision])


def find_calibration(truth: NDArray[np.bool_], probability: NDArray[np.float64], *, n_bins: int = 5) -> CalibrationBins:
    """Group slides by predicted probability, equally many in each, and count the positive ones.

    Args:
        truth: `(N,)` bool.
        probability: `(N,)` float64, 0 to 1.
        n_bins: Most groups; fewer where one would have under 5 slides.
    """
    n_bins = max(1, min(n_bins, truth.size // 5))
    groups = np.array_split(np.argsort(probability, kind="stable"), n_bins)
    predicted = np.array([probability[group].mean() for group in groups])
    n_slides = np.array([group.size for group in groups], dtype=np.float64)
    observed = np.array([truth[group].mean() for group in groups])
    middle = (observed + _Z**2 / (2 * n_slides)) / (1 + _Z**2 / n_slides)
    half = _Z * np.sqrt(observed * (1 - observed) / n_slides + _Z**2 / (4 * n_slides**2)) / (1 + _Z**2 / n_slides)
    return CalibrationBins(predicted, observed, np.clip(middle - half, 0, 1), np.clip(middle + half, 0, 1))


def _count_down(
    truth: NDArray[np.bool_], score: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Count positive and negative slides at or above each distinct score, highest first, beginning with none."""
    order = np.argsort(-score, kind="stable")
    last_of_equal = np.append(np.flatnonzero(np.diff(score[order])), order.size - 1)
    true_counts = np.cumsum(truth[order])[last_of_equal]
    return (
        np.concatenate([[0.0], true_counts]),
        np.concatenate([[0.0], last_of_equal + 1 - true_counts]),
    )


def _find_ends(
    x: NDArray[np.float64], y: NDArray[np.float64], at: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Find the lower and upper end of a rising curve at each of `at`."""
    distinct = np.unique(x)
    first = np.searchsorted(x, distinct, side="left")
    last = np.searchsorted(x, distinct, side="right") - 1
    lower, upper = np.empty_like(at), np.empty_like(at)
    for number, value in enumerate(at):
        place = int(np.searchsorted(distinct, value))
        if place < distinct.size and distinct[place] == value:
            lower[number], upper[number] = y[first[place]], y[last[place]]
        else:
            # Between two points the curve runs straight, from the upper end of the one to the lower of the next.
            left, right = place - 1, place
            share = (value - distinct[left]) / (distinct[right] - distinct[left])
            lower[number] = upper[number] = y[last[left]] + share * (y[first[right]] - y[last[left]])
    return lower, upper
