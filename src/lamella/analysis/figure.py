"""Figures: a number with its interval, or the reason why there is none, as JSON holds it."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamella.analysis.intervals import find_bootstrap_interval, find_share_deff, find_wilson_interval

Floats = NDArray[np.float64]
Figure = dict[str, Any]


def make_figure(value: float | None, interval: tuple[float, float] | None, method: str) -> Figure:
    """Return a figure; without an interval it has no method either."""
    return {
        "value": value,
        "interval": None if interval is None else list(interval),
        "method": method if interval is not None else None,
        "reason": None,
    }


def make_absent(reason: str) -> Figure:
    """Return a figure that cannot be had."""
    return {"value": None, "interval": None, "method": None, "reason": reason}


def make_share(hits: NDArray[np.bool_], patients: NDArray[np.int64], *, factor: float = 1.0) -> Figure:
    """Return a share with Wilson's interval, its units thinned by the design effect of slides within patients.

    Args:
        hits: `(n,)`.
        patients: `(n,)` patient of each.
        factor: By how much cross-validation multiplies the variance, at least 1.
    """
    n = len(hits)
    if n == 0:
        return make_absent("there is none to take the share of") | {"n": 0}
    share = float(hits.mean())
    interval = find_wilson_interval(share, n / find_share_deff(hits, patients) / factor)
    method = "Wilson" if factor == 1 else "Wilson, widened for cross-validation"
    return make_figure(share, interval, method) | {"n": n}


def make_bootstrapped(statistic: Callable[[Floats], Floats], draws: NDArray[np.integer]) -> Figure:
    """Return a weighted statistic on the data, with its bootstrap interval."""
    weights: Floats = np.ones((1, draws.shape[1]))
    return make_figure(
        float(statistic(weights)[0]),
        find_bootstrap_interval(statistic, draws),
        "patient bootstrap, trained models held fixed",
    )
