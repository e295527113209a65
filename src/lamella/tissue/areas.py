"""Areas drawn by a person, each with the class that it was given, and which of them count.

QuPath calls a class that is derived from another `Tumor: Positive`. One whose name ends in `*` (`Ignore*`, `Region*`)
it does not count; here neither, unless that class is asked for.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from lamella.errors import TissueError

UNCLASSIFIED = "Unclassified"


@dataclass(frozen=True, slots=True, eq=False)
class Area:
    """One area.

    Attributes:
        shape: A valid Polygon or MultiPolygon, level-0 pixels.
        class_name: Its class, `Unclassified` where it has none.
        is_hole: Whether it is taken out of the others unless its class is asked for, as ASAP's exclusions are.
    """

    shape: BaseGeometry
    class_name: str = UNCLASSIFIED
    is_hole: bool = False

    @property
    def counts(self) -> bool:
        """Whether it counts where no class is asked for."""
        return not self.is_hole and not self.class_name.split(":")[-1].strip().endswith("*")


@dataclass(frozen=True, slots=True, eq=False)
class Drawing:
    """What one file holds.

    Attributes:
        source: The file, for messages.
        areas: Its areas.
        left_out: What has no area or is no annotation, by kind.
    """

    source: str
    areas: list[Area] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    @property
    def classes(self) -> Counter[str]:
        """Return the classes that count where none is asked for, with their number of areas."""
        return Counter(area.class_name for area in self.areas if area.counts and not area.shape.is_empty)

    def has_class(self, classes: Sequence[str]) -> bool:
        """Return whether there is an area of one of the classes."""
        return any(is_of_class(area.class_name, classes) for area in self.areas)

    def choose(self, classes: Sequence[str] = (), *, option: str = "--include-class") -> BaseGeometry:
        """Return the areas that count as one geometry, what overlaps counting once.

        Args:
            classes: Names of classes, those derived from them included; empty takes the only class there is.
            option: What a message names to choose a class with.

        Returns:
            A valid Polygon or MultiPolygon, level-0 pixels; empty where no area is of these classes.

        Raises:
            TissueError: If no class is asked for and the file holds several, or none that counts.
        """
        if classes:
            chosen = [area for area in self.areas if is_of_class(area.class_name, classes)]
        else:
            self._refuse_several(option)
            chosen = [area for area in self.areas if area.counts]
        taken = {id(area) for area in chosen}
        holes = [area.shape for area in self.areas if area.is_hole and id(area) not in taken]
        shape = _join([area.shape for area in chosen])
        return _take_polygons(shape.difference(_join(holes))) if holes else shape

    def _refuse_several(self, option: str) -> None:
        classes = self.classes
        if len(classes) > 1:
            raise TissueError(
                f"{self.source} hold {len(classes)} classes ({count_kinds(classes)}). Choose what counts: "
                f"{say_option(option, classes)}."
            )
        others = Counter(area.class_name for area in self.areas if not area.shape.is_empty)
        if not classes and others:
            raise TissueError(
                f"{self.source} hold no area that counts: {count_kinds(others)} are ignored unless asked for. Pass "
                f"{say_option(option, others)}."
            )


def is_of_class(name: str, classes: Sequence[str]) -> bool:
    """Return whether a class is one of those asked for or derived from one; upper and lower case are the same.

    Example:
        >>> [is_of_class(name, ["tumor"]) for name in ("Tumor", "Tumor: Positive", "Tumor bed")]
        [True, True, False]
    """
    wanted = [tidy_class(class_).casefold() for class_ in classes]
    tidied = name.casefold()
    return any(tidied == class_ or tidied.startswith(f"{class_}:") for class_ in wanted)


def tidy_class(name: str) -> str:
    """Return a class as QuPath writes it, one space after the colon of a derived one; `Unclassified` where it is empty.

    Example:
        >>> tidy_class(" Tumor:Positive ")
        'Tumor: Positive'
    """
    return ": ".join(part.strip() for part in name.split(":") if part.strip()) or UNCLASSIFIED


_FURTHEST_PX = 1e8


def mend_area(shape: BaseGeometry, source: str) -> BaseGeometry:
    """Return an area without crossings, as QuPath shows it.

    Raises:
        TissueError: If a coordinate is no number.
    """
    if not np.isfinite(shapely.get_coordinates(shape)).all():
        raise TissueError(f"{source} hold a coordinate that is no number. Export them again.")
    furthest = float(np.abs(shapely.get_coordinates(shape)).max(initial=0))
    if furthest > _FURTHEST_PX:
        raise TissueError(
            f"{source} hold a coordinate of {furthest:.3g} px, and no slide is wider than {_FURTHEST_PX:.0e} px. "
            "Export them again."
        )
    return shape if shape.is_valid else keep_polygons(shape)


def keep_polygons(geometry: BaseGeometry) -> BaseGeometry:
    """Return the areas of a geometry, valid and without overlap; points and lines go."""
    return _take_polygons(geometry if geometry.is_valid else shapely.make_valid(geometry))


def _join(shapes: Sequence[BaseGeometry]) -> BaseGeometry:
    """Return valid areas as one, which needs no check: that of an outline of 10^6 points can take half a minute."""
    return _take_polygons(shapely.union_all(shapes))


def _take_polygons(valid: BaseGeometry) -> BaseGeometry:
    """Return the areas of a valid geometry."""
    parts = shapely.get_parts(valid)
    while any(part.geom_type == "GeometryCollection" for part in parts):
        parts = shapely.get_parts(parts)
    return shapely.union_all([part for part in shapely.get_parts(parts) if part.geom_type == "Polygon"])


def count_kinds(kinds: Counter[str]) -> str:
    """Say how many of each, for example `2 Point, 1 LineString`."""
    return ", ".join(f"{n} {kind}" for kind, n in kinds.items())


def say_option(option: str, classes: Iterable[str]) -> str:
    """Return an option with the first of the classes, quoted for a shell where that is needed."""
    name = next(iter(classes))
    return f'{option} "{name}"' if not name.isalnum() else f"{option} {name}"
