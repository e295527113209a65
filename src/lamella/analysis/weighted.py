"""Figures that weigh each row, so that a bootstrap draw is only another set of weights.

All take weights `(R, n)`, R draws at once, and return `(R,)`, NaN where a draw leaves the figure undefined.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def weigh_pooled_auc(scores: Floats, positive: NDArray[np.bool_], weights: Floats) -> Floats:
    """Return the AUC over all pairs, ties one half, each pair weighted by the product of its rows' weights."""
    pairs = weights[:, positive].sum(axis=1) * weights[:, ~positive].sum(axis=1)
    return _divide(count_hits(scores, positive, weights), pairs)


def count_hits(scores: Floats, positive: NDArray[np.bool_], weights: Floats) -> Floats:
    """Return the weight of all pairs in the right order, ties one half."""
    ups, downs = _sum_by_score(scores, positive, weights)
    below = np.cumsum(downs, axis=1) - downs  # negatives under each distinct score
    return np.asarray((ups * (below + downs / 2)).sum(axis=1))


def weigh_average_precision(scores: Floats, positive: NDArray[np.bool_], weights: Floats) -> Floats:
    """Return the average precision: precision at each distinct score, weighted by the recall gained there."""
    ups, downs = (sums[:, ::-1].cumsum(axis=1) for sums in _sum_by_score(scores, positive, weights))
    total = ups[:, -1]
    gained = np.diff(ups, axis=1, prepend=0)
    precision = np.divide(ups, ups + downs, out=np.zeros_like(ups), where=ups + downs > 0)
    return _divide((gained * precision).sum(axis=1), total)


def weigh_mean(values: Floats, weights: Floats) -> Floats:
    """Return the weighted mean of `values` `(n,)`."""
    return _divide(weights @ values, weights.sum(axis=1))


def weigh_balanced_accuracy(predicted: NDArray[np.int64], targets: NDArray[np.int64], weights: Floats) -> Floats:
    """Return the mean over the classes of `targets` of the share predicted right."""
    recalls = [
        _divide(weights[:, rows] @ (predicted[rows] == target), weights[:, rows].sum(axis=1))
        for target in np.unique(targets)
        if (rows := targets == target).any()
    ]
    return np.asarray(np.mean(recalls, axis=0))


def _sum_by_score(scores: Floats, positive: NDArray[np.bool_], weights: Floats) -> tuple[Floats, Floats]:
    """Sum the weights of positives and of negatives at each distinct score, ascending: `(R, scores)` each."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) > 0])
    ordered, up = weights[:, order], positive[order]
    return np.add.reduceat(ordered * up, starts, axis=1), np.add.reduceat(ordered * ~up, starts, axis=1)


def _divide(top: Floats, bottom: Floats) -> Floats:
    """Divide, NaN where there is nothing to divide by."""
    return np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom > 0)
