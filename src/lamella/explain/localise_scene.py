"""One slide of a localisation: its lesions and its maps on one raster, and what each map reaches there."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lamella.analysis.localise import (
    APART,
    Detections,
    Lesions,
    choose_tiles,
    find_maxima,
    find_top_precision,
    judge_detections,
    number_lesions,
    points_inside,
    rank_values,
)
from lamella.cohort import CohortSlide
from lamella.errors import OutputError
from lamella.explain.cam_parts import predict_parts
from lamella.explain.lesion_masks import Rasteriser
from lamella.explain.localise_sources import Source
from lamella.features.bag import FeatureBag
from lamella.features.settings import ExtractSettings
from lamella.maps import fit_map, load_map, stitch_tiles
from lamella.progress import Stage
from lamella.slide import Slide, to_scan

_PIXELS_A_TILE = 16
_LONG_PX = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """One slide with what every map is held against, and its bags by the run's encoders.

    Corners, size and rasters are of the scan, as the maps are.
    """

    item: CohortSlide
    slide: Slide
    bags: tuple[FeatureBag, ...]
    corners_l0: NDArray[np.int64]
    tile_l0: tuple[float, float]
    slide_size: tuple[int, int]
    shape: tuple[int, int]
    um_per_px: float
    mask: NDArray[np.bool_]
    covered: NDArray[np.float64]
    lesions: Lesions


@dataclass(frozen=True, slots=True, eq=False)
class SlideMap:
    """One map of one slide: a value a tile, a raster, and what makes both comparable between slides.

    `is_by_tile` says that the raster shows nothing finer than the tiles, so that these are the detections.
    """

    tiles: NDArray[np.float64]
    raster: NDArray[np.float32]
    scale: float = 1.0
    is_by_tile: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SlideScores:
    """What one map reaches on one slide, a row of `localisation.csv`; None where that cannot be told."""

    slide_id: str
    patient_id: str
    map: str
    tile_auc: float | None
    tile_ap: float | None
    pixel_auc: float | None
    pixel_ap: float | None
    pointing: float | None
    top_k: float | None
    tile_share: float | None
    pixel_share: float | None


def set_scene(
    item: CohortSlide,
    slide: Slide,
    rasterise: Rasteriser | None,
    source: Source,
    extract: ExtractSettings,
    *,
    smallest_um: float,
) -> Scene:
    """Lay the lesions of a slide on the raster on which maps are compared."""
    spec = extract.cut.spec
    bags = tuple(part.open_bag(item.slide_id) for part in source.find_parts(item.slide_id))
    bounds_l0 = slide.bounds_l0
    corners_l0 = to_scan(bags[0].corners_l0, bounds_l0).astype(np.int64)
    side_um = spec.tile_px * spec.mpp
    slide_um = [size * mpp for size, mpp in zip(bounds_l0[2:], slide.mpp, strict=True)]
    um_per_px = max(side_um / _PIXELS_A_TILE, max(slide_um) / _LONG_PX)
    shape = (max(1, round(slide_um[1] / um_per_px)), max(1, round(slide_um[0] / um_per_px)))
    mask = np.zeros(shape, dtype=bool) if rasterise is None else rasterise(shape)
    tile_l0 = (side_um / slide.mpp[0], side_um / slide.mpp[1])
    return Scene(
        item=item,
        slide=slide,
        bags=bags,
        corners_l0=corners_l0,
        tile_l0=tile_l0,
        slide_size=bounds_l0[2:],
        shape=shape,
        um_per_px=um_per_px,
        mask=mask,
        covered=average_over_tiles(mask, corners_l0, tile_l0, bounds_l0[2:]),
        lesions=number_lesions(mask, um_per_px, smallest_um=smallest_um),
    )


def average_over_tiles(
    raster: NDArray[Any], corners_l0: NDArray[np.int64], tile_l0: tuple[float, float], slide_size: tuple[int, int]
) -> NDArray[np.float64]:
    """Return the mean of a raster of the whole slide over each tile, `(N,)` float64; of a mask, the share it covers.

    Example:
        >>> mask = np.array([[False, True, True, False]])
        >>> average_over_tiles(mask, np.array([[0, 0], [50, 0]]), (100.0, 100.0), (400, 100)).tolist()
        [0.0, 0.5]
    """
    height, width = raster.shape
    sums = np.pad(raster.cumsum(axis=0, dtype=np.float64).cumsum(axis=1), ((1, 0), (1, 0)))
    per_l0 = np.array([width / slide_size[0], height / slide_size[1]])
    low = np.clip(corners_l0 * per_l0, 0, [width, height])
    high = np.clip((corners_l0 + np.array(tile_l0)) * per_l0, 0, [width, height])

    def read(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        values: NDArray[np.float64] = ndimage.map_coordinates(sums, [y, x], order=1, mode="nearest")
        return values

    inside = read(high[:, 0], high[:, 1]) - read(low[:, 0], high[:, 1]) - read(high[:, 0], low[:, 1])
    inside += read(low[:, 0], low[:, 1])
    area = (high - low).prod(axis=1)
    mean: NDArray[np.float64] = np.divide(inside, area, out=np.zeros_like(inside), where=area > 0)
    # Sums leave rounding behind: what is next to nothing is nothing.
    return np.where(np.abs(mean) < 1e-9, 0.0, mean)


def list_maps(scene: Scene, sources: Sequence[Source], stage: Stage) -> dict[str, SlideMap]:
    """Return all maps of a slide: attention and CAM of the run, the first source, and of each control; darkness."""
    maps: dict[str, SlideMap] = {}
    for source in sources:
        parts = source.find_parts(scene.item.slide_id)
        beside = f", {source.name}" if source.name else ""
        bags = scene.bags if source is sources[0] else [part.open_bag(scene.item.slide_id) for part in parts]
        attention, probability = predict_parts(parts, bags)
        maps[f"attention{beside}"] = SlideMap(
            attention, _stitch(scene, attention), scale=len(attention) * probability, is_by_tile=True
        )
        if source.mapper is not None:
            folder = source.folder / scene.item.slide_id
            source.mapper.map_slide(scene.item, parts, bags, folder, stage)
            tiles = _load_tiles(folder / "tiles.npy")
            raster = fit_map(load_map(folder / "cam.tiff", long_px=_LONG_PX), scene.shape)
            maps[f"cam{beside}"] = SlideMap(tiles, raster)
    thumbnail = scene.slide.read_scan(max(scene.um_per_px, *scene.slide.mpp)).astype(np.float32)
    dark = fit_map(255 - thumbnail.mean(axis=2), scene.shape)
    tiles = average_over_tiles(dark, scene.corners_l0, scene.tile_l0, scene.slide_size)
    known = np.isfinite(next(iter(maps.values())).raster)
    maps["darkness"] = SlideMap(tiles, np.where(known, dark, np.float32(np.nan)))
    return maps


def _stitch(scene: Scene, values: NDArray[np.float64]) -> NDArray[np.float32]:
    return stitch_tiles(values, scene.corners_l0, scene.tile_l0, scene.slide_size, scene.shape)


def measure_map(
    scene: Scene,
    name: str,
    map_: SlideMap,
    k: int,
    pooled: dict[str, list[tuple[NDArray[np.float64], NDArray[np.bool_]]]],
) -> SlideScores | None:
    """Return what one map reaches on one slide; None for a slide without a lesion."""
    if not scene.mask.any():
        return None
    judged = (scene.covered > 0.5) | (scene.covered == 0)
    inside = scene.covered[judged] > 0.5
    tiles = rank_values(map_.tiles[judged], inside)
    known = np.isfinite(map_.raster)
    pixels = rank_values(map_.raster[known], scene.mask[known])
    pooled.setdefault(name, []).append((map_.tiles[judged] * map_.scale, inside))
    return SlideScores(
        slide_id=scene.item.slide_id,
        patient_id=scene.item.patient_id,
        map=name,
        tile_auc=None if tiles is None else tiles.auc,
        tile_ap=None if tiles is None else tiles.precision,
        pixel_auc=None if pixels is None else pixels.auc,
        pixel_ap=None if pixels is None else pixels.precision,
        pointing=None if pixels is None else points_inside(map_.raster[known], scene.mask[known]),
        top_k=find_top_precision(map_.tiles, scene.covered > 0.5, k),
        tile_share=None if tiles is None else tiles.share,
        pixel_share=None if pixels is None else pixels.share,
    )


def find_detections(scene: Scene, map_: SlideMap, radius_um: float | None) -> Detections:
    """Return what the detections of a map hit: tiles at their centres, or maxima of what is finer than tiles."""
    mpp = np.array(scene.slide.mpp)
    radius_um = radius_um or APART * scene.tile_l0[0] * mpp[0]
    if not map_.is_by_tile:
        points, values = find_maxima(map_.raster, radius_um / scene.um_per_px)
        return judge_detections(points, values * map_.scale, scene.lesions)
    centres_l0 = scene.corners_l0 + np.array(scene.tile_l0) / 2
    chosen = choose_tiles(map_.tiles, centres_l0 * mpp, radius_um)
    height, width = scene.shape
    pixels = np.floor(centres_l0[chosen] * np.array([width, height]) / np.array(scene.slide.size)).astype(np.int64)
    points = np.clip(pixels[:, ::-1], 0, [height - 1, width - 1])
    return judge_detections(points, map_.tiles[chosen] * map_.scale, scene.lesions)


def _load_tiles(path: Path) -> NDArray[np.float64]:
    """Load what each tile adds to a map.

    Raises:
        OutputError: If it is absent or damaged.
    """
    try:
        return np.asarray(np.load(path, allow_pickle=False), dtype=np.float64)
    except (OSError, ValueError, TypeError, EOFError, SyntaxError) as error:
        raise OutputError(
            f"'{path}' is absent or damaged. Delete the folder '{path.parent.name}' and run the same command again."
        ) from error
