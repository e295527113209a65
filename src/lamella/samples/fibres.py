"""Fibres: which way collagen runs, and its texture."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lamella.samples.textures import Field, smoothstep

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Fibres:
    """Two bent systems of parallel fibres, of which one or the other lies at each place.

    Attributes:
        courses: Directions of the two systems before bending, radians.
        bends: Fields that bend them across their course, coarse to fine.
        reaches_um: How far each of `bends` bends them.
        along: Field that shifts them along their course.
        which: Field that is above 0 where the first system lies.
        fineness: How much of the texture is fine fibres, the rest bundles; 0 to 1.
    """

    courses: tuple[float, float]
    bends: tuple[Field, Field, Field]
    reaches_um: tuple[float, float, float]
    along: Field
    which: Field
    fineness: float

    @classmethod
    def draw(cls, rng: np.random.Generator, size_um: tuple[float, float]) -> "Fibres":
        """Return the fibres of a slide of `size_um`."""
        angle = float(rng.uniform(0, np.pi))
        wavy = float(rng.uniform(0.6, 1.3))
        return cls(
            (angle, angle + float(rng.uniform(0.9, 1.7))),
            (Field(rng, size_um, 230), Field(rng, size_um, 62), Field(rng, size_um, 19)),
            (58.0, 13.0 * wavy, 2.6 * wavy),
            Field(rng, size_um, 260),
            Field(rng, size_um, 130),
            float(rng.uniform(0.35, 0.75)),
        )

    def first_share(self, x_um: Floats, y_um: Floats) -> Floats:
        """Return, over a grid, how much of the first system there is, 0 to 1."""
        return smoothstep(self.which.on_grid(x_um, y_um), -0.22, 0.22)

    def coordinates(self, system: int, x_um: Floats, y_um: Floats) -> tuple[Floats, Floats]:
        """Return, over a grid, the position along and across the fibres of a system, um."""
        cosine, sine = np.float32(np.cos(self.courses[system])), np.float32(np.sin(self.courses[system]))
        along = x_um[None, :] * cosine + y_um[:, None] * sine + 45 * self.along.on_grid(x_um, y_um)
        across = y_um[:, None] * cosine - x_um[None, :] * sine
        for field, reach_um in zip(self.bends, self.reaches_um, strict=True):
            across = across + np.float32(reach_um) * field.on_grid(x_um, y_um)
        return along, across

    def directions_at(self, points_um: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the direction of the fibres at `(n, 2)` points `(x, y)`, radians."""
        step_um = 6.0
        slopes = [np.zeros(len(points_um)), np.zeros(len(points_um))]
        for axis in (0, 1):
            shift = np.eye(2)[axis] * step_um
            for field, reach_um in zip(self.bends, self.reaches_um, strict=True):
                rise = field.at(points_um + shift) - field.at(points_um - shift)
                slopes[axis] += reach_um * rise / (2 * step_um)
        course = np.where(self.which.at(points_um) > 0, *self.courses)
        # Fibres run where `across` stays the same: at right angles to its gradient.
        directions: NDArray[np.float64] = np.arctan2(np.sin(course) - slopes[0], np.cos(course) + slopes[1])
        return directions
