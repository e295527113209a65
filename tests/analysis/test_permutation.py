"""The control with permuted labels."""

import pytest

from lamella.analysis.permutation import judge_permutations


def test_permuted_labels_that_still_predict_are_called_a_leak() -> None:
    assert judge_permutations(0.9, [0.7, 0.72, 0.68, 0.71])["leak"]
    found = judge_permutations(0.7, [0.7, 0.2, 0.5, 0.6])
    assert not found["leak"]
    assert found["p"] == pytest.approx(2 / 5)


def test_a_batch_that_keeps_its_labels_is_no_leak_as_long_as_exchanged_ones_are_at_chance() -> None:
    found = judge_permutations(0.9, [0.72, 0.7, 0.74, 0.71], within=[0.4, 0.6, 0.5, 0.55])
    assert not found["leak"]
    assert found["mean"] == pytest.approx(0.7175)
    assert judge_permutations(0.9, [0.72, 0.7], within=[0.8, 0.82])["leak"]
