"""How unlike a slide is to those that a model was trained on, by vectors that describe slides.

A distance says nothing by itself: it is held against the distances of training slides from *other* training slides, so
that a model of few slides does not call every new one strange.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]

ALPHA = 0.01
"""Share of slides like those of training that are flagged all the same."""

MPP_TOLERANCE = 0.1
_LEAST = 6  # slides from which distances can be judged at all
_EMPIRICAL = 100  # distances from which their own quantile is taken
_MOST_AXES = 32
_FOLDS = 10
_LEAST_SPREAD = 0.05  # of log-distances: below it they are alike only because they are few


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Likeness:
    """What vectors of training slides look like: a mean, a covariance, and how far such slides lie from others.

    The covariance has a few axes of its own and the same variance in all other directions (Tipping and Bishop 1999,
    probabilistic PCA), so it can be had from fewer slides than dimensions.

    Attributes:
        mean: `(D,)` float64.
        scale: `(D,)` float64, above 0; what each dimension is divided by first.
        axes: `(k, D)` float64, orthonormal.
        variances: `(k,)` float64, along the axes.
        rest: Variance in every other direction.
        distances: `(n,)` float64, ascending; of training slides from a model of others.
        limit: Distance beyond which a slide is called unlike; None where there are too few slides to say.
    """

    mean: Floats
    scale: Floats
    axes: Floats
    variances: Floats
    rest: float
    distances: Floats
    limit: float | None


def fit_likeness(vectors: Floats, groups: Sequence[str], *, alpha: float = ALPHA) -> Likeness:
    """Learn what slides look like from a vector each.

    Args:
        vectors: `(n, D)`, n at least 1.
        groups: Whose each slide is; slides of one patient are never held against each other.
        alpha: Share of slides like these that may be flagged.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> likeness = fit_likeness(rng.normal(0, 1, (200, 6)), [str(i) for i in range(200)])
        >>> is_unlike(likeness, np.zeros(6)), is_unlike(likeness, np.full(6, 4.0))
        (False, True)
    """
    vectors = np.asarray(vectors, dtype=np.float64)
    mean, scale, axes, variances, rest = _fit(vectors)
    names = sorted(set(groups))
    n_folds = min(_FOLDS, len(names))
    fold_of = {name: index % n_folds for index, name in enumerate(np.random.default_rng(0).permutation(names).tolist())}
    folds = np.array([fold_of[name] for name in groups])
    held_out_distances: list[float] = []
    for fold in range(n_folds if len(names) >= _LEAST else 0):
        others, held_out = vectors[folds != fold], vectors[folds == fold]
        held_out_distances += _measure(held_out, *_fit(others)).tolist()
    distances = np.sort(np.array(held_out_distances, dtype=np.float64))
    return Likeness(
        mean=mean,
        scale=scale,
        axes=axes,
        variances=variances,
        rest=rest,
        distances=distances,
        limit=_find_limit(distances, alpha),
    )


def find_distance(likeness: Likeness, vector: Floats) -> float:
    """Return how far a slide lies from the training slides' mean, in SDs of their own spread (root mean square)."""
    row = np.asarray(vector, dtype=np.float64)[None]
    (distance,) = _measure(row, likeness.mean, likeness.scale, likeness.axes, likeness.variances, likeness.rest)
    return float(distance)


def is_unlike(likeness: Likeness, vector: Floats) -> bool:
    """Say whether a slide lies beyond the limit; never where there is none."""
    return likeness.limit is not None and find_distance(likeness, vector) > likeness.limit


def is_unlike_mpp(mpp: float, low: float, high: float, *, tolerance: float = MPP_TOLERANCE) -> bool:
    """Say whether a slide's resolution lies outside those of training, by more than scanners of one kind differ.

    Args:
        mpp: Of the slide's level 0, um per pixel.
        low: Finest of training, um per pixel.
        high: Coarsest of training, um per pixel.
        tolerance: Share by which it may lie outside.

    Example:
        >>> is_unlike_mpp(0.253, 0.25, 0.25), is_unlike_mpp(0.5, 0.25, 0.25)
        (False, True)
    """
    return not low * (1 - tolerance) <= mpp <= high * (1 + tolerance)


def _fit(vectors: Floats) -> tuple[Floats, Floats, Floats, Floats, float]:
    """Return mean, scale, axes, their variances, and the variance in other directions."""
    n, width = vectors.shape
    mean = vectors.mean(axis=0)
    sd = vectors.std(axis=0, ddof=1) if n > 1 else np.zeros(width)
    typical = float(np.median(sd[sd > 0])) if np.any(sd > 0) else 1.0
    scale = np.maximum(sd, 0.1 * typical)  # as heads are standardised: a constant dimension is not blown up
    centred = (vectors - mean) / scale
    n_axes = max(1, min(_MOST_AXES, (n - 1) // 3, width))
    _, singular, axes = np.linalg.svd(centred, full_matrices=False)
    spread = singular**2 / max(1, n - 1)
    n_axes = min(n_axes, len(spread))
    total = float(spread.sum())
    others = max(1, width - n_axes)
    rest = max(float(spread[n_axes:].sum()) / others, 1e-3 * total / width, 1e-12)
    return mean, scale, axes[:n_axes], np.maximum(spread[:n_axes], rest), rest


def _measure(vectors: Floats, mean: Floats, scale: Floats, axes: Floats, variances: Floats, rest: float) -> Floats:
    """Return the distance of each of `(m, D)` vectors."""
    centred = (vectors - mean) / scale
    along = centred @ axes.T
    beside = np.maximum((centred**2).sum(axis=1) - (along**2).sum(axis=1), 0)
    squares: Floats = ((along**2 / variances).sum(axis=1) + beside / rest) / vectors.shape[1]
    return np.sqrt(squares)


def _find_limit(distances: Floats, alpha: float) -> float | None:
    """Return the distance that the next slide like these exceeds with a chance of about `alpha`.

    Of a hundred and more, their own quantile (conformal, so the chance is at most `alpha` however they are spread); of
    fewer, whose largest is exceeded far more often, the prediction limit of their logarithms by Student's t.
    """
    n = len(distances)
    if n < _LEAST or distances[-1] <= 0:
        return None
    if n >= _EMPIRICAL:
        return float(distances[min(n, math.ceil((n + 1) * (1 - alpha))) - 1])
    logs = np.log(np.maximum(distances, 1e-6 * distances[-1]))
    spread = max(float(logs.std(ddof=1)), _LEAST_SPREAD)
    bound = logs.mean() + stats.t.ppf(1 - alpha, n - 1) * spread * math.sqrt(1 + 1 / n)
    return float(np.exp(bound))
