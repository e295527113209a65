"""3. Tiles: where on a slide to look.

A tile is a square crop of the slide, placed on a regular grid over tissue. This module decides *where*;
`lamella.slide` reads the pixels.

Coordinate frames, as suffixes:
    _l0    pixels of level 0, the finest level
    _mask  pixels of the tissue mask
    _px    pixels of the tile as the encoder sees it, at `TileSpec.mpp`
"""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lamella.defaults import MIN_TISSUE, MPP, TILE_PX
from lamella.errors import SettingsError, TileError


@dataclass(frozen=True, slots=True, kw_only=True)
class TileSpec:
    """Size, resolution, stride and tissue threshold of tiles, and how many of a slide are kept.

    Attributes:
        tile_px: Side of a tile, in pixels at `mpp`.
        mpp: Resolution the encoder sees, in um per pixel.
        stride_px: Distance between neighbouring tiles, in pixels at `mpp`; None is `tile_px` (no overlap).
        min_tissue: A tile is kept when *more* than this share of it is tissue, 0 to 1.
        tiles_per_slide: Most tiles of a slide, which `choose_tiles` spreads over its tissue; None keeps all.

    Raises:
        SettingsError: If a value makes no tile.
    """

    tile_px: int = TILE_PX
    mpp: float = MPP
    stride_px: int | None = None
    min_tissue: float = MIN_TISSUE
    tiles_per_slide: int | None = None

    def __post_init__(self) -> None:
        """Refuse what makes no tile."""
        if self.tile_px < 1:
            raise SettingsError(f"tile size is {self.tile_px} px and must be at least 1. Pass --tile-px 512.")
        if not (math.isfinite(self.mpp) and self.mpp > 0):
            raise SettingsError(f"tile resolution is {self.mpp} um/px and must be above 0. Pass --mpp 0.5.")
        if self.stride_px is not None and self.stride_px < 1:
            raise SettingsError(f"stride is {self.stride_px} px and must be at least 1. Pass --stride {self.tile_px}.")
        if not 0 <= self.min_tissue < 1:
            raise SettingsError(
                f"tissue threshold is {self.min_tissue} and must be from 0 to below 1. Pass --min-tissue 0.5."
            )
        if self.tiles_per_slide is not None and self.tiles_per_slide < 1:
            raise SettingsError(f"tiles a slide are {self.tiles_per_slide} and must be at least 1. Set them to 256.")

    @property
    def stride(self) -> int:
        """Distance between neighbouring tiles, in pixels at `mpp`."""
        return self.tile_px if self.stride_px is None else self.stride_px

    @property
    def folder(self) -> str:
        """Name of the folder that holds bags cut this way.

        Example:
            >>> TileSpec(tile_px=224, mpp=0.25, stride_px=112).folder
            '224px_0.25mpp_112px'
            >>> TileSpec(tile_px=224, mpp=0.25, tiles_per_slide=64).folder
            '224px_0.25mpp_224px_64tiles'
        """
        most = "" if self.tiles_per_slide is None else f"_{self.tiles_per_slide}tiles"
        return f"{self.tile_px}px_{self.mpp:g}mpp_{self.stride}px{most}"

    def tile_size_l0(self, slide_mpp: tuple[float, float]) -> tuple[float, float]:
        """Return the `(width, height)` of a tile in level-0 pixels, not rounded."""
        return self.tile_px * self.mpp / slide_mpp[0], self.tile_px * self.mpp / slide_mpp[1]


def place_tiles(
    tissue: NDArray[np.bool_],
    spec: TileSpec,
    *,
    slide_size: tuple[int, int],
    slide_mpp: tuple[float, float],
    bounds_l0: tuple[int, int, int, int] | None = None,
) -> NDArray[np.int64]:
    """Place a grid of tiles over tissue.

    Only whole tiles are placed: one that would cross the right or bottom edge is left out, so the encoder never sees
    padding. Corners are computed in float and rounded once, so they do not drift along the slide.

    Args:
        tissue: `(mask_h, mask_w)` bool, True on tissue, covering the whole slide.
        spec: Tile size, resolution, stride and tissue threshold.
        slide_size: `(width, height)` of level 0, in pixels.
        slide_mpp: `(x, y)` resolution of level 0, in um per pixel.
        bounds_l0: `(x, y, width, height)` of the scan, where that is less than the slide: tiles lie wholly inside it.

    Returns:
        `(n_tiles, 2)` int64 top-left corners `(x, y)` in level-0 pixels, row by row. `n_tiles` is 0 when no tile
        holds enough tissue.

    Raises:
        TileError: If a tile is larger than the slide.

    Example:
        A slide twice as wide as high, with tissue on its left half only:

        >>> tissue = np.array([[True, True, False, False]])
        >>> spec = TileSpec(tile_px=256, mpp=0.5)
        >>> place_tiles(tissue, spec, slide_size=(2048, 1024), slide_mpp=(0.25, 0.25)).tolist()
        [[0, 0], [512, 0], [0, 512], [512, 512]]
    """
    tile_l0 = spec.tile_size_l0(slide_mpp)
    if tile_l0[0] > slide_size[0] + 0.5 or tile_l0[1] > slide_size[1] + 0.5:
        width, height = slide_size
        narrowest_um = min(width * slide_mpp[0], height * slide_mpp[1])
        fits = int(narrowest_um / spec.mpp)
        remedy = f"--tile-px {fits} or less" if fits else f"--mpp {narrowest_um / spec.tile_px:.3g} or finer"
        raise TileError(
            f"a tile of {spec.tile_px} px at {spec.mpp:g} um/px spans {tile_l0[0]:.0f} x {tile_l0[1]:.0f} "
            f"level-0 pixels but the slide has {width} x {height}. Pass {remedy}."
        )
    stride_l0 = (spec.stride * spec.mpp / slide_mpp[0], spec.stride * spec.mpp / slide_mpp[1])
    corners = _grid(slide_size, tile_l0, stride_l0)
    if bounds_l0 is not None and bounds_l0 != (0, 0, *slide_size):
        low = np.array(bounds_l0[:2])
        high = low + np.array(bounds_l0[2:])
        # The same half pixel of grace as at the slide's edge.
        inside = (corners >= low - 0.5) & (corners + np.array(tile_l0) <= high + 0.5)
        corners = corners[inside.all(axis=1)]
    shares = measure_tissue(tissue, corners, tile_l0, slide_size)
    return np.rint(corners[shares > spec.min_tissue]).astype(np.int64)


def choose_tiles(corners_l0: NDArray[np.int64], n: int, *, slide_id: str) -> NDArray[np.int64]:
    """Choose tiles of a slide that are spread over its tissue: by farthest-point sampling (Gonzalez 1985).

    Each next tile is the one farthest from those that were taken, so the first 64 of 256 are the 64. The first tile,
    and which of equally far ones is taken, follow from hashes of the slide's id and the tile's place: nothing else,
    neither the order of the tiles nor what an encoder makes of them, has a say.

    Args:
        corners_l0: `(N, 2)` int64 corners `(x, y)`, level-0 pixels; centres lie as far apart as corners do.
        n: How many are kept at most.
        slide_id: Which slide.

    Returns:
        `(min(n, N),)` int64 rows of the tiles that are kept, ascending.

    Example:
        Of nine tiles in a row one is drawn, then the end that is farther, then what lies farthest from both:

        >>> corners = np.stack([np.arange(9) * 512, np.zeros(9, np.int64)], axis=1)
        >>> [choose_tiles(corners, n, slide_id="S-1").tolist() for n in (1, 2, 3, 5)]
        [[7], [0, 7], [0, 3, 7], [0, 1, 3, 5, 7]]
    """
    if n >= len(corners_l0):
        return np.arange(len(corners_l0), dtype=np.int64)
    ranked = _rank(slide_id, [f"{x} {y}" for x, y in corners_l0.tolist()])
    x, y = np.ascontiguousarray(corners_l0[ranked].T, np.float64)  # whole numbers whose squares float64 holds
    distance = np.full(len(ranked), np.inf)  # squared, to the nearest tile that was taken
    taken, latest = np.empty(n, np.int64), 0
    for number in range(n):
        taken[number] = latest
        across, down = x - x[latest], y - y[latest]
        across *= across
        down *= down
        across += down
        np.minimum(distance, across, out=distance)
        distance[latest] = -1  # two tiles of one place are two
        latest = int(distance.argmax())
    return np.sort(ranked[taken])


def choose_rows(n_rows: int, n: int, *, slide_id: str) -> NDArray[np.int64]:
    """Choose rows of a bag that does not say where its tiles lie: by hashes of the slide's id and the row's number.

    Args:
        n_rows: N.
        n: How many are kept at most; the first 64 of 256 are the 64.
        slide_id: Which slide.

    Returns:
        `(min(n, N),)` int64, ascending.
    """
    return np.sort(_rank(slide_id, map(str, range(n_rows)))[:n])


def _rank(slide_id: str, names: Iterable[str]) -> NDArray[np.int64]:
    """Return numbers in the order of the hashes of their names, an order that every machine and version shares."""
    digests = [hashlib.sha256(f"{slide_id}\n{name}".encode()).digest()[:8] for name in names]
    return np.argsort(np.frombuffer(b"".join(digests), ">u8"), kind="stable").astype(np.int64)


def measure_tissue(
    tissue: NDArray[np.bool_],
    corners_l0: NDArray[np.float64] | NDArray[np.int64],
    tile_l0: tuple[float, float],
    slide_size: tuple[int, int],
) -> NDArray[np.float64]:
    """Measure the share of tissue under each tile, exactly, mask pixels cut by a tile's edge counted in part.

    Args:
        tissue: `(mask_h, mask_w)` bool, covering the whole slide.
        corners_l0: `(n, 2)` top-left corners `(x, y)`, level-0 pixels.
        tile_l0: `(width, height)` of a tile, level-0 pixels.
        slide_size: `(width, height)` of level 0, in pixels.

    Returns:
        `(n,)` float64, 0 to 1.
    """
    mask_h, mask_w = tissue.shape
    mask_per_l0 = np.array([mask_w, mask_h]) / np.array(slide_size)
    start = np.asarray(corners_l0, dtype=np.float64) * mask_per_l0
    stop = np.minimum(start + np.array(tile_l0) * mask_per_l0, [mask_w, mask_h])
    # Summed-area table, read between its nodes by bilinear interpolation: exact for a mask constant within a pixel.
    area = np.zeros((mask_h + 1, mask_w + 1))
    area[1:, 1:] = tissue.cumsum(axis=0, dtype=np.float64).cumsum(axis=1)
    (x0, y0), (x1, y1) = start.T, stop.T
    covered = _between(area, x1, y1) - _between(area, x0, y1) - _between(area, x1, y0) + _between(area, x0, y0)
    shares: NDArray[np.float64] = covered / ((x1 - x0) * (y1 - y0))
    # Cumulative sums leave rounding of about 1e-10; a half-covered tile must not pass "more than half" by it.
    return np.round(shares, 9)


def _grid(
    slide_size: tuple[int, int], tile_l0: tuple[float, float], stride_l0: tuple[float, float]
) -> NDArray[np.float64]:
    """List the corners of all whole tiles, `(n, 2)` float64 as `(x, y)`, row by row."""
    # Half a level-0 pixel of grace: a slide of exactly n tiles must not lose its last one to float rounding.
    n_x, n_y = (
        math.floor((extent - tile + 0.5) / stride) + 1
        for extent, tile, stride in zip(slide_size, tile_l0, stride_l0, strict=True)
    )
    y, x = np.divmod(np.arange(n_x * n_y, dtype=np.int64), max(n_x, 1))
    return np.stack([x * stride_l0[0], y * stride_l0[1]], axis=1)


def _between(area: NDArray[np.float64], x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Read a summed-area table at fractional positions."""
    column = np.minimum(np.floor(x).astype(int), area.shape[1] - 2)
    row = np.minimum(np.floor(y).astype(int), area.shape[0] - 2)
    right, down = x - column, y - row
    top = area[row, column] * (1 - right) + area[row, column + 1] * right
    bottom = area[row + 1, column] * (1 - right) + area[row + 1, column + 1] * right
    between: NDArray[np.float64] = top * (1 - down) + bottom * down
    return between
