"""Nuclei: tables of cells and how they are stamped into a layer of stain."""

from dataclasses import dataclass, fields
from typing import Self

import numpy as np
from numpy.typing import NDArray

from lamella.samples.textures import grain_texture

Floats = NDArray[np.float32]

_CHUNK_PIXELS = 1 << 20
_REACH = 1.45  # no outline goes further from its centre than this many semi-axes


@dataclass(frozen=True, slots=True, eq=False)
class CellKind:
    """How cells of one kind vary.

    Attributes:
        length_um: Mean semi-axis along the cell.
        width_um: Mean semi-axis across.
        spread: Relative SD of both.
        stain: Mean optical density of the nucleus.
        stain_spread: Relative SD of it.
        wobble: How far outlines stray from the ellipse, relative.
        grain: How coarse the chromatin is, relative to `stain`.
        nucleolus: Added density of the nucleolus.
    """

    length_um: float
    width_um: float
    spread: float
    stain: float
    stain_spread: float
    wobble: float
    grain: float
    nucleolus: float


FIBROBLAST = CellKind(6.2, 1.35, 0.22, 1.15, 0.22, 0.08, 0.16, 0.0)
EPITHELIUM = CellKind(4.1, 2.9, 0.11, 0.95, 0.18, 0.05, 0.22, 0.25)
LYMPHOCYTE = CellKind(2.95, 2.75, 0.09, 1.55, 0.14, 0.04, 0.22, 0.0)
PLASMA = CellKind(3.3, 2.8, 0.10, 1.35, 0.16, 0.04, 0.35, 0.0)
HYPERPLASIA = CellKind(4.1, 3.2, 0.12, 1.30, 0.16, 0.05, 0.22, 0.2)
TUMOUR_CELL = CellKind(7.0, 5.5, 0.20, 1.40, 0.20, 0.13, 0.42, 0.9)
ENDOTHELIUM = CellKind(5.0, 1.2, 0.15, 1.2, 0.15, 0.06, 0.15, 0.0)
RED_CELL = CellKind(3.1, 2.9, 0.08, 0.85, 0.12, 0.04, 0.03, -0.35)


@dataclass(frozen=True, slots=True, eq=False)
class Nuclei:
    """A table of nuclei, one row each; every array is `(n,)` float32.

    Attributes:
        x_um: Centre, um from the slide's left edge.
        y_um: Centre, um from the slide's top edge.
        length_um: Semi-axis along `angle`.
        width_um: Semi-axis across.
        angle: Direction of the long axis, radians from x towards y.
        stain: Optical density.
        wobble: How far the outline strays from the ellipse, relative.
        grain: How coarse the chromatin is, relative to `stain`.
        nucleolus: Added density of the nucleolus.
        chance: A number from 0 to 1 that decides everything else about the nucleus.
    """

    x_um: Floats
    y_um: Floats
    length_um: Floats
    width_um: Floats
    angle: Floats
    stain: Floats
    wobble: Floats
    grain: Floats
    nucleolus: Floats
    chance: Floats

    @classmethod
    def of_kind(
        cls, rng: np.random.Generator, kind: CellKind, centres_um: NDArray[np.floating], angles: NDArray[np.floating]
    ) -> Self:
        """Return nuclei of one kind at `(n, 2)` centres `(x, y)` with `(n,)` directions in radians."""
        n_cells = len(centres_um)
        size = np.exp(rng.normal(size=(3, n_cells)) * kind.spread).clip(0.55, 1.6)

        def column(values: NDArray[np.floating] | float) -> Floats:
            return np.broadcast_to(np.asarray(values, dtype=np.float32), (n_cells,)).copy()

        return cls(
            column(centres_um[:, 0]),
            column(centres_um[:, 1]),
            column(kind.length_um * size[0] * size[2] ** 0.5),
            column(kind.width_um * size[1] * size[2] ** 0.5),
            column(angles),
            column(kind.stain * np.exp(rng.normal(size=n_cells) * kind.stain_spread)),
            column(kind.wobble),
            column(kind.grain),
            column(kind.nucleolus * rng.uniform(0, 1, n_cells)),
            column(rng.random(n_cells)),
        )

    @classmethod
    def join(cls, tables: list[Self]) -> Self:
        """Return all rows of all tables."""
        return cls(*(np.concatenate([getattr(table, field.name) for table in tables]) for field in fields(cls)))

    def __len__(self) -> int:
        """Number of nuclei."""
        return len(self.x_um)

    def take(self, rows: NDArray[np.intp] | NDArray[np.bool_]) -> "Nuclei":
        """Return some of the rows."""
        return Nuclei(*(getattr(self, field.name)[rows] for field in fields(self)))

    def within(self, left_um: float, top_um: float, right_um: float, bottom_um: float) -> "Nuclei":
        """Return the nuclei that may touch a box."""
        reach = np.maximum(self.length_um, self.width_um) * _REACH + 1
        return self.take(
            (self.x_um + reach > left_um)
            & (self.x_um - reach < right_um)
            & (self.y_um + reach > top_um)
            & (self.y_um - reach < bottom_um)
        )


def stamp(layer: Floats, nuclei: Nuclei, *, corner_px: tuple[int, int], mpp: float) -> None:
    """Add nuclei to a layer of stain, in place; where two overlap their densities add, as in a section.

    Args:
        layer: `(h, w)` float32, C-contiguous.
        nuclei: Those to stamp; parts outside the layer are cut off.
        corner_px: `(x, y)` of the layer's first pixel, in level-0 pixels.
        mpp: Resolution of the layer, in um per pixel.
    """
    reach_px = np.maximum(nuclei.length_um, nuclei.width_um) * _REACH / mpp + 1.5
    sides = (np.ceil(reach_px / 4) * 8).astype(int)  # multiples of 8, so that few sizes occur
    for side in np.unique(sides):
        rows = np.flatnonzero(sides == side)
        per_chunk = max(1, _CHUNK_PIXELS // int(side * side))
        for start in range(0, len(rows), per_chunk):
            _stamp_squares(layer, nuclei.take(rows[start : start + per_chunk]), int(side), corner_px, mpp)


def _stamp_squares(layer: Floats, nuclei: Nuclei, side: int, corner_px: tuple[int, int], mpp: float) -> None:
    """Add nuclei that fit squares of one size, all at once."""
    height, width = layer.shape
    centre_x, centre_y = nuclei.x_um / mpp - corner_px[0], nuclei.y_um / mpp - corner_px[1]
    left = np.floor(centre_x).astype(np.int64) - side // 2 + 1
    top = np.floor(centre_y).astype(np.int64) - side // 2 + 1
    steps = np.arange(side, dtype=np.int64)
    columns, rows = left[:, None] + steps, top[:, None] + steps  # (n, side)
    density = _draw_squares(
        nuclei,
        ((columns - centre_x[:, None] + 0.5) * mpp).astype(np.float32)[:, None, :],
        ((rows - centre_y[:, None] + 0.5) * mpp).astype(np.float32)[:, :, None],
        mpp,
    )  # (n, side, side)
    inside = (density > 0) & ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None]
    places = (rows * width)[:, :, None] + columns[:, None, :]
    np.add.at(layer.reshape(-1), places[inside], density[inside])


def _draw_squares(nuclei: Nuclei, x_um: Floats, y_um: Floats, mpp: float) -> Floats:
    """Return `(n, side, side)` optical density of nuclei, given offsets from their centres."""

    def each(values: Floats) -> Floats:
        return values[:, None, None]

    cosine, sine = each(np.cos(nuclei.angle)), each(np.sin(nuclei.angle))
    u = (x_um * cosine + y_um * sine) / each(nuclei.length_um)
    v = (y_um * cosine - x_um * sine) / each(nuclei.width_um)
    squared = u * u + v * v + 1e-6
    distance = np.sqrt(squared)
    # Harmonics of the outline by products instead of angles: cos 2a = (u2 - v2) / r2, and so on.
    turn = nuclei.chance * 97
    bent = (u * u - v * v) * each(np.cos(turn)) + 2 * u * v * each(np.sin(turn))
    lobed = (u * u - 3 * v * v) * u * each(np.cos(3 * turn)) + (3 * u * u - v * v) * v * each(np.sin(3 * turn))
    outline = 1 + each(nuclei.wobble) * (bent / squared + lobed / (squared * distance)).clip(-2, 2)
    narrow_um = each(np.sqrt(nuclei.length_um * nuclei.width_um))
    depth_um = (outline - distance) * narrow_um
    cover = (depth_um / max(0.9, 1.2 * mpp) + 0.5).clip(0, 1)
    rim = 0.28 * np.exp(-(((depth_um - 0.6) / 0.8) ** 2))
    density = 0.86 + rim + each(nuclei.grain) * _chromatin(nuclei.chance, u.shape[1], mpp)
    away = nuclei.chance * np.float32(331)
    spot = ((u - 0.45 * each(np.cos(away))) ** 2 + (v - 0.45 * each(np.sin(away))) ** 2) / 0.05
    density += each(nuclei.nucleolus) * np.exp(-spot)
    drawn: Floats = density.clip(0.15, None) * cover * each(nuclei.stain)
    return drawn


def _chromatin(chance: Floats, side: int, mpp: float) -> Floats:
    """Return `(n, side, side)` coarse noise, another crop for each nucleus."""
    texture = grain_texture(3, round(0.7 / mpp, 3))
    n_texels = texture.shape[0]
    start_x = (chance * 7919 * n_texels).astype(np.int64) % n_texels
    start_y = (chance * 104729 * n_texels).astype(np.int64) % n_texels
    steps = np.arange(side)
    rows, columns = (start_y[:, None] + steps) % n_texels, (start_x[:, None] + steps) % n_texels
    crops: Floats = texture[rows[:, :, None], columns[:, None, :]]
    return crops
