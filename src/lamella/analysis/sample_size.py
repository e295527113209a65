"""How many patients would let an arm be accepted. Formulas and reasons: docs/statistics.md."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lamella.analysis.auc import AucEstimate
from lamella.analysis.differences import Differences
from lamella.analysis.maxt import correct_quantile, sample_normals

Floats = NDArray[np.float64]
_POWER = 0.80
_LUCK = 0.80
_N_SAMPLES = 1024
_N_STEPS = 4
_MOST = 1e6  # a number that nobody can have is none


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Question:
    """What has to be shown at once for an arm to be accepted: that D_bi + d SE_bi lies below the margin.

    Attributes:
        arms: Places of the arms i, one a difference.
        others: Places of the arms b, likewise.
        critical: `(B,)` d of each difference.
        margin: How much AUC may be given up, above 0.
    """

    arms: tuple[int, ...]
    others: tuple[int, ...]
    critical: Floats
    margin: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientsNeeded:
    """How many patients would let an arm be accepted in 80% of studies.

    Attributes:
        n: The number, rounded up to two digits.
        low: The least of 90% of draws of patients.
        high: The greatest; None where some of them would never let it be accepted.
    """

    n: int
    low: int
    high: int | None


def find_patients_needed(
    estimate: AucEstimate,
    differences: Differences,
    question: Question,
    *,
    targets: NDArray[np.int64],
    patients: NDArray[np.int64] | None = None,
    n_draws: int = 200,
) -> PatientsNeeded | None:
    """Return how many patients would let an arm be accepted in 80% of studies, if it is as good as the data allow.

    Accepted means shown against *all* others at once: with T the standardised differences from them, correlated as
    they are, the n that is enough in 80% of draws of T: max over b of the n at which max(D_b - c SE_b, 0) +
    (d_b + T_b) SE_b(n) is the margin. c is what the largest of the standardised differences exceeds in a fifth of all
    studies of equal arms: a number is asked for where an arm was unlucky, and the worst of its deficits is mostly
    luck. SE_b(n)^2 falls as 1/n, its terms for a patient on which arms disagree as 1/n^2, the skewness in d_b as
    1/sqrt(n).

    Args:
        estimate: Of all arms.
        differences: Of them.
        question: What has to be shown.
        targets: `(n,)` class of each unit.
        patients: `(n,)` patient of each unit; None when each is one.
        n_draws: Draws of patients for the range.

    Returns:
        None where an arm lies, by this measure, the margin or more behind another: then the data are against it.
    """
    arms, others = np.array(question.arms, dtype=np.int64), np.array(question.others, dtype=np.int64)
    if not len(arms):
        return None
    deficits, errors = differences.values[arms, others], differences.errors[arms, others]
    apart = estimate.influence[:, others] - estimate.influence[:, arms]
    n_patients = len(targets) if patients is None else len(np.unique(patients))
    factor, skewness = differences.factor[arms, others], differences.skewness[arms, others]
    rng = np.random.default_rng(0)
    groups = _group(apart, targets, patients)
    covariance = sum((_sum_products(rows) for rows in groups), np.zeros((len(arms), len(arms))))
    luck = sample_normals(_scale(covariance))[:_N_SAMPLES]
    # What patients add to the variance, less what pairs of them add twice.
    seeds = differences.seeds[arms, others]
    per_patient = (errors**2 - differences.disagreement - seeds) / factor
    excess = np.maximum(np.diag(covariance) - per_patient, 0)
    by_chance = max(0.0, float(np.quantile(luck.max(axis=1), _LUCK)))

    def needed(deficit: Floats, spread: Floats) -> float:
        room = question.margin - np.maximum(deficit - by_chance * errors, 0)
        if room.min() <= 0:
            return math.inf
        variance = factor * np.maximum(spread - excess, 0) + seeds
        n: Floats = np.full_like(luck, n_patients)
        for _ in range(_N_STEPS):  # the skewness hangs on n, weakly
            z = correct_quantile(question.critical, skewness * np.sqrt(n_patients / np.maximum(n, 1)))
            ratio = (np.maximum(z + luck, 0) / room) ** 2
            # n^2 - 2 half n - ratio disagreement n_patients^2 = 0
            half = ratio * variance * n_patients / 2
            n = half + np.sqrt(half**2 + ratio * differences.disagreement * n_patients**2)
        return float(np.quantile(n.max(axis=1), _POWER))

    drawn = [_draw(rows, n_draws, rng) for rows in groups]
    moved = sum((moves for moves, _ in drawn), np.zeros((n_draws, len(arms))))
    spreads = sum((variances for _, variances in drawn), np.zeros((n_draws, len(arms))))
    n = needed(deficits, np.diag(covariance))
    if n > _MOST:
        return None
    numbers = np.sort([needed(deficits + move, spread) for move, spread in zip(moved, spreads, strict=True)])
    low, high = numbers[int(0.05 * n_draws)], numbers[int(0.95 * n_draws)]
    return PatientsNeeded(
        n=round_up(n), low=round_up(min(low, n)), high=None if high > _MOST else round_up(max(high, n))
    )


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


def _group(apart: Floats, targets: NDArray[np.int64], patients: NDArray[np.int64] | None) -> Sequence[Floats]:
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


def _draw(rows: Floats, n_draws: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Return by how much draws of the rows move the differences, and their variances, `(n_draws, B)` each."""
    m = len(rows)
    weights = rng.multinomial(m, np.full(m, 1 / m), size=n_draws).astype(np.float64)
    sums = weights @ rows
    squares = weights @ rows**2 - sums**2 / m
    return sums - rows.sum(axis=0), np.asarray(m / max(1, m - 1) * np.maximum(squares, 0))


def _scale(covariance: Floats) -> Floats:
    """Return the correlation of a covariance; what has no spread has none with others."""
    sd = np.sqrt(np.diag(covariance))
    scaled = covariance / np.maximum(np.outer(sd, sd), 1e-300)
    np.fill_diagonal(scaled, 1.0)
    return np.asarray(scaled)
