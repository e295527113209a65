"""The whole pipeline in two functions: run a cohort, predict new slides. Each ends with pictures.

`run` and `predict` do it with few words; `run_cohort` and `predict_slides` take every setting.
"""

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from lamella.cohort import Cohort, CohortSlide, gather_slides, load_cohort
from lamella.encoders import DEFAULT_ENCODER, EncoderSpec
from lamella.encoders.trust import trusting
from lamella.errors import BagError, LamellaError, OutputError
from lamella.explain.cam import map_run
from lamella.explain.cam_record import CamRecord
from lamella.exports.external import ExternalArms, predict_external
from lamella.exports.open import open_predictor
from lamella.features.failures import Failure
from lamella.features.plan import CutSettings
from lamella.features.settings import ExtractSettings
from lamella.files import refuse_links
from lamella.mil.settings import TrainSettings
from lamella.progress import Progress, SilentProgress
from lamella.renaming import hide_names, rename_cohort, rename_outlines, save_public_failures
from lamella.reports.cam import draw_cam
from lamella.reports.heatmap import SlideAttention
from lamella.reports.overlay import OverlayStyle
from lamella.reports.page import write_page
from lamella.reports.slides import SlideCaption, draw_slide, is_drawn
from lamella.runs.attention import AttentionRecord, load_attention
from lamella.runs.execute import StudyResult, run_study
from lamella.runs.folder import RunFolder
from lamella.runs.predict import FinishedRun, open_run, predict_cohort
from lamella.runs.predictor import Predictor
from lamella.runs.rounds import RoundPrediction
from lamella.runs.settings import CamSettings, RunSettings
from lamella.slide import Slide, hash_quickly, list_slides, open_slide
from lamella.tiles import TileSpec


def run(
    cohort: Cohort | Path | str,
    out: Path | str,
    *,
    encoder: str = DEFAULT_ENCODER,
    tile_px: int = 512,
    mpp: float = 0.5,
    stride_px: int | None = None,
    head: str = "attention",
) -> StudyResult:
    """Run a cohort with few words: `run_cohort` with everything that is not named left at its default.

    Args:
        cohort: Labelled slides, or their table (CSV or Parquet).
        out: The run folder; `index.html` in it is the page.
        encoder: As `find_encoder` takes it; its weights must be on this machine.
        tile_px: Side of a tile, in pixels at `mpp`.
        mpp: Resolution the encoder sees, in um per pixel.
        stride_px: Distance between neighbouring tiles, in pixels at `mpp`; None is `tile_px`.
        head: How tiles are pooled: attention, ilse, gated, mean or max.

    Raises:
        LamellaError: Whatever cannot be done, in one line.
    """
    if not isinstance(cohort, Cohort):
        cohort = load_cohort(cohort)
    cut = CutSettings(spec=TileSpec(tile_px=tile_px, mpp=mpp, stride_px=stride_px))
    extract = ExtractSettings(cut=cut, encoders=(EncoderSpec(name=encoder),))
    with trusting(encoder):  # it was typed here
        return run_cohort(cohort, RunSettings(extract=extract, train=TrainSettings(head=head)), Path(out))


def predict(
    model: Path | str,
    slides: Sequence[Path | str] | Path | str,
    out: Path | str,
    *,
    trust: Sequence[Path | str] = (),
) -> Sequence[RoundPrediction]:
    """Predict new slides with few words: `predict_slides` on files, or on one table of them.

    Args:
        model: Folder of a finished run, or of an exported model.
        slides: Slide files, or one table (CSV or Parquet), labelled or not.
        out: Where predictions and heatmaps go; slides that cannot be done are listed there in `failures.csv`.
        trust: Your own `FILE.py`, where the run's encoder is built by it: code that a folder names is never run.

    Raises:
        LamellaError: Whatever cannot be done, in one line.
    """
    files = [slides] if isinstance(slides, Path | str) else slides
    cohort = gather_slides(list_slides([Path(file) for file in files]))
    return predict_slides(Path(model), cohort, Path(out), trust=trust)[0]


def run_cohort(
    cohort: Cohort,
    settings: RunSettings,
    out: Path,
    *,
    pseudonyms: bool = False,
    progress: Progress | None = None,
) -> StudyResult:
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
    result = run_study(cohort, settings, out, progress=progress)
    classes = _Classes(cohort.classes, cohort.positive)
    undrawn = _draw_heatmaps(result.predictions[: settings.n_heatmaps], result.folder, cohort, classes, progress)
    failures = (*result.failures, *undrawn)
    if settings.cam is not None:
        drawn = [found.slide.slide_id for found in result.predictions[: settings.n_heatmaps]]
        failures = (*failures, *map_classes(out, settings.cam, slide_ids=drawn, progress=progress)[1])
    if pseudonyms:
        failures = hide_names(failures, cohort)
    save_public_failures(failures, cohort, result.folder.failures)
    write_page(out)
    return dataclasses.replace(result, failures=failures)


def predict_slides(
    model: Path | FinishedRun | Predictor,
    cohort: Cohort,
    out: Path,
    *,
    prevalence: float | None = None,
    trust: Sequence[Path | str] = (),
    progress: Progress | None = None,
) -> tuple[Sequence[RoundPrediction], tuple[Failure, ...]]:
    """Predict new slides with a finished run or an exported model, with heatmaps; with labels, measure it too.

    Args:
        model: Folder of a finished run or an export, or what `open_run` or `open_predictor` returned.
        cohort: The slides, labelled or not.
        out: Where to write.
        prevalence: With labels: where predictive values and net benefit are wanted besides.
        trust: Your own `FILE.py`, where the run's encoder is built by it.
        progress: Where to report to.

    Raises:
        LamellaError: Whatever cannot be done, in one line.
    """
    progress = progress or SilentProgress()
    with trusting(*trust):
        opened = model if isinstance(model, FinishedRun | Predictor) else open_predictor(Path(model))
        predictions, failures = predict_cohort(opened, cohort, Path(out), prevalence=prevalence, progress=progress)
    folder = RunFolder(Path(out))
    classes = _Classes(opened.classes, opened.positive)
    failures = (*failures, *_draw_heatmaps(predictions, folder, cohort, classes, progress))
    save_public_failures(failures, cohort, folder.failures)
    if predictions:
        write_page(Path(out))
    return predictions, failures


def predict_together(
    arms: ExternalArms, cohort: Cohort, out: Path, *, trust: Sequence[Path | str] = (), progress: Progress | None = None
) -> tuple[Sequence[RoundPrediction], tuple[Failure, ...], dict[str, Any] | None]:
    """Predict new slides by several models; with labels, say whether what was recommended holds there.

    Args:
        arms: Of `open_study_arms` or `open_beside`.
        cohort: The slides, labelled or not.
        out: Where to write; heatmaps are those of the arm that was recommended.
        trust: Your own `FILE.py`, where an encoder is built by it.
        progress: Where to report to.

    Returns:
        What that arm says of each slide, the slides that could not be done, and what `external.json` holds.

    Raises:
        LamellaError: Whatever cannot be done, in one line.
    """
    progress = progress or SilentProgress()
    with trusting(*trust):
        predictions, failures, found = predict_external(arms, cohort, Path(out), progress=progress)
    folder, shown = RunFolder(Path(out)), arms.predictor()
    classes = _Classes(shown.classes, shown.positive)
    failures = (*failures, *_draw_heatmaps(predictions, folder, cohort, classes, progress))
    save_public_failures(failures, cohort, folder.failures)
    if predictions:
        write_page(Path(out))
    return predictions, failures, found


def _rename_regions(settings: RunSettings, cohort: Cohort, renamed: Cohort, out: Path) -> RunSettings:
    """Return settings whose folders of regions name their files by pseudonym."""
    cut = settings.extract.cut
    cut = dataclasses.replace(
        cut,
        include=rename_outlines(cut.include, cohort, renamed, out, kind="include"),
        exclude=rename_outlines(cut.exclude, cohort, renamed, out, kind="exclude"),
    )
    return dataclasses.replace(settings, extract=dataclasses.replace(settings.extract, cut=cut))


def draw_heatmap(
    slide_path: Path, attention_path: Path, out: Path, *, slide_mpp: float | None = None, style: OverlayStyle
) -> None:
    """Draw the attention of one slide from the numbers that a run or a prediction kept.

    Args:
        slide_path: The slide.
        attention_path: `DIR/attention/<slide_id>.h5`.
        out: Folder for the pictures.
        slide_mpp: Resolution of level 0, um per pixel, where the file does not state it.
        style: Colours, opacity, measure, size.

    Raises:
        BagError: If the attention cannot be read, or is of a slide of another size.
        OutputError: If a link in `out` leads out of it.
        SlideError: If the slide cannot be read.
    """
    refuse_links(out)
    record = load_attention(attention_path)
    with open_slide(slide_path, slide_mpp=slide_mpp) as slide:
        if record.slide_size is not None and slide.size != record.slide_size:
            raise BagError(
                f"'{attention_path.name}' is of a slide of {record.slide_size[0]} x {record.slide_size[1]} px but "
                f"'{slide_path.name}' has {slide.size[0]} x {slide.size[1]}. Name the slide it was made from."
            )
        if not record.is_of(hash_quickly(slide_path)):
            raise BagError(
                f"'{attention_path.name}' is of another slide, of the same size as '{slide_path.name}'. Name the "
                "slide it was made from."
            )
        caption = SlideCaption(title=record.slide_id, subtitle="", key="")
        tiles, mpp = locate_tiles(record, slide)
        draw_slide(slide, tiles, out, caption, tile_px=record.tile_px, mpp=mpp, style=style)


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
    root = home.cam_of(settings.arm)
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


@dataclasses.dataclass(frozen=True, slots=True)
class _Classes:
    """Names of the classes, in the order of the logits, and the one that is scored."""

    names: tuple[str, ...]
    positive: str | None


def _draw_heatmaps(
    predictions: Sequence[RoundPrediction], folder: RunFolder, cohort: Cohort, classes: _Classes, progress: Progress
) -> list[Failure]:
    """Draw the pictures of each slide that is not drawn yet; list those that cannot be."""
    slides = {slide.slide_id: slide for slide in cohort.slides}
    failures = []
    with progress.stage("draw heatmaps", len(predictions), "slides") as stage, ThreadPoolExecutor(2) as pool:
        drawing = {
            found.slide.slide_id: pool.submit(
                _draw_one, slides[found.slide.slide_id], folder, _describe(found, classes)
            )
            for found in predictions
        }
        try:
            for slide_id, future in drawing.items():
                try:
                    future.result()
                except OutputError:
                    raise  # it would be said of every slide
                except LamellaError as error:
                    failures.append(Failure(slide_id, "heatmap", str(error)))
                stage.advance()
        finally:
            pool.shutdown(cancel_futures=True)
    return failures


def _draw_one(item: CohortSlide, folder: RunFolder, subtitle: str) -> None:
    record = load_attention(folder.attention / f"{item.slide_id}.h5")
    caption = SlideCaption(title=item.slide_id, subtitle=subtitle, key=record.key)
    target = folder.heatmaps / item.slide_id
    if is_drawn(target, caption):
        return
    with open_slide(item.path, slide_mpp=item.slide_mpp, image=item.slide_image) as slide:
        tiles, mpp = locate_tiles(record, slide)
        draw_slide(slide, tiles, target, caption, tile_px=record.tile_px, mpp=mpp)


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
    )
    return tiles, mpp


def _describe(found: RoundPrediction, classes: _Classes) -> str:
    """Return what was predicted, and the label where there is one, in words."""
    names, positive = classes.names, classes.positive
    index = names.index(positive) if positive in names else int(found.probabilities.argmax())
    said = f"{names[index]} {found.probabilities[index]:.2f}"
    return said if found.slide.label is None else f"{said}   (label: {found.slide.label})"
