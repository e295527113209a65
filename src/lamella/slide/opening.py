"""Which reader a file gets: a TIFF as `tiff_opening` says, a folder or anything else by what it is."""

from dataclasses import dataclass
from pathlib import Path

import openslide

from lamella.dicom import list_frames, list_series
from lamella.errors import SettingsError, SlideError
from lamella.machine import refuse_passing
from lamella.regular import refuse_irregular
from lamella.slide.claims import refuse_frame_claims, refuse_plain_claims
from lamella.slide.hashing import list_slide_files
from lamella.slide.index_claims import refuse_index_claims
from lamella.slide.ome_zarr import ZarrReader, find_zarr_version, is_zarr
from lamella.slide.readers import (
    FastslideReader,
    OpenSlideReader,
    Reader,
    VipsReader,
    find_versions,
    list_fastslide_suffixes,
)
from lamella.slide.tiff import is_tiff
from lamella.slide.tiff_opening import open_tiff, open_vendor_tiff, refuse_reader

READERS = ("auto", "fastslide", "openslide", "libvips", "tifffile")
_PLAIN = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG"}
_OTHER_IMAGES = (
    (0, b"BM", "BMP"),
    (0, b"GIF8", "GIF"),
    (8, b"WEBP", "WebP"),
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
    (0, b"\xff\x0a", "JPEG XL"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftypavif", "AVIF"),
    (0, b"8BPS", "Photoshop"),
    (0, b"II\xbc", "JPEG XR"),
)


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
        "fastslide": ("CZI, iSyntax and others that OpenSlide cannot open",),
        "openslide": ("Hamamatsu NDPI and VMS", "MIRAX", "DICOM WSI", "damaged or odd TIFF", "Leica, Ventana"),
        "libvips": ("TIFF of JPEG, deflate, LZW or no compression, as Aperio SVS", "OME-TIFF", "PNG", "JPEG"),
        "tifffile": ("TIFF of other codecs, depths, planes, palettes, orientations", "what other readers are held to"),
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


def open_reader(path: Path, reader: str = "auto", image: str | None = None) -> Reader:
    """Open a file with the reader that suits it, or with the one that is named.

    Args:
        path: The slide.
        reader: One of `READERS`.
        image: Which image of several, by number from 1 or by name; None takes the largest in colour.

    Raises:
        SettingsError: If no reader has that name.
        SlideError: If the file is absent, damaged, or of a format no reader knows, or has no such image.
    """
    if reader not in READERS:
        raise SettingsError(f"no reader is called '{reader}'. Choose one of {', '.join(READERS)}.")
    if path.is_dir():
        return _open_folder(path, reader)
    _check_file(path)
    _refuse_claims(path)
    vendor = None if _is_plain(path) else _detect_vendor(path)
    if is_tiff(path) and reader == "fastslide":
        raise refuse_reader(path, reader)
    if is_tiff(path) and vendor in (None, "aperio", "generic-tiff"):
        return open_tiff(path, reader, image, vendor)
    if image not in (None, "1"):
        raise SlideError(f"slide '{path.name}' is asked for image '{image}' and holds one. Leave --image out.")
    if reader in ("auto", "libvips") and _is_plain(path):
        return VipsReader(path)
    if is_tiff(path) and vendor != "hamamatsu":
        return open_vendor_tiff(path, reader)
    if reader == "fastslide" or (reader == "auto" and vendor is None and _fastslide_knows(path)):
        return FastslideReader(path)
    if vendor is None:
        raise _refuse_format(path)
    return OpenSlideReader(path)


def _open_folder(path: Path, reader: str) -> Reader:
    """Open a folder that is one slide: OME-Zarr, or the files of a DICOM slide."""
    if is_zarr(path):
        return ZarrReader(path)
    series = list_series(path)
    if len(series) > 1:
        files = ", ".join(f"'{path.name}/{files_[0].name}'" for files_ in series.values())
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
    refuse_irregular(path, f"slide '{path.name}'", SlideError)
    if not path.exists():
        raise SlideError(f"slide '{path.name}' is not there (looked for {path}). Check the path.")
    try:
        n_bytes = path.stat().st_size
        with path.open("rb"):
            pass
    except OSError as error:
        refuse_passing(error, path.name)
        raise SlideError(f"slide '{path.name}' cannot be read ({error.strerror}). Check its permissions.") from error
    if path.suffix.lower() == ".mrxs" and not path.with_suffix("").is_dir():
        raise SlideError(
            f"slide '{path.name}' is the index of a MIRAX slide and the folder '{path.stem}' that holds its pixels is "
            "not beside it. Copy the folder too."
        )
    if n_bytes == 0:
        raise SlideError(f"slide '{path.name}' is empty (0 bytes). Copy it again from its source.")


def _refuse_claims(path: Path) -> None:
    """Refuse what claims more than can be read, or files elsewhere, before a library opens it."""
    if _is_plain(path):
        refuse_plain_claims(path)
    for file, frame in list_frames(path):
        refuse_frame_claims(file, frame)
    refuse_index_claims(path)
    if path.suffix.lower() in (".vms", ".vmu"):
        list_slide_files(path)


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


def _refuse_format(path: Path) -> SlideError:
    """Make the error for a file that no reader takes, naming the kind of image it is where its first bytes tell."""
    with path.open("rb") as stream:
        head = stream.read(16)
    kind = next((kind for at, magic, kind in _OTHER_IMAGES if head[at : at + len(magic)] == magic), None)
    if kind is not None:
        return SlideError(
            f"slide '{path.name}' is a {kind} image, and whole-slide formats, TIFF, PNG or JPEG are needed. Save it as "
            "PNG or TIFF with the program that made it."
        )
    return SlideError(
        f"slide '{path.name}' is of no format that OpenSlide, fastslide or libvips can read. Check that it was "
        "copied whole, with the folder or files that belong to it."
    )
