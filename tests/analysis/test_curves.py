"""Curves hold the areas they are drawn for."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from lamella.analysis.auc import estimate_auc
from lamella.analysis.curves import find_curves, find_mean_roc, find_precision_recall, find_roc
from lamella.analysis.predictions import PredictionTable
from tests.analysis.conftest import make_table


def area(curve: tuple[np.ndarray, np.ndarray]) -> float:
    return float(np.trapezoid(curve[1], curve[0]))


@pytest.mark.parametrize("decimals", [9, 0])
def test_the_area_of_the_mean_roc_is_the_auc_within_folds(decimals: int) -> None:
    table = make_table(71, n_folds=4, seed=2)
    table = replace(table, logits=np.round(table.logits, decimals))
    estimate = estimate_auc(table.logits, table.targets, folds=table.folds)
    curve = find_mean_roc(table.scores[:, 1], table.targets == 1, table.folds)
    assert curve is not None
    assert estimate is not None
    assert area(curve) == pytest.approx(estimate.auc[0], abs=1e-12)
    assert (np.diff(curve[0]) >= 0).all()
    assert (np.diff(curve[1]) >= -1e-12).all()


def test_a_roc_agrees_with_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    scores, positive = rng.normal(size=30).round(1), rng.random(30) < 0.4
    curve = find_roc(scores, positive)
    fpr, tpr, _ = roc_curve(positive, scores, drop_intermediate=False)
    assert curve is not None
    np.testing.assert_allclose(curve[0], fpr)
    np.testing.assert_allclose(curve[1], tpr)


def test_one_class_alone_has_no_curve() -> None:
    scores, none = np.arange(4.0), np.zeros(4, bool)
    assert find_roc(scores, none) is None
    assert find_precision_recall(scores, none) is None
    assert find_mean_roc(scores, np.array([True, True, False, False]), np.array([0, 0, 1, 1])) is None


def test_precision_and_recall_of_a_small_case() -> None:
    found = find_precision_recall(np.array([0.9, 0.8, 0.8, 0.1]), np.array([True, False, True, True]))
    assert found is not None
    np.testing.assert_allclose(found[0], [1 / 3, 2 / 3, 1])
    np.testing.assert_allclose(found[1], [1, 2 / 3, 3 / 4])


def test_curves_name_the_classes_they_are_of(table: PredictionTable) -> None:
    assert list(find_curves(table)) == ["malignant"]
    assert list(find_curves(replace(table, positive="benign"))) == ["benign"]
    three = find_curves(make_table(classes=("a", "b", "c")))
    assert list(three) == ["a", "b", "c"]
    assert sorted(three["a"].roc_folds) == ["0", "1", "2", "3", "4"]
