"""The demo: a cohort drawn by `lamella.samples`, run through the whole pipeline with really pretrained weights."""

from pathlib import Path

from lamella.cohort import load_cohort
from lamella.encoders import EncoderSpec
from lamella.features.extract import ExtractSettings
from lamella.features.plan import CutSettings
from lamella.pipeline import run_cohort
from lamella.progress import Progress, SilentProgress
from lamella.samples import DEMO_MPP, DEMO_SLIDES, DEMO_STRIDE_PX, DEMO_TILE_PX, draw_cohort
from lamella.study.run import StudyResult
from lamella.study.settings import RunSettings
from lamella.tiles import TileSpec

DEMO_ENCODER = "efficientnet-lite0"


def run_demo(out: Path, *, seed: int = 0, n_slides: int = DEMO_SLIDES, progress: Progress | None = None) -> StudyResult:
    """Draw a cohort into `out/slides` and run it into `out/run`; what is finished is kept.

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
    table = Path(out) / "slides" / "cohort.csv"
    if not table.exists():  # written last, so where it is the slides are too
        table = draw_cohort(table.parent, n_slides=n_slides, seed=seed, progress=progress)
    spec = TileSpec(tile_px=DEMO_TILE_PX, mpp=DEMO_MPP, stride_px=DEMO_STRIDE_PX)
    extract = ExtractSettings(cut=CutSettings(spec=spec), encoders=(EncoderSpec(name=DEMO_ENCODER),))
    # Three drawn batches look much alike; leaving each out would double the training for little to see.
    settings = RunSettings(extract=extract, by_batch=False)
    return run_cohort(load_cohort(table), settings, Path(out) / "run", progress=progress)
