"""Where a map lights up, by rules that can be followed with a pencil."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.analysis.localise import (
    Detections,
    find_maxima,
    find_top_precision,
    judge_detections,
    number_lesions,
    points_inside,
    rank_values,
    score_froc,
)


def box(shape, top, left, height, width):
    mask = np.zeros(shape, dtype=bool)
    mask[top : top + height, left : left + width] = True
    return mask


def test_a_slide_of_lesion_alone_or_without_one_ranks_nothing():
    assert rank_values(np.arange(4.0), np.ones(4, dtype=bool)) is None
    assert rank_values(np.arange(4.0), np.zeros(4, dtype=bool)) is None
    ranking = rank_values(np.zeros(10), np.arange(10) < 3)
    assert (ranking.auc, ranking.precision, ranking.share) == (0.5, pytest.approx(0.3), 0.3)


def test_ties_count_by_their_share():
    inside = np.array([True, False, False, False])
    assert points_inside(np.zeros(4), inside) == 0.25
    assert find_top_precision(np.zeros(4), inside, 2) == 0.25
    assert find_top_precision(np.array([5.0, 1, 1, 1]), inside, 1) == 1
    assert find_top_precision(np.array([5.0, 1, 1, 1]), inside, 99) == 0.25


def test_lesions_within_75_um_are_one_and_their_holes_are_filled():
    um = 10.0
    apart = box((100, 140), 20, 20, 20, 20) | box((100, 140), 20, 49, 20, 20)  # 90 um between the edges
    near = box((100, 140), 20, 20, 20, 20) | box((100, 140), 20, 46, 20, 20)  # 60 um
    assert len(number_lesions(apart, um).counted) == 2
    assert len(number_lesions(near, um).counted) == 1
    ring = box((100, 140), 20, 30, 40, 60) & ~box((100, 140), 35, 45, 10, 30)
    assert number_lesions(ring, um).labels[40, 60] == 1
    assert number_lesions(ring, um).labels[0, 0] == 0
    assert number_lesions(np.zeros((10, 14), dtype=bool), um).counted.size == 0


def test_a_lesion_under_275_um_is_neither_hit_nor_false():
    um = 10.0
    mask = box((120, 200), 10, 10, 12, 12) | box((120, 200), 60, 100, 30, 45)
    lesions = number_lesions(mask, um)
    # Grown by 37.5 um a side the small one is about 195 um square: an ellipse of its moments has an axis of 225 um.
    assert lesions.counted.tolist() == [False, True]
    places = np.array([[15, 15], [75, 120], [5, 190], [80, 110]])
    judged = judge_detections(places, np.array([0.9, 0.4, 0.7, 0.6]), lesions)
    assert judged.hits.tolist() == [0.6]
    assert judged.false.tolist() == [0.7]
    assert number_lesions(mask, um, smallest_um=200).counted.tolist() == [True, True]


def test_froc_by_hand():
    slides = [
        Detections(hits=np.array([0.9, 0.3]), false=np.array([0.5])),
        Detections(hits=np.array([-np.inf]), false=np.array([0.8, 0.2])),
        Detections(hits=np.zeros(0), false=np.array([0.7])),
        Detections(hits=np.array([0.75]), false=np.zeros(0)),
    ]
    # False: 0.8 0.7 0.5 0.2 on 4 slides. 1/4 a slide is one: above 0.7 lie 0.9 and 0.75 of 4 lesions.
    found = score_froc(slides)
    assert found.sensitivities == (0.5, 0.5, 0.75, 0.75, 0.75, 0.75)
    assert found.score == pytest.approx(4.0 / 6)
    assert (found.n_lesions, found.n_slides) == (4, 4)
    assert score_froc(slides[2:3]) is None


def find_maxima_slowly(values, radius):
    """Take the highest, strike out what is near, again."""
    left, found = values.copy(), []
    rows, columns = np.indices(values.shape)
    while np.isfinite(left).any():
        row, column = np.unravel_index(np.nanargmax(np.where(np.isfinite(left), left, -np.inf)), values.shape)
        near = (rows - row) ** 2 + (columns - column) ** 2 <= radius**2
        known = np.isfinite(values) & near
        if values[row, column] >= values[known].max():
            found.append(((int(row), int(column)), values[row, column]))
            left[near] = np.nan
        else:
            left[row, column] = np.nan
    return found


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), radius=st.floats(1.0, 4.5))
def test_maxima_are_those_of_the_slow_way(seed, radius):
    rng = np.random.default_rng(seed)
    values = rng.permutation(15 * 11).reshape(11, 15).astype(float)  # no ties: their order would be anyone's
    values[rng.random(values.shape) < 0.2] = np.nan
    places, heights = find_maxima(values, radius)
    assert [(tuple(place), height) for place, height in zip(places.tolist(), heights, strict=True)] == (
        find_maxima_slowly(values, radius)
    )
