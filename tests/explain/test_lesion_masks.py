"""Masks of every kind mark the same lesion, and those that do not say what is lesion are refused."""

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from lamella.errors import CohortError, SettingsError, TissueError
from lamella.explain import lesion_masks
from lamella.explain.lesion_masks import load_mask
from lamella.explain.outlines import LesionFolder

SLIDE = (1600, 1200)
SHAPE = (300, 400)
LESION = np.zeros(SHAPE, dtype=bool)
LESION[75:150, 100:200] = True
GREY = LESION.astype(np.uint8)


def colour(rgb, ground=(0, 0, 0)):
    return np.where(LESION[..., None], np.uint8(rgb), np.uint8(ground)).astype(np.uint8)


def palette(path, entries, *, lesion=1, **options):
    """Save a palette image in which lesions are one entry and the ground is the other of 0 and 1."""
    image = Image.fromarray(np.where(LESION, lesion, 1 - lesion).astype(np.uint8))
    image.putpalette([band for entry in entries for band in entry] + [0, 0, 0] * (256 - len(entries)))
    image.save(path, **options)


def pyramid(path, mask, **options):
    with tifffile.TiffWriter(path) as writer:
        writer.write(mask, subifds=2, tile=(64, 64), **options)
        for step in (2, 4):
            writer.write(mask[::step, ::step], subfiletype=1, tile=(64, 64), **options)


def drop_tiles(path):
    """Save a TIFF some of whose tiles are not stored."""
    tiles = (GREY[y : y + 64, x : x + 64] for y in range(0, 300, 64) for x in range(0, 400, 64))
    padded = (np.pad(tile, ((0, 64 - tile.shape[0]), (0, 64 - tile.shape[1]))) for tile in tiles)
    stored = (tile.tobytes() if tile.any() else b"" for tile in padded)
    tifffile.imwrite(path, stored, shape=SHAPE, dtype=np.uint8, tile=(64, 64))


KINDS = {
    "grey.png": lambda p: Image.fromarray(GREY * 255).save(p),
    "ones.png": lambda p: Image.fromarray(GREY).save(p),
    "one-bit.png": lambda p: Image.fromarray(LESION).save(p),
    "deep.png": lambda p: cv2.imwrite(str(p), LESION.astype(np.uint16) * 256),
    "red.png": lambda p: Image.fromarray(colour((255, 0, 0))).save(p),
    "green.png": lambda p: Image.fromarray(colour((0, 255, 0))).save(p),
    "dark-blue.png": lambda p: Image.fromarray(colour((0, 0, 1))).save(p),
    "deep-blue.png": lambda p: cv2.imwrite(str(p), np.dstack([LESION, 0 * GREY, 0 * GREY]).astype(np.uint16) * 65535),
    "transparent.png": lambda p: Image.fromarray(
        np.dstack([colour((255, 255, 255), (255, 255, 255)), GREY * 255])
    ).save(p),
    "black-on-transparent.png": lambda p: Image.fromarray(np.dstack([colour((0, 0, 0)), GREY * 255])).save(p),
    "opaque.png": lambda p: Image.fromarray(np.dstack([colour((0, 255, 0)), GREY * 0 + 255])).save(p),
    "grey-and-alpha.png": lambda p: Image.fromarray(np.dstack([GREY * 0 + 7, GREY * 255])).save(p),
    "palette-green.png": lambda p: palette(p, [(0, 0, 0), (0, 200, 0)]),
    "palette-turned.png": lambda p: palette(p, [(200, 0, 0), (0, 0, 0)], lesion=0),
    "palette-without-colours.png": lambda p: palette(p, [(0, 0, 0), (0, 0, 0)]),
    "palette-transparent.png": lambda p: palette(p, [(255, 255, 255), (255, 0, 0)], transparency=0),
    "palette.bmp": lambda p: palette(p, [(0, 0, 0), (0, 0, 200)]),
    "colour.bmp": lambda p: Image.fromarray(colour((0, 0, 255))).save(p),
    "bool.tif": lambda p: tifffile.imwrite(p, LESION),
    "min-is-white.tif": lambda p: tifffile.imwrite(p, GREY * 255, photometric="miniswhite"),
    "float.tif": lambda p: tifffile.imwrite(p, LESION.astype(np.float32)),
    "deep.tif": lambda p: tifffile.imwrite(p, LESION.astype(np.uint16) * 300, compression="deflate"),
    "signed.tif": lambda p: tifffile.imwrite(p, LESION.astype(np.int32)),
    "planar.tif": lambda p: tifffile.imwrite(p, np.moveaxis(colour((0, 255, 0)), 2, 0), photometric="rgb"),
    "colour.tif": lambda p: tifffile.imwrite(p, colour((0, 9, 0)), photometric="rgb", tile=(64, 64), compression="lzw"),
    "palette.tif": lambda p: tifffile.imwrite(
        p,
        GREY,
        photometric="palette",
        colormap=np.array([[0, 0] + [0] * 254, [0, 51200] + [0] * 254, [0] * 256], np.uint16),
    ),
    "jpeg2000.tif": lambda p: tifffile.imwrite(p, GREY * 255, tile=(256, 256), compression="jpeg2000"),
    "pyramid.tiff": lambda p: pyramid(p, GREY, compression="zlib"),
    "averaged-pyramid.tif": lambda p: pyramid(p, GREY * 255),
    "strips.TIF": lambda p: tifffile.imwrite(p, GREY * 255, rowsperstrip=7, compression="packbits"),
    "sparse.tif": drop_tiles,
    "jpeg2000.jp2": lambda p: p.write_bytes(imagecodecs.jpeg2k_encode(GREY * 255)),
    "colour.jp2": lambda p: p.write_bytes(imagecodecs.jpeg2k_encode(colour((0, 0, 255)), level=0)),
}


@pytest.mark.parametrize("name", KINDS)
def test_masks_of_every_kind_mark_the_same_lesion(tmp_path, name, monkeypatch):
    KINDS[name](tmp_path / name)
    np.testing.assert_array_equal(load_mask(tmp_path / name, SLIDE)[0](SHAPE), LESION)
    # The same where the mask is larger than what is kept of it, which blocks do not fall in line with.
    monkeypatch.setattr(lesion_masks, "_LONG_PX", 80)
    monkeypatch.setattr(lesion_masks, "_STRIP_PX", 33)
    shrunk = load_mask(tmp_path / name, SLIDE)[0]((60, 80))
    np.testing.assert_array_equal(shrunk, LESION[2::5, 2::5])


def test_label_images_have_to_be_told_what_is_lesion(tmp_path):
    labels = np.where(LESION, 2, 1).astype(np.uint8)
    labels[:50] = 0
    labels[-50:] = 3
    Image.fromarray(labels).save(tmp_path / "grey.png")
    tifffile.imwrite(tmp_path / "deep.tif", labels.astype(np.uint16), tile=(128, 128))
    image = Image.fromarray(labels)
    image.putpalette([0, 0, 0, 0, 255, 0, 255, 0, 0, 0, 0, 255] + [0] * 756)
    image.save(tmp_path / "palette.png")
    for name in ("grey.png", "deep.tif", "palette.png"):
        path = tmp_path / name
        with pytest.raises(TissueError, match=r"holds the values 0, 1, 2, 3, so it is not clear .*--lesion-value"):
            load_mask(path, SLIDE)
        np.testing.assert_array_equal(load_mask(path, SLIDE, ["2"])[0](SHAPE), LESION)
        both = load_mask(path, SLIDE, ["2", "3"])[0](SHAPE)
        assert both.mean() == pytest.approx(LESION.mean() + 50 / 300)
        with pytest.raises(TissueError, match="holds the values 0, 1, 2, 3 and no 7"):
            load_mask(path, SLIDE, ["7"])


def test_colours_can_be_chosen(tmp_path):
    picture = colour((0, 200, 0))
    picture[:50] = (200, 0, 0)
    Image.fromarray(picture).save(tmp_path / "two.png")
    with pytest.raises(TissueError, match="the values 0, #00c800, #c80000"):
        load_mask(tmp_path / "two.png", SLIDE)
    np.testing.assert_array_equal(load_mask(tmp_path / "two.png", SLIDE, ["#00C800"])[0](SHAPE), LESION)
    for wrong in ("green", "-1", "#00c80", "2.5", ""):
        with pytest.raises(SettingsError, match="must be a whole number or a colour"):
            load_mask(tmp_path / "two.png", SLIDE, [wrong])


@pytest.mark.parametrize(
    ("pixels", "says"),
    [
        (GREY * 0, "marks no lesion: it holds the value 0 only"),
        (GREY * 0 + 255, "marks the whole slide as lesion: it holds the value 255"),
        (GREY + 1, "holds the values 1, 2, so it is not clear"),
        (colour((255, 0, 0), (255, 255, 255)), "holds the values 255, #ff0000, so it is not clear"),
        (np.arange(SHAPE[0] * SHAPE[1]).reshape(SHAPE).astype(np.uint8), "more than 64 values"),
    ],
)
def test_a_mask_that_does_not_say_where_the_lesion_is_is_refused(tmp_path, pixels, says):
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    with pytest.raises(TissueError, match=says):
        load_mask(tmp_path / "mask.png", SLIDE)


def test_what_is_no_mask_is_refused_in_one_line(tmp_path):
    tifffile.imwrite(tmp_path / "stack.tif", np.zeros((7, *SHAPE), np.uint8), photometric="minisblack")
    tifffile.imwrite(tmp_path / "share.tif", LESION.astype(np.float32) * 0.37)
    tifffile.imwrite(tmp_path / "square.tif", np.zeros((300, 300), np.uint8))
    for name in ("text.png", "text.tif", "text.jp2"):
        (tmp_path / name).write_text("no picture")
    for name, says in [
        ("stack.tif", "is no flat picture"),
        ("share.tif", "holds fractions"),
        ("square.tif", "is 300 x 300 px and the slide 1600 x 1200"),
        ("text.png", "cannot be read"),
        ("text.tif", "cannot be read"),
        ("text.jp2", "cannot be read"),
    ]:
        with pytest.raises(TissueError, match=says) as caught:
            load_mask(tmp_path / name, SLIDE)
        assert "\n" not in str(caught.value)


def test_masks_of_one_folder_mark_lesions_with_one_value(tmp_path):
    for name, value in (("A.png", 255), ("B.png", 255), ("C.png", 1)):
        Image.fromarray(GREY * np.uint8(value)).save(tmp_path / name)
    folder = LesionFolder(path=tmp_path)
    for name in ("A.png", "B.png"):
        np.testing.assert_array_equal(folder.load(tmp_path / name, SLIDE)(SHAPE), LESION)
    with pytest.raises(CohortError, match=r"255 in 'A.png' and 1 in 'C.png'"):
        folder.load(tmp_path / "C.png", SLIDE)
    chosen = LesionFolder(path=tmp_path, values=("1", "255"))
    for name in ("A.png", "C.png"):
        np.testing.assert_array_equal(chosen.load(tmp_path / name, SLIDE)(SHAPE), LESION)
