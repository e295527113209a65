"""What pairs of patients add to the covariance of AUCs by themselves, beyond what each of the two patients adds.

The variance of an AUC is that of its positives, of its negatives, and of their pairs. Spreads over patients hold the
pairs' part twice, once with either patient: `find_pair_excess` is the one that is too many. Formulas:
docs/statistics.md.

Symbols: J arms, n units, C classes, P patients.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_BLOCK = 1 << 22  # comparisons at a time: they fit in memory, and float32 still counts them exactly


def find_pair_excess(
    scores: Floats,
    targets: NDArray[np.int64],
    folds: NDArray[np.int64],
    patients: NDArray[np.int64] | None,
    class_auc: Floats,
    scored: Sequence[int],
) -> Floats:
    """Return what the covariance of AUCs counts twice, `(J, J)`: the sum of the products of all pairs' deviations.

    Args:
        scores: `(n, C, J)` log-odds of each class against the rest.
        targets: `(n,)` class of each unit.
        folds: `(n,)` number of the model that scored each unit, from 0; only pairs of one fold count.
        patients: `(n,)` patient of each unit; None where each is one. Pairs are added up by pair of patients.
        class_auc: `(C', J)` of the scored classes against the rest.
        scored: The C' classes that have pairs.
    """
    if scores.shape[1] == 2:
        positive = targets == 1
        if patients is None:
            return _sum_binary(scores[:, 1], positive, folds, class_auc[scored.index(1)])
        if not np.isin(patients[positive], patients[~positive]).any():
            return _sum_clustered(scores[:, 1], positive, folds, patients, class_auc[scored.index(1)])
    return _sum_by_patient(scores, targets, folds, patients, class_auc, scored)


def _sum_binary(scores: Floats, positive: NDArray[np.bool_], folds: NDArray[np.int64], auc: Floats) -> Floats:
    """Return the sum over same-fold pairs of (K_a - A_a)(K_b - A_b) / N^2, of two classes; each unit is a patient."""
    n_arms = scores.shape[1]
    total, n_pairs = np.zeros((n_arms, n_arms)), 0
    for fold in np.unique(folds):
        rows = folds == fold
        ups, downs = scores[rows & positive].T, scores[rows & ~positive].T  # (J, m), (J, q)
        m, q = ups.shape[1], downs.shape[1]
        if m == 0 or q == 0:
            continue
        n_pairs += m * q
        step = max(1, _BLOCK // (q * n_arms))
        for begin in range(0, m, step):
            flat = _compare(ups[:, begin : begin + step], downs).reshape(n_arms, -1)
            total += flat @ flat.T  # halves, so float32 adds them up exactly
    return np.asarray((total - n_pairs * np.outer(auc, auc)) / n_pairs**2)


def _sum_clustered(
    scores: Floats, positive: NDArray[np.bool_], folds: NDArray[np.int64], patients: NDArray[np.int64], auc: Floats
) -> Floats:
    """Return the same where patients have several slides, all of one class: pairs are added up by pair of patients."""
    n_arms = scores.shape[1]
    total, n_pairs = np.zeros((n_arms, n_arms)), 0
    order = np.argsort(patients, kind="stable")
    scores, positive, folds, patients = scores[order], positive[order], folds[order], patients[order]
    for fold in np.unique(folds):
        ups, downs = (np.flatnonzero((folds == fold) & mask) for mask in (positive, ~positive))
        if len(ups) == 0 or len(downs) == 0:
            continue
        n_pairs += len(ups) * len(downs)
        (up_starts, up_counts), (down_starts, down_counts) = (_find_groups(patients[rows]) for rows in (ups, downs))
        for k in range(len(up_starts)):
            rows = ups[up_starts[k] : up_starts[k] + up_counts[k]]
            won = _compare(scores[rows].T, scores[downs].T).sum(axis=1, dtype=np.float64)  # (J, q)
            apart = np.add.reduceat(won, down_starts, axis=1) - np.outer(auc, up_counts[k] * down_counts)
            total += apart @ apart.T
    return total / n_pairs**2


def _compare(ups: Floats, downs: Floats) -> NDArray[np.float32]:
    """Return `(J, m, q)` whether each positive scores above each negative, ties one half."""
    first, second = ups[:, :, None], downs[:, None, :]
    right = (first > second).astype(np.float32)
    ordered = np.sort(np.concatenate([ups, downs], axis=1), axis=1)
    if (ordered[:, 1:] == ordered[:, :-1]).any():  # a tie of two positives or two negatives costs time only
        right += np.float32(0.5) * (first == second)
    return right


def _find_groups(sorted_names: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where each group of equal names begins, and how many it has."""
    starts = np.flatnonzero(np.r_[True, sorted_names[1:] != sorted_names[:-1]])
    return starts, np.diff(np.r_[starts, len(sorted_names)])


def _sum_by_patient(
    scores: Floats,
    targets: NDArray[np.int64],
    folds: NDArray[np.int64],
    patients: NDArray[np.int64] | None,
    class_auc: Floats,
    scored: Sequence[int],
) -> Floats:
    """Return the same for any number of classes and slides a patient, a block of patients at a time."""
    units = np.arange(len(targets)) if patients is None else patients
    order = np.argsort(units, kind="stable")
    scores, targets, folds, units = scores[order], targets[order], folds[order], units[order]
    kept = np.isin(targets, scored)
    auc = np.full((scores.shape[1], scores.shape[2]), np.nan)
    auc[list(scored)] = class_auc
    weight = np.zeros(scores.shape[1])  # of a pair in the mean over classes
    for column in scored:
        weight[column] = 1 / (len(scored) * _count_pairs(targets == column, folds))
    starts, counts = _find_groups(units)
    ends = starts + counts
    n_arms = scores.shape[2]
    step = max(1, _BLOCK // (4 * len(units) * n_arms))

    def deviate(rows: NDArray[np.int64], others: NDArray[np.int64]) -> Floats:
        """Return `(rows, others, J)`: how far each pair lies from the AUC of the row's class, weighed; else 0."""
        own_targets = targets[rows]
        first = scores[rows, own_targets][:, None]  # (r, 1, J)
        second = scores[others][:, own_targets].transpose(1, 0, 2)  # (r, o, J): the others' log-odds of the row's class
        right = (first > second) + 0.5 * (first == second)
        paired = (
            (own_targets[:, None] != targets[others]) & (folds[rows][:, None] == folds[others]) & kept[rows][:, None]
        )
        apart = (right - auc[own_targets][:, None]) * weight[own_targets][:, None, None]
        return np.where(paired[:, :, None], apart, 0.0)

    everyone, total = np.arange(len(units)), np.zeros((n_arms, n_arms))
    begin = 0
    while begin < len(starts):
        end = max(begin + 1, int(np.searchsorted(ends, starts[begin] + step, side="right")))
        rows = np.arange(starts[begin], ends[end - 1])
        ups = np.add.reduceat(deviate(rows, everyone), starts, axis=1)
        downs = np.add.reduceat(deviate(everyone, rows), starts, axis=0).transpose(1, 0, 2)
        both = np.add.reduceat(ups + downs, starts[begin:end] - starts[begin], axis=0)  # (patients, P, J)
        here = np.arange(begin, end)
        diagonal = both[here - begin, here] / 2  # pairs of a patient's own slides came in from both sides
        total += np.einsum("pra,prb->ab", both, both, optimize=True) / 2 - np.einsum("pa,pb->ab", diagonal, diagonal)
        begin = end
    return total


def _count_pairs(positive: NDArray[np.bool_], folds: NDArray[np.int64]) -> int:
    n_folds = int(folds.max()) + 1
    counts = [np.bincount(folds[mask], minlength=n_folds) for mask in (positive, ~positive)]
    return int((counts[0] * counts[1]).sum())
