"""Differences of AUCs: their errors against double loops over pairs, and what enters them."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import stdtrit

from lamella.analysis.auc import AucEstimate, estimate_auc
from lamella.analysis.differences import Differences, find_difference_factor, find_differences
from tests.analysis.contests import make_contest
from tests.analysis.slow_reference import pair_excess


def simulate(n: int, n_classes: int, n_folds: int, *, slides: int, mixed: bool, ties: bool, seed: int):
    """Return logits of three arms, targets, folds and patients (None where each unit is one)."""
    rng = np.random.default_rng(seed)
    patients = np.arange(n) // slides
    targets = rng.permutation(np.arange(n) % n_classes)
    if not mixed:
        targets = (rng.permutation(patients.max() + 1) % n_classes)[patients]
    logits = rng.integers(0, 4, (3, n, n_classes)).astype(float) if ties else rng.normal(size=(3, n, n_classes))
    logits += 1.5 * np.eye(n_classes)[targets]
    return logits, targets, patients % n_folds, patients if slides > 1 else None


def differ(estimate: AucEstimate | None, seed_auc: NDArray[np.float64] | None = None) -> Differences:
    assert estimate is not None
    differences = find_differences(estimate, seed_auc=seed_auc)
    assert differences is not None
    return differences


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n_folds", [1, 5])
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize(("slides", "mixed"), [(1, False), (3, False), (3, True)])
def test_what_pairs_add_is_that_of_a_double_loop(
    ties: bool, n_folds: int, n_classes: int, slides: int, mixed: bool
) -> None:
    logits, targets, folds, patients = simulate(45, n_classes, n_folds, slides=slides, mixed=mixed, ties=ties, seed=3)
    estimate = estimate_auc(logits, targets, folds=folds, patients=patients)
    assert estimate is not None
    names = np.arange(45) if patients is None else patients
    assert estimate.pair_excess == pytest.approx(pair_excess(logits, targets, folds, names), abs=1e-14)


def test_a_difference_has_the_variance_of_matrix_pairs_and_seeds() -> None:
    logits, targets, folds, _ = simulate(50, 2, 5, slides=1, mixed=False, ties=False, seed=9)
    estimate = estimate_auc(logits, targets, folds=folds)
    assert estimate is not None
    assert estimate.covariance is not None
    seeds = np.array([[0.72, 0.70, 0.74], [0.70, 0.65, 0.75], [0.70, 0.71, 0.69]])
    found = differ(estimate, seeds)
    cov = estimate.covariance - pair_excess(logits, targets, folds, np.arange(50))
    m, q = (targets == 1).sum(), (targets == 0).sum()
    spread = cov[0, 0] + cov[1, 1] - 2 * cov[0, 1]
    nearer = min(estimate.auc[:2], key=lambda auc: abs(auc - 0.5))  # its factor is the larger
    own = np.diag(cov) + (1 / m**2 + 1 / q**2) / 8
    scaled = seeds / np.sqrt(own)[:, None]  # the noise of seeds in units of each arm's own error
    each = np.mean([np.var(scaled[a] - scaled[b], ddof=1) for a, b in ((0, 1), (0, 2), (1, 2))]) / 2 / 3
    pooled = each * (own[0] + own[1])
    expected = spread * (1 + 2 / 3 * 4 * nearer * (1 - nearer)) + (1 / m**2 + 1 / q**2) / 4 + pooled
    difference = found.compare(0, 1)
    assert difference.difference == pytest.approx(estimate.auc[0] - estimate.auc[1])
    assert difference.standard_error**2 == pytest.approx(expected)
    degrees = expected**2 / (pooled**2 / 4)  # (J - 1)(S - 1)
    half = stdtrit(degrees, 0.975) * np.sqrt(expected)
    assert difference.interval[1] - difference.difference == pytest.approx(half)


def test_seeds_of_an_arm_near_chance_do_not_make_good_arms_look_unsure() -> None:
    """Two good arms agree in each seed; beside them stands one near 1/2 whose seeds differ by 0.1."""
    rng = np.random.default_rng(5)
    targets = np.arange(100) % 2
    scores = np.array([4.0, 4.0, 0.4])[:, None] * targets + rng.normal(size=(3, 100))
    estimate = estimate_auc(np.stack([np.zeros_like(scores), scores], axis=-1), targets, folds=np.zeros(100, np.int64))
    steady = np.array([[0.99, 0.985], [0.985, 0.99], [0.6, 0.6]])
    shaken = np.array([[0.99, 0.985], [0.985, 0.99], [0.55, 0.65]])
    alone, beside = (differ(estimate, seeds).compare(0, 1).standard_error for seeds in (steady, shaken))
    assert beside < 1.5 * alone
    assert beside < 0.5 * np.sqrt(2 * 0.1**2 / 2 / 3 / 2 + alone**2)  # what pooling in units of AUC makes of it
    wide = differ(estimate, shaken).compare(0, 2).standard_error
    assert wide > 1.05 * differ(estimate, steady).compare(0, 2).standard_error


def test_cross_validation_counts_only_the_share_that_is_trained_on_twice() -> None:
    half = np.array(0.5)
    assert [float(find_difference_factor(half, rounds)) for rounds in (1, 3, 4, 5, 10)] == pytest.approx(
        [1, 1, 1.5, 1 + 2 / 3, 1 + 7 / 8]
    )
    assert float(find_difference_factor(half, 2)) == 2  # each of two models trains on all of the other's test fold
    assert float(find_difference_factor(np.array(1.0), 10)) == 1


def test_copies_of_an_arm_differ_by_no_more_than_one_more_patient() -> None:
    contest = make_contest([1.0, 1.0], n=60, shared=1.0)
    found = differ(estimate_auc(contest.logits, contest.targets, folds=contest.folds)).compare(0, 1)
    assert found.difference == 0
    assert found.standard_error == pytest.approx(np.sqrt((1 / 20**2 + 1 / 40**2) / 4))
    assert found.p == pytest.approx(1)


@pytest.mark.parametrize("n_folds", [1, 2, 3, 5])
def test_arms_that_say_nothing_or_all_have_errors_without_nan(n_folds: int) -> None:
    targets = np.arange(60) % 2
    constant, perfect, wrong = np.zeros(60), targets * 4.0, targets * -4.0
    logits = np.stack([np.stack([np.zeros(60), s], axis=1) for s in (constant, perfect, perfect, wrong)])
    estimate = estimate_auc(logits, targets, folds=np.arange(60) // 2 % n_folds)
    found = differ(estimate)
    assert estimate is not None
    assert estimate.auc.tolist() == [0.5, 1, 1, 0]
    for values in (found.values, found.errors, found.skewness, found.covariance):
        assert np.isfinite(values).all()
    assert (found.errors[~np.eye(4, dtype=bool)] > 0).all()
    low, high = found.compare(1, 3).interval
    assert (low < 1, high) == (True, 1)  # no difference is more than 1
