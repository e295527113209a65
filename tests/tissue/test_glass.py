"""Tissue is what does not look like the scanner's empty glass."""

import time

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.errors import TissueError
from lamella.tiles import TileSpec, place_tiles
from lamella.tissue import find_tissue, find_tissue_otsu, thumbnail_mpp
from lamella.tissue.glass import HOLE_UM2, SPECK_UM2
from tests.tissue.drawing import GLASS, INKS, NUCLEI, UM, draw_glass, draw_section, find, frame, overlap


def test_a_section_on_glass_is_found_and_the_glass_is_not():
    picture = draw_glass()
    truth = draw_section(picture)
    kept, wrong = overlap(find(picture).mask, truth)
    assert kept > 0.99
    assert wrong < 0.005


def test_a_blank_slide_holds_no_tissue():
    for noise in (0.0, 1.0, 3.0):
        tissue = find(draw_glass(noise=noise))
        assert not tissue.mask.any()
        assert [step.step for step in tissue.ledger] == [
            "whole slide",
            "padding",
            "glass",
            "pen",
            "specks",
            "holes filled",
        ]


@pytest.mark.parametrize(
    "colour", [(225, 225, 225), (240, 236, 222), (233, 240, 238), (196, 196, 200), (255, 255, 255)]
)
def test_the_colour_of_glass_is_taken_from_the_slide(colour):
    assert not find(draw_glass(colour=colour)).mask.any()
    picture = draw_glass(colour=colour)
    truth = draw_section(picture)
    kept, wrong = overlap(find(picture).mask, truth)
    assert kept > 0.99
    assert wrong < 0.005


def test_a_blank_slide_with_dust_holds_no_tissue():
    picture = draw_glass()
    rng = np.random.default_rng(3)
    for x, y in rng.integers(10, 140, (25, 2)):
        cv2.circle(picture, (int(x), int(y)), int(rng.integers(1, 4)), (120, 121, 119), -1)
    cv2.line(picture, (30, 20), (90, 35), (150, 150, 151), 1)  # a fibre of half a millimetre
    cv2.circle(picture, (200, 100), 2, (190, 90, 160), -1)  # a crumb of stain
    assert not find(picture).mask.any()


def test_a_lamp_that_fades_across_the_slide_makes_no_tissue():
    picture = draw_glass(200, 400, noise=0)
    truth = draw_section(picture, (260, 90))
    fade = np.linspace(1.0, 0.94, 400)[None, :, None]
    picture = np.clip(picture * fade + np.random.default_rng(0).normal(0, 1, picture.shape), 0, 255).astype(np.uint8)
    kept, wrong = overlap(find(picture).mask, truth)
    assert kept > 0.99
    assert wrong < 0.005


def test_pale_tissue_is_kept_beside_dark_tissue_where_otsu_loses_it():
    picture = draw_glass()
    dark = draw_section(picture, (50, 60), (30, 25))
    pale = draw_section(picture, (150, 90), (45, 30), pale=26)
    tissue = find(picture)
    assert tissue.mask[dark].mean() > 0.99
    assert tissue.mask[pale].mean() > 0.99
    assert find_tissue_otsu(picture, **frame(picture)).mask[pale].mean() < 0.1


def test_a_field_without_glass_is_all_tissue_and_says_so():
    picture = draw_glass(96, 112)
    draw_section(picture, (56, 48), (200, 200))
    for x, y in ((20, 30), (80, 60), (50, 80)):
        cv2.circle(picture, (x, y), 5, (250, 250, 251), -1)  # lumina
    tissue = find(picture)
    assert tissue.mask.all()
    assert tissue.notes == ("no empty glass was found: the whole slide counts as tissue",)


def test_fat_inside_a_section_stays_tissue():
    picture = draw_glass(200, 300)
    truth = draw_section(picture, (120, 90), (90, 60))
    lobe = np.zeros(picture.shape[:2], np.uint8)
    cv2.circle(lobe, (110, 85), 32, 1, -1)
    cells = np.zeros_like(lobe)
    for y in range(40, 130, 11):
        for x in range(60, 160, 11):
            cv2.circle(cells, (x + (y % 2) * 5, y), 5, 1, -1)  # 80 um wide
    picture[(lobe > 0) & (cells > 0)] = (244, 243, 244)
    picture[(lobe > 0) & (cells == 0)] = (232, 212, 226)  # membranes, blurred to one pale pixel
    kept, wrong = overlap(find(picture).mask, truth)
    assert kept > 0.99
    assert wrong < 0.005


def test_a_hole_wider_than_the_bound_stays_open():
    picture = draw_glass(200, 300)
    draw_section(picture, (120, 90), (90, 60))
    small, large = np.zeros((2, 200, 300), np.uint8)
    cv2.circle(small, (80, 70), 8, 1, -1)
    cv2.circle(large, (140, 100), 25, 1, -1)
    assert small.sum() * UM**2 < HOLE_UM2 < large.sum() * UM**2
    picture[(small + large) > 0] = GLASS
    mask = find(picture).mask
    assert mask[small > 0].all()
    assert mask[large > 0].mean() < 0.05


def test_a_picture_dark_where_it_is_empty_holds_no_tissue_and_says_why():
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 6, (150, 220, 3), dtype=np.uint8)
    for x, y in rng.integers(10, 140, (200, 2)):
        cv2.circle(picture, (int(x), int(y)), 2, (5, 8, 240), -1)
    tissue = find(picture)
    assert not tissue.mask.any()
    assert "not brightfield" in tissue.notes[0]
    assert tissue.ledger[-1].step == "not brightfield"


def test_the_ledger_adds_up():
    picture = draw_glass(200, 300)
    draw_section(picture, (120, 90), (90, 60))
    cv2.circle(picture, (100, 80), 8, GLASS, -1)
    cv2.circle(picture, (260, 170), 2, NUCLEI, -1)
    picture[:, :20] = 0
    tissue = find(picture)
    assert tissue.ledger[0].kept_um2 == pytest.approx(200 * 300 * UM**2)
    for before, after in zip(tissue.ledger[:-1], tissue.ledger[1:], strict=True):
        assert after.kept_um2 == pytest.approx(before.kept_um2 - after.removed_um2)
    assert tissue.ledger[-1].kept_um2 == pytest.approx(tissue.tissue_um2)
    removed = {step.step: step.removed_um2 for step in tissue.ledger}
    assert removed["padding"] > 0
    assert 0 < removed["specks"] <= SPECK_UM2
    assert removed["holes filled"] < 0


def draw_random(seed, um=UM):
    """Draw two sections, one pale, a pen stroke and some dust, at a seed's places."""
    rng = np.random.default_rng(seed)
    picture = draw_glass(160, 240, noise=1.5, seed=seed)
    draw_section(picture, tuple(map(int, rng.integers(50, 100, 2))), (40, 25), seed=seed)
    draw_section(picture, (int(rng.integers(150, 200)), int(rng.integers(50, 110))), (30, 40), pale=30, seed=seed)
    cv2.circle(picture, (20, int(rng.integers(20, 140))), 12, INKS["green"], -1)
    for x, y in rng.integers(5, 150, (6, 2)):
        cv2.circle(picture, (int(x), int(y)), 1, (120, 120, 120), -1)
    if um == UM:
        return picture
    side = (round(240 * UM / um), round(160 * UM / um))
    return cv2.resize(picture, side, interpolation=cv2.INTER_CUBIC)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 3), st.booleans())
def test_turning_the_slide_turns_the_mask_and_the_tiles(seed, quarters, mirrored):
    picture = draw_random(seed)
    turned = np.rot90(picture, quarters)
    turned = np.ascontiguousarray(turned[:, ::-1] if mirrored else turned)
    there = np.rot90(find(picture).mask, quarters)
    there = there[:, ::-1] if mirrored else there
    here = find(turned)
    # The estimate of the lamp is in floats, whose sums depend on the order: a pixel at the threshold may flip.
    assert (here.mask != there).mean() < 1e-3
    spec = TileSpec(tile_px=80, mpp=2.0)  # 20 mask pixels; the slide is a whole number of tiles
    tiles = {len(place_tiles(mask, spec, **frame(turned))) for mask in (here.mask, there)}
    assert max(tiles) - min(tiles) <= 1


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000))
def test_the_mask_s_resolution_changes_the_area_by_little(seed):
    areas = [find(draw_random(seed, um), um).tissue_um2 for um in (2.0, 3.5, 8.0)]
    assert max(areas) < 1.03 * min(areas)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 0.9), st.floats(0, 0.9))
def test_stricter_tissue_only_removes_tiles(seed, one, other):
    picture = draw_random(seed)
    loose, strict = sorted([one, other])
    mask = find(picture).mask
    tiles = [
        {
            tuple(corner)
            for corner in place_tiles(mask, TileSpec(tile_px=64, mpp=2.0, min_tissue=share), **frame(picture))
        }
        for share in (loose, strict)
    ]
    assert tiles[1] <= tiles[0]


def test_a_large_thumbnail_takes_well_under_a_second():
    picture = cv2.resize(draw_random(4), (2500, 2000), interpolation=cv2.INTER_CUBIC)
    start = time.process_time()
    find(picture, um=3.5)
    assert time.process_time() - start < 2.0  # 0.4 s on one core at rest


def test_a_thumbnail_that_is_no_rgb_picture_is_refused():
    for wrong in (np.zeros((5, 6), np.uint8), np.zeros((5, 6, 3)), np.zeros((0, 6, 3), np.uint8)):
        with pytest.raises(TissueError, match=r"must be uint8 \(h, w, 3\)"):
            find(wrong)


def test_the_thumbnail_is_a_sixteenth_of_the_tile_between_one_and_eight_um():
    assert thumbnail_mpp(224, 0.25) == 3.5
    assert thumbnail_mpp(32, 0.25) == 1.0
    assert thumbnail_mpp(1024, 1.0) == 8.0


@pytest.mark.parametrize("um", [2.0, 3.5])
def test_real_fields_keep_their_tiles(shared_data, um):
    spec = TileSpec(tile_px=224, mpp=0.25, stride_px=112)
    shares = []
    for path in sorted((shared_data / "ucsb-breast").glob("*.png"))[::3]:
        field = cv2.imread(str(path))[..., ::-1]
        slide = {"slide_size": (field.shape[1], field.shape[0]), "slide_mpp": (0.25, 0.25)}
        size = (round(field.shape[1] * 0.25 / um), round(field.shape[0] * 0.25 / um))
        thumbnail = cv2.resize(field, size, interpolation=cv2.INTER_AREA)
        shares.append(len(place_tiles(find_tissue(thumbnail, **slide).mask, spec, **slide)) / 35)
    assert np.mean(shares) >= 0.75
    assert min(shares) >= 0.25


def test_glass_that_compression_made_flat_is_glass_and_not_padding():
    picture = draw_glass(200, 300, noise=1.0)
    truth = draw_section(picture, (120, 100))
    picture[:, :60][~truth[:, :60]] = GLASS  # quiet up to the tissue's edge
    tissue = find(picture)
    assert tissue.ledger[1].removed_um2 == 0
    assert tissue.mask[truth].mean() > 0.99


def tint(picture, colour):
    """Return what the scanner sees where glass of this colour lies under a picture drawn on glass of `GLASS`."""
    return np.clip(picture * (np.array(colour) / np.array(GLASS)), 0, 255).round().astype(np.uint8)


@pytest.mark.parametrize(
    "colour",
    [
        pytest.param((240, 236, 144), id="yellow, blue at 0.6"),
        pytest.param((240, 236, 168), id="yellow, blue at 0.7"),
        pytest.param((240, 236, 194), id="yellow, blue at 0.82"),
        pytest.param((205, 205, 205), id="grey"),
        pytest.param((148, 148, 148), id="dim"),
        pytest.param((196, 216, 240), id="bluish"),
        pytest.param((244, 228, 196), id="warm"),
        pytest.param((206, 240, 212), id="green"),
        pytest.param((244, 216, 230), id="pink"),
    ],
)
def test_a_slide_on_tinted_glass_is_segmented_as_on_white_glass(colour):
    picture = draw_glass()
    truth = draw_section(picture)
    white = find_tissue(picture, **frame(picture))
    tinted = find_tissue(tint(picture, colour), **frame(picture))
    assert tinted.notes == ()
    assert overlap(white.mask, truth)[0] > 0.97
    assert (tinted.mask ^ white.mask).sum() < 0.01 * white.mask.sum()


def test_a_lamp_that_fades_over_yellow_glass_makes_no_tissue():
    picture = draw_glass()
    truth = draw_section(picture)
    yellow = tint(picture, (240, 236, 160)) * np.linspace(0.94, 1.0, picture.shape[1])[None, :, None]
    found, rest = overlap(find_tissue(yellow.round().astype(np.uint8), **frame(picture)).mask, truth)
    assert found > 0.97
    assert rest < 0.01


def test_grey_dust_on_yellow_glass_is_no_tissue():
    picture = tint(draw_glass(), (240, 236, 160))
    picture[40:52, 100:112] = (picture[40:52, 100:112] * 0.6).astype(np.uint8)
    assert find_tissue(picture, **frame(picture)).tissue_um2 == 0


@pytest.mark.parametrize(
    "colour",
    [
        pytest.param((236, 190, 206), id="eosin"),
        pytest.param((214, 160, 190), id="stroma"),
        pytest.param((240, 198, 190), id="orange eosin"),
        pytest.param((150, 122, 168), id="haematoxylin"),
        pytest.param((120, 190, 215), id="Alcian blue"),
    ],
)
def test_smooth_stain_without_glass_is_not_taken_for_glass(colour):
    picture = draw_glass(colour=colour, noise=2.0)
    tissue = find_tissue(picture, **frame(picture))
    assert "no empty glass was found: the whole slide counts as tissue" in tissue.notes
