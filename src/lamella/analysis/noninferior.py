"""Which arms are shown to be non-inferior to every other, and which to be worse than another.

Arm i is non-inferior when D_bi + d SE_bi < margin for every other arm b. No best arm is picked, so nothing needs
correcting for picking: the true best is one of the b (Hsu 1981), and d need only hold for the arms held against it at
once. Formulas and reasons: docs/statistics.md.
"""

import numpy as np
from numpy.typing import NDArray

from lamella.analysis.differences import Differences
from lamella.analysis.maxt import (
    ALPHA,
    BETA,
    Z,
    bound_critical,
    find_critical,
    find_critical_of_pairs,
    find_upper,
)

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


def find_noninferior(differences: Differences, margin: float) -> Flags:
    """Return which arms are shown to lie less than a margin below every other, `(J,)`, by step-down max-t.

    Arms once accepted no longer count among those that d must hold for; arms that are clearly worse hardly do.

    Args:
        differences: Of all arms.
        margin: How much AUC may be given up, above 0.
    """
    n_arms = len(differences.values)
    accepted = np.zeros(n_arms, dtype=bool)
    at_least = _hold(find_upper(differences, Z), margin)
    while True:
        left = np.flatnonzero(~accepted)
        candidates = at_least.all(axis=1) & ~accepted
        for best in range(n_arms):
            family = left[left != best]
            asked = family[candidates[family]]
            if not len(asked):
                continue
            most = bound_critical(ALPHA - BETA if len(family) > 1 else ALPHA, len(family))
            if _hold(find_upper(differences, most), margin)[asked, best].all():
                continue
            d = _find_step(differences, best, family, margin)
            candidates[asked] &= _hold(find_upper(differences, d), margin)[asked, best]
        if not candidates.any():
            return accepted
        accepted |= candidates


def find_margins(differences: Differences) -> Floats:
    """Return the smallest margin at which each arm is non-inferior, `(J,)`: its bound has to lie below it.

    The bounds hold together (single-step max-t), so they may be read at any margin, also after the fact.
    """
    n_arms = len(differences.values)
    if n_arms == 1:
        return np.zeros(1)
    everyone = np.arange(n_arms)
    d = np.array([find_critical(differences, b, everyone[everyone != b], level=ALPHA) for b in range(n_arms)])
    upper = find_upper(differences, d)
    np.fill_diagonal(upper, -np.inf)
    return np.asarray(np.clip(upper.max(axis=1), 0.0, 1.0))


def find_worse(differences: Differences) -> Flags:
    """Return which arms are shown to be worse than which, `(J, J)`: row i is worse than column b.

    Step-down max-t over all ordered pairs of arms.
    """
    n_arms = len(differences.values)
    worse = np.zeros((n_arms, n_arms), dtype=bool)
    if n_arms == 1:
        return worse
    first, second = np.triu_indices(n_arms, 1)
    while True:
        left = ~(worse | worse.T)[first, second]
        if not left.any():
            return worse
        d = find_critical_of_pairs(differences, first[left], second[left])
        # Row i, column b of the bounds is how far i may lie below b: where that is below 0, b is worse than i.
        shown = find_upper(differences, d).T < 0
        shown &= ~np.eye(n_arms, dtype=bool)
        new = shown & ~worse
        if not new.any():
            return worse
        worse |= new


def _hold(upper: Floats, margin: float) -> Flags:
    """Return which bounds lie below the margin; an arm need not be held against itself."""
    held = upper < margin
    held |= np.eye(len(held), dtype=bool)
    return np.asarray(held)


def _find_step(differences: Differences, best: int, family: NDArray[np.int64], margin: float) -> float:
    """Return d for the arms that are left, if `best` were the best."""
    if len(family) == 1:
        return Z
    values, errors = differences.values[family, best], differences.errors[family, best]
    lower = values - bound_critical(BETA, len(differences.values) - 1) * errors
    shifts = np.maximum((lower - margin) / errors, 0)
    return find_critical(differences, best, family, level=ALPHA - BETA, shifts=shifts)
