"""How many patients would let the cheapest arm be accepted. Formulas and reasons: docs/statistics.md."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from lamella.analysis.auc import AucEstimate
from lamella.analysis.differences import find_difference_factor
from lamella.analysis.recommend import Deficits, correct_quantile

Floats = NDArray[np.float64]
_POWER = 0.80
_N_SAMPLES = 1000
_N_STEPS = 4


def find_patients_needed(
    estimate: AucEstimate,
    deficits: Deficits,
    cheapest: int,
    margin: float,
    *,
    targets: NDArray[np.int64],
    patients: NDArray[np.int64] | None = None,
    n_draws: int = 500,
) -> tuple[int, tuple[int, int]] | None:
    """Return how many patients would let the cheapest arm be accepted in 80% of studies, if all arms are truly equal.

    Accepted means held against *all* others at once: with T the standardised differences from them, correlated as
    they are, the n that is enough in 80% of draws of T: max over b of the n at which (z_b + T_b) SE_b(n) = margin. With
    one other arm that is (z + 0.84) SE(n) = margin. SE_b(n)^2 falls as 1/n, its terms for a patient on which arms
    disagree as 1/n^2, the skewness in z_b as 1/sqrt(n).

    Args:
        estimate: Of all arms.
        deficits: Of them.
        cheapest: Place of the cheapest arm.
        margin: How much AUC may be given up, above 0.
        targets: `(n,)` class of each unit.
        patients: `(n,)` patient of each unit; None when each is one.
        n_draws: Draws of patients for the range.

    Returns:
        The number, rounded up to two digits, and the range of 90% of draws of patients; same prevalence, same models.
        None with one arm.
    """
    others = np.array([b for b in range(len(estimate.auc)) if b != cheapest], dtype=np.int64)
    if not len(others) or estimate.covariance is None:
        return None
    apart = estimate.influence[:, others] - estimate.influence[:, [cheapest]]
    n_patients = len(targets) if patients is None else len(np.unique(patients))
    groups = _group(apart, targets, patients)
    rng = np.random.default_rng(0)
    own = sum((_sum_products(rows) for rows in groups), np.zeros((len(others), len(others))))
    variance = np.diag(own)
    drawn = sum((_draw_variances(rows, n_draws, rng) for rows in groups), np.zeros((n_draws, len(others))))
    factor = find_difference_factor(np.maximum(estimate.auc[others], estimate.auc[cheapest]), estimate.n_rounds)
    disagreement = np.full(len(others), estimate.disagreement)
    # What is left of SE^2 is the noise of training, taken to fall as 1/n too.
    noise = np.maximum(deficits.errors[cheapest, others] ** 2 - factor * variance - disagreement, 0)
    luck, skewness = _sample_correlated(own, rng), deficits.skewness[cheapest, others]

    def needed(spread: Floats) -> float:
        n: Floats = np.full_like(luck, n_patients)
        for _ in range(_N_STEPS):  # the skewness hangs on n, weakly
            z = correct_quantile(deficits.z, skewness * np.sqrt(n_patients / np.maximum(n, 1)))
            ratio = (np.maximum(z + luck, 0) / margin) ** 2
            # n^2 - 2 half n - ratio disagreement n_patients^2 = 0
            half = ratio * (factor * spread + noise) * n_patients / 2
            n = half + np.sqrt(half**2 + ratio * disagreement * n_patients**2)
        return float(np.quantile(n.max(axis=1), _POWER))

    low, high = np.quantile([needed(spread) for spread in drawn], (0.05, 0.95))
    return round_up(needed(variance)), (round_up(float(low)), round_up(float(high)))


def round_up(value: float) -> int:
    """Round up to two digits, at least 1.

    Example:
        >>> round_up(1234.0), round_up(87.4), round_up(3.2), round_up(1200.0)
        (1300, 88, 4, 1200)
    """
    if value < 1:
        return 1
    unit = 10.0 ** max(0, math.floor(math.log10(value)) - 1)
    return int(math.ceil(value / unit - 1e-9) * unit)


def _group(apart: Floats, targets: NDArray[np.int64], patients: NDArray[np.int64] | None) -> list[Floats]:
    """Return the rows that are drawn together: a class at a time, or all patients, each summed over its units."""
    if patients is None:
        return [apart[targets == target] for target in np.unique(targets)]
    numbers = np.unique(patients, return_inverse=True)[1].reshape(-1)
    sums = np.zeros((int(numbers.max()) + 1, apart.shape[1]))
    np.add.at(sums, numbers, apart)
    return [sums]


def _sum_products(rows: Floats) -> Floats:
    """Return m/(m - 1) times the centred products of rows `(m, B)`: `(B, B)`; 0 of one row."""
    centred = rows - rows.mean(axis=0)
    return np.asarray(len(rows) / max(1, len(rows) - 1) * centred.T @ centred)


def _draw_variances(rows: Floats, n_draws: int, rng: np.random.Generator) -> Floats:
    """Return the diagonal of `_sum_products` in draws of the rows, `(n_draws, B)`."""
    m = len(rows)
    weights = rng.multinomial(m, np.full(m, 1 / m), size=n_draws).astype(np.float64)
    squares = weights @ rows**2 - (weights @ rows) ** 2 / m
    return np.asarray(m / max(1, m - 1) * np.maximum(squares, 0))


def _sample_correlated(covariance: Floats, rng: np.random.Generator) -> Floats:
    """Return standard normals correlated as `covariance` says, `(samples, B)`, evenly spread in each direction."""
    n = len(covariance)
    sd = np.sqrt(np.diag(covariance))
    scaled = covariance / np.maximum(np.outer(sd, sd), 1e-300)
    np.fill_diagonal(scaled, 1.0)  # an arm that agrees with the cheapest on every patient has no spread
    values, vectors = np.linalg.eigh(scaled)
    even = (rng.permuted(np.tile(np.arange(_N_SAMPLES), (n, 1)), axis=1) + 0.5) / _N_SAMPLES
    return np.asarray(ndtri(even).T @ (vectors * np.sqrt(np.maximum(values, 0))).T)
