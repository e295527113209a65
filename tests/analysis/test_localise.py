"""Where a map lights up, by rules that can be followed with a pencil."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.analysis.localise import (
    Detections,
    Lesions,
    choose_tiles,
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


def test_a_plateau_is_one_maximum_at_its_centre():
    values = np.zeros((40, 60))
    values[:, :] = np.linspace(0, 0.1, 60)  # a slope, so that the ground has no plateau as large as the slide
    values[8:24, 20:36] = 3.0
    values[30:34, 50:54] = 2.0
    values[30, 54] = 2.0
    places, heights = find_maxima(values, 6.0)
    assert heights.tolist()[:2] == [3.0, 2.0]
    assert places[0].tolist() in [[15, 27], [15, 28], [16, 27], [16, 28]]
    assert places[1].tolist() == [31, 52]
    # However large a plateau is beside the radius, and whatever its shape, it is one.
    ring = np.zeros((50, 70))
    ring[5:45, 5:65] = 1.0
    ring[20:30, 20:50] = 0.0
    assert (find_maxima(ring, 3.0)[1] == 1.0).sum() == 1
    assert len(find_maxima(np.ones((30, 44)), 4.0)[0]) == 1
    assert find_maxima(np.ones((31, 45)), 4.0)[0].tolist() == [[15, 22]]


def test_a_plateau_of_unknown_pixels_is_none():
    values = np.full((20, 30), np.nan)
    assert len(find_maxima(values, 3.0)[0]) == 0
    values[4:8, 10:14] = 1.0
    assert len(find_maxima(values, 3.0)[0]) == 1


def test_the_neighbours_of_a_tile_are_no_detections_of_their_own():
    centres = np.stack(np.meshgrid(np.arange(5), np.arange(4)), axis=-1).reshape(-1, 2) * 100.0
    values = np.zeros(20)
    values[[6, 7, 11, 12]] = (0.9, 0.8, 0.8, 0.7)  # a block of 2 x 2
    chosen = choose_tiles(values, centres, 150.0)
    assert chosen[0] == 6
    assert not {7, 11, 12} & set(chosen.tolist())
    # At just one and a half sides it is not nearer: tiles that overlap by half meet that distance.
    half = np.array([[0.0, 0.0], [50, 0], [100, 0], [150, 0]])
    assert choose_tiles(np.array([4.0, 3, 2, 1]), half, 150.0).tolist() == [0, 3]
    assert choose_tiles(np.zeros(4), half, 150.0).tolist() == [0, 3]


def choose_slowly(values, centres, radius):
    kept = []
    for number in sorted(range(len(values)), key=lambda n: (-values[n], n)):
        if all(np.hypot(*(centres[number] - centres[other])) >= radius for other in kept):
            kept.append(number)
    return kept


def score_slowly(slides):
    """Try every threshold on `(detections, n_lesions)` a slide, a detection being `(value, lesion or None)`."""
    n_lesions = sum(n for _, n in slides)
    scores = []
    for allowed in (0.25, 0.5, 1, 2, 4, 8):
        best = 0
        for threshold in {value for detections, _ in slides for value, _ in detections}:
            over = [[one for one in detections if one[0] >= threshold] for detections, _ in slides]
            false = sum(lesion is None for detections in over for _, lesion in detections)
            hit = sum(len({lesion for _, lesion in detections if lesion is not None}) for detections in over)
            if false / len(slides) <= allowed:
                best = max(best, hit)
        scores.append(best / n_lesions)
    return sum(scores) / 6, scores


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), stride=st.sampled_from([50, 75, 100]), levels=st.sampled_from([3, 12, 10_000]))
def test_froc_over_tiles_is_that_of_every_threshold_tried(seed, stride, levels):
    """Overlapping tiles, ties between and within slides, lesions that several tiles hit."""
    rng = np.random.default_rng(seed)
    judged, slow = [], []
    for number in range(3):
        corners = np.stack(np.meshgrid(np.arange(0, 800, stride), np.arange(0, 500, stride)), axis=-1).reshape(-1, 2)
        corners = corners[rng.random(len(corners)) < 0.8]
        centres = corners + 50.0
        values = rng.integers(0, levels, len(corners)) / levels
        labels = np.zeros((60, 90), dtype=np.int32)
        for lesion in range(number):  # the first slide has none
            labels[10 + 20 * lesion : 25 + 20 * lesion, 12 + 30 * lesion : 40 + 30 * lesion] = lesion + 1
        chosen = choose_tiles(values, centres, 150.0)
        assert chosen.tolist() == choose_slowly(values, centres, 150.0)
        places = (centres[chosen][:, ::-1] // 10).astype(np.int64)
        lesions = Lesions(labels=labels, counted=np.ones(number, dtype=bool))
        judged.append(judge_detections(places, values[chosen], lesions))
        detections = [
            (values[n], int(labels[int(centres[n][1] // 10), int(centres[n][0] // 10)]) or None) for n in chosen
        ]
        slow.append((detections, number))
    score, sensitivities = score_slowly(slow)
    fast = score_froc(judged)
    assert fast.sensitivities == pytest.approx(sensitivities)
    assert fast.score == pytest.approx(score)


def test_a_lesion_hit_twice_counts_once_and_the_second_hit_is_not_false():
    lesions = Lesions(labels=box((40, 60), 5, 5, 30, 40).astype(np.int32), counted=np.array([True]))
    judged = judge_detections(np.array([[10, 10], [30, 40], [2, 2]]), np.array([0.9, 0.8, 0.85]), lesions)
    assert judged.hits.tolist() == [0.9]
    assert judged.false.tolist() == [0.85]
    assert score_froc([judged]).sensitivities == (1.0,) * 6
