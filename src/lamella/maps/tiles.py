"""Tiles laid back on the slide, each with one value.

A raster of `(h, w)` pixels always covers the whole slide, so raster pixel `(row, column)` spans level-0
`x` from `column * slide_w / w` to `(column + 1) * slide_w / w`, and rows likewise. Nothing is rounded on the way: a
raster pixel cut by a tile's edge counts the tile by the share it covers.
"""

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from lamella.errors import TileError

# A raster pixel covered less than this (of its area) holds no tile. Cumulative sums leave rounding of about 1e-12.
_LEAST_COVER = 1e-6


def stitch_tiles(
    values: ArrayLike,
    coords_l0: ArrayLike,
    tile_size_l0: tuple[float, float],
    slide_size: tuple[int, int],
    shape: tuple[int, int],
) -> NDArray[np.float32]:
    """Lay the values of tiles on a raster of the whole slide; overlapping tiles are averaged by the area they cover.

    Exact for fractional tile sizes and raster pixels; the cost is that of the raster, plus 32 additions a tile.

    Args:
        values: `(N,)` float, one value a tile.
        coords_l0: `(N, 2)` top-left corners `(x, y)`, level-0 pixels.
        tile_size_l0: `(width, height)` of a tile, level-0 pixels.
        slide_size: `(width, height)` of level 0, in pixels.
        shape: `(height, width)` of the raster.

    Returns:
        `shape` float32, NaN where no tile lies.

    Raises:
        TileError: If the arrays do not match or a size is not positive.

    Example:
        A slide of 8 x 4 pixels on a raster of 4 x 2; the second tile covers half of the first:

        >>> stitch_tiles([1.0, 3.0], [[0, 0], [2, 0]], (4.0, 2.0), (8, 4), (2, 4)).tolist()
        [[1.0, 2.0, 3.0, nan], [nan, nan, nan, nan]]
    """
    value = np.asarray(values, dtype=np.float64)
    corners = np.asarray(coords_l0, dtype=np.float64).reshape(-1, 2)
    check_tiles(value, corners, tile_size_l0, slide_size)
    if min(shape) < 1:
        raise TileError(f"a raster of {shape[1]} x {shape[0]} pixels is empty. Ask for at least 1 x 1.")
    height, width = shape
    raster_per_l0 = np.array([width / slide_size[0], height / slide_size[1]])
    start = np.clip(corners * raster_per_l0, 0, [width, height])
    stop = np.clip((corners + np.asarray(tile_size_l0)) * raster_per_l0, 0, [width, height])
    # Each tile is an outer product of two trapezoids; its second difference is not zero at 16 raster nodes only.
    column, weight_x = _list_steps(start[:, 0], stop[:, 0])
    row, weight_y = _list_steps(start[:, 1], stop[:, 1])
    node = (row[:, None, :] * (width + 2) + column[None, :, :]).ravel()
    weight = weight_y[:, None, :] * weight_x[None, :, :]
    cover = _sum_steps(node, weight.ravel(), shape)
    total = _sum_steps(node, (weight * value).ravel(), shape)
    covered = cover > _LEAST_COVER
    stitched = np.full(shape, np.nan, dtype=np.float32)
    if covered.any():
        # An average lies between the values it averages; the clip takes the sums' rounding back.
        stitched[covered] = np.clip(total[covered] / cover[covered], value.min(), value.max())
    return stitched


def _list_steps(start: NDArray[np.float64], stop: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """List where and by how much the covers of N intervals step: the running sum of the steps is each pixel's share.

    An interval beginning at 2.25 covers 0.75 of pixel 2 and all of pixel 3: it steps by 0.75 at 2 and by 0.25 at 3.

    Returns:
        `(4, N)` int64 raster pixels, and `(4, N)` float64 steps.
    """
    first, last = np.floor(start), np.floor(stop)
    node = np.stack([first, first + 1, last, last + 1]).astype(np.int64)
    step = np.stack([1 - (start - first), start - first, (stop - last) - 1, last - stop])
    return node, step


def _sum_steps(node: NDArray[np.int64], step: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.float64]:
    """Sum steps, given on a raster two wider and higher than `shape`, along both axes; `shape` float64."""
    height, width = shape
    steps = np.bincount(node, step, (height + 2) * (width + 2)).reshape(height + 2, width + 2)
    summed: NDArray[np.float64] = steps.cumsum(axis=0).cumsum(axis=1)[:height, :width]
    return summed


def check_tiles(
    values: NDArray[np.float64],
    coords_l0: NDArray[np.int64] | NDArray[np.float64],
    tile_size_l0: tuple[float, float],
    slide_size: tuple[int, int],
) -> None:
    """Refuse tiles whose arrays do not match.

    Raises:
        TileError: If shapes differ or a size is not positive.
    """
    if values.ndim != 1 or coords_l0.ndim != 2 or coords_l0.shape != (values.size, 2):
        raise TileError(
            f"there are values of shape {values.shape} and coordinates of shape {coords_l0.shape}, and (N,) and "
            "(N, 2) are needed. Take both from the same bag."
        )
    if min(tile_size_l0) <= 0 or min(slide_size) <= 0:
        raise TileError(
            f"tiles of {tile_size_l0[0]:g} x {tile_size_l0[1]:g} on a slide of {slide_size[0]} x {slide_size[1]} "
            "level-0 pixels cannot be drawn. Sizes must be above 0."
        )


def fit_map(raster: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Resize a map; a pixel is the mean of what it covers, empty places left out.

    Args:
        raster: `(h, w)` float32, NaN where no tile lies.
        shape: `(height, width)` wanted.
    """
    height, width = shape[:2]
    real = np.isfinite(raster)
    shrinks = width < raster.shape[1]
    kind = cv2.INTER_AREA if shrinks else cv2.INTER_NEAREST
    share = cv2.resize(real.astype(np.float32), (width, height), interpolation=kind)
    total = cv2.resize(np.where(real, raster, np.float32(0)), (width, height), interpolation=kind)
    fitted = np.full((height, width), np.nan, dtype=np.float32)
    np.divide(total, share, out=fitted, where=share > 0.5)
    return fitted
