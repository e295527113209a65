"""The table of contents of a TIFF file: where each tile's bytes lie, before any reader touches them.

Only structure is read here, never pixels. A file that was copied in part is found out at once, because its
directories or tiles point beyond its end.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import tifffile
from numpy.typing import NDArray

from lamella.errors import SlideError

UNCOMPRESSED, LZW, JPEG, DEFLATE, DEFLATE_OLD = 1, 5, 7, 8, 32946  # TIFF compression schemes
_MAX_DIRECTORIES = 4096
_FORMATS = {1: "B", 2: "B", 3: "H", 4: "I", 5: "II", 6: "b", 7: "B", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
Tags = dict[str, NDArray[np.int64] | bytes]  # by the names that tifffile gives them
_WANTED = frozenset(
    (
        *("ImageWidth", "ImageLength", "Compression", "ImageDescription", "StripOffsets", "RowsPerStrip", "SubIFDs"),
        *("StripByteCounts", "TileWidth", "TileLength", "TileOffsets", "TileByteCounts", "JPEGTables", "FillOrder"),
        *("NewSubfileType", "BitsPerSample", "PhotometricInterpretation", "Orientation", "SamplesPerPixel"),
        *("PlanarConfiguration", "XResolution", "YResolution", "ResolutionUnit", "ExtraSamples", "SampleFormat"),
        *("MaxSampleValue", "SMaxSampleValue"),
    )
)
UM_PER_UNIT = {2: 25400.0, 3: 10000.0}


@dataclass(frozen=True, slots=True, eq=False)
class TiffPage:
    """One image of a TIFF file.

    Attributes:
        size: `(width, height)` in pixels.
        compression: TIFF's number of the compression scheme; 7 is JPEG.
        tile_size: `(width, height)` of its tiles; strips count as tiles as wide as the image.
        tiled: Whether it is stored in tiles rather than strips.
        offsets: `(n_tiles,)` int64, where each tile begins in the file.
        n_bytes: `(n_tiles,)` int64, how long each tile is; 0 for a tile that was never scanned.
        jpeg_tables: JPEG tables shared by the tiles, empty where each has its own.
        description: The ImageDescription, where vendors write their metadata.
        directory: Its place in the file's chain of directories, from 0; that of its parent for a sub-directory.
        sub: Its place among its parent's sub-directories, from 0; -1 in the chain itself.
        at: Where its directory begins in the file.
        is_reduced: Whether it is marked as a smaller version of another page.
        bits: Bits of each sample, such as (8, 8, 8).
        photometric: TIFF's number of what samples mean; 2 is RGB, 6 is YCbCr.
        n_samples: Samples of a pixel.
        is_planar: Whether each sample has tiles of its own.
        orientation: TIFF's number of how it is to be turned, 1 where not at all.
        fill_order: 2 where the bits of each byte run backwards.
        extra_samples: What the samples beyond the colours are: 0 not stated, 1 associated alpha, 2 unassociated.
        sample_format: 1 unsigned integer, 2 signed, 3 float.
        max_value: Greatest value that the file says samples may take; None where it does not.
        resolution: `(x, y)` pixels per unit, None where not stated.
        unit: 1 none, 2 inch, 3 cm; TIFF takes inch where it is absent, and here that counts as none.
    """

    size: tuple[int, int]
    compression: int
    tile_size: tuple[int, int]
    tiled: bool
    offsets: NDArray[np.int64]
    n_bytes: NDArray[np.int64]
    jpeg_tables: bytes
    description: str
    directory: int
    sub: int
    at: int
    is_reduced: bool
    bits: tuple[int, ...]
    photometric: int
    n_samples: int
    is_planar: bool
    orientation: int
    fill_order: int
    extra_samples: tuple[int, ...]
    sample_format: int
    max_value: int | None
    resolution: tuple[float, float] | None
    unit: int

    @property
    def um_per_px(self) -> float | None:
        """Resolution along x by its own tags, um per pixel; None without a unit of length."""
        um = UM_PER_UNIT.get(self.unit)
        return None if um is None or self.resolution is None else um / self.resolution[0]

    @property
    def n_tiles(self) -> int:
        """Tiles of one plane, those at the edges too."""
        return -(-self.size[0] // self.tile_size[0]) * -(-self.size[1] // self.tile_size[1])

    def list_tiles(self, corner: tuple[int, int], size: tuple[int, int]) -> list[int]:
        """List the tiles under a box inside the page, in pixels of the page, row by row."""
        n_columns = -(-self.size[0] // self.tile_size[0])
        columns = range(corner[0] // self.tile_size[0], -(-(corner[0] + size[0]) // self.tile_size[0]))
        rows = range(corner[1] // self.tile_size[1], -(-(corner[1] + size[1]) // self.tile_size[1]))
        return [row * n_columns + column for row in rows for column in columns]


def is_tiff(path: Path) -> bool:
    """Tell by its first bytes whether a file is a TIFF or BigTIFF."""
    with path.open("rb") as stream:
        return stream.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def load_tiff_pages(path: Path) -> tuple[TiffPage, ...]:
    """Return every image of a TIFF file, those of sub-directories too.

    Raises:
        SlideError: If the file ends before its directories or its tiles do, or its directories make no sense.
    """
    with path.open("rb") as stream:
        try:
            pages = _Directories(stream, path).load()
        except (struct.error, ValueError, OverflowError, MemoryError) as error:
            raise SlideError(
                f"slide '{path.name}' is damaged: its TIFF directory cannot be understood ({error}). Copy it again "
                "from its source."
            ) from error
    return pages


class _Directories:
    """A walk along the directories of an open TIFF file."""

    def __init__(self, stream: BinaryIO, path: Path) -> None:
        self.stream, self.path = stream, path
        self.n_bytes = path.stat().st_size
        head = stream.read(16)
        self.order = "<" if head[:2] == b"II" else ">"
        self.big = struct.unpack(self.order + "H", head[2:4])[0] == 43
        self.first: int = struct.unpack(self.order + ("Q" if self.big else "I"), head[8:16] if self.big else head[4:8])[
            0
        ]

    def load(self) -> tuple[TiffPage, ...]:
        """Follow the chain and the sub-directories, each directory once."""
        pages: list[TiffPage] = []
        seen, at, directory = {0}, self.first, 0
        while at not in seen and len(seen) < _MAX_DIRECTORIES:
            seen.add(at)
            here = at
            tags, at = self.read_directory(at)
            pages.extend(self.make_pages(tags, directory, at=here))
            for number, sub in enumerate(tags.get("SubIFDs", ())):
                if int(sub) not in seen:
                    seen.add(int(sub))
                    pages.extend(self.make_pages(self.read_directory(int(sub))[0], directory, number, at=int(sub)))
            directory += 1
        if not pages:
            raise ValueError("it lists no image")
        return tuple(pages)

    def read(self, at: int, n_bytes: int) -> bytes:
        """Read bytes, or say that the file ends too early."""
        if at + n_bytes > self.n_bytes:
            raise SlideError(
                f"slide '{self.path.name}' is cut short: its directory refers to byte {at + n_bytes:,} and the file "
                f"ends at {self.n_bytes:,}. Copy it again from its source."
            )
        self.stream.seek(at)
        return self.stream.read(n_bytes)

    def read_directory(self, at: int) -> tuple[Tags, int]:
        """Read one directory's tags that matter here, and where the next directory lies."""
        count_format, entry_bytes, next_format = ("Q", 20, "Q") if self.big else ("H", 12, "I")
        count_bytes, next_bytes = struct.calcsize(count_format), struct.calcsize("=" + next_format)
        n_entries = struct.unpack(self.order + count_format, self.read(at, count_bytes))[0]
        block = self.read(at + count_bytes, n_entries * entry_bytes + next_bytes)
        tags: Tags = {}
        for start in range(0, n_entries * entry_bytes, entry_bytes):
            entry = block[start : start + entry_bytes]
            code, kind = struct.unpack(self.order + "HH", entry[:4])
            tag = tifffile.TIFF.TAGS.get(code, "")
            if tag in _WANTED and kind in _FORMATS:
                tags[tag] = self.read_value(kind, entry[4:])
        following: int = struct.unpack(self.order + next_format, block[-next_bytes:])[0]
        return tags, following

    def read_value(self, kind: int, field: bytes) -> NDArray[np.int64] | bytes:
        """Read a tag's value, which lies in the entry where it fits and elsewhere in the file where not."""
        word = "Q" if self.big else "I"
        half = len(field) // 2
        n_values = struct.unpack(self.order + word, field[:half])[0]
        n_bytes = n_values * struct.calcsize("=" + _FORMATS[kind])
        content = field[half : half + n_bytes]
        if n_bytes > half:
            content = self.read(struct.unpack(self.order + word, field[half:])[0], n_bytes)
        if kind in (1, 2, 7):
            return content
        return np.frombuffer(content, dtype=np.dtype(self.order + _FORMATS[kind][0])).astype(np.int64)

    def make_pages(self, tags: Tags, directory: int, sub: int = -1, *, at: int) -> list[TiffPage]:
        """Turn tags into a page, where they describe one, and check that its tiles lie inside the file."""
        if "ImageWidth" not in tags or "ImageLength" not in tags:
            return []
        size = _number(tags, "ImageWidth", 0), _number(tags, "ImageLength", 0)
        tiled = "TileOffsets" in tags
        tile_size = (
            (_number(tags, "TileWidth", 0), _number(tags, "TileLength", 0))
            if tiled
            else (size[0], min(size[1], _number(tags, "RowsPerStrip", size[1])))
        )
        if min(*size, *tile_size) < 1:
            raise ValueError(f"an image of {size[0]} x {size[1]} in tiles of {tile_size[0]} x {tile_size[1]}")
        offsets = np.asarray(tags.get("TileOffsets" if tiled else "StripOffsets", np.empty(0)), dtype=np.int64)
        n_bytes = np.asarray(tags.get("TileByteCounts" if tiled else "StripByteCounts", np.empty(0)), dtype=np.int64)
        if offsets.size != n_bytes.size:
            raise ValueError(f"{offsets.size} tile positions for {n_bytes.size} tile lengths")
        ends = (offsets + n_bytes)[n_bytes > 0]
        if ends.size and ends.max() > self.n_bytes:
            raise SlideError(
                f"slide '{self.path.name}' is cut short: {np.count_nonzero(ends > self.n_bytes):,} of {ends.size:,} "
                f"tiles of its image of {size[0]} x {size[1]} pixels lie beyond the file's end at {self.n_bytes:,} "
                "bytes. Copy it again from its source."
            )
        tables, description = tags.get("JPEGTables", b""), tags.get("ImageDescription", b"")
        page = TiffPage(
            size=size,
            compression=_number(tags, "Compression", 1),
            tile_size=tile_size,
            tiled=tiled,
            offsets=offsets,
            n_bytes=n_bytes,
            jpeg_tables=tables if isinstance(tables, bytes) else b"",
            description=description.rstrip(b"\0").decode("utf-8", "replace") if isinstance(description, bytes) else "",
            directory=directory,
            sub=sub,
            at=at,
            is_reduced=bool(_number(tags, "NewSubfileType", 0) & 1),
            bits=_numbers(tags, "BitsPerSample") or (1,),
            photometric=_number(tags, "PhotometricInterpretation", -1),
            n_samples=_number(tags, "SamplesPerPixel", 1),
            is_planar=_number(tags, "PlanarConfiguration", 1) == 2 and _number(tags, "SamplesPerPixel", 1) > 1,
            orientation=_number(tags, "Orientation", 1),
            fill_order=_number(tags, "FillOrder", 1),
            extra_samples=_numbers(tags, "ExtraSamples"),
            sample_format=max(_numbers(tags, "SampleFormat") or (1,)),
            max_value=max(_numbers(tags, "SMaxSampleValue") or _numbers(tags, "MaxSampleValue") or (0,)) or None,
            resolution=_ratios(tags),
            unit=_number(tags, "ResolutionUnit", 1),
        )
        return [page]


def find_page_scales(pages: Sequence[TiffPage], sizes: Sequence[tuple[int, int]]) -> tuple[float | None, ...] | None:
    """Find the scale of each level by the resolution that its own page states.

    Args:
        pages: All images of the file.
        sizes: `(width, height)` of each level, finest first.

    Returns:
        Level-0 pixels per pixel of each level; None for a level whose page states nothing, or nothing coarser than
        level 0's, as by writers that repeat its tags on every page.
    """
    stated = []
    for size in sizes:
        said = {page.um_per_px for page in pages if page.size == size}
        stated.append(next(iter(said)) if len(said) == 1 else None)
    finest = stated[0] if stated else None
    if finest is None:
        return None
    return tuple(None if um is None or um < 1.01 * finest else um / finest for um in stated)


def _number(tags: Tags, tag: str, default: int) -> int:
    """Read a tag that holds one number."""
    values = tags.get(tag)
    return int(values[0]) if isinstance(values, np.ndarray) and values.size else default


def _numbers(tags: Tags, tag: str) -> tuple[int, ...]:
    """Read a tag that holds a number a sample; bytes count as numbers."""
    return tuple(int(value) for value in tags.get(tag, ()))


def _ratios(tags: Tags) -> tuple[float, float] | None:
    """Read the resolution of both axes, pixels per unit; None where one is missing or not above 0."""
    x, y = _numbers(tags, "XResolution"), _numbers(tags, "YResolution")
    if len(x) < 2 or len(y) < 2 or min(*x[:2], *y[:2]) <= 0:
        return None
    return x[0] / x[1], y[0] / y[1]
