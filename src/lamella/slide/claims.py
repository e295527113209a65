"""What an image's header claims, held against its file before anything is decoded.

A few bytes can claim more pixels than memory and disk hold, or fewer bytes can than any compression makes: such files
are refused from their headers.
"""

import struct
from pathlib import Path
from typing import BinaryIO

from lamella.errors import SlideError

MOST_PX = 1 << 40
"""Pixels of a slide: one million by one million; the largest scans have a tenth of that."""
MOST_PLAIN_PX = 1 << 31
"""Pixels of an image that is decoded whole, 6 GB of them."""
_MOST_PX_A_BYTE = 1100 * 8  # deflate's limit is 1032 bytes a byte, with 1 bit a pixel; JPEG's lies below
_ALWAYS_PX = 1 << 24
_MOST_SPARSE_PX, _MOST_SPARSE_PX_A_BYTE = 1 << 34, 5000  # of a slide whose empty tiles are not stored
_MOST_FRAME_PX = 1 << 28
_NO_FRAME = (0xC4, 0xC8, 0xCC)  # markers among those of frames
_MOST_SEGMENTS = 4096


def refuse_plain_claims(path: Path) -> None:
    """Refuse a PNG or JPEG that claims more pixels than can be decoded, or than its bytes can hold.

    Raises:
        SlideError: In which case nothing of it was decoded.
    """
    with path.open("rb") as stream:
        size = find_claimed_size(stream)
    if size is None:
        raise SlideError(
            f"slide '{path.name}' is damaged: its header states no size. Copy it again from its source, or leave it "
            "out."
        )
    n_px, n_bytes = size[0] * size[1], path.stat().st_size
    if n_px > MOST_PLAIN_PX:
        raise SlideError(
            f"slide '{path.name}' claims {size[0]} x {size[1]} pixels, and a PNG or JPEG, which is decoded whole, may "
            f"have {MOST_PLAIN_PX:,}. Convert it: vips tiffsave IN OUT.tif --tile --pyramid --compression jpeg."
        )
    if not can_hold(n_bytes, n_px):
        raise _refuse_claim(path, size, n_bytes)


def can_hold(n_bytes: int, n_px: int) -> bool:
    """Say whether so many bytes can be an image of so many pixels, in any compression of a plain image."""
    return n_px <= max(_ALWAYS_PX, _MOST_PX_A_BYTE * n_bytes)


def refuse_slide_claims(path: Path, size: tuple[int, int], *, n_bytes: int | None = None) -> None:
    """Refuse a slide that claims more pixels than scanners make, or than its file can hold.

    Args:
        path: The slide.
        size: `(width, height)` of level 0, in pixels.
        n_bytes: Length of the file, where it holds the whole slide.

    Raises:
        SlideError: If it does.
    """
    n_px = size[0] * size[1]
    if n_px > MOST_PX:
        raise SlideError(
            f"slide '{path.name}' claims {size[0]} x {size[1]} pixels, and no scanner makes more than {MOST_PX:,}: "
            "its header is damaged. Copy it again from its source, or leave it out."
        )
    if n_bytes is not None and n_px > max(_MOST_SPARSE_PX, _MOST_SPARSE_PX_A_BYTE * n_bytes):
        raise _refuse_claim(path, size, n_bytes)


def refuse_frame_claims(path: Path, frame: tuple[int, int]) -> None:
    """Refuse a DICOM file whose single frames, `(width, height)` in pixels, cannot be held.

    Raises:
        SlideError: If they are too large.
    """
    if frame[0] * frame[1] > _MOST_FRAME_PX:
        raise SlideError(
            f"slide '{path.name}' claims frames of {frame[0]} x {frame[1]} pixels, and a frame may have "
            f"{_MOST_FRAME_PX:,}. Export it in tiles with the scanner's software."
        )


def find_claimed_size(stream: BinaryIO) -> tuple[int, int] | None:
    """Find `(width, height)` in the header of a PNG, a JPEG or a JPEG 2000 codestream; None where there is none.

    Example:
        >>> import io
        >>> find_claimed_size(io.BytesIO(bytes.fromhex("ffd8 ffc0 0011 08 0030 0040 03") + bytes(9)))
        (64, 48)
    """
    head = stream.read(24)
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return struct.unpack(">II", head[16:24]) if len(head) == 24 and head[12:16] == b"IHDR" else None
    if head[:4] == b"\xff\x4f\xff\x51":  # SIZ: extent and offset of the reference grid
        if len(head) < 24:
            return None
        right, bottom, left, top = struct.unpack(">IIII", head[8:24])
        return right - left, bottom - top
    if head[:2] == b"\xff\xd8":
        stream.seek(2)
        return _find_jpeg_size(stream)
    return None


def _find_jpeg_size(stream: BinaryIO) -> tuple[int, int] | None:
    """Walk along the segments of a JPEG to its frame."""
    for _ in range(_MOST_SEGMENTS):
        mark = stream.read(2)
        while mark[:1] == b"\xff" and mark[1:] == b"\xff":  # padding before a marker
            mark = mark[1:] + stream.read(1)
        length = stream.read(2)
        if len(mark) < 2 or mark[0] != 0xFF or len(length) < 2 or mark[1] in (0xD9, 0xDA):
            return None
        if 0xC0 <= mark[1] <= 0xCF and mark[1] not in _NO_FRAME:
            frame = stream.read(5)
            if len(frame) < 5:
                return None
            height, width = struct.unpack(">HH", frame[1:])
            return width, height
        stream.seek(int.from_bytes(length, "big") - 2, 1)
    return None


def _refuse_claim(path: Path, size: tuple[int, int], n_bytes: int) -> SlideError:
    return SlideError(
        f"slide '{path.name}' claims {size[0]} x {size[1]} pixels in a file of {n_bytes:,} bytes, which cannot hold "
        "them: it is damaged. Copy it again from its source, or leave it out."
    )
