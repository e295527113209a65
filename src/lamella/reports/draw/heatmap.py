"""Heatmaps: the attention of tiles, and how it ranks them. `lamella.maps` lays it back on the slide."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lamella.errors import TileError
from lamella.maps import check_tiles
from lamella.runs.attention import AttentionRecord
from lamella.slide import Bounds, Slide, to_scan


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SlideAttention:
    """The attention of one slide's tiles, and where they lie.

    Attributes:
        attention: `(N,)` float, not negative; sums to 1 over the slide when it comes from one model.
        coords_l0: `(N, 2)` int64 top-left corners `(x, y)`, level-0 pixels.
        tile_size_l0: `(width, height)` of a tile, level-0 pixels, not rounded.
        slide_size: `(width, height)` of level 0, in pixels.
        slide_mpp: `(x, y)` resolution of level 0, in um per pixel.
        n_bag: Tiles of the bag over which attention sums to 1, where that is a patient's: then a slide on which hardly
            any attention falls is dark. None: the slide is all there is.

    Raises:
        TileError: If there is no tile, the arrays do not match, or attention is negative, NaN or zero everywhere.
    """

    attention: NDArray[np.float64]
    coords_l0: NDArray[np.int64]
    tile_size_l0: tuple[float, float]
    slide_size: tuple[int, int]
    slide_mpp: tuple[float, float]
    n_bag: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        object.__setattr__(self, "attention", np.asarray(self.attention, dtype=np.float64))
        object.__setattr__(self, "coords_l0", np.asarray(self.coords_l0))
        check_tiles(self.attention, self.coords_l0, self.tile_size_l0, self.slide_size)
        if self.attention.size == 0:
            raise TileError("attention has no tiles, so there is nothing to draw. Leave slides without tiles out.")
        is_dark = self.attention.max() == 0 and self.n_bag is None  # one slide of a patient may be left out wholly
        if not np.isfinite(self.attention).all() or self.attention.min() < 0 or is_dark:
            raise TileError(
                "attention holds negative, missing or only zero values, and must be shares of a whole. "
                "Pass softmax attention, not attention logits."
            )

    @property
    def relative(self) -> NDArray[np.float64]:
        """`(N,)` float64: attention in multiples of the average tile of the slide, or of the patient; even is 1."""
        average = self.attention.mean() if self.n_bag is None else 1 / self.n_bag
        relative: NDArray[np.float64] = self.attention / average
        return relative

    @property
    def rank(self) -> NDArray[np.int64]:
        """`(N,)` int64: 1 for the most attended tile, N for the least; ties in the order of the tiles."""
        return rank_tiles(self.attention)

    @property
    def slide_um(self) -> tuple[float, float]:
        """`(width, height)` of the slide, in um."""
        return self.slide_size[0] * self.slide_mpp[0], self.slide_size[1] * self.slide_mpp[1]

    def on_scan(self, bounds_l0: Bounds) -> "SlideAttention":
        """Return the same tiles on the scan alone, counted from its corner, as QuPath shows the slide.

        Args:
            bounds_l0: `Slide.bounds_l0`.

        Example:
            >>> tiles = SlideAttention(
            ...     attention=np.ones(1), coords_l0=np.array([[620, 330]]), tile_size_l0=(112.0, 112.0),
            ...     slide_size=(2400, 1800), slide_mpp=(0.5, 0.5))
            >>> scan = tiles.on_scan((500, 300, 1600, 1200))
            >>> scan.coords_l0.tolist(), scan.slide_size
            ([[120, 30]], (1600, 1200))
        """
        corners = to_scan(self.coords_l0, bounds_l0).astype(np.int64)
        return replace(self, coords_l0=corners, slide_size=bounds_l0[2:])


def rank_tiles(attention: ArrayLike) -> NDArray[np.int64]:
    """Rank tiles, 1 for the most attended; ties in the order of the tiles.

    Args:
        attention: `(N,)` float.

    Returns:
        `(N,)` int64, a permutation of 1 to N.

    Example:
        >>> rank_tiles([0.2, 0.5, 0.3]).tolist()
        [3, 1, 2]
    """
    order = np.argsort(-np.asarray(attention, dtype=np.float64), kind="stable")
    rank = np.empty(order.size, dtype=np.int64)
    rank[order] = np.arange(1, order.size + 1)
    return rank


def locate_tiles(record: AttentionRecord, slide: Slide) -> tuple[SlideAttention, float]:
    """Return the attention of a record as pictures take it, and the resolution of its tiles in um per pixel.

    What the bag did not state (TRIDENT's states no resolution) is the slide's.

    Raises:
        ResolutionError: If neither knows the resolution.
        TileError: If the tiles do not lie on the slide.
    """
    slide_mpp = record.slide_mpp or slide.mpp
    mpp = record.mpp or record.tile_l0[0] * slide_mpp[0] / record.tile_px
    tiles = SlideAttention(
        attention=record.attention.astype(np.float64),
        coords_l0=record.coords_l0,
        tile_size_l0=record.tile_l0,
        slide_size=record.slide_size or slide.size,
        slide_mpp=slide_mpp,
        n_bag=record.n_bag,
    )
    return tiles, mpp
