"""The demo: a cohort drawn by `lamella.samples`, and the quick study on it with really pretrained weights."""

from pathlib import Path

from lamella.cohort import load_cohort
from lamella.pipeline.study import compare_arms
from lamella.progress import Progress, SilentProgress
from lamella.samples import DEMO_MPP, DEMO_SLIDES, DEMO_STRIDE_PX, DEMO_TILE_PX, draw_cohort
from lamella.studies.design import StudyDesign
from lamella.studies.execute import Study
from lamella.studies.options import StudyOptions
from lamella.studies.presets import find_preset

DEMO_ARM = "efficientnet-lite0@4"


def design_demo() -> StudyDesign:
    """Return the quick preset on the demo's tiles, with one seed instead of two, for a laptop that is waited for."""
    quick = find_preset("quick")
    finetune = quick.finetune.model_dump() | {"n_seeds": 1}
    return quick.with_changes(tile_px=DEMO_TILE_PX, mpp=DEMO_MPP, stride_px=DEMO_STRIDE_PX, seeds=1, finetune=finetune)


def run_demo(out: Path, *, seed: int = 0, n_slides: int = DEMO_SLIDES, progress: Progress | None = None) -> Study:
    """Draw a cohort into `out/slides` and study it into `out/study`; what is finished is kept.

    Args:
        out: Folder for both.
        seed: Of the drawn cohort.
        n_slides: How many slides to draw.
        progress: Where to report to.

    Raises:
        WeightsError: If EfficientNet-Lite0's weights are not installed.
        OutputError: If `out` cannot be written.
    """
    progress = progress or SilentProgress()
    slides = Path(out) / "slides"
    table = slides / "cohort.csv"
    if not table.exists():  # written last, so where it is the slides are too
        table = draw_cohort(slides, n_slides=n_slides, seed=seed, progress=progress)
    options = StudyOptions(lesions=slides)
    return compare_arms(load_cohort(table), design_demo(), Path(out) / "study", options=options, progress=progress)
