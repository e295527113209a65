"""Predicting new slides with a finished run: cut and encode as it did, average its models' logits."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lamella.cohort import Cohort, save_cohort
from lamella.encoders import EncoderSpec
from lamella.errors import LeakageError, ModelError
from lamella.features.extract import Failure, extract_cohort
from lamella.files import sweep_temporaries, write_json
from lamella.mil import SlideModel, check_bag_fits, load_model, predict_ensemble
from lamella.progress import Progress, SilentProgress
from lamella.slide import hash_quickly
from lamella.study.attention import locate_attention, save_attention
from lamella.study.bags import StudyBags, hash_json, load_bags
from lamella.study.folder import RunFolder
from lamella.study.leaks import refuse_seen_by_encoder
from lamella.study.measure import measure_external
from lamella.study.record import list_versions, save_predictions
from lamella.study.rounds import RoundPrediction
from lamella.study.settings import restore_extract_settings


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class FinishedRun:
    """What of a finished run is needed to predict new slides.

    Attributes:
        folder: Where it lies.
        classes: In the order of the logits.
        positive: The class whose probability is scored.
        settings: How it cut, encoded and trained.
        models: All models of its rounds and seeds.
        threshold: What was frozen for new slides; None where there is none.
    """

    folder: RunFolder
    classes: tuple[str, ...]
    positive: str | None
    settings: dict[str, Any]
    models: tuple[SlideModel, ...]
    threshold: dict[str, Any] | None


def open_run(path: Path) -> FinishedRun:
    """Open a finished run.

    Raises:
        ModelError: If the folder is not one, or its run did not finish.
    """
    folder = RunFolder(path)
    if not folder.settings.exists():
        raise ModelError(f"'{path}' holds no finished run (no run.json). Name the --out folder of a `lamella run`.")
    try:
        record = json.loads(folder.settings.read_text(encoding="utf-8"))
        metrics = json.loads(folder.metrics.read_text(encoding="utf-8")) if folder.metrics.exists() else {}
        classes, positive, settings = tuple(record["classes"]), record["positive"], record["settings"]
        threshold = metrics.get("frozen_threshold")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"'{folder.settings.name}' or '{folder.metrics.name}' of '{path}' is damaged. Run `lamella run` again."
        ) from error
    found = sorted(folder.models.glob("fold*/seed*"))
    if not found:
        raise ModelError(f"'{path}' holds no models. Run `lamella run` again: it makes what is missing.")
    return FinishedRun(
        folder=folder,
        classes=classes,
        positive=positive,
        settings=settings,
        models=tuple(load_model(one) for one in found),
        threshold=threshold,
    )


def predict_cohort(
    run: FinishedRun, cohort: Cohort, out: Path, *, progress: Progress | None = None
) -> tuple[list[RoundPrediction], tuple[Failure, ...]]:
    """Cut, encode and predict new slides; with labels, measure at the frozen threshold (external validation).

    Args:
        run: Of `open_run`.
        cohort: New slides, labelled or not.
        out: Where to write predictions, attention and, with labels, `metrics.json`.
        progress: Where to report to.

    Returns:
        One prediction a slide, and the slides that could not be done.

    Raises:
        LeakageError: If labels are given and the run has learned from one of these slides or patients.
        ModelError: If the bags do not fit the models.
    """
    progress = progress or SilentProgress()
    folder = RunFolder(out)
    sweep_temporaries(folder.path)
    labelled = all(slide.label is not None for slide in cohort.slides)
    _refuse_seen(run, cohort, labelled=labelled, progress=progress)
    save_cohort(cohort, folder.local / "cohort.csv")
    extract = restore_extract_settings(run.settings, find_run_encoder(run))
    report = extract_cohort(cohort.slides, extract, folder.features, progress=progress)
    failed = {failure.slide_id for failure in report.failures}
    done = [slide for slide in cohort.slides if slide.slide_id not in failed]
    bags = load_bags(report.folder, [slide.slide_id for slide in done])
    if labelled:
        refuse_seen_by_encoder([slide.slide_id for slide in done], bags.provenance, cohort)
    predictions = [_predict(run, slide, bags, folder) for slide in done]
    save_predictions(predictions, run.classes, folder.predictions)
    if labelled and predictions:
        write_json(folder.metrics, measure_external(predictions, run.classes, run.positive, run.threshold))
    record = {"classes": list(run.classes), "positive": run.positive, "settings": run.settings, "external": True}
    write_json(folder.settings, record | {"versions": list_versions(), "notes": list(report.notes)})
    return predictions, report.failures


def _predict(run: FinishedRun, slide: Any, bags: StudyBags, folder: RunFolder) -> RoundPrediction:
    own, features = bags.provenance[slide.slide_id], bags.features[slide.slide_id]
    for model in run.models:
        try:
            check_bag_fits(
                model,
                fingerprint=str(own["fingerprint"]),
                mpp=float(own["mpp"]),
                tile_px=int(own["tile_px"]),
                embedding_dim=features.shape[1],
                encoder=str(own["encoder"]),
            )
        except ModelError as error:
            raise ModelError(f"slide '{slide.slide_id}' cannot be predicted by this run: {error}") from error
    found = predict_ensemble(run.models, features)
    key = hash_json([np.asarray(found.attention).tobytes().hex(), bags.key(slide.slide_id)])
    record = locate_attention(found.attention, bags.corners_l0[slide.slide_id], own, key=key)
    save_attention(record, folder.attention / f"{slide.slide_id}.h5")
    return RoundPrediction(
        slide=slide, fold=0, logits=found.logits, probabilities=found.probabilities, attention=found.attention
    )


def find_run_encoder(run: FinishedRun) -> EncoderSpec:
    """Return the run's encoder; where its machine found it stands under `local/`, which may not have come along."""
    local = run.folder.local / "encoder.json"
    if local.exists():
        try:
            found = json.loads(local.read_text(encoding="utf-8"))
            return EncoderSpec(name=str(found["name"]), weights=str(found["weights"]))
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError(f"'{local}' is damaged. Run `lamella run` again, or delete that file.") from error
    weights = "random" if run.settings["weights"] == "random" else "auto"
    return EncoderSpec(name=str(run.settings["encoder"]), weights=weights)


def _refuse_seen(run: FinishedRun, cohort: Cohort, *, labelled: bool, progress: Progress) -> None:
    """Refuse to measure on what the models learned from; predicting it without labels is only said aloud."""
    images = {str(i) for model in run.models for i in model.provenance.get("seen_images", ())}
    patients = {str(i) for model in run.models for i in model.provenance.get("seen_patients", ())}
    same_image = [s.slide_id for s in cohort.slides if s.path.exists() and hash_quickly(s.path) in images]
    same_patient = [s.slide_id for s in cohort.slides if s.patient_id in patients]
    seen = same_image or same_patient
    if not seen:
        return
    what = "the image" if same_image else "the patient"
    if labelled:
        raise LeakageError(
            f"{what} of slide '{seen[0]}' was learned from by this run ({_count(seen)}), so a measurement on it would "
            "flatter. Take these slides out, or leave the labels out."
        )
    progress.say(f"the models have learned from {what} of slide '{seen[0]}' ({_count(seen)}); they know the answer.")


def _count(seen: Sequence[str]) -> str:
    return f"{len(seen)} slide{'' if len(seen) == 1 else 's'} of the table"
