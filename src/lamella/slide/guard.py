"""Which JPEG tiles can be handed to fastslide without risk.

fastslide 0.8.1 leaves libjpeg's default error handler in place: a tile with a broken header calls `exit()` from a
worker thread, which ends or hangs the whole process, and with it a run over hundreds of good slides. So a tile goes
to fastslide only once it is known to be whole: its header (with the tables it shares) has been decoded once by
Pillow, which survives errors, and its entropy-coded data hold no marker but the one at their end. Everything else is
read by OpenSlide, which decodes the odd but sound ones and takes libjpeg's warnings for errors. A run of zeros, the
mark of a copy that was broken off, decodes without a warning into garbage and is refused here.
"""

import io
import os
import re
import threading
from collections.abc import Sequence
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
        self._file, self._levels = path.name, levels
        self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
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
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    def _allows_page(self, page: TiffPage, whole: bytearray, corner: tuple[int, int], size: tuple[int, int]) -> bool:
        """Check the tiles of one page that have not been checked before."""
        for tile in page.list_tiles(corner, size):
            if whole[tile]:
                continue
            n_bytes = int(page.n_bytes[tile])
            if n_bytes == 0:
                return False
            if page.compression == JPEG and not self._is_whole(
                os.pread(self._descriptor, n_bytes, int(page.offsets[tile])), page.jpeg_tables
            ):
                return False
            whole[tile] = 1
        return True

    def _is_whole(self, tile: bytes, tables: bytes) -> bool:
        """Check one tile's structure, and its header by decoding it once."""
        n_header = find_header(tile)
        if n_header is None:
            return False
        end = _MARKER_IN_DATA.search(tile, n_header)
        if tile.find(_ZEROS, n_header, end.start() if end else len(tile)) >= 0:
            raise SlideError(
                f"slide '{self._file}' is damaged: a tile holds a run of zeros instead of its data, as after a copy "
                "that was broken off. Copy it again from its source, or leave it out."
            )
        if end is None or end.group() != _END or tile[end.end() :].strip(b"\0"):
            return False  # no end, another scan, or an end in the middle
        header = tables + tile[:n_header]
        known = self._headers.get(header)
        if known is None:
            known = _decodes(tile, tables)
            with self._lock:
                if len(self._headers) < _MAX_HEADERS:
                    self._headers[header] = known
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


def find_header(tile: bytes) -> int | None:
    """Return how many bytes come before the entropy-coded data of a baseline JPEG; None if it is no such thing.

    Example:
        >>> find_header(b"not a JPEG") is None
        True
    """
    if tile[:2] != _START:
        return None
    at, has_frame = 2, False
    while at + 4 <= len(tile) and tile[at] == 0xFF:
        marker = tile[at + 1]
        if marker == 0xFF:  # padding before a marker
            at += 1
            continue
        if marker in _NO_LENGTH:
            return None
        length = int.from_bytes(tile[at + 2 : at + 4], "big")
        if length < 2 or at + 2 + length > len(tile):
            return None
        at += 2 + length
        if marker == _SCAN:
            return at if has_frame else None
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if marker not in (_BASELINE, _EXTENDED):  # progressive, arithmetic, lossless
                return None
            has_frame = True
    return None


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
