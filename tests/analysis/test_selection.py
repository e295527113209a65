"""Draws of patients as weights, and what the best arm's AUC is worth."""

import itertools

import numpy as np
import pytest

from lamella.analysis.auc import estimate_auc
from lamella.analysis.predictions import find_log_odds
from lamella.analysis.selection import PairTable, correct_best
from tests.analysis.contests import make_contest


def test_weighted_auc_equals_a_brute_force_double_loop_with_ties_and_folds() -> None:
    rng = np.random.default_rng(3)
    n = 31
    targets, folds = rng.integers(0, 3, n), rng.integers(0, 4, n)
    logits = rng.integers(0, 4, (2, n, 3)).astype(float)
    weights = rng.integers(0, 3, (2, n)).astype(float)
    found = PairTable.of(logits, targets, folds).weigh(weights)
    for r, j in itertools.product(range(2), range(2)):
        score, by_class = find_log_odds(logits[j]), []
        for c in range(3):
            hits = pairs = 0.0
            for a, b in itertools.product(np.flatnonzero(targets == c), np.flatnonzero(targets != c)):
                if folds[a] == folds[b]:
                    w = weights[r, a] * weights[r, b]
                    hits += w * ((score[a, c] > score[b, c]) + 0.5 * (score[a, c] == score[b, c]))
                    pairs += w
            by_class.append(hits / pairs)
        assert found[r, j] == pytest.approx(np.mean(by_class), abs=1e-6)  # pairs are held in float32


def test_the_weights_of_all_units_give_the_auc_itself() -> None:
    contest = make_contest([0.3, 1.5])
    estimate = estimate_auc(contest.logits, contest.targets, folds=contest.folds)
    assert estimate is not None
    whole = PairTable.of(contest.logits, contest.targets, contest.folds).weigh(np.ones((1, 120)))[0]
    assert whole == pytest.approx(estimate.auc, abs=1e-6)


def test_the_best_of_equal_arms_is_corrected_downwards() -> None:
    rng = np.random.default_rng(1)
    contest = make_contest([1.0] * 24, n=100, shared=0.3)
    draws = rng.multinomial(100, np.full(100, 0.01), size=300)
    pairs = PairTable.of(contest.logits, contest.targets, contest.folds)
    corrected = correct_best(pairs, draws)
    raw = pairs.weigh(np.ones((1, 100))).max()
    assert corrected is not None
    assert corrected < raw - 0.02
