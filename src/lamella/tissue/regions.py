"""Regions drawn by a person, in; tissue outlines, out: level-0 pixels, as QuPath reads and writes them."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from lamella.errors import TissueError
from lamella.files import write_text
from lamella.slide.frame import Bounds, describe_frame, to_scan
from lamella.tissue.annotation_xml import read_annotation_xml
from lamella.tissue.areas import Drawing, count_kinds, keep_polygons, say_option
from lamella.tissue.geojson import make_feature, read_geojson
from lamella.tissue.mask import TissueMask

COLOUR = (0, 140, 60)

logger = logging.getLogger(__name__)


def load_regions(path: Path | str, classes: Sequence[str] = (), *, option: str = "--include-class") -> BaseGeometry:
    """Load the areas of a file as one geometry; areas that overlap count once.

    Points and lines have no area and are left out, as are detections, cells and tiles; their number is logged.

    Args:
        path: GeoJSON of QuPath, or XML of ASAP or ImageScope; coordinates in level-0 pixels.
        classes: The classes that count, those derived from them included; empty takes the only class there is.
        option: What a message names to choose a class with.

    Returns:
        A valid Polygon or MultiPolygon, level-0 pixels.

    Raises:
        TissueError: If the file is absent or of another kind, holds no area of these classes, or several classes of
            which none is asked for.
    """
    drawing = read_drawing(Path(path))
    region = drawing.choose(classes, option=option)
    if region.is_empty:
        raise TissueError(_say_no_area(drawing, classes, option))
    if drawing.left_out:
        logger.warning(
            "%s: left out %s; only annotations with an area count", drawing.source, count_kinds(drawing.left_out)
        )
    return region


def read_drawing(path: Path) -> Drawing:
    """Read the areas of a file with their classes: GeoJSON, or XML of ASAP or ImageScope.

    Raises:
        TissueError: If it cannot be read.
    """
    return read_annotation_xml(path) if path.suffix.lower() == ".xml" else read_geojson(path)


def _say_no_area(drawing: Drawing, classes: Sequence[str], option: str) -> str:
    if classes and drawing.areas:
        known = drawing.classes or {area.class_name: 1 for area in drawing.areas}
        return (
            f"{drawing.source} hold no area of class {' or '.join(classes)}; their classes are "
            f"{', '.join(known)}. Pass {say_option(option, known)}."
        )
    held = f" (it holds {count_kinds(drawing.left_out)})" if drawing.left_out else ""
    return f"{drawing.source} hold no area{held}. Draw annotations in QuPath and export them as GeoJSON."


def restrict_tissue(
    tissue: TissueMask, *, include: BaseGeometry | None = None, exclude: BaseGeometry | None = None
) -> TissueMask:
    """Return the tissue inside `include` and outside `exclude`.

    A mask pixel belongs to a region when its centre lies in it.

    Args:
        tissue: What was found on the slide.
        include: Polygon or MultiPolygon, level-0 pixels; None is the whole slide.
        exclude: Polygon or MultiPolygon, level-0 pixels; None is nothing.

    Returns:
        A mask of the same shape, with one more step in its ledger for each region.

    Raises:
        TissueError: If `include` lies wholly beside the slide: the regions are then of another slide or not in level-0
            pixels.

    Example:
        >>> from lamella.tissue.mask import whole_slide
        >>> whole = whole_slide((2, 4), slide_size=(400, 200), slide_mpp=(0.5, 0.5), method="glass")
        >>> left = restrict_tissue(whole, include=shapely.box(0, 0, 200, 200), exclude=shapely.box(0, 0, 100, 100))
        >>> left.mask.astype(int).tolist()
        [[0, 1, 0, 0], [1, 1, 0, 0]]
    """
    if include is not None:
        if not include.intersects(shapely.box(0, 0, *tissue.slide_size)):
            x0, y0, x1, y1 = include.bounds if not include.is_empty else (0.0, 0.0, 0.0, 0.0)
            width, height = tissue.slide_size
            raise TissueError(
                f"the regions to include lie at x {x0:.0f} to {x1:.0f}, y {y0:.0f} to {y1:.0f} but the slide has "
                f"{width} x {height} level-0 pixels. Export the regions of this slide, in level-0 pixels."
            )
        inside = rasterise_regions(include, tissue.mask.shape, tissue.slide_size)
        notes = () if (tissue.mask & inside).any() or not tissue.mask.any() else ("no tissue lies in --include",)
        tissue = tissue.with_step("include", tissue.mask & inside, *notes)
    if exclude is not None:
        inside = rasterise_regions(exclude, tissue.mask.shape, tissue.slide_size)
        notes = () if inside.any() else ("the regions to exclude cover no part of the slide",)
        tissue = tissue.with_step("exclude", tissue.mask & ~inside, *notes)
    return tissue


def save_tissue_geojson(tissue: TissueMask, path: Path, *, bounds_l0: Bounds | None = None) -> None:
    """Write the tissue's outlines as GeoJSON that QuPath opens, one annotation a piece.

    Outlines run along the edges of mask pixels, in level-0 pixels, with holes: drawn again they give the mask back.

    Args:
        tissue: What was found on the slide.
        path: File to write, by custom `.geojson`.
        bounds_l0: `Slide.bounds_l0`: coordinates count from the scan's corner, as QuPath's; None is the whole slide.

    Raises:
        OutputError: If the file cannot be written.
    """
    mask_h, mask_w = tissue.mask.shape
    bounds_l0 = bounds_l0 or (0, 0, *tissue.slide_size)
    l0_per_mask = np.array([tissue.slide_size[0] / mask_w, tissue.slide_size[1] / mask_h])
    features = []
    for number, piece in enumerate(find_outlines(tissue.mask), start=1):
        rings = [piece.exterior, *piece.interiors]
        coordinates = [
            np.round(to_scan(np.asarray(ring.coords) * l0_per_mask, bounds_l0), 3).tolist() for ring in rings
        ]
        geometry = {"type": "Polygon", "coordinates": coordinates}
        features.append(
            make_feature(geometry, class_name="Tissue", colour=COLOUR, name=f"Tissue {number}", is_locked=False)
        )
    # Compact: indented, each coordinate would take two lines.
    collection = {"type": "FeatureCollection", "lamella": describe_frame(bounds_l0), "features": features}
    write_text(Path(path), json.dumps(collection, separators=(",", ":"), allow_nan=False) + "\n")


def find_outlines(mask: NDArray[np.bool_]) -> list[shapely.Polygon]:
    """Return the pieces of a mask as polygons along its pixels' edges, in mask pixels, with holes.

    Pixels that touch only at a corner belong to separate pieces.

    Args:
        mask: `(h, w)` bool.

    Example:
        >>> [(piece.bounds, piece.area) for piece in find_outlines(np.array([[False, True, True]]))]
        [((1.0, 0.0, 3.0, 1.0), 2.0)]
    """
    padded = np.pad(mask, 1)
    # `across[y, x]` is an edge from corner (x, y) to (x + 1, y); `down[y, x]` from (x, y) to (x, y + 1).
    across = (padded[1:] != padded[:-1])[:, 1:-1]
    down = (padded[:, 1:] != padded[:, :-1])[1:-1]
    lines = np.concatenate([_runs(across, down), _runs(down.T, across.T)[..., ::-1]])
    if not len(lines):
        return []
    faces = shapely.get_parts(shapely.polygonize(np.asarray(shapely.linestrings(lines))))
    pieces = []
    for face in faces:
        corners = np.asarray(face.exterior.coords).astype(int)
        # Below and right of the face's first corner in reading order lies a pixel of the face.
        x, y = corners[np.lexsort((corners[:, 0], corners[:, 1]))[0]]
        if mask[y, x]:
            pieces.append(face)
    return pieces


def rasterise_regions(region: BaseGeometry, shape: tuple[int, ...], slide_size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return which mask pixels have their centre in a region.

    Args:
        region: Polygon or MultiPolygon, level-0 pixels.
        shape: `(h, w)` of the mask.
        slide_size: `(width, height)` of level 0, in pixels.

    Returns:
        `(h, w)` bool.
    """
    height, width = shape[:2]
    # Parts of several may overlap; in a single ring an odd number of crossings is inside however it crosses itself.
    parts = region if region.geom_type == "Polygon" else shapely.get_parts(keep_polygons(region))
    rings = shapely.get_rings(parts)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    # Shifted by half a pixel, so that pixel centres are the whole numbers.
    points = points * np.array([width, height]) / np.array(slide_size) - 0.5
    same = ring[1:] == ring[:-1]
    start, stop = points[:-1][same], points[1:][same]
    # Each edge crosses the rows whose centre lies between its ends, the upper end included: a corner counts once.
    first = np.clip(np.ceil(np.minimum(start[:, 1], stop[:, 1])), 0, height).astype(np.int64)
    last = np.clip(np.ceil(np.maximum(start[:, 1], stop[:, 1])), 0, height).astype(np.int64)
    n_rows = last - first
    edge = np.repeat(np.arange(len(n_rows)), n_rows)
    row = np.arange(n_rows.sum()) - np.repeat(np.cumsum(n_rows) - n_rows, n_rows) + first[edge]
    (x0, y0), (x1, y1) = start[edge].T, stop[edge].T
    column = np.clip(np.ceil(x0 + (row - y0) * (x1 - x0) / (y1 - y0)), 0, width).astype(np.int64)
    # Inside is where an odd number of edges lies to the left; a byte a pixel, for masks have 10^8 of them.
    crossed, n_edges = np.unique(row * (width + 1) + column, return_counts=True)
    inside = np.zeros((height, width + 1), np.uint8)
    inside.reshape(-1)[crossed[n_edges % 2 == 1]] = 1
    np.bitwise_xor.accumulate(inside, axis=1, out=inside)
    return inside[:, :width].astype(np.bool_)


def _runs(edges: NDArray[np.bool_], crossing: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Join edges along rows into lines, `(n, 2, 2)` as `(x, y)` of both ends, broken where two pixels touch corners.

    `edges` is `(h + 1, w)`, `crossing` the edges of the other direction, `(h, w + 1)`.
    """
    before, after = np.pad(edges, ((0, 0), (1, 0))), np.pad(edges, ((0, 0), (0, 1)))
    above, below = np.pad(crossing, ((1, 0), (0, 0))), np.pad(crossing, ((0, 1), (0, 0)))
    # An edge starts at every corner that has no edge before it or where lines cross, and ends likewise.
    cross = before & after & above & below
    starts = after & (~before | cross)
    stops = before & (~after | cross)
    (row, x0), (_, x1) = np.nonzero(starts), np.nonzero(stops)
    lines: NDArray[np.int64] = np.stack([np.stack([x0, row], axis=1), np.stack([x1, row], axis=1)], axis=1)
    return lines
