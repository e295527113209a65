"""Which tiles of a TIFF can be handed to libvips without risk.

libvips decodes most damage of a JPEG into grey without a word. So a tile goes to it only once it is known to be whole:
it begins as a baseline JPEG does, and its entropy-coded data hold no marker but the one at their end. Everything else
is read by a careful reader, which decodes the odd but sound tiles and takes libjpeg's warnings for errors. A run of
zeros, the mark of a copy that was broken off, can decode without a warning into garbage and is refused here.
"""

import re
import threading
from collections.abc import Sequence
from pathlib import Path

from lamella.errors import SlideError
from lamella.slide.tiff import JPEG, TiffPage

_START, _END = b"\xff\xd8", b"\xff\xd9"
_SCAN, _BASELINE, _EXTENDED = 0xDA, 0xC0, 0xC1
_NO_LENGTH = {0x01, *range(0xD0, 0xD9)}  # markers without a segment
_MARKER_IN_DATA = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # 0xff00 is a byte of data, 0xffd0 to 0xffd7 are restarts
_ZEROS = bytes(64)  # no Huffman code writes that many zero bits in a row into tissue or glass


class TileGuard:
    """Remembers which tiles of a TIFF file are whole; safe to use from several threads.

    Args:
        path: The TIFF file; it is opened once more, for reading.
        levels: For each level, the pages that may hold it (more than one where a label has its size).
    """

    def __init__(self, path: Path, levels: Sequence[Sequence[TiffPage]]) -> None:
        self._file, self._levels = path.name, levels
        self._stream = path.open("rb")
        self._whole = [[bytearray(page.offsets.size) for page in pages] for pages in levels]
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
            if page.compression == JPEG and not self._is_whole(self._read_tile(page, tile)):
                return False
            whole[tile] = 1
        return True

    def _read_tile(self, page: TiffPage, tile: int) -> bytes:
        """Read the bytes of one tile."""
        with self._lock:
            self._stream.seek(int(page.offsets[tile]))
            return self._stream.read(int(page.n_bytes[tile]))

    def _is_whole(self, tile: bytes) -> bool:
        """Check one tile's structure."""
        start = find_scan(tile)
        if start is None:
            return False
        end = _MARKER_IN_DATA.search(tile, start)
        if tile.find(_ZEROS, start, end.start() if end else len(tile)) >= 0:
            raise SlideError(
                f"slide '{self._file}' is damaged: a tile holds a run of zeros instead of its data, as after a copy "
                "that was broken off. Copy it again from its source, or leave it out."
            )
        # No end, another scan, or an end in the middle.
        return end is not None and end.group() == _END and not tile[end.end() :].strip(b"\0")


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


def find_scan(tile: bytes) -> int | None:
    """Find where the entropy-coded data of a baseline JPEG begin; None if the bytes are no such thing.

    Example:
        >>> find_scan(b"not a JPEG") is None
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
        start, at = at + 4, at + 2 + int.from_bytes(tile[at + 2 : at + 4], "big")
        if not start - 2 < at <= len(tile):
            return None
        if marker == _SCAN:
            return at if has_frame else None
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if marker not in (_BASELINE, _EXTENDED):  # progressive, arithmetic, lossless
                return None
            has_frame = True
    return None
