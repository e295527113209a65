"""What a TIFF states of its resolution and its channels: its tags, OME-XML, ImageJ's and Aperio's descriptions.

A number without a unit states nothing, whoever wrote it: libraries fill in 1, 72 or 96 by themselves.
"""

import math
import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass

from lamella.slide.tiff import UM_PER_UNIT, TiffPage

_UM = {
    "m": 1e6,
    "cm": 1e4,
    "mm": 1e3,
    "\u00b5m": 1.0,
    "\u03bcm": 1.0,
    "um": 1.0,
    "nm": 1e-3,
    "pm": 1e-6,
    "\u212b": 1e-4,
}
_IMAGEJ_UM = _UM | {"micron": 1.0, "microns": 1.0, "micrometer": 1.0, "inch": 25_400.0, "\\u00B5m": 1.0}
_MOST_PLANES = 1 << 16  # claimed by OME-XML; a plane is a directory of the file, of which 4096 are read
_RED, _GREEN, _BLUE = "red", "green", "blue"
_COLOUR_NAMES = {"r": _RED, "g": _GREEN, "b": _BLUE, _RED: _RED, _GREEN: _GREEN, _BLUE: _BLUE}
_COLOUR_VALUES = {0xFF0000: _RED, 0x00FF00: _GREEN, 0x0000FF: _BLUE}


def find_tiff_mpp(page: TiffPage) -> tuple[float, float] | None:
    """Find `(x, y)` um per pixel of a page, by its description where that is known, else by its tags; None if unstated.

    A resolution without a unit states nothing, and neither does one of 1 by 1, which is what writers fill in.
    """
    text = page.description
    if text.startswith("Aperio"):
        mpp = _find_field(text, "MPP", separator="|")
        return None if mpp is None else (mpp, mpp)
    if page.resolution is None or page.resolution == (1.0, 1.0):
        return None
    um = UM_PER_UNIT.get(page.unit)
    if text.startswith("ImageJ="):
        unit = re.search(r"^unit=(.*?)\s*$", text, re.MULTILINE)
        um = _IMAGEJ_UM.get(unit.group(1).strip()) if unit else um
    return None if um is None else (um / page.resolution[0], um / page.resolution[1])


def find_tiff_magnification(page: TiffPage) -> float | None:
    """Find the nominal magnification that an Aperio description states; None in any other."""
    return _find_field(page.description, "AppMag", separator="|") if page.description.startswith("Aperio") else None


@dataclass(frozen=True, slots=True, kw_only=True)
class OmeImage:
    """One image of an OME-XML description.

    Attributes:
        name: Its name, empty where it has none.
        mpp: `(x, y)` um per pixel, None where not stated.
        significant_bits: Bits that pixel values use, None where not stated.
        channels: Names of its channels, empty where they have none.
        colours: "red", "green" or "blue" for each channel that is named or coloured so, "" for others.
        planes: `(directory)` of each channel at the first depth and time, in order.
        n_depths: Depths (z) and times together.
    """

    name: str
    mpp: tuple[float, float] | None
    significant_bits: int | None
    channels: tuple[str, ...]
    colours: tuple[str, ...]
    planes: tuple[int, ...]
    n_depths: int


def load_ome_images(description: str) -> tuple[OmeImage, ...]:
    """Read the images of an OME-XML description; none where it is no OME-XML, or one that lies in another file."""
    try:
        return tuple(
            _load_image(image.get("Name", ""), pixels)
            for image in ET.fromstring(description).iter()
            if _tag(image) == "Image"
            for pixels in image
            if _tag(pixels) == "Pixels"
        )
    except (ET.ParseError, ValueError):
        return ()


def _load_image(name: str, pixels: "ET.Element[str]") -> OmeImage:
    x, y = (_read_physical(pixels, axis) for axis in "XY")
    channels = [child for child in pixels if _tag(child) == "Channel"]
    samples = [_read_count(channel, "SamplesPerPixel") for channel in channels]
    # What a plane holds is one channel of one sample, or one channel of three.
    n_planes = len(channels) if channels else 1
    if not channels or sum(samples) != _read_count(pixels, "SizeC"):
        n_planes = max(1, _read_count(pixels, "SizeC") // max(samples or [1]))
    sizes = {"C": n_planes, "Z": _read_count(pixels, "SizeZ"), "T": _read_count(pixels, "SizeT")}
    order = pixels.get("DimensionOrder", "XYCZT")[2:] or "CZT"
    directories = _list_directories(pixels, sizes, order)
    planes = [directories.get((c, 0, 0), -1) for c in range(n_planes)]
    bits = pixels.get("SignificantBits", "")
    return OmeImage(
        name=name,
        mpp=None if x is None or y is None else (x, y),
        significant_bits=int(bits) if bits.isdigit() else None,
        channels=tuple(channel.get("Name", "") for channel in channels),
        colours=tuple(_find_colour(channel) for channel in channels),
        planes=tuple(planes),
        n_depths=sizes["Z"] * sizes["T"],
    )


def _list_directories(pixels: "ET.Element[str]", sizes: dict[str, int], order: str) -> dict[tuple[int, int, int], int]:
    """Return the directory of each plane `(c, z, t)`, as TiffData says; of so many as a file has directories."""
    n_planes = min(math.prod(sizes.values()), _MOST_PLANES)
    directories: dict[tuple[int, int, int], int] = {}
    data = [child for child in pixels if _tag(child) == "TiffData"]
    for entry in data:
        first = {axis: int(entry.get(f"First{axis}", "0")) for axis in "CZT"}
        directory = int(entry.get("IFD", "0"))
        count = int(entry.get("PlaneCount", "1" if "IFD" in entry.attrib else str(n_planes)))
        start = _rank(first, sizes, order)
        for step in range(min(count, n_planes - start, _MOST_PLANES)):
            directories.setdefault(_unrank(start + step, sizes, order), directory + step)
    if not data:
        directories = {_unrank(rank, sizes, order): rank for rank in range(n_planes)}
    return directories


def _rank(plane: dict[str, int], sizes: dict[str, int], order: str) -> int:
    """Return the number of a plane in an order such as "CZT", whose first axis runs fastest."""
    rank, stride = 0, 1
    for axis in order:
        rank += plane[axis] * stride
        stride *= sizes[axis]
    return rank


def _unrank(rank: int, sizes: dict[str, int], order: str) -> tuple[int, int, int]:
    """Return `(c, z, t)` of a plane from its number."""
    plane = {}
    for axis in order:
        rank, plane[axis] = divmod(rank, sizes[axis])
    return plane["C"], plane["Z"], plane["T"]


def _find_colour(channel: "ET.Element[str]") -> str:
    """Name the colour that a channel says it is: by its name, else by its colour; empty where neither is one."""
    name = channel.get("Name", "").strip().lower()
    if name:
        return _COLOUR_NAMES.get(name, "")
    try:
        rgba = int(channel.get("Color", "")) & 0xFFFFFFFF
    except ValueError:
        return ""
    return _COLOUR_VALUES.get(rgba >> 8, "")


def _read_physical(element: "ET.Element[str]", axis: str) -> float | None:
    """Read one PhysicalSize in um; None where it is missing or its unit is no length."""
    unit = _UM.get(element.get(f"PhysicalSize{axis}Unit", "um"))
    try:
        return float(element.get(f"PhysicalSize{axis}", "")) * unit if unit is not None else None
    except ValueError:
        return None


def _read_count(element: "ET.Element[str]", name: str) -> int:
    """Read a count of an element, 1 where it is missing or makes no sense."""
    text = element.get(name, "")
    return min(max(1, int(text)), _MOST_PLANES) if text.isdecimal() and len(text) <= 9 else 1


def _tag(element: "ET.Element[str]") -> str:
    """Return an element's name without its namespace."""
    return element.tag.rpartition("}")[2]


def _find_field(text: str, name: str, *, separator: str) -> float | None:
    """Read a number `name = value` between separators; None where it is missing or no number."""
    for part in text.split(separator):
        key, _, value = part.partition("=")
        if key.strip() == name:
            try:
                number = float(value)
            except ValueError:
                return None
            return number if math.isfinite(number) and number > 0 else None
    return None
