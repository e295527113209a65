"""Tissue and tiles of many slides, without encoding: pictures, outlines, ledger, coordinates."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2

from lamella.cohort import CohortSlide
from lamella.cores import count_threads
from lamella.errors import BagError, LamellaError, OutputError, TileError
from lamella.features.bag import PATCH_KEYS, BagFolder, find_differences, save_patches
from lamella.features.failures import Failure, name_stage, save_failures
from lamella.features.plan import CutSettings, find_slide_tissue, plan_slide, refuse_empty, survey_regions
from lamella.features.said import join_slide_notes
from lamella.files import refuse_links, write_bytes, write_table
from lamella.progress import Progress, SilentProgress
from lamella.slide import open_slide
from lamella.slide.child import try_slide
from lamella.tiles import place_tiles
from lamella.tissue import draw_tissue, save_tissue_geojson

Rows = list[dict[str, str | int | float]]

_PICTURE_PX = 1600


def save_tissue(
    slides: Sequence[CohortSlide], settings: CutSettings, out: Path, *, progress: Progress | None = None
) -> tuple[Rows, tuple[Failure, ...]]:
    """Write each slide's overlay (PNG) and outlines (GeoJSON), and one `ledger.csv`.

    Returns:
        The ledger (`slide_id, step, kept_um2, removed_um2, n_tiles`), and the slides that could not be done.

    Raises:
        OutputError: If `out` cannot be written.
        SettingsError: If regions fit no slide, or it is not clear which of them count.
    """
    progress = progress or SilentProgress()
    for note in survey_regions(slides, settings):
        progress.say(note)
    notes: dict[str, tuple[str, ...]] = {}

    def save_slide(item: CohortSlide) -> Rows:
        try_slide(item.path, slide_mpp=item.slide_mpp, image=item.slide_image)
        with open_slide(item.path, slide_mpp=item.slide_mpp, image=item.slide_image) as slide:
            tissue, _ = find_slide_tissue(slide, item.slide_id, settings)
            notes[item.slide_id] = (*slide.notes, *tissue.notes)
            try:
                n_tiles = len(
                    place_tiles(
                        tissue.mask,
                        settings.spec,
                        slide_size=slide.size,
                        slide_mpp=slide.mpp,
                        bounds_l0=slide.bounds_l0,
                    )
                )
            except TileError:  # a tile larger than the slide: its tissue can be looked at all the same
                n_tiles = 0
            reduced = max(1.0, max(slide.size) / _PICTURE_PX)
            overview = slide.read_overview((round(slide.size[0] / reduced), round(slide.size[1] / reduced)))
        picture = cv2.cvtColor(draw_tissue(overview, tissue), cv2.COLOR_RGB2BGR)
        write_bytes(out / f"{item.slide_id}.png", cv2.imencode(".png", picture)[1].tobytes())
        save_tissue_geojson(tissue, out / f"{item.slide_id}.geojson", bounds_l0=slide.bounds_l0)
        return [
            {
                "slide_id": item.slide_id,
                "step": step.step,
                "kept_um2": round(step.kept_um2, 1),
                "removed_um2": round(step.removed_um2, 1),
                "n_tiles": n_tiles,
            }
            for step in tissue.ledger
        ]

    rows, failures = _each(slides, save_slide, "find tissue", progress)
    _say_notes(slides, notes, progress)
    write_table(out / "ledger.csv", ["slide_id", "step", "kept_um2", "removed_um2", "n_tiles"], rows)
    save_failures(failures, out / "failures.csv")
    return rows, failures


def save_tiles(
    slides: Sequence[CohortSlide], settings: CutSettings, out: Path, *, progress: Progress | None = None
) -> tuple[Rows, tuple[Failure, ...]]:
    """Write where the tiles of each slide lie, as the extraction does.

    Returns:
        A row a slide (`slide_id, tiles, tissue_mm2, mpp, level, upsample`), and the slides that could not be done.

    Raises:
        OutputError: If `out` cannot be written.
        SettingsError: If regions fit no slide, or it is not clear which of them count.
    """
    progress = progress or SilentProgress()
    refuse_links(out)
    for note in survey_regions(slides, settings):
        progress.say(note)
    notes: dict[str, tuple[str, ...]] = {}

    def save_slide(item: CohortSlide) -> Rows:
        plan = plan_slide(item, settings)
        with plan.slide:
            notes[item.slide_id] = (*plan.slide.notes, *plan.tissue.notes)
            refuse_empty(item, plan)
        path = BagFolder(out, settings.spec, "").patches_path(item.slide_id)
        differences = find_differences(path, plan.provenance, PATCH_KEYS) if path.exists() else ()
        if differences:
            raise BagError(f"'{path.name}' was made otherwise: {'; '.join(differences)}. Choose another --out.")
        save_patches(path, plan.corners_l0, plan.provenance)
        return [
            {
                "slide_id": item.slide_id,
                "tiles": len(plan.corners_l0),
                "tissue_mm2": round(plan.tissue.tissue_um2 / 1e6, 4),
                "mpp": plan.provenance["slide_mpp_x"],
                "level": plan.level.level,
                "upsample": round(plan.level.upsample, 4),
            }
        ]

    rows, failures = _each(slides, save_slide, "place tiles", progress)
    _say_notes(slides, notes, progress)
    save_failures(failures, out / "failures.csv")
    return rows, failures


def _say_notes(slides: Sequence[CohortSlide], notes: Mapping[str, Sequence[str]], progress: Progress) -> None:
    for note in join_slide_notes((item.slide_id, notes.get(item.slide_id, ())) for item in slides):
        progress.say(note)


def _each(
    slides: Sequence[CohortSlide], save_slide: Callable[[CohortSlide], Rows], name: str, progress: Progress
) -> tuple[Rows, tuple[Failure, ...]]:
    """Do one thing to each slide, in threads; go on past those that cannot be done."""
    rows: Rows = []
    failures = []
    with progress.stage(name, len(slides), "slides") as stage, ThreadPoolExecutor(min(8, count_threads())) as pool:
        futures = [pool.submit(save_slide, item) for item in slides]
        try:
            for item, future in zip(slides, futures, strict=True):
                try:
                    rows += future.result()
                except OutputError:
                    raise  # it would be said of every slide
                except LamellaError as error:
                    failures.append(Failure(item.slide_id, name_stage(error), str(error)))
                stage.advance()
        finally:
            pool.shutdown(cancel_futures=True)
    return rows, tuple(failures)
