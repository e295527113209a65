"""Drawn slides: the same each time, seamless, readable, and with lesions where they say."""

import errno
import hashlib
from pathlib import Path

import cv2
import numpy as np
import openslide
import pytest
from numpy.typing import NDArray
from shapely import Polygon, box

from lamella.errors import OutputError, SettingsError
from lamella.samples import SampleSlide, SlideRecipe, draw, draw_slide
from lamella.samples.painter import paint
from lamella.samples.plan import plan_slide

# Wider than high, the lesion off-centre.
RECIPE = SlideRecipe(seed=19, size=(1500, 1080), mpp=0.5, lesion_share=0.045, batch=1)


def draw_region(recipe: SlideRecipe, corner_l0: tuple[int, int], size_px: tuple[int, int]) -> NDArray[np.uint8]:
    """Return a rectangle of the slide as it is before compression, without drawing the rest."""
    return paint(plan_slide(recipe), *draw._find_look(recipe), corner_l0, size_px, recipe.mpp)


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> SampleSlide:
    return draw_slide(tmp_path_factory.mktemp("slides") / "tumour.tiff", RECIPE)


def read_level(path: Path, level: int = 0) -> NDArray[np.uint8]:
    with openslide.OpenSlide(path) as opened:
        return np.asarray(opened.read_region((0, 0), level, opened.level_dimensions[level]).convert("RGB"))


def fill(lesions: tuple[Polygon, ...], shape: tuple[int, int]) -> NDArray[np.bool_]:
    mask = np.zeros(shape, dtype=np.uint8)
    for lesion in lesions:
        cv2.fillPoly(mask, [np.rint(np.array(lesion.exterior.coords)).astype(np.int32)], 1)
    return mask.astype(bool)


def find_dark(pixels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Nuclei take away red light; nothing else but pen does."""
    return np.asarray(pixels[:, :, 0] < 115)


def test_the_same_recipe_draws_the_same_bytes(slide: SampleSlide, tmp_path: Path) -> None:
    again = draw_slide(tmp_path / "again.tiff", RECIPE)
    assert hashlib.sha256(again.path.read_bytes()).digest() == hashlib.sha256(slide.path.read_bytes()).digest()
    assert again.lesions == slide.lesions


def test_another_seed_draws_another_slide(slide: SampleSlide) -> None:
    other = SlideRecipe(seed=13, size=RECIPE.size, lesion_share=0.045, batch=1)
    one, two = draw_region(RECIPE, (480, 400), (320, 240)), draw_region(other, (480, 400), (320, 240))
    assert np.abs(one.astype(int) - two).mean() > 5


def test_the_way_by_a_temporary_file_gives_the_same_bytes(
    slide: SampleSlide, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draw, "_IN_MEMORY_BYTES", 0)
    again = draw_slide(tmp_path / "again.tiff", RECIPE)
    np.testing.assert_array_equal(read_level(again.path), read_level(slide.path))
    assert [path.name for path in tmp_path.iterdir()] == ["again.tiff"]


def test_openslide_reads_resolution_and_pyramid(slide: SampleSlide) -> None:
    with openslide.OpenSlide(slide.path) as opened:
        assert opened.dimensions == (1500, 1080)
        assert float(opened.properties["openslide.mpp-x"]) == pytest.approx(0.5, rel=1e-4)
        assert float(opened.properties["openslide.mpp-y"]) == pytest.approx(0.5, rel=1e-4)
        assert opened.level_downsamples == pytest.approx((1, 2, 4, 8), rel=0.01)


def test_other_resolutions_are_stated_too_and_show_the_same_tissue(tmp_path: Path) -> None:
    fine = SlideRecipe(seed=19, size=(3000, 2160), mpp=0.25, lesion_share=0.045, batch=1)
    region = draw_region(fine, (1000, 800), (640, 480))
    coarse = draw_region(RECIPE, (500, 400), (320, 240))
    shrunk = cv2.resize(region, (320, 240), interpolation=cv2.INTER_AREA)
    both = np.corrcoef(*(cv2.GaussianBlur(part[:, :, 0], (0, 0), 3).ravel() for part in (shrunk, coarse)))
    assert both[0, 1] > 0.9
    drawn = draw_slide(tmp_path / "fine.tiff", SlideRecipe(seed=3, size=(900, 840), mpp=0.25))
    with openslide.OpenSlide(drawn.path) as opened:
        assert float(opened.properties["openslide.mpp-x"]) == pytest.approx(0.25, rel=1e-4)


def test_the_glass_around_the_tissue_is_bright_and_noisy(slide: SampleSlide) -> None:
    pixels = read_level(slide.path)
    for edge in (pixels[:16], pixels[-16:], pixels[:, :16], pixels[:, -16:]):
        assert edge.min() > 220
        assert 0.2 < edge.astype(float).std(axis=(0, 1)).mean() < 3
    tissue = pixels.min(axis=2) < 215
    assert 0.2 < tissue.mean() < 0.7
    assert slide.tissue_px / pixels[:, :, 0].size == pytest.approx(tissue.mean(), abs=0.15)


def test_neighbouring_rectangles_meet_without_a_seam() -> None:
    whole = draw_region(RECIPE, (400, 300), (640, 480)).astype(int)
    part = draw_region(RECIPE, (600, 460), (320, 240)).astype(int)
    difference = np.abs(whole[160:400, 200:520] - part)
    assert difference.max() <= 4
    assert difference.mean() < 0.05


def test_lesions_lie_inside_the_tissue_and_cover_at_most_the_share_asked_for(slide: SampleSlide) -> None:
    assert slide.lesions
    assert 0.03 < slide.lesion_share <= 0.045
    pixels = read_level(slide.path)
    assert all(box(0, 0, 1500, 1080).contains(lesion) for lesion in slide.lesions)
    blurred = cv2.GaussianBlur(pixels, (0, 0), 12).min(axis=2)
    assert (blurred[fill(slide.lesions, pixels.shape[:2])] < 225).all()


@pytest.mark.parametrize("seed", range(6))
def test_no_lesion_covers_more_than_a_twentieth_of_the_tissue(seed: int) -> None:
    recipe = SlideRecipe(seed=seed, size=(2400, 1700), lesion_share=0.05)
    plan = plan_slide(recipe)
    lesions = plan.structures.lesions
    assert len(lesions) > 0
    assert sum(lesions.outline(i, 0.5).area for i in range(len(lesions))) * 0.25 <= 0.05 * plan.tissue_um2


def test_outlines_are_in_register_with_the_dark_nuclei(slide: SampleSlide) -> None:
    dark = find_dark(read_level(slide.path))
    inside = fill(slide.lesions, dark.shape)
    density = dark[inside].mean()
    assert density > 0.25
    assert density > 3 * dark[~inside].mean()
    # Any other way to lay the outlines on the slide finds fewer: mirrored, turned, or a lesion's width away.
    for moved in (inside[:, ::-1], inside[::-1], inside[::-1, ::-1], np.roll(inside, 200, axis=1)):
        assert dark[moved].mean() < 0.85 * density


def test_nuclei_in_lesions_are_larger_than_elsewhere() -> None:
    plan = plan_slide(RECIPE)
    nuclei, lesions = plan.nuclei, plan.structures.lesions
    depth = np.max([lesions.depth(i, nuclei.x_um, nuclei.y_um) for i in range(len(lesions))], axis=0)
    area = nuclei.length_um * nuclei.width_um
    assert area[depth > 0].mean() > 2 * area[depth < 0].mean()


def test_tissue_and_fibres_are_the_same_with_and_without_a_lesion() -> None:
    one, two = plan_slide(RECIPE), plan_slide(SlideRecipe(seed=19, size=(1500, 1080), batch=1))
    assert one.tissue_um2 == two.tissue_um2
    assert one.fibres.courses == two.fibres.courses
    assert one.extra_stain > 0
    assert (len(one.structures.lesions) > 0, len(two.structures.lesions)) == (True, 0)


def test_a_slide_labelled_tumour_always_has_a_lesion(tmp_path: Path) -> None:
    for seed in range(8):
        assert draw_slide(tmp_path / "small.tiff", SlideRecipe(seed=seed, size=(512, 440), lesion_share=0.05)).lesions
    with pytest.raises(SettingsError, match="Ask for a larger slide"):
        draw_slide(tmp_path / "none.tiff", SlideRecipe(seed=1, size=(410, 400), lesion_share=0.0001))


def test_a_pen_marks_the_slide_in_a_colour_that_tissue_lacks() -> None:
    marked = SlideRecipe(seed=19, size=(1500, 1080), batch=1, pen=True)
    plain = SlideRecipe(seed=19, size=(1500, 1080), batch=1)
    difference = draw_region(marked, (0, 0), marked.size).astype(int) - draw_region(plain, (0, 0), plain.size)
    assert 0.005 < (np.abs(difference).max(axis=2) > 40).mean() < 0.2


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(OutputError, match="the disk is full"):
        draw_slide(tmp_path / "slide.tiff", SlideRecipe(seed=1, size=(480, 420)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": (300, 2000)}, "150 um across and needs 200. Ask for at least 400 px"),
        ({"mpp": 40.0}, "Ask for mpp=0.5"),
        ({"lesion_share": 0.2}, "may cover from 0 to 0.05"),
        ({"seed": -1}, "both count from 0"),
    ],
)
def test_recipes_that_cannot_be_drawn_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        SlideRecipe(**({"seed": 1} | changes))  # type: ignore[arg-type]
