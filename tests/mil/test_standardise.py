"""Standardisation: slides count alike, and a nearly constant dimension cannot explode."""

import numpy as np
import pytest
from numpy.typing import NDArray

from lamella.errors import BagError
from lamella.mil import TrainSettings, find_standardisation, fit_model, together
from lamella.mil.standardise import Standardisation, combine_moments
from tests.mil.conftest import SmallCohort


def test_each_slide_counts_alike_however_many_tiles_it_has() -> None:
    long, short = np.full((900, 2), [1.0, 5.0], np.float32), np.full((1, 2), [3.0, 5.5], np.float32)
    found = find_standardisation([long, short], floor=0)
    np.testing.assert_allclose(found.mean, [2.0, 5.25])
    np.testing.assert_allclose(found.sd, [1.0, 0.25])


def test_mean_and_sd_equal_the_plain_formula_for_slides_of_one_length() -> None:
    rng = np.random.default_rng(0)
    bags = [rng.normal(4, 2, size=(9000, 3)).astype(np.float32) for _ in range(2)]
    found = find_standardisation(bags)
    np.testing.assert_allclose(found.mean, np.concatenate(bags).mean(axis=0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(found.sd, np.concatenate(bags).std(axis=0, dtype=np.float64), rtol=1e-6)


def test_no_sd_is_below_a_tenth_of_the_median() -> None:
    rng = np.random.default_rng(1)
    bag = (rng.normal(size=(50, 9)) * np.logspace(-6, 2, 9)).astype(np.float16)
    sd = find_standardisation([bag]).sd
    plain = bag.astype(np.float64).std(axis=0)
    assert sd.min() == pytest.approx(0.1 * np.median(plain), rel=1e-3)


def test_constant_dimensions_stay_finite_even_when_all_are() -> None:
    some = find_standardisation([np.array([[1, 2, 7], [3, 2, 7]], np.float32)])
    np.testing.assert_allclose(some.sd, [1.0, 0.1, 0.1])
    every = find_standardisation([np.full((4, 3), 0.1, np.float32)])
    np.testing.assert_array_equal(every.sd, [1, 1, 1])


def test_no_bags_are_refused() -> None:
    with pytest.raises(BagError, match="no bags to learn"):
        find_standardisation([])


def _largest_logit(cohort: SmallCohort, monkeypatch: pytest.MonkeyPatch, floor: float) -> float:
    """Train with a dimension that hardly varies, then move it on new slides, as a new stain would."""

    def nearly_constant(bag: NDArray[np.float32], at: float) -> NDArray[np.float32]:
        bag = bag.copy()
        bag[:, 7] = at + 1e-3 * np.sin(np.arange(len(bag)))
        return bag

    def combine(moments: object) -> Standardisation:
        return combine_moments(moments, floor=floor)  # type: ignore[arg-type]

    monkeypatch.setattr(together, "combine_moments", combine)
    known = {name: nearly_constant(bag, 0.0) for name, bag in cohort.bags.items()}
    model = fit_model(
        known,
        cohort.labels,
        train=cohort.train,
        val=cohort.val,
        classes=("a", "b"),
        settings=TrainSettings(epochs=15, n_threads=1),
    )
    seen = max(np.abs(np.diff(model.predict(known[name]).logits)).max() for name in cohort.test)
    moved = max(
        np.abs(np.diff(model.predict(nearly_constant(cohort.bags[name], 1.0)).logits)).max() for name in cohort.test
    )
    return float(moved / seen)


def test_a_dimension_nearly_constant_in_train_does_not_blow_up_logits_on_test(
    small_cohort: SmallCohort, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _largest_logit(small_cohort, monkeypatch, floor=0.1) < 2
    # The same without the floor, so that this test is known to notice.
    assert _largest_logit(small_cohort, monkeypatch, floor=0.0) > 10
