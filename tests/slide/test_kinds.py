"""What a file says of its images, its resolution and its damage is believed; what it does not say is not made up."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from lamella.errors import SlideError
from lamella.slide import open_slide
from tests.slide.format_matrix import GREY, SCENE

TILES, STRIPS = {"tile": (64, 48)}, {"rowsperstrip": 40}


def read_all(path: Path, **options) -> np.ndarray:
    """All of level 0."""
    with open_slide(path, **options) as slide:
        return slide.read_region((0, 0), 0, slide.size)


def stated(path: Path) -> tuple[float, float] | None:
    """What a file states of its resolution."""
    with open_slide(path) as slide:
        return slide.stated_mpp


@pytest.mark.parametrize("layout", [TILES, STRIPS])
@pytest.mark.parametrize("codec", ["none", "lzw", "zlib", "zstd", "jpeg"])
@pytest.mark.parametrize(
    ("unit", "resolution", "expected"),
    [
        (1, (20000, 20000), None),
        (1, (2, 2), None),
        (3, (1, 1), None),
        (2, (1, 1), None),
        (3, (20000, 40000), (0.5, 0.25)),
        (2, (50800, 50800), (0.5, 0.5)),
    ],
)
def test_a_resolution_counts_only_with_a_unit(tmp_path, layout, codec, unit, resolution, expected):
    where = {"rowsperstrip": 48} if codec == "jpeg" and "tile" not in layout else layout
    options = {"photometric": "rgb", "compression": codec, "metadata": None, **where}
    tifffile.imwrite(tmp_path / "x.tiff", SCENE, resolution=resolution, resolutionunit=unit, **options)
    assert stated(tmp_path / "x.tiff") == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(("unit", "um"), [("um", 1), ("micron", 1), ("mm", 1000), ("pixel", None), ("", None)])
def test_imagej_states_its_unit_in_words(tmp_path, unit, um):
    tifffile.imwrite(tmp_path / "x.tif", SCENE, imagej=True, resolution=(4, 2), metadata={"unit": unit})
    assert stated(tmp_path / "x.tif") == (None if um is None else pytest.approx((um / 4, um / 2)))


def write_planes(path: Path, planes: np.ndarray, **metadata) -> Path:
    """An OME-TIFF of grey planes."""
    options = {"photometric": "minisblack", "compression": "zlib", **TILES}
    tifffile.imwrite(path, planes, ome=True, metadata={"axes": "CYX", **metadata}, **options)
    return path


def test_grey_planes_are_colour_where_they_say_so_or_say_nothing(tmp_path):
    planes = np.moveaxis(SCENE, 2, 0).copy()
    for number, (given, metadata) in enumerate(
        [
            (planes, {"Channel": {"Name": ["Red", "Green", "Blue"]}}),
            (planes[::-1].copy(), {"Channel": {"Name": ["B", "G", "R"]}}),
            (planes, {}),
        ]
    ):
        path = write_planes(tmp_path / f"{number}.ome.tif", given, **metadata)
        assert (read_all(path) == SCENE).all()
        with open_slide(path) as slide:
            assert "read as red, green and blue" in slide.notes[0]


def test_fluorescence_is_read_as_grey_and_this_is_noted(tmp_path):
    planes = np.moveaxis(SCENE, 2, 0).copy()
    path = write_planes(tmp_path / "f.ome.tif", planes, Channel={"Name": ["DAPI", "FITC", "Cy3"]})
    assert (read_all(path) == SCENE[:, :, :1]).all()
    with open_slide(path) as slide:
        assert slide.notes == ("channel 1 ('DAPI') of 3 is read as grey; the others are not read",)


def write_several(path: Path) -> Path:
    """A TIFF of a small image, the scan, and a large grey one."""
    with tifffile.TiffWriter(path) as tiff:
        for pixels in (SCENE[:50, :90].copy(), SCENE, np.full((300, 400), 99, np.uint8)):
            photometric = "rgb" if pixels.ndim == 3 else "minisblack"
            tiff.write(pixels, photometric=photometric, compression="zlib", metadata=None, **TILES)
    return path


def test_of_several_images_the_largest_in_colour_is_read_or_the_one_asked_for(tmp_path):
    path = write_several(tmp_path / "several.tiff")
    assert (read_all(path) == SCENE).all()
    assert (read_all(path, image=1) == SCENE[:50, :90]).all()
    assert (read_all(path, image="3") == 99).all()
    with open_slide(path) as slide:
        assert "image 2 of 3 is read" in slide.notes[0]
        assert "1 (90 x 50); 2 (211 x 133); 3 (400 x 300, grey)" in slide.notes[0]
    with pytest.raises(SlideError, match=r"asked for image '4' and has no such image: it holds 1 \(90 x 50\)"):
        open_slide(path, image=4)


def test_two_images_of_one_size_are_not_mixed_up(tmp_path):
    other = SCENE[::-1].copy()
    with tifffile.TiffWriter(tmp_path / "x.tiff") as tiff:
        for pixels in (other, SCENE):
            tiff.write(pixels, photometric="rgb", compression="zlib", metadata=None, **TILES)
    assert (read_all(tmp_path / "x.tiff", image=1) == other).all()
    assert (read_all(tmp_path / "x.tiff", image=2) == SCENE).all()


def test_values_beyond_the_depth_that_was_inferred_are_an_error(tmp_path):
    values = SCENE.astype(np.uint16) * 16
    small = values[::4, ::4].copy()
    values[5, 6] = 60000
    with tifffile.TiffWriter(tmp_path / "x.tiff") as tiff:
        options = {"photometric": "rgb", "compression": "zlib", "metadata": None, **TILES}
        tiff.write(values, **options)
        tiff.write(small, subfiletype=1, **options)
    with pytest.raises(SlideError, match=r"uses 12 and a tile holds 60,000"):
        read_all(tmp_path / "x.tiff")


def test_12_bits_in_a_png_are_scaled_by_their_largest_value(tmp_path):
    values = (GREY.astype(np.uint32) * 4095 // 255).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "x.png")
    assert np.abs(read_all(tmp_path / "x.png")[:, :, 0].astype(int) - GREY).max() <= 1


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("damage", ["noise", "end", "cut"])
def test_a_jpeg_that_its_decoder_warns_of_is_refused(tmp_path, progressive, damage):
    Image.fromarray(SCENE).save(tmp_path / "x.jpg", quality=90, progressive=progressive)
    content = bytearray((tmp_path / "x.jpg").read_bytes())
    half = len(content) * 2 // 3
    if damage == "noise":
        content[half : half + 40] = b"\xff\xc4" * 20
    elif damage == "end":
        content[half : half + 2] = b"\xff\xd9"
    else:
        del content[half:]
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(SlideError, match=r"slide 'x\.jpg' cannot be read"):
        read_all(tmp_path / "x.jpg")


def test_what_follows_the_end_of_a_jpeg_or_png_does_no_harm(tmp_path):
    for name in ("x.jpg", "x.png"):
        Image.fromarray(SCENE).save(tmp_path / name)
        with (tmp_path / name).open("ab") as stream:
            stream.write(b"more" * 50)
        assert read_all(tmp_path / name).shape == SCENE.shape


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_png_with_a_wrong_checksum_is_refused(tmp_path, share):
    Image.fromarray(SCENE).save(tmp_path / "x.png")
    content = bytearray((tmp_path / "x.png").read_bytes())
    start = content.index(b"IDAT") + 4
    length = int.from_bytes(content[start - 8 : start - 4], "big")
    content[start + int(share * length)] ^= 0x55
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(SlideError, match=r"slide 'x\.png' cannot be read"):
        read_all(tmp_path / "x.png")


@pytest.mark.parametrize("codec", ["jpeg2000", "jpegxl", "zstd", "lzma", "png", "webp"])
def test_a_damaged_tile_of_any_codec_is_refused_by_its_name(tmp_path, codec):
    noise = np.random.default_rng(5).integers(0, 256, SCENE.shape, dtype=np.uint8)
    path = tmp_path / "x.tiff"
    tifffile.imwrite(path, noise, photometric="rgb", compression=codec, metadata=None, **TILES)
    with tifffile.TiffFile(path) as tiff:
        at, n_bytes = tiff.pages[0].dataoffsets[0], tiff.pages[0].databytecounts[0]
    content = bytearray(path.read_bytes())
    content[at : at + n_bytes // 2] = bytes(n_bytes // 2)
    path.write_bytes(content)
    with pytest.raises(SlideError, match="does not decode"):
        read_all(path)


def test_a_codec_that_no_reader_has_is_refused_by_its_name(tmp_path):
    path = tmp_path / "x.tiff"
    tifffile.imwrite(path, SCENE, photometric="rgb", compression="none", metadata=None, **TILES)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.pages[0].tags["Compression"].overwrite(32909)
    with pytest.raises(SlideError, match="is compressed by PIXARLOG, which no reader here decodes"):
        open_slide(path)
