"""Figures: a number with its interval, or the reason why there is none."""

from collections.abc import Callable
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from lamella.analysis.intervals import find_bootstrap_interval, find_share_deff, find_wilson_interval
from lamella.records import Record

Floats = NDArray[np.float64]
Interval = tuple[float, float]


class Figure(Record):
    """A number with its 95% interval and how that is made, or the reason why there is none; nothing is ever NaN.

    `n` is what a share is of, `n_pairs` what an AUC within batches is of; `prevalence` is that at which the figure
    holds, where it depends on it.
    """

    value: float | None = None
    interval: Interval | None = None
    method: str | None = None
    reason: str | None = None
    n: int | None = None
    n_pairs: int | None = None
    prevalence: float | None = None

    @model_validator(mode="after")
    def _has_value_or_reason(self) -> Self:
        if "value" not in self.model_fields_set and self.reason is None:
            raise ValueError("neither a value nor a reason why there is none")
        return self


NO_FIGURE = Figure(value=None)


def make_figure(value: float | None, interval: Interval | None, method: str, *, reason: str | None = None) -> Figure:
    """Return a figure; without an interval it has no method either."""
    return Figure(value=value, interval=interval, method=None if interval is None else method, reason=reason)


def make_absent(reason: str) -> Figure:
    """Return a figure that cannot be had."""
    return make_figure(None, None, "", reason=reason)


def make_share(hits: NDArray[np.bool_], patients: NDArray[np.int64], *, factor: float = 1.0) -> Figure:
    """Return a share with Wilson's interval, its units thinned by the design effect of slides within patients.

    Args:
        hits: `(n,)`.
        patients: `(n,)` patient of each.
        factor: By how much cross-validation multiplies the variance, at least 1.
    """
    n = len(hits)
    if n == 0:
        return make_absent("there is none to take the share of").model_copy(update={"n": 0})
    share = float(hits.mean())
    interval = find_wilson_interval(share, n / find_share_deff(hits, patients) / factor)
    method = "Wilson" if factor == 1 else "Wilson, widened for cross-validation"
    return make_figure(share, interval, method).model_copy(update={"n": n})


def make_bootstrapped(statistic: Callable[[Floats], Floats], draws: NDArray[np.integer]) -> Figure:
    """Return a weighted statistic on the data, with its bootstrap interval."""
    weights: Floats = np.ones((1, draws.shape[1]))
    return make_figure(
        float(statistic(weights)[0]),
        find_bootstrap_interval(statistic, draws),
        "patient bootstrap, trained models held fixed",
    )
