"""Slides like those of training are seldom flagged, however few those were; others are."""

import numpy as np
import pytest

from lamella.analysis.unlike import find_distance, fit_likeness, is_unlike, is_unlike_mpp


def draw_mixer(width: int) -> np.ndarray:
    """Return what turns noise into vectors whose dimensions go together, some far wider than others."""
    rng = np.random.default_rng(1)
    return rng.normal(size=(width, width)) * np.exp(-np.arange(width) / 20)[:, None]


@pytest.mark.parametrize("width", [6, 200])
@pytest.mark.parametrize("n", [8, 30, 150])
def test_slides_like_those_of_training_are_seldom_flagged(width: int, n: int) -> None:
    rng, mixer = np.random.default_rng(2), draw_mixer(width)
    flagged = []
    for _ in range(20):
        likeness = fit_likeness(rng.normal(size=(n, width)) @ mixer + 100, [str(i) for i in range(n)])
        flagged += [is_unlike(likeness, row) for row in rng.normal(size=(25, width)) @ mixer + 100]
    assert np.mean(flagged) < 0.025


@pytest.mark.parametrize("n", [15, 30, 150])
def test_slides_far_off_are_flagged(n: int) -> None:
    rng, mixer = np.random.default_rng(3), draw_mixer(60)
    vectors = rng.normal(size=(n, 60)) @ mixer
    likeness = fit_likeness(vectors, [str(i) for i in range(n)])
    assert is_unlike(likeness, 5 * vectors.std(axis=0) * rng.choice([-1, 1], 60))


def test_a_direction_in_which_training_never_varied_counts() -> None:
    rng = np.random.default_rng(4)
    vectors = np.zeros((30, 10))
    vectors[:, :5] = rng.normal(size=(30, 5))
    vectors[:, 5:] = 1e-3 * rng.normal(size=(30, 5))
    off = np.zeros(10)
    off[7] = 3.0
    likeness = fit_likeness(vectors, [str(i) for i in range(30)])
    assert is_unlike(likeness, off)
    assert not is_unlike(likeness, vectors[0])


def test_slides_of_one_patient_are_not_held_against_each_other() -> None:
    """Two copies of each slide: counted as slides they would look near to each other, and new ones strange."""
    rng = np.random.default_rng(5)
    once = rng.normal(size=(20, 40))
    twice, patients = np.repeat(once, 2, axis=0), [f"P-{i // 2}" for i in range(40)]
    apart = fit_likeness(twice, patients)
    mixed = fit_likeness(twice, [str(i) for i in range(40)])
    assert apart.limit is not None
    assert mixed.limit is not None
    assert np.median(apart.distances) > np.median(mixed.distances)


def test_too_few_slides_say_nothing() -> None:
    likeness = fit_likeness(np.random.default_rng(0).normal(size=(4, 6)), list("abcd"))
    assert likeness.limit is None
    assert not is_unlike(likeness, np.full(6, 1e6))
    alone = fit_likeness(np.ones((1, 6)), ["a"])
    assert np.isfinite(find_distance(alone, np.zeros(6)))


def test_slides_that_are_all_the_same_set_no_limit() -> None:
    assert fit_likeness(np.ones((12, 3)), [str(i) for i in range(12)]).limit is None


def test_the_order_of_slides_and_a_change_of_unit_mean_nothing() -> None:
    rng = np.random.default_rng(6)
    vectors, names = rng.normal(size=(25, 8)), [str(i) for i in range(25)]
    order = rng.permutation(25)
    new = rng.normal(size=8)
    plain = fit_likeness(vectors, names)
    shuffled = fit_likeness(vectors[order], [names[i] for i in order])
    scaled = fit_likeness(7 * vectors + 3, names)
    assert shuffled.limit == pytest.approx(plain.limit)
    assert scaled.limit == pytest.approx(plain.limit)
    assert find_distance(scaled, 7 * new + 3) == pytest.approx(find_distance(plain, new))


@pytest.mark.parametrize(("mpp", "is_off"), [(0.25, False), (0.23, False), (0.27, False), (0.2, True), (0.5, True)])
def test_another_resolution_is_off_beyond_what_scanners_of_a_kind_differ(mpp: float, is_off: bool) -> None:
    assert is_unlike_mpp(mpp, 0.243, 0.252) == is_off
