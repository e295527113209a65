"""Specks go and holes close by area, and never a pixel beyond it."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lamella.tissue import draw_tissue, find_tissue_otsu
from lamella.tissue.mask import TissueMask, fill_holes, remove_specks
from lamella.tissue.overlay import OUTLINE
from tests.tissue.drawing import draw_glass, draw_section, frame

law = settings(max_examples=60, deadline=None)
masks = hnp.arrays(bool, st.tuples(st.integers(1, 14), st.integers(1, 14)))


def pieces(mask, connectivity):
    """List the connected pieces of a mask, each as a mask."""
    n_pieces, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=connectivity)
    return [labels == piece for piece in range(1, n_pieces)]


@law
@given(masks, st.integers(0, 8))
def test_exactly_the_pieces_up_to_the_bound_are_removed(mask, max_px):
    left = remove_specks(mask, max_px)
    expected = np.zeros_like(mask)
    for piece in pieces(mask, 8):
        if piece.sum() > max_px:
            expected |= piece
    np.testing.assert_array_equal(left, expected)


@law
@given(masks, st.integers(0, 8))
def test_crumbs_that_lie_near_count_as_one_piece(mask, max_px):
    near = np.ones((3, 3), np.uint8)
    left = remove_specks(mask, max_px, near=near)
    assert not (left & ~mask).any()
    assert not (remove_specks(mask, max_px) & ~left).any()
    for group in pieces(cv2.dilate(mask.astype(np.uint8), near) > 0, 8):
        assert (left & group).any() == ((mask & group).sum() > max_px)


@law
@given(masks, st.integers(0, 8))
def test_exactly_the_enclosed_holes_up_to_the_bound_are_filled(mask, max_px):
    expected = mask.copy()
    for hole in pieces(~mask, 4):
        at_edge = hole[0].any() or hole[-1].any() or hole[:, 0].any() or hole[:, -1].any()
        if hole.sum() <= max_px and not at_edge:
            expected |= hole
    np.testing.assert_array_equal(fill_holes(mask, max_px), expected)


def test_a_hole_that_holds_pen_stays_open():
    mask = np.ones((6, 9), bool)
    mask[2, 2:4] = mask[4, 6] = False
    pen = np.zeros_like(mask)
    pen[2, 3] = True
    filled = fill_holes(mask, 5, never=pen)
    assert not filled[2, 2:4].any()
    assert filled[4, 6]


def test_the_area_counts_both_resolutions():
    mask = np.zeros((10, 20), bool)
    mask[2:4, 3:8] = True
    tissue = TissueMask(mask, (2000, 500), (0.25, 0.5), "glass")
    assert tissue.mask_um == (25.0, 25.0)
    assert tissue.tissue_um2 == pytest.approx(10 * 25 * 25)


def test_the_overlay_keeps_tissue_as_it_is_and_outlines_it():
    picture = draw_glass(120, 200)
    truth = draw_section(picture, (60, 50), (30, 20))
    drawn = draw_tissue(picture, TissueMask(truth, (200, 120), (8.0, 8.0), "glass"))
    assert drawn.dtype == np.uint8
    np.testing.assert_array_equal(drawn[truth], picture[truth])
    outline = (drawn == OUTLINE).all(axis=2)
    assert outline.any()
    assert not (outline & truth).any()
    assert drawn[~truth & ~outline].mean() < picture[~truth].mean() - 30


def test_the_overlay_fits_a_thumbnail_of_another_size():
    mask = np.zeros((6, 10), bool)
    mask[1:3, 2:5] = True
    drawn = draw_tissue(draw_glass(60, 100), TissueMask(mask, (1000, 600), (0.5, 0.5), "glass"))
    assert drawn[10:30, 20:50].min() > 200
    assert drawn[40:, 60:].max() < 200


def test_plain_otsu_takes_what_is_darker_than_its_threshold():
    picture = draw_glass()
    truth = draw_section(picture)
    tissue = find_tissue_otsu(picture, **frame(picture))
    assert tissue.mask[truth].mean() > 0.9
    assert not tissue.mask[~truth].any()
    assert [step.step for step in tissue.ledger] == ["whole slide", "otsu"]
    assert tissue.method == "otsu"


def test_otsu_finds_nothing_on_one_grey_level():
    assert not find_tissue_otsu(np.full((20, 30, 3), 243, np.uint8), slide_size=(30, 20), slide_mpp=(8, 8)).mask.any()
