"""The libraries that decode slides, behind one face.

Each reader takes boxes that lie wholly inside a level, in that level's pixels, and returns RGB on white. Which one a
file gets is decided in `lamella.slide.opening`. Associated images (label, macro, thumbnail) are listed by name and
never read: labels show patients' names.
"""

import contextlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pyvips
import tifffile
from numpy.typing import NDArray
from PIL import JpegImagePlugin, PngImagePlugin

from lamella.dicom import find_level_scales
from lamella.errors import SlideError
from lamella.machine import refuse_passing
from lamella.slide.guard import TileGuard

try:  # not on Windows
    import fastslide
except ImportError:
    fastslide = None

_PLAIN_KINDS = {"jpegload": JpegImagePlugin.JpegImageFile, "pngload": PngImagePlugin.PngImageFile}
CACHE_BYTES = 64 << 20  # decoded tiles kept for each open slide, so that neighbouring boxes share their border
_MAX_STEP_BACK = 32
_DEPTHS = (8, 10, 12, 14)  # bits that cameras use of 16


def find_versions() -> dict[str, str | None]:
    """Return the version of each library that decodes slides, None where it is not installed."""
    return {
        "fastslide": None if fastslide is None else str(fastslide.__version__),
        "openslide": str(openslide.__library_version__),
        "libvips": ".".join(str(pyvips.version(part)) for part in range(3)),
        "tifffile": str(tifffile.__version__),
    }


def list_fastslide_suffixes() -> tuple[str, ...]:
    """List the file suffixes that fastslide takes."""
    return () if fastslide is None else tuple(fastslide.get_supported_extensions())


class Reader:
    """What every reader gives; what it leaves out, its file does not state.

    Attributes:
        name: Library and version.
        format: What the library takes the file for.
        level_dimensions: `(width, height)` of each level, finest first.
        stated_mpp: `(x, y)` um per level-0 pixel as the file states it, or None.
        magnification: The objective's nominal magnification, or None.
        associated: Names of associated images, which are never read.
        notes: What a user should know about how this file is read.
        bounds: `(x, y, width, height)` of the scan on the canvas, level-0 pixels, as the file states it, or None.
        stated_scales: Level-0 pixels per pixel of each level as the file states them, or None; a level that states
            none is None.
    """

    name: str
    format: str
    level_dimensions: tuple[tuple[int, int], ...]
    stated_mpp: tuple[float, float] | None = None
    magnification: float | None = None
    associated: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    bounds: tuple[int, int, int, int] | None = None
    stated_scales: tuple[float | None, ...] | None = None

    def read(self, corner: tuple[int, int], level: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Read `(h, w, 3)` uint8 RGB; the box lies inside the level, in its pixels."""
        raise NotImplementedError

    def close(self) -> None:
        """Release the file."""
        raise NotImplementedError


class OpenSlideReader(Reader):
    """OpenSlide: every vendor format it knows, thread-safe, a quarter as fast as libvips on TIFF."""

    def __init__(self, path: Path) -> None:
        self.name = f"openslide {find_versions()['openslide']}"
        self._file = path.name
        try:
            self._slide = openslide.OpenSlide(path)
            self._slide.set_cache(openslide.OpenSlideCache(CACHE_BYTES))
        except (openslide.OpenSlideError, OSError) as error:
            raise refuse_damaged(path.name, error) from error
        properties = self._slide.properties
        self.format = properties.get(openslide.PROPERTY_NAME_VENDOR, "unknown")
        self.level_dimensions = tuple(self._slide.level_dimensions)
        self._downsamples: tuple[float, ...] = tuple(self._slide.level_downsamples)
        x, y = (_read_number(properties.get(f"openslide.mpp-{axis}")) for axis in "xy")
        self.stated_mpp = None if x is None or y is None else (x, y)
        self.magnification = _read_number(properties.get(openslide.PROPERTY_NAME_OBJECTIVE_POWER)) or None
        self.associated = tuple(sorted(self._slide.associated_images))
        self.bounds = _read_bounds(properties)
        # Of Philips TIFF OpenSlide knows the padding of each level, and states scales that are right.
        if self.format == "philips":
            self.stated_scales = self._downsamples
        if self.format == "dicom":
            self.stated_scales = find_level_scales(path, self.level_dimensions)

    def read(self, corner: tuple[int, int], level: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Read `(h, w, 3)` uint8 RGB."""
        # OpenSlide takes whole level-0 pixels: step back to a corner that falls on one, or pixels would be blurred.
        downsample = self._downsamples[level]
        (x, back_x), (y, back_y) = (_find_whole_l0(at, downsample) for at in corner)
        asked = size[0] + back_x, size[1] + back_y
        try:
            rgba = np.asarray(self._slide.read_region((x, y), level, asked))
        except openslide.OpenSlideError as error:
            raise refuse_damaged(self._file, error) from error
        return _lay_on_white(rgba[back_y:, back_x:])

    def close(self) -> None:
        """Release the file."""
        self._slide.close()


class FastslideReader(Reader):
    """fastslide: formats that OpenSlide does not know, such as CZI and iSyntax; never TIFF.

    A broken JPEG in a TIFF ends the process, and colour at half resolution is repeated where others interpolate.
    """

    def __init__(self, path: Path) -> None:
        if fastslide is None:
            raise SlideError(f"slide '{path.name}' needs fastslide, which is not installed. Run: pip install fastslide")
        self.name = f"fastslide {find_versions()['fastslide']}"
        self._file = path.name
        try:
            self._slide = fastslide.FastSlide.from_file_path(path, cache=CACHE_BYTES)
        except (RuntimeError, ValueError, OSError) as error:
            raise refuse_damaged(path.name, error) from error
        self.format = self._slide.format
        self.level_dimensions = tuple((int(width), int(height)) for width, height in self._slide.level_dimensions)
        if not self.level_dimensions:
            raise refuse_damaged(path.name, "it holds no level")
        x, y = self._slide.mpp
        self.stated_mpp = (x, y) if x > 0 and y > 0 else None
        self.magnification = _read_number(self._slide.properties.get("objective_magnification")) or None
        self.associated = tuple(sorted(self._slide.associated_images.keys()))
        if str(self._slide.dtype) != "uint8" or self._slide.num_channels not in (1, 3):
            self.notes = (f"{self._slide.num_channels} channels of {self._slide.dtype} are shown as 8-bit RGB",)

    def read(self, corner: tuple[int, int], level: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Read `(h, w, 3)` uint8 RGB."""
        try:
            image = self._slide.read_region(corner, level, size)
        except (RuntimeError, ValueError, OSError) as error:
            raise refuse_damaged(self._file, error) from error
        return convert_to_rgb(np.asarray(image.numpy()), size, name=self._file)

    def close(self) -> None:
        """Release the file."""
        self._slide.close()


class GuardedReader(Reader):
    """A quick reader for the tiles that are known to be whole, and a careful one for the others.

    Args:
        quick: Decodes tiles that `guard` allows.
        careful: Decodes the others or reports their damage, and says what the slide is; of the same levels.
        guard: Knows which tiles are whole.
    """

    def __init__(self, quick: Reader, careful: Reader, guard: TileGuard) -> None:
        self._quick, self._careful, self._guard = quick, careful, guard
        self.name, self.level_dimensions = quick.name, quick.level_dimensions
        self.format, self.stated_mpp, self.magnification = careful.format, careful.stated_mpp, careful.magnification
        self.associated, self.notes = careful.associated, quick.notes
        self.bounds, self.stated_scales = careful.bounds, careful.stated_scales

    def read(self, corner: tuple[int, int], level: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Read `(h, w, 3)` uint8 RGB."""
        if self._guard.allows(corner, level, size):
            with contextlib.suppress(SlideError):  # the careful one reads it, or says what is wrong
                return self._quick.read(corner, level, size)
        return self._careful.read(corner, level, size)

    def close(self) -> None:
        """Release the file, in both readers."""
        self._guard.close()
        self._quick.close()
        self._careful.close()


class VipsReader(Reader):
    """libvips: PNG, JPEG and any TIFF; OpenSlide's pixels to the last grey level, four to nine times as fast.

    PNG, JPEG and TIFF in strips have no random access of their own: libvips decodes them once at the first read, into
    a temporary file where they exceed 100 MB, so memory stays bounded. EXIF orientation is not applied: pixels, and
    coordinates on them, are as stored. 16-bit, grey and CMYK become 8-bit sRGB; transparency is laid on white. Of a
    tiled TIFF libvips keeps the last two rows of tiles.

    Args:
        path: The image.
        levels: Where each level of a TIFF lies: its directory and, within that, its sub-directory (-1: none).
    """

    def __init__(self, path: Path, levels: Sequence[tuple[int, int]] = ()) -> None:
        self.name = f"libvips {find_versions()['libvips']}"
        self._file = path.name
        try:
            images = [_open_vips(path, level) for level in levels or (None,)]
            self.format = str(images[0].get("vips-loader")).removesuffix("load")
            self.level_dimensions = tuple((int(image.width), int(image.height)) for image in images)
            self.stated_mpp = _find_stated_mpp(path, images[0])
            images, notes = _settle_plain(path.name, images)
            self.notes = (*_describe_vips(images[0]), *notes)
            self._images = [_convert_vips(image) for image in images]
        except pyvips.Error as error:
            raise refuse_damaged(path.name, error) from error

    def read(self, corner: tuple[int, int], level: int, size: tuple[int, int]) -> NDArray[np.uint8]:
        """Read `(h, w, 3)` uint8 RGB."""
        try:
            content = pyvips.Region.new(self._images[level]).fetch(*corner, *size)
        except pyvips.Error as error:
            raise refuse_damaged(self._file, error) from error
        return np.frombuffer(content, dtype=np.uint8).reshape(size[1], size[0], 3).copy()

    def close(self) -> None:
        """Release the file."""
        self._images = []


def convert_to_rgb(pixels: NDArray[Any], size: tuple[int, int], *, name: str) -> NDArray[np.uint8]:
    """Turn whatever a reader returns into `(h, w, 3)` uint8 RGB.

    16-bit values keep their upper byte; one channel is grey; two, or more than four, are fluorescence and are added up
    in red, green and blue by turns; a fourth channel of four is transparency, laid on white.

    Args:
        pixels: `(h, w)`, `(h, w, channels)` or `(channels, h, w)`, any integer type.
        size: `(width, height)` that was asked for.
        name: The slide's file name, for the message.

    Raises:
        SlideError: If the array has another size.
    """
    height, width = size[1], size[0]
    if pixels.ndim == 2:
        pixels = pixels[:, :, np.newaxis]
    if pixels.shape[:2] != (height, width) and pixels.shape[1:] == (height, width):
        pixels = np.moveaxis(pixels, 0, 2)
    if pixels.shape[:2] != (height, width):
        raise refuse_damaged(name, f"{width} x {height} pixels were asked for and {pixels.shape} came")
    if pixels.dtype != np.uint8:
        bits = 8 * pixels.dtype.itemsize
        scaled = pixels >> (bits - 8) if pixels.dtype.kind == "u" else np.clip(pixels, 0, 255)
        pixels = scaled.astype(np.uint8)
    n_channels = pixels.shape[2]
    if n_channels == 3:
        return np.ascontiguousarray(pixels)
    if n_channels == 1:
        return np.repeat(pixels, 3, axis=2)
    if n_channels == 4:
        return _lay_on_white(pixels)
    mixed = [np.minimum(pixels[:, :, colour::3].sum(axis=2, dtype=np.uint32), 255) for colour in range(3)]
    return np.stack(mixed, axis=2).astype(np.uint8)


def _lay_on_white(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Composite straight-alpha RGBA on white."""
    alpha = rgba[:, :, 3:]
    if alpha.size == 0 or alpha.min() == 255:
        return np.ascontiguousarray(rgba[:, :, :3])
    weight = alpha.astype(np.uint16)
    laid: NDArray[np.uint8] = ((rgba[:, :, :3] * weight + 255 * (255 - weight) + 127) // 255).astype(np.uint8)
    return laid


def _find_whole_l0(at: int, downsample: float) -> tuple[int, int]:
    """Find a level pixel at or before `at` that falls closest on a whole level-0 pixel: its place there, steps back."""

    def miss(back: int) -> tuple[float, int]:
        exact = (at - back) * downsample
        return round(abs(exact - round(exact)) / downsample, 6), back

    _, back = min(miss(back) for back in range(min(at, _MAX_STEP_BACK) + 1))
    return round((at - back) * downsample), back


def _open_vips(path: Path, level: tuple[int, int] | None) -> Any:
    """Open a file, or the image of a TIFF in one directory and sub-directory."""
    options = {"access": "random", "fail_on": "warning", "revalidate": True}
    if level is None:
        return pyvips.Image.new_from_file(str(path), **options)
    return pyvips.Image.tiffload(str(path), page=level[0], subifd=level[1], **options)


def _find_stated_mpp(path: Path, image: Any) -> tuple[float, float] | None:
    """Find the resolution a file itself states; where it states none, libvips fills in 72 per inch or 1 per mm."""
    kind = _PLAIN_KINDS.get(str(image.get("vips-loader")))
    if kind is None:  # of a TIFF, its tags are read in `lamella.slide.stated`
        return None
    with kind(path) as header:  # header only; Image.open would warn of large images
        dpi = header.info.get("dpi")
    return (25_400.0 / float(dpi[0]), 25_400.0 / float(dpi[1])) if dpi and min(dpi) > 1 else None


def _describe_vips(image: Any) -> tuple[str, ...]:
    """Say what is done to an image's pixels that a user may not expect."""
    turned = int(image.get("orientation")) if image.get_typeof("orientation") else 1
    notes = [f"EXIF orientation {turned} is not applied: pixels are as stored"] if turned != 1 else []
    if image.format != "uchar":
        notes.append("16-bit values are shown as 8-bit RGB" if image.format == "ushort" else f"{image.format} as 8-bit")
    if image.hasalpha():
        notes.append("its transparency (alpha) is laid on white")
    return tuple(notes)


def _settle_plain(name: str, images: list[Any]) -> tuple[list[Any], list[str]]:
    """Settle what a plain image's values mean: no inks, no transparency that hides all, and how many bits are used."""
    if images[0].interpretation == "cmyk":
        raise SlideError(
            f"slide '{name}' stores colours as CMYK, the inks of a printer, and RGB or grey is needed. Save it as RGB "
            "with the program that made it."
        )
    if str(images[0].get("vips-loader")) not in _PLAIN_KINDS:
        return images, []
    image, notes = images[0], []
    if image.hasalpha() and image[image.bands - 1].max() == 0:
        image = image.extract_band(0, n=image.bands - 1)
        notes.append("its transparency (alpha) is 0 everywhere, and is ignored")
    if image.format == "ushort":
        n_colours = image.bands - bool(image.hasalpha())
        largest = int(image.extract_band(0, n=n_colours).max())
        bits = next((bits for bits in _DEPTHS if 0 < largest < 1 << bits), 16)
        if bits < 16:
            interpretation = image.interpretation
            image = (image * (65535 / ((1 << bits) - 1))).rint().cast("ushort").copy(interpretation=interpretation)
            notes.append(f"values use {bits} of 16 bits, by the largest value: {(1 << bits) - 1:,} is shown as white")
    return [image], notes


def _convert_vips(image: Any) -> Any:
    """Turn a libvips image into three 8-bit bands."""
    if image.interpretation not in ("srgb", "rgb") or image.format != "uchar":
        # 16-bit colour that is not marked as such would be clipped instead of scaled.
        if image.format == "ushort" and image.interpretation in ("multiband", "srgb", "rgb"):
            image = image.copy(interpretation="rgb16" if image.bands >= 3 else "grey16")
        image = image.colourspace("srgb")
    if image.hasalpha():
        image = image.flatten(background=255)
    if image.bands == 1:
        image = image.bandjoin([image, image])
    return image.extract_band(0, n=3).cast("uchar")


def _read_bounds(properties: Any) -> tuple[int, int, int, int] | None:
    """Read where the scan lies on the canvas; None where a file does not say so wholly."""
    stated = [_read_number(properties.get(f"openslide.bounds-{side}")) for side in ("x", "y", "width", "height")]
    x, y, width, height = (None if side is None else int(side) for side in stated)
    return None if x is None or y is None or width is None or height is None else (x, y, width, height)


def _read_number(text: Any) -> float | None:
    """Read a finite number; None where there is none."""
    try:
        number = float(text)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def refuse_damaged(name: str, reason: object) -> SlideError:
    """Make the error for a slide that cannot be decoded, on one line."""
    if isinstance(reason, Exception):
        refuse_passing(reason, name)
    said = " ".join(str(reason).split("\n  at ")[0].split()).removeprefix("Failed to read region: ").rstrip(".")
    return SlideError(f"slide '{name}' cannot be read: {said[:200]}. Copy it again from its source, or leave it out.")
