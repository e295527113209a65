"""Which reader a file gets.

Measured by `benchmarks/readers.py` on the formats there are files of, in pixels per CPU second against OpenSlide:

| stored as | fastslide | libvips | chosen |
|---|---|---|---|
| TIFF or SVS, JPEG, full colour | 3.5 x, within 2 grey levels | 4.6 x, equal | fastslide |
| TIFF or SVS, JPEG, colour subsampled | 4.5 x, up to 47 grey levels apart | 4 to 8 x, equal | libvips |
| TIFF, deflate | 4 x, equal, and checks every tile | 5.5 x, equal | fastslide |
| TIFF, LZW or uncompressed | 1.2 x, cannot | 2 x, 9 x, equal | libvips |
| NDPI | 1.7 x, up to 5 apart, 4 of 7 levels | the finest level only | OpenSlide |

So a TIFF is opened by OpenSlide, which says what it is, and read by fastslide or libvips under a guard, once they agree
on levels and a probe of pixels. Everything else goes to OpenSlide where it can, then fastslide. Plain images go to
libvips, and OME-TIFF whose smaller levels lie in sub-directories: libvips alone sees those.
"""

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openslide

from lamella.dicom import list_series
from lamella.errors import SettingsError, SlideError
from lamella.slide.guard import TileGuard, find_levels, is_subsampled
from lamella.slide.ome_zarr import ZarrReader, find_zarr_version, is_zarr
from lamella.slide.readers import (
    FastslideReader,
    GuardedReader,
    OpenSlideReader,
    Reader,
    VipsReader,
    find_versions,
    list_fastslide_suffixes,
)
from lamella.slide.tiff import (
    DEFLATE,
    DEFLATE_OLD,
    JPEG,
    LZW,
    UNCOMPRESSED,
    TiffPage,
    find_page_scales,
    is_tiff,
    load_tiff_pages,
)

READERS = ("auto", "fastslide", "openslide", "libvips")
FASTSLIDE_SCHEMES = (JPEG, DEFLATE, DEFLATE_OLD)
VIPS_SCHEMES = (*FASTSLIDE_SCHEMES, LZW, UNCOMPRESSED)
_PROBE_PX = 256
_PROBE_TOLERANCE = 1.0  # mean grey levels; fastslide rounds another way, by 0.6 on average
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
        "fastslide": ("TIFF of full-colour JPEG or deflate, as Aperio SVS", "what OpenSlide cannot open"),
        "openslide": ("Hamamatsu NDPI and VMS", "MIRAX", "DICOM WSI", "damaged or odd TIFF", "Leica, Ventana"),
        "libvips": ("TIFF of subsampled JPEG, LZW or no compression", "OME-TIFF", "PNG", "JPEG"),
    }
    files = (ReaderInfo(name, version, used_for[name]) for name, version in find_versions().items())
    return (*files, ReaderInfo("zarr", find_zarr_version(), ("OME-Zarr folders",)))


def list_formats() -> tuple[str, ...]:
    """Return the file suffixes that are taken for slides, with their dots, lower case.

    Example:
        >>> ".svs" in list_formats() and ".ndpi" in list_formats()
        True
    """
    vendor = ("svs", "tif", "tiff", "ndpi", "vms", "vmu", "mrxs", "scn", "svslide", "bif", "dcm", "czi", "isyntax")
    return tuple(f".{suffix}" for suffix in (*vendor, "qptiff", "png", "jpg", "jpeg", "zarr"))


def open_reader(path: Path, reader: str = "auto") -> Reader:
    """Open a file with the reader that suits it, or with the one that is named.

    Raises:
        SettingsError: If no reader has that name.
        SlideError: If the file is absent, damaged, or of a format no reader knows.
    """
    if reader not in READERS:
        raise SettingsError(f"no reader is called '{reader}'. Choose one of {', '.join(READERS)}.")
    if path.is_dir():
        return _open_folder(path, reader)
    _check_file(path)
    if reader in ("auto", "libvips") and _is_plain(path):
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


def _open_folder(path: Path, reader: str) -> Reader:
    """Open a folder that is one slide: OME-Zarr, or the files of a DICOM slide."""
    if is_zarr(path):
        return ZarrReader(path)
    series = list_series(path)
    if len(series) > 1:
        files = ", ".join(f"'{path.name}/{own[0].name}'" for own in series.values())
        raise SlideError(
            f"folder '{path.name}' holds {len(series)} DICOM slides, and a slide is one. Name a file of the one that "
            f"is meant: {files}."
        )
    if not series:
        raise SlideError(
            f"slide '{path.name}' is a folder that is neither OME-Zarr nor DICOM. Give the slide file inside it."
        )
    return open_reader(next(iter(series.values()))[0], reader)


def _check_file(path: Path) -> None:
    """Refuse what is no file with content."""
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
    """Open a TIFF: by a quick reader under guard where that agrees with OpenSlide, else by what opens it."""
    pages = load_tiff_pages(path)
    if reader == "openslide":
        return OpenSlideReader(path)
    is_ome = "<OME" in pages[0].description
    reasons: list[SlideError] = []
    careful = _try_open(OpenSlideReader, path, reasons)
    found = _open_quick(path, pages, careful, reader=reader, reasons=reasons)
    if found is None and careful is None and reader == "auto":
        found = _try_open(VipsReader, path, reasons)
    if found is None and reader != "auto":
        raise SlideError(f"slide '{path.name}' cannot be read by {reader}. Let Lamella choose: pass reader 'auto'.")
    found = found or careful
    if found is None:
        raise reasons[0]
    if is_ome:
        found.stated_mpp = find_ome_mpp(pages[0].description)
    found.stated_scales = found.stated_scales or find_page_scales(pages, found.level_dimensions)
    with _closing_on_error(found):  # what cannot be decoded at all is refused now
        found.read((0, 0), len(found.level_dimensions) - 1, (1, 1))
    return found


def _try_open(kind: type[OpenSlideReader] | type[VipsReader], path: Path, reasons: list[SlideError]) -> Reader | None:
    """Open with one reader; where it refuses, keep its reason."""
    try:
        return kind(path)
    except SlideError as error:
        reasons.append(error)
        return None


def _open_quick(
    path: Path, pages: Sequence[TiffPage], careful: Reader | None, *, reader: str, reasons: list[SlideError]
) -> Reader | None:
    """Open a TIFF with fastslide or libvips, under guard; None where neither can or agrees with `careful`."""
    for name in _list_quick(path, pages, reader):
        try:
            quick, levels = _open_one(name, path, pages, careful)
        except SlideError as error:
            reasons.append(error)
            continue
        if levels is not None:
            guard = TileGuard(path, levels)
            guarded = GuardedReader(quick, careful, guard)
            with _closing_on_error(guarded):
                if careful is None or reader != "auto" or _agree(guarded, careful):
                    return guarded
            guard.close()
        quick.close()
    return None


@contextmanager
def _closing_on_error(reader: Reader) -> Iterator[None]:
    """Close a reader that turns out to hold a damaged slide."""
    try:
        yield
    except SlideError:
        reader.close()
        raise


def _list_quick(path: Path, pages: Sequence[TiffPage], reader: str) -> tuple[str, ...]:
    """List the quick readers to try for a TIFF, by how its first image is stored."""
    if reader != "auto":
        return (reader,)
    has_levels = "<OME" in pages[0].description and pages[0].n_sub > 0
    if has_levels or is_subsampled(path, pages[0]) or pages[0].compression in (LZW, UNCOMPRESSED):
        return ("libvips",)
    return ("fastslide", "libvips") if pages[0].compression in FASTSLIDE_SCHEMES else ()


def _open_one(
    name: str, path: Path, pages: Sequence[TiffPage], careful: Reader | None
) -> tuple[Reader, list[list[TiffPage]] | None]:
    """Open a TIFF with one quick reader; with it, the pages of each level, or None where the guard cannot know them."""
    if name == "fastslide":
        fast = FastslideReader(path)
        return fast, find_levels(pages, fast.level_dimensions, FASTSLIDE_SCHEMES)
    if "<OME" in pages[0].description and pages[0].n_sub:
        own = [(0, -1), *((0, sub) for sub in range(pages[0].n_sub))]
    else:
        sizes = careful.level_dimensions if careful is not None else (pages[0].size,)
        candidates = find_levels([page for page in pages if page.directory >= 0], sizes, VIPS_SCHEMES)
        own = [(max(level, key=lambda page: page.tiled).directory, -1) for level in candidates or ()]
    levels = VipsReader(path, own)
    return levels, find_levels(pages, levels.level_dimensions, VIPS_SCHEMES)


def _agree(quick: Reader, careful: Reader) -> bool:
    """Compare two readers' levels and a probe from the middle of the coarsest level they share."""
    shared = len(careful.level_dimensions)  # OpenSlide sees the finest level of OME-TIFF alone
    if quick.level_dimensions[:shared] != careful.level_dimensions:
        return False
    width, height = careful.level_dimensions[-1]
    size = min(_PROBE_PX, width), min(_PROBE_PX, height)
    corner = (width - size[0]) // 2, (height - size[1]) // 2
    seen = careful.read(corner, shared - 1, size).astype(np.int16)
    difference = np.abs(quick.read(corner, shared - 1, size) - seen)
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
