"""Resolution comes from the file or the user, and what no scanner has is refused."""

import math

import numpy as np
import pytest
from PIL import Image

from lamella.errors import ResolutionError
from lamella.slide import Resolution, open_slide
from lamella.slide.resolution import check_given_mpp, check_stated_mpp
from lamella.slide.stated import load_ome_images


def test_a_missing_resolution_is_an_error_with_the_remedy():
    with pytest.raises(ResolutionError) as caught:
        check_stated_mpp(None, name="S-0412.svs")
    assert str(caught.value) == (
        "slide 'S-0412.svs' does not state its resolution. If the scanner's value is known, pass --slide-mpp 0.25."
    )


@pytest.mark.parametrize("mpp", [0.0, -0.25, math.nan, math.inf, 0.049, 20.1, 1000.0])
def test_an_implausible_resolution_is_refused_stated_or_given(mpp):
    with pytest.raises(ResolutionError, match=r"between 0\.05 and 20"):
        check_stated_mpp((mpp, mpp), name="S-1.tiff")
    with pytest.raises(ResolutionError, match="is given a resolution of"):
        check_given_mpp(mpp, name="S-1.tiff")


@pytest.mark.parametrize("mpp", [0.05, 0.2525, 20.0])
def test_the_bounds_themselves_are_plausible(mpp):
    assert check_stated_mpp((mpp, mpp), name="S-1.tiff") == Resolution(mpp, mpp, "file")


def test_a_screen_resolution_is_named(shared_data):
    with (
        open_slide(shared_data / "slides" / "openslide-boxes.tiff") as slide,
        pytest.raises(ResolutionError, match=r"352\.778 um/px \(72 dots per inch, a setting for screens"),
    ):
        _ = slide.mpp


def test_axes_may_differ_by_two_per_cent_and_no_more():
    assert check_stated_mpp((0.25, 0.255), name="S-1.tiff").y == 0.255
    with pytest.raises(ResolutionError, match=r"0\.25 um/px along x and 0\.256 along y, 2\.4% apart"):
        check_stated_mpp((0.25, 0.256), name="S-1.tiff")


def test_a_given_resolution_overrides_the_files(shared_data, tmp_path):
    with open_slide(shared_data / "slides" / "CMU-1-Small-Region.svs", slide_mpp=0.263) as slide:
        assert slide.resolution == Resolution(0.263, 0.263, "given")
        assert slide.stated_mpp == (0.499, 0.499)
    with pytest.raises(ResolutionError, match=r"slide 'CMU-1-Small-Region\.svs' is given a resolution of 1000"):
        open_slide(shared_data / "slides" / "CMU-1-Small-Region.svs", slide_mpp=1000)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_plain_image_is_believed_only_in_the_plausible_range(tmp_path, suffix):
    pixels = Image.fromarray(np.full((30, 50, 3), 200, np.uint8))
    pixels.save(tmp_path / f"fine.{suffix}", dpi=(25400, 25400))
    pixels.save(tmp_path / f"screen.{suffix}", dpi=(96, 96))
    with open_slide(tmp_path / f"fine.{suffix}") as slide:
        assert slide.mpp == pytest.approx((1.0, 1.0), rel=1e-4)
    with (
        open_slide(tmp_path / f"screen.{suffix}") as slide,
        pytest.raises(ResolutionError, match="96 dots per inch"),
    ):
        _ = slide.mpp


def test_ome_sizes_without_a_known_unit_are_not_used():
    def read(sizes: str) -> list[tuple[float, float] | None]:
        return [image.mpp for image in load_ome_images(f"<OME><Image><Pixels {sizes}/></Image></OME>")]

    assert read('PhysicalSizeX="250" PhysicalSizeXUnit="nm" PhysicalSizeY="0.5"') == [(0.25, 0.5)]
    assert read('PhysicalSizeX="2" PhysicalSizeY="2"') == [(2.0, 2.0)]
    assert read('PhysicalSizeX="2"') == [None]
    assert read('PhysicalSizeX="2" PhysicalSizeXUnit="pixel" PhysicalSizeY="2"') == [None]
    assert load_ome_images("<OME") == ()
