"""Cohort: a folder of drawn slides with its table, as a laboratory would hand it over."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lamella.errors import SettingsError
from lamella.files import write_table
from lamella.progress import Progress, SilentProgress
from lamella.samples.draw import draw_slide
from lamella.samples.outlines import save_outlines
from lamella.samples.recipe import DEMO_MPP, DEMO_SIZE, DEMO_SLIDES, SampleSlide, SlideRecipe

COLUMNS = ("slide", "slide_id", "patient_id", "label", "batch")

_LESION_SHARES = (0.020, 0.032)
_BATCHES = ("A", "B", "C")
_PEN_SHARE = 0.15
_SECOND_SLIDE_SHARE = 0.15


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortRow:
    """One slide of a cohort, before it is drawn."""

    slide_id: str
    patient_id: str
    batch: str
    recipe: SlideRecipe


def draw_cohort(
    folder: Path,
    *,
    n_slides: int = DEMO_SLIDES,
    seed: int = 0,
    size: tuple[int, int] = DEMO_SIZE,
    mpp: float = DEMO_MPP,
    progress: Progress | None = None,
) -> Path:
    """Draw a cohort, half of it with lesions, and return its table `cohort.csv`.

    Beside each slide with lesions lies `<slide_id>.geojson`, their outlines as QuPath reads them. Stain, batch, pen,
    tissue, glands and decoys are drawn alike for both labels: the lesions are the only difference.

    Args:
        folder: Where slides, outlines and table go.
        n_slides: Number of slides, at least 2; some patients have two.
        seed: The same seed draws the same cohort, bit for bit.
        size: `(width, height)` of a typical slide at level 0, in pixels; slides differ by about a tenth.
        mpp: Resolution of level 0, in um per pixel.
        progress: Where to report.

    Returns:
        The table, with columns slide, slide_id, patient_id, label, batch.

    Raises:
        SettingsError: If a cohort like that cannot be drawn.
        OutputError: If the folder cannot be written.
    """
    folder, progress = Path(folder), progress or SilentProgress()
    rows = plan_cohort(n_slides=n_slides, seed=seed, size=size, mpp=mpp)

    def draw(row: CohortRow) -> SampleSlide:
        slide = draw_slide(folder / f"{row.slide_id}.tiff", row.recipe)
        if slide.lesions:
            save_outlines(slide.lesions, folder / f"{row.slide_id}.geojson")
        return slide

    with (
        progress.stage("drawing slides", n_slides, "slide") as stage,
        ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
    ):
        futures = [pool.submit(draw, row) for row in rows]
        try:
            for future in futures:
                future.result()
                stage.advance()
        finally:
            for future in futures:
                future.cancel()
    table = folder / "cohort.csv"
    write_table(table, COLUMNS, _tabulate(rows))
    return table


def plan_cohort(*, n_slides: int, seed: int, size: tuple[int, int], mpp: float) -> tuple[CohortRow, ...]:
    """Return what `draw_cohort` would draw.

    Raises:
        SettingsError: If there are fewer than 2 slides.
    """
    if n_slides < 2:
        raise SettingsError(
            f"a cohort of {n_slides} slides is asked for and needs at least 2, one of each label. Ask for n_slides=2."
        )
    rng = np.random.default_rng([109, seed])
    patients = list(_assign_patients(rng, n_slides))
    rows = []
    for number, (patient, is_tumour, batch) in enumerate(patients):
        stretch = np.exp(rng.normal(size=2) * 0.06).clip(0.88, 1.14)
        slide_size = tuple(int(extent * factor) // 16 * 16 for extent, factor in zip(size, stretch, strict=True))
        recipe = SlideRecipe(
            seed=int(rng.integers(1 << 62)),
            size=(slide_size[0], slide_size[1]),
            mpp=mpp,
            lesion_share=float(rng.uniform(*_LESION_SHARES)) * is_tumour,
            batch=batch + 3 * (seed % 1000),
            pen=bool(rng.random() < _PEN_SHARE),
        )
        rows.append(
            CohortRow(
                slide_id=f"slide-{number:03d}",
                patient_id=f"patient-{patient:03d}",
                batch=_BATCHES[batch],
                recipe=recipe,
            )
        )
    return tuple(rows)


def _assign_patients(rng: np.random.Generator, n_slides: int) -> Iterator[tuple[int, int, int]]:
    """Yield patient, whether it has a tumour, and batch for each slide; labels and batches are balanced."""
    n_tumour = n_slides // 2
    labels = np.repeat([0, 1], [n_slides - n_tumour, n_tumour])
    batches = np.concatenate([np.arange(count) % 3 for count in (n_slides - n_tumour, n_tumour)])
    second = np.zeros(n_slides, dtype=bool)
    for label in (0, 1):
        for batch in range(3):
            rows = np.flatnonzero((labels == label) & (batches == batch))
            second[rows[1 : 1 + max(1, round(_SECOND_SLIDE_SHARE * len(rows)))]] = len(rows) > 1
    order = np.lexsort((np.arange(n_slides), batches, labels))
    patient_of = np.empty(n_slides, dtype=int)
    patient = -1
    for index, row in enumerate(order):
        # A second slide follows the first of the same label and batch in this order, and is the same patient's.
        if index == 0 or not second[row]:
            patient += 1
        patient_of[row] = patient
    shuffled = rng.permutation(patient + 1)
    for row in rng.permutation(n_slides):
        yield int(shuffled[patient_of[row]]), int(labels[row]), int(batches[row])


def _tabulate(rows: tuple[CohortRow, ...]) -> Iterator[dict[str, str]]:
    """Yield the rows of the table."""
    for row in rows:
        yield {
            "slide": f"{row.slide_id}.tiff",
            "slide_id": row.slide_id,
            "patient_id": row.patient_id,
            "label": row.recipe.label,
            "batch": row.batch,
        }
