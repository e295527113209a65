"""The attention map as a pyramidal OME-TIFF: one float32 channel that states its resolution, so that it registers.

The map covers the whole slide, so its extent in um is the slide's, and a viewer that places images by um lays it on the
slide without a hand. Values are attention in multiples of the average tile; NaN where no tile lies.
"""

import math
from pathlib import Path

from lamella.errors import SettingsError
from lamella.maps import save_map, stitch_tiles
from lamella.reports.draw.heatmap import SlideAttention

_CHANNEL = "Attention (times the average tile)"


def save_attention_tiff(tiles: SlideAttention, path: Path, *, map_mpp: float | None = None) -> None:
    """Write the attention map as a tiled, deflated, pyramidal OME-TIFF.

    Args:
        tiles: The slide's tiles and their attention.
        path: Where to write.
        map_mpp: Resolution of the map, in um per pixel; None is a sixteenth of a tile, made coarser where the map
            would have over 8,192 pixels on a side. Each axis is adjusted a little so that whole pixels cover the slide.

    Raises:
        SettingsError: If `map_mpp` is not above 0, or finer than the slide.
        OutputError: If the file cannot be written.
    """
    shape = plan_map(tiles, map_mpp=map_mpp)
    raster = stitch_tiles(tiles.relative, tiles.coords_l0, tiles.tile_size_l0, tiles.slide_size, shape)
    save_map(raster, path, slide_um=tiles.slide_um, channel=_CHANNEL)


def plan_map(tiles: SlideAttention, *, map_mpp: float | None = None) -> tuple[int, int]:
    """Choose the `(height, width)` of a map, in pixels.

    Raises:
        SettingsError: If `map_mpp` is not above 0, or finer than the slide.
    """
    finest = min(tiles.slide_mpp)
    if map_mpp is None:
        tile_um = min(size * mpp for size, mpp in zip(tiles.tile_size_l0, tiles.slide_mpp, strict=True))
        map_mpp = max(tile_um / 16, max(tiles.slide_um) / 8192, finest)
    if not (math.isfinite(map_mpp) and map_mpp >= finest * 0.999):
        raise SettingsError(
            f"the attention map is asked for at {map_mpp:g} um/px and the slide has {finest:g}. "
            "Ask for that or coarser."
        )
    width, height = (max(round(extent / map_mpp), 1) for extent in tiles.slide_um)
    return height, width
