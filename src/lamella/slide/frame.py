"""Frames: the whole canvas, in which Lamella counts, and the scan on it, in which QuPath counts.

MIRAX, Leica SCN and others state where on a canvas the scan lies (`openslide.bounds-x`, `-y`, `-width`, `-height`).
Lamella, OpenSlide, TRIDENT, CLAM and ASAP count level-0 pixels from the canvas's corner; QuPath shows the scan alone
and counts from the scan's corner. GeoJSON is QuPath's, so whatever is read from it or written to it passes through
`to_canvas` or `to_scan`. Where a slide states no bounds the two frames are one.
"""

import numpy as np
import shapely
from numpy.typing import ArrayLike, NDArray
from shapely.geometry.base import BaseGeometry

from lamella.errors import TissueError

Bounds = tuple[int, int, int, int]
"""Where the scan lies on the canvas: `(x, y, width, height)`, level-0 pixels."""

_SAME_ASPECT = 0.02  # a mask whose shape differs by more than this share is of something else


def clip_bounds(bounds: Bounds | None, size: tuple[int, int]) -> Bounds:
    """Return the part of stated bounds that lies on the canvas; the whole canvas where there is none.

    Args:
        bounds: As the file states them, level-0 pixels, or None.
        size: `(width, height)` of the canvas, level-0 pixels.

    Example:
        >>> clip_bounds((500, 300, 1600, 1200), (2000, 1800))
        (500, 300, 1500, 1200)
        >>> clip_bounds(None, (2000, 1800))
        (0, 0, 2000, 1800)
    """
    if bounds is not None:
        x, y, width, height = bounds
        left, top, right, bottom = max(x, 0), max(y, 0), min(x + width, size[0]), min(y + height, size[1])
        if right > left and bottom > top:
            return left, top, right - left, bottom - top
    return 0, 0, *size


def to_canvas(points: ArrayLike, bounds_l0: Bounds) -> NDArray[np.float64]:
    """Turn points counted from the scan's corner, as QuPath counts, into points on the canvas.

    Args:
        points: `(n, 2)` as `(x, y)`, level-0 pixels from the scan's corner.
        bounds_l0: `Slide.bounds_l0`.

    Example:
        >>> to_canvas([[150, 100]], (500, 300, 1600, 1200)).tolist()
        [[650.0, 400.0]]
    """
    moved: NDArray[np.float64] = np.asarray(points, dtype=np.float64) + np.array(bounds_l0[:2])
    return moved


def to_scan(points: ArrayLike, bounds_l0: Bounds) -> NDArray[np.float64]:
    """Turn points on the canvas into points counted from the scan's corner: the inverse of `to_canvas`.

    Args:
        points: `(n, 2)` as `(x, y)`, level-0 pixels of the canvas.
        bounds_l0: `Slide.bounds_l0`.
    """
    moved: NDArray[np.float64] = np.asarray(points, dtype=np.float64) - np.array(bounds_l0[:2])
    return moved


def move_to_canvas(region: BaseGeometry, bounds_l0: Bounds) -> BaseGeometry:
    """Return a region read from GeoJSON in the canvas's frame."""
    return shapely.transform(region, lambda points: to_canvas(points, bounds_l0))


def move_to_scan(region: BaseGeometry, bounds_l0: Bounds) -> BaseGeometry:
    """Return a region of the canvas in the scan's frame."""
    return shapely.transform(region, lambda points: to_scan(points, bounds_l0))


def describe_frame(bounds_l0: Bounds) -> dict[str, str | list[int]]:
    """Return the member of a GeoJSON FeatureCollection that states its frame; readers of GeoJSON pass over it.

    Example:
        >>> describe_frame((500, 300, 1600, 1200))
        {'frame': 'scan', 'unit': 'level-0 pixel', 'bounds_l0': [500, 300, 1600, 1200]}
    """
    return {"frame": "scan", "unit": "level-0 pixel", "bounds_l0": list(bounds_l0)}


def find_scan_part(size: tuple[int, int], slide_size: tuple[int, int], bounds_l0: Bounds, *, name: str) -> Bounds:
    """Return the part of a mask image that covers the scan; its shape tells whether it covers canvas or scan.

    Args:
        size: `(width, height)` of the image, which covers the canvas or the scan.
        slide_size: `(width, height)` of the canvas, level-0 pixels.
        bounds_l0: `Slide.bounds_l0`.
        name: The mask's file name, for the message.

    Returns:
        `(x, y, width, height)`, pixels of the image.

    Raises:
        TissueError: If it has the shape of neither, or canvas and scan are alike in shape and differ in place.

    Example:
        >>> find_scan_part((240, 180), (2400, 1800), (500, 300, 1600, 900), name="S-1_mask.png")
        (50, 30, 160, 90)
        >>> find_scan_part((160, 90), (2400, 1800), (500, 300, 1600, 900), name="S-1_mask.png")
        (0, 0, 160, 90)
    """
    width, height = size
    whole = (0, 0, *slide_size)
    alike = [_is_of_shape(size, frame[2:]) for frame in (whole, bounds_l0)]
    if not any(alike):
        scan = f", its scan {bounds_l0[2]} x {bounds_l0[3]}" if bounds_l0 != whole else ""
        raise TissueError(
            f"mask '{name}' is {width} x {height} px and the slide {slide_size[0]} x {slide_size[1]}{scan}: not the "
            "same shape. Make a mask of the whole slide."
        )
    if not alike[0] or bounds_l0 == whole:
        return 0, 0, width, height
    if alike[1]:
        # Both shapes fit: the pixel count decides where the mask is of one of the two exactly.
        exact = [_is_reduced(size, frame[2:]) for frame in (whole, bounds_l0)]
        if exact[0] == exact[1]:
            raise TissueError(
                f"mask '{name}' is {width} x {height} px, which fits the canvas of {slide_size[0]} x {slide_size[1]} "
                f"px and the scan of {bounds_l0[2]} x {bounds_l0[3]} px alike, and these lie in different places. "
                "Export the lesions as GeoJSON from QuPath instead."
            )
        if exact[1]:
            return 0, 0, width, height
    x, y, scan_width, scan_height = bounds_l0
    left, right = (round(at * width / slide_size[0]) for at in (x, x + scan_width))
    top, bottom = (round(at * height / slide_size[1]) for at in (y, y + scan_height))
    return left, top, max(right - left, 1), max(bottom - top, 1)


def _is_of_shape(size: tuple[int, int], frame: tuple[int, int]) -> bool:
    """Tell whether a picture has a frame's aspect ratio, within 2% and the rounding of its own sides."""
    ratio = size[0] / size[1] / (frame[0] / frame[1])
    return abs(ratio - 1) <= _SAME_ASPECT + 0.5 / min(size)


def _is_reduced(size: tuple[int, int], frame: tuple[int, int]) -> bool:
    """Tell whether a picture is a frame reduced by a whole number."""
    factor = round(frame[0] / size[0])
    return factor >= 1 and all(
        side in (whole // factor, -(-whole // factor)) for side, whole in zip(size, frame, strict=True)
    )
