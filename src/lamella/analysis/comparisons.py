"""Declared comparisons of arms: against chance, against each other, against the order of ImageNet accuracies.

Formulas and reasons: docs/statistics.md.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from scipy.stats import spearmanr

from lamella.analysis.auc import AucEstimate
from lamella.analysis.differences import Differences
from lamella.analysis.verdict import DeclaredPair, DeclaredTable, PlannedTable, RankCorrelation

Floats = NDArray[np.float64]
LEVEL = 0.05
_MOST_EXACT = 8


def judge_against_chance(estimate: AucEstimate) -> Floats:
    """Return the one-sided p of each arm against an AUC of 1/2, `(J,)` float64, not adjusted.

    z = (A - 1/2) / sqrt(c sum_k w_k^2 (m_k + q_k + 1) / (12 m_k q_k)), c = 2 under cross-validation and 1 for a single
    test set; of several classes the one-against-rest AUCs are taken to err together.
    """
    m, q = estimate.n_positive.astype(np.float64), estimate.n_negative.astype(np.float64)
    pairs = m * q
    share = pairs / pairs.sum(axis=1, keepdims=True)
    variance = (share**2 * (m + q + 1) / (12 * np.maximum(pairs, 1))).sum(axis=1)
    factor = 2.0 if estimate.cross_validated else 1.0
    sd = np.sqrt(factor * estimate.deff) * np.sqrt(variance).mean()
    return np.asarray(ndtr((0.5 - estimate.auc) / sd))


def adjust_holm(p: Sequence[float]) -> list[float]:
    """Return p values adjusted by Holm (1979), in the order given.

    Example:
        >>> adjust_holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    order = np.argsort(p, kind="stable")
    adjusted, highest = [0.0] * len(p), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p) - rank) * float(p[index])))
        adjusted[index] = highest
    return adjusted


def compare_declared(
    differences: Differences | None, names: Sequence[str], tables: Sequence[PlannedTable]
) -> list[DeclaredTable]:
    """Return the declared tables: differences with intervals, and p adjusted by Holm within each table.

    Intervals are not adjusted.

    Args:
        differences: Of all arms; None gives tables without rows.
        names: Of the arms, in their order.
        tables: As declared.
    """
    columns = {name: column for column, name in enumerate(names)}
    declared = []
    for table in tables:
        pairs = [] if differences is None else [(columns[arm], columns[base]) for arm, base in table["rows"]]
        compared = [] if differences is None else [differences.compare(arm, base) for arm, base in pairs]
        adjusted = adjust_holm([difference.p for difference in compared])
        rows = tuple(
            DeclaredPair(
                arm=names[arm],
                base=names[base],
                difference=difference.difference,
                standard_error=difference.standard_error,
                interval=difference.interval,
                p=difference.p,
                p_holm=p_holm,
                starred=p_holm < LEVEL,
            )
            for (arm, base), difference, p_holm in zip(pairs, compared, adjusted, strict=True)
        )
        declared.append(DeclaredTable(name=table["name"], title=table["title"], rows=rows))
    return declared


def correlate_with_imagenet(
    auc: Floats, top1: Floats, drawn_auc: Floats, *, n_draws: int = 10000, seed: int = 0
) -> RankCorrelation | None:
    """Return Spearman's correlation of the encoders' AUCs with their ImageNet accuracies.

    p permutes the encoders; the interval draws patients, so it speaks of these encoders only.

    Args:
        auc: `(E,)`.
        top1: `(E,)` per cent.
        drawn_auc: `(R, E)` AUCs in draws of patients.
        n_draws: Permutations, where there are too many to list.
        seed: Of them.

    Returns:
        None with fewer than four encoders, or where all are equal.
    """
    if len(auc) < 4 or len(set(top1.tolist())) < 2 or len(set(auc.tolist())) < 2:
        return None
    rho = float(spearmanr(auc, top1).statistic)
    ranks = _rank(auc)
    others = _rank(top1)
    if len(auc) <= _MOST_EXACT:
        orders = np.array(list(itertools.permutations(range(len(auc)))))
    else:
        rng = np.random.default_rng(seed)
        orders = rng.permuted(np.tile(np.arange(len(auc)), (n_draws, 1)), axis=1)
    centred = others - others.mean()
    permuted = ((ranks - ranks.mean())[orders] * centred).sum(axis=1)
    covariance = float(((ranks - ranks.mean()) * centred).sum())
    n_beyond = int((np.abs(permuted) >= abs(covariance) - 1e-9).sum())
    exact = len(auc) <= _MOST_EXACT
    p = n_beyond / len(orders) if exact else (n_beyond + 1) / (len(orders) + 1)
    drawn = [float(spearmanr(aucs, top1).statistic) for aucs in drawn_auc if len(set(aucs.tolist())) > 1]
    drawn = [value for value in drawn if math.isfinite(value)]
    return RankCorrelation(
        rho=rho,
        p=p,
        interval=tuple(np.quantile(drawn, (0.025, 0.975)).tolist()) if len(drawn) > 20 else None,
        n=len(auc),
        caption=f"Spearman over {len(auc)} encoders, interval for these encoders only. With so few points no absence "
        "of a correlation can be claimed.",
    )


def _rank(values: Floats) -> Floats:
    """Return ranks from 1, ties averaged."""
    below = (values[:, None] > values).sum(axis=1)
    equal = (values[:, None] == values).sum(axis=1)
    return np.asarray(below + (equal + 1) / 2, dtype=np.float64)
