"""Class activation maps of a run: where on a slide the contrast of a class comes from, cell by cell.

DIR/cam/<slide_id>/cam.json     the contrast and its parts, what was computed, how
DIR/cam/<slide_id>/cam.tiff     the map: pyramidal, float32, in register with the slide
DIR/cam/<slide_id>/tiles.npy    what each tile adds in all, `(N,)` float64
"""

from collections.abc import Sequence
from pathlib import Path

from lamella.cohort import Cohort, CohortSlide, load_cohort
from lamella.errors import CohortError, LamellaError, OutputError
from lamella.explain.cam_mapper import CamMapper
from lamella.explain.cam_parts import PartFinder
from lamella.explain.cam_record import CamRecord
from lamella.features.failures import Failure
from lamella.files import refuse_links
from lamella.progress import Progress, SilentProgress
from lamella.runs.folder import RunFolder
from lamella.runs.given import refuse_given
from lamella.runs.predict import FinishedRun, find_run_encoder
from lamella.runs.settings import CamSettings, restore_extract_settings
from lamella.temporaries import sweep_temporaries


def map_run(
    run: FinishedRun,
    settings: CamSettings,
    *,
    slide_ids: Sequence[str] | None = None,
    predicted: Path | None = None,
    progress: Progress | None = None,
) -> tuple[list[CamRecord], tuple[Failure, ...]]:
    """Compute the maps of slides of a run, each by the models that did not learn from it; finished maps are kept.

    Args:
        run: Of `open_run`.
        settings: Which maps.
        slide_ids: Which slides; None is all that were tested.
        predicted: Folder of a `lamella predict` by this run, to map its slides by all models; None is the run's own.
        progress: Where to report to.

    Returns:
        The maps' records, and the slides that could not be done.

    Raises:
        CohortError: If a slide is none of the run's.
        EncoderError: If the encoder's embedding is no mean of a map and the method is `exact`.
        ModelError: If the run has no such arm.
    """
    progress = progress or SilentProgress()
    refuse_given(run.settings, run.folder.path, what="class activation maps")
    folder = run.folder if predicted is None else RunFolder(predicted)
    cohort = load_paths(folder, labelled=predicted is None)
    finder = PartFinder(run, settings, cohort, predicted)
    wanted = _choose(cohort, slide_ids, finder)
    root = folder.cam_of(settings.finetuned)
    refuse_links(folder.path)
    sweep_temporaries(root)
    extract = restore_extract_settings(run.settings, find_run_encoder(run))
    mapper = CamMapper(run.classes, settings, run.positive, extract)
    records: dict[str, CamRecord] = {}
    failures = []
    with progress.stage("map classes", None, "tiles") as stage:
        for item in sorted(wanted, key=lambda item: finder.find_fold(item.slide_id)):  # each encoder is opened once
            try:
                parts = finder.find(item.slide_id)
                bags = [part.open_bag(item.slide_id) for part in parts]
                records[item.slide_id] = mapper.map_slide(item, parts, bags, root / item.slide_id, stage)
            except OutputError:
                raise
            except (LamellaError, OSError) as error:
                failures.append(Failure(item.slide_id, "cam", str(error)))
    return [records[item.slide_id] for item in wanted if item.slide_id in records], tuple(failures)


def load_paths(folder: RunFolder, *, labelled: bool = True) -> Cohort:
    """Return the cohort of a run with its slides' paths.

    Raises:
        CohortError: If the folder came without them.
    """
    path = folder.local / "cohort.csv"
    if not path.exists():
        raise CohortError(
            f"'{folder.path}' does not say where its slides lie (local/cohort.csv). Use the folder on the machine that "
            "made it, or run it again."
        )
    return load_cohort(path, labelled=labelled)


def _choose(cohort: Cohort, slide_ids: Sequence[str] | None, finder: PartFinder) -> list[CohortSlide]:
    by_id = {slide.slide_id: slide for slide in cohort.slides}
    if slide_ids is None:
        return [slide for slide in cohort.slides if finder.is_tested(slide.slide_id) and finder.has_bag(slide.slide_id)]
    for slide_id in slide_ids:
        if slide_id not in by_id:
            raise CohortError(f"no slide of the run is called '{slide_id}'. Name one that its cohort.csv lists.")
        if not finder.is_tested(slide_id):
            raise CohortError(
                f"slide '{slide_id}' was never tested, so every model has learned from it. Name tested slides."
            )
    return [by_id[slide_id] for slide_id in slide_ids]
