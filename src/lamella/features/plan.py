"""Plans: a slide opened, its tissue found, its tiles placed, nothing encoded yet."""

import json
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lamella import __version__
from lamella.cohort import CohortSlide
from lamella.defaults import MAX_UPSAMPLE, TISSUE
from lamella.errors import SettingsError, TissueError
from lamella.features.blocks import order_by_block
from lamella.slide import ReadLevel, Slide, hash_quickly, open_slide
from lamella.slide.child import try_slide
from lamella.tiles import TileSpec, choose_tiles, place_tiles
from lamella.tissue import (
    METHODS,
    RegionChoice,
    TissueMask,
    hash_choices,
    keep_scan,
    restrict_to_choices,
    thumbnail_mpp,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CutSettings:
    """How slides are cut into tiles.

    Attributes:
        spec: Tile size, resolution, stride and tissue threshold.
        tissue: How tissue is found: `glass` or `otsu`.
        max_upsample: Greatest enlargement of the finest level that is allowed.
        include: File of regions, or folder of `<slide_id>.geojson`: only tissue inside counts.
        exclude: File of regions, or folder of `<slide_id>.geojson`: tissue inside does not count.
        include_class: Classes of regions to include; empty takes the only one there is.
        exclude_class: Classes of regions to exclude; empty takes the only one there is.
    """

    spec: TileSpec = TileSpec()  # noqa: RUF009  (frozen, so one default can be shared)
    tissue: str = TISSUE
    max_upsample: float = MAX_UPSAMPLE
    include: Path | None = None
    exclude: Path | None = None
    include_class: tuple[str, ...] = ()
    exclude_class: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a method of finding tissue that does not exist."""
        if self.tissue not in METHODS:
            known = " or ".join(METHODS)
            raise SettingsError(f"no way of finding tissue is called '{self.tissue}'. Pass --tissue {known}.")
        if not 1 <= self.max_upsample <= 4:
            raise SettingsError(f"--max-upsample is {self.max_upsample} and must be from 1 to 4. Pass 1.10.")

    @property
    def regions(self) -> tuple[RegionChoice, RegionChoice]:
        """The regions to include and to exclude."""
        return (
            RegionChoice(kind="include", path=self.include, classes=self.include_class),
            RegionChoice(kind="exclude", path=self.exclude, classes=self.exclude_class),
        )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class TilePlan:
    """What will be read of one slide.

    Attributes:
        slide: The open slide; whoever takes the plan closes it.
        tissue: Where tissue is, and the ledger.
        corners_l0: `(N, 2)` int64 corners, level-0 pixels, in block order.
        block_sizes: Number of tiles of each block.
        level: The pyramid level that is read.
        provenance: How the tiles were placed, as the files state it.
    """

    slide: Slide
    tissue: TissueMask
    corners_l0: NDArray[np.int64]
    block_sizes: tuple[int, ...]
    level: ReadLevel
    provenance: dict[str, str | int | float]


def plan_slide(item: CohortSlide, settings: CutSettings) -> TilePlan:
    """Open a slide, find its tissue and place its tiles.

    Raises:
        SlideError: If the slide cannot be opened or read.
        ResolutionError: If its resolution is missing, implausible or coarser than asked.
        TileError: If a tile is larger than the slide.
        TissueError: If a region file cannot be read.
    """
    try_slide(item.path, slide_mpp=item.slide_mpp, image=item.slide_image)
    slide = open_slide(item.path, slide_mpp=item.slide_mpp, image=item.slide_image)
    try:
        spec = settings.spec
        level = slide.find_read_level(spec.mpp, max_upsample=settings.max_upsample)
        tissue, thumbnail = find_slide_tissue(slide, item.slide_id, settings)
        corners = place_tiles(tissue.mask, spec, slide_size=slide.size, slide_mpp=slide.mpp, bounds_l0=slide.bounds_l0)
        if spec.tiles_per_slide is not None:
            corners = corners[choose_tiles(corners, spec.tiles_per_slide, slide_id=item.slide_id)]
        corners, sizes = order_by_block(corners, spec, slide.mpp, level)
        provenance = wanted_provenance(item, settings, slide.mpp) | {
            "mpp_source": slide.resolution.source,
            "slide_width": slide.size[0],
            "slide_height": slide.size[1],
            "frame": "canvas",
            "bounds_x_l0": slide.bounds_l0[0],
            "bounds_y_l0": slide.bounds_l0[1],
            "bounds_width_l0": slide.bounds_l0[2],
            "bounds_height_l0": slide.bounds_l0[3],
            "magnification": slide.magnification or 0.0,
            "slide_format": slide.format,
            "reader": slide.reader,
            "read_level": level.level,
            "upsample": level.upsample,
            "tissue_um2": tissue.tissue_um2,
            "tissue_notes": json.dumps(tissue.notes),
            "ledger": json.dumps([[step.step, step.kept_um2, step.removed_um2] for step in tissue.ledger]),
            "colour": json.dumps(measure_colour(thumbnail, tissue.mask)),
            "lamella_version": __version__,
        }
    except BaseException:
        slide.close()
        raise
    return TilePlan(
        slide=slide, tissue=tissue, corners_l0=corners, block_sizes=sizes, level=level, provenance=provenance
    )


def close_plans(plans: Iterable[Future[TilePlan]]) -> None:
    """Close the slides of those that were made."""
    for future in plans:
        if future.done() and not future.cancelled() and future.exception() is None:
            future.result().slide.close()


def find_slide_tissue(slide: Slide, slide_id: str, settings: CutSettings) -> tuple[TissueMask, NDArray[np.uint8]]:
    """Return the tissue of a slide, and the `(h, w, 3)` uint8 thumbnail in which it was found."""
    thumbnail = slide.read_thumbnail(thumbnail_mpp(settings.spec.tile_px, settings.spec.mpp))
    tissue = METHODS[settings.tissue](thumbnail, slide_size=slide.size, slide_mpp=slide.mpp)
    tissue = keep_scan(tissue, slide.bounds_l0)
    return restrict_to_choices(tissue, settings.regions, slide_id, slide.bounds_l0), thumbnail


def wanted_provenance(
    item: CohortSlide, settings: CutSettings, slide_mpp: tuple[float, float]
) -> dict[str, str | int | float]:
    """Return what must match for finished tiles of this slide to be used again."""
    spec = settings.spec
    return {
        "slide_id": item.slide_id,
        "slide_quickhash": hash_quickly(item.path),
        "slide_image": item.slide_image or "",
        "slide_mpp_x": slide_mpp[0],
        "slide_mpp_y": slide_mpp[1],
        "tile_px": spec.tile_px,
        "mpp": spec.mpp,
        "stride_px": spec.stride,
        "min_tissue": spec.min_tissue,
        "tissue": settings.tissue,
        "regions": hash_choices(settings.regions, item.slide_id),
        "max_upsample": settings.max_upsample,
        **({} if spec.tiles_per_slide is None else {"tiles_per_slide": spec.tiles_per_slide}),
    }


def measure_colour(thumbnail: NDArray[np.uint8], mask: NDArray[np.bool_]) -> list[float]:
    """Return the mean and SD of red, green and blue over tissue, six numbers; zeros where there is no tissue."""
    if not mask.any():
        return [0.0] * 6
    pixels = thumbnail[mask].astype(np.float64)
    return [round(float(value), 4) for value in (*pixels.mean(axis=0), *pixels.std(axis=0))]


def survey_regions(slides: Sequence[CohortSlide], cut: CutSettings) -> tuple[str, ...]:
    """Look through the regions of all slides before anything is done; return what a user should be told.

    Raises:
        SettingsError: If regions are not there or fit no slide, if one file of them is to serve several slides, or if
            they are of several classes and none is chosen.
    """
    notes = (choice.survey([slide.slide_id for slide in slides]) for choice in cut.regions)
    return tuple(note for note in notes if note is not None)


def refuse_empty(item: CohortSlide, plan: TilePlan) -> None:
    """Raise where nothing is left to encode, saying where the area went.

    Raises:
        TissueError: If the plan holds no tile.
    """
    if len(plan.corners_l0):
        return
    if plan.tissue.tissue_um2 == 0:
        notes = "; ".join(plan.tissue.notes)
        otsu = "" if "not brightfield" in notes else " try --tissue otsu,"
        raise TissueError(
            f"slide '{item.slide_id}' holds no tissue{f' ({notes})' if notes else ''}. Look at it with "
            f"`lamella tissue`,{otsu} or take it out of the cohort."
        )
    raise TissueError(
        f"slide '{item.slide_id}' holds {plan.tissue.tissue_um2 / 1e6:.3g} mm2 of tissue but no tile with more than "
        f"{plan.provenance['min_tissue']:.0%} of it. Pass a smaller --tile-px or --min-tissue."
    )
