"""The most attended tiles of slides, read when they are needed and kept while there is room."""

from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from lamella.cohort import CohortSlide
from lamella.defaults import MAX_UPSAMPLE
from lamella.slide import open_slide
from lamella.tiles import TileSpec


def choose_top(attention: NDArray[np.floating], k: int) -> NDArray[np.int64]:
    """Return the places of the k most attended tiles, in the order of the bag; all where there are fewer.

    Example:
        >>> choose_top(np.array([0.1, 0.4, 0.2, 0.3]), 2).tolist()
        [1, 3]
    """
    order = np.argsort(-attention, kind="stable")[:k]
    return np.sort(order).astype(np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class ChosenTiles:
    """Which tiles of which slide.

    Attributes:
        slide: The slide.
        corners_l0: `(k, 2)` int64 corners `(x, y)`, level-0 pixels.
    """

    slide: CohortSlide
    corners_l0: NDArray[np.int64]


class SlideTiles:
    """Reads the chosen tiles of slides; what was read is kept up to a number of bytes.

    Args:
        chosen: By slide id.
        spec: How tiles are cut.
        max_upsample: Greatest enlargement of the finest level.
        cache_bytes: How much is kept; the rest is read again each time.
    """

    def __init__(
        self,
        chosen: Mapping[str, ChosenTiles],
        spec: TileSpec,
        *,
        max_upsample: float = MAX_UPSAMPLE,
        cache_bytes: int = 512 * 2**20,
    ) -> None:
        self.chosen = dict(chosen)
        self._spec, self._max_upsample = spec, max_upsample
        self._room, self._kept, self._lock = cache_bytes, dict[str, NDArray[np.uint8]](), Lock()

    def read(self, slide_id: str) -> NDArray[np.uint8]:
        """Return `(k, H, W, 3)` uint8 RGB.

        Raises:
            SlideError: If the slide cannot be read.
        """
        kept = self._kept.get(slide_id)
        if kept is not None:
            return kept
        chosen, side = self.chosen[slide_id], self._spec.tile_px
        item = chosen.slide
        with open_slide(item.path, slide_mpp=item.slide_mpp, image=item.slide_image) as slide:
            tiles = np.stack(
                [
                    slide.read_box((float(x), float(y)), (side, side), self._spec.mpp, max_upsample=self._max_upsample)
                    for x, y in chosen.corners_l0
                ]
            )
        with self._lock:
            if slide_id not in self._kept and tiles.nbytes <= self._room:
                self._room -= tiles.nbytes
                self._kept[slide_id] = tiles
        return tiles
