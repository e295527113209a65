"""The attention map as a pyramidal OME-TIFF: one float32 channel that states its resolution, so that it registers.

The map covers the whole slide, so its extent in um is the slide's, and a viewer that places images by um lays it on the
slide without a hand. Values are attention in multiples of the average tile; NaN where no tile lies.
"""

import math
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
import pyvips
from numpy.typing import NDArray

from lamella.errors import SettingsError
from lamella.files import replacing
from lamella.report.heatmap import SlideAttention, stitch_attention

_CHANNEL = "Attention (times the average tile)"
_TILE = 256


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
    raster = stitch_attention(tiles.relative, tiles.coords_l0, tiles.tile_size_l0, tiles.slide_size, shape)
    mpp_x, mpp_y = tiles.slide_um[0] / shape[1], tiles.slide_um[1] / shape[0]
    image = _to_vips(raster)
    image.set_type(pyvips.GValue.gstr_type, "image-description", _describe(shape, (mpp_x, mpp_y)))
    with replacing(path) as temporary:
        image.tiffsave(
            str(temporary),
            tile=True,
            tile_width=_TILE,
            tile_height=_TILE,
            pyramid=True,
            subifd=True,
            # Nearest: a mean would spread the NaN of empty places over their neighbours, level by level.
            region_shrink="nearest",
            compression="deflate",
            predictor="none",
            xres=1000 / mpp_x,
            yres=1000 / mpp_y,
            resunit="cm",
        )


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


def _to_vips(raster: NDArray[np.float32]) -> pyvips.Image:
    """Wrap a `(h, w)` float32 array as a one-band image."""
    height, width = raster.shape
    image = pyvips.Image.new_from_memory(np.ascontiguousarray(raster).tobytes(), width, height, 1, "float")
    return image.copy(interpretation="b-w")


def _describe(shape: tuple[int, int], mpp: tuple[float, float]) -> str:
    """Return the OME-XML of a map: size, resolution, and what its channel measures. It names no slide."""
    height, width = shape
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        '<Image ID="Image:0" Name="attention">'
        '<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="float" BigEndian="false" Interleaved="false" '
        f'SizeX="{width}" SizeY="{height}" SizeC="1" SizeZ="1" SizeT="1" '
        f'PhysicalSizeX="{mpp[0]:.9g}" PhysicalSizeXUnit="\u00b5m" '
        f'PhysicalSizeY="{mpp[1]:.9g}" PhysicalSizeYUnit="\u00b5m">'
        f'<Channel ID="Channel:0:0" Name={quoteattr(_CHANNEL)} SamplesPerPixel="1"/>'
        '<TiffData IFD="0" PlaneCount="1"/>'
        "</Pixels></Image></OME>"
    )
