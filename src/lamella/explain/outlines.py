"""Where lesions are: outlines as GeoJSON (QuPath) or XML (ASAP, ImageScope), or an image of the whole slide."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import shapely

from lamella.cohort import CohortSlide
from lamella.errors import CohortError, SettingsError, TissueError
from lamella.explain.lesion_masks import MASK_SUFFIXES, Rasteriser, load_mask, parse_value
from lamella.slide.frame import Bounds, move_to_scan
from lamella.tissue.region_files import AREA_SUFFIXES, find_slide_file, refuse_unclear_classes, say_no_match
from lamella.tissue.regions import load_regions, rasterise_regions

SUFFIXES = AREA_SUFFIXES + MASK_SUFFIXES
CLASS_OPTION = "--lesion-class"


@dataclass(eq=False, kw_only=True)
class LesionFolder:
    """A folder of outlines or masks called after the slides.

    Attributes:
        path: The folder.
        classes: Which classes of outlines are lesions; empty takes the only one there is.
        values: Which values of masks are lesions; empty takes the only one besides the background.
        taken: The value that was taken from each mask so far, with the mask's name.
    """

    path: Path
    classes: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    taken: dict[str, str] = field(default_factory=dict)

    def find(self, slides: Sequence[CohortSlide]) -> dict[str, Path]:
        """Return the file of each slide that has one, by its id, having looked which classes they hold.

        Raises:
            CohortError: If there is no such folder, no file is of a slide, or several are of one.
            SettingsError: If the outlines are of several classes and none is chosen.
        """
        if not self.path.is_dir():
            raise CohortError(
                f"there is no folder '{self.path}'. Name the folder of the outlines, <slide_id>.geojson each."
            )
        for value in self.values:
            parse_value(value)
        files = {}
        try:
            for slide in slides:
                file = find_slide_file(self.path, slide.slide_id, SUFFIXES, besides=slide.path)
                if file is not None:
                    files[slide.slide_id] = file
        except TissueError as error:
            raise CohortError(f"--lesions: {error}") from error
        if slides and not files:
            raise CohortError(f"--lesions: {say_no_match(self.path, [slide.slide_id for slide in slides], SUFFIXES)}")
        drawn = [file for file in files.values() if file.suffix.lower() in AREA_SUFFIXES]
        if self.classes and not drawn:
            raise SettingsError(f"{CLASS_OPTION} chooses among outlines and there are masks only. Pass --lesion-value.")
        refuse_unclear_classes(drawn, self.classes, "--lesions", CLASS_OPTION)
        return files

    def load(self, path: Path, slide_size: tuple[int, int], bounds_l0: Bounds | None = None) -> Rasteriser:
        """Load the lesions of one of the files, on the scan; see `load_truth`.

        Raises:
            TissueError: If the file cannot be read, or does not say what is lesion.
            CohortError: If it marks lesions with another value than the masks before it, and none is chosen.
        """
        if path.suffix.lower() not in MASK_SUFFIXES:
            return load_truth(path, slide_size, bounds_l0, classes=self.classes)
        rasterise, value = load_mask(path, slide_size, self.values, bounds_l0)
        other = next((name for name, taken in self.taken.items() if taken != value), None)
        if other is not None:
            raise CohortError(
                f"--lesions: masks mark lesions with different values, {self.taken[other]} in '{other}' and {value} in "
                f"'{path.name}'. Choose what is lesion: --lesion-value {value} (repeatable)."
            )
        self.taken[path.name] = value
        return rasterise


def load_truth(
    path: Path,
    slide_size: tuple[int, int],
    bounds_l0: Bounds | None = None,
    *,
    classes: Sequence[str] = (),
    values: Sequence[str] = (),
) -> Rasteriser:
    """Load lesions, on the scan.

    GeoJSON counts from the scan's corner, as QuPath does; XML from the canvas's; an image covers one or the other,
    which its shape tells.

    Args:
        path: GeoJSON (QuPath), XML (ASAP, as CAMELYON16 gives it, or ImageScope), or an image of the whole slide.
        slide_size: `(width, height)` of level 0, in pixels.
        bounds_l0: `Slide.bounds_l0`; None is the whole slide.
        classes: Which classes of outlines are lesions; empty takes the only one there is.
        values: Which values of an image are lesions; empty takes the only one besides the background.

    Returns:
        A function from a shape `(h, w)` to `(h, w)` bool over the scan: pixels whose centre, or most of whose
        mask, is in a lesion.

    Raises:
        TissueError: If the file cannot be read, does not say what is lesion, or its outlines lie beside the slide.
    """
    bounds_l0 = bounds_l0 or (0, 0, *slide_size)
    if path.suffix.lower() in MASK_SUFFIXES:
        return load_mask(path, slide_size, values, bounds_l0)[0]
    region = load_regions(path, classes, option=CLASS_OPTION)
    if path.suffix.lower() == ".xml":
        region = move_to_scan(region, bounds_l0)
    width, height = bounds_l0[2:]
    if not region.intersects(shapely.box(0, 0, width, height)):
        raise TissueError(
            f"the lesions of '{path.name}' lie beside the slide of {width} x {height} px. Export them "
            "in level-0 pixels of this slide."
        )
    return lambda shape: rasterise_regions(region, shape, (width, height))
