"""Drawn slides for the tests of geometry: tissue off the centre, levels by averaging, files of several kinds."""

import numpy as np
import tifffile

BLOBS = ((500, 450, 330, 300), (1500, 1050, 330, 300))  # x, y, half width, half height


def draw(width=2000, height=1500, blobs=BLOBS, seed=7):
    """Return `(h, w, 3)` uint8 and its tissue `(h, w)` bool."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    tissue = np.zeros((height, width), bool)
    for cx, cy, a, b in blobs:
        tissue |= ((x - cx) / a) ** 2 + ((y - cy) / b) ** 2 < 1
    coarse = np.kron(rng.normal(0, 12, (height // 4 + 1, width // 4 + 1)), np.ones((4, 4)))[:height, :width]
    picture = np.empty((height, width, 3), np.float32)
    for channel, base in enumerate((200, 130, 175)):
        grain = coarse + rng.normal(0, 6, (height, width))
        picture[..., channel] = np.where(tissue, base + grain, 243 + rng.normal(0, 1, (height, width)))
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8), tissue


def shrink(pixels, factor):
    """Average whole blocks; what does not fill one is dropped."""
    height, width = pixels.shape[0] // factor, pixels.shape[1] // factor
    blocks = pixels[: height * factor, : width * factor].reshape(height, factor, width, factor, 3)
    return blocks.mean((1, 3)).round().astype(np.uint8)


def pad(pixels, side=256, fill=243):
    """Fill up to whole tiles at the right and the bottom."""
    height, width = (-(-n // side) * side for n in pixels.shape[:2])
    padded = np.full((height, width, 3), fill, np.uint8)
    padded[: pixels.shape[0], : pixels.shape[1]] = pixels
    return padded


def write_levels(path, levels, *, mpps=None, tile=256):
    """Write levels as pages of a tiled TIFF; each states its own um per pixel where `mpps` is given, else 0.5."""
    with tifffile.TiffWriter(path) as file:
        for k, level in enumerate(levels):
            per_cm = 1e4 / (mpps[k] if mpps else 0.5)
            file.write(
                level,
                photometric="rgb",
                tile=(tile, tile),
                compression="deflate",
                subfiletype=1 if k else 0,
                resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER",
            )
    return path


def write_scn(path, scan, corner, canvas, *, mpp=0.5, factors=(1, 4)):
    """Write a Leica SCN: `scan` at `corner` `(x, y)` on a canvas `(width, height)`, level-0 pixels."""
    nm, (width, height), (x, y) = round(mpp * 1000), canvas, corner
    levels = [scan if factor == 1 else shrink(scan, factor) for factor in factors]

    def image(name, size, pages, view, offset, objective):
        lines = "".join(f'<dimension sizeX="{w}" sizeY="{h}" r="{r}" ifd="{i}"/>' for r, (i, w, h) in enumerate(pages))
        return (
            f'<image name="{name}" uuid="{name}"><creationDate>2020</creationDate><device model="m" version="1"/>'
            f'<pixels sizeX="{size[0]}" sizeY="{size[1]}">{lines}</pixels>'
            f'<view sizeX="{view[0] * nm}" sizeY="{view[1] * nm}" offsetX="{offset[0] * nm}" '
            f'offsetY="{offset[1] * nm}" spacingZ="0"/><scanSettings><objectiveSettings><objective>{objective}'
            "</objective></objectiveSettings><illuminationSettings><numericalAperture>0.4</numericalAperture>"
            "<illuminationSource>brightfield</illuminationSource></illuminationSettings></scanSettings></image>"
        )

    small = width // 8, height // 8
    size = scan.shape[1], scan.shape[0]
    pages = [(k + 1, level.shape[1], level.shape[0]) for k, level in enumerate(levels)]
    xml = (
        '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01"><collection name="c" '
        f'uuid="u" barcode="" sizeX="{width * nm}" sizeY="{height * nm}"><barcode>x</barcode>'
        + image("macro", small, [(0, *small)], canvas, (0, 0), 0.6)
        + image("main", size, pages, size, (x, y), 20)
        + "</collection></scn>"
    )
    options = {"photometric": "rgb", "tile": (256, 256), "compression": "jpeg", "metadata": None}
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        file.write(np.full((small[1], small[0], 3), 240, np.uint8), description=xml, **options)
        for level in levels:
            file.write(level, resolution=(1e4 / mpp, 1e4 / mpp), resolutionunit="CENTIMETER", **options)
    return path
