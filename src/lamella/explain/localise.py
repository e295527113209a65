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

import numpy as np
from numpy.typing import NDArray

from lamella.analysis.localise import APART, Detections, rank_values, score_froc
from lamella.cohort import Cohort, CohortSlide, list_rounds
from lamella.defaults import CAM_ARM, LOCALISED_TILES, SMALLEST_UM
from lamella.encoders.trust import trusting
from lamella.errors import CohortError, LamellaError, OutputError, SettingsError
from lamella.explain.cam import load_paths
from lamella.explain.localise_scene import SlideScores, find_detections, list_maps, measure_map, set_scene
from lamella.explain.localise_sources import control_source, refuse_seen, run_source
from lamella.explain.outlines import LesionFolder
from lamella.explain.records import Localisation, LocalisationSettings, MapMeasures, PatientMean
from lamella.features.failures import Failure
from lamella.files import write_table
from lamella.progress import Progress, SilentProgress
from lamella.runs.given import refuse_given
from lamella.runs.predict import FinishedRun, find_run_encoder
from lamella.runs.settings import CamSettings, restore_extract_settings
from lamella.slide import open_slide
from lamella.words import name_some

_N_DRAWS = 2000
_COLUMNS = tuple(field.name for field in dataclasses.fields(SlideScores))
_MEASURES = _COLUMNS[3:]


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
    arm: str = CAM_ARM
    k: int = LOCALISED_TILES
    radius_um: float | None = None
    smallest_um: float = SMALLEST_UM
    controls: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be measured."""
        if self.k < 1 or (self.radius_um is not None and self.radius_um <= 0) or self.smallest_um < 0:
            raise SettingsError("k and the radius must be above 0 and the smallest lesion not below. Leave them out.")


def localise_run(
    run: FinishedRun,
    settings: LocaliseSettings,
    *,
    trust: Sequence[Path | str] = (),
    progress: Progress | None = None,
) -> tuple[Localisation, tuple[Failure, ...]]:
    """Measure where the maps of a run light up, on the slides that no model learned from, and write it down.

    Args:
        run: Of `open_run`.
        settings: What is measured.
        trust: Your own `FILE.py`, where the run's encoder is built by it.
        progress: Where to report to.

    Returns:
        What the maps reach, as `localisation.json` holds it, and the slides that could not be done.

    Raises:
        CohortError: If no tested slide has outlines, or nothing of them is left to measure.
        SettingsError: If they are of several classes, and none is chosen.
        LeakageError: If the encoder has seen a slide that is to be measured on.
    """
    with trusting(*trust):
        return _localise(run, settings, progress or SilentProgress())


def _localise(
    run: FinishedRun, settings: LocaliseSettings, progress: Progress
) -> tuple[Localisation, tuple[Failure, ...]]:
    refuse_given(run.settings, run.folder.path, what="maps against outlines")
    cohort = load_paths(run.folder)
    extract = restore_extract_settings(run.settings, find_run_encoder(run))
    positive = run.positive or run.classes[-1]
    bags = extract.folder(run.folder.features)
    has_bag = [path.stem for path in bags.features.glob("*.h5")].__contains__
    lesions = LesionFolder(path=settings.lesions, classes=settings.classes, values=settings.values)
    chosen, notes = _choose(cohort, lesions, positive, has_bag)
    sources = [run_source(run, settings.cam, settings.arm, cohort, extract)]
    if settings.controls:
        sources += [
            control_source(run, settings.cam, cohort, extract, kind, progress)
            for kind in ("random weights", "permuted labels")
        ]
    refuse_seen(sources[0], [item.slide_id for item, _ in chosen], cohort)
    rows: list[SlideScores] = []
    detections: dict[str, list[Detections]] = {}
    failures: list[Failure] = []
    tiny: list[str] = []
    pooled: dict[str, list[tuple[NDArray[np.float64], NDArray[np.bool_]]]] = {}
    with progress.stage("localise", None, "tiles") as stage:
        for item, truth in chosen:
            try:
                with open_slide(item.path, slide_mpp=item.slide_mpp, image=item.slide_image) as slide:
                    mask = None if truth is None else lesions.load(truth, slide.size, slide.bounds_l0)
                    scene = set_scene(item, slide, mask, sources[0], extract, smallest_um=settings.smallest_um)
                    if truth is not None and not scene.mask.any():
                        tiny.append(item.slide_id)
                        continue
                    for name, map_ in list_maps(scene, sources, stage).items():
                        scores = measure_map(scene, name, map_, settings.k, pooled)
                        rows += [] if scores is None else [scores]
                        detections.setdefault(name, []).append(find_detections(scene, map_, settings.radius_um))
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
    maps = {name: _summarise(name, rows, detections[name], pooled[name]) for name in pooled}
    if all(measures.froc is None for measures in maps.values()):
        notes.append(
            f"no lesion is {settings.smallest_um:g} um long or longer, so there is none that FROC would count; a lower "
            "--smallest-um counts smaller ones."
        )
    name = "localisation" if settings.arm == "frozen" else f"localisation-{settings.arm}"
    content = Localisation(
        maps=maps,
        settings=LocalisationSettings(
            k=settings.k,
            radius_um=settings.radius_um or APART * extract.cut.spec.tile_px * extract.cut.spec.mpp,
            smallest_um=settings.smallest_um,
            arm=settings.arm,
            positive=positive,
            lesion_classes=settings.classes,
            lesion_values=settings.values,
        ),
        notes=tuple(notes),
    )
    content.save(run.folder.path / f"{name}.json")
    write_table(run.folder.path / f"{name}.csv", _COLUMNS, map(dataclasses.asdict, rows))
    return content, tuple(failures)


def _choose(
    cohort: Cohort, lesions: LesionFolder, positive: str, has_bag: Callable[[str], bool]
) -> tuple[list[tuple[CohortSlide, Path | None]], list[str]]:
    """Return the tested slides with their outlines (None: without a lesion), and what to tell of those that lack them.

    Slides that the same models test stand together: each encoder is opened once.
    """
    slides = {item.slide_id: item for item in cohort.slides}
    tested = [slides[slide_id] for round_ in list_rounds(cohort) for slide_id in round_.test]
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


def _summarise(
    name: str,
    rows: Sequence[SlideScores],
    detections: Sequence[Detections],
    pooled: Sequence[tuple[NDArray[np.float64], NDArray[np.bool_]]],
) -> MapMeasures:
    """Average what a map reaches over slides, then over patients; intervals by drawing patients."""
    rows = [row for row in rows if row.map == name]
    values, inside = (np.concatenate(parts) for parts in zip(*pooled, strict=True))
    ranking = rank_values(values, inside)
    return MapMeasures(
        n_slides=len(rows),
        n_patients=len({row.patient_id for row in rows}),
        **{measure: _average([(row.patient_id, getattr(row, measure)) for row in rows]) for measure in _MEASURES},
        pooled_tile_auc=None if ranking is None else ranking.auc,
        froc=score_froc(detections),
    )


def _average(pairs: Sequence[tuple[str, float | None]]) -> PatientMean | None:
    """Return the mean over patients, with a percentile interval over draws of patients; one patient has none."""
    by_patient: dict[str, list[float]] = {}
    for patient, value in pairs:
        if value is not None:
            by_patient.setdefault(patient, []).append(value)
    if not by_patient:
        return None
    means = np.array([np.mean(values) for values in by_patient.values()])
    if len(means) < 2:
        return PatientMean(value=float(means[0]), interval=None, n=1)
    rng = np.random.default_rng(0)
    draws = means[rng.integers(0, len(means), (_N_DRAWS, len(means)))].mean(axis=1)
    low, high = np.quantile(draws, [0.025, 0.975])
    return PatientMean(value=float(means.mean()), interval=(float(low), float(high)), n=len(means))
