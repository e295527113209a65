"""Ground: where the tissue lies on the glass, where it is fat, and where there is still room."""

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from lamella.samples.blobs import Blobs
from lamella.samples.textures import Field, smoothstep

Floats = NDArray[np.float32]

CELL_UM = 8.0
_MOST_FAT = 0.25
_FAT_REACH_UM = 40  # adipocytes whose centre lies in fat reach this far out of it
STRAND_LEVEL = 0.85  # a lesion is stroma where `strands` is below minus this


@dataclass(frozen=True, slots=True, eq=False)
class Ground:
    """The tissue's outline and its smooth properties, as functions of position.

    Attributes:
        size_um: `(width, height)` of the slide.
        pieces: Blobs whose union, with ragged edges, is tissue.
        ragged: Fields that stray its outline: coarse, fine.
        fat: Field that is fat above `fat_level`.
        fat_level: See `fat`; higher means less fat.
        loose: Field of how loose the stroma is.
        inflamed: Field of how many inflammatory cells lie in the stroma.
        thick: Field of the section's thickness.
        strands: Field that parts a lesion into nests, with strands of stroma where it is low.
    """

    size_um: tuple[float, float]
    pieces: Blobs
    ragged: tuple[Field, Field]
    fat: Field
    fat_level: float
    loose: Field
    inflamed: Field
    thick: Field
    strands: Field

    @classmethod
    def draw(cls, rng: np.random.Generator, size_um: tuple[float, float]) -> "Ground":
        """Return the ground of a slide of `size_um`."""
        width, height = size_um
        long, short = max(size_um), min(size_um)
        n_pieces = int(rng.integers(3, 5))
        along = (np.linspace(0.33, 0.67, n_pieces) + rng.normal(size=n_pieces) * 0.025) * long
        across = (0.5 + rng.normal(size=n_pieces) * 0.05) * short
        centres = np.column_stack([along, across] if width >= height else [across, along])
        radii = np.minimum(rng.uniform(0.32, 0.41, n_pieces) * short, 0.29 * long)
        ground = cls(
            size_um,
            Blobs.scatter(rng, centres, radii, 0.09),
            (Field(rng, size_um, short * 0.14), Field(rng, size_um, 26)),
            Field(rng, size_um, 260),
            float(rng.uniform(0.7, 2.2)),
            Field(rng, size_um, 190),
            Field(rng, size_um, 210),
            Field(rng, size_um, 420),
            Field(rng, size_um, 34),
        )
        return ground._limit_fat()

    def _limit_fat(self) -> "Ground":
        """Raise the level of fat until at most a quarter of the tissue is fat."""
        x_um, y_um = (np.arange(0, extent, 16, dtype=np.float32) for extent in self.size_um)
        fat = self.fat.on_grid(x_um, y_um)[self.tissue_depth(x_um, y_um) > 0]
        level = max(self.fat_level, float(np.quantile(fat, 1 - _MOST_FAT))) if fat.size else self.fat_level
        return replace(self, fat_level=level)

    def tissue_depth(self, x_um: Floats, y_um: Floats) -> Floats:
        """Return how far inside the tissue the nodes of a grid lie, um, roughly; negative on glass."""
        short = min(self.size_um)
        depth, _ = self.pieces.paint_depth(x_um, y_um, short)
        coarse, fine = self.ragged
        depth += 0.035 * short * coarse.on_grid(x_um, y_um) + 5 * fine.on_grid(x_um, y_um)
        edge = np.minimum.outer(
            np.minimum(y_um, self.size_um[1] - y_um), np.minimum(x_um, self.size_um[0] - x_um)
        )  # the slide's edge stays glass, and the tissue does not end there in a straight line
        margin = short * (0.06 - 0.02 * coarse.on_grid(x_um, y_um).clip(-2, 1.5))
        return np.asarray(np.minimum(depth, edge - margin), dtype=np.float32)

    def fat_depth(self, x_um: Floats, y_um: Floats) -> Floats:
        """Return how deep the nodes of a grid lie in fat, um, roughly; negative in other tissue."""
        depth: Floats = (self.fat.on_grid(x_um, y_um) - self.fat_level) * 150
        return depth

    def nest_depth(self, x_um: Floats, y_um: Floats) -> Floats:
        """Return how deep the nodes of a grid would lie in a nest of a lesion, um, roughly; negative in strands."""
        depth: Floats = (self.strands.on_grid(x_um, y_um) + STRAND_LEVEL) * 20
        return depth

    def looseness(self, x_um: Floats, y_um: Floats) -> Floats:
        """Return how loose the stroma is over a grid, 0 to 1."""
        return smoothstep(self.loose.on_grid(x_um, y_um), -0.4, 1.6)


class Room:
    """What of the tissue is still free, on cells of `CELL_UM`, and how far each cell is from what is not."""

    def __init__(self, ground: Ground) -> None:
        """Find the tissue of `ground`, fat left out."""
        width, height = ground.size_um
        self.x_um = ((np.arange(int(width / CELL_UM)) + 0.5) * CELL_UM).astype(np.float32)
        self.y_um = ((np.arange(int(height / CELL_UM)) + 0.5) * CELL_UM).astype(np.float32)
        self.tissue: NDArray[np.bool_] = ground.tissue_depth(self.x_um, self.y_um) > 0
        fat_depth = ground.fat_depth(self.x_um, self.y_um)
        self.tissue_um2 = float((self.tissue & (fat_depth < 0)).sum()) * CELL_UM**2
        self._free = self.tissue & (fat_depth < -_FAT_REACH_UM)

    def clearance(self) -> Floats:
        """Return the distance of each cell to the nearest that is not free, um."""
        padded = np.pad(self._free, 1).astype(np.uint8)
        return np.asarray(cv2.distanceTransform(padded, cv2.DIST_L2, 5), dtype=np.float32)[1:-1, 1:-1] * CELL_UM

    def find_places(self, rng: np.random.Generator, radius_um: float, n_places: int) -> NDArray[np.float64]:
        """Return up to `n_places` `(n, 2)` random centres `(x, y)` in um whose surroundings are free."""
        rows, columns = np.nonzero(self.clearance() > radius_um)
        if len(rows) == 0:
            return np.zeros((0, 2))
        chosen = rng.integers(0, len(rows), n_places)
        return np.column_stack([self.x_um[columns[chosen]], self.y_um[rows[chosen]]]).astype(np.float64)

    def find_widest(self) -> tuple[NDArray[np.float64], float]:
        """Return the freest place `(1, 2)` and its clearance, um."""
        clearance = self.clearance()
        row, column = np.unravel_index(int(clearance.argmax()), clearance.shape)
        return np.array([[self.x_um[column], self.y_um[row]]], dtype=np.float64), float(clearance[row, column])

    def take(self, blobs: Blobs, margin_um: float) -> None:
        """Mark blobs and `margin_um` around them as taken."""
        depth, _ = blobs.paint_depth(self.x_um, self.y_um, margin_um + 2 * CELL_UM)
        self._free &= depth < -margin_um

    def is_free(self, points_um: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Return whether each of `(n, 2)` points lies on a free cell."""
        return self._look_up(self._free, points_um)

    def _look_up(self, cells: NDArray[np.bool_], points_um: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Return the cells under points; outside the slide is False."""
        columns, rows = np.floor(points_um.T / CELL_UM).astype(np.int64)
        inside = (columns >= 0) & (columns < cells.shape[1]) & (rows >= 0) & (rows < cells.shape[0])
        is_inside = np.zeros(len(points_um), dtype=bool)
        is_inside[inside] = cells[rows[inside], columns[inside]]
        return is_inside
