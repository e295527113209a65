"""Cohorts whose truth is known, to see whether intervals hold what they say.

H     one test set: binormal scores, arms correlated on the same patients.
CV    cross-validation: Gaussian features and a ridge linear classifier, refitted in every fold of every cohort, with a
      shift and a scale of each fold's scores; each model's true AUC is Phi(w.d / (sqrt 2 |w|)).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from lamella.analysis.auc import AucEstimate, compare_auc, estimate_auc, find_auc_interval
from lamella.analysis.comparisons import adjust_holm, judge_against_chance
from lamella.analysis.recommend import find_cheapest, find_deficits
from lamella.analysis.sample_size import find_patients_needed
from lamella.analysis.selection import PairTable, correct_best

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


def draw_cv(
    rng: np.random.Generator,
    *,
    n: int,
    prevalence: float,
    auc: float,
    n_arms: int = 2,
    n_folds: int = 5,
    width: int = 8,
) -> Cohort:
    """Arms read overlapping features: half of an arm's are its own. All could reach `auc` with endless training."""
    m, half = round(n * prevalence), width // 2
    targets = (np.arange(n) < m).astype(np.int64)
    folds = np.empty(n, np.int64)
    folds[:m], folds[m:] = rng.permutation(m) % n_folds, rng.permutation(n - m) % n_folds
    shift = np.sqrt(2) * ndtri(auc) / np.sqrt(width)  # of each feature
    total = half * (n_arms + 1)
    features = rng.normal(size=(n, total)) + shift * targets[:, None]
    scores, truth = np.empty((n_arms, n)), np.zeros(n_arms)
    pairs = np.array([(targets[folds == k] == 1).sum() * (targets[folds == k] == 0).sum() for k in range(n_folds)])
    for j in range(n_arms):
        own = features[:, np.r_[0:half, half * (j + 1) : half * (j + 2)]]
        for k in range(n_folds):
            train = folds != k
            w = fit_ridge(own[train], targets[train])
            length = np.linalg.norm(w)  # the SD of a score within its class
            scale, offset = np.exp(rng.normal(0, 0.3)), rng.normal(0, 0.2)
            scores[j, folds == k] = scale * (own[folds == k] @ w / max(length, 1e-12) + offset)
            truth[j] += pairs[k] / pairs.sum() * ndtr(shift * w.sum() / (np.sqrt(2) * max(length, 1e-12)))
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


def find_wrong_not_worse(*, n: int, n_arms: int, best: float, margin: float, n_cohorts: int, seed: int) -> float:
    """Return how often an arm is recommended that is truly the margin below the best: all cheaper ones are."""
    rng = np.random.default_rng(seed)
    aucs = [best - margin] * (n_arms - 1) + [best]
    costs = np.arange(1.0, n_arms + 1) * 2
    wrong = 0
    for _ in range(n_cohorts):
        cohort = draw_h(rng, n=n, prevalence=0.5, aucs=aucs, rho=0.8)
        deficits = find_deficits(cohort.estimate())
        assert deficits is not None
        place = find_cheapest(np.flatnonzero(deficits.upper < margin).tolist(), costs, costs)
        wrong += place is not None and place < n_arms - 1
    return wrong / n_cohorts


def find_false_signals(*, n: int, n_arms: int, n_cohorts: int, seed: int) -> tuple[float, float]:
    """Return how often any arm "beats chance" without signal, and any row of equal arms is starred."""
    rng = np.random.default_rng(seed)
    chance = starred = 0
    for _ in range(n_cohorts):
        estimate = draw_cv(rng, n=n, prevalence=0.5, auc=0.5, n_arms=n_arms).estimate()
        chance += min(adjust_holm(judge_against_chance(estimate).tolist())) < 0.05
        equal = draw_cv(rng, n=n, prevalence=0.5, auc=0.8, n_arms=n_arms).estimate()
        p = []
        for j in range(1, n_arms):
            found = compare_auc(equal, j, 0)
            assert found is not None
            p.append(2 * float(1 - ndtr(abs(found.difference) / found.standard_error)))
        starred += min(adjust_holm(p)) < 0.05
    return chance / n_cohorts, starred / n_cohorts


def find_power_at_needed(*, auc: float, rho: float, margin: float, n_cohorts: int, seed: int) -> tuple[int, float]:
    """Return the patients that pilots of 200 say two equal arms need (median), and the share accepted with them."""
    rng = np.random.default_rng(seed)
    needed = []
    for _ in range(60):
        estimate = draw_h(rng, n=200, prevalence=0.5, aucs=[auc] * 2, rho=rho).estimate()
        deficits = find_deficits(estimate)
        assert deficits is not None
        targets = (np.arange(200) < 100).astype(np.int64)
        found = find_patients_needed(estimate, deficits, 0, margin, targets=targets, n_draws=20)
        assert found is not None
        needed.append(found[0])
    n = int(np.median(needed))
    accepted = 0
    for _ in range(n_cohorts):
        deficits = find_deficits(draw_h(rng, n=n, prevalence=0.5, aucs=[auc] * 2, rho=rho).estimate())
        assert deficits is not None
        accepted += deficits.upper[0] < margin
    return n, accepted / n_cohorts


def find_picking_bias(*, n_arms: int, n: int, n_cohorts: int, seed: int, auc: float = 0.8) -> tuple[float, float]:
    """Return by how much the highest of equal arms lies above the truth, raw and corrected, on average."""
    rng = np.random.default_rng(seed)
    raw, corrected = [], []
    for _ in range(n_cohorts):
        cohort = draw_h(rng, n=n, prevalence=0.5, aucs=[auc] * n_arms, rho=0.5)
        logits = np.stack([np.zeros_like(cohort.scores), cohort.scores], axis=-1)
        pairs = PairTable.of(logits, cohort.targets, cohort.folds)
        m = n // 2
        draws = np.concatenate(
            [rng.multinomial(m, np.full(m, 1 / m), 100), rng.multinomial(n - m, np.full(n - m, 1 / (n - m)), 100)],
            axis=1,
        )
        raw.append(float(pairs.weigh(np.ones((1, n))).max()) - auc)
        found = correct_best(pairs, draws)
        assert found is not None
        corrected.append(found - auc)
    return float(np.mean(raw)), float(np.mean(corrected))


def find_planted(*, n: int, n_cohorts: int, seed: int, margin: float = 0.05) -> tuple[float, float]:
    """Return how often a cheap arm equal to the best of 12 is recommended, and how often one that is worse is."""
    rng = np.random.default_rng(seed)
    costs = np.arange(1.0, 13) * 2
    equal = wrong = 0
    for _ in range(n_cohorts):
        good = find_deficits(draw_h(rng, n=n, prevalence=0.5, aucs=[0.9] * 12, rho=0.9).estimate())
        bad = find_deficits(draw_h(rng, n=n, prevalence=0.5, aucs=[0.9 - margin] + [0.9] * 11, rho=0.9).estimate())
        assert good is not None
        assert bad is not None
        equal += find_cheapest(np.flatnonzero(good.upper < margin).tolist(), costs, costs) == 0
        wrong += find_cheapest(np.flatnonzero(bad.upper < margin).tolist(), costs, costs) == 0
    return equal / n_cohorts, wrong / n_cohorts


def find_control(kind: str, *, n: int, n_runs: int, seed: int) -> list[float]:
    """Return within-fold AUCs of a control with permuted labels, by a pipeline that leaks in a known way.

    Args:
        kind: `honest`; `stopping` (of 20 random directions the one that is best on the *test* fold is kept);
            `standardising` (features are centred by class, the test fold's labels used); `patient` (each patient is
            there under two ids, in two folds).
        n: Patients.
        n_runs: Runs of the control.
        seed: Of all.
    """
    rng = np.random.default_rng(seed)
    aucs = []
    for _ in range(n_runs):
        targets = rng.permutation((np.arange(n) < n // 2).astype(np.int64))
        features = rng.normal(size=(n, 30))
        if kind == "patient":
            features = np.concatenate([features, features + 0.05 * rng.normal(size=features.shape)])
            targets = np.concatenate([targets, targets])
        folds = rng.permutation(len(targets)) % 5
        scores = np.empty(len(targets))
        for k in range(5):
            train, test = folds != k, folds == k
            x = features.copy()
            if kind == "standardising":
                for label in (0, 1):
                    x[targets == label] -= features[train & (targets == 1 - label)].mean(axis=0)
            w = fit_ridge(x[train], targets[train], penalty=0.1)
            if kind == "stopping":
                tried = w + 0.5 * np.linalg.norm(w) * rng.normal(size=(20, 30))
                apart = (x[test & (targets == 1)].mean(axis=0) - x[test & (targets == 0)].mean(axis=0)) @ tried.T
                w = tried[apart.argmax()]
            scores[test] = x[test] @ w
        logits = np.stack([np.zeros_like(scores), scores], axis=-1)
        found = estimate_auc(logits, targets, folds=folds)
        assert found is not None
        aucs.append(float(found.auc[0]))
    return aucs


def find_calibration_intercept(*, n: int, seed: int) -> tuple[float, float]:
    """Return the calibration intercept of a class-weighted logistic regression, weights undone and left in.

    Data of 20% prevalence; half trains, half is measured, `n` each.
    """
    from sklearn.linear_model import LogisticRegression

    from lamella.analysis.calibration import find_calibration
    from lamella.mil.train import find_class_weights

    rng = np.random.default_rng(seed)
    y = (rng.random(2 * n) < 0.2).astype(np.int64)
    x = rng.normal(size=(2 * n, 3)) + 0.8 * y[:, None]
    model = LogisticRegression(class_weight="balanced", C=1e6).fit(x[:n], y[:n])
    shifted = model.decision_function(x[n:])
    weights = find_class_weights(y[:n], 2)
    found = []
    for logit in (shifted - np.log(weights[1] / weights[0]), shifted):
        calibration = find_calibration(np.asarray(logit), y[n:] == 1)
        assert calibration.intercept is not None
        found.append(float(calibration.intercept))
    return found[0], found[1]
