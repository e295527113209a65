"""Cohorts whose truth is known, to see whether intervals hold what they say.

H     one test set: binormal scores, arms correlated on the same patients.
CV    cross-validation as the product does it (fold k tests, k + 1 validates, the rest train): Gaussian features and a
      ridge linear classifier, refitted in every fold of every cohort, with a shift and a scale of each fold's scores;
      each model's true AUC is Phi(w.d / (sqrt 2 |w|)).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from lamella.analysis.auc import AucEstimate, estimate_auc, find_auc_interval
from lamella.analysis.differences import find_differences
from tests.analysis.before import find_errors_before

Floats = NDArray[np.float64]
Z = 1.959964


@dataclass(frozen=True, slots=True, eq=False)
class Cohort:
    """Scores of J arms, and the truth.

    Attributes:
        scores: `(J, n)`.
        targets: `(n,)` 0 or 1.
        folds: `(n,)`.
        patients: `(n,)`; None where each unit is a patient.
        truth: `(J,)` true AUC of what was trained.
    """

    scores: Floats
    targets: NDArray[np.int64]
    folds: NDArray[np.int64]
    patients: NDArray[np.int64] | None
    truth: Floats

    def estimate(self) -> AucEstimate:
        """Return the AUCs with their errors."""
        logits = np.stack([np.zeros_like(self.scores), self.scores], axis=-1)
        found = estimate_auc(logits, self.targets, folds=self.folds, patients=self.patients)
        assert found is not None
        return found


def draw_h(
    rng: np.random.Generator, *, n: int, prevalence: float, aucs: Iterable[float], rho: float, slides: int = 1
) -> Cohort:
    """One test set of `n` patients; with several slides a patient, half of the noise is the patient's."""
    truth = np.array(list(aucs))
    m = round(n * prevalence)
    patients = np.repeat(np.arange(n), slides)
    targets = np.repeat((np.arange(n) < m).astype(np.int64), slides)

    def noise(size: tuple[int, ...]) -> Floats:
        own = rng.normal(size=(*size, n * slides))
        if slides == 1:
            return own
        return np.sqrt(0.5) * own + np.sqrt(0.5) * np.repeat(rng.normal(size=(*size, n)), slides, axis=-1)

    scores = (
        np.sqrt(2) * ndtri(truth)[:, None] * targets
        + np.sqrt(rho) * noise(())
        + np.sqrt(1 - rho) * noise((len(truth),))
    )
    return Cohort(scores, targets, np.zeros(n * slides, np.int64), patients if slides > 1 else None, truth)


def draw_mixed(rng: np.random.Generator, *, n: int, aucs: Iterable[float], rho: float, slides: int = 3) -> Cohort:
    """One test set of `n` patients whose slides differ in label; half of the noise is the patient's."""
    truth = np.array(list(aucs))
    targets = (rng.permutation(n * slides) < n * slides // 2).astype(np.int64)

    def noise(size: tuple[int, ...]) -> Floats:
        own, patient = rng.normal(size=(*size, n * slides)), rng.normal(size=(*size, n))
        return np.sqrt(0.5) * own + np.sqrt(0.5) * np.repeat(patient, slides, axis=-1)

    scores = (
        np.sqrt(2) * ndtri(truth)[:, None] * targets
        + np.sqrt(rho) * noise(())
        + np.sqrt(1 - rho) * noise((len(truth),))
    )
    return Cohort(scores, targets, np.zeros(n * slides, np.int64), np.repeat(np.arange(n), slides), truth)


def draw_cv(  # noqa: PLR0913 - each is one thing that a row of the grid varies
    rng: np.random.Generator,
    *,
    n: int,
    prevalence: float,
    aucs: Sequence[float],
    n_folds: int = 5,
    width: int = 8,
    slides: int = 1,
    all_but_k: bool = False,
) -> Cohort:
    """Arms read overlapping features: half of an arm's are its own. With endless training they would reach `aucs`.

    Fold k tests, fold k + 1 validates (a linear classifier has nothing to stop) and the rest train, as in the product;
    `all_but_k` trains on every fold but k instead, which is kept to show that intervals without a factor fail there.
    With several slides a patient, half of the noise is the patient's.
    """
    m, half, n_arms = round(n * prevalence), width // 2, len(aucs)
    targets = np.repeat((np.arange(n) < m).astype(np.int64), slides)
    folds = np.empty(n, np.int64)
    folds[:m], folds[m:] = rng.permutation(m) % n_folds, rng.permutation(n - m) % n_folds
    folds = np.repeat(folds, slides)
    # Of each feature: as much of the distance in those of all as in an arm's own, if it is the best.
    shared = np.sqrt(2) * ndtri(max(aucs)) / np.sqrt(width)
    own_shifts = np.sqrt(np.maximum(2 * ndtri(np.array(aucs)) ** 2 / half - shared**2, 0))

    def noise(size: tuple[int, ...]) -> Floats:
        own = rng.normal(size=(*size[:-1], n * slides, size[-1]))
        if slides == 1:
            return own
        patient = np.repeat(rng.normal(size=(*size[:-1], n, size[-1])), slides, axis=-2)
        return np.sqrt(0.5) * own + np.sqrt(0.5) * patient

    common = noise((half,)) + shared * targets[:, None]
    own = noise((n_arms, half)) + own_shifts[:, None, None] * targets[:, None]
    x = np.concatenate([np.broadcast_to(common, own.shape), own], axis=2)  # (J, n, width)
    apart = np.concatenate([np.full((n_arms, half), shared), np.repeat(own_shifts[:, None], half, axis=1)], axis=1)
    for j in np.flatnonzero(2 * ndtri(np.array(aucs)) ** 2 / half < shared**2):  # too poor to share what the best read
        apart[j] = np.sqrt(2) * ndtri(aucs[j]) / np.sqrt(width)
        x[j] = noise((width,)) + apart[j] * targets[:, None]
    weights = _fit_rounds(x, targets, folds, n_folds, all_but_k=all_but_k)  # (K, J, width)
    lengths = np.maximum(np.linalg.norm(weights, axis=-1), 1e-12)  # the SD of a score within its class
    scale, offset = np.exp(rng.normal(0, 0.3, (n_folds, n_arms))), rng.normal(0, 0.2, (n_folds, n_arms))
    scores = np.empty((n_arms, n * slides))
    for k in range(n_folds):
        rows = folds == k
        raw = np.einsum("jnp,jp->jn", x[:, rows], weights[k] / lengths[k][:, None])
        scores[:, rows] = scale[k][:, None] * (raw + offset[k][:, None])
    pairs = np.array(
        [((targets == 1) & (folds == k)).sum() * ((targets == 0) & (folds == k)).sum() for k in range(n_folds)]
    )
    reached = ndtr(np.einsum("kjp,jp->kj", weights, apart) / (np.sqrt(2) * lengths))
    patients = np.repeat(np.arange(n), slides) if slides > 1 else None
    return Cohort(scores, targets, folds, patients, pairs @ reached / pairs.sum())


def _fit_rounds(
    x: Floats, targets: NDArray[np.int64], folds: NDArray[np.int64], n_folds: int, *, all_but_k: bool
) -> Floats:
    """Return the weights of a ridge linear classifier of each round and arm, `(K, J, p)`, from sums over folds."""
    n_arms, _, width = x.shape
    sums, grams, crosses = (
        np.empty((n_folds, n_arms, width)),
        np.empty((n_folds, n_arms, width, width)),
        np.empty((n_folds, n_arms, width)),
    )
    counts, ups = np.empty(n_folds), np.empty(n_folds)
    for k in range(n_folds):
        part, up = x[:, folds == k], targets[folds == k]
        sums[k], grams[k], crosses[k] = part.sum(axis=1), part.transpose(0, 2, 1) @ part, part[:, up == 1].sum(axis=1)
        counts[k], ups[k] = len(up), up.sum()
    weights = np.empty((n_folds, n_arms, width))
    for k in range(n_folds):
        kept = [f for f in range(n_folds) if f != k and (all_but_k or f != (k + 1) % n_folds)]
        n, mean = counts[kept].sum(), sums[kept].sum(axis=0) / counts[kept].sum()
        gram = grams[kept].sum(axis=0) - n * mean[:, :, None] * mean[:, None, :] + np.eye(width)
        cross = crosses[kept].sum(axis=0) - mean * ups[kept].sum()
        weights[k] = np.linalg.solve(gram, cross[:, :, None])[:, :, 0]
    return weights


def fit_ridge(x: Floats, y: NDArray[np.int64], penalty: float = 1.0) -> Floats:
    """Return the weights of a ridge linear classifier, `(p,)`."""
    centred = x - x.mean(axis=0)
    gram = centred.T @ centred + penalty * np.eye(x.shape[1])
    return np.asarray(np.linalg.solve(gram, centred.T @ (y - y.mean())))


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """What intervals hold over many cohorts; shares of cohorts.

    Attributes:
        auc: Interval of an AUC.
        difference: Interval of a difference.
        wald: DeLong-Wald on pooled predictions.
        bootstrap: Percentile bootstrap on pooled predictions.
        ratio: Standard error of a difference over its real SD.
        difference_before: Interval of a difference of version 0.1.0.
        ratio_before: Its standard error over the real SD.
    """

    auc: float
    difference: float
    wald: float
    bootstrap: float
    ratio: float
    difference_before: float
    ratio_before: float


def find_coverage(
    draw: Callable[[np.random.Generator], Cohort], n_cohorts: int, seed: int, *, pooled: bool = True
) -> Coverage:
    """Return what intervals hold: ours, those of version 0.1.0, and those that they replace (where `pooled`)."""
    rng = np.random.default_rng(seed)
    hits = dict.fromkeys(("auc", "difference", "wald", "bootstrap", "before"), 0)
    misses, errors, before = [], [], []
    for _ in range(n_cohorts):
        cohort = draw(rng)
        estimate, truth = cohort.estimate(), cohort.truth
        low, high = find_auc_interval(estimate)
        hits["auc"] += low <= truth[0] <= high
        differences = find_differences(estimate)
        assert differences is not None
        found, real = differences.compare(0, 1), truth[0] - truth[1]
        misses.append(found.difference - real)
        errors.append(found.standard_error)
        before.append(float(find_errors_before(estimate)[0, 1]))
        hits["difference"] += found.interval[0] <= real <= found.interval[1]
        hits["before"] += abs(misses[-1]) <= Z * before[-1]
        if pooled:
            hits["wald"] += _holds_wald(cohort)
            hits["bootstrap"] += _holds_bootstrap(cohort)
    share = {name: count / n_cohorts for name, count in hits.items()}
    sd = float(np.std(misses, ddof=1))
    return Coverage(
        auc=share["auc"],
        difference=share["difference"],
        wald=share["wald"],
        bootstrap=share["bootstrap"],
        ratio=float(np.sqrt(np.mean(np.square(errors)))) / sd,
        difference_before=share["before"],
        ratio_before=float(np.sqrt(np.mean(np.square(before)))) / sd,
    )


def _holds_wald(cohort: Cohort) -> bool:
    """DeLong's interval on pooled predictions, rows taken as independent."""
    pooled = Cohort(cohort.scores[:1], cohort.targets, np.zeros_like(cohort.folds), None, cohort.truth[:1]).estimate()
    assert pooled.covariance is not None
    return bool(abs(pooled.auc[0] - cohort.truth[0]) <= Z * np.sqrt(pooled.covariance[0, 0]))


def _holds_bootstrap(cohort: Cohort) -> bool:
    """The percentile interval of pooled predictions, rows drawn by class."""
    up = cohort.targets == 1
    ups, downs = _draw_rows(int(up.sum()), 0), _draw_rows(int((~up).sum()), 1)
    right = (cohort.scores[0, up][:, None] > cohort.scores[0, ~up]).astype(np.float32)
    auc = ((ups @ right) * downs).sum(axis=1) / right.size
    low, high = np.quantile(auc, (0.025, 0.975))
    return bool(low <= cohort.truth[0] <= high)


@lru_cache(maxsize=16)
def _draw_rows(n: int, seed: int, n_draws: int = 200) -> NDArray[np.float32]:
    """Return how often each of n rows is drawn, `(draws, n)`: the same for all cohorts, whose rows are random."""
    return np.random.default_rng((seed, n)).multinomial(n, np.full(n, 1 / n), n_draws).astype(np.float32)
