"""From pixels of a level to pixels at the asked resolution, exactly.

A box with fractional corners is read with a halo and resampled with a Lanczos filter that takes the halo into
account, so that a tile equals the same place of the whole image resampled at once.

Coordinate frames, as suffixes:
    _l0     pixels of level 0
    _level  pixels of the level that is read
    _px     pixels of the output
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LANCZOS_SUPPORT = 3.0
EXACT_PX = 1e-3  # a shift or stretch below this, in pixels over the whole box, is no reason to resample


@dataclass(frozen=True, slots=True)
class ReadLevel:
    """The level to read for an asked resolution, and how its pixels relate to the output's.

    Attributes:
        level: Pyramid level, 0 finest.
        scale_x: Level-0 pixels per level pixel, along x.
        scale_y: The same along y.
        factor_x: Level pixels per output pixel, along x: above 1 the level is finer than asked.
        factor_y: The same along y.
    """

    level: int
    scale_x: float
    scale_y: float
    factor_x: float
    factor_y: float

    @property
    def upsample(self) -> float:
        """How much pixels are enlarged: 1 when the level is at least as fine as asked."""
        return max(1.0, 1.0 / self.factor_x, 1.0 / self.factor_y)

    def to_level(self, point_l0: tuple[float, float]) -> tuple[float, float]:
        """Turn a level-0 point `(x, y)` into level pixels."""
        return point_l0[0] / self.scale_x, point_l0[1] / self.scale_y

    def find_spans(
        self,
        corner_l0: tuple[float, float],
        size_px: tuple[int, int],
        level_size: tuple[int, int],
        slide_size: tuple[int, int],
    ) -> tuple["Span", "Span"]:
        """Find which pixels of the level a box needs, along x and y.

        Args:
            corner_l0: `(x, y)` of the box's top-left corner, level-0 pixels.
            size_px: `(width, height)` of the box, output pixels.
            level_size: `(width, height)` of the level.
            slide_size: `(width, height)` of level 0.
        """
        (x, y), extents = self.to_level(corner_l0), self.to_level(slide_size)
        return (
            find_span(x, size_px[0] * self.factor_x, self.factor_x, n_level=level_size[0], extent=extents[0]),
            find_span(y, size_px[1] * self.factor_y, self.factor_y, n_level=level_size[1], extent=extents[1]),
        )


@dataclass(frozen=True, slots=True)
class Span:
    """Which pixels of a level a box needs along one axis, and how many to repeat where the level has none.

    Attributes:
        start: The first pixel, in level pixels; below 0 where the box leaves the slide.
        stop: One past the last pixel.
        pad_before: How often the first pixel is repeated.
        pad_after: How often the last pixel is repeated.
    """

    start: int
    stop: int
    pad_before: int
    pad_after: int


def find_span(corner: float, length: float, factor: float, *, n_level: int, extent: float) -> Span:
    """Find the span of a box of `length` at `corner`, in level pixels.

    The filter's halo stops at the slide's edge, as it does when a whole image is resampled. A box that leaves the slide
    by less than a pixel (corners are rounded; small levels drop what does not fill a pixel) sees the last pixel
    repeated; one that leaves it further sees white there.

    Args:
        corner: Where the box begins, level pixels.
        length: How long it is, level pixels.
        factor: Level pixels per output pixel.
        n_level: How many pixels the level has.
        extent: Where the slide ends, in level pixels; more than one beyond `n_level` where the level leaves glass out.

    Example:
        A box from 2.5 to 6.5 of 100 pixels, not resized, sees 4 pixels more on either side and none before 0:

        >>> find_span(2.5, 4.0, 1.0, n_level=100, extent=100.0)
        Span(start=0, stop=11, pad_before=0, pad_after=0)
    """
    halo = find_halo(factor)
    first, last = math.floor(corner + EXACT_PX), math.ceil(corner + length - EXACT_PX)
    start = max(0, first - halo) if corner > -1.0 else first
    # A level that ends long before the slide (its writer left empty glass out) has nothing there to repeat.
    end = n_level if extent > n_level + 1.0 else max(extent, n_level)
    stop = min(n_level, last + halo) if corner + length < end + 1.0 else last
    return Span(start, stop, max(0, start - first), max(0, last - stop))


@dataclass(frozen=True, slots=True, eq=False)
class SourceBlock:
    """Decoded pixels of one level, from which any number of output tiles are cut.

    Attributes:
        pixels: `(h, w, 3)` uint8 RGB: what was asked for with a halo around it, white outside the slide.
        origin_level: `(x, y)` of the block's top-left pixel, in level pixels.
        read_level: The level and its factors.
        level_size: `(width, height)` of the level.
        slide_size: `(width, height)` of level 0.
    """

    pixels: NDArray[np.uint8]
    origin_level: tuple[int, int]
    read_level: ReadLevel
    level_size: tuple[int, int]
    slide_size: tuple[int, int]

    def cut(self, corner_l0: tuple[float, float], size_px: tuple[int, int]) -> NDArray[np.uint8]:
        """Cut one tile; it equals `Slide.read_box` of the same place to within one grey level.

        Args:
            corner_l0: `(x, y)` of the tile's top-left corner, level-0 pixels, inside what the block was read for.
            size_px: `(width, height)` of the tile, in pixels at the asked resolution.

        Returns:
            `(height, width, 3)` uint8 RGB.

        Raises:
            ValueError: If the tile leaves the block.
        """
        x_span, y_span = self.read_level.find_spans(corner_l0, size_px, self.level_size, self.slide_size)
        left, top = x_span.start - self.origin_level[0], y_span.start - self.origin_level[1]
        right, bottom = x_span.stop - self.origin_level[0], y_span.stop - self.origin_level[1]
        if min(left, top) < 0 or right > self.pixels.shape[1] or bottom > self.pixels.shape[0]:
            raise ValueError(
                f"a tile of {size_px} pixels at level-0 {corner_l0} leaves its block. Read a larger block."
            )
        source = self.pixels[top:bottom, left:right]
        pads = ((y_span.pad_before, y_span.pad_after), (x_span.pad_before, x_span.pad_after), (0, 0))
        if any(before or after for before, after in pads):
            source = np.pad(source, pads, mode="edge")
        x, y = self.read_level.to_level(corner_l0)
        x, y = x - x_span.start + x_span.pad_before, y - y_span.start + y_span.pad_before
        width, height = size_px[0] * self.read_level.factor_x, size_px[1] * self.read_level.factor_y
        return resample_box(source, (x, y, x + width, y + height), size_px)


def resample_box(
    source: NDArray[np.uint8], box: tuple[float, float, float, float], size_px: tuple[int, int]
) -> NDArray[np.uint8]:
    """Resample a box of `source`, with fractional corners, to `size_px`.

    Uses a Lanczos filter of three lobes, widened when the box shrinks so that nothing is aliased; it looks beyond the
    box where `source` has pixels there (give it a halo of `find_halo`). Where the box lies on whole pixels and keeps
    its size, to a thousandth of a pixel, the pixels are copied and nothing is filtered.

    Args:
        source: `(h, w, 3)` uint8.
        box: `(x0, y0, x1, y1)` in pixels of `source`; pixel i covers i to i + 1.
        size_px: `(width, height)` of the output.

    Returns:
        `(height, width, 3)` uint8, an array of its own.

    Raises:
        ValueError: If the box is empty or leaves `source` by more than a thousandth of a pixel.

    Example:
        A box of 4 x 2 pixels copied as it is:

        >>> source = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
        >>> bool((resample_box(source, (0.0, 1.0, 4.0, 3.0), (4, 2)) == source[1:]).all())
        True
    """
    height, width = source.shape[:2]
    x0, y0, x1, y1 = box
    if not (x1 > x0 and y1 > y0 and min(size_px) > 0):
        raise ValueError(f"a box {box} for {size_px} pixels is empty; both need a width and a height above 0.")
    if min(x0, y0) < -EXACT_PX or x1 > width + EXACT_PX or y1 > height + EXACT_PX:
        raise ValueError(f"a box {box} leaves its source of {width} x {height} pixels. Read a larger source.")
    if _keeps_grid(x0, x1, size_px[0]) and _keeps_grid(y0, y1, size_px[1]):
        column, row = round(x0), round(y0)
        return source[row : row + size_px[1], column : column + size_px[0]].copy()
    # Crop to what the filter sees: Pillow keeps box corners in single precision, so small numbers are exact ones.
    halo_x, halo_y = find_halo((x1 - x0) / size_px[0]), find_halo((y1 - y0) / size_px[1])
    left, top = max(0, math.floor(x0) - halo_x), max(0, math.floor(y0) - halo_y)
    right, bottom = min(width, math.ceil(x1) + halo_x), min(height, math.ceil(y1) + halo_y)
    window = (max(0.0, x0 - left), max(0.0, y0 - top), min(x1, width) - left, min(y1, height) - top)
    image = Image.fromarray(np.ascontiguousarray(source[top:bottom, left:right]))
    return np.array(image.resize(size_px, Image.Resampling.LANCZOS, box=window))


def find_halo(factor: float) -> int:
    """Return how many source pixels the filter sees beyond a box, at `factor` source pixels per output pixel."""
    return math.ceil(LANCZOS_SUPPORT * max(1.0, factor)) + 1


def _keeps_grid(start: float, stop: float, n_px: int) -> bool:
    """Tell whether an interval lies on whole pixels and holds as many as the output."""
    return abs(stop - start - n_px) < EXACT_PX and abs(start - round(start)) < EXACT_PX
