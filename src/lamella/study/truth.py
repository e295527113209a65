"""Where lesions are: outlines as GeoJSON, CAMELYON16's XML, or a mask image."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import pyvips
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from lamella.errors import TissueError
from lamella.slide.frame import Bounds, find_scan_part, move_to_scan
from lamella.tissue.regions import load_regions, rasterise_regions

SUFFIXES = (".geojson", ".json", ".xml", ".png", ".tif", ".tiff")
_TAKEN_OUT = {"_2", "exclusion", "normal"}  # groups of ASAP's XML that are holes, not lesions

Rasteriser = Callable[[tuple[int, int]], NDArray[np.bool_]]


def find_truth(folder: Path, slide_id: str) -> Path | None:
    """Find the outlines of a slide: `<slide_id>` with one of the suffixes; None where there are none.

    `<slide_id>_mask` is taken too, as CAMELYON16's masks are called.
    """
    for stem in (slide_id, f"{slide_id}_mask", f"{slide_id}_Mask"):
        for suffix in SUFFIXES:
            path = folder / f"{stem}{suffix}"
            if path.is_file():
                return path
    return None


def load_truth(path: Path, slide_size: tuple[int, int], bounds_l0: Bounds | None = None) -> Rasteriser:
    """Load lesions, on the scan.

    GeoJSON counts from the scan's corner, as QuPath does; XML from the canvas's; an image covers one or the other,
    which its shape tells.

    Args:
        path: GeoJSON (as QuPath exports it), XML (as ASAP writes it for CAMELYON16), or an image of the whole slide in
            which lesions are not 0.
        slide_size: `(width, height)` of level 0, in pixels.
        bounds_l0: `Slide.bounds_l0`; None is the whole slide.

    Returns:
        A function from a shape `(h, w)` to `(h, w)` bool over the scan: pixels whose centre, or most of whose
        mask, is in a lesion.

    Raises:
        TissueError: If the file cannot be read, or its outlines lie beside the slide.
    """
    suffix = path.suffix.lower()
    bounds_l0 = bounds_l0 or (0, 0, *slide_size)
    if suffix in (".png", ".tif", ".tiff"):
        return _load_mask(path, slide_size, bounds_l0)
    region = move_to_scan(_load_xml(path), bounds_l0) if suffix == ".xml" else load_regions(path)
    width, height = bounds_l0[2:]
    if not region.intersects(shapely.box(0, 0, width, height)):
        raise TissueError(
            f"the lesions of '{path.name}' lie beside the slide of {width} x {height} px. Export them "
            "in level-0 pixels of this slide."
        )
    return lambda shape: rasterise_regions(region, shape, (width, height))


def _load_xml(path: Path) -> BaseGeometry:
    """Load ASAP's XML: polygons by annotation; those of the exclusion group are taken out."""
    try:
        root = ElementTree.parse(path).getroot()
        lesions: list[BaseGeometry] = []
        holes: list[BaseGeometry] = []
        for annotation in root.iter("Annotation"):
            points = [
                (float(point.attrib["X"]), float(point.attrib["Y"]))
                for point in sorted(annotation.iter("Coordinate"), key=lambda p: float(p.attrib["Order"]))
            ]
            if len(points) >= 3:
                area = shapely.make_valid(shapely.Polygon(points))
                group = annotation.attrib.get("PartOfGroup", "").strip().lower()
                (holes if group in _TAKEN_OUT else lesions).append(area)
    except (OSError, ElementTree.ParseError, KeyError, ValueError) as error:
        raise TissueError(f"outlines '{path.name}' are not the XML of ASAP ({error}). Export them again.") from error
    if not lesions:
        raise TissueError(f"outlines '{path.name}' hold no polygon. Leave the file out where there is no lesion.")
    return shapely.union_all(lesions).difference(shapely.union_all(holes))


def _load_mask(path: Path, slide_size: tuple[int, int], bounds_l0: Bounds) -> Rasteriser:
    try:
        image = pyvips.Image.new_from_file(str(path), access="sequential", revalidate=True)
        part = find_scan_part((image.width, image.height), slide_size, bounds_l0, name=path.name)
        image = image.crop(*part)
        band: Any = image.extract_band(0)
        factor = max(1, max(image.width, image.height) // 8192)
        share = ((band > 0) / 255.0).cast("float").shrink(factor, factor, ceil=True).numpy()
    except pyvips.Error as error:
        raise TissueError(f"mask '{path.name}' cannot be read. Save it as PNG or TIFF.") from error
    mask = share.reshape(share.shape[0], share.shape[1]).astype(np.float32)

    def rasterise(shape: tuple[int, int]) -> NDArray[np.bool_]:
        shrinks = shape[1] < mask.shape[1]
        kind = cv2.INTER_AREA if shrinks else cv2.INTER_NEAREST
        resized: NDArray[np.bool_] = cv2.resize(mask, (shape[1], shape[0]), interpolation=kind) > 0.5
        return resized

    return rasterise
