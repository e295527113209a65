"""Single tiles and strips of a TIFF, decoded by tifffile and imagecodecs: the reference that quick readers are held to.

It reads every codec that imagecodecs has, each kind of sample by its tags (`lamella.slide.samples`), one tile at a
time. It is slower than libvips, so it reads only what that would not read, or not rightly.
"""

import io
import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyvips
import tifffile
from numpy.typing import NDArray

from lamella.errors import SlideError
from lamella.slide.claims import find_claimed_size
from lamella.slide.readers import Reader, refuse_damaged
from lamella.slide.samples import (
    APERIO_YCBCR,
    BLACK_IS_ZERO,
    PALETTE,
    YCBCR,
    Samples,
    convert_samples,
    describe_samples,
    name_codec,
    states_depth,
)
from lamella.slide.tiff import JPEG, TiffPage
from lamella.slide.tiff_images import TiffImage

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # it would print to standard error
_CACHE_BYTES = 64 << 20
_MAX_TILE_BYTES = 1 << 29
_MOST_CLAIMED = 4  # times the pixels of a tile by the tags that it may have by its own header
_MOST_MISSING = 4  # times the tiles that a file lists; some writers leave empty ones out at the end
_MAX_SAMPLED = 256  # tiles of the smallest level that are looked at for depth and transparency
_JPEGS, _JPEG_2000 = (6, JPEG, 34892, 33007), (APERIO_YCBCR, 33004, 33005, 34712)
_CODESTREAM, _CODING_STYLE = b"\xff\x4f\xff\x51", b"\xff\x52"
_DEPTHS = (8, 10, 12, 14)


class TifffileReader(Reader):
    """tifffile with imagecodecs: any codec and kind of sample of a TIFF, tile by tile; safe from several threads.

    Args:
        path: The file.
        image: The image in it that is read.

    Raises:
        SlideError: If its codec or its kind of samples cannot be read.
    """

    def __init__(self, path: Path, image: TiffImage) -> None:
        self.name = f"tifffile {tifffile.__version__}"
        self.format = "tiff"
        self._file = path.name
        self.level_dimensions = image.level_dimensions
        self.stated_mpp = image.mpp
        self._lock = threading.Lock()
        self._cache: OrderedDict[tuple[int, int], NDArray[np.uint8]] = OrderedDict()
        self._cached_bytes = 0
        self.levels = image.levels
        self._refuse_codecs()
        self._samples = [describe_samples(path.name, level, image.significant_bits) for level in image.levels]
        self._stream = path.open("rb")
        self._tiff: tifffile.TiffFile | None = None
        try:
            self._tiff = tifffile.TiffFile(path)
            self._pages = [[self._load_page(page.at) for page in level] for level in image.levels]
            self._is_inferred = False
            self._palettes = [self._load_palette(level) for level in range(len(image.levels))]
            self._read_coding()
            self.notes = (*image.notes, *self._describe(image.significant_bits))
        except SlideError:
            self.close()
            raise
        except (tifffile.TiffFileError, OSError, ValueError, IndexError, KeyError) as error:
            self.close()
            raise refuse_damaged(path.name, error) from error

    def read(self, corner: tuple[int, int], level: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Read `(h, w, 3)` uint8 RGB."""
        page = self.levels[level][0]
        box = np.full((size[1], size[0], 3), 255, dtype=np.uint8)
        n_columns = -(-page.size[0] // page.tile_size[0])
        for tile in page.list_tiles(corner, size):
            pixels = self._read_tile(level, tile)
            if pixels is None:
                continue
            left = tile % n_columns * page.tile_size[0] - corner[0]
            top = tile // n_columns * page.tile_size[1] - corner[1]
            x, y = max(0, left), max(0, top)
            piece = pixels[y - top : size[1] - top, x - left : size[0] - left]
            box[y : y + piece.shape[0], x : x + piece.shape[1]] = piece
        return box

    def close(self) -> None:
        """Release the file."""
        self._stream.close()
        if self._tiff is not None:
            self._tiff.close()
        self._cache.clear()

    def _refuse_codecs(self) -> None:
        """Refuse what imagecodecs cannot decode, by the codec's name, and pieces too large for memory."""
        for page in (page for level in self.levels for page in level):
            known = page.compression == 1 or page.compression in tifffile.TIFF.DECOMPRESSORS
            if not known or page.compression == 6 or (page.compression == JPEG and set(page.bits) != {8}):
                bits = "" if page.compression != JPEG else f" of {page.bits[0]} bits"
                raise SlideError(
                    f"slide '{self._file}' is compressed by {name_codec(page.compression)}{bits}, which no reader here "
                    "decodes. Export it as JPEG or deflate in a TIFF, with the program that made it."
                )
            n_needed = page.n_tiles * (page.n_samples if page.is_planar else 1)
            if n_needed > _MOST_MISSING * page.n_bytes.size + _MAX_SAMPLED:
                raise SlideError(
                    f"slide '{self._file}' claims {page.size[0]:,} x {page.size[1]:,} pixels, which are {n_needed:,} "
                    f"tiles or strips, and lists {page.n_bytes.size:,}: it is damaged. Copy it again from its source."
                )
            n_bytes = page.tile_size[0] * page.tile_size[1] * page.n_samples * (page.bits[0] + 7) // 8
            if n_bytes > _MAX_TILE_BYTES:
                raise SlideError(
                    f"slide '{self._file}' stores its pixels in pieces of {page.tile_size[0]} x {page.tile_size[1]} "
                    f"({n_bytes / 1e9:.1f} GB), and a piece must fit into {_MAX_TILE_BYTES / 1e9:.1f} GB. Convert it: "
                    "vips tiffsave IN OUT --tile --pyramid --compression deflate"
                )

    def _load_page(self, at: int) -> tifffile.TiffPage:
        """Load a page from where its directory begins, so that sub-directories and main ones are alike."""
        assert self._tiff is not None
        self._tiff.filehandle.seek(at)
        return tifffile.TiffPage(self._tiff, 0)

    def _load_palette(self, level: int) -> NDArray[np.uint16] | None:
        """Return the colours of a palette, `(3, n)` uint16."""
        if self._samples[level].photometric != PALETTE:
            return None
        palette = self._pages[level][0].colormap
        n_colours = 1 << self.levels[level][0].bits[0]
        if palette is None or palette.shape != (3, n_colours):
            raise SlideError(
                f"slide '{self._file}' stores colours as numbers of a palette of {n_colours} that it does not hold. "
                "Export it as RGB, with the program that made it."
            )
        return np.asarray(palette, dtype=np.uint16)

    def _read_coding(self) -> None:
        """Tell RGB from YCbCr in JPEG 2000: its own colour transform yields RGB; without it, the tags must say."""
        for number, (level, samples) in enumerate(zip(self.levels, self._samples, strict=True)):
            page = level[0]
            if page.compression not in _JPEG_2000 or samples.n_colours != 3 or page.is_planar or len(level) > 1:
                continue
            there = page.n_bytes.nonzero()[0]
            if not there.size or _transforms_colours(self._read_bytes(page, int(there[0]))):
                continue
            is_aperio = self.levels[0][0].description.startswith("Aperio")
            if page.photometric == YCBCR or (page.compression == APERIO_YCBCR and is_aperio):
                self._samples[number] = replace(samples, photometric=YCBCR)
            elif page.compression == APERIO_YCBCR:
                raise SlideError(
                    f"slide '{self._file}' is compressed by {name_codec(page.compression)} without saying whether its "
                    "colours are RGB or YCbCr. Export it as JPEG or deflate in a TIFF, with the program that made it."
                )

    def _describe(self, significant_bits: int | None) -> tuple[str, ...]:
        """Settle depth and transparency by looking at the smallest level, and say what a user may not expect."""
        page, samples = self.levels[0][0], self._samples[0]
        n_samples = page.n_samples if len(self.levels[0]) == 1 else 3
        notes = []
        if page.orientation != 1:
            notes.append(f"TIFF orientation {page.orientation} is not applied: pixels are as stored")
        if page.photometric == BLACK_IS_ZERO and page.n_samples == 3:
            notes.append("three grey samples a pixel are read as red, green and blue")
        if page.bits[0] > 8 and samples.photometric != PALETTE:
            bits = samples.max_value.bit_length()
            if not states_depth(page, significant_bits):
                bits = self._infer_depth(bits)
                if bits < page.bits[0]:
                    notes.append(
                        f"values use {bits} of {page.bits[0]} bits, by the largest value: "
                        f"{(1 << bits) - 1:,} is shown as white"
                    )
            if not notes or not notes[-1].startswith("values use"):
                notes.append(f"{bits}-bit values are shown as 8-bit RGB")
        n_left = n_samples - samples.n_colours
        if samples.alpha is not None and not self._has_opaque():
            self._samples = [replace(kind, alpha=None, is_associated=False) for kind in self._samples]
            notes.append("its transparency (alpha) is 0 everywhere, and is ignored")
        elif samples.alpha is not None:
            notes.append("its transparency (alpha) is laid on white")
        elif n_left:
            what = f"channel 1 of {n_samples} is" if samples.n_colours == 1 else "three colours are"
            notes.append(f"{what} read; {n_left} more sample{'s' * (n_left > 1)} a pixel are not")
        return tuple(notes)

    def _infer_depth(self, bits: int) -> int:
        """Find how many bits values use where a file does not say, and hold every later read to it."""
        largest = max((int(pixels.max()) for _, pixels in self._sample_tiles()), default=0)
        fits = [depth for depth in _DEPTHS if depth < bits and 0 < largest < 1 << depth]
        if not fits:
            return bits
        self._is_inferred = True
        self._samples = [replace(kind, max_value=(1 << fits[0]) - 1) for kind in self._samples]
        return fits[0]

    def _has_opaque(self) -> bool:
        """Tell whether any pixel looked at is not wholly transparent."""
        return any(
            samples.alpha is not None and pixels[:, :, samples.alpha].any() for samples, pixels in self._sample_tiles()
        )

    def _sample_tiles(self) -> Iterator[tuple[Samples, NDArray[Any]]]:
        """Yield `(samples, (h, w, n_samples) pixels)` of tiles spread over the smallest level."""
        level = len(self.levels) - 1
        page = self.levels[level][0]
        there = [tile for tile in range(page.n_tiles) if page.n_bytes[tile]]
        step = -(-len(there) // _MAX_SAMPLED) or 1
        for tile in there[::step]:
            pixels = self._decode_tile(level, tile)
            if pixels is not None:
                yield self._samples[level], pixels

    def _read_tile(self, level: int, tile: int) -> NDArray[np.uint8] | None:
        """Return a tile as `(h, w, 3)` uint8 RGB, from the cache where it is there; None where none was scanned."""
        with self._lock:
            known = self._cache.get((level, tile))
            if known is not None:
                self._cache.move_to_end((level, tile))
                return known
        pixels = self._decode_tile(level, tile)
        if pixels is None:
            return None
        samples = self._samples[level]
        if self._is_inferred and pixels.size and int(pixels.max()) > samples.max_value:
            raise SlideError(
                f"slide '{self._file}' does not state how many bits its values use; its overview uses "
                f"{samples.max_value.bit_length()} and a tile holds {int(pixels.max()):,}. Export it as 8-bit RGB, "
                "with the program that made it."
            )
        shown = convert_samples(pixels, samples, self._palettes[level])
        with self._lock:
            if (level, tile) not in self._cache:
                self._cache[level, tile] = shown
                self._cached_bytes += shown.nbytes
            while self._cached_bytes > _CACHE_BYTES and len(self._cache) > 1:
                self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes
        return shown

    def _decode_tile(self, level: int, tile: int) -> NDArray[Any] | None:
        """Decode a tile of all planes, `(h, w, n_samples)`; None where it was never scanned."""
        planes = []
        for page, decoder in zip(self.levels[level], self._pages[level], strict=True):
            for plane in range(page.n_samples if page.is_planar else 1):
                index = plane * page.n_tiles + tile
                if index >= page.n_bytes.size or page.n_bytes[index] == 0:
                    return None
                planes.append(self._decode(page, decoder, index))
        return planes[0] if len(planes) == 1 else np.concatenate(planes, axis=2)

    def _decode(self, page: TiffPage, decoder: tifffile.TiffPage, index: int) -> NDArray[Any]:
        """Decode one tile or strip of one page, `(h, w, samples)`."""
        content = self._read_bytes(page, index)
        try:
            tables = {"jpegtables": page.jpeg_tables or None} if page.compression in _JPEGS else {}
            self._refuse_claims(page, content)
            if page.compression in _JPEGS:
                refuse_damaged_jpeg(content, page.jpeg_tables)
            pixels, _, _ = decoder.decode(content, index, **tables)
        except Exception as error:  # each codec has errors of its own
            raise SlideError(
                f"slide '{self._file}' cannot be read: tile {index} of its image of {page.size[0]} x {page.size[1]}, "
                f"compressed by {name_codec(page.compression)}, does not decode ({_one_line(error)}). Copy it again "
                "from its source, or leave it out."
            ) from error
        assert pixels is not None  # as there are bytes
        return np.asarray(pixels[0])

    @staticmethod
    def _refuse_claims(page: TiffPage, content: bytes) -> None:
        """Refuse a tile that is an image with a header of its own, and far larger by that than by the file's tags."""
        size = find_claimed_size(io.BytesIO(content))
        if size is not None and size[0] * size[1] > _MOST_CLAIMED * max(1 << 16, page.tile_size[0] * page.tile_size[1]):
            raise ValueError(f"its own header says {size[0]} x {size[1]}")

    def _read_bytes(self, page: TiffPage, index: int) -> bytes:
        """Read the bytes of one tile or strip."""
        with self._lock:
            self._stream.seek(int(page.offsets[index]))
            return self._stream.read(int(page.n_bytes[index]))


def refuse_damaged_jpeg(content: bytes, tables: bytes = b"") -> None:
    """Raise `pyvips.Error` where libjpeg warns of a JPEG, which decoders otherwise fill with grey in silence."""
    shared = tables[:-2] if tables[-2:] == b"\xff\xd9" else tables
    whole = shared + content[2:] if shared[:2] == b"\xff\xd8" else content
    pyvips.Image.jpegload_buffer(whole, fail_on="warning").copy_memory()


def _transforms_colours(content: bytes) -> bool:
    """Tell whether a JPEG 2000 codestream applies its own colour transform, so that it decodes to RGB."""
    start = content.find(_CODESTREAM)
    style = content.find(_CODING_STYLE, start) if start >= 0 else -1
    return style >= 0 and len(content) > style + 8 and content[style + 8] == 1


def _one_line(error: object) -> str:
    """Say an error on one line."""
    return " ".join(str(error).split()).rstrip(".")[:200]
