"""Calibration: do probabilities mean what they say? (Van Calster et al. 2019)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, ndtri

from lamella.analysis.intervals import find_wilson_interval
from lamella.records import Record

Floats = NDArray[np.float64]
MIN_GROUP = 10
"""Units in a group of the calibration curve."""


class CalibrationGroup(Record):
    """Units of about the same probability: its mean, and the share of them that came true, with Wilson's interval."""

    predicted: float
    observed: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Logistic recalibration of log-odds.

    Attributes:
        intercept: Calibration in the large: what must be added to all log-odds (slope held at 1); 0 is ideal, below
            0 means probabilities are too high. None where it cannot be had.
        intercept_interval: Wald's 95% interval.
        slope: What log-odds must be multiplied by (intercept free); 1 is ideal, below 1 means overconfident. None
            where it cannot be had.
        slope_interval: Wald's 95% interval.
        reason: Why something is None.
    """

    intercept: float | None
    intercept_interval: tuple[float, float] | None
    slope: float | None
    slope_interval: tuple[float, float] | None
    reason: str | None


def find_calibration(scores: Floats, positive: NDArray[np.bool_], *, factor: float = 1.0) -> Calibration:
    """Recalibrate log-odds against what came true.

    Args:
        scores: `(n,)` log-odds of the class.
        positive: `(n,)` whether the class is true.
        factor: By how much cross-validation multiplies the variances, at least 1.

    Example:
        >>> scores = np.log([0.25, 4.0]).repeat(5)  # five of probability 0.2, five of 0.8
        >>> came_true = np.array([1, 0, 0, 0, 0, 1, 1, 1, 1, 0], bool)
        >>> fit = find_calibration(scores, came_true)
        >>> abs(round(fit.intercept, 6)), round(fit.slope, 6)
        (0.0, 1.0)
    """
    m, q = int(positive.sum()), int((~positive).sum())
    if m == 0 or q == 0:
        return _without(f"{m} positive and {q} negative; both are needed")
    target = positive.astype(np.float64)
    level = _fit_logistic(np.ones((len(scores), 1)), target, offset=scores)
    both = None
    reason: str | None = None
    if scores.max() - scores.min() < 1e-9:
        reason = "slope: all scores are the same"
    elif _is_separated(scores, positive):
        reason = "slope: the scores separate the classes wholly, so no finite slope fits best"
    else:
        both = _fit_logistic(np.stack([np.ones_like(scores), scores], axis=1), target, offset=np.zeros_like(scores))
        reason = None if both else "slope: the fit did not settle"
    if level is None:
        reason = "intercept: the fit did not settle" + (f"; {reason}" if reason else "")
    intercept, intercept_interval = _describe(level, 0, factor)
    slope, slope_interval = _describe(both, 1, factor)
    return Calibration(
        intercept=intercept,
        intercept_interval=intercept_interval,
        slope=slope,
        slope_interval=slope_interval,
        reason=reason,
    )


def find_calibration_groups(probabilities: Floats, positive: NDArray[np.bool_]) -> list[CalibrationGroup]:
    """Return the calibration curve as groups of equal size, by probability: predicted mean against observed share.

    At most 10 groups of at least 10 units; none when there are fewer than 20 units.
    """
    n_groups = min(10, len(probabilities) // MIN_GROUP)
    if n_groups < 2:
        return []
    order = np.argsort(probabilities, kind="stable")
    groups = []
    for rows in np.array_split(order, n_groups):
        observed = float(positive[rows].mean())
        low, high = find_wilson_interval(observed, len(rows))
        predicted = float(probabilities[rows].mean())
        groups.append(CalibrationGroup(predicted=predicted, observed=observed, low=low, high=high, n=len(rows)))
    return groups


def _is_separated(scores: Floats, positive: NDArray[np.bool_]) -> bool:
    """Say whether one cut tells the classes apart, touching allowed: then the slope has no finite optimum."""
    ups, downs = scores[positive], scores[~positive]
    return bool(downs.max() <= ups.min() or ups.max() <= downs.min())


def _fit_logistic(design: Floats, target: Floats, *, offset: Floats) -> tuple[Floats, Floats] | None:
    """Fit a logistic regression by damped Newton steps (IRLS): coefficients and SDs, None if it does not settle."""
    beta = np.zeros(design.shape[1])
    loss = _find_loss(design, target, offset, beta)
    for _ in range(200):
        p = expit(design @ beta + offset)
        gradient = design.T @ (target - p)
        information = (design * (p * (1 - p))[:, np.newaxis]).T @ design
        try:
            step = np.linalg.solve(information + 1e-12 * np.eye(len(beta)), gradient)
        except np.linalg.LinAlgError:
            return None
        # Far from the optimum a full step may overshoot; halve it until the loss falls.
        step *= min(1.0, 5.0 / max(1e-300, float(np.abs(step).max())))
        for _ in range(40):
            new_loss = _find_loss(design, target, offset, beta + step)
            if new_loss <= loss + 1e-12:
                break
            step = step / 2
        beta, loss = beta + step, new_loss
        if np.abs(step).max() < 1e-9:
            return _finish(information, gradient, beta)
    return None


def _finish(information: Floats, gradient: Floats, beta: Floats) -> tuple[Floats, Floats] | None:
    """Return coefficients and their SDs, if this is an optimum that data determine."""
    if np.abs(gradient).max() > 1e-4 or np.linalg.cond(information) > 1e12 or not np.isfinite(beta).all():
        return None
    return beta, np.sqrt(np.diag(np.linalg.inv(information)))


def _find_loss(design: Floats, target: Floats, offset: Floats, beta: Floats) -> float:
    """Return the negative log-likelihood."""
    z = design @ beta + offset
    return float(np.sum(np.logaddexp(0, z) - target * z))


def _describe(
    fit: tuple[Floats, Floats] | None, row: int, factor: float
) -> tuple[float | None, tuple[float, float] | None]:
    """Return a coefficient and its 95% interval."""
    if fit is None:
        return None, None
    value, half = float(fit[0][row]), float(ndtri(0.975) * np.sqrt(factor) * fit[1][row])
    return value, (value - half, value + half)


def _without(reason: str) -> Calibration:
    """Return a calibration that could not be had."""
    return Calibration(intercept=None, intercept_interval=None, slope=None, slope_interval=None, reason=reason)
