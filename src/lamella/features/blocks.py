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

from lamella.slide import ReadLevel, Slide
from lamella.tiles import TileSpec

_BLOCK_TILE_BYTES = 24 * 2**20  # all cut tiles of a block
_BLOCK_SOURCE_SIDE = 4000  # side of the decoded piece, level pixels
_SAME_LATTICE = 1e-3  # output pixels


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

    They equal `Slide.read_box` of the same corners to within one grey level.

    Raises:
        SlideError: If the slide cannot be decoded there.
    """
    side = spec.tile_px
    l0_per_px = np.array([level.factor_x * level.scale_x, level.factor_y * level.scale_y])
    first_l0 = block.corners_l0.min(axis=0)
    places = (block.corners_l0 - first_l0) / l0_per_px  # output pixels from the first corner
    extent = np.ceil(places.max(axis=0) - _SAME_LATTICE).astype(int) + side
    leaves = bool((first_l0 + extent * l0_per_px > np.array(slide.size) + 1).any())
    tiles = np.empty((len(places), side, side, 3), np.uint8)
    if leaves or max(extent * l0_per_px) > 2 * _BLOCK_SOURCE_SIDE * level.scale_x:
        # At the slide's edge a block may reach beyond it; a coarse tile of a slide without pyramid is read in strips.
        for tile, (x, y) in zip(tiles, block.corners_l0.tolist(), strict=True):
            tile[:] = slide.read_box((x, y), (side, side), spec.mpp, max_upsample=level.upsample)
        return tiles
    source = slide.read_block((float(first_l0[0]), float(first_l0[1])), (int(extent[0]), int(extent[1])), level)
    whole = np.rint(places).astype(int)
    if spec.stride < side and np.abs(places - whole).max() < _SAME_LATTICE:
        # Overlapping tiles on one lattice: resampled once for all.
        sheet = source.cut((float(first_l0[0]), float(first_l0[1])), (int(extent[0]), int(extent[1])))
        for tile, (x, y) in zip(tiles, whole, strict=True):
            tile[:] = sheet[y : y + side, x : x + side]
        return tiles
    for tile, (x, y) in zip(tiles, block.corners_l0.tolist(), strict=True):
        tile[:] = source.cut((x, y), (side, side))
    return tiles


def _tiles_per_side(spec: TileSpec, level: ReadLevel) -> int:
    """Choose how many grid places a block has along each side, at least 1."""
    by_bytes = math.isqrt(max(1, _BLOCK_TILE_BYTES // (spec.tile_px**2 * 3)))
    factor = max(level.factor_x, level.factor_y)
    by_source = 1 + int((_BLOCK_SOURCE_SIDE / factor - spec.tile_px) // spec.stride)
    return max(1, min(by_bytes, by_source))
