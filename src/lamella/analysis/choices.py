"""What a lab that must choose can go by where nothing is shown: the best guess, and what each arm would cost it in AUC.

Neither decides anything: a posterior probability recommends a worse arm in 17 to 81% of cohorts at the margin.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lamella.analysis.auc import AucEstimate
from lamella.analysis.differences import Differences, find_difference_factor
from lamella.analysis.maxt import draw_normals

Floats = NDArray[np.float64]
_SAME_COST = 1.10


def find_cheapest(places: Sequence[int], costs: Floats, gflops: Floats) -> int | None:
    """Return the cheapest of some arms; of those within 10% of it, the one of least arithmetic. None of none.

    Example:
        >>> find_cheapest([0, 1, 2], np.array([1.0, 1.05, 2.0]), np.array([9.0, 3.0, 1.0]))
        1
    """
    if not len(places):
        return None
    least = min(float(costs[i]) for i in places)
    near = [i for i in places if float(costs[i]) <= _SAME_COST * least]
    return min(near, key=lambda i: (float(gflops[i]), float(costs[i]), i))


def guess_best(differences: Differences, places: Sequence[int], costs: Floats, gflops: Floats) -> int | None:
    """Return the cheapest of some arms that lies within one standard error of the highest of them; None of none."""
    if not len(places):
        return None
    auc = differences.values[0]  # less that of the first arm
    highest = float(auc[list(places)].max())
    best = find_cheapest([i for i in places if auc[i] >= highest - 1e-12], costs, gflops)
    near = [i for i in places if differences.values[i, best] <= differences.errors[i, best]]
    return find_cheapest(near, costs, gflops)


def find_expected_loss(estimate: AucEstimate, differences: Differences) -> Floats:
    """Return by how much each arm lies below the best on average, `(J,)`: over draws of what the AUCs may truly be.

    Args:
        estimate: Of all arms.
        differences: Of them; 32,768 draws of normals with their covariance.
    """
    factor = np.sqrt(find_difference_factor(estimate.auc, estimate.n_rounds))
    covariance = differences.covariance * factor[:, None] * factor
    covariance = covariance + np.diag(differences.disagreement / 2 + differences.seed_variances)
    values, vectors = np.linalg.eigh(covariance)
    drawn = estimate.auc + draw_normals(len(factor)) @ (vectors * np.sqrt(np.maximum(values, 0))).T
    return np.asarray((drawn.max(axis=1, keepdims=True) - drawn).mean(axis=0))
