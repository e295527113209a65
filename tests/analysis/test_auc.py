"""AUC within folds: equal to the double loop, and honest at the edges."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr

from lamella.analysis.auc import (
    estimate_auc,
    find_auc_interval,
    find_cv_factor,
    find_pooled_auc,
    find_score_interval,
)
from lamella.analysis.differences import find_differences
from lamella.analysis.predictions import find_log_odds
from tests.analysis.slow_reference import delong, log_odds, matrix


def simulate(
    n: int, n_classes: int, n_folds: int, *, ties: bool, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two arms' logits `(2, n, C)`, classes and folds; with ties, scores stand on a coarse grid."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(n_classes, size=n)
    targets[: 2 * n_classes] = np.tile(np.arange(n_classes), 2)
    folds = rng.permutation(np.arange(n) % n_folds)
    logits = rng.normal(size=(2, n, n_classes)) + np.eye(n_classes)[targets]
    return (np.round(logits) if ties else logits), targets, folds


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n_folds", [1, 5])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_auc_and_matrix_equal_a_double_loop(n_classes: int, n_folds: int, ties: bool) -> None:
    logits, targets, folds = simulate(37, n_classes, n_folds, ties=ties, seed=5)
    estimate = estimate_auc(logits, targets, folds=folds)
    assert estimate is not None
    # Ties must be ties for both: the scores are taken from one place, and checked apart below.
    auc, covariance = matrix(np.stack([find_log_odds(arm) for arm in logits]), targets, folds)
    np.testing.assert_allclose(estimate.auc, auc, rtol=0, atol=1e-12)
    np.testing.assert_allclose(estimate.covariance, covariance, rtol=0, atol=1e-12)
    np.testing.assert_allclose(estimate.influence.sum(axis=0), 0, atol=1e-12)
    assert estimate.cross_validated == (n_folds > 1)
    for arm in range(2):
        low, high = find_auc_interval(estimate, arm=arm)
        assert 0 <= low < estimate.auc[arm] < high <= 1


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_clustered_matrix_equals_a_double_loop(n_classes: int, ties: bool) -> None:
    logits, targets, folds = simulate(40, n_classes, 2, ties=ties, seed=6)
    patients = np.arange(40) // 4
    folds = patients % 2
    estimate = estimate_auc(logits, targets, folds=folds, patients=patients)
    assert estimate is not None
    _, covariance = matrix(np.stack([find_log_odds(arm) for arm in logits]), targets, folds, patients)
    np.testing.assert_allclose(estimate.covariance, covariance, rtol=0, atol=1e-12)


@pytest.mark.parametrize("ties", [False, True])
def test_one_fold_of_two_classes_is_delong(ties: bool) -> None:
    logits, targets, _ = simulate(33, 2, 1, ties=ties, seed=7)
    estimate = estimate_auc(logits, targets, folds=np.zeros(33, int))
    assert estimate is not None
    expected = delong(logits[:, :, 1] - logits[:, :, 0], targets == 1)
    np.testing.assert_allclose(estimate.covariance, expected, rtol=0, atol=1e-12)


def test_log_odds_are_of_each_class_against_the_rest() -> None:
    logits = np.random.default_rng(0).normal(size=(6, 3))
    expected = [[log_odds(row, c) for c in range(3)] for row in logits]
    np.testing.assert_allclose(find_log_odds(logits), expected, atol=1e-12)
    np.testing.assert_allclose(find_log_odds(logits + 100 * np.arange(6)[:, None]), expected, atol=1e-9)


def test_several_slides_a_patient_widen_the_interval() -> None:
    logits, targets, _ = simulate(30, 2, 1, ties=False, seed=8)
    six = np.repeat(logits[0], 6, axis=0), np.repeat(targets, 6), np.zeros(180, int), np.repeat(np.arange(30), 6)
    naive = estimate_auc(six[0], six[1], folds=six[2])
    honest = estimate_auc(six[0], six[1], folds=six[2], patients=six[3])
    by_patient = estimate_auc(logits[0], targets, folds=np.zeros(30, int))
    assert naive is not None
    assert honest is not None
    assert by_patient is not None
    assert honest.deff[0] == pytest.approx(6, rel=0.1)
    widths = [np.diff(find_auc_interval(e))[0] for e in (naive, honest, by_patient)]
    assert widths[0] < 0.6 * widths[1]
    assert widths[1] == pytest.approx(widths[2], rel=0.15)


def test_an_auc_of_one_is_not_certain() -> None:
    low, high = find_score_interval(1.0, np.array([17]), np.array([23]))
    assert (round(low, 3), high) == (0.896, 1.0)
    low, high = find_score_interval(0.0, np.array([23]), np.array([17]))
    assert (low, round(high, 3)) == (0.0, 0.104)


@given(
    auc=st.floats(0, 1),
    m=st.lists(st.integers(0, 40), min_size=3, max_size=3).filter(lambda c: c[0] > 0),
    deff=st.floats(1, 6),
    cross_validated=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_an_interval_holds_its_auc_and_mirrors(auc: float, m: list[int], deff: float, cross_validated: bool) -> None:
    q = [5, 3, 9]
    low, high = find_score_interval(auc, np.array(m), np.array(q), deff=deff, cross_validated=cross_validated)
    assert 0 <= low <= auc <= high <= 1
    assert low < high
    mirrored = find_score_interval(1 - auc, np.array(q), np.array(m), deff=deff, cross_validated=cross_validated)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-6)


def test_each_end_of_an_interval_is_just_z_errors_away() -> None:
    m, q = np.array([6, 9]), np.array([11, 4])
    for end in find_score_interval(0.8, m, q, deff=1.7, cross_validated=True):
        share = m * q / (m * q).sum()
        spread = (1 - end) / (2 - end) + end / (1 + end)
        variance = sum(
            w**2 * end * (1 - end) * (1 + ((a + b) / 2 - 1) * spread) / (a * b)
            for w, a, b in zip(share, m, q, strict=True)
        )
        assert abs(0.8 - end) == pytest.approx(1.959964 * np.sqrt(find_cv_factor(end) * 1.7 * variance), rel=1e-5)


def test_three_classes_give_the_interval_of_two_when_all_is_alike() -> None:
    one = find_score_interval(0.9, np.array([8]), np.array([12]))
    assert find_score_interval(0.9, np.array([[8], [8]]), np.array([[12], [12]])) == pytest.approx(one)


def test_two_perfect_arms_are_not_certainly_equal() -> None:
    positive = np.arange(40) < 17
    logits = np.stack([np.zeros(40), np.where(positive, 5.0, -5.0) + np.arange(40) / 100], axis=1)
    estimate = estimate_auc(np.stack([logits, 3 * logits]), positive.astype(int), folds=np.zeros(40, int))
    assert estimate is not None
    differences = find_differences(estimate)
    assert differences is not None
    found = differences.compare(0, 1)
    assert found.difference == 0
    assert found.interval[1] == pytest.approx(0.072, abs=5e-4)


def test_folds_are_not_compared_with_each_other() -> None:
    """Perfect within each fold, but one fold's scores lie wholly above the other's."""
    scores = np.array([1.0, 2.0, 11.0, 12.0])
    targets = np.array([0, 1, 0, 1])
    logits = np.stack([np.zeros(4), scores], axis=1)
    within = estimate_auc(logits, targets, folds=np.array([0, 0, 1, 1]))
    assert within is not None
    assert within.auc[0] == 1
    assert within.n_pairs == 2
    assert find_pooled_auc(scores, targets == 1) == 0.75


def test_without_a_pair_there_is_no_estimate() -> None:
    logits = np.random.default_rng(1).normal(size=(4, 2))
    assert estimate_auc(logits, np.array([0, 0, 1, 1]), folds=np.array([0, 0, 1, 1])) is None
    assert estimate_auc(logits[:0], np.array([], int), folds=np.array([], int)) is None
    assert find_pooled_auc(logits[:, 0], np.ones(4, bool)) is None


def test_one_unit_of_a_class_gives_an_interval_but_no_matrix() -> None:
    logits = np.stack([np.zeros(6), np.arange(6.0)], axis=1)
    estimate = estimate_auc(logits, np.array([0, 0, 0, 1, 0, 0]), folds=np.zeros(6, int))
    assert estimate is not None
    assert estimate.auc[0] == pytest.approx(0.6)
    assert estimate.covariance is None
    assert find_differences(estimate) is None
    low, high = find_auc_interval(estimate)
    assert low < 0.15
    assert high > 0.9


def test_a_class_without_pairs_is_left_out_of_the_mean() -> None:
    logits = np.random.default_rng(3).normal(size=(9, 3))
    targets = np.array([0, 1, 0, 1, 0, 1, 0, 1, 1])
    estimate = estimate_auc(logits, targets, folds=np.zeros(9, int))
    assert estimate is not None
    assert estimate.scored == (0, 1)


def test_the_interval_covers_on_one_test_set_of_auc_098() -> None:
    """Statistics.md, simulator H: n 40, AUC 0.98, where Wald covers 75%."""
    rng = np.random.default_rng(0)
    positive = np.arange(40) < 20
    gap = np.sqrt(2) * 2.0537  # Phi(gap / sqrt 2) = 0.98
    assert ndtr(gap / np.sqrt(2)) == pytest.approx(0.98, abs=1e-4)
    covered = wald = 0
    for _ in range(600):
        scores = rng.normal(size=40) + gap * positive
        estimate = estimate_auc(np.stack([np.zeros(40), scores], axis=1), positive.astype(int), folds=np.zeros(40, int))
        assert estimate is not None
        assert estimate.covariance is not None
        low, high = find_auc_interval(estimate)
        covered += low <= 0.98 <= high
        wald += abs(estimate.auc[0] - 0.98) <= 1.96 * np.sqrt(estimate.covariance[0, 0])
    assert covered / 600 >= 0.91
    assert wald / 600 < 0.90  # so that a simulator that cannot tell right from wrong is noticed
