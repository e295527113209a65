"""The control with permuted labels."""

import numpy as np
import pytest

from lamella.analysis.permutation import judge_permutations


def test_permuted_labels_that_still_predict_are_called_a_leak() -> None:
    assert judge_permutations(0.9, [0.7, 0.72, 0.68, 0.71]).leak
    found = judge_permutations(0.7, [0.7, 0.2, 0.5, 0.6])
    assert not found.leak
    assert found.p == pytest.approx(2 / 5)


def test_a_batch_that_keeps_its_labels_is_no_leak_as_long_as_exchanged_ones_are_at_chance() -> None:
    found = judge_permutations(0.9, [0.72, 0.7, 0.74, 0.71], within=[0.4, 0.6, 0.5, 0.55])
    assert not found.leak
    assert found.mean == pytest.approx(0.7175)
    assert judge_permutations(0.9, [0.72, 0.7], within=[0.8, 0.82]).leak


def test_the_smallest_leak_that_the_runs_could_have_seen_is_told() -> None:
    aucs = [0.45, 0.55, 0.5, 0.52]
    found = judge_permutations(0.9, aucs)
    assert found.smallest_leak == pytest.approx(3 * np.std(aucs, ddof=1) / 2)
    moved = [auc + found.smallest_leak + 0.5 - np.mean(aucs) + 0.001 for auc in aucs]
    assert judge_permutations(0.9, moved).leak
    assert not found.leak
    assert judge_permutations(0.9, [0.6]).smallest_leak is None
