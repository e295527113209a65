"""The audit of one slide: each step that works adds to the row, each that does not is a problem of it."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lamella.audits.row import AuditRow
from lamella.audits.sharpness import measure_blur
from lamella.cohort import CohortSlide
from lamella.errors import LamellaError
from lamella.slide import Slide, hash_quickly, list_slide_files, open_slide
from lamella.slide.child import try_slide
from lamella.tiles import TileSpec, place_tiles
from lamella.tissue import METHODS, RegionChoice, TissueMask, keep_scan, restrict_to_choices, thumbnail_mpp

# A nominal magnification M means about 10/M um per pixel; scanners sold as 40x lie between 0.22 and 0.27.
MAGNIFICATION_TOLERANCE = 0.3
# Sharp tissue shows about a pixel of blur; with a Gaussian of 2 um put on it, 1.2 um and more.
BLURRED_UM, BLURRED_PX = 1.0, 2.5
MANY_PEN = 0.01
_MOST_TILES = 16
_TILE_L0 = 512


class Cut(Protocol):
    """How slides are cut into tiles; `lamella.features.plan.CutSettings` is one."""

    @property
    def spec(self) -> TileSpec:
        """Size, resolution, stride and tissue threshold."""

    @property
    def tissue(self) -> str:
        """How tissue is found: a name in `lamella.tissue.METHODS`."""

    @property
    def max_upsample(self) -> float:
        """Greatest enlargement of the finest level that is allowed."""

    @property
    def regions(self) -> tuple[RegionChoice, ...]:
        """The regions to include and to exclude."""


def audit_slide(item: CohortSlide, cut: Cut) -> AuditRow:
    """Look at one slide; whatever is wrong with it is in the row, not raised."""
    visit = _Visit(item, cut)
    visit.attempt(visit.find_file)
    if not visit.problems:
        visit.attempt(visit.look_inside)
    return replace(visit.row, problems=tuple(visit.problems), remarks=tuple(visit.remarks))


class _Visit:
    """What one visit to a slide tells."""

    def __init__(self, item: CohortSlide, cut: Cut) -> None:
        self.item, self.cut = item, cut
        self.row = AuditRow(slide_id=item.slide_id)
        self.problems: list[str] = []
        self.remarks: list[str] = []
        self.is_fine_enough = False

    def attempt(self, step: Callable[..., None], *given: Any) -> None:
        """Run a step; what it refuses becomes a problem, so that the other steps and slides go on."""
        try:
            step(*given)
        except (LamellaError, OSError) as error:
            text = " ".join(str(error).split())
            if text not in self.problems:
                self.problems.append(text)

    def find_file(self) -> None:
        """Size and hash of the file."""
        path = self.item.path
        if not path.exists():
            self.problems.append(
                f"there is no file '{path}' for slide '{self.item.slide_id}'. "
                "Paths are relative to the cohort's folder."
            )
            return
        files = list_slide_files(path)
        self.row = replace(self.row, n_bytes=sum(file.stat().st_size for file in files), quick_hash=hash_quickly(path))

    def look_inside(self) -> None:
        """Everything that needs the slide open."""
        try_slide(self.item.path, slide_mpp=self.item.slide_mpp, image=self.item.slide_image)
        with open_slide(self.item.path, slide_mpp=self.item.slide_mpp, image=self.item.slide_image) as slide:
            self.row = replace(
                self.row,
                format=slide.format,
                reader=slide.reader,
                width=slide.size[0],
                height=slide.size[1],
                n_levels=len(slide.level_dimensions),
                magnification=slide.magnification,
                notes=slide.notes,
            )
            self.attempt(self.look_at_levels, slide)
            self.attempt(self.find_resolution, slide)
            if self.row.mpp_x is not None:
                self.attempt(self.find_level, slide)
                self.attempt(self.find_tiles, slide)
            elif not self.row.readable:
                self.attempt(self.read_tiles, slide, np.array([[slide.size[0] // 2, slide.size[1] // 2]]))

    def look_at_levels(self, slide: Slide) -> None:
        """Whether levels are padded, and whether all show one picture in one place."""
        for number in slide.find_misfits():
            width, height = slide.level_dimensions[number]
            self.problems.append(
                f"levels of slide '{self.item.slide_id}' do not fit each other: level {number} ({width} x {height} px) "
                "is shifted by over 2 px or shows another image, so tissue would be detected in the wrong place. "
                "Rebuild the levels: vips tiffsave IN rebuilt.tif --tile --pyramid --compression jpeg --Q 90 --bigtiff"
            )

    def find_resolution(self, slide: Slide) -> None:
        """The resolution, its source, and whether the nominal magnification tells the same."""
        resolution = slide.resolution
        self.row = replace(self.row, mpp_x=resolution.x, mpp_y=resolution.y, mpp_source=resolution.source)
        if slide.overruled_mpp is not None:
            self.remarks.append(
                f"the file states {slide.overruled_mpp[0]:.4g} um/px and {resolution.x:.4g} is given, which is used."
            )
        if slide.magnification:
            expected = 10 / slide.magnification
            ratio = (resolution.x * resolution.y) ** 0.5 / expected
            agrees = 1 / (1 + MAGNIFICATION_TOLERANCE) <= ratio <= 1 + MAGNIFICATION_TOLERANCE
            self.row = replace(self.row, magnification_agrees=agrees)
            if not agrees:
                self.remarks.append(
                    f"{slide.magnification:g}x would be about {expected:.3g} um/px but the resolution is "
                    f"{resolution.x:.3g} ({resolution.source}); if that is wrong, pass --slide-mpp."
                )

    def find_level(self, slide: Slide) -> None:
        """Whether the slide is fine enough."""
        slide.find_read_level(self.cut.spec.mpp, max_upsample=self.cut.max_upsample)
        self.is_fine_enough = True

    def find_tiles(self, slide: Slide) -> None:
        """Tissue, tiles to expect, and a look at some of them."""
        spec = self.cut.spec
        tissue = self.find_tissue(slide)
        corners = np.empty((0, 2), dtype=np.int64)
        try:
            corners = place_tiles(
                tissue.mask, spec, slide_size=slide.size, slide_mpp=slide.mpp, bounds_l0=slide.bounds_l0
            )
            self.row = replace(self.row, n_tiles=len(corners) if self.is_fine_enough else 0)
            if not len(corners):
                self.say_empty(tissue)
        finally:
            left, top, width, height = slide.bounds_l0
            # The pixels are looked at even where no tile fits: a damaged slide must not hide behind that.
            places = corners if len(corners) else np.array([[left + width // 3, top + height // 3]])
            self.attempt(self.read_tiles, slide, places)

    def find_tissue(self, slide: Slide) -> TissueMask:
        """Find tissue as the extraction will."""
        spec, slide_id = self.cut.spec, self.item.slide_id
        thumbnail = slide.read_thumbnail(thumbnail_mpp(spec.tile_px, spec.mpp))
        tissue = METHODS[self.cut.tissue](thumbnail, slide_size=slide.size, slide_mpp=slide.mpp)
        tissue = restrict_to_choices(keep_scan(tissue, slide.bounds_l0), self.cut.regions, slide_id, slide.bounds_l0)
        whole_um2 = slide.bounds_l0[2] * slide.bounds_l0[3] * slide.mpp[0] * slide.mpp[1]
        pen_um2 = sum(step.removed_um2 for step in tissue.ledger if step.step == "pen")
        self.row = replace(
            self.row,
            tissue_mm2=tissue.tissue_um2 / 1e6,
            tissue_share=min(tissue.tissue_um2 / whole_um2, 1.0),
            pen_share=pen_um2 / whole_um2,
        )
        self.remarks.extend(tissue.notes)
        if pen_um2 > MANY_PEN * whole_um2:
            self.remarks.append(f"{pen_um2 / whole_um2:.1%} of the slide has the colours of pen ink and is left out.")
        return tissue

    def say_empty(self, tissue: TissueMask) -> None:
        """Say why there is no tile."""
        slide_id, spec = self.item.slide_id, self.cut.spec
        if tissue.tissue_um2 == 0:
            otsu = "" if any("not brightfield" in note for note in tissue.notes) else " try --tissue otsu,"
            self.problems.append(
                f"slide '{slide_id}' holds no tissue. Look at it with `lamella tissue`,{otsu} or take it out of the "
                "cohort."
            )
        else:
            self.problems.append(
                f"slide '{slide_id}' holds {tissue.tissue_um2 / 1e6:.3g} mm2 of tissue but no tile with more than "
                f"{spec.min_tissue:.0%} of it. Pass a smaller --tile-px or --min-tissue."
            )

    def read_tiles(self, slide: Slide, corners_l0: NDArray[np.int64]) -> None:
        """Read up to 16 places at full resolution: can they be read, how fast, how sharp are they."""
        chosen = corners_l0[np.linspace(0, len(corners_l0) - 1, min(_MOST_TILES, len(corners_l0))).round().astype(int)]
        size = (min(_TILE_L0, slide.size[0]), min(_TILE_L0, slide.size[1]))
        blurs, start = [], time.perf_counter()
        for x, y in chosen:
            corner = (min(int(x), slide.size[0] - size[0]), min(int(y), slide.size[1] - size[1]))
            tile = slide.read_region(corner, 0, size)
            if self.row.mpp_x is not None:
                blurs.append(measure_blur(tile, self.row.mpp_x))
        seconds = (time.perf_counter() - start) / len(chosen)
        self.row = replace(self.row, readable=True)
        if self.row.mpp_x is not None:
            tile_seconds = seconds * self.pixels_of_tile(slide) / (size[0] * size[1])
            self.note_blur([blur for blur in blurs if blur is not None], self.row.mpp_x)
            self.row = replace(self.row, tile_seconds=tile_seconds)

    def pixels_of_tile(self, slide: Slide) -> float:
        """Return how many new pixels one tile takes at the level it is read from; overlap is decoded once."""
        spec = self.cut.spec
        step_um = min(spec.stride, spec.tile_px) * spec.mpp
        finest: float = max((d for d in slide.level_downsamples if d * slide.mpp[0] <= spec.mpp * 1.001), default=1.0)
        return float(step_um**2 / (slide.mpp[0] * slide.mpp[1] * finest**2))

    def note_blur(self, blurs: list[float], mpp: float) -> None:
        """Keep the median blur."""
        if not blurs:
            return
        blur_um = float(np.median(blurs))
        self.row = replace(self.row, blur_um=blur_um)
        if blur_um > max(BLURRED_UM, BLURRED_PX * mpp):
            self.remarks.append(f"edges are blurred by {blur_um:.2g} um: out of focus? Look at it before using it.")
