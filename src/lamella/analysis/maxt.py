"""Critical values that hold for several differences at once: quantiles of the largest of correlated normals.

Romano and Wolf (2005); shrunk by a first step as Romano, Shaikh and Wolf (2014). Formulas: docs/statistics.md.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri, stdtrit
from scipy.stats import qmc

from lamella.analysis.differences import Differences

Floats = NDArray[np.float64]
ALPHA = 0.025
"""One-sided level of every statement."""
BETA = 0.0025
"""What of it the first step spends, that finds by how much arms are clearly worse."""
Z = float(ndtri(1 - ALPHA))
_POWER_OF_2 = 15
_MANY = 1e9  # degrees of freedom at which t is normal


def find_critical(
    differences: Differences, best: int, family: NDArray[np.int64], *, level: float, shifts: Floats | None = None
) -> float:
    """Return the d that the largest standardised difference of one arm from a family exceeds with `level`.

    Never below 1.96, nor above what Bonferroni asks.

    Args:
        differences: Of all arms.
        best: The arm that the others are held against.
        family: `(F,)` the others.
        level: Probability, one-sided.
        shifts: `(F,)` by how many standard errors each is known to be worse, at least 0; such arms hardly count.
    """
    sample = sample_normals(_correlate(differences, best, family))
    if shifts is not None:
        sample = sample - shifts
    return _clip(float(np.quantile(sample.max(axis=1), 1 - level)), level, len(family))


def find_critical_of_pairs(differences: Differences, first: NDArray[np.int64], second: NDArray[np.int64]) -> float:
    """Return the d that the largest of many standardised differences exceeds with `ALPHA`, either way round.

    Args:
        differences: Of all arms.
        first: `(F,)` one arm of each pair.
        second: `(F,)` the other; each pair stands once.
    """
    n_arms = len(differences.values)
    apart = np.zeros((len(first), n_arms))
    apart[np.arange(len(first)), first] = 1.0
    apart[np.arange(len(first)), second] = -1.0
    values, vectors = np.linalg.eigh(differences.covariance)
    root = vectors * np.sqrt(np.maximum(values, 0))  # (J, J)
    loadings = apart @ root
    variance = (loadings**2).sum(axis=1) + differences.seeds[first, second] / differences.factor[first, second]
    safe = np.where(variance > 0, variance, 1.0)
    normals = draw_normals(n_arms)
    sample = normals @ (loadings / np.sqrt(safe)[:, None]).T
    noise = np.sqrt(np.maximum(1 - (loadings**2).sum(axis=1) / safe, 0))
    if noise.max() > 1e-6:  # seeds, and pairs that agree on every patient
        rng = np.random.default_rng(0)
        sample = sample + noise * rng.normal(size=sample.shape)
    return _clip(float(np.quantile(np.abs(sample).max(axis=1), 1 - ALPHA)), ALPHA, 2 * len(first))


def bound_critical(level: float, n: int) -> float:
    """Return what Bonferroni asks of `n` differences; for one it is the quantile of a single one, and never less."""
    return max(Z, float(ndtri(1 - level / max(1, n))))


def find_upper(differences: Differences, critical: Floats | float) -> Floats:
    """Return the upper bounds D + d SE, `(J, J)`, d made a t quantile and corrected for skewness (Hall 1992).

    Args:
        differences: Of all arms.
        critical: d, one for all or `(J,)` by column.
    """
    d = np.broadcast_to(np.asarray(critical, dtype=np.float64), differences.values.shape)
    return differences.values + correct_quantile(_find_t(d, differences.degrees), differences.skewness) * (
        differences.errors
    )


def correct_quantile(z: Floats, skewness: Floats) -> Floats:
    """Return the quantile of a difference of some skewness over its estimated standard error (Hall 1992, one term)."""
    return np.asarray(z + skewness * (2 * z**2 + 1) / 6)


def _find_t(z: Floats, degrees: Floats) -> Floats:
    """Return the t quantile of the level of a normal one."""
    if np.isinf(degrees).all():
        return np.asarray(z, dtype=np.float64)
    return np.asarray(stdtrit(np.minimum(degrees, _MANY), ndtr(z)))


def _clip(d: float, level: float, n: int) -> float:
    return float(np.clip(d, Z, bound_critical(level, n)))


def _correlate(differences: Differences, best: int, family: NDArray[np.int64]) -> Floats:
    """Return the correlation of an arm's differences from a family, `(F, F)`.

    A difference without spread counts as a normal of its own, or arms that agree would be accepted at any n.
    """
    c, factor = differences.covariance, np.sqrt(differences.factor[family, best])
    covariance = c[best, best] - c[family, best][:, None] - c[family, best] + c[np.ix_(family, family)]
    covariance = covariance * factor[:, None] * factor
    covariance[np.diag_indices_from(covariance)] += differences.seeds[family, best]
    variances = np.diag(covariance).copy()
    still = variances <= 1e-12
    sd = np.sqrt(np.where(still, 1.0, variances))
    correlation = covariance / sd[:, None] / sd
    correlation[still], correlation[:, still] = 0.0, 0.0
    np.fill_diagonal(correlation, 1.0)
    return np.asarray(correlation)


def sample_normals(correlation: Floats) -> Floats:
    """Return normals of a correlation matrix, `(samples, F)`; what makes it no such matrix is cut off."""
    values, vectors = np.linalg.eigh(correlation)
    # The symmetric root: vectors of equal eigenvalues are LAPACK's choice, and another processor's would be others.
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
    root /= np.maximum(np.linalg.norm(root, axis=1, keepdims=True), 1e-12)
    return np.asarray(draw_normals(len(correlation)) @ root.T)


@lru_cache(maxsize=64)
def draw_normals(n: int) -> Floats:
    """Return the same evenly spread standard normals each time, `(32768, n)`."""
    points = qmc.Sobol(n, scramble=True, rng=0).random_base2(_POWER_OF_2)
    return np.asarray(ndtri(np.clip(points, 1e-9, 1 - 1e-9)))
