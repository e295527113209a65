"""Errors and verdicts as version 0.1.0 had them (commit 3eae5f4), kept to be shown beside today's.

One seed: the benchmarks have no other.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from lamella.analysis.auc import AucEstimate, find_cv_factor
from lamella.analysis.differences import contrast, find_skewness
from lamella.analysis.maxt import correct_quantile

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


def find_errors_before(estimate: AucEstimate) -> Floats:
    """Return the standard errors of all differences, `(J, J)`: pairs counted twice, 1 + 4A(1 - A) on everything."""
    covariance = estimate.covariance
    assert covariance is not None
    factor = np.ones(len(estimate.auc))
    if estimate.cross_validated:
        factor = np.array([find_cv_factor(float(a)) for a in estimate.auc])
    variance = np.maximum(factor[:, None], factor) * (contrast(covariance) + estimate.disagreement)
    np.fill_diagonal(variance, 0)
    return np.asarray(np.sqrt(variance))


def find_noninferior_before(estimate: AucEstimate, margin: float) -> Flags:
    """Return which arms were "not worse" than every other, `(J,)`: Bonferroni over the J - 1 others."""
    n_arms = len(estimate.auc)
    errors = find_errors_before(estimate)
    quantile = correct_quantile(ndtri(1 - 0.025 / max(1, n_arms - 1)), find_skewness(estimate, errors))
    bounds = estimate.auc - estimate.auc[:, None] + quantile * errors
    np.fill_diagonal(bounds, -np.inf)
    return np.asarray(bounds.max(axis=1) < margin)
