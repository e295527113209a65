"""What can be shown with so many patients, whatever the data say: told before any slide is read.

No data give a bound below d sqrt((1/m^2 + 1/q^2)/4), the part of the standard error that is the patients not seen.
Formulas: docs/statistics.md.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from lamella.analysis.differences import find_difference_factor
from lamella.analysis.judgement import LEAST_PATIENTS
from lamella.analysis.maxt import ALPHA, Z

USUAL_AUC = 0.90
USUAL_CORRELATION = 0.80
"""Correlation of the scores of two encoders within a class, as taken here; docs/statistics.md says from where."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """What a cohort can show.

    Attributes:
        lowest: The smallest margin that the question can reach: no data give a smaller bound.
        highest: The same where all arms count as independent; `lowest` with one difference to be shown.
        least: Patients of each class with which the declared margin is reached at all, equally many of both.
        power: Probability that one arm is accepted against one other, if both are equal, of AUC 0.90, and agree as
            encoders usually do; None where nothing is reached.
    """

    lowest: float
    highest: float
    least: int
    power: float | None


def find_reach(m: int, q: int, *, margin: float, n_others: int = 1, n_rounds: int = 1) -> Reach:
    """Return what m and q patients of the two classes can show.

    Args:
        m: Patients of one class, at least 1.
        q: Of the other.
        margin: How much AUC may be given up.
        n_others: Arms that each arm is held against at once; 1 for the reference question of one encoder.
        n_rounds: Rounds of cross-validation; 1 for a test set.

    Example:
        >>> reach = find_reach(19, 19, margin=0.05)
        >>> round(reach.lowest, 3), reach.least, reach.power
        (0.073, 28, None)
        >>> reach = find_reach(19, 19, margin=0.05, n_others=5)
        >>> round(reach.lowest, 3), round(reach.highest, 3)
        (0.073, 0.096)
    """
    unseen = (1 / m**2 + 1 / q**2) / 4
    strict = max(Z, float(ndtri(1 - ALPHA / max(1, n_others))))
    least = int(np.floor(strict / margin / np.sqrt(2))) + 1  # strict sqrt(2 / (4 n^2)) < margin
    power = None
    if Z * np.sqrt(unseen) < margin and min(m, q) >= LEAST_PATIENTS:
        spread = _find_usual_variance(m, q) * float(find_difference_factor(np.array(USUAL_AUC), n_rounds))
        error = np.sqrt(spread + unseen)
        # The estimate has no part of patients not seen; the bound has.
        power = float(ndtr((margin - Z * error) / np.sqrt(spread)))
    return Reach(lowest=float(Z * np.sqrt(unseen)), highest=float(strict * np.sqrt(unseen)), least=least, power=power)


def _find_usual_variance(m: int, q: int) -> float:
    """Return the variance of a difference of two equal binormal arms of the usual AUC and correlation, less the pairs'.

    The positives' part of the covariance is the variance of the share of negatives that a positive beats, in both arms.
    """
    shift = np.sqrt(2) * ndtri(USUAL_AUC)
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    first, second = np.meshgrid(nodes, nodes)
    both = np.outer(weights, weights) / weights.sum() ** 2
    other = USUAL_CORRELATION * first + np.sqrt(1 - USUAL_CORRELATION**2) * second
    won, won_too = ndtr(shift + first), ndtr(shift + other)
    alone = float((both * won**2).sum() - (both * won * won_too).sum())
    return 2 * alone * (1 / m + 1 / q)
