"""Every format is opened by the reader that suits it, and pixels come out where they were put."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import pyvips
import tifffile
from PIL import Image

from lamella.errors import SettingsError, SlideError
from lamella.slide import list_formats, list_readers, open_slide
from lamella.slide.readers import convert_to_rgb


def difference(a, b) -> np.ndarray:
    """Absolute difference of two pictures, without wrapping."""
    return np.abs(a.astype(int) - b.astype(int))


def test_an_aperio_slide_says_what_it_is(shared_data):
    with open_slide(shared_data / "slides" / "CMU-1-Small-Region.svs") as slide:
        assert slide.size == (2220, 2967)
        assert slide.format == "aperio"
        assert slide.reader.startswith("libvips")
        assert slide.mpp == (0.499, 0.499)
        assert slide.resolution.source == "file"
        assert slide.magnification == 20.0
        assert slide.associated == ("label", "macro", "thumbnail")


@pytest.mark.parametrize("name", ["CMU-1-Small-Region.svs", "openslide-boxes.tiff", "openslide-small.svs"])
def test_libvips_and_openslide_give_the_same_pixels_of_tiff_slides(shared_data, name):
    path = shared_data / "slides" / name
    with open_slide(path) as fast, open_slide(path, reader="openslide") as slow:
        assert fast.reader.startswith("libvips")
        assert fast.level_dimensions == slow.level_dimensions
        for level, size in enumerate(fast.level_dimensions):
            assert (fast.read_region((0, 0), level, size) == slow.read_region((0, 0), level, size)).all()


def test_full_colour_jpeg_is_read_as_openslide_does(scene, save_tiff):
    path = save_tiff(scene, "full.tiff", compression="jpeg", Q=92)  # libvips subsamples colour below Q 90
    with open_slide(path) as slide, open_slide(path, reader="openslide") as careful:
        assert slide.reader.startswith("libvips")
        assert (slide.read_region((0, 0), 0, slide.size) == careful.read_region((0, 0), 0, slide.size)).all()


def test_subsampled_colour_is_interpolated_as_openslide_does(jpeg_pyramid):
    with open_slide(jpeg_pyramid) as slide, open_slide(jpeg_pyramid, reader="openslide") as careful:
        assert slide.reader.startswith("libvips")
        for level, size in enumerate(slide.level_dimensions):
            assert (slide.read_region((0, 0), level, size) == careful.read_region((0, 0), level, size)).all()


def test_ndpi_is_read_by_openslide_with_all_its_levels(shared_data):
    with open_slide(shared_data / "slides" / "test3-DAPI-2-387.ndpi") as slide:
        assert slide.reader.startswith("openslide")
        assert len(slide.level_dimensions) == 7
        assert slide.mpp == pytest.approx((0.22817506, 0.22817506))


def test_both_files_of_a_dicom_slide_open_and_state_their_resolution(shared_data):
    for name in ("openslide-boxes_0.dcm", "openslide-boxes_1.dcm"):
        with open_slide(shared_data / "slides" / name) as slide:
            assert (slide.format, slide.size, slide.mpp) == ("dicom", (16, 16), (0.499, 0.499))


@pytest.mark.parametrize("compression", ["jpeg", "deflate", "lzw", "none"])
def test_each_ordinary_compression_of_tiff_is_read_by_libvips(scene, save_tiff, compression):
    options = {"Q": 85} if compression == "jpeg" else {}
    with open_slide(save_tiff(scene, f"{compression}.tiff", compression=compression, **options)) as slide:
        assert slide.reader.startswith("libvips")
        assert slide.mpp == pytest.approx((0.25, 0.25))
        assert len(slide.level_dimensions) == 5
        seen = difference(slide.read_region((300, 200), 0, (400, 250)), scene[200:450, 300:700])
        assert seen.max() == 0 or (compression == "jpeg" and seen.mean() < 10)


def test_regions_are_addressed_in_pixels_of_their_level(pyramid, scene):
    half = scene[:706, :1202].reshape(353, 2, 601, 2, 3).mean(axis=(1, 3))
    for reader in ("libvips", "openslide"):
        with open_slide(pyramid, reader=reader) as slide:
            assert slide.level_dimensions[1] == (601, 353)
            region = slide.read_region((201, 103), 1, (77, 55))
            # libvips averages in linear light, so its small levels are a little brighter than a plain mean
            assert difference(region, half[103:158, 201:278]).mean() < 3
            assert difference(region, half[104:159, 201:278]).mean() > 6


def test_openslide_levels_of_odd_size_are_not_blurred_by_half_pixels(pyramid):
    with open_slide(pyramid, reader="openslide") as slow, open_slide(pyramid, reader="libvips") as fast:
        for corner in ((0, 0), (31, 17), (77, 41)):
            slow_seen = slow.read_region(corner, 3, (50, 40))
            assert difference(slow_seen, fast.read_region(corner, 3, (50, 40))).max() <= 2


@pytest.mark.parametrize("reader", ["tifffile", "openslide", "libvips"])
def test_corners_from_an_array_are_taken(pyramid, scene, reader):
    corner, size = np.array([[31, 12]], dtype=np.int64)[0], np.array([40, 20])
    with open_slide(pyramid, reader=reader) as slide:
        assert (slide.read_region(corner, 0, size) == scene[12:32, 31:71]).all()
        assert (slide.read_box(corner, size, 0.25) == scene[12:32, 31:71]).all()
        assert slide.read_box(corner, size, 0.4).shape == (20, 40, 3)


def test_what_lies_outside_the_slide_is_white(pyramid, scene):
    with open_slide(pyramid) as slide:
        region = slide.read_region((-30, -20), 0, (100, 60))
        assert (region[:20] == 255).all()
        assert (region[:, :30] == 255).all()
        assert (region[20:, 30:] == scene[:40, :70]).all()
        assert (slide.read_region((5000, 5000), 0, (7, 3)) == 255).all()


def test_tiles_that_were_never_scanned_are_white(scene, jpeg_pyramid, tmp_path):
    content = bytearray(jpeg_pyramid.read_bytes())
    with tifffile.TiffFile(jpeg_pyramid) as tiff:
        for name in ("TileOffsets", "TileByteCounts"):
            tag = tiff.pages[0].tags[name]
            n_bytes = tag.dtype.itemsize if hasattr(tag.dtype, "itemsize") else {3: 2, 4: 4, 16: 8}[int(tag.dtype)]
            content[tag.valueoffset + n_bytes : tag.valueoffset + 2 * n_bytes] = bytes(n_bytes)
    path = tmp_path / "sparse.tiff"
    path.write_bytes(content)
    with open_slide(path) as slide:
        region = slide.read_region((100, 10), 0, (200, 60))
    assert (region[:, 28:156] == 255).all()
    assert difference(region[:, :28], scene[10:70, 100:128]).mean() < 10


def test_ome_tiff_states_its_resolution_in_whatever_unit(scene, tmp_path):
    path = tmp_path / "scan.ome.tiff"
    sizes = {"PhysicalSizeX": 0.0005, "PhysicalSizeXUnit": "mm", "PhysicalSizeY": 502.0, "PhysicalSizeYUnit": "nm"}
    with tifffile.TiffWriter(path) as tiff:
        options = {"photometric": "rgb", "tile": (128, 128), "compression": "zlib"}
        tiff.write(scene, subifds=1, metadata={"axes": "YXS", **sizes}, **options)
        tiff.write(scene[::2, ::2].copy(), subfiletype=1, **options)
    with open_slide(path) as slide:
        assert slide.mpp == pytest.approx((0.5, 0.502))
        assert (slide.read_region((40, 30), 0, (300, 200)) == scene[30:230, 40:340]).all()
        assert len(slide.level_dimensions) == 2
        assert (slide.read_region((40, 30), 1, (100, 70)) == scene[60:200:2, 80:280:2]).all()


def test_resolution_tags_in_inches_are_understood(scene, save_tiff):
    path = save_tiff(scene, "inch.tiff", mpp=(0.4, 0.4), resunit="inch")
    with open_slide(path) as slide:
        assert slide.mpp == pytest.approx((0.4, 0.4), rel=1e-5)


@pytest.mark.parametrize("name", ["strips.tiff", "plain.png", "plain.jpg"])
def test_plain_images_open_by_libvips_without_a_resolution(scene, tmp_path, name):
    path = tmp_path / name
    if name.endswith("jpg"):
        Image.fromarray(scene).save(path, quality=95, subsampling=0)
    else:
        Image.fromarray(scene).save(path)
    with open_slide(path) as slide:
        assert slide.reader.startswith("libvips")
        assert slide.stated_mpp is None
        assert slide.size == (1203, 707)
        seen = difference(slide.read_region((700, 100), 0, (300, 200)), scene[100:300, 700:1000])
        assert seen.max() <= (20 if name.endswith("jpg") else 0)


def test_png_of_every_kind_becomes_8_bit_rgb_on_white(scene, tmp_path):
    grey = scene[:, :, 0]
    deep = grey.astype(np.uint16) * 257
    clear = np.dstack([scene, np.where(np.arange(1203) < 600, 255, 0)[None, :].repeat(707, 0)]).astype(np.uint8)
    for number, pixels in enumerate((grey, deep, clear, np.dstack([deep, deep // 2, deep // 4]))):
        kind = {0: "b-w", 1: "grey16", 2: "srgb", 3: "rgb16"}[number]
        pyvips.Image.new_from_array(pixels).copy(interpretation=kind).pngsave(str(tmp_path / f"{number}.png"))
    shown = []
    for number in range(4):
        with open_slide(tmp_path / f"{number}.png") as slide:
            shown.append(slide.read_region((0, 0), 0, slide.size))
            assert shown[-1].shape == (707, 1203, 3)
    assert (shown[0] == grey[:, :, None]).all()
    assert (shown[1] == grey[:, :, None]).all()
    assert (shown[2][:, :600] == scene[:, :600]).all()
    assert (shown[2][:, 600:] == 255).all()
    assert difference(shown[3][:, :, 1], grey // 2).max() <= 1


def test_exif_orientation_is_not_applied_and_this_is_said(scene, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(scene).save(tmp_path / "turned.jpg", exif=exif)
    with open_slide(tmp_path / "turned.jpg") as slide:
        assert slide.size == (1203, 707)
        assert slide.notes == ("EXIF orientation 6 is not applied: pixels are as stored",)


def test_channels_become_rgb():
    depth = np.arange(6, dtype=np.uint16).reshape(2, 3) * 1000
    assert (convert_to_rgb(depth, (3, 2), name="x")[:, :, 2] == depth >> 8).all()
    stack = np.stack([np.full((2, 3), value, np.uint8) for value in (200, 10, 20, 100, 5)])
    assert convert_to_rgb(stack, (3, 2), name="x")[0, 0].tolist() == [255, 15, 20]
    with pytest.raises(SlideError, match="were asked for"):
        convert_to_rgb(stack, (4, 2), name="x")


@pytest.mark.parametrize("reader", ["tifffile", "openslide", "libvips"])
def test_threads_read_the_same_as_one_alone(jpeg_pyramid, reader):
    with open_slide(jpeg_pyramid, reader=reader) as slide:
        boxes = [((37 * i) % 900, (53 * i) % 500) for i in range(40)]
        alone = [slide.read_region(corner, 0, (200, 150)) for corner in boxes]
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(lambda corner: slide.read_region(corner, 0, (200, 150)), boxes))
    assert all((a == b).all() for a, b in zip(alone, together, strict=True))


def test_a_closed_slide_says_so(pyramid):
    slide = open_slide(pyramid)
    slide.close()
    slide.close()
    with pytest.raises(SlideError, match=r"slide 'pyramid\.tiff' is closed"):
        slide.read_region((0, 0), 0, (1, 1))


def test_readers_are_listed_with_their_versions():
    assert [reader.name for reader in list_readers()] == ["fastslide", "openslide", "libvips", "tifffile", "zarr"]
    assert all(reader.version and reader.formats for reader in list_readers())
    assert {".svs", ".ndpi", ".vms", ".mrxs", ".tiff", ".dcm", ".png", ".jpg"} <= set(list_formats())


def test_fastslide_which_a_broken_jpeg_ends_is_given_no_tiff(pyramid: Path):
    with pytest.raises(SlideError, match=r"slide 'pyramid\.tiff' cannot be read by fastslide\. Let Lamella choose"):
        open_slide(pyramid, reader="fastslide")


def test_an_unknown_reader_is_refused(pyramid: Path):
    with pytest.raises(SettingsError, match="no reader is called 'bioformats'"):
        open_slide(pyramid, reader="bioformats")
