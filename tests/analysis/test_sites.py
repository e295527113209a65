"""The next site: an interval that holds it, where that of the mean does not."""

import numpy as np
import pytest
from scipy.special import expit, ndtri

from lamella.analysis.sites import predict_next_site


def test_the_next_site_lies_in_the_interval_and_outside_that_of_the_mean() -> None:
    rng = np.random.default_rng(0)
    hits = plain = 0
    for _ in range(300):
        truth = np.clip(rng.normal(0.85, 0.06, 9), 0.55, 0.995)
        ups, downs = rng.normal(size=(9, 30)) + np.sqrt(2) * ndtri(truth)[:, None], rng.normal(size=(9, 30))
        auc = (ups[:, :, None] > downs[:, None, :]).mean(axis=(1, 2))[:8]
        low, high = predict_next_site(auc.tolist(), [30] * 8, [30] * 8).interval
        hits += low <= truth[8] <= high
        plain += abs(truth[8] - auc.mean()) <= 1.96 * auc.std(ddof=1) / np.sqrt(8)
    assert hits / 300 >= 0.86
    assert plain / 300 <= 0.7


def test_sites_that_agree_beyond_chance_have_no_spread_between_them() -> None:
    found = predict_next_site([0.90, 0.91, 0.89, 0.90, 0.90, 0.91], [40] * 6, [40] * 6)
    assert found.sd_between == 0
    assert found.mean == pytest.approx(0.90, abs=0.005)
    assert found.interval[1] - found.interval[0] < 0.03


def test_two_sites_predict_none_and_four_make_no_claim() -> None:
    assert predict_next_site([0.9, 0.8], [10, 10], [10, 10]).interval is None
    assert predict_next_site([], [], []).mean is None
    assert "too few for a claim" in predict_next_site([0.9, 0.8, 0.7, 0.8], [10] * 4, [10] * 4).note


def test_perfect_and_unequal_sites_have_an_interval_without_nan() -> None:
    found = predict_next_site([1.0, 1.0, 1.0, 0.5, 0.0], [1, 5, 50, 3, 2], [1, 50, 5, 3, 2])
    low, high = found.interval
    assert 0 <= low < found.mean < high <= 1
    assert np.isfinite(expit(found.mean))
