"""Cohorts whose truth is known, to see whether intervals hold what they say.

H     one test set: binormal scores, arms correlated on the same patients.
CV    cross-validation: Gaussian features and a ridge linear classifier, refitted in every fold of every cohort, with a
      shift and a scale of each fold's scores; each model's true AUC is Phi(w.d / (sqrt 2 |w|)).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from lamella.analysis.auc import AucEstimate, compare_auc, estimate_auc, find_auc_interval

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


def draw_cv(
    rng: np.random.Generator,
    *,
    n: int,
    prevalence: float,
    aucs: Sequence[float],
    n_folds: int = 5,
    width: int = 8,
) -> Cohort:
    """Arms read overlapping features: half of an arm's are its own. With endless training they would reach `aucs`."""
    m, half = round(n * prevalence), width // 2
    targets = (np.arange(n) < m).astype(np.int64)
    folds = np.empty(n, np.int64)
    folds[:m], folds[m:] = rng.permutation(m) % n_folds, rng.permutation(n - m) % n_folds
    # Of each feature: as much of the distance in those of all as in an arm's own, if it is the best.
    shared = np.sqrt(2) * ndtri(max(aucs)) / np.sqrt(width)
    own_shifts = np.sqrt(np.maximum(2 * ndtri(np.array(aucs)) ** 2 / half - shared**2, 0))
    common = rng.normal(size=(n, half)) + shared * targets[:, None]
    scores, truth = np.empty((len(aucs), n)), np.zeros(len(aucs))
    pairs = np.array([(targets[folds == k] == 1).sum() * (targets[folds == k] == 0).sum() for k in range(n_folds)])
    for j, shift in enumerate(own_shifts):
        own = np.concatenate([common, rng.normal(size=(n, half)) + shift * targets[:, None]], axis=1)
        apart = np.r_[np.full(half, shared), np.full(half, shift)]
        for k in range(n_folds):
            train = folds != k
            w = fit_ridge(own[train], targets[train])
            length = max(float(np.linalg.norm(w)), 1e-12)  # the SD of a score within its class
            scale, offset = np.exp(rng.normal(0, 0.3)), rng.normal(0, 0.2)
            scores[j, folds == k] = scale * (own[folds == k] @ w / length + offset)
            truth[j] += pairs[k] / pairs.sum() * ndtr(apart @ w / (np.sqrt(2) * length))
    return Cohort(scores, targets, folds, None, truth)


def fit_ridge(x: Floats, y: NDArray[np.int64], penalty: float = 1.0) -> Floats:
    """Return the weights of a ridge linear classifier, `(p,)`."""
    centred = x - x.mean(axis=0)
    gram = centred.T @ centred + penalty * np.eye(x.shape[1])
    return np.asarray(np.linalg.solve(gram, centred.T @ (y - y.mean())))


def find_coverage(draw: Callable[[np.random.Generator], Cohort], n_cohorts: int, seed: int) -> dict[str, float]:
    """Return the share of cohorts whose intervals hold the truth: ours, and those that they replace."""
    rng = np.random.default_rng(seed)
    hits = {"auc": 0, "difference": 0, "wald": 0, "bootstrap": 0}
    for _ in range(n_cohorts):
        cohort = draw(rng)
        estimate, truth = cohort.estimate(), cohort.truth
        low, high = find_auc_interval(estimate)
        hits["auc"] += low <= truth[0] <= high
        if len(truth) > 1:
            difference = compare_auc(estimate, 0, 1)
            assert difference is not None
            hits["difference"] += difference.interval[0] <= truth[0] - truth[1] <= difference.interval[1]
        hits["wald"] += _holds_wald(cohort)
        hits["bootstrap"] += _holds_bootstrap(cohort, rng)
    return {name: count / n_cohorts for name, count in hits.items()}


def _holds_wald(cohort: Cohort) -> bool:
    """DeLong's interval on pooled predictions, rows taken as independent."""
    pooled = Cohort(cohort.scores[:1], cohort.targets, np.zeros_like(cohort.folds), None, cohort.truth[:1]).estimate()
    assert pooled.covariance is not None
    return bool(abs(pooled.auc[0] - cohort.truth[0]) <= Z * np.sqrt(pooled.covariance[0, 0]))


def _holds_bootstrap(cohort: Cohort, rng: np.random.Generator, n_draws: int = 200) -> bool:
    """The percentile interval of pooled predictions, rows drawn by class."""
    order = np.argsort(cohort.scores[0], kind="stable")
    up = cohort.targets[order] == 1
    m, q = int(up.sum()), int((~up).sum())
    ups, downs = rng.multinomial(m, np.full(m, 1 / m), n_draws), rng.multinomial(q, np.full(q, 1 / q), n_draws)
    weights = np.empty((n_draws, len(up)))
    weights[:, up], weights[:, ~up] = ups, downs
    below = np.cumsum(np.where(up, 0, weights), axis=1)
    auc = (np.where(up, weights, 0) * below).sum(axis=1) / (m * q)
    low, high = np.quantile(auc, (0.025, 0.975))
    return bool(low <= cohort.truth[0] <= high)
