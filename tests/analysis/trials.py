"""What the rules of a study do to simulated cohorts: verdicts, patients needed, picking, controls, class weights."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from lamella.analysis.auc import AucEstimate, estimate_auc
from lamella.analysis.batches import Batches, check_batches
from lamella.analysis.chains import Chain, judge_chains
from lamella.analysis.comparisons import adjust_holm, judge_against_chance
from lamella.analysis.differences import Differences, find_differences
from lamella.analysis.figure import make_share
from lamella.analysis.judgement import Judgement, Rules, ScoredArms, judge_pairs
from lamella.analysis.noninferior import find_noninferior, find_worse
from lamella.analysis.prevalence import find_at_prevalence
from lamella.analysis.sample_size import find_patients_needed, round_up
from lamella.analysis.selection import PairTable, correct_best
from tests.analysis.before import find_errors_before, find_noninferior_before
from tests.analysis.simulators import Cohort, draw_cv, draw_h, fit_ridge

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int, list[float]], Cohort]
"""Draws a cohort of n patients whose arms have some AUCs."""


def on_test_set(rho: float) -> Draw:
    """Return what draws one test set (H) whose arms are correlated."""
    return lambda rng, n, aucs: draw_h(rng, n=n, prevalence=0.5, aucs=aucs, rho=rho)


def cross_validated() -> Draw:
    """Return what draws cross-validated cohorts (CV)."""
    return lambda rng, n, aucs: draw_cv(rng, n=n, prevalence=0.5, aucs=aucs)


def compare(cohort: Cohort) -> Differences:
    """Return the differences of a cohort's arms."""
    differences = find_differences(cohort.estimate())
    assert differences is not None
    return differences


def judge(cohort: Cohort, *, margin: float = 0.05, chains: tuple[Chain, ...] = ()) -> Judgement:
    """Return what the rules say of a cohort whose arms cost the more the later they come."""
    costs = 2.0 * np.arange(1, len(cohort.scores) + 1)
    rules = Rules(margin=margin, chains=chains, costs=costs, gflops=costs)
    judgement = judge_cells(cohort, cohort.folds, rules)
    assert judgement is not None
    return judgement


def judge_cells(cohort: Cohort, cells: NDArray[np.int64], rules: Rules) -> Judgement | None:
    """Return what the rules say over pairs of the same cell."""
    return judge_pairs(name_arms(cohort), cells, rules)


def name_arms(cohort: Cohort) -> ScoredArms:
    """Return a cohort's arms as the rules take them."""
    return ScoredArms(
        names=tuple(str(j) for j in range(len(cohort.scores))),
        logits=np.stack([np.zeros_like(cohort.scores), cohort.scores], axis=-1),
        targets=cohort.targets,
        patients=cohort.patients,
        n_rounds=len(np.unique(cohort.folds)),
        seed_auc=None,
    )


def find_wrong(
    draw: Draw, *, n: int, n_arms: Sequence[int], best: float, margin: float, n_cohorts: int, seed: int
) -> dict[int, tuple[float, float]]:
    """Return how often the contest accepts any arm that truly lies the margin or more below the best.

    All arms but the dearest lie exactly a margin below it. Contests of fewer arms are of the last arms of the same
    cohorts, so they share their luck.

    Returns:
        For each number of arms the share of cohorts, now and by the rule of version 0.1.0.
    """
    rng = np.random.default_rng(seed)
    wrong = {j: np.zeros(2) for j in n_arms}
    for _ in range(n_cohorts):
        cohort = draw(rng, n, [best - margin] * (max(n_arms) - 1) + [best])
        estimate = cohort.estimate()
        for j in n_arms:
            bad = cohort.truth[-j:].max() - cohort.truth[-j:] >= margin - 1e-9
            taken = take_last(estimate, j)
            differences = find_differences(taken)
            assert differences is not None
            now, before = find_noninferior(differences, margin), find_noninferior_before(taken, margin)
            wrong[j] += [bool((now & bad).any()), bool((before & bad).any())]
    return {j: (float(now / n_cohorts), float(before / n_cohorts)) for j, (now, before) in wrong.items()}


def take_last(estimate: AucEstimate, n_arms: int) -> AucEstimate:
    """Return the estimate of the last arms alone."""
    kept = slice(-n_arms, None)
    assert estimate.centred is not None
    assert estimate.covariance is not None
    assert estimate.pair_excess is not None
    return replace(
        estimate,
        auc=estimate.auc[kept],
        influence=estimate.influence[:, kept],
        centred=estimate.centred[:, kept],
        covariance=estimate.covariance[kept, kept],
        pair_excess=estimate.pair_excess[kept, kept],
        deff=estimate.deff[kept],
        class_auc=estimate.class_auc[:, kept],
    )


def find_wrong_cut(draw: Draw, *, n: int, best: float, margin: float, n_cohorts: int, seed: int) -> float:
    """Return how often a depth is accepted that truly lies exactly a margin below the whole network, or more."""
    rng = np.random.default_rng(seed)
    wrong = 0
    for _ in range(n_cohorts):
        cohort = draw(rng, n, [best, best - margin, best - margin, best - margin])
        (accepted,) = judge_chains(compare(cohort), [Chain(whole=0, cuts=(1, 2, 3))], margin)
        wrong += any(cohort.truth[0] - cohort.truth[cut] >= margin - 1e-9 for cut in accepted)
    return wrong / n_cohorts


def find_power(
    draw: Draw, *, n: int, aucs: list[float], good: int, n_declared: int, n_cohorts: int, seed: int
) -> tuple[float, float, float]:
    """Return how often the reference question finds the cheapest good depth, and the contest any arm; so in 0.1.0.

    Args:
        draw: Of cohorts.
        n: Patients.
        aucs: Of the four depths of each encoder, the whole network first.
        good: Depths besides the whole that are as good.
        n_declared: Reference encoders.
        n_cohorts: Simulated.
        seed: Of all.
    """
    rng = np.random.default_rng(seed)
    chains = [Chain(whole=4 * e, cuts=(4 * e + 1, 4 * e + 2, 4 * e + 3)) for e in range(n_declared)]
    cut = contest = before = 0.0
    for _ in range(n_cohorts):
        estimate = draw(rng, n, aucs).estimate()
        differences = find_differences(estimate)
        assert differences is not None
        accepted = judge_chains(differences, chains, 0.05)
        cut += float(np.mean([len(one) == good for one in accepted]))
        contest += bool(find_noninferior(differences, 0.05).any())
        before += bool(find_noninferior_before(estimate, 0.05).any())
    return cut / n_cohorts, contest / n_cohorts, before / n_cohorts


def find_batch_readers(*, n: int, n_cohorts: int, seed: int, within: bool) -> tuple[float, float]:
    """Return how often an arm that reads batches, and one that reads tissue, is recommended.

    Of each class 80% lie in one of two batches. The cheap arm reads the batch alone, and does as well.

    Args:
        n: Patients.
        n_cohorts: Simulated.
        seed: Of all.
        within: Whether batches are known to the judge.
    """
    rng = np.random.default_rng(seed)
    recommended = np.zeros(2)
    for _ in range(n_cohorts):
        cohort = draw_h(rng, n=n, prevalence=0.5, aucs=[0.8, 0.8], rho=0.0)
        batches = np.where(rng.random(n) < 0.8, cohort.targets, 1 - cohort.targets)
        cohort.scores[0] = 3.0 * batches + rng.normal(size=n)
        cohort = replace(cohort, folds=rng.permutation(n) % 5)
        costs = np.array([1.0, 2.0])
        rules = Rules(margin=0.05, chains=(), costs=costs, gflops=costs)
        plain = judge_cells(cohort, cohort.folds, rules)
        assert plain is not None
        known = Batches(folds=cohort.folds, numbers=batches if within else None, logits=None)
        check = check_batches(plain, name_arms(cohort), rules, known)
        place = check.ruling.find_recommended()
        if place is not None:
            recommended[place] += 1
    return float(recommended[0] / n_cohorts), float(recommended[1] / n_cohorts)


def find_blind(draw: Draw, *, n: int, other: float, n_cohorts: int, seed: int) -> float:
    """Return how often the cheaper of two arms is recommended, whose AUC is exactly 1/2."""
    rng = np.random.default_rng(seed)
    return sum(judge(draw(rng, n, [0.5, other])).find_recommended() == 0 for _ in range(n_cohorts)) / n_cohorts


def find_false_signals(draw: Draw, *, n: int, n_arms: int, n_cohorts: int, seed: int) -> tuple[float, ...]:
    """Return how often any arm "beats chance" without signal, any row of equal arms is starred, any is worse.

    The last is how often a row was starred by version 0.1.0.
    """
    rng = np.random.default_rng(seed)
    chance = starred = worse = before = 0
    for _ in range(n_cohorts):
        estimate = draw(rng, n, [0.5] * n_arms).estimate()
        chance += min(adjust_holm(judge_against_chance(estimate).tolist())) < 0.05
        equal = draw(rng, n, [0.8] * n_arms).estimate()
        differences = find_differences(equal)
        assert differences is not None
        starred += min(adjust_holm([differences.compare(j, 0).p for j in range(1, n_arms)])) < 0.05
        worse += bool(find_worse(differences).any())
        z = np.abs(differences.values[0, 1:]) / find_errors_before(equal)[0, 1:]
        before += min(adjust_holm((2 * ndtr(-z)).tolist())) < 0.05
    return chance / n_cohorts, starred / n_cohorts, worse / n_cohorts, before / n_cohorts


def state_patients(draw: Draw, *, n_pilot: int, aucs: list[float], seed: int, n_pilots: int = 40) -> tuple[int, int]:
    """Return the median number of patients that pilots state for an arm that is truly as good as any, and for which.

    Pilots too small to show that a poor arm is worse ask of that one; what they state is not counted.
    """
    rng = np.random.default_rng(seed)
    stated, asked = [], []
    for _ in range(n_pilots):
        cohort = draw(rng, n_pilot, aucs)
        judgement = judge(cohort)
        question = judgement.find_question()
        if question is None or judgement.differences is None:
            continue
        needed = find_patients_needed(
            judgement.estimate, judgement.differences, question[1], targets=cohort.targets, n_draws=2
        )
        if needed is not None:
            stated.append(needed.n)
            asked.append(question[0])
    most = int(np.bincount([arm for arm in asked if aucs[arm] == max(aucs)]).argmax())
    return round_up(float(np.median([n for n, arm in zip(stated, asked, strict=True) if arm == most]))), most


def find_accepted(draw: Draw, *, n: int, aucs: list[float], arm: int, n_cohorts: int, seed: int) -> float:
    """Return how often an arm is accepted by the contest."""
    rng = np.random.default_rng(seed)
    return sum(bool(find_noninferior(compare(draw(rng, n, aucs)), 0.05)[arm]) for _ in range(n_cohorts)) / n_cohorts


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
    from lamella.mil.targets import find_class_weights

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


def find_predictive_coverage(*, n: int, prevalence: float, n_cohorts: int, seed: int) -> tuple[float, float]:
    """Return the share of cohorts whose intervals of PPV and NPV at a stated prevalence hold the truth.

    Half of `n` are positive; sensitivity is 0.85 and specificity 0.9.
    """
    rng = np.random.default_rng(seed)
    half = n // 2
    ppv = 0.85 * prevalence / (0.85 * prevalence + 0.1 * (1 - prevalence))
    npv = 0.9 * (1 - prevalence) / (0.9 * (1 - prevalence) + 0.15 * prevalence)
    hits = np.zeros(2)
    for _ in range(n_cohorts):
        shares = [make_share(rng.random(half) < share, np.arange(half)) for share in (0.85, 0.9)]
        found = find_at_prevalence(shares[0], shares[1], prevalence)
        for place, (name, truth) in enumerate((("ppv", ppv), ("npv", npv))):
            hits[place] += found[name].interval[0] <= truth <= found[name].interval[1]
    return float(hits[0] / n_cohorts), float(hits[1] / n_cohorts)
