"""Which tiles of a TIFF can be handed to a quick decoder without risk.

fastslide 0.8.1 leaves libjpeg's default error handler in place: a tile with a broken header calls `exit()` from a
worker thread, which ends or hangs the whole process, and with it a run over hundreds of good slides. libvips survives
that, but decodes most damage into grey without a word. So a tile goes to either only once it is known to be whole: its
header (with the tables it shares) has been decoded once by Pillow, and its entropy-coded data hold no marker but the
one at their end. Everything else is read by OpenSlide, which decodes the odd but sound tiles and takes libjpeg's
warnings for errors. A run of zeros, the mark of a copy that was broken off, can decode without a warning into garbage
and is refused here.
"""

import io
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from lamella.errors import SlideError
from lamella.slide.tiff import JPEG, TiffPage

_START, _END = b"\xff\xd8", b"\xff\xd9"
_SCAN, _BASELINE, _EXTENDED = 0xDA, 0xC0, 0xC1
_NO_LENGTH = {0x01, *range(0xD0, 0xD9)}  # markers without a segment
_MARKER_IN_DATA = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # 0xff00 is a byte of data, 0xffd0 to 0xffd7 are restarts
_ZEROS = bytes(64)  # no Huffman code writes that many zero bits in a row into tissue or glass
_MAX_HEADERS = 4096


class TileGuard:
    """Remembers which tiles of a TIFF file are whole; safe to use from several threads.

    Args:
        path: The TIFF file; it is opened once more, for reading.
        levels: For each level, the pages that may hold it (more than one where a label has its size).
    """

    def __init__(self, path: Path, levels: Sequence[Sequence[TiffPage]]) -> None:
        self.file, self._levels = path.name, levels
        self._stream = path.open("rb")
        self._whole = [[bytearray(page.offsets.size) for page in pages] for pages in levels]
        self._headers: dict[bytes, bool] = {}
        self._lock = threading.Lock()

    def allows(self, corner: tuple[int, int], level: int, size: tuple[int, int]) -> bool:
        """Tell whether every tile under a box of a level, in pixels of that level, is whole.

        Raises:
            SlideError: If the data of a tile were copied in part.
        """
        return all(
            self._allows_page(page, whole, corner, size)
            for page, whole in zip(self._levels[level], self._whole[level], strict=True)
        )

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def _allows_page(self, page: TiffPage, whole: bytearray, corner: tuple[int, int], size: tuple[int, int]) -> bool:
        """Check the tiles of one page that have not been checked before."""
        for tile in page.list_tiles(corner, size):
            if whole[tile]:
                continue
            n_bytes = int(page.n_bytes[tile])
            if n_bytes == 0:
                return False
            if page.compression == JPEG and not self._is_whole(self._read_tile(page, tile), page.jpeg_tables):
                return False
            whole[tile] = 1
        return True

    def _read_tile(self, page: TiffPage, tile: int) -> bytes:
        """Read the bytes of one tile."""
        with self._lock:
            self._stream.seek(int(page.offsets[tile]))
            return self._stream.read(int(page.n_bytes[tile]))

    def _is_whole(self, tile: bytes, tables: bytes) -> bool:
        """Check one tile's structure, and its header by decoding it once."""
        header = find_header(tile)
        if header is None:
            return False
        end = _MARKER_IN_DATA.search(tile, header.n_bytes)
        if tile.find(_ZEROS, header.n_bytes, end.start() if end else len(tile)) >= 0:
            raise SlideError(
                f"slide '{self.file}' is damaged: a tile holds a run of zeros instead of its data, as after a copy "
                "that was broken off. Copy it again from its source, or leave it out."
            )
        if end is None or end.group() != _END or tile[end.end() :].strip(b"\0"):
            return False  # no end, another scan, or an end in the middle
        key = tables + tile[: header.n_bytes]
        known = self._headers.get(key)
        if known is None:
            known = _decodes(tile, tables)
            with self._lock:
                if len(self._headers) < _MAX_HEADERS:
                    self._headers[key] = known
        return known


def find_levels(
    pages: Sequence[TiffPage], level_dimensions: Sequence[tuple[int, int]], schemes: Sequence[int]
) -> list[list[TiffPage]] | None:
    """Match each level with the pages of its size.

    Returns:
        For each level its pages, or None where a level has no page, or one that is not compressed by one of
        `schemes` or not stored pixel by pixel (colours in separate planes).
    """
    levels = [[page for page in pages if page.size == size] for size in level_dimensions]
    for candidates in levels:
        if not candidates:
            return None
        for page in candidates:
            n_tiles = -(-page.size[0] // page.tile_size[0]) * -(-page.size[1] // page.tile_size[1])
            if page.compression not in schemes or page.offsets.size != n_tiles:
                return None
    return levels


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """What comes before the entropy-coded data of a baseline JPEG.

    Attributes:
        n_bytes: How long it is.
        subsampled: Whether colour is stored at a lower resolution than brightness, as in 4:2:0 and 4:2:2.
    """

    n_bytes: int
    subsampled: bool


def find_header(tile: bytes) -> JpegHeader | None:
    """Find the header of a baseline JPEG; None if the bytes are no such thing.

    Example:
        >>> find_header(b"not a JPEG") is None
        True
    """
    if tile[:2] != _START:
        return None
    at, frame = 2, b""
    while at + 4 <= len(tile) and tile[at] == 0xFF:
        marker = tile[at + 1]
        if marker == 0xFF:  # padding before a marker
            at += 1
            continue
        if marker in _NO_LENGTH:
            return None
        start, at = at + 4, at + 2 + int.from_bytes(tile[at + 2 : at + 4], "big")
        if not start - 2 < at <= len(tile):
            return None
        if marker == _SCAN:
            return JpegHeader(at, len(set(frame[7::3])) > 1) if frame else None
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if marker not in (_BASELINE, _EXTENDED):  # progressive, arithmetic, lossless
                return None
            frame = tile[start:at]
    return None


def is_subsampled(path: Path, page: TiffPage) -> bool:
    """Tell whether a page's JPEG tiles store colour at a lower resolution, by the first tile that is there."""
    there = page.n_bytes.nonzero()[0]
    if page.compression != JPEG or not there.size:
        return False
    with path.open("rb") as stream:
        stream.seek(int(page.offsets[there[0]]))
        header = find_header(stream.read(int(page.n_bytes[there[0]])))
    return header is not None and header.subsampled


def _decodes(tile: bytes, tables: bytes) -> bool:
    """Tell whether Pillow decodes a tile with the tables it shares."""
    shared = tables[:-2] if tables[-2:] == _END else tables
    stream = shared + tile[2:] if shared[:2] == _START else tile
    try:
        with Image.open(io.BytesIO(stream), formats=("JPEG",)) as image:
            image.load()
    except (OSError, SyntaxError, ValueError):
        return False
    return True
