"""Pictures of attention on the slides of a run or a prediction."""

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lamella.cohort import Cohort, CohortSlide, find_missing
from lamella.errors import BagError, LamellaError, OutputError
from lamella.features.failures import Failure
from lamella.files import refuse_links
from lamella.mil import SlidePrediction
from lamella.progress import Progress
from lamella.reports.draw.heatmap import locate_tiles
from lamella.reports.draw.overlay import OverlayStyle
from lamella.reports.draw.slides import SlideCaption, draw_slide, is_drawn
from lamella.runs.attention import load_attention
from lamella.runs.folder import RunFolder
from lamella.slide import hash_quickly, open_slide


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


@dataclasses.dataclass(frozen=True, slots=True)
class ClassNames:
    """Names of the classes, in the order of the logits, and the one that is scored."""

    names: tuple[str, ...]
    positive: str | None


def list_drawable(predictions: Sequence[SlidePrediction], folder: RunFolder, cohort: Cohort) -> list[SlidePrediction]:
    """Return predictions from bags whose slides can be drawn: the file is there, and the bag said where tiles lie."""
    missing = {slide.slide_id for slide in find_missing(cohort)}
    return [
        prediction
        for prediction in predictions
        if prediction.slide_id not in missing and (folder.attention / f"{prediction.slide_id}.h5").exists()
    ]


def draw_heatmaps(
    predictions: Sequence[SlidePrediction], folder: RunFolder, cohort: Cohort, classes: ClassNames, progress: Progress
) -> list[Failure]:
    """Draw the pictures of each slide that is not drawn yet; list those that cannot be."""
    slides = {slide.slide_id: slide for slide in cohort.slides}
    failures = []
    with progress.stage("draw heatmaps", len(predictions), "slides") as stage, ThreadPoolExecutor(2) as pool:
        drawing = {
            prediction.slide_id: pool.submit(
                _draw_one, slides[prediction.slide_id], folder, _describe(prediction, classes)
            )
            for prediction in predictions
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


def _describe(prediction: SlidePrediction, classes: ClassNames) -> str:
    """Return what was predicted, and the label where there is one, in words."""
    names, positive = classes.names, classes.positive
    index = names.index(positive) if positive in names else int(prediction.probabilities.argmax())
    said = f"{names[index]} {prediction.probabilities[index]:.2f}"
    return said if prediction.label is None else f"{said}   (label: {prediction.label})"
