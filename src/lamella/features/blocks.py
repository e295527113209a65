"""Blocks: neighbouring tiles whose shared pixels are decoded once.

Tiles that overlap, or that touch inside one JPEG tile of the file, would decode the same pixels again and again. So
tiles are grouped into square blocks of the grid; a block's pixels are read in one piece and its tiles cut from it.

Grouping is pure geometry and depends on the tile spec and the slide's resolution only, never on free memory.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lamella.slide import ReadLevel, Slide, resample_box
from lamella.tiles import TileSpec

_BLOCK_TILE_BYTES = 24 * 2**20  # all cut tiles of a block
_BLOCK_SOURCE_SIDE = 4000  # side of the decoded piece, level pixels
_HALO = 3  # Lanczos reaches three source pixels (times the factor) beyond the box


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Some neighbouring tiles.

    Attributes:
        corners_l0: `(n, 2)` int64 corners `(x, y)`, level-0 pixels.
    """

    corners_l0: NDArray[np.int64]


def order_by_block(
    corners_l0: NDArray[np.int64], spec: TileSpec, slide_mpp: tuple[float, float], level: ReadLevel
) -> tuple[NDArray[np.int64], tuple[int, ...]]:
    """Sort tiles so that those of one block follow each other.

    Args:
        corners_l0: `(n, 2)` int64 corners, level-0 pixels.
        spec: How the tiles are cut.
        slide_mpp: `(x, y)` resolution of level 0, in um per pixel.
        level: The level that will be read.

    Returns:
        `(n, 2)` int64 corners in block order, and the number of tiles of each block.
    """
    if not len(corners_l0):
        return corners_l0, ()
    per_side = _tiles_per_side(spec, level)
    block_l0 = np.array([per_side * spec.stride * spec.mpp / mpp for mpp in slide_mpp])
    # Half a pixel: a rounded corner that lies on a block's edge belongs to the block that begins there.
    column, row = ((corners_l0 + 0.5) // block_l0).astype(np.int64).T
    order = np.lexsort((corners_l0[:, 0], corners_l0[:, 1], column, row))
    sizes = np.unique(np.stack([row, column]), axis=1, return_counts=True)[1]
    return corners_l0[order], tuple(int(size) for size in sizes)


def list_blocks(corners_l0: NDArray[np.int64], sizes: tuple[int, ...]) -> Iterator[Block]:
    """Yield the blocks of tiles that `order_by_block` has sorted."""
    start = 0
    for size in sizes:
        yield Block(corners_l0[start : start + size])
        start += size


def read_block(slide: Slide, block: Block, spec: TileSpec, level: ReadLevel) -> NDArray[np.uint8]:
    """Return the tiles of a block, `(n, tile_px, tile_px, 3)` uint8 RGB, in the block's order.

    Raises:
        SlideError: If the slide cannot be decoded there.
    """
    tile_level = np.array([spec.tile_px * level.factor_x, spec.tile_px * level.factor_y])
    corners = block.corners_l0 / np.array([level.scale_x, level.scale_y])  # level pixels, fractional
    halo = np.ceil(_HALO * np.maximum([level.factor_x, level.factor_y], 1)).astype(int)
    start = np.floor(corners.min(axis=0)).astype(int) - halo
    stop = np.ceil(corners.max(axis=0) + tile_level).astype(int) + halo
    width, height = slide.level_dimensions[level.level]
    start, stop = np.maximum(start, 0), np.minimum(stop, [width, height])
    size = (int(stop[0] - start[0]), int(stop[1] - start[1]))
    if max(size) > 2 * _BLOCK_SOURCE_SIDE:  # a coarse tile of a slide without pyramid: read in strips instead
        corners_l0 = [(float(x), float(y)) for x, y in block.corners_l0]
        side = (spec.tile_px, spec.tile_px)
        return np.stack([slide.read_box(corner, side, spec.mpp, max_upsample=level.upsample) for corner in corners_l0])
    source = slide.read_region((int(start[0]), int(start[1])), level.level, size)
    return _cut(source, corners - start, spec, level)


def _cut(
    source: NDArray[np.uint8], corners: NDArray[np.float64], spec: TileSpec, level: ReadLevel
) -> NDArray[np.uint8]:
    """Cut tiles at fractional `corners` `(n, 2)` of `source`; where they share a lattice, resample once for all."""
    side, factors = spec.tile_px, np.array([level.factor_x, level.factor_y])
    tiles = np.empty((len(corners), side, side, 3), np.uint8)
    first = corners.min(axis=0)
    places = (corners - first) / factors  # output pixels from the first corner
    if spec.stride < side and np.abs(places - np.rint(places)).max() < 1e-3:
        extent = np.rint(places).astype(int).max(axis=0) + side
        box = (first[0], first[1], first[0] + extent[0] * factors[0], first[1] + extent[1] * factors[1])
        sheet = resample_box(source, box, (int(extent[0]), int(extent[1])))
        for tile, (x, y) in zip(tiles, np.rint(places).astype(int), strict=True):
            tile[:] = sheet[y : y + side, x : x + side]
        return tiles
    for tile, (x, y) in zip(tiles, corners, strict=True):
        tile[:] = resample_box(source, (x, y, x + side * factors[0], y + side * factors[1]), (side, side))
    return tiles


def _tiles_per_side(spec: TileSpec, level: ReadLevel) -> int:
    """Choose how many grid places a block has along each side, at least 1."""
    by_bytes = math.isqrt(max(1, _BLOCK_TILE_BYTES // (spec.tile_px**2 * 3)))
    factor = max(level.factor_x, level.factor_y)
    by_source = 1 + int((_BLOCK_SOURCE_SIDE / factor - spec.tile_px) // spec.stride)
    return max(1, min(by_bytes, by_source))
