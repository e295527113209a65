"""Which reader a file gets.

Measured by `benchmarks/readers.py` on the formats there are files of: fastslide decodes JPEG and deflate in TIFF
(Aperio SVS, generic, OME) two to four times as fast as OpenSlide and within one grey level; it is slower on NDPI and
shows fewer of its levels; it cannot read uncompressed TIFF. So TIFFs of those two compressions go to fastslide once it
agrees with OpenSlide on sizes, levels, resolution and a probe of pixels; everything else goes to OpenSlide where it
can, then fastslide. Plain images go to libvips, and OME-TIFF whose smaller levels lie in sub-directories: libvips alone
sees those, and is as fast as fastslide.
"""

import math
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openslide

from lamella.errors import SettingsError, SlideError
from lamella.slide.guard import TileGuard, find_levels
from lamella.slide.readers import (
    FastslideReader,
    OpenSlideReader,
    Reader,
    VipsReader,
    find_versions,
    list_fastslide_suffixes,
)
from lamella.slide.tiff import DEFLATE, DEFLATE_OLD, JPEG, TiffPage, is_tiff, load_tiff_pages

READERS = ("auto", "fastslide", "openslide", "libvips")
FAST_SCHEMES = (JPEG, DEFLATE, DEFLATE_OLD)
_PROBE_PX = 256
_PROBE_TOLERANCE = 2.0  # mean grey levels; the two differ by 0.1 to 0.5 where they upsample chroma another way
_PLAIN = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG"}
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


@dataclass(frozen=True, slots=True)
class ReaderInfo:
    """A library that decodes slides.

    Attributes:
        name: The library.
        version: Its version, or None where it is not installed.
        formats: What it is used for here.
    """

    name: str
    version: str | None
    formats: tuple[str, ...]


def list_readers() -> tuple[ReaderInfo, ...]:
    """Return the libraries that decode slides, in the order they are tried."""
    used_for = {
        "fastslide": ("Aperio SVS, Philips, generic and OME-TIFF (JPEG, deflate)", "what OpenSlide cannot open"),
        "openslide": ("Hamamatsu NDPI and VMS", "MIRAX", "DICOM WSI", "TIFF of other compressions", "Leica, Ventana"),
        "libvips": ("PNG", "JPEG", "TIFF in strips"),
    }
    return tuple(ReaderInfo(name, version, used_for[name]) for name, version in find_versions().items())


def list_formats() -> tuple[str, ...]:
    """Return the file suffixes that are taken for slides, with their dots, lower case.

    Example:
        >>> ".svs" in list_formats() and ".ndpi" in list_formats()
        True
    """
    vendor = ("svs", "tif", "tiff", "ndpi", "vms", "vmu", "mrxs", "scn", "svslide", "bif", "dcm", "czi", "isyntax")
    return tuple(f".{suffix}" for suffix in (*vendor, "qptiff", "png", "jpg", "jpeg"))


def open_reader(path: Path, reader: str = "auto") -> Reader:
    """Open a file with the reader that suits it, or with the one that is named.

    Raises:
        SettingsError: If no reader has that name.
        SlideError: If the file is absent, damaged, or of a format no reader knows.
    """
    if reader not in READERS:
        raise SettingsError(f"no reader is called '{reader}'. Choose one of {', '.join(READERS)}.")
    _check_file(path)
    if reader == "libvips" or (reader == "auto" and _is_plain(path)):
        return VipsReader(path)
    vendor = _detect_vendor(path)
    if is_tiff(path) and vendor != "hamamatsu":
        return _open_tiff(path, reader)
    if reader == "fastslide" or (reader == "auto" and vendor is None and _fastslide_knows(path)):
        return FastslideReader(path)
    if vendor is None:
        raise SlideError(
            f"slide '{path.name}' is of no format that OpenSlide, fastslide or libvips can read. Check that it was "
            "copied whole, with the folder or files that belong to it."
        )
    return OpenSlideReader(path)


def _check_file(path: Path) -> None:
    """Refuse what is no file with content."""
    if path.is_dir():
        raise SlideError(f"slide '{path.name}' is a folder, and a file is needed. Give the slide file inside it.")
    if not path.exists():
        raise SlideError(f"slide '{path.name}' is not there (looked for {path}). Check the path.")
    try:
        n_bytes = path.stat().st_size
        with path.open("rb"):
            pass
    except OSError as error:
        raise SlideError(f"slide '{path.name}' cannot be read ({error.strerror}). Check its permissions.") from error
    if path.suffix.lower() == ".mrxs" and not path.with_suffix("").is_dir():
        raise SlideError(
            f"slide '{path.name}' is the index of a MIRAX slide and the folder '{path.stem}' that holds its pixels is "
            "not beside it. Copy the folder too."
        )
    if n_bytes == 0:
        raise SlideError(f"slide '{path.name}' is empty (0 bytes). Copy it again from its source.")


def _is_plain(path: Path) -> bool:
    """Tell whether a file is a plain PNG or JPEG; a MIRAX index is a JPEG by its first bytes and is not."""
    with path.open("rb") as stream:
        head = stream.read(8)
    return path.suffix.lower() != ".mrxs" and any(head.startswith(magic) for magic in _PLAIN)


def _detect_vendor(path: Path) -> str | None:
    """Ask OpenSlide what a file is."""
    try:
        vendor: str | None = openslide.OpenSlide.detect_format(path)
    except openslide.OpenSlideError:
        return None
    return vendor


def _fastslide_knows(path: Path) -> bool:
    """Tell whether fastslide takes a file that is no TIFF, by its suffix."""
    tiffs = (".svs", ".tif", ".tiff", ".qptiff", ".ndpi", ".bif")
    return path.suffix.lower() in list_fastslide_suffixes() and path.suffix.lower() not in tiffs


def _open_tiff(path: Path, reader: str) -> Reader:
    """Open a TIFF: fastslide where it is quicker, safe and right, else OpenSlide, else libvips."""
    pages = load_tiff_pages(path)
    ome = find_ome_mpp(pages[0].description) if "<OME" in pages[0].description else None
    if reader == "openslide":
        return OpenSlideReader(path)
    if reader == "auto" and "<OME" in pages[0].description and pages[0].n_sub:
        levels: Reader = VipsReader(path, n_sub=pages[0].n_sub)  # the only one that sees them
        levels.stated_mpp = ome
        levels.read((0, 0), len(levels.level_dimensions) - 1, (1, 1))
        return levels
    reasons: list[str] = []
    slow = _try_open(OpenSlideReader, path, reasons) or _try_open(VipsReader, path, reasons)
    fast = _open_fast(path, pages, slow, reasons)
    if fast is not None and ome is not None:
        fast.stated_mpp = ome
    if fast is not None and slow is not None:
        if reader == "fastslide" or _agree(fast, slow, is_ome="<OME" in pages[0].description):
            return fast
        fast.fallback = None  # stays open: it is the one that reads
        fast.close()
        slow.notes = (*slow.notes, "fastslide and OpenSlide disagree on this file; OpenSlide reads it")
    elif fast is not None:
        return fast
    if slow is None or reader == "fastslide":
        said = next(iter(reasons), f"slide '{path.name}' cannot be read by fastslide. Pass reader 'auto'.")
        raise SlideError(said)
    if ome is not None:
        slow.stated_mpp = ome
    slow.read((0, 0), len(slow.level_dimensions) - 1, (1, 1))
    return slow


def _try_open(kind: type[OpenSlideReader] | type[VipsReader], path: Path, reasons: list[str]) -> Reader | None:
    """Open with one reader; where it refuses, keep its reason."""
    try:
        return kind(path)
    except SlideError as error:
        reasons.append(str(error))
        return None


def _open_fast(
    path: Path, pages: Sequence[TiffPage], slow: Reader | None, reasons: list[str]
) -> FastslideReader | None:
    """Open a TIFF with fastslide, under guard; None where it is absent, cannot, or has nothing to win."""
    if find_versions()["fastslide"] is None or not any(page.compression in FAST_SCHEMES for page in pages):
        return None
    try:
        fast = FastslideReader(path)
    except SlideError as error:
        reasons.append(str(error))
        return None
    levels = find_levels(pages, fast.level_dimensions, FAST_SCHEMES)
    if levels is None:
        fast.close()
        return None
    fast.guard = TileGuard(path, levels)
    fast.fallback = slow
    return fast


def _agree(fast: FastslideReader, slow: Reader, *, is_ome: bool) -> bool:
    """Compare two readers' levels, resolution and a probe from the middle of the coarsest level they share."""
    shared = len(slow.level_dimensions)
    # OpenSlide does not know OME's sub-directories and sees the finest level alone.
    if fast.level_dimensions[:shared] != slow.level_dimensions or (shared != len(fast.level_dimensions) and not is_ome):
        return False
    if fast.stated_mpp is not None and slow.stated_mpp is not None and not is_ome:
        pairs = zip(fast.stated_mpp, slow.stated_mpp, strict=True)
        if not all(math.isclose(a, b, rel_tol=1e-3) for a, b in pairs):
            return False
    width, height = slow.level_dimensions[shared - 1]
    size = min(_PROBE_PX, width), min(_PROBE_PX, height)
    corner = (width - size[0]) // 2, (height - size[1]) // 2
    seen = slow.read(corner, shared - 1, size).astype(np.int16)
    try:
        difference = np.abs(fast.read(corner, shared - 1, size) - seen)
    except SlideError:
        return False
    return float(difference.mean()) <= _PROBE_TOLERANCE


def find_ome_mpp(description: str) -> tuple[float, float] | None:
    """Read PhysicalSizeX and Y, in um, of the first image of an OME-XML description; None where not stated.

    Example:
        >>> find_ome_mpp('<OME><Image><Pixels PhysicalSizeX="250" PhysicalSizeXUnit="nm" PhysicalSizeY="0.25"/>'
        ...              '</Image></OME>')
        (0.25, 0.25)
    """
    try:
        root = ET.fromstring(description)
    except ET.ParseError:
        return None
    for element in root.iter():
        if element.tag.rpartition("}")[2] == "Pixels":
            x, y = (_read_physical(element, axis) for axis in "XY")
            return None if x is None or y is None else (x, y)
    return None


def _read_physical(element: "ET.Element[str]", axis: str) -> float | None:
    """Read one PhysicalSize in um; None where it is missing or its unit is no length."""
    unit = _UM.get(element.get(f"PhysicalSize{axis}Unit", "um"))
    try:
        return float(element.get(f"PhysicalSize{axis}", "")) * unit if unit is not None else None
    except ValueError:
        return None
