"""The recommendation: the cheapest arm that is not worse than any other, or that one can't tell.

Arm i is not worse when D_bi + z SE_bi < margin for every other arm b. No best arm is picked, so nothing needs
correcting for picking: the true best is one of the b, and all arms may be judged at once (Hsu 1981; Edwards and Hsu
1983; Bonferroni over the J - 1 others). Formulas and reasons: docs/statistics.md.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from lamella.analysis.auc import AucEstimate, compare_auc, find_cv_factor, find_disagreement

Floats = NDArray[np.float64]
MARGINS = (0.01, 0.02, 0.03, 0.05, 0.10)
LEAST_PATIENTS = 10
_SAME_COST = 1.10
_POWER = 0.84
_LEVEL = 0.05


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Deficits:
    """By how much arms may lie below others.

    Attributes:
        differences: `(J, J)` float64, AUC of the column's arm less the row's: row i, column b is D_bi.
        errors: `(J, J)` float64, their standard errors.
        upper: `(J,)` float64, the largest D_bi + z SE_bi over the others b; 0 where there is no other.
        z: The quantile used.
    """

    differences: Floats
    errors: Floats
    upper: Floats
    z: float


def find_deficits(estimate: AucEstimate, *, seed_auc: Floats | None = None) -> Deficits | None:
    """Return by how much each arm may lie below each other; None where no spread can be seen.

    Args:
        estimate: Of all arms.
        seed_auc: `(J, S)` AUC of each arm in each seed; None leaves the noise of training out.
    """
    n = len(estimate.auc)
    z = float(ndtri(1 - 0.025 / max(1, n - 1)))
    differences, errors = np.zeros((n, n)), np.zeros((n, n))
    for i in range(n):
        for b in range(i):
            seeds = None if seed_auc is None else seed_auc[b] - seed_auc[i]
            found = compare_auc(estimate, b, i, seed_differences=seeds)
            if found is None:
                return None
            differences[i, b], differences[b, i] = found.difference, -found.difference
            errors[i, b] = errors[b, i] = found.standard_error
    bounds = differences + z * errors
    np.fill_diagonal(bounds, -np.inf)
    upper = bounds.max(axis=1) if n > 1 else np.zeros(n)
    return Deficits(differences=differences, errors=errors, upper=upper, z=z)


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


def list_ladder(deficits: Deficits, names: Sequence[str], costs: Floats, gflops: Floats) -> list[dict[str, Any]]:
    """Return for each margin the cheapest arm that is not worse by it, None where there is none.

    The bounds hold together, so the ladder may be read at any margin.
    """
    rows = []
    for margin in MARGINS:
        place = find_cheapest(np.flatnonzero(deficits.upper < margin).tolist(), costs, gflops)
        rows.append({"margin": margin, "arm": None if place is None else names[place]})
    return rows


def find_patients_needed(
    estimate: AucEstimate,
    deficits: Deficits,
    cheapest: int,
    margin: float,
    *,
    targets: NDArray[np.int64],
    n_patients: int,
    n_draws: int = 500,
) -> tuple[int, tuple[int, int]] | None:
    """Return how many patients would let the cheapest arm be accepted in 80% of studies, if all arms are truly equal.

    The n at which (z + 0.84) SE(n) = margin, the largest over the other arms: SE(n)^2 falls as 1/n, its terms for a
    patient on which arms disagree as 1/n^2. (Without those terms, as n ((z + 0.84) SE / margin)^2, arms that agree
    closely were promised a verdict by too few patients.) Two digits, with the range of 90% of draws of patients; same
    prevalence, same models.

    Args:
        estimate: Of all arms.
        deficits: Of them.
        cheapest: Place of the cheapest arm.
        margin: How much AUC may be given up.
        targets: `(n,)` class of each unit.
        n_patients: Patients behind the units.
        n_draws: Draws for the range.
    """
    others = [b for b in range(len(estimate.auc)) if b != cheapest]
    if not others or estimate.covariance is None:
        return None
    rng = np.random.default_rng(0)
    apart = estimate.influence[:, others] - estimate.influence[:, [cheapest]]  # (n, J-1)
    drawn = np.zeros((n_draws, len(others)))
    own = np.zeros(len(others))
    for target in np.unique(targets):
        rows = apart[targets == target]
        m = len(rows)
        if m < 2:
            return None
        own += m / (m - 1) * ((rows - rows.mean(axis=0)) ** 2).sum(axis=0)
        weights = rng.multinomial(m, np.full(m, 1 / m), size=n_draws).astype(np.float64)
        mean = weights @ rows / m
        drawn += m / (m - 1) * np.maximum(weights @ rows**2 - m * mean**2, 0)
    factor = np.array(
        [max(find_cv_factor(float(estimate.auc[a])) for a in (b, cheapest)) for b in others]
        if estimate.cross_validated
        else np.ones(len(others))
    )
    deff = np.maximum(estimate.deff[others], estimate.deff[cheapest])
    a_patient = n_patients * factor * deff
    disagree = n_patients**2 * factor * find_disagreement(estimate)
    ratio = ((deficits.z + _POWER) / margin) ** 2

    def needed(variance: Floats) -> Floats:
        half = ratio * variance * a_patient / 2
        return np.asarray((half + np.sqrt(half**2 + ratio * disagree)).max(axis=-1))

    low, high = np.quantile(needed(drawn), (0.05, 0.95))
    return _round(float(needed(own))), (_round(float(low)), _round(float(high)))


def say_verdict(
    *,
    names: Sequence[str],
    deficits: Deficits | None,
    costs: Floats,
    gflops: Floats,
    margin: float,
    chance_p: Sequence[float],
    n_least: int,
) -> dict[str, Any]:
    """Return one of five verdicts, with its sentence: no others are given.

    Args:
        names: Of the arms.
        deficits: Of them; None where no spread can be seen.
        costs: `(J,)` of each.
        gflops: `(J,)` of each.
        margin: How much AUC may be given up.
        chance_p: Of each arm against chance, adjusted.
        n_least: Patients of the rarest class.
    """
    if n_least < LEAST_PATIENTS or deficits is None:
        return {
            "kind": "too few",
            "arm": None,
            "sentence": f"No verdict: there are {n_least} patients of the rarest class and {LEAST_PATIENTS} are the "
            "least on which arms can be compared.",
        }
    if min(chance_p) >= _LEVEL:
        return {
            "kind": "no signal",
            "arm": None,
            "sentence": "No arm predicts the label better than chance on these patients, so there is nothing to "
            "choose between.",
        }
    place = find_cheapest(np.flatnonzero(deficits.upper < margin).tolist(), costs, gflops)
    cheapest = find_cheapest(list(range(len(names))), costs, gflops)
    if place is None:
        return {
            "kind": "cannot tell",
            "arm": None,
            "sentence": f"One can't tell: no arm is shown to lie within {margin:g} AUC of every other here.",
        }
    within = f"its AUC is shown to lie less than {margin:g} below that of every other arm"
    if place == cheapest:
        sentence = f"{names[place]} is enough: {within}, and no arm is cheaper."
        return {"kind": "enough", "arm": names[place], "sentence": sentence}
    sentence = f"Only {names[place]} and dearer arms: {within}; cheaper ones are not shown to be enough."
    return {"kind": "only", "arm": names[place], "sentence": sentence}


def _round(value: float) -> int:
    """Round to two digits.

    Example:
        >>> _round(1234.0), _round(87.4), _round(3.2)
        (1200, 87, 3)
    """
    if value < 1:
        return 1
    unit = 10.0 ** max(0, math.floor(math.log10(value)) - 1)
    return int(round(value / unit) * unit)
