"""Real tiles for the check of a runtime's precision."""

from collections.abc import Iterable
from concurrent.futures import Future

import numpy as np
from numpy.typing import NDArray

from lamella.errors import LamellaError
from lamella.features.plan import CutSettings, TilePlan

_N_TILES = 96
_LEAST_SLIDES, _MOST_SLIDES = 4, 16


def gather_check_tiles(plans: Iterable[Future[TilePlan]], cut: CutSettings, *, n_slides: int) -> NDArray[np.uint8]:
    """Read real tiles of the first slides that can be read, shifted where there are few places.

    Args:
        plans: Plans of the slides in order; as many are asked for as are needed, at most 16 once one can be read.
        cut: How slides are cut into tiles.
        n_slides: Number of slides; tiles come from at least four, or from all where there are fewer.

    Returns:
        `(96, px, px, 3)` uint8 tiles.

    Raises:
        LamellaError: If no slide can be read: what is wrong with the first.
    """
    rng = np.random.default_rng(0)
    tiles: list[NDArray[np.uint8]] = []
    failures: list[LamellaError | OSError] = []
    n_open = 0
    for n_tried, future in enumerate(plans, start=1):
        try:
            plan = future.result()
            n_open += 1
            tiles += _draw_tiles(plan, cut, rng)
        except (LamellaError, OSError) as error:
            failures.append(error)
        enough = len(tiles) >= _N_TILES and n_open >= min(_LEAST_SLIDES, n_slides)
        if enough or (tiles and n_tried >= _MOST_SLIDES):
            break
    if not tiles:
        raise failures[0]
    rng.shuffle(tiles)
    while len(tiles) < _N_TILES:
        tiles += tiles[: _N_TILES - len(tiles)]
    return np.stack(tiles[:_N_TILES])


def _draw_tiles(plan: TilePlan, cut: CutSettings, rng: np.random.Generator) -> list[NDArray[np.uint8]]:
    """Read up to 96 tiles of a slide; where it has fewer places, the same ones shifted by up to half a tile."""
    if not len(plan.corners_l0):
        return []
    tile_px, mpp = cut.spec.tile_px, cut.spec.mpp
    places = rng.choice(len(plan.corners_l0), _N_TILES, replace=len(plan.corners_l0) < _N_TILES)
    room = np.maximum(np.array(plan.slide.size) - np.array([tile_px * mpp / m for m in plan.slide.mpp]), 0)
    shift = rng.random((len(places), 2)) * tile_px * mpp / np.array(plan.slide.mpp) / 2
    corners = np.minimum(np.floor(plan.corners_l0[places] + shift), np.floor(room))
    return [
        plan.slide.read_box((float(x), float(y)), (tile_px, tile_px), mpp, max_upsample=cut.max_upsample)
        for x, y in corners
    ]
