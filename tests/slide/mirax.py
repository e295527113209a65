"""A true MIRAX slide, as small as OpenSlide opens it: Slidedat.ini, Index.dat and one Data file of JPEG tiles."""

import io
import struct
from pathlib import Path

import numpy as np
from PIL import Image

VERSION, SLIDE_ID = "01.02", "0123456789abcdef0123456789abcdef"


def write_mirax(path: Path, scan, corner_tiles, canvas_tiles, *, tile=64, mpp=0.5, n_levels=3) -> None:
    """Write a scan `(h, w, 3)` whose sides are whole tiles onto a canvas of tiles that were never scanned otherwise.

    Args:
        path: The index, ends in .mrxs; the folder of its name is made beside it.
        scan: What was scanned.
        corner_tiles: `(x, y)` of the scan's corner on the canvas, in tiles; a multiple of 2 ** (n_levels - 1).
        canvas_tiles: `(x, y)` tiles of the canvas.
        tile: Side of a tile, pixels.
        mpp: um per level-0 pixel.
        n_levels: Levels, each half the one before.
    """
    folder = path.with_suffix("")
    folder.mkdir(parents=True)
    path.write_bytes(_jpeg(np.full((8, 8, 3), 200, np.uint8)))
    data = bytearray(VERSION.encode() + SLIDE_ID.encode() + b"0".rjust(12))
    records = []
    level = scan
    for k in range(n_levels):
        own = []
        for y in range(level.shape[0] // tile):
            for x in range(level.shape[1] // tile):
                jpeg = _jpeg(level[y * tile : (y + 1) * tile, x * tile : (x + 1) * tile])
                index = (corner_tiles[1] + (y << k)) * canvas_tiles[0] + corner_tiles[0] + (x << k)
                own.append((index, len(data), len(jpeg), 0))
                data += jpeg
        records.append(own)
        height, width = level.shape[0] // 2, level.shape[1] // 2
        level = level.reshape(height, 2, width, 2, 3).mean((1, 3)).round().astype(np.uint8)
    (folder / "Data0000.dat").write_bytes(bytes(data))
    (folder / "Index.dat").write_bytes(_index(records))
    (folder / "Slidedat.ini").write_text(_slidedat(canvas_tiles, tile, mpp, n_levels), encoding="utf-8")


def _index(records) -> bytes:
    head = VERSION.encode() + SLIDE_ID.encode()
    roots = len(head)
    table = roots + 8  # a pointer for each level
    page = table + 4 * len(records)
    pointers, pages = b"", b""
    for own in records:
        pointers += struct.pack("<i", page)
        content = struct.pack("<iiii", 0, page + 8, len(own), 0)
        content += b"".join(struct.pack("<iiii", *record) for record in own)
        pages += content
        page += len(content)
    return head + struct.pack("<ii", table, table) + pointers + pages


def _slidedat(canvas_tiles, tile, mpp, n_levels) -> str:
    sections = {
        "GENERAL": {
            "SLIDE_VERSION": VERSION,
            "SLIDE_ID": SLIDE_ID,
            "IMAGENUMBER_X": canvas_tiles[0],
            "IMAGENUMBER_Y": canvas_tiles[1],
            "OBJECTIVE_MAGNIFICATION": 20,
            "CameraImageDivisionsPerSide": 1,
        },
        "HIERARCHICAL": {
            "HIER_COUNT": 1,
            "NONHIER_COUNT": 0,
            "INDEXFILE": "Index.dat",
            "HIER_0_NAME": "Slide zoom level",
            "HIER_0_COUNT": n_levels,
        }
        | {f"HIER_0_VAL_{k}_SECTION": f"LAYER_0_LEVEL_{k}_SECTION" for k in range(n_levels)},
        "DATAFILE": {"FILE_COUNT": 1, "FILE_0": "Data0000.dat"},
    }
    for k in range(n_levels):
        sections[f"LAYER_0_LEVEL_{k}_SECTION"] = {
            "OVERLAP_X": 0,
            "OVERLAP_Y": 0,
            "MICROMETER_PER_PIXEL_X": mpp * 2**k,
            "MICROMETER_PER_PIXEL_Y": mpp * 2**k,
            "IMAGE_FILL_COLOR_BGR": 16777215,
            "DIGITIZER_WIDTH": tile,
            "DIGITIZER_HEIGHT": tile,
            "IMAGE_FORMAT": "JPEG",
            "IMAGE_CONCAT_FACTOR": 0 if k == 0 else 1,
        }
    lines = []
    for name, values in sections.items():
        lines += [f"[{name}]", *(f"{key} = {value}" for key, value in values.items())]
    return "\r\n".join(lines) + "\r\n"


def _jpeg(pixels) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=95, subsampling=0)
    return stream.getvalue()
