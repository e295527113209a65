"""What the header of a DICOM whole-slide file says of the slide it belongs to; no pixel is read.

A slide in DICOM is a series of files, one or more a level. Which files belong together is said by the
SeriesInstanceUID alone, not by names or folders.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_TRANSFER_SYNTAX, _IMAGE_TYPE, _SERIES = 0x00020010, 0x00080008, 0x0020000E
_PIXEL_SPACING, _COLUMNS, _ROWS = 0x00280030, 0x00480006, 0x00480007
_FRAME_ROWS, _FRAME_COLUMNS = 0x00280010, 0x00280011
_PER_FRAME, _ITEM, _ITEM_END, _SEQUENCE_END = 0x52009230, 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_SHARED, _MEASURES = 0x52009229, 0x00289110
_WANTED = (_TRANSFER_SYNTAX, _IMAGE_TYPE, _SERIES, _PIXEL_SPACING, _COLUMNS, _ROWS, _FRAME_ROWS, _FRAME_COLUMNS)
_IMPLICIT = "1.2.840.10008.1.2"
_LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
_UNDEFINED = 0xFFFFFFFF
_MAX_ELEMENTS = 100_000


@dataclass(frozen=True, slots=True)
class DicomHeader:
    """What one file says.

    Attributes:
        series_uid: Files of one slide share it.
        is_volume: Whether it is a level of the slide, not its label, overview or thumbnail.
        size: `(width, height)` of the level in pixels, None where the file does not say.
        spacing_mm: `(x, y)` mm from one pixel to the next, None where the file does not say.
        frame: `(width, height)` of each frame (tile) in pixels, None where the file does not say.
    """

    series_uid: str
    is_volume: bool
    size: tuple[int, int] | None
    spacing_mm: tuple[float, float] | None
    frame: tuple[int, int] | None


def read_dicom_header(path: Path) -> DicomHeader | None:
    """Read the header of a DICOM file; None for any other file, or one that does not name its series."""
    try:
        with path.open("rb") as stream:
            if stream.read(132)[128:] != b"DICM":
                return None
            values = dict(reversed(list(_walk(stream))))  # of a tag that occurs twice the first counts
    except (OSError, struct.error, EOFError):
        return None
    series = _text(values.get(_SERIES, b""))
    if not series:
        return None
    width, height = (_whole(values.get(tag)) for tag in (_FRAME_COLUMNS, _FRAME_ROWS))
    columns, rows = (_whole(values.get(tag)) for tag in (_COLUMNS, _ROWS))
    return DicomHeader(
        series_uid=series,
        is_volume="VOLUME" in _text(values.get(_IMAGE_TYPE, b"")).split("\\"),
        size=None if columns is None or rows is None else (columns, rows),
        spacing_mm=_read_spacing(values.get(_PIXEL_SPACING)),
        frame=None if width is None or height is None else (width, height),
    )


def list_series(folder: Path) -> dict[str, tuple[Path, ...]]:
    """List the slides of a folder: the files of each series that holds a level, levels first, then by name.

    Label and overview belong to their series where they share its UID; a series of nothing else is no slide.
    """
    series: dict[str, list[tuple[bool, Path]]] = {}
    for path in sorted(folder.iterdir()):
        header = read_dicom_header(path) if path.is_file() else None
        if header is not None:
            series.setdefault(header.series_uid, []).append((not header.is_volume, path))
    return {
        uid: tuple(path for _, path in sorted(files))
        for uid, files in series.items()
        if not all(is_other for is_other, _ in files)
    }


def find_series_uid(path: Path) -> str | None:
    """Return which slide a DICOM file, or a folder of the files of a single one, belongs to; None for anything else."""
    if path.is_dir():
        series = list(list_series(path))
        return series[0] if len(series) == 1 else None
    header = read_dicom_header(path) if path.is_file() else None
    return None if header is None else header.series_uid


def find_level_scales(path: Path, sizes: tuple[tuple[int, int], ...]) -> tuple[float | None, ...] | None:
    """Find the scale of each level of a slide by the pixel spacing its files state.

    Args:
        path: Any file of the slide.
        sizes: `(width, height)` of each level, finest first.

    Returns:
        Level-0 pixels per pixel of each level, None for a level that does not say, or whose size two files share with
        different spacings; None in all where level 0 does not say.
    """
    slide_header = read_dicom_header(path)
    if slide_header is None:
        return None
    spacings: dict[tuple[int, int], set[float]] = {}
    for file in path.parent.iterdir():
        header = read_dicom_header(file) if file.is_file() else None
        if (
            header is None
            or header.series_uid != slide_header.series_uid
            or not header.is_volume
            or header.size is None
        ):
            continue
        if header.spacing_mm is not None:
            spacings.setdefault(header.size, set()).add(sum(header.spacing_mm) / 2)
    scales = [min(spacings.get(size, ())) if len(spacings.get(size, ())) == 1 else None for size in sizes]
    finest = scales[0]
    return None if not finest else tuple(None if spacing is None else spacing / finest for spacing in scales)


def list_frames(path: Path) -> list[tuple[Path, tuple[int, int]]]:
    """List the size of the frames, `(width, height)` in pixels, of each file of the slide that a DICOM file is of."""
    slide_header = read_dicom_header(path)
    if slide_header is None:
        return []
    headers = ((file, read_dicom_header(file)) for file in sorted(path.parent.iterdir()) if file.is_file())
    return [
        (file, header.frame)
        for file, header in headers
        if header is not None and header.frame is not None and header.series_uid == slide_header.series_uid
    ]


def _walk(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield tag and value of the elements that matter, up to the frames; sequences that lead to one are gone into."""
    explicit = True
    for _ in range(_MAX_ELEMENTS):
        head = stream.read(8)
        if len(head) < 8:
            return
        group, element = struct.unpack("<HH", head[:4])
        tag = group << 16 | element
        if tag >= _PER_FRAME and group != 0xFFFE:
            return
        kind, n_bytes = b"", struct.unpack("<I", head[4:])[0]
        if group != 0xFFFE and (explicit or group == 2):
            kind, n_bytes = head[4:6], struct.unpack("<H", head[6:])[0]
            if kind in _LONG:
                n_bytes = struct.unpack("<I", stream.read(4))[0]
        # Into every sequence of unknown length, whose end is not told otherwise, and into those that lead to a spacing.
        if n_bytes == _UNDEFINED or tag in (_ITEM, _ITEM_END, _SEQUENCE_END, _SHARED, _MEASURES):
            continue
        if tag in _WANTED and n_bytes < 4096:
            value = stream.read(n_bytes)
            if tag == _TRANSFER_SYNTAX:
                explicit = _text(value) != _IMPLICIT
            yield tag, value
        else:
            stream.seek(n_bytes, 1)


def _text(value: bytes) -> str:
    return value.decode("latin-1").strip("\0 ")


def _whole(value: bytes | None) -> int | None:
    return int.from_bytes(value, "little") if value is not None and len(value) in (2, 4) else None


def _read_spacing(value: bytes | None) -> tuple[float, float] | None:
    """Read PixelSpacing, which gives the step between rows first."""
    try:
        y, x = (float(part) for part in _text(value or b"").split("\\"))
    except ValueError:
        return None
    return (x, y) if x > 0 and y > 0 else None
