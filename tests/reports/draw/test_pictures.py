"""Overlays and sheets: in register, with round scale bars, and without captions where the page writes its own."""

import numpy as np
import pytest
from PIL import Image

from lamella.errors import SettingsError, TileError
from lamella.maps import stitch_tiles
from lamella.reports.draw.heatmap import SlideAttention
from lamella.reports.draw.overlay import OverlayStyle, blend_map, draw_overlay, find_colour_range, fit_thumbnail
from lamella.reports.draw.pictures import choose_scale_bar, find_font, fit_text, load_body, save_picture
from lamella.reports.draw.top_tiles import TopTile, draw_top_tiles, find_top_tiles


def lay(attention, coords, slide_size=(400, 200), tile_size=(40.0, 20.0)):
    return SlideAttention(
        attention=np.array(attention, dtype=float),
        coords_l0=np.array(coords),
        tile_size_l0=tile_size,
        slide_size=slide_size,
        slide_mpp=(0.5, 0.49),
    )


def test_colour_lies_over_the_tile_and_nowhere_else():
    tiles = lay([0.9, 0.1], [[240, 40], [280, 40]])
    panel = np.full((100, 200, 3), (200, 150, 180), dtype=np.uint8)
    style = OverlayStyle()
    values, colour_range = find_colour_range(tiles, style)
    raster = stitch_tiles(values, tiles.coords_l0, tiles.tile_size_l0, tiles.slide_size, panel.shape[:2])
    blended = blend_map(panel, raster, colour_range, style)
    coloured = np.ptp(blended.astype(int), axis=2) > 3
    rows, columns = np.nonzero(coloured)
    assert (rows.min(), rows.max()) == (20, 29)
    # The strong tile is drawn in the map's colours from column 120 on; the weak one is dark and grey.
    assert (columns.min(), columns[rows == 25].min()) == (120, 120)
    grey = blended[0, 0]
    assert grey[0] == grey[1] == grey[2]


def test_the_overlay_shows_the_slide_beside_the_map_at_the_slides_own_proportions():
    tiles = lay([0.6, 0.4], [[240, 40], [40, 160]], slide_size=(400, 300))
    thumbnail = np.zeros((30, 40, 3), dtype=np.uint8)
    picture = draw_overlay(tiles, thumbnail, title="S-1", subtitle="tumour", style=OverlayStyle(panel_px=200))
    left, top, right, bottom = picture.body
    assert picture.rgb.shape[1] > 2 * 200
    assert (right, bottom) == (picture.rgb.shape[1], picture.rgb.shape[0])
    assert 0 < left < 30
    assert 0 < top < 100
    panel = fit_thumbnail(thumbnail, tiles.slide_um, 200)
    assert panel.shape == (147, 200, 3)  # 200 um x 147 um


def test_a_wide_slide_has_its_panels_one_above_the_other():
    wide = lay([1.0], [[240, 40]], slide_size=(4000, 300))
    picture = draw_overlay(wide, np.zeros((30, 400, 3), np.uint8), title="S-1", style=OverlayStyle(panel_px=600))
    assert picture.rgb.shape[1] < 900


def test_even_attention_is_drawn_in_a_middling_colour():
    values, colour_range = find_colour_range(lay([0.5, 0.5], [[0, 0], [40, 20]]), OverlayStyle())
    assert values.tolist() == [1, 1]
    assert (colour_range.low, colour_range.high, colour_range.capped) == (0, 2, False)


def test_rank_fills_the_colours_whatever_the_attention():
    values, colour_range = find_colour_range(
        lay([0.33, 0.34, 0.32, 0.01], [[0, 0], [40, 20], [80, 40], [120, 0]]), OverlayStyle(measure="rank")
    )
    assert values.tolist() == [0.625, 0.875, 0.375, 0.125]
    assert "share of tiles attended less" in colour_range.label


@pytest.mark.parametrize("width_um", [3.0, 97.0, 1_000.0, 8_123.0, 61_000.0])
def test_the_scale_bar_is_round_and_fits(width_um):
    length = choose_scale_bar(width_um)
    assert 0.1 * width_um <= length <= 0.25 * width_um
    assert f"{length:e}"[0] in "125"


def test_a_saved_picture_gives_back_its_body_without_any_of_the_title(tmp_path):
    tiles = lay([0.6, 0.4], [[240, 40], [40, 160]])
    tops = [TopTile(image=np.zeros((20, 40, 3), np.uint8), rank=1, relative=2.0, corner_l0=(0, 0))]
    for kind in ("overlay", "sheet"):
        for number, (title, subtitle) in enumerate([("Jygj Doe", "gjpqy,"), ("", "")]):
            said = {"title": title, "subtitle": subtitle}
            if kind == "overlay":
                picture = draw_overlay(tiles, np.zeros((20, 40, 3), np.uint8), style=OverlayStyle(), **said)
            else:
                picture = draw_top_tiles(tops, tile_um=(20.0, 10.0), **said)
            save_picture(picture, tmp_path / f"{kind}{number}.png")
        named, nameless = tmp_path / f"{kind}0.png", tmp_path / f"{kind}1.png"
        assert (np.asarray(Image.open(named)) != np.asarray(Image.open(nameless))).any()
        np.testing.assert_array_equal(load_body(named), load_body(nameless))
        assert b"Doe" not in named.read_bytes()


def test_a_picture_that_does_not_say_where_its_body_lies_has_none(tmp_path):
    Image.new("RGB", (30, 20)).save(tmp_path / "foreign.png")
    assert load_body(tmp_path / "foreign.png") is None


def test_long_titles_are_cut_to_the_width():
    font = find_font(20)
    text = fit_text("a slide with a very long name\nover two lines", font, 150)
    assert text.endswith("...")
    assert font.getlength(text) <= 150


def test_top_tiles_pass_over_near_repeats():
    tiles = lay([0.4, 0.3, 0.2, 0.1], [[100, 40], [110, 40], [135, 40], [100, 100]])
    assert find_top_tiles(tiles, 3).tolist() == [0, 2, 3]
    assert find_top_tiles(tiles, 3, max_overlap=1.0).tolist() == [0, 1, 2]


def test_a_sheet_holds_every_tile_at_its_own_proportions():
    rng = np.random.default_rng(1)
    tops = [
        TopTile(
            image=rng.integers(0, 255, (49, 50, 3), dtype=np.uint8), rank=n + 1, relative=9.0 - n, corner_l0=(n, 2 * n)
        )
        for n in range(6)
    ]
    sheet = draw_top_tiles(tops, tile_um=(112.0, 110.0), title="S-1", cell_px=100)
    assert sheet.rgb.shape[1] == 2 * 20 + 4 * 100 + 3 * 12
    first = sheet.rgb[80 : 80 + 98, 20:120]
    assert first.std() > 30
    with pytest.raises(TileError, match="has no tiles"):
        draw_top_tiles([], tile_um=(1.0, 1.0), title="S-1")


@pytest.mark.parametrize(
    ("style", "says"),
    [
        ({"colours": "rainbows"}, "no colour map"),
        ({"opacity": 1.5}, "from 0 to 1"),
        ({"measure": "log"}, "'relative' or 'rank'"),
        ({"panel_px": 3}, "at least 64"),
    ],
)
def test_styles_that_cannot_be_drawn_are_refused(style, says):
    with pytest.raises(SettingsError, match=says):
        OverlayStyle(**style)
