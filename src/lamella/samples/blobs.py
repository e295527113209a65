"""Blobs: closed smooth outlines, round but for a few harmonics; glands, vessels, aggregates and lesions are blobs."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from shapely import Polygon

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Blobs:
    """Outlines `radius * (1 + sum_k amplitude_k cos(k angle + phase_k))`, k from 2, all lengths in um.

    Attributes:
        centres_um: `(n, 2)` float32 centres `(x, y)`, um from the slide's top left corner.
        radii_um: `(n,)` float32 mean radii.
        amplitudes: `(n, n_harmonics)` float32, relative to the radius.
        phases: `(n, n_harmonics)` float32, radians.
    """

    centres_um: Floats
    radii_um: Floats
    amplitudes: Floats
    phases: Floats

    @classmethod
    def scatter(
        cls, rng: np.random.Generator, centres_um: NDArray[np.floating], radii_um: NDArray[np.floating], wobble: float
    ) -> Self:
        """Return blobs at `centres_um` whose outlines stray from the circle by about `wobble` of the radius."""
        n_blobs, order = len(centres_um), np.arange(2, 7)
        return cls(
            np.asarray(centres_um, dtype=np.float32).reshape(n_blobs, 2),
            np.asarray(radii_um, dtype=np.float32),
            (rng.normal(size=(n_blobs, len(order))) * wobble * 1.4 / order).astype(np.float32).clip(-0.3, 0.3),
            rng.uniform(0, 2 * np.pi, (n_blobs, len(order))).astype(np.float32),
        )

    def __len__(self) -> int:
        """Number of blobs."""
        return len(self.radii_um)

    @property
    def reach_um(self) -> Floats:
        """`(n,)` float32 distance from the centre that no point of the outline exceeds, um."""
        reach: Floats = self.radii_um * (1 + np.abs(self.amplitudes).sum(axis=1))
        return reach

    def radius_at(self, which: NDArray[np.integer] | int, angle: Floats) -> Floats:
        """Return the outline's distance from the centre in direction `angle` (radians), um."""
        radius = np.ones_like(angle)
        for k in range(self.amplitudes.shape[1]):
            radius += self.amplitudes[which, k] * np.cos((k + 2) * angle + self.phases[which, k])
        radius *= self.radii_um[which]
        return radius

    def depth(self, which: int, x_um: Floats, y_um: Floats) -> Floats:
        """Return how far inside blob `which` points lie along the ray from its centre, um; negative outside."""
        x, y = x_um - self.centres_um[which, 0], y_um - self.centres_um[which, 1]
        depth: Floats = self.radius_at(which, np.arctan2(y, x)) - np.hypot(x, y)
        return depth

    def areas_um2(self) -> NDArray[np.float64]:
        """Return the exact area of each blob, um2."""
        wobbles = (self.amplitudes.astype(np.float64) ** 2).sum(axis=1)
        areas: NDArray[np.float64] = np.pi * self.radii_um.astype(np.float64) ** 2 * (1 + wobbles / 2)
        return areas

    def outline(self, which: int, mpp: float) -> Polygon:
        """Return the outline as a polygon in level-0 pixels of `mpp` um."""
        angle = np.linspace(0, 2 * np.pi, 128, endpoint=False, dtype=np.float32)
        radius = self.radius_at(which, angle)
        x = (self.centres_um[which, 0] + radius * np.cos(angle)) / mpp
        y = (self.centres_um[which, 1] + radius * np.sin(angle)) / mpp
        return Polygon(np.round(np.column_stack([x, y]).astype(np.float64), 2))

    def near(self, x_um: Floats, y_um: Floats, margin_um: float) -> NDArray[np.intp]:
        """List the blobs that come within `margin_um` of the grid spanned by rows `y_um` and columns `x_um`."""
        reach = self.reach_um + margin_um
        x, y = self.centres_um.T
        touches = (x + reach > x_um[0]) & (x - reach < x_um[-1]) & (y + reach > y_um[0]) & (y - reach < y_um[-1])
        return np.flatnonzero(touches)

    def paint_depth(self, x_um: Floats, y_um: Floats, margin_um: float) -> tuple[Floats, NDArray[np.int32]]:
        """Return, over a grid, how deep each node lies in the blob it is deepest in, and which blob that is.

        Args:
            x_um: `(w,)` float32 ascending columns of the grid.
            y_um: `(h,)` float32 ascending rows of the grid.
            margin_um: How far around a blob depths are computed; further out they are -1000.

        Returns:
            `(h, w)` float32 depth in um and `(h, w)` int32 number of the blob, -1 where there is none near.
        """
        depth = np.full((len(y_um), len(x_um)), -1000, dtype=np.float32)
        owner = np.full(depth.shape, -1, dtype=np.int32)
        for which in self.near(x_um, y_um, margin_um):
            (x, y), reach = self.centres_um[which], self.reach_um[which] + margin_um
            rows = slice(*np.searchsorted(y_um, [y - reach, y + reach]))
            columns = slice(*np.searchsorted(x_um, [x - reach, x + reach]))
            blob_depth = self.depth(int(which), x_um[None, columns], y_um[rows, None])
            deeper = blob_depth > depth[rows, columns]
            np.copyto(depth[rows, columns], blob_depth, where=deeper)
            owner[rows, columns][deeper] = which
        return depth, owner
