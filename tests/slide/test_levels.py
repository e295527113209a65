"""The scale of a level is the writer's, not size by size, and pixels vouch for it where sizes leave a doubt."""

import numpy as np
import pytest

from lamella.audits.slide import audit_slide
from lamella.cohort import CohortSlide
from lamella.errors import SlideError
from lamella.features.plan import CutSettings, plan_slide
from lamella.slide import levels as levels_module
from lamella.slide import open_slide
from lamella.slide.levels import list_candidates
from lamella.slide.readers import VipsReader
from lamella.tiles import TileSpec
from tests.slide.drawn import draw, pad, shrink, write_levels

CUT = CutSettings(spec=TileSpec(tile_px=112, mpp=0.5))


@pytest.fixture(scope="module")
def drawn():
    return draw()


def plan(path):
    found = plan_slide(CohortSlide(slide_id="s", path=path, patient_id="s"), CUT)
    found.slide.close()
    return found


def levels_of(pixels, factors=(1, 2, 4, 8)):
    return [pixels if factor == 1 else shrink(pixels, factor) for factor in factors]


@pytest.mark.parametrize("side", [256, 512, 1024])
def test_padded_levels_give_the_tiles_of_exact_ones(drawn, tmp_path, side):
    pixels, tissue = drawn
    whole = levels_of(pixels)
    exact = plan(write_levels(tmp_path / "exact.tif", whole))
    padded = plan(write_levels(tmp_path / "padded.tif", [whole[0], *(pad(level, side) for level in whole[1:])]))
    assert len(exact.corners_l0) == 49
    np.testing.assert_array_equal(padded.corners_l0, exact.corners_l0)
    assert min(tissue[y : y + 112, x : x + 112].mean() for x, y in padded.corners_l0) > 0.4
    assert padded.slide.level_downsamples == (1, 2, 4, 8)
    assert padded.slide.level_dimensions == ((2000, 1500), (1000, 750), (500, 375), (250, 188))
    assert "level 2 is padded: 500 x 375 of its" in " ".join(padded.slide.notes)


def test_a_level_says_nothing_of_its_padding(drawn, tmp_path):
    whole = levels_of(drawn[0])
    path = write_levels(tmp_path / "padded.tif", [whole[0], *(pad(level, fill=0) for level in whole[1:])])
    with open_slide(path) as slide:
        assert (slide.read_region((500, 0), 2, (12, 100)) == 255).all()
        thumbnail = slide.read_thumbnail(4.0)
        box = slide.read_box((1400, 980), (64, 48), 2.0)
    assert thumbnail.shape == (188, 250, 3)
    truth = drawn[0][:1496].reshape(187, 8, 250, 8, 3).mean((1, 3))
    assert np.abs(thumbnail[:187] - truth).mean() < 2
    assert thumbnail[-1].mean() > 230  # no black of the padding
    direct = drawn[0][980 : 980 + 192, 1400 : 1400 + 256].reshape(48, 4, 64, 4, 3).mean((1, 3))
    assert np.abs(box - direct).mean() < 1


@pytest.mark.parametrize("factors", [(1, 3, 9), (1, 5), (1, 6, 12)])
def test_whole_numbers_that_are_no_powers_of_two_are_found_under_padding(drawn, tmp_path, factors):
    whole = levels_of(drawn[0], factors)
    with open_slide(write_levels(tmp_path / "p.tif", [whole[0], *(pad(level) for level in whole[1:])])) as slide:
        assert slide.level_downsamples == tuple(map(float, factors))


def test_a_padded_square_slide_is_not_taken_at_its_word(tmp_path):
    # 375 px filled up to 512: both axes agree on 2.93
    pixels, _ = draw(1500, 1500, blobs=((420, 380, 330, 300), (1100, 1050, 280, 330)))
    whole = levels_of(pixels, (1, 4))
    with open_slide(write_levels(tmp_path / "square.tif", [whole[0], pad(whole[1], 512)])) as slide:
        assert slide.level_downsamples == (1, 4)
        assert slide.level_dimensions[1] == (375, 375)


def test_a_fractional_scale_that_pages_state_is_taken(drawn, tmp_path):
    from PIL import Image

    pixels = drawn[0]
    size = round(2000 / 3.2), round(1500 / 3.2)
    small = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX))
    path = write_levels(tmp_path / "stated.tif", [pixels, pad(small)], mpps=(0.5, 1.6))
    with open_slide(path) as slide:
        assert slide.level_downsamples == pytest.approx((1, 3.2))
        assert slide.level_dimensions[1] == (625, 469)


def test_a_fractional_scale_without_padding_stays_what_sizes_say(drawn, tmp_path):
    from PIL import Image

    small = np.asarray(Image.fromarray(drawn[0]).resize((600, 450), Image.Resampling.BOX))
    with open_slide(write_levels(tmp_path / "third.tif", [drawn[0], small])) as slide:
        assert slide.level_downsamples[1] == pytest.approx(10 / 3)
        assert slide.level_dimensions[1] == (600, 450)


def test_a_picture_that_is_no_level_is_refused(drawn, tmp_path):
    other, _ = draw(500, 300, blobs=((300, 140, 130, 110),), seed=3)
    path = write_levels(tmp_path / "thumb.tif", [drawn[0], shrink(drawn[0], 2), other])
    with pytest.raises(SlideError) as caught:
        open_slide(path)
    assert str(caught.value) == (
        "levels of slide 'thumb.tif' do not fit each other: level 2 (500 x 300 px) does not match level 0 (2000 x 1500 "
        "px) at any scale. Rebuild its levels with libvips: vips tiffsave 'thumb.tif' rebuilt.tif --tile "
        "--pyramid --compression jpeg --Q 90 --bigtiff"
    )


def test_a_padded_level_whose_content_is_shifted_is_refused(drawn, tmp_path):
    whole = levels_of(drawn[0], (1, 2, 4))
    shifted = np.roll(pad(whole[2]), (9, 14), axis=(0, 1))
    with pytest.raises(SlideError, match="do not fit each other: level 2"):
        open_slide(write_levels(tmp_path / "shifted.tif", [whole[0], whole[1], shifted]))


def test_the_remedy_makes_a_slide_that_opens_with_the_tiles_it_should_have(drawn, tmp_path):
    import pyvips

    other, _ = draw(500, 300, blobs=((300, 140, 130, 110),), seed=3)
    path = write_levels(tmp_path / "thumb.tif", [drawn[0], other])
    options = {"tile": True, "pyramid": True, "compression": "jpeg", "Q": 90, "bigtiff": True}
    pyvips.Image.new_from_file(str(path)).tiffsave(str(tmp_path / "rebuilt.tif"), **options)
    assert len(plan(tmp_path / "rebuilt.tif").corners_l0) == 49


def test_a_padded_level_0_over_exact_smaller_ones_keeps_tissue_in_place(drawn, tmp_path):
    pixels, tissue = drawn
    whole = levels_of(pixels)
    found = plan(write_levels(tmp_path / "p.tif", [pad(whole[0]), *whole[1:]]))
    assert found.slide.size == (2048, 1536)
    assert found.slide.level_downsamples == (1, 2, 4, 8)
    assert len(found.corners_l0) == 49
    assert min(tissue[y : y + 112, x : x + 112].mean() for x, y in found.corners_l0) > 0.4
    with open_slide(tmp_path / "p.tif") as slide:  # where the small level has no pixel, it is white
        assert (slide.read_box((2016, 100), (4, 30), 4.0) == 255).all()


def test_a_slide_smaller_than_a_tile_keeps_its_scales_under_padding(tmp_path):
    pixels, _ = draw(300, 200, blobs=((130, 90, 90, 60),))
    path = write_levels(tmp_path / "small.tif", [pixels, pad(shrink(pixels, 2)), pad(shrink(pixels, 4))])
    with open_slide(path) as slide:
        assert slide.level_downsamples == (1, 2, 4)
        assert slide.level_dimensions == ((300, 200), (150, 100), (75, 50))


def test_a_level_that_leaves_tissue_out_is_refused(tmp_path):
    pixels, _ = draw(2000, 1500, blobs=((500, 450, 330, 300), (1700, 1050, 280, 330)))
    with pytest.raises(SlideError, match="do not fit each other: level 1"):
        open_slide(write_levels(tmp_path / "cut.tif", [pixels, shrink(pixels, 4)[:, :420]]))


def test_levels_made_by_leaving_pixels_out_fit(tmp_path):
    pixels, _ = draw(1300, 900, blobs=((400, 400, 330, 300),))
    with open_slide(write_levels(tmp_path / "n.tif", [pixels, pad(pixels[::2, ::2]), pad(pixels[::4, ::4])])) as slide:
        assert slide.level_downsamples == (1, 2, 4)


def test_an_empty_slide_with_padded_levels_opens_at_the_next_power_of_two(tmp_path):
    empty = np.full((1500, 2000, 3), 243, np.uint8)
    with open_slide(write_levels(tmp_path / "e.tif", [empty, pad(shrink(empty, 4))])) as slide:
        assert slide.level_downsamples == (1, 4)


def test_ordinary_pyramids_cost_no_pixel(drawn, tmp_path, monkeypatch):
    monkeypatch.setattr(levels_module, "_list_windows", None)  # would raise
    for name, factors in (("a", (1, 2, 4, 8)), ("b", (1, 4, 16))):
        with open_slide(write_levels(tmp_path / f"{name}.tif", levels_of(drawn[0], factors))) as slide:
            assert slide.level_downsamples == factors


def test_audit_says_what_is_padded_and_finds_a_level_that_is_shifted(drawn, tmp_path):
    whole = levels_of(drawn[0], (1, 2, 4))
    padded = write_levels(tmp_path / "padded.tif", [whole[0], pad(whole[1]), pad(whole[2])])
    row = audit_slide(CohortSlide(slide_id="s", path=padded, patient_id="s"), CUT)
    assert row.problems == ()
    assert row.n_tiles == 49
    assert any("level 2 is padded: 500 x 375 of its 512 x 512 px are slide, at a scale of 4" in r for r in row.notes)
    shifted = write_levels(tmp_path / "shifted.tif", [whole[0], whole[1], np.roll(whole[2], 12, axis=1)])
    row = audit_slide(CohortSlide(slide_id="s", path=shifted, patient_id="s"), CUT)
    assert "level 2 (500 x 375 px) is shifted by over 2 px or shows another image" in row.problems[0]
    sound = write_levels(tmp_path / "sound.tif", whole)
    assert audit_slide(CohortSlide(slide_id="s", path=sound, patient_id="s"), CUT).problems == ()


def test_sizes_alone_settle_rounded_pyramids(tmp_path):
    class Sizes(VipsReader):
        def __init__(self, *sizes):
            self.level_dimensions, self.stated_scales = sizes, None

    for sizes, scale in (
        (((300, 250), (37, 31)), 8),
        (((46000, 32914), (2875, 2058)), 16),
        (((1203, 707), (75, 44)), 16),
        (((1203, 707), (76, 45)), 16),
    ):
        assert levels_module.fit_levels(Sizes(*sizes), name="s")[1].scale == (scale, scale)


def test_candidates_begin_with_the_likeliest():
    assert list_candidates((2048, 1536), (256, 256), None)[0] == (8, 8)
    assert list_candidates((2000, 1500), (512, 512), 3.91)[0] == (3.91, 3.91)
    assert (3.91, 3.91) not in list_candidates((2000, 1500), (100, 75), 3.91)  # a level of 1/20 does not have it


def write_philips(path, levels, spacings_mm):
    """Write a Philips TIFF: padded levels whose scales stand in its XML."""
    import tifffile

    def attribute(name, text):
        return f'<Attribute Name="{name}" PMSVR="IString">{text}</Attribute>'

    def spacing(mm):
        return attribute("DICOM_PIXEL_SPACING", f"&quot;{mm}&quot; &quot;{mm}&quot;")

    parts = "".join(
        f'<DataObject ObjectType="PixelDataRepresentation">{spacing(mm)}</DataObject>' for mm in spacings_mm
    )
    inner = attribute("PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE", f"<Array>{parts}</Array>")
    image = f"{attribute('PIM_DP_IMAGE_TYPE', 'WSI')}{spacing(spacings_mm[0])}{inner}"
    images = f'<Array><DataObject ObjectType="DPScannedImage">{image}</DataObject></Array>'
    whole = attribute("PIM_DP_SCANNED_IMAGES", images)
    xml = f'<?xml version="1.0" encoding="UTF-8" ?><DataObject ObjectType="DPUfsImport">{whole}</DataObject>'
    options = {"photometric": "rgb", "tile": (256, 256), "compression": "jpeg", "metadata": None}
    with tifffile.TiffWriter(path) as file:
        for k, level in enumerate(levels):
            description = xml if k == 0 else f"level={k}"
            file.write(level, description=description, software="Philips DP v1.0", subfiletype=1 if k else 0, **options)
    return path


def test_philips_tiff_is_read_at_the_scales_it_states(drawn, tmp_path):
    levels = [pad(level) for level in levels_of(drawn[0])]
    found = plan(write_philips(tmp_path / "p.tiff", levels, (0.0005, 0.001, 0.002, 0.004)))
    assert found.slide.format == "philips"
    assert found.slide.size == (2048, 1536)  # level 0 is padded too, and nothing tells by how much
    assert found.slide.level_downsamples == pytest.approx((1, 2, 4, 8))
    assert len(found.corners_l0) in (49, 50)  # JPEG moves a tile over its threshold
    assert min(drawn[1][y : y + 112, x : x + 112].mean() for x, y in found.corners_l0) > 0.4
