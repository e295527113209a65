"""Which image it is, whatever the file is called.

A slide of several files (MIRAX, Hamamatsu VMS, a DICOM series, OME-Zarr) is hashed over all files that hold its pixels.
"""

import contextlib
import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NoReturn

from lamella.dicom import find_series_uid, list_series
from lamella.errors import MachineError, SlideError
from lamella.files import find_sha256, is_inner_name
from lamella.machine import refuse_passing
from lamella.regular import refuse_irregular
from lamella.slide.ome_zarr import is_zarr

MIB = 1 << 20
_MOST_READ = 64  # files of an OME-Zarr folder whose content a quick hash looks into


def hash_quickly(path: Path) -> str:
    """Return the SHA-256 of size, first and last MiB of each of a slide's files, as 64 hex digits.

    Enough to find the same image under two names; two different scans never share it in practice, but a file altered
    in its middle does. The file's own name does not count.

    Raises:
        SlideError: If the file cannot be read.
    """
    files = list_slide_files(path)
    if len(files) > _MOST_READ and is_zarr(Path(path)):
        # Thousands of chunks: the size of each, and the ends of some that lie evenly among them.
        sizes = "\n".join(str(file.stat().st_size) for file in files).encode()
        some = [files[number * (len(files) - 1) // (_MOST_READ - 1)] for number in range(_MOST_READ)]
        return _combine([hashlib.sha256(sizes).hexdigest(), *(_digest_ends(file) for file in some)])
    return _combine(_digest_ends(file) for file in files)


def hash_readable(slides: Mapping[str, Path]) -> dict[str, str]:
    """Return the quick hash of each slide that can be read; the others are left to whoever opens them, to list.

    Args:
        slides: Path of each, by its id.
    """
    hashes = {}
    for slide_id, path in slides.items():
        with contextlib.suppress(SlideError, MachineError):
            hashes[slide_id] = hash_quickly(path)
    return hashes


def hash_fully(path: Path) -> str:
    """Return the SHA-256 of a slide, as 64 hex digits.

    Of the file itself, or of its files' hashes where it has several.

    Raises:
        SlideError: If a file cannot be read.
    """
    files = list_slide_files(path)
    try:
        digests = [find_sha256(file) for file in files]
    except OSError as error:
        refuse_passing(error, Path(path).name)
        raise SlideError(f"slide '{Path(path).name}' cannot be read ({error.strerror}). Check the path.") from error
    return digests[0] if len(digests) == 1 else _combine(digests)


def list_slide_files(path: Path) -> tuple[Path, ...]:
    """List the files that hold a slide's pixels, `path` first unless any file of a DICOM series stands for all.

    A MIRAX slide has a folder of its name beside it, a VMS slide names its files, and DICOM files of one series lie in
    one folder. An OME-Zarr slide is all files of its folder. Every other slide is one file.

    Raises:
        SlideError: If `path` is not there.
    """
    path = Path(path)
    if is_zarr(path):
        return tuple(sorted(file for file in path.rglob("*") if file.is_file()))
    if path.is_dir():
        slides = list(list_series(path).values())
        return list_slide_files(slides[0][0]) if len(slides) == 1 else _refuse_folder(path)
    refuse_irregular(path, f"slide '{path.name}'", SlideError)
    if not path.is_file():
        raise SlideError(f"slide '{path.name}' is not there (looked for {path}). Check the path.")
    suffix = path.suffix.lower()
    if suffix == ".mrxs" and path.with_suffix("").is_dir():
        return (path, *sorted(file for file in path.with_suffix("").iterdir() if file.is_file()))
    if suffix in (".vms", ".vmu"):
        return (path, *_list_named_files(path))
    series = find_series_uid(path)
    if series is not None:
        same = [file for file in path.parent.iterdir() if file.is_file() and find_series_uid(file) == series]
        return tuple(sorted(same, key=lambda file: (-file.stat().st_size, _digest_ends(file))))
    return (path,)


def _refuse_folder(path: Path) -> NoReturn:
    raise SlideError(f"slide '{path.name}' is a folder that is no single slide. Give the slide file inside it.")


def _digest_ends(path: Path) -> str:
    """Hash a file's size, first and last MiB."""
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            digest = hashlib.sha256(str(size).encode() + b"\n" + stream.read(MIB))
            if size > MIB:
                stream.seek(max(MIB, size - MIB))
                digest.update(stream.read(MIB))
    except OSError as error:
        refuse_passing(error, path.name)
        raise SlideError(f"slide '{path.name}' cannot be read ({error.strerror}). Check the path.") from error
    return digest.hexdigest()


def _combine(digests: Iterable[str]) -> str:
    """Join hashes of several files into one; a single one stays as it is."""
    listed = list(digests)
    return listed[0] if len(listed) == 1 else hashlib.sha256("\n".join(listed).encode()).hexdigest()


def _list_named_files(path: Path) -> list[Path]:
    """List the files that a VMS or VMU index names and that lie beside it."""
    with path.open("rb") as stream:
        text = stream.read(MIB).decode("utf-8", "replace")
    named = re.findall(r"=\s*([^\s=][^\r\n=]*\.\w{3,4})\s*$", text, flags=re.MULTILINE)
    outside = next((name for name in named if not is_inner_name(name)), None)
    if outside is not None:
        raise SlideError(f"slide '{path.name}' names '{outside}', which does not lie beside it. Leave that slide out.")
    return sorted({path.parent / name for name in named if (path.parent / name).is_file()})
