"""Declared comparisons: against chance, against each other, against ImageNet's order."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from lamella.analysis.auc import AucEstimate, estimate_auc
from lamella.analysis.comparisons import (
    adjust_holm,
    compare_declared,
    correlate_with_imagenet,
    judge_against_chance,
)
from lamella.analysis.differences import AucDifference, find_differences
from tests.analysis.contests import make_contest

TOP1 = np.array([69.8, 73.3, 76.1, 74.4, 75.6, 76.3, 78.8, 79.8, 81.1])
GASTRO = np.array([90.3, 90.8, 88.4, 91.1, 90.8, 86.6, 90.0, 87.8, 90.5])
CAMELYON = np.array([76.5, 71.9, 71.9, 79.9, 75.0, 72.5, 76.9, 69.3, 69.9])


def compare(estimate: AucEstimate, first: int, second: int) -> AucDifference:
    differences = find_differences(estimate)
    assert differences is not None
    return differences.compare(first, second)


def declare(
    estimate: AucEstimate, names: Sequence[str], tables: list[dict[str, Any]], *, seed_auc: np.ndarray | None = None
) -> list[dict[str, Any]]:
    return compare_declared(find_differences(estimate, seed_auc=seed_auc), names, tables)


def test_two_perfect_arms_are_not_certainly_equal() -> None:
    targets = np.array([1] * 17 + [0] * 23)
    logits = np.stack([np.stack([np.zeros(40), 9.0 * targets], axis=-1)] * 2)
    estimate = estimate_auc(logits, targets, folds=np.zeros(40, int))
    assert estimate is not None
    found = compare(estimate, 0, 1)
    assert found.difference == 0
    assert found.interval[1] == pytest.approx(0.072, abs=5e-4)


def test_holm_is_monotone_and_never_above_one() -> None:
    assert adjust_holm([0.9, 0.6]) == [1.0, 1.0]
    assert adjust_holm([]) == []


def test_a_single_test_set_is_tested_against_chance_as_mann_whitney_is() -> None:
    targets = np.array([1] * 12 + [0] * 20)
    score = np.linspace(0, 1, 32)[::-1]
    estimate = estimate_auc(np.stack([np.zeros(32), score], axis=-1), targets, folds=np.zeros(32, int))
    assert estimate is not None
    from scipy.stats import mannwhitneyu

    reference = mannwhitneyu(
        score[targets == 1], score[targets == 0], alternative="greater", method="asymptotic", use_continuity=False
    )
    assert judge_against_chance(estimate)[0] == pytest.approx(reference.pvalue, rel=1e-6)


def test_imagenet_ranks_are_permuted_exactly_for_few_encoders_and_ties_do_not_break_it() -> None:
    rng = np.random.default_rng(0)
    auc, top1 = np.array([0.6, 0.7, 0.8, 0.9]), np.array([70.0, 72.0, 75.0, 80.0])
    found = correlate_with_imagenet(auc, top1, auc + rng.normal(0, 0.01, (200, 4)))
    assert found is not None
    assert found.rho == pytest.approx(1.0)
    assert found.p == pytest.approx(2 / 24)
    assert correlate_with_imagenet(auc[:3], top1[:3], auc[None, :3]) is None
    assert correlate_with_imagenet(np.full(4, 0.5), top1, auc[None]) is None


def test_holm_equals_the_definition() -> None:
    p = [0.04, 0.001, 0.03, 0.2, 0.03]
    ordered = sorted(p)
    expected = {v: min(1.0, max((5 - k) * ordered[k] for k in range(i + 1))) for i, v in enumerate(ordered)}
    assert adjust_holm(p) == pytest.approx([expected[v] for v in p])


def test_rows_are_tested_as_declared_and_adjusted_within_their_table() -> None:
    contest = make_contest([0.3, 2.5, 0.4], n=200, n_seeds=3)
    estimate = estimate_auc(contest.logits, contest.targets, folds=contest.folds)
    assert estimate is not None
    rows = [("arm1", "arm0"), ("arm2", "arm0")]
    one = {"name": "I", "title": "one", "rows": rows}
    two = {"name": "II", "title": "two", "rows": rows[1:]}
    first, second = declare(estimate, contest.names, [one, two])
    difference = compare(estimate, 1, 0)
    assert first.rows[0].standard_error == difference.standard_error
    assert first.rows[0].interval == difference.interval  # not adjusted
    assert [row.starred for row in first.rows] == [True, False]
    assert second.rows[0].p_holm == second.rows[0].p == first.rows[1].p


def test_the_noise_of_seeds_widens_a_comparison() -> None:
    contest = make_contest([1.0, 1.5], n=200)
    estimate = estimate_auc(contest.logits, contest.targets, folds=contest.folds)
    table = [{"name": "I", "title": "", "rows": [("arm1", "arm0")]}]
    assert estimate is not None
    without = declare(estimate, contest.names, table)[0].rows[0].standard_error
    seeds = np.array([[0.70, 0.74, 0.78], [0.80, 0.80, 0.80]])
    noisy = declare(estimate, contest.names, table, seed_auc=seeds)[0].rows[0].standard_error
    assert (
        0.3 * 0.04**2 / 3 < noisy**2 - without**2 < 1.5 * 0.04**2 / 3
    )  # that of the pair, in units of each arm's error


def test_a_huge_difference_has_a_p_above_zero() -> None:
    targets = np.repeat([0, 1], 200)
    rng = np.random.default_rng(0)
    scores = np.stack([6.0 * targets, -6.0 * targets]) + rng.normal(size=(2, 400))
    logits = np.stack([np.zeros_like(scores), scores], axis=-1)
    estimate = estimate_auc(logits, targets, folds=np.zeros(400, int))
    assert estimate is not None
    assert 0 < judge_against_chance(estimate)[0] < 1e-50


@pytest.mark.parametrize(("auc", "rho", "p"), [(GASTRO, -0.49, 0.19), (CAMELYON, -0.51, 0.16)])
def test_the_papers_own_table_shows_no_correlation_and_no_absence_of_one(auc: np.ndarray, rho: float, p: float) -> None:
    found = correlate_with_imagenet(auc / 100, TOP1, np.tile(auc / 100, (50, 1)))
    assert found is not None
    assert found.rho == pytest.approx(rho, abs=0.005)
    assert found.p == pytest.approx(p, abs=0.015)
    assert "no absence of a correlation can be claimed" in found.caption


def test_the_interval_is_that_of_drawn_correlations() -> None:
    rng = np.random.default_rng(1)
    drawn = GASTRO / 100 + rng.normal(0, 0.02, (400, 9))
    found = correlate_with_imagenet(GASTRO / 100, TOP1, drawn)
    assert found is not None
    expected = np.quantile([spearmanr(one, TOP1).statistic for one in drawn], (0.025, 0.975))
    assert found.interval == pytest.approx(tuple(expected.tolist()))
