"""Differences of AUCs on the same patients, all pairs of arms at once. Formulas and reasons: docs/statistics.md.

    SE^2 = max(0, C_aa + C_bb - 2 C_ab - sum of G_ij^2 / N^2) f + (1/m^2 + 1/q^2)/4 + s^2/S

C is the covariance of the AUCs, G_ij what pair (i, j) adds to the difference beyond the mean, f the factor of
cross-validation, the quarter terms one more patient of each class on whom the arms disagree by half, s the SD of the
difference over S seeds.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit
from scipy.stats import t as student

from lamella.analysis.auc import AucEstimate

Floats = NDArray[np.float64]
_MANY = 1e9  # degrees of freedom at which t is normal


@dataclass(frozen=True, slots=True, kw_only=True)
class AucDifference:
    """Difference of two AUCs on the same units, with its standard error, interval and two-sided p."""

    difference: float
    standard_error: float
    interval: tuple[float, float]
    p: float


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Differences:
    """All differences of J arms. Row i, column b is D_bi, the AUC of b less that of i.

    Attributes:
        values: `(J, J)` float64.
        errors: `(J, J)` float64, standard errors; 0 on the diagonal.
        degrees: `(J, J)` float64, degrees of freedom (Satterthwaite), infinite where no seeds were counted.
        skewness: `(J, J)` float64, of D_bi where it is above 0, else 0.
        covariance: `(J, J)` float64, of the arms: the covariance whose contrasts are the variances above, but for the
            last two terms and what was cut off at 0.
        factor: `(J, J)` float64, f of each difference.
        disagreement: The quarter terms.
        seed_variances: `(J,)` float64, what the noise of training adds to the variance of each arm's AUC.
    """

    values: Floats
    errors: Floats
    degrees: Floats
    skewness: Floats
    covariance: Floats
    factor: Floats
    disagreement: float
    seed_variances: Floats

    @property
    def seeds(self) -> Floats:
        """What the noise of training adds to the variance of each difference, `(J, J)`."""
        return np.asarray(self.seed_variances[:, None] + self.seed_variances)

    def compare(self, first: int, second: int, *, level: float = 0.95) -> AucDifference:
        """Compare two arms: the first's AUC less the second's."""
        difference, error = float(self.values[second, first]), float(self.errors[second, first])
        degrees = min(float(self.degrees[second, first]), _MANY)
        z = float(stdtrit(degrees, 0.5 + level / 2))
        return AucDifference(
            difference=difference,
            standard_error=error,
            interval=(max(-1.0, difference - z * error), min(1.0, difference + z * error)),
            p=float(2 * student.sf(abs(difference) / error, degrees)),
        )


def find_differences(estimate: AucEstimate, *, seed_auc: Floats | None = None) -> Differences | None:
    """Return the differences of all pairs of arms; None where no spread can be seen.

    Two arms that agree on every unit are not "certainly equal": one more patient of each class is counted on whom they
    disagree by half.

    Args:
        estimate: Of all arms.
        seed_auc: `(J, S)` AUC of each arm in each seed; None leaves the noise of training out.
    """
    if estimate.covariance is None:
        return None
    auc = estimate.auc
    covariance = estimate.covariance if estimate.pair_excess is None else estimate.covariance - estimate.pair_excess
    own_factor = find_difference_factor(auc, estimate.n_rounds)
    factor = np.maximum(own_factor[:, None], own_factor)
    spread = factor * np.maximum(contrast(covariance), 0)
    own_variances = np.maximum(np.diag(covariance), 0) + estimate.disagreement / 2
    seed_variances, seed_degrees = _pool_seeds(seed_auc, own_variances)
    seeds = seed_variances[:, None] + seed_variances
    variance = spread + estimate.disagreement + seeds
    degrees = np.full_like(variance, np.inf)
    if seed_variances.any():
        degrees = variance**2 / (seeds**2 / seed_degrees)
    np.fill_diagonal(variance, 0.0)
    errors = np.sqrt(variance)
    return Differences(
        values=auc - auc[:, None],
        errors=errors,
        degrees=degrees,
        skewness=find_skewness(estimate, errors),
        covariance=covariance,
        factor=factor,
        disagreement=estimate.disagreement,
        seed_variances=seed_variances,
    )


def find_difference_factor(auc: Floats, n_rounds: int) -> Floats:
    """Return by how much cross-validation multiplies the variance of a difference (ours), at an AUC of one of its arms.

    Of two arms the larger factor counts, that of the AUC nearer to 1/2.

    Round k tests, k + 1 validates and the rest train, so that models k and k - 1 never trained on fold k, and of the
    scores' own training noise only the share (K - 3)/(K - 2) is counted twice. With two rounds each trains all of the
    other.
    """
    share = 0.0 if n_rounds in (1, 3) else 1.0 if n_rounds == 2 else (n_rounds - 3) / (n_rounds - 2)
    return np.asarray(1 + share * 4 * auc * (1 - auc))


def contrast(covariance: Floats) -> Floats:
    """Return C_aa + C_bb - 2 C_ab of all pairs, `(J, J)`."""
    variances = np.diag(covariance)
    return np.asarray(variances[:, None] + variances - 2 * covariance)


def _pool_seeds(seed_auc: Floats | None, own_variances: Floats) -> tuple[Floats, float]:
    """Return what the noise of training adds to the variance of each arm's mean over seeds, `(J,)`, and its degrees.

    Training moves an AUC near 1/2 more than one near 1, as patients do. So the noise of seeds is pooled over the arms
    in units of each arm's own variance: an arm near chance does not make good arms look unsure.

    Args:
        seed_auc: `(J, S)` AUC of each arm in each seed.
        own_variances: `(J,)` of the arms' AUCs, above 0.
    """
    n_arms = len(own_variances)
    if seed_auc is None or seed_auc.shape[1] < 2 or n_arms < 2:
        return np.zeros(n_arms), np.inf
    n_seeds = seed_auc.shape[1]
    rest = (seed_auc - seed_auc.mean(axis=1, keepdims=True)) / np.sqrt(own_variances)[:, None]
    rest = rest - rest.mean(axis=0)
    degrees = (n_arms - 1) * (n_seeds - 1)
    return np.asarray((rest**2).sum() / degrees / n_seeds * own_variances), float(degrees)


def find_skewness(estimate: AucEstimate, errors: Floats) -> Floats:
    """Return the skewness of each D_bi where it is above 0, else 0, `(J, J)`.

    An arm that was lucky looks both better and surer: near an AUC of 1 a difference and its standard error rise
    together, so that D + z SE lies too low too often (Hall 1992).
    """
    n = len(estimate.auc)
    if estimate.centred is None:
        return np.zeros((n, n))
    x = estimate.centred
    squares = x * x
    mixed, cubes = squares.T @ x, (squares * x).sum(axis=0)  # sums of x_a^2 x_b, and of x_a^3
    third = cubes - 3 * mixed.T + 3 * mixed - cubes[:, None]  # row i, column b: the sum of (x_b - x_i)^3
    return np.asarray(np.maximum(third, 0) / np.where(errors > 0, errors, np.inf) ** 3)
