"""Maps over a slide: values of tiles, or of the cells of tiles, stitched into one raster and kept as a TIFF."""

from lamella.maps.stitch import CellStitcher, MapGrid, plan_map_grid
from lamella.maps.tiff import load_map, save_map
from lamella.maps.tiles import check_tiles, fit_map, stitch_tiles

__all__ = [
    "CellStitcher",
    "MapGrid",
    "check_tiles",
    "fit_map",
    "load_map",
    "plan_map_grid",
    "save_map",
    "stitch_tiles",
]
