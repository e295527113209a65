"""Localisation of a run: attention and class activation maps against lesion outlines, beside controls.

DIR/localisation.json     what each map reaches, averaged over patients, with intervals
DIR/localisation.csv      the same by slide
DIR/controls/             runs with random weights and with permuted labels, where they were asked for
"""

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lamella.analysis.localise import (
    APART,
    SMALLEST_UM,
    Detections,
    Lesions,
    choose_tiles,
    find_maxima,
    find_top_precision,
    judge_detections,
    number_lesions,
    points_inside,
    rank_values,
    score_froc,
)
from lamella.cohort import Cohort, CohortSlide, list_rounds
from lamella.cohort.cohort import name_some
from lamella.encoders import EncoderSpec
from lamella.encoders.trust import trusting
from lamella.errors import CohortError, LamellaError, OutputError, SettingsError
from lamella.explain.cam import CamMapper, CamPart, PartFinder, load_paths, predict_parts
from lamella.explain.lesion_masks import Rasteriser
from lamella.explain.outlines import LesionFolder
from lamella.features.bag import read_own_bag
from lamella.features.extract import extract_cohort
from lamella.features.failures import Failure
from lamella.features.settings import ExtractSettings
from lamella.files import write_record, write_table
from lamella.maps import fit_map, load_map, stitch_tiles
from lamella.mil.settings import TrainSettings
from lamella.progress import Progress, SilentProgress, Stage
from lamella.runs.bags import load_bags
from lamella.runs.folder import RunFolder
from lamella.runs.leaks import refuse_seen_by_encoder
from lamella.runs.predict import FinishedRun, find_run_encoder
from lamella.runs.rounds import Protocol, keep_available, train_protocol
from lamella.runs.settings import CamSettings, restore_extract_settings
from lamella.slide import Slide, open_slide, to_scan

_PIXELS_A_TILE = 16
_LONG_PX = 4096
_N_DRAWS = 2000
MEASURES = ("tile_auc", "tile_ap", "pixel_auc", "pixel_ap", "pointing", "top_k")


@dataclass(frozen=True, slots=True, kw_only=True)
class LocaliseSettings:
    """What is measured.

    Attributes:
        lesions: Folder of outlines, `<slide_id>.geojson`, `.xml`, `.png` or `.tiff`.
        classes: Which classes of outlines are lesions; empty takes the only one there is.
        values: Which values of masks are lesions, each a number or `#rrggbb`; empty takes the only one besides the
            background.
        cam: Which class activation maps stand beside attention; None measures attention alone.
        arm: `frozen` or `tuned`.
        k: Tiles of highest value whose precision is measured.
        radius_um: Least distance of two detections, um; None is one and a half sides of a tile.
        smallest_um: Lesions shorter than this are neither hit nor false (CAMELYON16: 275).
        controls: Whether random weights and permuted labels are trained and measured too.
    """

    lesions: Path
    classes: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    cam: CamSettings | None = dataclasses.field(default_factory=CamSettings)
    arm: str = "frozen"
    k: int = 10
    radius_um: float | None = None
    smallest_um: float = SMALLEST_UM
    controls: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be measured."""
        if self.k < 1 or (self.radius_um is not None and self.radius_um <= 0) or self.smallest_um < 0:
            raise SettingsError("k and the radius must be above 0 and the smallest lesion not below. Leave them out.")


@dataclass(frozen=True, slots=True, eq=False)
class _Source:
    """Models whose maps are measured: the run's, or a control's."""

    name: str
    find_parts: Callable[[str], Sequence[CamPart]]
    mapper: CamMapper | None
    folder: Path


@dataclass(frozen=True, slots=True, eq=False)
class _Scene:
    """One slide with what every map is held against; corners, size and rasters are of the scan, as the maps are."""

    item: CohortSlide
    slide: Slide
    corners_l0: NDArray[np.int64]
    tile_l0: tuple[float, float]
    slide_size: tuple[int, int]
    shape: tuple[int, int]
    um_per_px: float
    mask: NDArray[np.bool_]
    covered: NDArray[np.float64]
    lesions: Lesions


@dataclass(frozen=True, slots=True, eq=False)
class _Map:
    """One map of one slide: a value a tile, a raster, and what makes both comparable between slides.

    `is_by_tile` says that the raster shows nothing finer than the tiles, so that these are the detections.
    """

    tiles: NDArray[np.float64]
    raster: NDArray[np.float32]
    scale: float = 1.0
    is_by_tile: bool = False


def localise_run(
    run: FinishedRun,
    settings: LocaliseSettings,
    *,
    trust: Sequence[Path | str] = (),
    progress: Progress | None = None,
) -> tuple[dict[str, Any], tuple[Failure, ...]]:
    """Measure where the maps of a run light up, on the slides that no model learned from, and write it down.

    Args:
        run: Of `open_run`.
        settings: What is measured.
        trust: Your own `FILE.py`, where the run's encoder is built by it.
        progress: Where to report to.

    Returns:
        What `localisation.json` holds, and the slides that could not be done.

    Raises:
        CohortError: If no tested slide has outlines, or nothing of them is left to measure.
        SettingsError: If they are of several classes, and none is chosen.
        LeakageError: If the encoder has seen a slide that is to be measured on.
    """
    with trusting(*trust):
        return _localise(run, settings, progress or SilentProgress())


def _localise(
    run: FinishedRun, settings: LocaliseSettings, progress: Progress
) -> tuple[dict[str, Any], tuple[Failure, ...]]:
    cohort = load_paths(run.folder)
    extract = restore_extract_settings(run.settings, find_run_encoder(run))
    positive = run.positive or run.classes[-1]
    bags = extract.folder(run.folder.features)
    has_bag = [path.stem for path in bags.features.glob("*.h5")].__contains__
    lesions = LesionFolder(path=settings.lesions, classes=settings.classes, values=settings.values)
    chosen, notes = _choose(cohort, lesions, positive, has_bag)
    sources = [_run_source(run, settings, cohort, extract)]
    if settings.controls:
        sources += [
            _control_source(run, settings, cohort, extract, kind, progress)
            for kind in ("random weights", "permuted labels")
        ]
    sources[0] = _checked(sources[0], [item.slide_id for item, _ in chosen], cohort)
    rows: list[dict[str, Any]] = []
    detections: dict[str, list[Detections]] = {}
    failures: list[Failure] = []
    tiny: list[str] = []
    pooled: dict[str, list[tuple[NDArray[np.float64], NDArray[np.bool_]]]] = {}
    with progress.stage("localise", None, "tiles") as stage:
        for item, truth in chosen:
            try:
                with open_slide(item.path, slide_mpp=item.slide_mpp, image=item.slide_image) as slide:
                    mask = None if truth is None else lesions.load(truth, slide.size, slide.bounds_l0)
                    scene = _set_scene(item, slide, mask, sources[0], extract, settings)
                    if truth is not None and not scene.mask.any():
                        tiny.append(item.slide_id)
                        continue
                    for name, one in _list_maps(scene, sources, stage).items():
                        rows += _measure(scene, name, one, settings, pooled)
                        found = _detect(scene, one, settings)
                        detections.setdefault(name, []).append(found)
            except (OutputError, CohortError):
                raise
            except (LamellaError, OSError) as error:
                failures.append(Failure(item.slide_id, "localise", str(error)))
    if tiny:
        notes.append(f"lesions of {name_some(tiny)} are smaller than a sixteenth of a tile: left out.")
    if not rows:
        reasons = [failure.reason.replace(f"{settings.lesions}{os.sep}", "") for failure in failures]
        said = f" The first: {reasons[0]}" if reasons else f" {notes[-1]}" if notes else ""
        raise CohortError(f"no lesion in '{settings.lesions.name}' could be measured.{said}")
    content = _summarise(rows, detections, pooled, cohort)
    content["settings"] = {
        "k": settings.k,
        "radius_um": settings.radius_um or APART * extract.cut.spec.tile_px * extract.cut.spec.mpp,
        "smallest_um": settings.smallest_um,
        "arm": settings.arm,
        "class": positive,
        "lesion_classes": list(settings.classes),
        "lesion_values": list(settings.values),
    }
    content["notes"] = notes
    if content["maps"] and all(one["froc"] is None for one in content["maps"].values()):
        content["notes"].append(
            f"no lesion is {settings.smallest_um:g} um long or longer, so there is none that FROC would count; a lower "
            "--smallest-um counts smaller ones."
        )
    name = "localisation" if settings.arm == "frozen" else f"localisation-{settings.arm}"
    write_record(run.folder.path / f"{name}.json", content)
    columns = ["slide_id", "patient_id", "map", *MEASURES, "tile_share", "pixel_share"]
    write_table(run.folder.path / f"{name}.csv", columns, [{key: _cell(row[key]) for key in columns} for row in rows])
    return content, tuple(failures)


def _cell(value: Any) -> Any:
    return "" if value is None else value


def _choose(
    cohort: Cohort, lesions: LesionFolder, positive: str, has_bag: Callable[[str], bool]
) -> tuple[list[tuple[CohortSlide, Path | None]], list[str]]:
    """Return the tested slides with their outlines (None: without a lesion), and what to tell of those that lack them.

    Slides that the same models test stand together: each encoder is opened once.
    """
    slides = {item.slide_id: item for item in cohort.slides}
    tested = [slides[slide_id] for one in list_rounds(cohort) for slide_id in one.test]
    files = lesions.find([item for item in tested if str(item.label) == positive])
    tested = [item for item in tested if has_bag(item.slide_id)]
    with_lesions = [item.slide_id for item in tested if str(item.label) == positive]
    left_out = [slide_id for slide_id in with_lesions if slide_id not in files]
    if len(left_out) == len(with_lesions):
        raise CohortError(
            f"'{lesions.path.name}' holds outlines of no tested slide that is labelled {positive} and has features. "
            "Run the run again, or name outlines of its slides."
        )
    notes = []
    if left_out:
        notes.append(
            f"{len(left_out)} of {len(with_lesions)} tested slides labelled {positive} have no outlines and were left "
            f"out: {name_some(left_out)}."
        )
    chosen = [
        (item, files.get(item.slide_id)) for item in tested if item.slide_id in files or str(item.label) != positive
    ]
    return chosen, notes


def _run_source(run: FinishedRun, settings: LocaliseSettings, cohort: Cohort, extract: ExtractSettings) -> _Source:
    """Return the run's own models and maps."""
    cam = dataclasses.replace(settings.cam or CamSettings(), finetuned=settings.arm)
    finder = PartFinder(run, cam, cohort, None)
    mapper = None if settings.cam is None else CamMapper(run.classes, cam, run.positive, extract)
    root = run.folder.cam if settings.arm == "frozen" else run.folder.cam / settings.arm
    return _Source("", finder.find, mapper, root)


def _checked(source: _Source, slide_ids: Sequence[str], cohort: Cohort) -> _Source:
    """Refuse slides that the encoder has seen."""
    provenance = {}
    for slide_id in slide_ids:
        for part in source.find_parts(slide_id):
            path = part.bags / f"{slide_id}.h5"
            if path.exists():
                provenance[slide_id] = read_own_bag(path)[2]
    refuse_seen_by_encoder(list(provenance), provenance, cohort)
    return source


def _control_source(
    run: FinishedRun,
    settings: LocaliseSettings,
    cohort: Cohort,
    extract: ExtractSettings,
    kind: str,
    progress: Progress,
) -> _Source:
    """Train a control on the run's folds; what is finished is kept."""
    folder = RunFolder(run.folder.path / "controls" / kind.replace(" ", "-"))
    bag_folder = extract.folder(run.folder.features)
    own, used = extract, cohort
    if kind == "random weights":
        spec = EncoderSpec(extract.encoder.name, "random")
        own = dataclasses.replace(extract, encoders=(spec,))
        bag_folder = extract_cohort(cohort.slides, own, folder.features, progress=progress).folder
    else:
        used = permute_labels(cohort)
    available = [s.slide_id for s in cohort.slides if bag_folder.features_path(s.slide_id).exists()]
    bags = load_bags(bag_folder, available)
    protocol = Protocol(name="fold", rounds=keep_available(list_rounds(used), bags.features, used))
    train = TrainSettings(**run.settings["train"])
    seeds = [dataclasses.replace(train, seed=train.seed + i) for i in range(int(run.settings["n_seeds"]))]
    models = train_protocol(protocol, bags, used, seeds, folder, progress)
    fold_of = {i: one.fold for one in protocol.rounds for i in one.test}

    def find_parts(slide_id: str) -> Sequence[CamPart]:
        if slide_id not in fold_of:
            raise CohortError(f"slide '{slide_id}' was not tested by the control with {kind}. Leave --controls out.")
        return (CamPart(encoder=own.encoder, models=tuple(models[fold_of[slide_id]]), bags=bag_folder.features),)

    cam = settings.cam
    frozen = None if cam is None else dataclasses.replace(cam, finetuned="frozen")
    mapper = None if frozen is None else CamMapper(run.classes, frozen, run.positive, own)
    return _Source(kind, find_parts, mapper, folder.cam)


def permute_labels(cohort: Cohort, *, seed: int = 0, within_batch: bool = False) -> Cohort:
    """Return a cohort whose patients have exchanged their labels within each fold or split, so that none is empty.

    Slides of a patient keep one label. Where a fold's patients are all of one label, so they stay.

    Args:
        cohort: With folds or splits.
        seed: Of the exchange.
        within_batch: Whether labels also stay within their batch, so that what a batch gives away is kept.
    """
    rng = np.random.default_rng([71, seed])
    label_of: dict[str, str] = {}
    groups: dict[tuple[Any, ...], list[str]] = {}
    for slide in cohort.slides:
        if slide.patient_id not in label_of:
            group = (slide.split, slide.fold, slide.batch if within_batch else None)
            groups.setdefault(group, []).append(slide.patient_id)
            label_of[slide.patient_id] = str(slide.label)
    exchanged: dict[str, str] = {}
    for patients in groups.values():
        labels = [label_of[patient] for patient in patients]
        exchanged.update(zip(patients, rng.permutation(labels).tolist(), strict=True))
    slides = tuple(dataclasses.replace(slide, label=exchanged[slide.patient_id]) for slide in cohort.slides)
    return dataclasses.replace(cohort, slides=slides)


def _set_scene(
    item: CohortSlide,
    slide: Slide,
    rasterise: Rasteriser | None,
    source: _Source,
    extract: ExtractSettings,
    settings: LocaliseSettings,
) -> _Scene:
    """Lay the lesions of a slide on the raster on which maps are compared."""
    spec = extract.cut.spec
    bag = source.find_parts(item.slide_id)[0].bags / f"{item.slide_id}.h5"
    bounds_l0 = slide.bounds_l0
    corners_l0 = to_scan(read_own_bag(bag)[1], bounds_l0).astype(np.int64)
    side_um = spec.tile_px * spec.mpp
    slide_um = [size * mpp for size, mpp in zip(bounds_l0[2:], slide.mpp, strict=True)]
    um_per_px = max(side_um / _PIXELS_A_TILE, max(slide_um) / _LONG_PX)
    shape = (max(1, round(slide_um[1] / um_per_px)), max(1, round(slide_um[0] / um_per_px)))
    mask = np.zeros(shape, dtype=bool) if rasterise is None else rasterise(shape)
    tile_l0 = (side_um / slide.mpp[0], side_um / slide.mpp[1])
    return _Scene(
        item=item,
        slide=slide,
        corners_l0=corners_l0,
        tile_l0=tile_l0,
        slide_size=bounds_l0[2:],
        shape=shape,
        um_per_px=um_per_px,
        mask=mask,
        covered=average_over_tiles(mask, corners_l0, tile_l0, bounds_l0[2:]),
        lesions=number_lesions(mask, um_per_px, smallest_um=settings.smallest_um),
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
        found: NDArray[np.float64] = ndimage.map_coordinates(sums, [y, x], order=1, mode="nearest")
        return found

    inside = read(high[:, 0], high[:, 1]) - read(low[:, 0], high[:, 1]) - read(high[:, 0], low[:, 1])
    inside += read(low[:, 0], low[:, 1])
    area = (high - low).prod(axis=1)
    mean: NDArray[np.float64] = np.divide(inside, area, out=np.zeros_like(inside), where=area > 0)
    # Sums leave rounding behind: what is next to nothing is nothing.
    return np.where(np.abs(mean) < 1e-9, 0.0, mean)


def _list_maps(scene: _Scene, sources: Sequence[_Source], stage: Stage) -> dict[str, _Map]:
    """Return all maps of a slide: attention and CAM of the run and of each control, and darkness."""
    maps: dict[str, _Map] = {}
    for source in sources:
        parts = source.find_parts(scene.item.slide_id)
        beside = f", {source.name}" if source.name else ""
        attention, probability = predict_parts(parts, scene.item.slide_id)
        maps[f"attention{beside}"] = _Map(
            attention, _stitch(scene, attention), scale=len(attention) * probability, is_by_tile=True
        )
        if source.mapper is not None:
            folder = source.folder / scene.item.slide_id
            source.mapper.map_slide(scene.item, parts, folder, stage)
            tiles = _load_tiles(folder / "tiles.npy")
            maps[f"cam{beside}"] = _Map(tiles, fit_map(load_map(folder / "cam.tiff", long_px=_LONG_PX), scene.shape))
    thumbnail = scene.slide.read_scan(max(scene.um_per_px, *scene.slide.mpp)).astype(np.float32)
    dark = fit_map(255 - thumbnail.mean(axis=2), scene.shape)
    tiles = average_over_tiles(dark, scene.corners_l0, scene.tile_l0, scene.slide_size)
    known = np.isfinite(next(iter(maps.values())).raster)
    maps["darkness"] = _Map(tiles, np.where(known, dark, np.float32(np.nan)))
    return maps


def _stitch(scene: _Scene, values: NDArray[np.float64]) -> NDArray[np.float32]:
    return stitch_tiles(values, scene.corners_l0, scene.tile_l0, scene.slide_size, scene.shape)


def _measure(
    scene: _Scene,
    name: str,
    one: _Map,
    settings: LocaliseSettings,
    pooled: dict[str, list[tuple[NDArray[np.float64], NDArray[np.bool_]]]],
) -> list[dict[str, Any]]:
    """Return what one map reaches on one slide; nothing for a slide without a lesion."""
    if not scene.mask.any():
        return []
    judged = (scene.covered > 0.5) | (scene.covered == 0)
    inside = scene.covered[judged] > 0.5
    tiles = rank_values(one.tiles[judged], inside)
    known = np.isfinite(one.raster)
    pixels = rank_values(one.raster[known], scene.mask[known])
    pooled.setdefault(name, []).append((one.tiles[judged] * one.scale, inside))
    found = {
        "slide_id": scene.item.slide_id,
        "patient_id": scene.item.patient_id,
        "map": name,
        "tile_auc": None if tiles is None else tiles.auc,
        "tile_ap": None if tiles is None else tiles.precision,
        "tile_share": None if tiles is None else tiles.share,
        "pixel_auc": None if pixels is None else pixels.auc,
        "pixel_ap": None if pixels is None else pixels.precision,
        "pixel_share": None if pixels is None else pixels.share,
        "pointing": None if pixels is None else points_inside(one.raster[known], scene.mask[known]),
        "top_k": find_top_precision(one.tiles, scene.covered > 0.5, settings.k),
    }
    return [found]


def _detect(scene: _Scene, one: _Map, settings: LocaliseSettings) -> Detections:
    """Return what the detections of a map hit: tiles at their centres, or maxima of what is finer than tiles."""
    mpp = np.array(scene.slide.mpp)
    radius_um = settings.radius_um or APART * scene.tile_l0[0] * mpp[0]
    if not one.is_by_tile:
        places, values = find_maxima(one.raster, radius_um / scene.um_per_px)
        return judge_detections(places, values * one.scale, scene.lesions)
    centres_l0 = scene.corners_l0 + np.array(scene.tile_l0) / 2
    chosen = choose_tiles(one.tiles, centres_l0 * mpp, radius_um)
    height, width = scene.shape
    pixels = np.floor(centres_l0[chosen] * np.array([width, height]) / np.array(scene.slide.size)).astype(np.int64)
    places = np.clip(pixels[:, ::-1], 0, [height - 1, width - 1])
    return judge_detections(places, one.tiles[chosen] * one.scale, scene.lesions)


def _summarise(
    rows: Sequence[dict[str, Any]],
    detections: dict[str, list[Detections]],
    pooled: dict[str, list[tuple[NDArray[np.float64], NDArray[np.bool_]]]],
    cohort: Cohort,
) -> dict[str, Any]:
    """Average over slides, then over patients; intervals by drawing patients."""
    maps: dict[str, Any] = {}
    for name in dict.fromkeys(row["map"] for row in rows):
        own = [row for row in rows if row["map"] == name]
        one: dict[str, Any] = {"n_slides": len(own), "n_patients": len({row["patient_id"] for row in own})}
        for measure in (*MEASURES, "tile_share", "pixel_share"):
            one[measure] = _average([(row["patient_id"], row[measure]) for row in own if row[measure] is not None])
        values, inside = (np.concatenate(parts) for parts in zip(*pooled[name], strict=True))
        ranking = rank_values(values, inside)
        one["pooled_tile_auc"] = None if ranking is None else ranking.auc
        froc = score_froc(detections[name])
        one["froc"] = None if froc is None else dataclasses.asdict(froc)
        maps[name] = one
    return {"maps": maps}


def _average(pairs: Sequence[tuple[str, float]]) -> dict[str, Any] | None:
    """Return the mean over patients, with a percentile interval over draws of patients; one patient has none."""
    by_patient: dict[str, list[float]] = {}
    for patient, value in pairs:
        by_patient.setdefault(patient, []).append(value)
    if not by_patient:
        return None
    means = np.array([np.mean(values) for values in by_patient.values()])
    if len(means) < 2:
        return {"value": float(means[0]), "interval": None, "n": 1}
    rng = np.random.default_rng(0)
    draws = means[rng.integers(0, len(means), (_N_DRAWS, len(means)))].mean(axis=1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return {"value": float(means.mean()), "interval": [float(low), float(high)], "n": len(means)}


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
