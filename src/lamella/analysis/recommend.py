"""The recommendation: the cheapest arm that is not worse than any other, or that one can't tell.

Arm i is not worse when D_bi + z_bi SE_bi < margin for every other arm b, z_bi the normal quantile z with Hall's
correction for skewness, z + k (2 z^2 + 1) / 6, where the skewness k of D_bi is above 0. No best arm is picked, so
nothing needs correcting for picking: the true best is one of the b, and all arms may be judged at once (Hsu 1981;
Edwards and Hsu 1983; Bonferroni over the J - 1 others). Formulas and reasons: docs/statistics.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from lamella.analysis.auc import AucEstimate, compare_auc

Floats = NDArray[np.float64]
MARGINS = (0.01, 0.02, 0.03, 0.05, 0.10)
LEAST_PATIENTS = 10
_SAME_COST = 1.10
_LEVEL = 0.05


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Deficits:
    """By how much arms may lie below others.

    Attributes:
        differences: `(J, J)` float64, AUC of the column's arm less the row's: row i, column b is D_bi.
        errors: `(J, J)` float64, their standard errors.
        skewness: `(J, J)` float64, theirs where it is above 0, else 0.
        upper: `(J,)` float64, the largest D_bi + z_bi SE_bi over the others b; 0 where there is no other.
        z: The normal quantile, before it is corrected for skewness.
    """

    differences: Floats
    errors: Floats
    skewness: Floats
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
    skewness = _find_skewness(estimate, errors)
    bounds = differences + correct_quantile(z, skewness) * errors
    np.fill_diagonal(bounds, -np.inf)
    upper = np.minimum(bounds.max(axis=1), 1.0) if n > 1 else np.zeros(n)  # AUCs differ by 1 at most
    return Deficits(differences=differences, errors=errors, skewness=skewness, upper=upper, z=z)


def correct_quantile(z: float, skewness: Floats) -> Floats:
    """Return the quantile of a difference of some skewness over its estimated standard error (Hall 1992, one term)."""
    return np.asarray(z + skewness * (2 * z**2 + 1) / 6)


def _find_skewness(estimate: AucEstimate, errors: Floats) -> Floats:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class BestEstimate:
    """What is said where one can't tell.

    Attributes:
        arm: The arm of the highest AUC.
        auc: Its AUC, corrected for having been picked where that can be had.
        needed: Patients with which the cheapest arm would be accepted, if all arms are truly equal, and the range.
    """

    arm: str
    auc: float
    needed: tuple[int, tuple[int, int]] | None = None


def say_verdict(
    *,
    names: Sequence[str],
    deficits: Deficits | None,
    places: tuple[int | None, int | None],
    margin: float,
    chance_p: Sequence[float],
    n_least: int,
    best: BestEstimate,
) -> dict[str, Any]:
    """Return one of five verdicts, with its sentence: no others are given.

    Args:
        names: Of the arms.
        deficits: Of them; None where no spread can be seen.
        places: The cheapest arm of those that are not worse, and of all.
        margin: How much AUC may be given up.
        chance_p: Of each arm against chance, adjusted.
        n_least: Patients of the rarest class.
        best: For where one can't tell.
    """
    kind, place = find_kind(deficits=deficits, places=places, chance_p=chance_p, n_least=n_least), places[0]
    if kind == "too few":
        sentence = (
            f"No verdict: there are {n_least} patients of the rarest class and {LEAST_PATIENTS} are the least on which "
            "arms can be compared."
            if n_least < LEAST_PATIENTS
            else "No verdict: too few patients of a class are tested beside another class in the same fold."
        )
    elif kind == "no signal":
        sentence = (
            "No arm is shown to predict the label better than chance on these patients, so there is nothing to choose "
            "between."
        )
    elif place is None:
        sentence = (
            f"One can't tell: no arm is shown to lie within {margin:g} AUC of every other. The best estimate is "
            f"{best.arm} (AUC {best.auc:.2f})."
        )
        if best.needed is not None and places[1] is not None:
            n, (low, high) = best.needed
            sentence += (
                f" If {names[places[1]]}, the cheapest, is truly as good as the others, about {n:,} patients would "
                f"show it (90% range {low:,} to {high:,}); the ladder shows what other margins allow."
            )
    else:
        within = f"its AUC is shown to lie less than {margin:g} below that of every other arm"
        sentence = (
            f"{names[place]} is enough: {within}, and no arm is cheaper."
            if kind == "enough"
            else f"Only {names[place]}: {within}; cheaper arms are not shown to be enough."
        )
    chosen = names[place] if place is not None and kind in ("enough", "only") else None
    return {"kind": kind, "arm": chosen, "sentence": sentence}


def find_kind(
    *, deficits: Deficits | None, places: tuple[int | None, int | None], chance_p: Sequence[float], n_least: int
) -> str:
    """Return which of the five verdicts it is: "enough", "only", "cannot tell", "no signal" or "too few"."""
    if n_least < LEAST_PATIENTS or deficits is None:
        return "too few"
    if min(chance_p) >= _LEVEL:
        return "no signal"
    if places[0] is None:
        return "cannot tell"
    return "enough" if places[0] == places[1] else "only"
