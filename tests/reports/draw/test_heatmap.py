"""Attention is laid on the slide where the tiles lie, to the pixel."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.errors import TileError
from lamella.maps import stitch_tiles
from lamella.reports.draw.heatmap import SlideAttention, rank_tiles


def stitch_slowly(values, coords, tile_size, slide_size, shape):
    """The same by a loop over raster pixels and tiles: mean of the tiles, weighted by the area each shares."""
    height, width = shape
    out = np.full(shape, np.nan)
    scale_x, scale_y = slide_size[0] / width, slide_size[1] / height
    for row in range(height):
        for column in range(width):
            total = cover = 0.0
            for value, (x, y) in zip(values, coords, strict=True):
                shared_x = min((column + 1) * scale_x, x + tile_size[0], slide_size[0]) - max(column * scale_x, x, 0)
                shared_y = min((row + 1) * scale_y, y + tile_size[1], slide_size[1]) - max(row * scale_y, y, 0)
                if shared_x > 0 and shared_y > 0:
                    cover += shared_x * shared_y
                    total += shared_x * shared_y * value
            if cover > 1e-6 * scale_x * scale_y:
                out[row, column] = total / cover
    return out


@st.composite
def laid_tiles(draw):
    slide_size = draw(st.tuples(st.integers(7, 60), st.integers(5, 40)))
    shape = draw(st.tuples(st.integers(1, 11), st.integers(1, 13)))
    tile_size = draw(st.tuples(st.floats(1, 30), st.floats(1, 30)))
    n_tiles = draw(st.integers(0, 6))
    corner = st.tuples(st.integers(-3, slide_size[0]), st.integers(-3, slide_size[1]))
    coords = draw(st.lists(corner, min_size=n_tiles, max_size=n_tiles))
    values = draw(st.lists(st.floats(0, 1), min_size=n_tiles, max_size=n_tiles))
    return values, np.array(coords, dtype=np.int64).reshape(-1, 2), tile_size, slide_size, shape


@settings(max_examples=150, deadline=None)
@given(laid_tiles())
def test_stitching_equals_a_loop_over_pixels_and_tiles(tiles):
    fast, slow = stitch_tiles(*tiles), stitch_slowly(*tiles)
    surely = np.isfinite(slow) & np.isfinite(fast)
    # Only slivers about as thin as the threshold may be judged differently.
    assert (np.isfinite(slow) != np.isfinite(fast)).sum() <= 1
    np.testing.assert_allclose(fast[surely], slow[surely], atol=2e-7)


def test_a_tile_fills_exactly_its_pixels_on_a_wide_slide():
    raster = stitch_tiles([0.7], [[30, 4]], (10.0, 4.0), (60, 20), (10, 30))
    expected = np.full((10, 30), np.nan, dtype=np.float32)
    expected[2:4, 15:20] = 0.7
    np.testing.assert_array_equal(raster, expected)


def test_a_pixel_cut_by_two_tiles_weighs_them_by_their_share():
    raster = stitch_tiles([1.0, 3.0], [[0, 0], [9, 0]], (9.0, 6.0), (18, 6), (1, 3))
    np.testing.assert_allclose(raster, [[1.0, 2.0, 3.0]])


def test_tiles_that_tessellate_a_slide_by_fractions_leave_no_seam():
    size = (100 / 7, 60 / 11)
    coords = [[round(x * size[0]), round(y * size[1])] for y in range(11) for x in range(7)]
    raster = stitch_tiles(np.ones(77), coords, (size[0] + 1, size[1] + 1), (100, 60), (37, 53))
    np.testing.assert_allclose(raster, 1.0)


def test_faint_tiles_far_from_a_strong_one_are_neither_negative_nor_lost():
    raster = stitch_tiles([1.0, 1e-15], [[0, 0], [40, 10]], (8.0, 8.0), (64, 32), (32, 64))
    assert np.nanmin(raster) >= 0
    assert np.isfinite(raster).sum() == 128


def test_a_hundred_thousand_overlapping_tiles_stitch_quickly():
    xs, ys = np.meshgrid(np.arange(400) * 112, np.arange(250) * 112)
    coords = np.stack([xs.ravel(), ys.ravel()], axis=1)
    raster = stitch_tiles(np.linspace(0, 1, len(coords)), coords, (224.0, 224.0), (45_000, 28_200), (705, 1125))
    assert np.isfinite(raster).mean() > 0.98


def test_rank_one_is_the_most_attended_and_ties_keep_their_order():
    assert rank_tiles([0.1, 0.4, 0.1, 0.4]).tolist() == [3, 1, 4, 2]


def test_relative_attention_of_even_tiles_is_one():
    tiles = SlideAttention(
        attention=np.full(4, 0.25),
        coords_l0=np.array([[0, 0], [8, 0], [0, 4], [8, 4]]),
        tile_size_l0=(8.0, 4.0),
        slide_size=(16, 8),
        slide_mpp=(0.5, 0.25),
    )
    assert tiles.relative.tolist() == [1, 1, 1, 1]
    assert tiles.slide_um == (8.0, 2.0)


@pytest.mark.parametrize(
    ("attention", "coords", "says"),
    [
        ([], np.empty((0, 2)), "no tiles"),
        ([0.5, np.nan], [[0, 0], [1, 1]], "negative, missing or only zero"),
        ([0.0, 0.0], [[0, 0], [1, 1]], "negative, missing or only zero"),
        ([1.0], [[0, 0], [1, 1]], "the same bag"),
    ],
)
def test_attention_that_cannot_be_drawn_is_refused(attention, coords, says):
    with pytest.raises(TileError, match=says):
        SlideAttention(
            attention=np.array(attention),
            coords_l0=np.asarray(coords),
            tile_size_l0=(4.0, 2.0),
            slide_size=(16, 8),
            slide_mpp=(0.5, 0.5),
        )
