"""Slides with something wrong, and cohorts of them."""

import struct
import zlib
from pathlib import Path

from lamella.files import write_json
from tests import tiny
from tests.gallery.scenes.encoders import write_encoder
from tests.gallery.scenes.tables import cut_short, write_table
from tests.slide.drawn import draw, write_levels


def draw_slide(path: str, *, mpp: float | tuple[float, float] | None = 0.5, blank: bool = False, seed: int = 0) -> None:
    """Draw a tiny slide without loss, so that what is found on it is the same everywhere."""
    pixels = tiny.draw_glass(seed) if blank else tiny.draw_tissue(seed)
    tiny.save_slide(Path(path), pixels, mpp=mpp, compression="none")


def draw_other_level(path: str) -> None:
    """Save a slide whose second level is another picture, of another shape."""
    pixels, _ = draw(1000, 750, blobs=((300, 250, 200, 180), (750, 560, 150, 120)))
    other, _ = draw(300, 140, blobs=((200, 70, 80, 50),), seed=3)
    write_levels(Path(path), [pixels, other])


def write_zarr(path: str, *, dtype: str, channels: int) -> None:
    """Save an OME-Zarr image (NGFF 0.4) of 300 x 200 pixels, none of which is stored."""
    image = Path(path)
    (image / "0").mkdir(parents=True)
    shape = [channels, 200, 300]
    array = {"shape": shape, "chunks": shape, "dtype": dtype, "compressor": None, "filters": None, "fill_value": 0}
    write_json(image / "0" / ".zarray", array | {"order": "C", "zarr_format": 2})
    write_json(image / ".zgroup", {"zarr_format": 2})
    axes = [{"name": name, "type": kind} for name, kind in (("c", "channel"), ("y", "space"), ("x", "space"))]
    write_json(image / ".zattrs", {"multiscales": [{"version": "0.4", "axes": axes, "datasets": [{"path": "0"}]}]})


def draw_twins() -> None:
    """Draw six slides, one of them twice under two names."""
    rows = ["slide,label"]
    for i, name in enumerate(("S-0412", "S-0413", "S-0414", "S-0415", "S-0416", "S-0587")):
        draw_slide(f"{name}.tif", seed=0 if name == "S-0587" else i)
        rows.append(f"{name}.tif,{'malignant' if i % 2 else 'benign'}")
    write_table("slides.csv", *rows)


def draw_truncated() -> None:
    """Draw a slide that ends before its pixels do."""
    draw_slide("S-0412.tif")
    cut_short("S-0412.tif", 600_000)


def draw_unreadable() -> None:
    """Write six slides that are none, and an encoder."""
    write_encoder("mine.py")
    rows = ["slide,label"]
    for i in range(6):
        Path(f"S-{412 + i:04d}.svs").write_text(f"note {i}\n", encoding="utf-8")
        rows.append(f"S-{412 + i:04d}.svs,{'malignant' if i % 2 else 'benign'}")
    write_table("slides.csv", *rows)


def draw_mostly_unreadable() -> None:
    """Draw six slides, two malignant ones of them unreadable, and an encoder."""
    draw_unreadable()
    rows = ["slide,label"]
    for i in range(6):
        name = f"S-{412 + i:04d}.svs" if i in (1, 3) else f"S-{412 + i:04d}.tif"
        if name.endswith(".tif"):
            draw_slide(name, seed=i)
        rows.append(f"{name},{'malignant' if i % 2 else 'benign'}")
    write_table("slides.csv", *rows)


def draw_zeroed(path: str) -> None:
    """Draw a slide in JPEG, of which a run of bytes in the middle is zero."""
    tiny.save_slide(Path(path), tiny.draw_tissue(0), mpp=0.5, compression="jpeg")
    content = bytearray(Path(path).read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4096] = bytes(4096)
    Path(path).write_bytes(content)


def write_png_header(path: str, width: int, height: int) -> None:
    """Write a PNG of a few bytes that claims a size."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    content = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    Path(path).write_bytes(b"\x89PNG\r\n\x1a\n" + content)
