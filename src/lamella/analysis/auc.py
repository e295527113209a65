"""AUC within folds, its errors, and the errors of differences: one matrix for everything.

A pair counts only when both of its slides were scored by the same model, that is, stand in the same fold. Several
classes: the mean of one-against-rest. Formulas: docs/statistics.md.

Symbols: J arms (what is compared; one, mostly), n units (patients, or slides), C classes, K folds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtri

from lamella.analysis.pairs import find_pair_excess
from lamella.analysis.predictions import find_log_odds

Floats = NDArray[np.float64]
_FEW = 1 << 14


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AucEstimate:
    """AUC of J arms on the same units, with what its errors are made of.

    Attributes:
        auc: `(J,)` float64, within folds.
        influence: `(n, J)` float64, what each unit adds to the AUC beyond its share (u of a positive, v of a
            negative); the columns sum to 0.
        centred: `(P, J)` float64, what each unit (or patient, where units are slides) adds beyond the mean of its
            class, with m/(m - 1) taken in, so that its products sum to the covariance; None as that is.
        covariance: `(J, J)` float64, of the arms' AUCs, without the factor for cross-validation; None with fewer than
            two units of a class (or two patients), from which no spread can be seen.
        pair_excess: `(J, J)` float64, what the covariance counts twice, each pair's own part; differences are taken
            from the covariance less it. None with one arm, or where there is no covariance.
        disagreement: Variance of one more patient of each class on which two arms disagree by half.
        deff: `(J,)` float64, at least 1: how much more the AUC varies because slides of one patient are alike.
        n_positive: `(C', K)` int64, units of each class that has pairs, in each fold.
        n_negative: `(C', K)` int64, units of the other classes, in each fold.
        scored: Classes (as indices) that have pairs; C' of them.
        class_auc: `(C', J)` float64, of each class against the rest.
        n_pairs: Pairs compared, over all classes against the rest (two classes: counted once).
        n_rounds: How many models scored the units, each trained on some of the others' test units; 1 for a test set.
    """

    auc: Floats
    influence: Floats
    centred: Floats | None
    covariance: Floats | None
    pair_excess: Floats | None
    disagreement: float
    deff: Floats
    n_positive: NDArray[np.int64]
    n_negative: NDArray[np.int64]
    scored: tuple[int, ...]
    class_auc: Floats
    n_pairs: int
    n_rounds: int

    @property
    def cross_validated(self) -> bool:
        """Whether the models trained on each other's test units."""
        return self.n_rounds > 1


def estimate_auc(
    logits: Floats,
    targets: NDArray[np.int64],
    *,
    folds: NDArray[np.int64],
    patients: NDArray[np.int64] | None = None,
    n_rounds: int | None = None,
) -> AucEstimate | None:
    """Estimate the AUC within folds of one or several arms.

    With one fold and two classes `covariance` is DeLong's (1988); with several slides a patient it is summed by
    patient first (Obuchowski 1997).

    Args:
        logits: `(n, C)`, or `(J, n, C)` for several arms, C at least 2.
        targets: `(n,)` class of each unit, 0 to C - 1.
        folds: `(n,)` model that scored each unit; or fold and batch, so that only pairs of both count.
        patients: `(n,)` patient of each unit; None when each is one.
        n_rounds: How many models trained on each other's test units; 1 for a test set. None takes the number of folds.

    Returns:
        The estimate; None when no fold holds two classes, so that there is no pair.

    Example:
        Fold 0 has its one pair in order, fold 1 has one of two; across folds nothing is compared:

        >>> logits = np.array([[0, 1.0], [0, 2.0], [0, 8.0], [0, 9.0], [0, 8.5]])
        >>> estimate = estimate_auc(logits, np.array([0, 1, 0, 0, 1]), folds=np.array([0, 0, 1, 1, 1]))
        >>> estimate.auc.round(4).tolist(), estimate.n_pairs
        ([0.6667], 3)
    """
    arms = logits[np.newaxis] if logits.ndim == 2 else logits
    scores = np.stack([find_log_odds(arm) for arm in arms], axis=-1)  # (n, C, J)
    n, n_classes, n_arms = scores.shape
    fold_numbers = np.unique(folds, return_inverse=True)[1].reshape(-1)
    influence, class_auc, counts, scored = np.zeros((n, n_arms)), [], [], []
    for column in range(n_classes):
        ranked = _rank_class(scores[:, column], targets == column, fold_numbers)
        if ranked is not None:
            scored.append(column)
            class_auc.append(ranked[0])
            influence += ranked[1]
            counts.append(ranked[2])
    if not scored:
        return None
    influence /= len(scored)
    n_positive, n_negative = np.array(counts).transpose(1, 0, 2)
    # A unit alone in its fold's class, or in a fold of one class, stands in no pair and says nothing.
    in_pairs = np.isin(fold_numbers, np.flatnonzero((n_positive * n_negative).sum(axis=0)))
    units = influence[in_pairs]
    centred = _centre_by_class(units, targets[in_pairs])
    deff = np.ones(n_arms)
    clustered = patients is not None and len(np.unique(patients[in_pairs])) < in_pairs.sum()
    if patients is not None and clustered:
        by_patient = _centre_by_patient(units, patients[in_pairs])
        if by_patient is not None and centred is not None:
            plain = (centred**2).sum(axis=0)
            deff = np.maximum(1.0, np.divide((by_patient**2).sum(axis=0), plain, out=deff.copy(), where=plain > 0))
        centred = by_patient
    each = np.arange(n) if patients is None or not clustered else patients
    class_sizes = [_count_each(each[in_pairs], targets[in_pairs] == column) for column in scored]
    n_pairs = int((n_positive * n_negative).sum()) // (2 if n_classes == 2 else 1)
    covariance = None if centred is None else centred.T @ centred
    excess = None
    if covariance is not None and n_arms > 1:
        groups = patients if clustered else None
        excess = find_pair_excess(scores, targets, fold_numbers, groups, np.array(class_auc), scored)
    return AucEstimate(
        auc=np.mean(class_auc, axis=0),
        influence=influence,
        centred=centred,
        covariance=covariance,
        pair_excess=excess,
        disagreement=_find_disagreement(class_sizes),
        deff=deff,
        n_positive=n_positive,
        n_negative=n_negative,
        scored=tuple(scored),
        class_auc=np.array(class_auc),
        n_pairs=n_pairs,
        n_rounds=len(np.unique(folds)) if n_rounds is None else n_rounds,
    )


def find_auc_interval(estimate: AucEstimate, *, arm: int = 0, level: float = 0.95) -> tuple[float, float]:
    """Return the score interval of an arm's AUC; it stays honest at an AUC of 1, where others say [1, 1]."""
    return find_score_interval(
        float(estimate.auc[arm]),
        estimate.n_positive,
        estimate.n_negative,
        deff=float(estimate.deff[arm]),
        cross_validated=estimate.cross_validated,
        level=level,
    )


def find_score_interval(
    auc: float,
    n_positive: NDArray[np.int64],
    n_negative: NDArray[np.int64],
    *,
    deff: float = 1.0,
    cross_validated: bool = False,
    level: float = 0.95,
) -> tuple[float, float]:
    """Return every AUC that would not be surprised by `auc` (Newcombe 2006, method 5, summed over folds).

    The one-against-rest AUCs of several classes are taken to err together, which is the widest they can.

    Args:
        auc: As measured, 0 to 1.
        n_positive: `(K,)`, or `(C, K)` for several classes: units in each fold.
        n_negative: Likewise; each class has a fold with both.
        deff: Design effect of slides within patients, at least 1.
        cross_validated: Whether the models trained on each other's test units; widens by 1 + 4A(1 - A).
        level: Coverage wanted.

    Example:
        >>> low, high = find_score_interval(1.0, np.array([17]), np.array([23]))
        >>> round(low, 3), high
        (0.896, 1.0)
    """
    m, q = np.atleast_2d(n_positive).astype(np.float64), np.atleast_2d(n_negative).astype(np.float64)
    share = m * q / (m * q).sum(axis=1, keepdims=True)  # (C, K)
    z = float(ndtri(0.5 + level / 2))

    def excess(other: float) -> float:
        spread = (1 - other) / (2 - other) + other / (1 + other)
        pairs = np.maximum(m * q, 1)  # a fold without pairs has share 0
        variance = other * (1 - other) * (1 + ((m + q) / 2 - 1) * spread) / pairs  # (C, K)
        sd = np.sqrt((share**2 * variance).sum(axis=1)).mean()
        factor = find_cv_factor(other) if cross_validated else 1.0
        return float(abs(auc - other) - z * np.sqrt(factor * deff) * sd)

    edge = 1e-12
    low = 0.0 if auc <= edge else float(brentq(excess, 0.0, min(auc, 1 - edge), xtol=1e-13))
    high = 1.0 if auc >= 1 - edge else float(brentq(excess, max(auc, edge), 1.0, xtol=1e-13))
    return low, high


def find_cv_factor(auc: float) -> float:
    """Return by how much cross-validation multiplies the variance of an AUC: 2 at chance, 1 at AUC 1 (ours)."""
    return 1 + 4 * auc * (1 - auc)


def find_pooled_auc(scores: Floats, positive: NDArray[np.bool_]) -> float | None:
    """Return the share of all (positive, negative) pairs in the right order, whatever their fold, ties one half."""
    m, q = int(positive.sum()), int((~positive).sum())
    if m == 0 or q == 0:
        return None
    return float(_count_below(scores[positive], scores[~positive]).sum() / (m * q))


def _rank_class(
    scores: Floats, positive: NDArray[np.bool_], folds: NDArray[np.int64]
) -> tuple[Floats, Floats, NDArray[np.int64]] | None:
    """Rank one class against the rest, fold by fold.

    Returns:
        AUC `(J,)`, influence `(n, J)`, and counts `(2, K)` of positives and negatives in each fold; None without pairs.
    """
    n_folds = int(folds.max()) + 1 if len(folds) else 0
    counts = np.stack([np.bincount(folds[mask], minlength=n_folds) for mask in (positive, ~positive)])
    n_pairs = int(counts.prod(axis=0).sum())
    if n_pairs == 0:
        return None
    right = np.zeros_like(scores)  # pairs of each unit in the right order
    pairs = np.zeros(len(scores))
    for fold in np.flatnonzero(counts.prod(axis=0)):
        ups, downs = (np.flatnonzero((folds == fold) & mask) for mask in (positive, ~positive))
        pairs[ups], pairs[downs] = len(downs), len(ups)
        right[ups], right[downs] = _count_right(scores[ups], scores[downs])
    auc = right[positive].sum(axis=0) / n_pairs
    return auc, (right - pairs[:, np.newaxis] * auc) / n_pairs, counts


def _count_right(ups: Floats, downs: Floats) -> tuple[Floats, Floats]:
    """Return the pairs in the right order of each positive `(m, J)` and of each negative `(q, J)`, ties one half."""
    if len(ups) * downs.size <= _FEW:  # comparing all pairs is quicker than ranking
        right = (ups[:, None] > downs).astype(np.float64)
        right += 0.5 * (ups[:, None] == downs)
        return right.sum(axis=1), right.sum(axis=0)
    counts = [(_count_below(up, down), _count_below(-down, -up)) for up, down in zip(ups.T, downs.T, strict=True)]
    return np.stack([up for up, _ in counts], axis=1), np.stack([down for _, down in counts], axis=1)


def _count_below(scores: Floats, others: Floats) -> Floats:
    """Count for each score how many of `others` lie below it, ties one half (Sun and Xu 2014: by ranks)."""
    ordered = np.sort(others)
    return (np.searchsorted(ordered, scores, "left") + np.searchsorted(ordered, scores, "right")) / 2


def _centre_by_class(influence: Floats, targets: NDArray[np.int64]) -> Floats | None:
    """Return influence `(n, J)` less its class's mean, times sqrt(m/(m - 1)); None where a class has one unit."""
    centred = np.empty_like(influence)
    for target in np.unique(targets):
        of_class = targets == target
        m = int(of_class.sum())
        if m < 2:
            return None
        centred[of_class] = np.sqrt(m / (m - 1)) * (influence[of_class] - influence[of_class].mean(axis=0))
    return centred


def _centre_by_patient(influence: Floats, patients: NDArray[np.int64]) -> Floats | None:
    """Return influence added up by patient `(P, J)` less its mean, times sqrt(P/(P - 1)); None with one patient."""
    numbers = np.unique(patients, return_inverse=True)[1].reshape(-1)
    n = int(numbers.max()) + 1
    if n < 2:
        return None
    sums = np.zeros((n, influence.shape[1]))
    np.add.at(sums, numbers, influence)
    return np.asarray(np.sqrt(n / (n - 1)) * (sums - sums.mean(axis=0)))


def _count_each(patients: NDArray[np.int64], positive: NDArray[np.bool_]) -> tuple[int, int]:
    """Count the patients that have a positive unit, and those that have a negative one."""
    return len(np.unique(patients[positive])), len(np.unique(patients[~positive]))


def _find_disagreement(sizes: Sequence[tuple[int, int]]) -> float:
    """Return the variance of one more patient of each class on which two arms disagree by half.

    With two classes: (1/m^2 + 1/q^2) / 4. In general a patient of class y moves the AUC of y by 1/m_y and that of each
    other class c by 1/q_c, all of them averaged.
    """
    m, q = np.array(sizes, dtype=np.float64).T
    moved = (1 / m + (1 / q).sum() - 1 / q) / len(m)
    return float((moved**2).sum() / 4)
