"""Heatmaps: the attention of tiles, laid back on the slide.

A raster of `(h, w)` pixels always covers the whole slide, so raster pixel `(row, column)` spans level-0
`x` from `column * slide_w / w` to `(column + 1) * slide_w / w`, and rows likewise. Nothing is rounded on the way: a
raster pixel cut by a tile's edge counts the tile by the share it covers.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lamella.errors import TileError

# A raster pixel covered less than this (of its area) holds no tile. Cumulative sums leave rounding of about 1e-12.
_LEAST_COVER = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SlideAttention:
    """The attention of one slide's tiles, and where they lie.

    Attributes:
        attention: `(N,)` float, not negative; sums to 1 over the slide when it comes from one model.
        coords_l0: `(N, 2)` int64 top-left corners `(x, y)`, level-0 pixels.
        tile_size_l0: `(width, height)` of a tile, level-0 pixels, not rounded.
        slide_size: `(width, height)` of level 0, in pixels.
        slide_mpp: `(x, y)` resolution of level 0, in um per pixel.

    Raises:
        TileError: If there is no tile, the arrays do not match, or attention is negative, NaN or zero everywhere.
    """

    attention: NDArray[np.float64]
    coords_l0: NDArray[np.int64]
    tile_size_l0: tuple[float, float]
    slide_size: tuple[int, int]
    slide_mpp: tuple[float, float]

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        object.__setattr__(self, "attention", np.asarray(self.attention, dtype=np.float64))
        object.__setattr__(self, "coords_l0", np.asarray(self.coords_l0))
        _check_tiles(self.attention, self.coords_l0, self.tile_size_l0, self.slide_size)
        if self.attention.size == 0:
            raise TileError("attention has no tiles, so there is nothing to draw. Leave slides without tiles out.")
        if not np.isfinite(self.attention).all() or self.attention.min() < 0 or self.attention.max() == 0:
            raise TileError(
                "attention holds negative, missing or only zero values, and must be shares of a whole. "
                "Pass softmax attention, not attention logits."
            )

    @property
    def relative(self) -> NDArray[np.float64]:
        """`(N,)` float64: attention in multiples of the slide's average tile; 1 everywhere when attention is even."""
        relative: NDArray[np.float64] = self.attention / self.attention.mean()
        return relative

    @property
    def rank(self) -> NDArray[np.int64]:
        """`(N,)` int64: 1 for the most attended tile, N for the least; ties in the order of the tiles."""
        return rank_tiles(self.attention)

    @property
    def slide_um(self) -> tuple[float, float]:
        """`(width, height)` of the slide, in um."""
        return self.slide_size[0] * self.slide_mpp[0], self.slide_size[1] * self.slide_mpp[1]


def rank_tiles(attention: ArrayLike) -> NDArray[np.int64]:
    """Rank tiles, 1 for the most attended; ties in the order of the tiles.

    Args:
        attention: `(N,)` float.

    Returns:
        `(N,)` int64, a permutation of 1 to N.

    Example:
        >>> rank_tiles([0.2, 0.5, 0.3]).tolist()
        [3, 1, 2]
    """
    order = np.argsort(-np.asarray(attention, dtype=np.float64), kind="stable")
    rank = np.empty(order.size, dtype=np.int64)
    rank[order] = np.arange(1, order.size + 1)
    return rank


def stitch_attention(
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

        >>> stitch_attention([1.0, 3.0], [[0, 0], [2, 0]], (4.0, 2.0), (8, 4), (2, 4)).tolist()
        [[1.0, 2.0, 3.0, nan], [nan, nan, nan, nan]]
    """
    value = np.asarray(values, dtype=np.float64)
    corners = np.asarray(coords_l0, dtype=np.float64).reshape(-1, 2)
    _check_tiles(value, corners, tile_size_l0, slide_size)
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


def _check_tiles(
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
