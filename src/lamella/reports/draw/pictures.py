"""Pictures: what every drawing here shares: lettering, scale bars, and PNG files that know their own caption.

A picture has a title strip above its body. The page writes its own captions (perhaps under pseudonyms), so each PNG
records where its body lies, and the page takes that alone.
"""

import io
import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from lamella.files import write_bytes

INK = (27, 42, 51)
FAINT = (96, 111, 120)
PAPER = (255, 255, 255)
_BODY_KEY = "lamella:body"


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """A drawing with a title strip.

    Attributes:
        rgb: `(h, w, 3)` uint8.
        body: `(left, top, right, bottom)` of the part without the title strip, in pixels of `rgb`.
    """

    rgb: NDArray[np.uint8]
    body: tuple[int, int, int, int]


def save_picture(picture: Picture, path: Path) -> None:
    """Write a picture as PNG, with nothing in it but pixels and the place of its body.

    Raises:
        OutputError: If the file cannot be written.
    """
    notes = PngImagePlugin.PngInfo()
    notes.add_text(_BODY_KEY, ",".join(str(edge) for edge in picture.body))
    stream = io.BytesIO()
    # Level 4 is a few per cent larger than the smallest, and ten times as fast.
    Image.fromarray(picture.rgb).save(stream, format="PNG", pnginfo=notes, compress_level=4)
    write_bytes(path, stream.getvalue())


def load_body(path: Path) -> NDArray[np.uint8] | None:
    """Read a PNG without its title strip.

    Returns:
        `(h, w, 3)` uint8; None when the file does not say where its body lies (then its title may name a slide).
    """
    with Image.open(path, formats=("PNG",)) as image:
        body = image.info.get(_BODY_KEY)
        if not isinstance(body, str):
            return None
        left, top, right, bottom = (int(edge) for edge in body.split(","))
        return np.asarray(image.convert("RGB").crop((left, top, right, bottom)))


@lru_cache(maxsize=32)
def find_font(size_px: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """Return the lettering of all pictures (DejaVu Sans, which matplotlib brings) at `size_px` pixels."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size_px)


def fit_text(text: str, font: ImageFont.FreeTypeFont, width_px: float) -> str:
    """Return `text`, its end replaced by '...' when it is wider than `width_px` pixels."""
    text = " ".join(text.split())
    if font.getlength(text) <= width_px:
        return text
    while text and font.getlength(text + "...") > width_px:
        text = text[:-1]
    return text.rstrip() + "..."


def choose_scale_bar(width_um: float, *, share: float = 0.25) -> float:
    """Return the longest round length, 1, 2 or 5 times a power of ten, within `share` of `width_um`.

    Example:
        >>> choose_scale_bar(9_000.0)
        2000.0
    """
    longest = width_um * share
    power = 10.0 ** math.floor(math.log10(longest))
    return max(step * power for step in (1.0, 2.0, 5.0) if step * power <= longest * (1 + 1e-9))


def draw_scale_bar(draw: ImageDraw.ImageDraw, corner: tuple[float, float], um_per_px: float, width_px: float) -> None:
    """Draw a scale bar of round length with its length in um.

    Args:
        draw: Where to draw.
        corner: `(x, y)` of the bar's top-left end, picture pixels.
        um_per_px: um that one picture pixel spans.
        width_px: Width of the drawing that the bar belongs to, picture pixels; the bar takes at most a quarter.
    """
    length_um = choose_scale_bar(width_px * um_per_px)
    length_px = length_um / um_per_px
    x, y = corner
    draw.rectangle((round(x), round(y), round(x + length_px) - 1, round(y) + 5), fill=INK)
    draw.text((x + length_px + 10, y + 3), f"{length_um:g} um", fill=INK, font=find_font(17), anchor="lm")
