"""The most attended tiles, side by side: what the model looked at, at the resolution it saw."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from lamella.errors import TileError
from lamella.reports.draw.heatmap import SlideAttention
from lamella.reports.draw.pictures import FAINT, INK, PAPER, Picture, draw_scale_bar, find_font, fit_text

_MARGIN = 20
_HEADER = 80
_GAP = 12
_CAPTION = 46
_FOOTER = 40


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TopTile:
    """One tile of a sheet.

    Attributes:
        image: `(h, w, 3)` uint8 RGB, as the encoder saw it.
        rank: 1 for the most attended tile of the slide.
        relative: Attention, in multiples of the slide's average tile.
        corner_l0: Top-left corner `(x, y)`, level-0 pixels from the scan's corner, as QuPath counts.
    """

    image: NDArray[np.uint8]
    rank: int
    relative: float
    corner_l0: tuple[int, int]


def find_top_tiles(tiles: SlideAttention, n_tiles: int = 12, *, max_overlap: float = 0.25) -> NDArray[np.int64]:
    """Find the most attended tiles, passing over those that mostly repeat one already taken.

    Args:
        tiles: The slide's tiles and their attention.
        n_tiles: How many to find at most.
        max_overlap: Largest share of a tile that one already taken may cover, 0 to 1.

    Returns:
        `(n,)` int64 indices into `tiles`, the most attended first; n is below `n_tiles` on small slides.

    Example:
        Tiles of 4 x 2 pixels; the second most attended repeats three quarters of the first:

        >>> tiles = SlideAttention(
        ...     attention=np.array([0.5, 0.3, 0.2]), coords_l0=np.array([[0, 0], [1, 0], [8, 2]]),
        ...     tile_size_l0=(4.0, 2.0), slide_size=(16, 4), slide_mpp=(0.5, 0.5))
        >>> find_top_tiles(tiles, 2).tolist()
        [0, 2]
    """
    order = np.argsort(tiles.rank)
    corners = tiles.coords_l0[order].astype(np.float64)
    open_ = np.ones(order.size, dtype=bool)
    taken: list[int] = []
    while len(taken) < n_tiles and open_.any():
        first = int(np.argmax(open_))
        taken.append(first)
        apart = np.abs(corners - corners[first]) / np.asarray(tiles.tile_size_l0)
        shared = np.clip(1 - apart, 0, 1).prod(axis=1)
        open_ &= shared <= max_overlap
        open_[first] = False
    return np.asarray(order[taken], dtype=np.int64)


def draw_top_tiles(
    tiles: Sequence[TopTile],
    *,
    tile_um: tuple[float, float],
    title: str,
    subtitle: str = "",
    n_columns: int = 4,
    cell_px: int = 224,
) -> Picture:
    """Draw a sheet of tiles with rank, attention and place under each.

    Args:
        tiles: What to draw, in this order.
        tile_um: `(width, height)` that each tile spans, in um.
        title: First line: which slide.
        subtitle: Second line: what was predicted.
        n_columns: Tiles in a row.
        cell_px: Width of a tile on the sheet, in pixels.

    Raises:
        TileError: If there is no tile to draw.
    """
    if not tiles:
        raise TileError("a sheet of the most attended tiles has no tiles. Leave slides without tiles out.")
    n_columns = min(n_columns, len(tiles))
    n_rows = -(-len(tiles) // n_columns)
    cell_h = max(round(cell_px * tile_um[1] / tile_um[0]), 8)
    width = max(2 * _MARGIN + n_columns * cell_px + (n_columns - 1) * _GAP, 2 * _MARGIN + 2 * cell_px + _GAP)
    height = _HEADER + n_rows * (cell_h + _CAPTION + _GAP) + _FOOTER
    canvas = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(canvas)
    bold = find_font(22, bold=True)
    draw.text((_MARGIN, 14), fit_text(title, bold, width - 2 * _MARGIN), INK, bold)
    draw.text((_MARGIN, 45), fit_text(subtitle, find_font(16), width - 2 * _MARGIN), FAINT, find_font(16))
    for place, tile in enumerate(tiles):
        row, column = divmod(place, n_columns)
        x, y = _MARGIN + column * (cell_px + _GAP), _HEADER + row * (cell_h + _CAPTION + _GAP)
        shrinks = tile.image.shape[1] > cell_px
        image = cv2.resize(tile.image, (cell_px, cell_h), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
        canvas.paste(Image.fromarray(image), (x, y))
        draw.text((x, y + cell_h + 6), f"{tile.rank}.  {tile.relative:.3g} x average", INK, find_font(15))
        place_l0 = f"x {tile.corner_l0[0]:,}  y {tile.corner_l0[1]:,} px"
        draw.text((x, y + cell_h + 26), fit_text(place_l0, find_font(12), cell_px), FAINT, find_font(12))
    draw_scale_bar(draw, (_MARGIN, height - _FOOTER + 12), tile_um[0] / cell_px, cell_px * 2)
    return Picture(np.asarray(canvas), (_MARGIN - 2, _HEADER - 4, width, height))
