"""What the next site may see: a random-effects prediction interval over sites that were each left out.

An interval of the mean over sites says how well the mean is known. A new site is one more draw, and lies outside that
interval more often than in it where sites differ. Restricted maximum likelihood, Hartung and Knapp's error, k - 2
degrees (Higgins et al. 2009; Partlett and Riley 2017); on log-odds of the AUC, with the
variance that sites would have at the mean AUC, or sites that were lucky would weigh most.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit, stdtrit

from lamella.analysis.figure import Interval
from lamella.records import Record

Floats = NDArray[np.float64]
LEAST_SITES = 3
SITES_FOR_A_CLAIM = 5


class NextSite(Record):
    """The mean AUC over sites, by how much their log-odds differ, and where the AUC of the next site may lie.

    There is no interval below three sites.
    """

    n_sites: int
    mean: float | None
    sd_between: float | None
    interval: Interval | None
    note: str


def predict_next_site(
    auc: Sequence[float], n_positive: Sequence[int], n_negative: Sequence[int], *, level: float = 0.95
) -> NextSite:
    """Return where the next site's AUC may lie.

    Args:
        auc: Of each site.
        n_positive: Patients of the positive class there, at least 1.
        n_negative: Of the other.
        level: Of the interval.

    Example:
        >>> site = predict_next_site([0.92, 0.85, 0.74, 0.88, 0.95], [30] * 5, [30] * 5)
        >>> round(site.mean, 2), [round(end, 2) for end in site.interval]
        (0.88, [0.48, 0.98])
    """
    values = np.asarray(auc, dtype=np.float64)
    k = len(values)
    if k < LEAST_SITES:
        return NextSite(
            n_sites=k,
            mean=float(values.mean()) if k else None,
            sd_between=None,
            interval=None,
            note=f"{k} sites: at least {LEAST_SITES} are needed to predict the next.",
        )
    pairs = np.asarray(n_positive, dtype=np.float64) * np.asarray(n_negative, dtype=np.float64)
    moved = (values * pairs + 0.5) / (pairs + 1)  # half a pair towards 1/2, so that 1 has log-odds
    pooled = float((moved * pairs).sum() / pairs.sum())
    variance = (
        np.array([_find_variance(pooled, m, q) for m, q in zip(n_positive, n_negative, strict=True)])
        / (pooled * (1 - pooled)) ** 2
    )
    odds = logit(moved)
    between = _fit_between(odds, variance)
    weights = 1 / (variance + between)
    mean = float((weights * odds).sum() / weights.sum())
    error = float((weights * (odds - mean) ** 2).sum() / ((k - 1) * weights.sum()))  # Hartung and Knapp
    half = float(stdtrit(k - 2, 0.5 + level / 2) * np.sqrt(between + error))
    note = "" if k >= SITES_FOR_A_CLAIM else f"{k} sites: too few for a claim about others."
    return NextSite(
        n_sites=k,
        mean=float(expit(mean)),
        sd_between=float(np.sqrt(between)),
        interval=(float(expit(mean - half)), float(expit(mean + half))),
        note=note,
    )


def _find_variance(auc: float, m: int, q: int) -> float:
    """Return the variance of an AUC from so many patients (Newcombe 2006, method 5)."""
    spread = (1 - auc) / (2 - auc) + auc / (1 + auc)
    return float(auc * (1 - auc) * (1 + ((m + q) / 2 - 1) * spread) / (m * q))


def _fit_between(values: Floats, variance: Floats) -> float:
    """Return the variance between sites that restricted likelihood likes best."""

    def loss(between: float) -> float:
        weights = 1 / (variance + between)
        mean = (weights * values).sum() / weights.sum()
        return float(
            0.5 * (np.log(variance + between).sum() + np.log(weights.sum()) + (weights * (values - mean) ** 2).sum())
        )

    minimum = minimize_scalar(loss, bounds=(0.0, 25.0), method="bounded", options={"xatol": 1e-8})
    return 0.0 if loss(0.0) <= minimum.fun else float(minimum.x)
