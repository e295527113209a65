"""Boxes are read at exactly the asked resolution, whatever levels the slide has."""

import math
import tracemalloc

import numpy as np
import pytest
import pyvips
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lamella.errors import ResolutionError
from lamella.slide import open_slide, resample_box

LANCZOS = Image.Resampling.LANCZOS


def resize_whole(pixels, corner, size_px, factors):
    """Resize a whole image at once and keep one box: the truth that `read_box` is held to."""
    x, y = corner
    box = (x, y, x + size_px[0] * factors[0], y + size_px[1] * factors[1])
    return np.asarray(Image.fromarray(pixels).resize(size_px, LANCZOS, box=box))


def difference(a, b) -> np.ndarray:
    """Absolute difference of two pictures, without wrapping."""
    return np.abs(a.astype(int) - b.astype(int))


@pytest.mark.parametrize("mpp", [0.25, 0.2525, 0.3, 0.5, 0.77, 1.9])
@pytest.mark.parametrize("corner", [(0, 0), (101.37, 53.81), (400, 33)])
def test_a_box_equals_the_whole_image_resized_at_once(flat, scene, mpp, corner):
    factor = mpp / 0.2525
    size_px = int(300 / factor), int(200 / factor)
    with open_slide(flat) as slide:
        box = slide.read_box(corner, size_px, mpp)
    assert box.shape == (size_px[1], size_px[0], 3)
    assert difference(box, resize_whole(scene, corner, size_px, (factor, factor))).max() <= 1


def test_a_box_at_the_far_corner_of_the_slide_sees_no_white(flat, scene):
    factor = 0.5 / 0.2525
    corner, size_px = (1203 - 100 * factor, 707 - 70 * factor), (100, 70)
    with open_slide(flat) as slide:
        box = slide.read_box(corner, size_px, 0.5)
        assert difference(box, resize_whole(scene, corner, size_px, (factor, factor))).max() <= 1
        rounded = slide.read_box(tuple(math.ceil(at) for at in corner), size_px, 0.5)
    assert difference(rounded[-1, -1], box[-1, -1]).max() < 12
    assert rounded[-1, :, 2].mean() == pytest.approx(box[-1, :, 2].mean(), abs=6)


def test_a_box_that_leaves_the_slide_is_white_there(flat, scene):
    with open_slide(flat) as slide:
        box = slide.read_box((1203 - 50, 707 - 30), (100, 60), 0.2525)
    assert (box[:30, :50] == scene[-30:, -50:]).all()
    assert (box[30:] == 255).all()
    assert (box[:, 50:] == 255).all()


def test_pixels_are_copied_where_the_resolution_is_the_slides_own(flat, scene):
    with open_slide(flat) as slide:
        box = slide.read_box((321, 123), (200, 100), 0.2525)
    assert (box == scene[123:223, 321:521]).all()


def test_each_axis_is_resampled_by_its_own_factor(scene, save_tiff):
    path = save_tiff(scene, "uneven.tiff", mpp=(0.25, 0.2525), pyramid=False)
    with open_slide(path) as slide:
        assert slide.mpp == pytest.approx((0.25, 0.2525))
        box = slide.read_box((40.5, 30.25), (260, 150), 0.5)
        level = slide.find_read_level(0.5)
    assert (level.factor_x, level.factor_y) == pytest.approx((2.0, 1.980198))
    assert difference(box, resize_whole(scene, (40.5, 30.25), (260, 150), (2.0, 0.5 / 0.2525))).max() <= 1


@pytest.mark.parametrize(("mpp", "level"), [(0.25, 0), (0.49, 0), (0.5, 1), (0.6, 1), (1.0, 2), (1.99, 2), (2.0, 3)])
def test_the_coarsest_level_that_is_fine_enough_is_read(pyramid, mpp, level):
    with open_slide(pyramid) as slide:
        read = slide.find_read_level(mpp)
        assert read.level == level
        assert read.upsample == 1.0
        assert read.factor_x * read.scale_x == pytest.approx(mpp / 0.25)


@pytest.mark.parametrize("mpp", [0.5, 0.6, 1.0, 1.3, 2.2])
def test_levels_agree_with_each_other_and_lie_in_register(pyramid, flat, scene, mpp):
    corner, size_px = (301.3, 155.7), (int(150 / mpp), int(90 / mpp))
    factor = mpp / 0.25
    truth = resize_whole(scene, corner, size_px, (factor, factor))
    shifted = resize_whole(scene, (corner[0] + factor, corner[1]), size_px, (factor, factor))
    with open_slide(pyramid) as slide:
        seen = slide.read_box(corner, size_px, mpp)
    # levels made by averaging are softer than a Lanczos filter: mean agreement, and far from one pixel aside
    assert difference(seen, truth).mean() < 4
    assert difference(seen, truth).mean() < 0.5 * difference(seen, shifted).mean()


def test_a_level_of_odd_size_keeps_its_scale_to_the_far_edge(scene, save_tiff):
    path = save_tiff(scene, "odd.tiff")
    with open_slide(path) as slide:
        assert slide.level_downsamples == (1, 2, 4, 8, 16)  # 75 x 44 pixels for 1203 x 707, not 16.04 and 16.07
        corner, size_px = (1203 - 16 * 12, 707 - 16 * 9), (24, 18)
        seen = slide.read_box(corner, size_px, 2.0)
    assert difference(seen, resize_whole(scene, corner, size_px, (8, 8))).mean() < 5


def test_a_little_enlargement_is_allowed_and_recorded(flat):
    with open_slide(flat) as slide:
        assert slide.find_read_level(0.25).upsample == pytest.approx(1.01)
        assert slide.read_box((10, 10), (50, 40), 0.25).shape == (40, 50, 3)
        with pytest.raises(ResolutionError):
            slide.find_read_level(0.25, max_upsample=1.0)


def test_a_slide_that_is_too_coarse_is_refused(scene, save_tiff):
    with (
        open_slide(save_tiff(scene, "S-0412.tiff", mpp=(0.5, 0.5), pyramid=False)) as slide,
        pytest.raises(ResolutionError) as caught,
    ):
        slide.read_box((0, 0), (10, 10), 0.25)
    assert str(caught.value) == (
        "tiles are asked for at 0.25 um/px but slide 'S-0412.tiff' stops at 0.50 um/px. Ask for 0.50 or coarser, or "
        "leave that slide out."
    )


@pytest.mark.parametrize("mpp", [0, -0.5, math.nan, math.inf])
def test_a_senseless_resolution_is_refused(flat, mpp):
    with open_slide(flat) as slide, pytest.raises(ResolutionError, match="must be above 0"):
        slide.read_box((0, 0), (10, 10), mpp)


@settings(max_examples=40, deadline=None)
@given(
    corner=st.tuples(st.floats(-30, 1150), st.floats(-30, 690)),
    size=st.tuples(st.integers(1, 90), st.integers(1, 70)),
    mpp=st.floats(0.24, 2.4),
    before=st.tuples(st.floats(0, 200), st.floats(0, 150)),
    after=st.tuples(st.integers(0, 120), st.integers(0, 90)),
)
def test_tiles_cut_from_a_block_equal_tiles_read_alone(pyramid_slide, corner, size, mpp, before, after):
    (x, y), (width, height) = corner, size
    read = pyramid_slide.find_read_level(mpp)
    alone = pyramid_slide.read_box((x, y), (width, height), mpp)
    margin_px = [math.ceil(l0 * 0.25 / mpp) + 1 for l0 in before]
    block = pyramid_slide.read_block(
        (x - before[0], y - before[1]), (width + margin_px[0] + after[0], height + margin_px[1] + after[1]), read
    )
    assert difference(block.cut((x, y), (width, height)), alone).max() <= 1


@pytest.fixture(scope="module")
def pyramid_slide(pyramid):
    """The lossless pyramid, open."""
    with open_slide(pyramid) as slide:
        yield slide


def test_a_tile_outside_its_block_is_refused(pyramid_slide):
    block = pyramid_slide.read_block((100, 100), (50, 40), pyramid_slide.find_read_level(0.25))
    with pytest.raises(ValueError, match="leaves its block"):
        block.cut((160, 100), (50, 40))


def test_a_box_read_in_pieces_has_no_seam(flat, scene, monkeypatch):
    with open_slide(flat) as slide:
        whole = slide.read_box((3.3, 4.4), (400, 200), 0.7)
        monkeypatch.setattr("lamella.slide.slide._MAX_SOURCE_PX", 1 << 15)
        pieces = slide.read_box((3.3, 4.4), (400, 200), 0.7)
    assert difference(whole, pieces).max() <= 1


def test_a_thumbnail_covers_the_slide_exactly(pyramid, flat, scene):
    for path, own in ((pyramid, 0.25), (flat, 0.2525)):
        with open_slide(path) as slide:
            thumbnail = slide.read_thumbnail(4.0)
        width, height = round(1203 * own / 4), round(707 * own / 4)
        assert thumbnail.shape == (height, width, 3)
        truth = np.asarray(Image.fromarray(scene).resize((width, height), LANCZOS))
        assert difference(thumbnail, truth).mean() < (1 if path == flat else 5)
        assert thumbnail[0, 0, 0] > 190 > thumbnail[0, 0, 2]
        assert thumbnail[-1, -1, 2] > 190 > thumbnail[-1, -1, 0]


def test_an_overview_needs_no_resolution(scene, tmp_path):
    Image.fromarray(scene).save(tmp_path / "plain.png")
    with open_slide(tmp_path / "plain.png") as slide:
        assert slide.read_overview((120, 70)).shape == (70, 120, 3)
        with pytest.raises(ResolutionError, match="does not state its resolution"):
            slide.read_thumbnail(4.0)


@pytest.mark.parametrize("corner", [(0.0, 0.0), (37.3, 11.8), (-100.0, -60.0), (283.0, 107.0)])
def test_a_box_much_coarser_than_its_level_keeps_to_the_whole_image_resized(flat, scene, corner):
    framed = np.full((907, 1403, 3), 255, np.uint8)
    framed[100:807, 100:1303] = scene
    with open_slide(flat) as slide:
        box = slide.read_box(corner, (92, 60), 0.2525 * 10)
    truth = resize_whole(framed, (corner[0] + 100, corner[1] + 100), (92, 60), (10, 10))
    assert difference(box, truth)[2:-2, 2:-2].mean() < 1.5
    assert difference(box, np.roll(truth, 1, axis=1))[2:-2, 2:-2].mean() > 6


def test_a_thumbnail_of_a_single_level_is_read_piece_by_piece(tmp_path, monkeypatch):
    monkeypatch.setattr("lamella.slide.slide._MAX_SOURCE_PX", 1 << 19)
    path = tmp_path / "large.tiff"
    image = pyvips.Image.black(4096, 2048, bands=3).copy(interpretation="srgb", xres=4000, yres=4000) + 200
    options = {"tile": True, "tile_width": 256, "tile_height": 256, "compression": "deflate", "resunit": "cm"}
    image.cast("uchar").tiffsave(str(path), **options)
    with open_slide(path) as slide:
        tracemalloc.start()
        thumbnail = slide.read_thumbnail(8.0)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert thumbnail.shape == (64, 128, 3)
    assert (thumbnail == 200).all()
    assert peak < 12e6  # the level has 25 MB of pixels


def test_resample_box_refuses_a_box_outside_its_source():
    source = np.zeros((20, 30, 3), np.uint8)
    for box in ((-1.0, 0.0, 10.0, 10.0), (0.0, 0.0, 30.5, 10.0), (0.0, 5.0, 10.0, 20.1)):
        with pytest.raises(ValueError, match="leaves its source"):
            resample_box(source, box, (5, 5))
    with pytest.raises(ValueError, match="is empty"):
        resample_box(source, (3.0, 3.0, 3.0, 5.0), (5, 5))
