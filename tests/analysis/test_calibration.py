"""Calibration: found where it is, and refused with a reason where it cannot be."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from lamella.analysis.calibration import find_calibration, find_calibration_groups


def simulate(n: int, slope: float, shift: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds that are `slope` times too mild and `shift` too low."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(-1, 1.5, n)
    return scores, rng.random(n) < expit(slope * scores + shift)


def test_a_perfect_model_has_intercept_0_and_slope_1() -> None:
    found = find_calibration(*simulate(20000, 1, 0))
    assert found.intercept == pytest.approx(0, abs=0.06)
    assert found.slope == pytest.approx(1, abs=0.06)
    assert found.reason is None


def test_the_slope_is_that_of_an_unpenalised_logistic_regression() -> None:
    scores, positive = simulate(300, 0.5, 0.7)
    found = find_calibration(scores, positive)
    reference = LogisticRegression(C=1e10, tol=1e-10).fit(scores[:, None], positive)
    assert found.slope == pytest.approx(reference.coef_[0, 0], rel=1e-4)
    assert found.slope_interval is not None
    assert found.slope_interval[0] < found.slope < found.slope_interval[1]


def test_the_intercept_makes_the_mean_probability_right() -> None:
    scores, positive = simulate(250, 0.6, -1.5, seed=4)
    found = find_calibration(scores, positive)
    assert found.intercept is not None
    assert expit(scores + found.intercept).mean() == pytest.approx(positive.mean(), abs=1e-9)


def test_separated_classes_have_an_intercept_but_no_slope() -> None:
    scores = np.array([-3.0, -2.0, -1.0, 1.0, 2.0])
    for positive in (scores > 0, scores < 0, scores > -1.5):
        found = find_calibration(scores, positive)
        assert found.slope is None
        assert found.reason is not None
        assert "separate the classes" in found.reason
        assert found.intercept is not None


def test_extreme_scores_settle_or_say_why() -> None:
    rng = np.random.default_rng(1)
    for scale in (1e-6, 1.0, 50.0, 1e4, 1e8):
        scores = rng.normal(size=40) * scale
        found = find_calibration(scores, rng.random(40) < 0.5)
        for value in (found.intercept, found.slope):
            assert value is None or np.isfinite(value)
        assert found.reason is not None or None not in (found.intercept, found.slope)


@pytest.mark.parametrize("n", [0, 1, 5])
def test_one_class_alone_says_so(n: int) -> None:
    found = find_calibration(np.zeros(n), np.zeros(n, bool))
    assert found.intercept is None
    assert found.reason == f"0 positive and {n} negative; both are needed"


def test_equal_scores_have_no_slope() -> None:
    found = find_calibration(np.full(8, 0.3), np.arange(8) < 3)
    assert found.slope is None
    assert found.reason == "slope: all scores are the same"


def test_groups_are_equal_in_size_and_hold_the_observed_share() -> None:
    scores, positive = simulate(87, 1, 0)
    groups = find_calibration_groups(expit(scores), positive)
    assert len(groups) == 8
    assert sum(int(group.n) for group in groups) == 87
    assert sum(group.observed * group.n for group in groups) == pytest.approx(positive.sum())
    assert all(group.low <= group.observed <= group.high for group in groups)
    assert [group.predicted for group in groups] == sorted(group.predicted for group in groups)
    assert find_calibration_groups(expit(scores[:19]), positive[:19]) == []
