"""Which slides are meant by the files and folders that a user names."""

from collections.abc import Sequence
from pathlib import Path

from lamella.dicom import list_series, read_dicom_header
from lamella.errors import SlideError
from lamella.slide.ome_zarr import is_zarr
from lamella.slide.opening import list_formats


def list_slides(paths: Sequence[Path]) -> tuple[Path, ...]:
    """List the slides named, each once.

    A folder that is a slide (OME-Zarr, or the DICOM files of one slide) stands for itself, any other for the slides in
    it. Of the files of one DICOM slide the first that is named stands for all; of a folder with several such slides,
    the first file of each.

    Args:
        paths: Files and folders; a file that is not there is kept, for whoever opens it to say so.

    Raises:
        SlideError: If a folder holds no slide.
    """
    slides: list[Path] = []
    seen: set[tuple[Path, str]] = set()
    for path in paths:
        for slide in _list_folder(path) if path.is_dir() else [path]:
            series = _find_series(slide)
            if series is None or series not in seen:
                slides.append(slide)
            if series is not None:
                seen.add(series)
    return tuple(slides)


def _list_folder(folder: Path) -> list[Path]:
    """List the slides of a folder by name: itself, where it is one."""
    if is_zarr(folder):
        return [folder]
    series = list_series(folder)
    if len(series) == 1 and not _list_files(folder):
        return [folder]
    inner = [path for path in sorted(folder.iterdir()) if path.is_dir() and (is_zarr(path) or list_series(path))]
    slides = [*_list_files(folder), *(files[0] for files in series.values())]
    for path in inner:
        slides += _list_folder(path)
    if not slides:
        raise SlideError(
            f"folder '{folder.name}' holds no slide ({', '.join(list_formats())}). Name the folder the slides lie in."
        )
    return sorted(slides)


def _list_files(folder: Path) -> list[Path]:
    """List what in a folder is a slide by its suffix, DICOM left out; dead links and pipes too, for whoever opens them.

    A folder of such a name (`S-1.tiff/`) is none.
    """
    suffixes = set(list_formats()) - {".dcm"}
    return [path for path in folder.iterdir() if path.suffix.lower() in suffixes and not path.is_dir()]


def _find_series(slide: Path) -> tuple[Path, str] | None:
    """Return folder and series of a DICOM slide, by which it is known again; None for other slides."""
    if slide.is_dir():
        series = {} if is_zarr(slide) else list_series(slide)
        return (slide.resolve(), next(iter(series))) if len(series) == 1 else None
    header = read_dicom_header(slide) if slide.is_file() else None
    return None if header is None else (slide.parent.resolve(), header.series_uid)
