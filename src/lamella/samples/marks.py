"""Marks: what lies on the glass and is no tissue: pen and dust."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lamella.samples.textures import crop_texture, grain_texture

Floats = NDArray[np.float32]

# Optical density (base e) of one stroke in R, G, B.
_INKS = {
    "blue": (1.9, 1.2, 0.35),
    "green": (1.8, 0.55, 1.3),
    "black": (2.0, 2.0, 1.9),
    "red": (0.25, 1.7, 1.5),
}


@dataclass(frozen=True, slots=True, eq=False)
class Marks:
    """Strokes of a pen and specks of dust.

    Attributes:
        strokes_um: Lines of the pen, each `(n, 2)` float64 points `(x, y)`, um.
        width_um: Width of the pen.
        ink: `(3,)` optical density of the ink in R, G, B.
        specks_um: `(n, 3)` float64 `x, y, radius` of dust.
    """

    strokes_um: tuple[NDArray[np.float64], ...]
    width_um: float
    ink: tuple[float, float, float]
    specks_um: NDArray[np.float64]

    @classmethod
    def draw(cls, rng: np.random.Generator, size_um: tuple[float, float], *, pen: bool) -> "Marks":
        """Return the marks of a slide of `size_um`; the pen runs along the slide's edge and may cross the tissue's."""
        n_specks = int(rng.poisson(1.0 * size_um[0] * size_um[1] / 1e6))
        specks = np.column_stack(
            [rng.uniform(0, size_um[0], n_specks), rng.uniform(0, size_um[1], n_specks), rng.uniform(1.2, 4, n_specks)]
        )
        ink = _INKS[list(_INKS)[int(rng.integers(len(_INKS)))]]
        strokes = _draw_strokes(rng, size_um) if pen else ()
        return cls(strokes, float(rng.uniform(28, 46)) * min(1.0, min(size_um) / 1200 + 0.2), ink, specks)

    def paint(self, corner_px: tuple[int, int], size: tuple[int, int], mpp: float) -> Floats | None:
        """Return the optical density of the marks over a rectangle, `(h, w, 3)` float32, or None where there are none.

        Args:
            corner_px: `(x, y)` of the rectangle's first pixel, level 0.
            size: Its `(width, height)` in level-0 pixels.
            mpp: Resolution of level 0, in um per pixel.
        """
        pen, dust = self._paint_pen(corner_px, size, mpp), self._paint_dust(corner_px, size, mpp)
        if pen is None and dust is None:
            return None
        density = np.zeros((size[1], size[0], 3), dtype=np.float32)
        if pen is not None:
            density += pen[:, :, None] * np.array(self.ink, dtype=np.float32)
        if dust is not None:
            density += dust[:, :, None] * np.array([0.9, 1.0, 1.1], dtype=np.float32)
        return density

    def _paint_pen(self, corner_px: tuple[int, int], size: tuple[int, int], mpp: float) -> Floats | None:
        """Return how much ink lies over a rectangle, or None where there is none."""
        near = [points for points in self.strokes_um if self._touches(points / mpp, corner_px, size, mpp)]
        if not near:
            return None
        pad = 24
        cover = np.zeros((size[1] + 2 * pad, size[0] + 2 * pad), dtype=np.uint8)
        width_px = max(1, round(self.width_um / mpp))
        for stroke in near:
            points = np.rint((stroke / mpp - corner_px + pad) * 16).astype(np.int32)
            cv2.polylines(cover, [points], isClosed=False, color=255, thickness=width_px, lineType=cv2.LINE_AA, shift=4)
        soft = cv2.GaussianBlur(cover, (0, 0), min(4.0, 1.5 / mpp))[pad:-pad, pad:-pad]
        streaks = crop_texture(grain_texture(9, round(6 / mpp, 3)), corner_px, size)
        ink: Floats = soft.astype(np.float32) / 255 * (1 + 0.10 * streaks)
        return ink

    def _touches(
        self, points_px: NDArray[np.float64], corner_px: tuple[int, int], size: tuple[int, int], mpp: float
    ) -> bool:
        """Return whether a stroke comes near a rectangle."""
        low, high = points_px.min(axis=0), points_px.max(axis=0)
        margin = self.width_um / mpp + 24
        return bool((high + margin > corner_px).all() and (low - margin < np.add(corner_px, size)).all())

    def _paint_dust(self, corner_px: tuple[int, int], size: tuple[int, int], mpp: float) -> Floats | None:
        """Return how much dust lies over a rectangle, or None where there is none."""
        x, y, radius = self.specks_um.T / mpp
        x, y = x - corner_px[0], y - corner_px[1]
        near = (x > -4 * radius) & (x < size[0] + 4 * radius) & (y > -4 * radius) & (y < size[1] + 4 * radius)
        if not near.any():
            return None
        dust = np.zeros((size[1], size[0]), dtype=np.float32)
        columns, rows = np.arange(size[0]), np.arange(size[1])[:, None]
        for speck in np.flatnonzero(near):
            # Dust lies on top of the cover slip, out of focus: a soft spot, longer than wide.
            turn, reach = 37.0 * speck, 4 * radius[speck]
            u = slice(max(0, int(x[speck] - reach)), max(0, int(x[speck] + reach) + 1))
            v = slice(max(0, int(y[speck] - reach)), max(0, int(y[speck] + reach) + 1))
            dx, dy = columns[u] - x[speck], rows[v] - y[speck]
            along, across = dx * np.cos(turn) + dy * np.sin(turn), dy * np.cos(turn) - dx * np.sin(turn)
            spot = np.exp(-(((along / (1.8 * radius[speck])) ** 2 + (across / radius[speck]) ** 2) ** 2))
            dust[v, u] += 0.8 * spot.astype(np.float32)
        return dust


def _draw_strokes(rng: np.random.Generator, size_um: tuple[float, float]) -> tuple[NDArray[np.float64], ...]:
    """Draw one or two shaky lines near a side of the slide."""
    strokes = []
    for _ in range(int(rng.integers(1, 3))):
        t = np.linspace(0, 1, 60)
        side, start, length = int(rng.integers(4)), rng.uniform(0.05, 0.4), rng.uniform(0.3, 0.55)
        shake = sum(rng.normal() * 0.012 / k * np.sin(2 * np.pi * (k * t + rng.random())) for k in (1, 2, 3))
        near, far = start + length * t, rng.uniform(0.04, 0.085) + shake + rng.uniform(-0.05, 0.10) * t
        x, y = {0: (near, far), 1: (near, 1 - far), 2: (far, near), 3: (1 - far, near)}[side]
        strokes.append(np.column_stack([x * size_um[0], y * size_um[1]]))
    return tuple(strokes)
