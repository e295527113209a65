"""Intervals of shares and the patient bootstrap; weighted figures against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, balanced_accuracy_score, roc_auc_score

from lamella.analysis.intervals import draw_patients, find_bootstrap_interval, find_share_deff, find_wilson_interval
from lamella.analysis.weighted import (
    weigh_average_precision,
    weigh_balanced_accuracy,
    weigh_mean,
    weigh_pooled_auc,
)


def test_wilson_agrees_with_published_values() -> None:
    # Newcombe (1998), table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for hits, n, expected in (
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
    ):
        assert find_wilson_interval(hits / n, n) == pytest.approx(expected, abs=1e-4)


def test_slides_of_one_patient_count_for_less() -> None:
    hits = np.array([True] * 6 + [False] * 6 + [True] * 6)
    assert find_share_deff(hits, np.arange(18)) == 1
    assert find_share_deff(hits, np.arange(18) // 6) > 6
    assert find_share_deff(np.ones(18, bool), np.arange(18) // 6) == 6
    assert find_share_deff(np.array([True, False]), np.array([3, 3])) == 2


def test_draws_keep_folds_and_classes_and_take_patients_whole() -> None:
    patients = np.repeat(np.arange(12), 2)
    targets, folds = np.repeat(np.arange(12) % 2, 2), np.repeat(np.arange(12) // 4, 2)
    counts = draw_patients(targets, folds, patients, n_draws=200, rng=np.random.default_rng(0))
    assert counts.shape == (200, 24)
    np.testing.assert_array_equal(counts[:, ::2], counts[:, 1::2])
    for fold in range(3):
        for target in range(2):
            rows = (folds == fold) & (targets == target)
            np.testing.assert_array_equal(counts[:, rows].sum(axis=1), rows.sum())
    assert counts.max() > 1


def test_weights_mean_repeated_rows() -> None:
    rng = np.random.default_rng(1)
    scores, positive = np.round(rng.normal(size=50), 1), rng.random(50) < 0.4
    weights = rng.integers(0, 4, size=(6, 50))
    for weigh, reference in ((weigh_pooled_auc, roc_auc_score), (weigh_average_precision, average_precision_score)):
        expected = [reference(np.repeat(positive, w), np.repeat(scores, w)) for w in weights]
        np.testing.assert_allclose(weigh(scores, positive, weights.astype(float)), expected, atol=1e-12)
    predicted, targets = rng.integers(3, size=50), rng.integers(3, size=50)
    expected = [balanced_accuracy_score(np.repeat(targets, w), np.repeat(predicted, w)) for w in weights]
    np.testing.assert_allclose(weigh_balanced_accuracy(predicted, targets, weights.astype(float)), expected)
    np.testing.assert_allclose(
        weigh_mean(scores, weights.astype(float)), [np.repeat(scores, w).mean() for w in weights]
    )


def test_a_bootstrap_interval_of_a_mean_is_as_wide_as_its_error() -> None:
    rng = np.random.default_rng(2)
    values = rng.normal(size=400)
    counts = draw_patients(np.zeros(400, int), np.zeros(400, int), np.arange(400), n_draws=2000, rng=rng)
    found = find_bootstrap_interval(lambda weights: weigh_mean(values, weights), counts)
    assert found is not None
    assert found[1] - found[0] == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.06)


def test_a_figure_that_most_draws_leave_undefined_has_no_interval() -> None:
    counts = np.ones((40, 3), dtype=np.int64)
    assert find_bootstrap_interval(lambda weights: np.full(len(weights), np.nan), counts) is None


def test_draws_that_all_agree_make_no_interval() -> None:
    """A perfect score is perfect in every draw: 1.00 to 1.00 would look like certainty."""
    counts = np.ones((40, 3), dtype=np.int64)
    assert find_bootstrap_interval(lambda weights: np.ones(len(weights)), counts) is None
