"""Predict new slides, by one model or several, with pictures and a page.

`predict` does it with few words; `predict_slides` takes every setting.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lamella.cohort import Cohort, gather_slides, load_cohort
from lamella.defaults import UnitName
from lamella.encoders.trust import trusting
from lamella.exports.external import ExternalArms, name_bags, predict_external
from lamella.exports.open import open_predictor
from lamella.features.failures import Failure
from lamella.mil import SlidePrediction
from lamella.pipeline.pictures import ClassNames, draw_heatmaps, list_drawable
from lamella.progress import Progress, SilentProgress
from lamella.renaming import save_public_failures
from lamella.reports.page import write_page
from lamella.runs.folder import RunFolder
from lamella.runs.predict import FinishedRun, predict_cohort
from lamella.runs.predict_bags import list_bag_slides, predict_bag_cohort
from lamella.runs.predictor import Predictor
from lamella.runs.units import name_slides
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
    drawn = _name_drawn(predictions, cohort, failures, opened.settings.unit)
    failures = (*failures, *draw_heatmaps(drawn, folder, cohort, classes, progress))
    save_public_failures(failures, cohort, folder.failures)
    if predictions:
        write_page(Path(out))
    return predictions, failures


def predict_bags(
    model: Path | str | FinishedRun | Predictor,
    features: Path | str,
    out: Path | str,
    *,
    cohort: Cohort | Path | str | None = None,
    prevalence: float | None = None,
    progress: Progress | None = None,
) -> tuple[Sequence[SlidePrediction], tuple[Failure, ...]]:
    """Predict new slides from bags that are there, of any tool; with labels, measure it too (external validation).

    Bags of another encoder, revision, width or scale than the model's are refused where files state it, and what could
    not be compared is noted. Slides are opened for pictures alone.

    Args:
        model: Folder of a finished run or an export, or what `open_run` or `open_predictor` returned; made from slides
            or from bags.
        features: Folder of bags by slide id, of any tool that `lamella inspect` knows; `FOLDER#ENCODER` where files
            hold those of several encoders.
        out: Where to write.
        cohort: The slides, or their table, labelled or not; their files need not be there. None is all bags, without
            labels.
        prevalence: With labels: where predictive values and net benefit are wanted besides.
        progress: Where to report to.

    Returns:
        One prediction a slide, and the slides without a bag that can be read.

    Raises:
        LamellaError: Whatever cannot be done, in one line.
    """
    progress, features, out = progress or SilentProgress(), Path(features), Path(out)
    opened = model if isinstance(model, FinishedRun | Predictor) else open_predictor(Path(model))
    if cohort is None:
        cohort = list_bag_slides(features)
    elif not isinstance(cohort, Cohort):
        cohort = load_cohort(cohort, labelled=False)
    predictions, failures = predict_bag_cohort(opened, cohort, features, out, prevalence=prevalence, progress=progress)
    return predictions, _show_bags(opened, predictions, failures, cohort, out, progress)


def _show_bags(
    classes: FinishedRun | Predictor,
    predictions: Sequence[SlidePrediction],
    failures: tuple[Failure, ...],
    cohort: Cohort,
    out: Path,
    progress: Progress,
) -> tuple[Failure, ...]:
    """Draw what of a prediction from bags can be drawn, write the page, and return all failures."""
    folder, names = RunFolder(out), ClassNames(classes.classes, classes.positive)
    by_slide = _name_drawn(predictions, cohort, failures, classes.settings.unit)
    shown = list_drawable(by_slide, folder, cohort)
    failures = (*failures, *draw_heatmaps(shown, folder, cohort, names, progress))
    save_public_failures(failures, cohort, folder.failures)
    write_page(out)
    return failures


def predict_together(
    arms: ExternalArms,
    cohort: Cohort,
    out: Path,
    *,
    features: Mapping[str, Path] | None = None,
    trust: Sequence[Path | str] = (),
    progress: Progress | None = None,
) -> tuple[Sequence[SlidePrediction], tuple[Failure, ...], dict[str, Any] | None]:
    """Predict new slides by several models; with labels, say whether what was recommended holds there.

    Args:
        arms: Of `open_study_arms` or `open_beside`.
        cohort: The slides, labelled or not.
        out: Where to write; heatmaps are those of the arm that was recommended.
        features: Bags that are there, a folder an arm, by its name or by what its bags are called; None encodes slides.
        trust: Your own `FILE.py`, where an encoder is built by it.
        progress: Where to report to.

    Returns:
        What that arm says of each slide, the slides that could not be done, and what `external.json` holds.

    Raises:
        LamellaError: Whatever cannot be done, in one line.
    """
    progress = progress or SilentProgress()
    by_arm = None if features is None else name_bags(arms, features)
    with trusting(*trust):
        predictions, failures, external = predict_external(arms, cohort, Path(out), features=by_arm, progress=progress)
    if features is not None:
        return predictions, _show_bags(arms.predictor(), predictions, failures, cohort, Path(out), progress), external
    folder, shown = RunFolder(Path(out)), arms.predictor()
    classes = ClassNames(shown.classes, shown.positive)
    drawn = _name_drawn(predictions, cohort, failures, shown.settings.unit)
    failures = (*failures, *draw_heatmaps(drawn, folder, cohort, classes, progress))
    save_public_failures(failures, cohort, folder.failures)
    if predictions:
        write_page(Path(out))
    return predictions, failures, external


def _name_drawn(
    predictions: Sequence[SlidePrediction], cohort: Cohort, failures: Sequence[Failure], unit: UnitName
) -> list[SlidePrediction]:
    """Return what was predicted of each slide that could be done."""
    lost = {failure.slide_id for failure in failures}
    return [named for named in name_slides(predictions, cohort, unit) if named.slide_id not in lost]
