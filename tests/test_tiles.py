"""Tiles lie on the slide, on tissue, and in the right frame."""

import math
import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lamella.errors import SettingsError, TileError
from lamella.tiles import TileSpec, choose_rows, choose_tiles, measure_tissue, place_tiles

law = settings(max_examples=60, deadline=None)
masks = hnp.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))
mpps = st.sampled_from([0.25, 0.2525, 0.5, 0.499, 1.0])


@st.composite
def slides(draw):
    """Draw a mask, a slide that it covers (no multiple of it), resolutions of both axes, and tiles."""
    mask = draw(masks)
    size = (draw(st.integers(20, 200)), draw(st.integers(20, 200)))
    mpp = draw(mpps)
    spec = TileSpec(
        tile_px=draw(st.integers(15, 80)),
        mpp=draw(mpps),
        stride_px=draw(st.none() | st.integers(9, 99)),
        min_tissue=draw(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9])),
    )
    slide_mpp = (mpp, mpp * draw(st.sampled_from([1.0, 0.99, 1.02])))
    assume(all(tile <= extent for tile, extent in zip(spec.tile_size_l0(slide_mpp), size, strict=True)))
    return mask, spec, {"slide_size": size, "slide_mpp": slide_mpp}


def overlap(start, length, n_mask, extent):
    """List how much of each mask pixel along one axis lies in `start` to `start + length`, exactly."""
    pixel = Fraction(extent, n_mask)
    stop = min(start + length, Fraction(extent))
    return [max(min(stop, (i + 1) * pixel) - max(start, i * pixel), Fraction(0)) for i in range(n_mask)]


def share_slowly(mask, corner, tile, size):
    """Measure the share of tissue under one tile in fractions, pixel by pixel."""
    columns = overlap(corner[0], tile[0], mask.shape[1], size[0])
    rows = overlap(corner[1], tile[1], mask.shape[0], size[1])
    covered = sum(rows[i] * sum(columns[j] for j in np.nonzero(mask[i])[0]) for i in range(len(rows)))
    return covered / (sum(rows) * sum(columns))


def place_slowly(mask, spec, slide_size, slide_mpp):
    """Place tiles one at a time; also return those whose share lies at the threshold to the ninth digit."""
    tile, stride = ([Fraction(px * spec.mpp / mpp) for mpp in slide_mpp] for px in (spec.tile_px, spec.stride))
    kept, doubtful = [], []
    y = Fraction(0)
    while y + tile[1] <= slide_size[1] + Fraction(1, 2):
        x = Fraction(0)
        while x + tile[0] <= slide_size[0] + Fraction(1, 2):
            share = share_slowly(mask, (x, y), tile, slide_size)
            corner = (round(float(x)), round(float(y)))
            if abs(share - Fraction(spec.min_tissue)) < Fraction(1, 10**8):
                doubtful.append(corner)
            elif share > spec.min_tissue:
                kept.append(corner)
            x += stride[0]
        y += stride[1]
    return kept, doubtful


@law
@given(slides())
def test_tiles_are_those_of_a_slow_reference(slide):
    mask, spec, frame = slide
    placed = [tuple(corner) for corner in place_tiles(mask, spec, **frame).tolist()]
    kept, doubtful = place_slowly(mask, spec, **frame)
    assert [corner for corner in placed if corner not in doubtful] == [c for c in kept if c not in doubtful]


@law
@given(slides())
def test_every_tile_lies_inside_the_slide(slide):
    mask, spec, frame = slide
    corners = place_tiles(np.ones_like(mask), spec, **frame)
    far = corners + np.array(spec.tile_size_l0(frame["slide_mpp"]))
    assert corners.dtype == np.int64
    assert (corners >= 0).all()
    # Half a pixel of grace for the last tile and half for rounding.
    assert (far <= np.array(frame["slide_size"]) + 1).all()


@law
@given(slides())
def test_turning_the_slide_turns_the_tiles(slide):
    mask, spec, frame = slide
    turned = place_tiles(mask.T, spec, slide_size=frame["slide_size"][::-1], slide_mpp=frame["slide_mpp"][::-1])
    assert sorted(map(tuple, turned[:, ::-1].tolist())) == sorted(map(tuple, place_tiles(mask, spec, **frame).tolist()))


@law
@given(slides(), st.floats(0, 0.99))
def test_a_stricter_threshold_only_removes_tiles(slide, other):
    mask, spec, frame = slide
    loose, strict = sorted([spec.min_tissue, other])
    corners = []
    for min_tissue in (loose, strict):
        changed = TileSpec(tile_px=spec.tile_px, mpp=spec.mpp, stride_px=spec.stride_px, min_tissue=min_tissue)
        corners.append({tuple(corner) for corner in place_tiles(mask, changed, **frame).tolist()})
    assert corners[1] <= corners[0]


@law
@given(slides(), st.data())
def test_less_tissue_only_removes_tiles(slide, data):
    mask, spec, frame = slide
    less = mask & data.draw(hnp.arrays(bool, mask.shape))
    before, after = (set(map(tuple, place_tiles(tissue, spec, **frame).tolist())) for tissue in (mask, less))
    assert after <= before


@law
@given(slides())
def test_all_tissue_keeps_the_whole_grid_and_none_keeps_nothing(slide):
    mask, spec, frame = slide
    tile, stride = spec.tile_size_l0(frame["slide_mpp"]), [spec.stride * spec.mpp / mpp for mpp in frame["slide_mpp"]]
    n_x, n_y = (
        math.floor((extent - side + 0.5) / step) + 1
        for extent, side, step in zip(frame["slide_size"], tile, stride, strict=True)
    )
    assert len(place_tiles(np.ones_like(mask), spec, **frame)) == n_x * n_y
    assert len(place_tiles(np.zeros_like(mask), spec, **frame)) == 0


@law
@given(slides())
def test_shares_lie_between_none_and_all(slide):
    mask, spec, frame = slide
    tile = spec.tile_size_l0(frame["slide_mpp"])
    corners = place_tiles(np.ones_like(mask), spec, **frame)
    inside = corners[(corners + np.array(tile) <= frame["slide_size"]).all(axis=1)]
    shares = measure_tissue(mask, inside, tile, frame["slide_size"])
    assert ((shares >= 0) & (shares <= 1)).all()
    np.testing.assert_allclose(shares + measure_tissue(~mask, inside, tile, frame["slide_size"]), 1, atol=1e-8)


def test_a_mask_pixel_cut_by_a_tile_counts_in_part():
    mask = np.array([[True, False, False], [False, False, True]])  # 30 x 20 level-0 pixels, 10 each
    shares = measure_tissue(mask, np.array([[5, 0], [15, 5]]), (15.0, 10.0), (30, 20))
    np.testing.assert_allclose(shares, [5 / 15, 10 * 5 / 150])


def test_exactly_half_is_not_more_than_half():
    mask = np.array([[True, False, True, True]])
    corners = place_tiles(
        mask, TileSpec(tile_px=20, mpp=0.5, min_tissue=0.5), slide_size=(40, 20), slide_mpp=(0.5, 0.5)
    )
    assert corners.tolist() == [[20, 0]]


def test_corners_do_not_drift_along_a_slide():
    # A tile of 512 px at 0.25 um spans 506.93 level-0 pixels at 0.2525 um: rounded strides would end 27 px off.
    corners = place_tiles(
        np.ones((3, 50), bool), TileSpec(tile_px=512, mpp=0.25), slide_size=(200_000, 4_000), slide_mpp=(0.2525, 0.2525)
    )
    last = corners[:, 0].max()
    n_strides = round(last / 506.93)
    assert abs(last - n_strides * 512 * 0.25 / 0.2525) <= 0.5


def test_a_slide_of_a_whole_number_of_tiles_keeps_the_last_one():
    corners = place_tiles(
        np.ones((2, 3), bool), TileSpec(tile_px=100, mpp=0.3), slide_size=(700, 300), slide_mpp=(0.1, 0.1)
    )
    assert corners.tolist() == [[0, 0], [300, 0]]


def test_axes_of_different_resolution_have_tiles_of_different_sides():
    spec = TileSpec(tile_px=100, mpp=0.5)
    assert spec.tile_size_l0((0.25, 0.5)) == (200.0, 100.0)
    corners = place_tiles(np.ones((4, 6), bool), spec, slide_size=(600, 300), slide_mpp=(0.25, 0.5))
    assert corners.tolist() == [[x, y] for y in (0, 100, 200) for x in (0, 200, 400)]


def test_a_tile_larger_than_the_slide_is_refused_with_the_largest_that_fits():
    with pytest.raises(TileError, match=r"the slide has 3000 x 800. Pass --tile-px 400 or less") as caught:
        place_tiles(np.ones((2, 6), bool), TileSpec(), slide_size=(3000, 800), slide_mpp=(0.25, 0.25))
    fits = int(re.search(r"--tile-px (\d+)", str(caught.value))[1])
    fitting = TileSpec(tile_px=fits, mpp=0.5)
    assert len(place_tiles(np.ones((2, 6), bool), fitting, slide_size=(3000, 800), slide_mpp=(0.25, 0.25))) == 3


@law
@given(st.integers(1, 400), st.integers(1, 400), mpps, mpps)
def test_the_tile_size_that_an_error_names_fits(width, height, slide_mpp, mpp):
    slide = {"slide_size": (width, height), "slide_mpp": (slide_mpp, slide_mpp)}
    try:
        place_tiles(np.ones((2, 3), bool), TileSpec(tile_px=500, mpp=mpp), **slide)
    except TileError as error:
        named = re.search(r"--tile-px (\d+)", str(error))
        spec = TileSpec(tile_px=int(named[1]), mpp=mpp) if named else None
        if spec is None:  # narrower than one pixel of the tile
            spec = TileSpec(tile_px=500, mpp=float(re.search(r"--mpp (\S+) or finer", str(error))[1]))
        assert len(place_tiles(np.ones((2, 3), bool), spec, **slide))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"tile_px": 0}, "tile size is 0 px"),
        ({"mpp": 0.0}, "resolution is 0.0 um/px"),
        ({"mpp": math.nan}, "resolution is nan um/px"),
        ({"mpp": math.inf}, "resolution is inf um/px"),
        ({"stride_px": 0}, "stride is 0 px"),
        ({"min_tissue": 1.0}, "threshold is 1.0"),
        ({"min_tissue": -0.1}, "threshold is -0.1"),
    ],
)
def test_a_spec_that_makes_no_tile_is_refused(wrong, says):
    with pytest.raises(SettingsError, match=re.escape(says)):
        TileSpec(**wrong)


@law
@given(
    corners=hnp.arrays(np.int64, st.tuples(st.integers(1, 40), st.just(2)), elements=st.integers(0, 9), unique=False),
    few=st.integers(1, 12),
    more=st.integers(0, 12),
    seed=st.integers(0, 99),
)
def test_chosen_tiles_are_nested_and_hang_on_their_places_alone(corners, few, more, seed):
    corners = np.unique(corners * 512, axis=0)
    kept, wider = (choose_tiles(corners, n, slide_id="S-1").tolist() for n in (few, few + more))
    assert len(kept) == min(few, len(corners))
    assert set(kept) <= set(wider)
    order = np.random.default_rng(seed).permutation(len(corners))
    shuffled = choose_tiles(corners[order], few, slide_id="S-1")
    assert set(order[shuffled].tolist()) == set(kept)


def test_chosen_tiles_are_spread_farther_apart_than_tiles_drawn_at_random():
    y, x = np.divmod(np.arange(600), 30)
    corners = np.stack([x, y], axis=1)[np.hypot(x - 12, y - 9) < 9.5] * 512

    def gap(rows):
        between = np.linalg.norm(corners[rows][:, None] - corners[rows], axis=2)
        return between[between > 0].min() / 512

    assert gap(choose_tiles(corners, 16, slide_id="S-1")) >= 3.6
    assert gap(choose_rows(len(corners), 16, slide_id="S-1")) < 2.5
    assert choose_tiles(corners, 16, slide_id="S-1").tolist() != choose_tiles(corners, 16, slide_id="S-2").tolist()


def test_two_tiles_of_one_place_are_two():
    corners = np.zeros((5, 2), np.int64)
    assert len(set(choose_tiles(corners, 3, slide_id="S-1").tolist())) == 3


def test_fewer_than_one_tile_a_slide_is_refused():
    with pytest.raises(SettingsError, match="tiles a slide are 0"):
        TileSpec(tiles_per_slide=0)
