"""Textures: periodic noise that painters look up, and smooth random fields over a whole slide."""

from functools import lru_cache
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

FIBRE_TEXEL_UM = 0.5


@lru_cache(maxsize=4)
def fibre_texture(seed: int) -> Floats:
    """Return `(2048, 2048)` float32 periodic noise of unit variance, drawn out along x like fibres.

    One texel is `FIBRE_TEXEL_UM`. Fibres of several widths lie on top of one another.
    """
    side = 2048
    rng = np.random.default_rng([7, seed])
    spectrum = np.fft.rfft2(rng.normal(size=(side, side)).astype(np.float32))
    across = np.fft.fftfreq(side)[:, None] / FIBRE_TEXEL_UM  # cycles per um
    along = np.fft.rfftfreq(side)[None, :] / FIBRE_TEXEL_UM
    filters = np.zeros(spectrum.shape)
    for width_um, length_um, weight in ((1.7, 38.0, 1.0), (4.5, 75.0, 1.1), (0.8, 14.0, 0.7), (6.0, 16.0, 0.5)):
        band = np.exp(-0.5 * (along * length_um) ** 2) * np.exp(-0.5 * (across * width_um) ** 2)
        filters += weight * band * np.sqrt(width_um * length_um)
    noise = np.fft.irfft2(spectrum * filters, s=(side, side))
    return np.asarray(noise / noise.std(), dtype=np.float32)


@lru_cache(maxsize=8)
def grain_texture(seed: int, sigma_px: float, side: int = 512) -> Floats:
    """Return `(side, side)` float32 periodic isotropic noise of unit variance, smooth over `sigma_px`."""
    rng = np.random.default_rng([11, seed])
    spectrum = np.fft.rfft2(rng.normal(size=(side, side)))
    squared = np.fft.fftfreq(side)[:, None] ** 2 + np.fft.rfftfreq(side)[None, :] ** 2
    noise = np.fft.irfft2(spectrum * np.exp(-2 * (np.pi * sigma_px) ** 2 * squared), s=(side, side))
    return np.asarray(noise / noise.std(), dtype=np.float32)


def look_up(texture: Floats, x: Floats, y: Floats) -> Floats:
    """Return `texture` at texel positions `x`, `y` (`(h, w)` float32, overwritten), bilinear, repeating."""
    # OpenCV wraps slowly, so positions are first shifted by whole periods to lie within the texture as far as may be.
    height, width = texture.shape
    x -= np.float32(np.floor(x.min() / width) * width)
    y -= np.float32(np.floor(y.min() / height) * height)
    return np.asarray(cv2.remap(texture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP), dtype=np.float32)


def crop_texture(texture: Floats, corner: tuple[int, int], size: tuple[int, int]) -> Floats:
    """Return a `size` `(width, height)` crop of an endlessly repeated texture from `corner` `(x, y)`."""
    crop = np.empty((size[1], size[0], *texture.shape[2:]), dtype=texture.dtype)
    for rows, from_rows in _periods(corner[1], size[1], texture.shape[0]):
        for columns, from_columns in _periods(corner[0], size[0], texture.shape[1]):
            crop[rows, columns] = texture[from_rows, from_columns]
    return crop


def _periods(start: int, length: int, period: int) -> list[tuple[slice, slice]]:
    """Cut `length` from `start` at the ends of periods: pairs of where a piece goes and where it comes from."""
    cuts = [start, *range((start // period + 1) * period, start + length, period), start + length]
    return [(slice(a - start, b - start), slice(a % period, a % period + b - a)) for a, b in pairwise(cuts)]


class Field:
    """A smooth random function of position: independent normal values on a lattice, cubic between them."""

    def __init__(self, rng: np.random.Generator, size_um: tuple[float, float], scale_um: float) -> None:
        """Draw a field over `size_um` `(width, height)` that changes over about `scale_um`."""
        shape = (int(size_um[1] / scale_um) + 6, int(size_um[0] / scale_um) + 6)
        self._values = rng.normal(size=shape).astype(np.float32)
        self._scale_um = scale_um

    def on_grid(self, x_um: Floats, y_um: Floats) -> Floats:
        """Return the field over the grid of columns `x_um` `(w,)` and rows `y_um` `(h,)`: `(h, w)` float32."""
        columns, column_weights = _weigh(x_um / self._scale_um, self._values.shape[1])
        rows, row_weights = _weigh(y_um / self._scale_um, self._values.shape[0])
        # Four taps a side, summed in this order on every machine: a product of matrices would be left to its library.
        lines = np.zeros((len(y_um), self._values.shape[1]), dtype=np.float32)
        for tap in range(4):
            lines += row_weights[:, tap, None] * self._values[rows[:, tap]]
        field = np.zeros((len(y_um), len(x_um)), dtype=np.float32)
        for tap in range(4):
            field += column_weights[:, tap] * lines[:, columns[:, tap]]
        return field

    def at(self, points_um: NDArray[np.floating]) -> Floats:
        """Return the field at `(n, 2)` points `(x, y)`: `(n,)` float32, bilinear."""
        x, y = (points_um.T / self._scale_um).astype(np.float32) + 2
        # remap takes at most 32767 rows, so the points are folded into a table.
        width = 1024
        table = np.zeros((2, -(-len(x) // width) * width), dtype=np.float32)
        table[0, : len(x)], table[1, : len(y)] = x, y
        maps = table.reshape(2, -1, width)
        if maps.size == 0:
            return np.zeros(0, dtype=np.float32)
        values = cv2.remap(self._values, maps[0], maps[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(values, dtype=np.float32).ravel()[: len(x)]


def _weigh(positions: Floats, n_values: int) -> tuple[NDArray[np.intp], Floats]:
    """Return the four lattice values `(n, 4)` around each position and their cubic B-spline weights `(n, 4)`.

    Weights are scaled so that a field of unit normal values keeps a variance near 1.
    """
    first = np.floor(positions).astype(np.intp)
    t = (positions - first).astype(np.float32)[:, None]
    weights = np.concatenate(
        [(1 - t) ** 3 / 6, 2 / 3 - t**2 * (1 - t / 2), 2 / 3 - (1 - t) ** 2 * (1 + t) / 2, t**3 / 6], axis=1
    )
    # Lattice value number 2 lies at position 0; beyond the slide's edge the last ones repeat.
    taps = (first[:, None] + np.arange(1, 5)).clip(0, n_values - 1)
    return taps, (weights / 0.69).astype(np.float32)


def smoothstep(values: Floats, low: float, high: float) -> Floats:
    """Return 0 below `low`, 1 above `high`, and a smooth rise between."""
    t = values - np.float32(low)
    t *= np.float32(1 / (high - low))
    np.clip(t, 0, 1, out=t)
    rise: Floats = t * t
    t *= -2
    t += 3
    rise *= t
    return rise
