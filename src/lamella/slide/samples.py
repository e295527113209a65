"""What the samples of a TIFF page mean, and how they become 8-bit RGB: by its tags, never by a guess.

What cannot be told is refused by name. What a user may not expect is said in a note.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from lamella.errors import SlideError
from lamella.slide.tiff import JPEG, TiffPage

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR, CIELAB = 0, 1, 2, 3, 5, 6, 8
ASSOCIATED, UNASSOCIATED = 1, 2
APERIO_YCBCR, APERIO_RGB = 33003, 33005
_EXPORT = "Export it as 8-bit RGB, as JPEG or deflate in a TIFF, with the program that made it."
_PHOTOMETRICS = {
    4: "a mask",
    CMYK: "CMYK, the inks of a printer",
    CIELAB: "CIELAB",
    9: "ICCLab",
    10: "ITULab",
    32803: "a camera's raw mosaic",
    32844: "LogL",
    32845: "LogLuv",
    34892: "a camera's raw values",
}
# Codecs that return RGB whatever the photometric tag says.
_RETURNS_RGB = (JPEG, 34892, APERIO_YCBCR, 33004, APERIO_RGB, 34712, 50001, 34927, 50002, 52546, 34934, 22610)


def name_codec(compression: int) -> str:
    """Name a TIFF compression scheme as tifffile does, by its number where that has no name for it."""
    try:
        return tifffile.COMPRESSION(compression).name
    except ValueError:
        return f"TIFF compression scheme {compression}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """How the samples of a page become RGB.

    Attributes:
        photometric: What the colour samples are: `WHITE_IS_ZERO`, `BLACK_IS_ZERO`, `RGB`, `PALETTE` or `YCBCR`.
        n_colours: 1 or 3: how many samples are colour.
        max_value: The value that is shown as 255.
        alpha: Which sample is transparency, None where none counts.
        is_associated: Whether colours were multiplied by it.
    """

    photometric: int
    n_colours: int
    max_value: int
    alpha: int | None
    is_associated: bool


def is_ordinary(page: TiffPage) -> bool:
    """Tell whether a page is what every reader reads alike: 8-bit RGB, YCbCr JPEG or grey, not turned, no alpha."""
    colours = {BLACK_IS_ZERO: 1, RGB: 3, YCBCR: 3}.get(page.photometric)
    return (
        colours == page.n_samples
        and set(page.bits) == {8}
        and page.sample_format == 1
        and not page.is_planar
        and page.orientation == page.fill_order == 1
        and not page.extra_samples
        and (page.photometric != YCBCR or page.compression == JPEG)
        and page.max_value in (None, 255)
    )


def describe_samples(name: str, planes: Sequence[TiffPage], significant_bits: int | None) -> Samples:
    """Say how the samples of one level become RGB.

    Args:
        name: The slide's file name, for messages.
        planes: The pages that hold the level: one, or three of one sample each for red, green and blue.
        significant_bits: How many bits values use, where the file says so elsewhere than in its tags.

    Raises:
        SlideError: If they are of a kind that has no agreed meaning as colour.
    """
    page = planes[0]
    if page.photometric in _PHOTOMETRICS:
        _refuse(name, f"stores colours as {_PHOTOMETRICS[page.photometric]}")
    if page.sample_format != 1:
        numbers = {2: "signed integers", 3: "floating-point numbers"}.get(page.sample_format, "numbers of unknown type")
        _refuse(name, f"stores {page.bits[0]}-bit {numbers}, for which black and white are not defined,")
    if len(set(page.bits)) != 1 or page.bits[0] > 16:
        _refuse(name, f"stores samples of {' + '.join(map(str, sorted(set(page.bits))))} bits")
    photometric, n_samples = page.photometric, page.n_samples if len(planes) == 1 else len(planes)
    if photometric == YCBCR and page.compression in _RETURNS_RGB:
        photometric = RGB
    if photometric == BLACK_IS_ZERO and n_samples == 3:
        photometric = RGB
    n_colours = 3 if photometric in (RGB, YCBCR) else 1
    if photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, YCBCR) or n_samples < n_colours:
        _refuse(name, f"stores {n_samples} samples a pixel under photometric interpretation {photometric}")
    if photometric == PALETTE and page.bits[0] not in (1, 2, 4, 8, 16):
        _refuse(name, f"stores a palette of {page.bits[0]} bits")
    extra = page.extra_samples if n_samples > n_colours else ()
    alphas = [(n_colours + number, kind) for number, kind in enumerate(extra) if kind in (ASSOCIATED, UNASSOCIATED)]
    alpha, kind = alphas[0] if alphas and alphas[0][0] < n_samples else (None, 0)
    return Samples(
        photometric=photometric,
        n_colours=n_colours,
        max_value=_find_max_value(page, significant_bits),
        alpha=alpha,
        is_associated=kind == ASSOCIATED,
    )


def _find_max_value(page: TiffPage, significant_bits: int | None) -> int:
    """Find the value that is white: by the bits that are used, where the file says so, else by those stored."""
    bits, whole = page.bits[0], (1 << page.bits[0]) - 1
    if significant_bits is not None and 1 < significant_bits < bits:
        return (1 << significant_bits) - 1
    if page.max_value is not None and 1 < page.max_value < whole and bits > 8:
        return (1 << page.max_value.bit_length()) - 1
    return whole


def states_depth(page: TiffPage, significant_bits: int | None) -> bool:
    """Tell whether a file says how many bits its values use, or stores them in so many."""
    return page.bits[0] != 16 or significant_bits is not None or page.max_value is not None


def convert_samples(
    pixels: NDArray[Any], samples: Samples, palette: NDArray[np.uint16] | None = None
) -> NDArray[np.uint8]:
    """Turn samples into `(h, w, 3)` uint8 RGB, laid on white where transparency counts.

    Args:
        pixels: `(h, w, n_samples)`, unsigned integers or booleans.
        samples: What they are.
        palette: `(3, n)` uint16 colours of a palette.
    """
    if samples.photometric == PALETTE:
        assert palette is not None
        most = 65535 if palette.max(initial=0) > 255 else 255  # some writers keep 8-bit colours
        return np.ascontiguousarray(_scale(palette, most).T[pixels[:, :, 0].astype(np.intp)])
    colours = pixels[:, :, : samples.n_colours]
    shown = _scale(colours, samples.max_value)
    if samples.photometric == WHITE_IS_ZERO:
        shown = np.subtract(255, shown, dtype=np.uint8)
    if samples.photometric == YCBCR:
        shown = np.asarray(Image.fromarray(shown, mode="YCbCr").convert("RGB"))
    if samples.alpha is not None:
        alpha = _scale(pixels[:, :, samples.alpha : samples.alpha + 1], samples.max_value).astype(np.uint16)
        below = 255 * (255 - alpha)
        seen = shown.astype(np.uint16) * (np.uint16(255) if samples.is_associated else alpha)
        shown = ((np.minimum(seen.astype(np.uint32) + below, 255 * 255) + 127) // 255).astype(np.uint8)
    return np.ascontiguousarray(shown if samples.n_colours == 3 else np.repeat(shown, 3, axis=2))


def _scale(values: NDArray[Any], max_value: int) -> NDArray[np.uint8]:
    """Scale values so that `max_value` is 255, rounded."""
    if max_value == 255 and values.dtype == np.uint8:
        return np.asarray(values)
    wide = np.minimum(values.astype(np.uint32), max_value)
    scaled: NDArray[np.uint8] = ((wide * 255 + max_value // 2) // max_value).astype(np.uint8)
    return scaled


def _refuse(name: str, what: str) -> None:
    """Refuse samples that no agreed rule turns into colours."""
    raise SlideError(f"slide '{name}' {what} and 8- to 16-bit RGB or grey is needed. {_EXPORT}")
