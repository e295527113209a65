"""Stitching: the cells of overlapping tiles averaged into one raster of the slide, a band at a time.

A raster of `(h, w)` pixels covers the whole slide, so pixel `(row, column)` spans level-0 `x` from
`column * slide_w / w` to `(column + 1) * slide_w / w`, and rows likewise. A tile is shared out among its cells by which
centre is nearest; a pixel counts each cell by the area that it covers. Nothing is rounded on the way.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from lamella.errors import TileError

_LEAST_COVER = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class MapGrid:
    """The raster of a map, and where the cells of a tile lie on it.

    Attributes:
        shape: `(height, width)` of the raster, in pixels.
        slide_size: `(width, height)` of level 0, in pixels.
        tile_l0: `(width, height)` of a tile, level-0 pixels, not rounded.
        edges: `(cells + 1,)` where the cells of a tile begin and end, as shares of the tile, from 0 to 1.
    """

    shape: tuple[int, int]
    slide_size: tuple[int, int]
    tile_l0: tuple[float, float]
    edges: tuple[float, ...]


def plan_map_grid(
    *,
    slide_size: tuple[int, int],
    tile_l0: tuple[float, float],
    tile_px: int,
    stride: float,
    first: float,
    cells: int,
) -> MapGrid:
    """Choose the raster for the cells of tiles: half a cell a pixel, or a whole one where cells are finer than 16 px.

    Args:
        slide_size: `(width, height)` of level 0, in pixels.
        tile_l0: `(width, height)` of a tile, level-0 pixels.
        tile_px: Side of a tile as the encoder saw it, in pixels.
        stride: From one cell's centre to the next, tile pixels.
        first: Centre of the first cell, tile pixels.
        cells: Along each side of a tile.

    Returns:
        The grid; each cell reaches half way to its neighbours, the outer ones to the tile's edge.

    Raises:
        TileError: If a cell would lie outside its tile.

    Example:
        ResNet: cells of 32 px centred at 0.5, 32.5, 64.5, 96.5 on a tile of 128 px:

        >>> plan_map_grid(slide_size=(800, 400), tile_l0=(256.0, 256.0), tile_px=128, stride=32, first=0.5, cells=4)
        ... # doctest: +NORMALIZE_WHITESPACE
        MapGrid(shape=(12, 25), slide_size=(800, 400), tile_l0=(256.0, 256.0),
            edges=(0.0, 0.12890625, 0.37890625, 0.62890625, 1.0))
    """
    between = first + stride * (np.arange(1, cells) - 0.5)
    edges = np.concatenate([[0.0], between, [tile_px]]) / tile_px
    if cells < 1 or (np.diff(edges) <= 0).any():
        raise TileError(
            f"{cells} cells of {stride:g} px from {first:g} on do not fit a tile of {tile_px} px. Use larger tiles."
        )
    pixel = stride / 2 if stride >= 16 else stride  # tile pixels
    height, width = (
        max(1, round(extent / (side / tile_px * pixel)))
        for extent, side in zip(slide_size[::-1], tile_l0[::-1], strict=True)
    )
    return MapGrid(shape=(height, width), slide_size=slide_size, tile_l0=tile_l0, edges=tuple(edges.tolist()))


class CellStitcher:
    """Writes the raster of a map to disk from top to bottom, holding only the band on which tiles still fall.

    The file is NumPy's `.npy`, `(h, w)` float32, NaN where no tile lies; overlapping cells are averaged by area.

    Args:
        grid: The raster.
        path: Where to write.
    """

    def __init__(self, grid: MapGrid, path: Path) -> None:
        self._grid, self._path = grid, path
        self._top = 0  # first raster row that is not written yet
        self._sum = np.zeros((0, grid.shape[1]))
        self._cover = np.zeros((0, grid.shape[1]))
        self._file = path.open("wb")
        header = {"descr": "<f4", "fortran_order": False, "shape": grid.shape}
        np.lib.format.write_array_header_2_0(self._file, header)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Write what is left, where nothing went wrong, and close the file."""
        try:
            if kind is None:
                self._flush(self._grid.shape[0])
                self._file.flush()
                os.fsync(self._file.fileno())
        finally:
            self._file.close()

    def begin_row(self, top_l0: float) -> None:
        """Say that no tile to come begins above `top_l0`, in level-0 pixels: what lies above is written."""
        self._flush(int(top_l0 / self._grid.slide_size[1] * self._grid.shape[0]))

    def add(self, corner_l0: NDArray[np.int64] | tuple[float, float], cells: NDArray[np.floating]) -> None:
        """Lay the cells of one tile.

        Args:
            corner_l0: `(x, y)` top-left corner, level-0 pixels.
            cells: `(h, w)` values, as many each way as the grid has.

        Raises:
            TileError: If the tile begins above a row that is already written.
        """
        height, width = self._grid.shape
        (x0, across), (y0, down) = (
            _share(float(corner_l0[axis]), self._grid, axis, n) for axis, n in ((0, width), (1, height))
        )
        if y0 < self._top:
            raise TileError(f"a tile begins at row {y0} of the map, above row {self._top}. Sort tiles from the top.")
        self._grow(y0 + down.shape[1])
        region = np.s_[y0 - self._top : y0 - self._top + down.shape[1], x0 : x0 + across.shape[1]]
        self._sum[region] += down.T @ cells.astype(np.float64) @ across
        self._cover[region] += np.outer(down.sum(axis=0), across.sum(axis=0))

    def _grow(self, bottom: int) -> None:
        """Make room down to a raster row."""
        missing = bottom - self._top - len(self._sum)
        if missing > 0:
            more = np.zeros((missing, self._grid.shape[1]))
            self._sum, self._cover = np.concatenate([self._sum, more]), np.concatenate([self._cover, more])

    def _flush(self, row: int) -> None:
        """Write the rows above a raster row."""
        row = min(row, self._grid.shape[0])
        done = min(row - self._top, len(self._sum))
        if done > 0:
            total, cover = self._sum[:done], self._cover[:done]
            rows = np.full(total.shape, np.nan, dtype="<f4")
            np.divide(total, cover, out=rows, where=cover > _LEAST_COVER, casting="unsafe")
            self._file.write(rows.tobytes())
            self._sum, self._cover = self._sum[done:].copy(), self._cover[done:].copy()
            self._top += done
        empty = np.full((1, self._grid.shape[1]), np.nan, dtype="<f4").tobytes()
        for _ in range(row - self._top):
            self._file.write(empty)
        self._top = max(self._top, row)


def _share(start_l0: float, grid: MapGrid, axis: int, n_pixels: int) -> tuple[int, NDArray[np.float64]]:
    """Return the first raster pixel that a tile touches along an axis, and how much of each pixel each cell covers.

    Returns:
        The pixel, and `(cells, pixels)` float64.
    """
    per_l0 = n_pixels / grid.slide_size[axis]
    edges = np.clip((start_l0 + np.array(grid.edges) * grid.tile_l0[axis]) * per_l0, 0, n_pixels)
    begin = min(int(edges[0]), n_pixels - 1)
    end = max(begin + 1, int(np.ceil(edges[-1])))
    pixels = np.arange(begin, end)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return begin, np.maximum(overlap, 0)
