"""Predict new slides, by one model or several, with pictures and a page.

`predict` does it with few words; `predict_slides` takes every setting.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lamella.cohort import Cohort, gather_slides
from lamella.encoders.trust import trusting
from lamella.exports.external import ExternalArms, predict_external
from lamella.exports.open import open_predictor
from lamella.features.failures import Failure
from lamella.mil import SlidePrediction
from lamella.pipeline.pictures import ClassNames, draw_heatmaps
from lamella.progress import Progress, SilentProgress
from lamella.renaming import save_public_failures
from lamella.reports.page import write_page
from lamella.runs.folder import RunFolder
from lamella.runs.predict import FinishedRun, predict_cohort
from lamella.runs.predictor import Predictor
from lamella.slide import list_slides


def predict(
    model: Path | str,
    slides: Sequence[Path | str] | Path | str,
    out: Path | str,
    *,
    trust: Sequence[Path | str] = (),
) -> Sequence[SlidePrediction]:
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


def predict_slides(
    model: Path | FinishedRun | Predictor,
    cohort: Cohort,
    out: Path,
    *,
    prevalence: float | None = None,
    trust: Sequence[Path | str] = (),
    progress: Progress | None = None,
) -> tuple[Sequence[SlidePrediction], tuple[Failure, ...]]:
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
    classes = ClassNames(opened.classes, opened.positive)
    failures = (*failures, *draw_heatmaps(predictions, folder, cohort, classes, progress))
    save_public_failures(failures, cohort, folder.failures)
    if predictions:
        write_page(Path(out))
    return predictions, failures


def predict_together(
    arms: ExternalArms, cohort: Cohort, out: Path, *, trust: Sequence[Path | str] = (), progress: Progress | None = None
) -> tuple[Sequence[SlidePrediction], tuple[Failure, ...], dict[str, Any] | None]:
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
        predictions, failures, external = predict_external(arms, cohort, Path(out), progress=progress)
    folder, shown = RunFolder(Path(out)), arms.predictor()
    classes = ClassNames(shown.classes, shown.positive)
    failures = (*failures, *draw_heatmaps(predictions, folder, cohort, classes, progress))
    save_public_failures(failures, cohort, folder.failures)
    if predictions:
        write_page(Path(out))
    return predictions, failures, external
