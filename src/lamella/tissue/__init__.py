"""2. Tissue: which part of a slide is worth looking at -> `TissueMask`.

`find_tissue` keeps what does not look like the scanner's empty glass; `find_tissue_otsu` is the plain Otsu threshold
that most papers use. Both take a thumbnail and know nothing of slide files. `METHODS` names them for the command line.

Coordinate frames, as suffixes:
    _l0    pixels of level 0, the finest level
    _mask  pixels of the thumbnail and of the tissue mask
    _um    micrometres on the slide
"""

from collections.abc import Callable

from lamella.tissue.glass import find_tissue
from lamella.tissue.mask import LedgerStep, TissueMask, keep_scan, thumbnail_mpp
from lamella.tissue.otsu import find_tissue_otsu
from lamella.tissue.overlay import draw_tissue
from lamella.tissue.region_files import RegionChoice, hash_choices, restrict_to_choices
from lamella.tissue.regions import load_regions, rasterise_regions, restrict_tissue, save_tissue_geojson

METHODS: dict[str, Callable[..., TissueMask]] = {"glass": find_tissue, "otsu": find_tissue_otsu}
"""What `--tissue` chooses from: name -> function of `(thumbnail, *, slide_size, slide_mpp)`."""

__all__ = [
    "METHODS",
    "LedgerStep",
    "RegionChoice",
    "TissueMask",
    "draw_tissue",
    "find_tissue",
    "find_tissue_otsu",
    "hash_choices",
    "keep_scan",
    "load_regions",
    "rasterise_regions",
    "restrict_tissue",
    "restrict_to_choices",
    "save_tissue_geojson",
    "thumbnail_mpp",
]
