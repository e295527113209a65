"""Run a cohort: from slides and labels to predictions, pictures and the page.

`run` does it with few words; `run_cohort` takes every setting.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from lamella.cohort import Cohort, load_cohort
from lamella.defaults import HEAD, UnitName
from lamella.encoders import DEFAULT_ENCODER, EncoderSpec
from lamella.encoders.trust import trusting
from lamella.errors import LamellaError, OutputError
from lamella.explain.cam import map_run
from lamella.explain.cam_record import CamRecord
from lamella.explain.tuned_blocks import compare_run
from lamella.features.failures import Failure
from lamella.features.own_tiles import choose_tiles
from lamella.features.plan import CutSettings
from lamella.features.settings import ExtractSettings
from lamella.files import refuse_links, remove
from lamella.mil import SlidePrediction
from lamella.mil.settings import TrainSettings
from lamella.pipeline.pictures import ClassNames, draw_heatmaps, list_drawable
from lamella.progress import Progress, SilentProgress
from lamella.renaming import hide_names, rename_cohort, rename_outlines, save_public_failures
from lamella.reports.draw.cam import draw_cam
from lamella.reports.page import write_page
from lamella.runs.bags import load_good_bags
from lamella.runs.execute import Run, execute_on_bags, execute_run
from lamella.runs.folder import RunFolder
from lamella.runs.predict import open_run
from lamella.runs.record import RunRecord
from lamella.runs.settings import CamSettings, RunSettings, TrainingSettings
from lamella.runs.units import name_slides
from lamella.slide import open_slide
from lamella.tiles import TileSpec


def run(
    cohort: Cohort | Path | str,
    out: Path | str,
    *,
    encoder: str = DEFAULT_ENCODER,
    tile_px: int | None = None,
    mpp: float | None = None,
    stride_px: int | None = None,
    head: str = HEAD,
) -> Run:
    """Run a cohort with few words: `run_cohort` with everything that is not named left at its default.

    Args:
        cohort: Labelled slides, or their table (CSV or Parquet).
        out: The run folder; `report.html` in it is the page.
        encoder: As `find_encoder` takes it; its weights must be on this machine.
        tile_px: Side of a tile, in pixels at `mpp`; None is what the encoder was made for, or 512.
        mpp: Resolution of tiles, in um per pixel; None is what the encoder was made for, or 0.5.
        stride_px: Distance between neighbouring tiles, in pixels at `mpp`; None is `tile_px`.
        head: How tiles are pooled, as `lamella train --head` takes it.

    Raises:
        LamellaError: Whatever cannot be done, in one line.
    """
    if not isinstance(cohort, Cohort):
        cohort = load_cohort(cohort)
    with trusting(encoder):  # it was typed here
        spec = EncoderSpec(name=encoder)
        tile_px, mpp = choose_tiles([spec], tile_px=tile_px, mpp=mpp)
        cut = CutSettings(spec=TileSpec(tile_px=tile_px, mpp=mpp, stride_px=stride_px))
        extract = ExtractSettings(cut=cut, encoders=(spec,))
        return run_cohort(cohort, RunSettings(extract=extract, train=TrainSettings(head=head)), Path(out))


def run_cohort(
    cohort: Cohort,
    settings: RunSettings,
    out: Path,
    *,
    pseudonyms: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Run a cohort from slides and labels to predictions, heatmaps and a page; what is finished is kept.

    Args:
        cohort: Labelled slides.
        settings: How.
        out: The run folder; `lamella.runs.folder` says what lies where.
        pseudonyms: Whether patients and slides go by salted hashes from the first step on; the key and everything
            that holds paths stay under `local/`.
        progress: Where to report to.

    Raises:
        LamellaError: Whatever cannot be done, in one line.
    """
    progress = progress or SilentProgress()
    out = Path(out)
    refuse_links(out)
    if pseudonyms:
        renamed = rename_cohort(cohort, out)
        settings = _rename_regions(settings, cohort, renamed, out)
        cohort = renamed
    result = execute_run(cohort, settings, out, progress=progress)
    remove(result.folder.cka)  # an earlier run's
    if settings.cka and settings.stage_two is not None:
        notes = compare_run(result, settings.extract, progress=progress)
        result = dataclasses.replace(result, notes=(*result.notes, *notes))
    classes = ClassNames(cohort.classes, cohort.positive)
    drawable = _list_attended(result, settings.unit)
    undrawn = draw_heatmaps(drawable[: settings.n_heatmaps], result.folder, cohort, classes, progress)
    failures = (*result.failures, *undrawn)
    if settings.cam is not None:
        drawn = [prediction.slide_id for prediction in drawable[: settings.n_heatmaps]]
        failures = (*failures, *map_classes(out, settings.cam, slide_ids=drawn, progress=progress)[1])
    if pseudonyms:
        failures = hide_names(failures, cohort)
    save_public_failures(failures, cohort, result.folder.failures)
    write_page(out)
    return dataclasses.replace(result, failures=failures)


def run_bags(
    cohort: Cohort | Path | str,
    features: Path | str,
    settings: TrainingSettings,
    out: Path | str,
    *,
    n_heatmaps: int | None = None,
    progress: Progress | None = None,
) -> Run:
    """Run a cohort on bags that are there, of any tool: train, predict, measure, and end with a page.

    Slides are opened for pictures alone: where the file is there, and the bag says where its tiles lie.

    Args:
        cohort: Labelled slides, whose files need not be there; or their table.
        features: Folder of bags by slide id, of any tool that `lamella inspect` knows.
        settings: How.
        out: The run folder; `report.html` in it is the page.
        n_heatmaps: How many slides get heatmaps; None is all.
        progress: Where to report to.

    Raises:
        LamellaError: Whatever cannot be done, in one line.
    """
    progress = progress or SilentProgress()
    if not isinstance(cohort, Cohort):
        cohort = load_cohort(cohort)
    refuse_links(Path(out))
    bags, bad = load_good_bags(Path(features), [slide.slide_id for slide in cohort.slides])
    if bad:
        kept = tuple(slide for slide in cohort.slides if slide.slide_id not in bad)
        said = f"{len(bad)} of {len(cohort.slides)} slides have no bag to learn from; failures.csv says why."
        cohort = dataclasses.replace(cohort, slides=kept, notes=(*cohort.notes, said))
    result = execute_on_bags(cohort, bags, settings, Path(out), progress=progress)
    by_slide = name_slides(result.predictions, result.cohort, settings.unit)
    shown = list_drawable(by_slide, result.folder, result.cohort)
    if not shown and n_heatmaps != 0:
        said = "No slide is drawn: the files are not there, or the bags do not say where their tiles lie."
        result = dataclasses.replace(result, notes=(*result.notes, said))
        record = RunRecord.load(result.folder.settings)
        record.model_copy(update={"notes": result.notes}).save(result.folder.settings)
    classes = ClassNames(cohort.classes, cohort.positive)
    undrawn = draw_heatmaps(shown[:n_heatmaps], result.folder, result.cohort, classes, progress)
    failures = (*(Failure(name, "bags", reason) for name, reason in bad.items()), *undrawn)
    save_public_failures(failures, result.cohort, result.folder.failures)
    write_page(result.folder.path)
    return dataclasses.replace(result, failures=failures)


def _list_attended(result: Run, unit: UnitName) -> list[SlidePrediction]:
    """List what was predicted of each slide on which it is known where a model looked."""
    by_slide = name_slides(result.predictions, result.cohort, unit)
    return [named for named in by_slide if (result.folder.attention / f"{named.slide_id}.h5").exists()]


def _rename_regions(settings: RunSettings, cohort: Cohort, renamed: Cohort, out: Path) -> RunSettings:
    """Return settings whose folders of regions name their files by pseudonym."""
    cut = settings.extract.cut
    cut = dataclasses.replace(
        cut,
        include=rename_outlines(cut.include, cohort, renamed, out, kind="include"),
        exclude=rename_outlines(cut.exclude, cohort, renamed, out, kind="exclude"),
    )
    return dataclasses.replace(settings, extract=dataclasses.replace(settings.extract, cut=cut))


def map_classes(
    run: Path,
    settings: CamSettings,
    *,
    slide_ids: Sequence[str] | None = None,
    predicted: Path | None = None,
    trust: Sequence[Path | str] = (),
    progress: Progress | None = None,
) -> tuple[list[CamRecord], tuple[Failure, ...]]:
    """Compute and draw class activation maps of slides of a run; what is finished is kept.

    Args:
        run: Folder of a finished run.
        settings: Which maps.
        slide_ids: Which slides; None is all that were tested.
        predicted: Folder of a `lamella predict` by that run, to map its slides; None is the run's own.
        trust: Your own `FILE.py`, where the run's encoder is built by it.
        progress: Where to report to.

    Returns:
        What each map says, and the slides that could not be done.

    Raises:
        LamellaError: Whatever cannot be done, in one line.
    """
    progress = progress or SilentProgress()
    finished = open_run(run)
    with trusting(*trust):
        records, failures = map_run(finished, settings, slide_ids=slide_ids, predicted=predicted, progress=progress)
    home = RunFolder(predicted) if predicted is not None else finished.folder
    root = home.cam_of(settings.finetuned)
    slides = {slide.slide_id: slide for slide in load_cohort(home.local / "cohort.csv", labelled=False).slides}
    with progress.stage("draw maps", len(records), "slides") as stage:
        for record in records:
            item = slides[record.slide_id]
            said = f"{record.target} over {record.others}: {record.contrast:+.2f} logits"
            try:
                with open_slide(item.path, slide_mpp=item.slide_mpp, image=item.slide_image) as slide:
                    draw_cam(slide, record, root / record.slide_id, title=record.slide_id, subtitle=said)
            except OutputError:
                raise
            except LamellaError as error:
                failures = (*failures, Failure(record.slide_id, "cam", str(error)))
            stage.advance()
    return records, failures
