"""Which reader a TIFF gets.

Measured by `benchmarks/readers.py` on the formats there are files of, in pixels per CPU second against OpenSlide:

| stored as | libvips | chosen |
|---|---|---|
| TIFF or SVS, JPEG | 4 to 8 x, equal | libvips |
| TIFF, deflate, LZW or uncompressed | 5.5 x, 2 x, 9 x, equal | libvips |
| NDPI | the finest level only | OpenSlide |

No library's word is taken for it. What a TIFF's tags call ordinary (8-bit RGB or grey, JPEG, deflate, LZW or nothing)
is read by libvips under a guard, once a few tiles are as tifffile decodes them; all other TIFF is read by tifffile
itself, or refused by the name of what cannot be read. Vendors whose tiles lie in a geometry of their own (Leica,
Philips, Trestle, Ventana) are OpenSlide's, and so is what is no TIFF; plain PNG and JPEG go to libvips.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lamella.errors import SlideError
from lamella.slide.claims import refuse_slide_claims
from lamella.slide.decoder import TifffileReader
from lamella.slide.guard import TileGuard, find_levels
from lamella.slide.readers import GuardedReader, OpenSlideReader, Reader, VipsReader
from lamella.slide.samples import APERIO_RGB, APERIO_YCBCR, is_ordinary, name_codec
from lamella.slide.stated import find_tiff_magnification
from lamella.slide.tiff import (
    DEFLATE,
    DEFLATE_OLD,
    JPEG,
    LZW,
    UNCOMPRESSED,
    TiffPage,
    find_page_scales,
    load_tiff_pages,
)
from lamella.slide.tiff_images import TiffImage, choose_image, list_tiff_images

VIPS_SCHEMES = (JPEG, DEFLATE, DEFLATE_OLD, LZW, UNCOMPRESSED)
_OPENSLIDE_SCHEMES = (*VIPS_SCHEMES, APERIO_YCBCR, APERIO_RGB)
_PROBE_PX = 256
_PROBE_TOLERANCE = 1.0  # mean grey levels; decoders round in ways of their own
_MAX_PROBE_PX = 1 << 26  # a strip larger than this is not decoded for a probe


def open_tiff(path: Path, reader: str, image: str | None, vendor: str | None) -> Reader:
    """Open a TIFF: by a quick reader under guard where its tags and a probe allow, else by tifffile."""
    images = list_tiff_images(load_tiff_pages(path))
    chosen, notes = choose_image(path.name, images, image)
    page = chosen.levels[0][0]
    refuse_slide_claims(path, chosen.size, n_bytes=path.stat().st_size)
    pages = [page for level in chosen.levels for page in level]
    if vendor == "aperio" and page.compression in _OPENSLIDE_SCHEMES and page.compression not in VIPS_SCHEMES:
        opened = _open_aperio_2000(path, reader, chosen)
    elif not all(is_ordinary(page) and page.compression in VIPS_SCHEMES for page in pages) or len(chosen.levels[0]) > 1:
        if reader not in ("auto", "tifffile"):
            raise SlideError(
                f"slide '{path.name}' is not stored in a way that {reader} is known to read rightly. Let Lamella "
                "choose: pass reader 'auto'."
            )
        opened = TifffileReader(path, chosen)
    else:
        opened = _open_ordinary(path, reader, chosen, images, is_aperio=vendor == "aperio")
    opened.stated_mpp, opened.magnification = chosen.mpp, find_tiff_magnification(page)
    opened.format = vendor or "tiff"
    opened.stated_scales = find_page_scales(pages, opened.level_dimensions)
    beside = sorted({other.associated for other in images if other.associated})
    opened.associated = opened.associated or tuple(beside)
    opened.notes = tuple(dict.fromkeys((*notes, *chosen.notes, *opened.notes)))
    with _closing_on_error(opened):  # what cannot be decoded at all is refused now
        opened.read((0, 0), len(opened.level_dimensions) - 1, (1, 1))
    return opened


def _open_aperio_2000(path: Path, reader: str, chosen: TiffImage) -> Reader:
    """Open an Aperio slide of JPEG 2000: by tifffile, or where it cannot (colour subsampled) by OpenSlide."""
    if reader == "openslide":
        return OpenSlideReader(path)
    try:
        reference = TifffileReader(path, chosen)
        with _closing_on_error(reference):
            _probe(reference, 0)
    except SlideError:
        careful = OpenSlideReader(path)
        if careful.level_dimensions != chosen.level_dimensions:
            careful.close()
            raise
        return careful
    return reference


def _open_ordinary(
    path: Path, reader: str, chosen: TiffImage, images: Sequence[TiffImage], *, is_aperio: bool
) -> Reader:
    """Open a TIFF that every reader reads alike: by libvips under guard, where it gives the reference's pixels."""
    if reader == "openslide":
        return _open_openslide(path, chosen, images)
    reference = TifffileReader(path, chosen)
    if reader == "tifffile":
        return reference
    with _closing_on_error(reference):
        try:
            quick = VipsReader(path, [(level[0].directory, level[0].sub) for level in chosen.levels])
        except SlideError:
            if reader == "libvips":
                raise
            return reference
        # Of tiles that Aperio's scanner left out of a small level, OpenSlide shows those of the finer one.
        careful = (is_aperio and _try_openslide(path, chosen, images)) or reference
        guarded = GuardedReader(quick, careful, TileGuard(path, chosen.levels))
        with _closing_on_error(guarded):
            agrees = reader == "libvips" or _agree(guarded, reference)
    if agrees and careful is reference:
        return guarded
    reference.close()
    if agrees:
        return guarded
    guarded.close()
    return TifffileReader(path, chosen)


def _open_openslide(path: Path, chosen: TiffImage, images: Sequence[TiffImage]) -> OpenSlideReader:
    """Open a TIFF with OpenSlide, where that shows the image that is meant."""
    careful = OpenSlideReader(path)
    is_alone = sum(not image.associated for image in images) == 1
    if is_alone and careful.level_dimensions == chosen.level_dimensions:
        return careful
    careful.close()
    raise refuse_reader(path, "openslide")


def _try_openslide(path: Path, chosen: TiffImage, images: Sequence[TiffImage]) -> OpenSlideReader | None:
    """Open a TIFF with OpenSlide; None where it refuses, or shows another image."""
    try:
        return _open_openslide(path, chosen, images)
    except SlideError:
        return None


def refuse_reader(path: Path, reader: str) -> SlideError:
    """Make the error for a reader that was insisted on and cannot read the file."""
    return SlideError(f"slide '{path.name}' cannot be read by {reader}. Let Lamella choose: pass reader 'auto'.")


@contextmanager
def _closing_on_error(reader: Reader) -> Iterator[None]:
    """Close a reader that turns out to hold a damaged slide, or one that another reader cannot open."""
    try:
        yield
    except Exception:
        reader.close()
        raise


def _agree(quick: Reader, reference: TifffileReader) -> bool:
    """Compare a reader with the reference on a tile in the middle and the last tile of the first and last levels."""
    return all(
        float(np.abs(quick.read(corner, level, size) - expected).mean()) <= _PROBE_TOLERANCE
        for level in {0, len(reference.level_dimensions) - 1}
        for corner, size, expected in _probe(reference, level)
    )


def _probe(reference: TifffileReader, level: int) -> list[tuple[tuple[int, int], tuple[int, int], NDArray[np.int16]]]:
    """Decode a box of the middle and of the last tile of a level: corner, size and `(h, w, 3)` int16 RGB."""
    page = reference.levels[level][0]
    if page.tile_size[0] * page.tile_size[1] > _MAX_PROBE_PX:
        return []
    columns, rows = (-(-extent // tile) for extent, tile in zip(page.size, page.tile_size, strict=True))
    boxes = []
    for column, row in {(columns // 2, rows // 2), (columns - 1, rows - 1)}:
        corner = column * page.tile_size[0], row * page.tile_size[1]
        size = tuple(
            min(_PROBE_PX, tile, extent - start)
            for tile, extent, start in zip(page.tile_size, page.size, corner, strict=True)
        )
        boxes.append((corner, (size[0], size[1]), reference.read(corner, level, (size[0], size[1])).astype(np.int16)))
    return boxes


def open_vendor_tiff(path: Path, reader: str) -> Reader:
    """Open a TIFF whose geometry OpenSlide knows: by a quick reader under guard where both agree, else by OpenSlide."""
    pages = load_tiff_pages(path)
    if pages[0].compression not in _OPENSLIDE_SCHEMES:
        raise SlideError(
            f"slide '{path.name}' is compressed by {name_codec(pages[0].compression)}, which OpenSlide does not "
            "decode. Export it as JPEG with the scanner's software."
        )
    careful = OpenSlideReader(path)
    if reader == "openslide":
        return careful
    with _closing_on_error(careful):
        guarded = _open_by_size(path, pages, careful)
    if guarded is not None:
        return guarded
    if reader != "auto":
        careful.close()
        raise refuse_reader(path, reader)
    with _closing_on_error(careful):
        careful.read((0, 0), len(careful.level_dimensions) - 1, (1, 1))
    return careful


def _open_by_size(path: Path, pages: Sequence[TiffPage], careful: OpenSlideReader) -> Reader | None:
    """Open a vendor's TIFF with libvips, each level by the page of its size; None where OpenSlide sees other pixels."""
    main = [page for page in pages if page.sub < 0]
    levels = find_levels(main, careful.level_dimensions, VIPS_SCHEMES)
    if levels is None or not all(is_ordinary(page) for level in levels for page in level):
        return None
    try:
        quick = VipsReader(path, [(max(level, key=lambda page: page.tiled).directory, -1) for level in levels])
    except SlideError:
        return None
    guard = TileGuard(path, levels)
    guarded = GuardedReader(quick, careful, guard)
    with _closing_on_error(guarded):
        if quick.level_dimensions == careful.level_dimensions and _look_alike(guarded, careful):
            return guarded
    guard.close()
    quick.close()
    return None


def _look_alike(quick: Reader, careful: Reader) -> bool:
    """Compare two readers on a box in the middle of the smallest level."""
    width, height = careful.level_dimensions[-1]
    size = min(_PROBE_PX, width), min(_PROBE_PX, height)
    corner, level = ((width - size[0]) // 2, (height - size[1]) // 2), len(careful.level_dimensions) - 1
    seen = careful.read(corner, level, size).astype(np.int16)
    return float(np.abs(quick.read(corner, level, size) - seen).mean()) <= _PROBE_TOLERANCE
