"""What the prediction of new slides and of new bags share: refusals, one slide by all models, and what is written."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from lamella.analysis.prevalence import check_prevalence
from lamella.cohort import Cohort, CohortSlide, save_cohort
from lamella.encoders import EncoderSpec
from lamella.errors import SettingsError
from lamella.features.settings import name_in_files
from lamella.files import refuse_links, remove
from lamella.mil import SlidePrediction, average_predictions
from lamella.progress import Progress
from lamella.runs.bags import RunBags
from lamella.runs.folder import RunFolder, hash_tables
from lamella.runs.measure import measure_external
from lamella.runs.predictions import save_predictions
from lamella.runs.predictor import Predictor, measure_spread, refuse_seen
from lamella.runs.record import RunRecord, list_versions
from lamella.runs.unit_attention import save_unit_attention
from lamella.runs.units import Units, refuse_mixed_labels
from lamella.temporaries import sweep_temporaries

BagsByEncoder = Mapping[EncoderSpec, RunBags]


def begin_prediction(
    predictor: Predictor, cohort: Cohort, out: Path, *, prevalence: float | None, progress: Progress
) -> RunFolder:
    """Return the folder of a prediction, ready to be written to.

    Raises:
        CohortError: If patients are predicted and slides of one differ in label.
        LeakageError: If there are labels, and the models have learned from one of these slides or patients.
        SettingsError: If a prevalence is asked for that cannot be used.
    """
    folder = RunFolder(out)
    refuse_links(folder.path)
    sweep_temporaries(folder.path)
    if prevalence is not None:
        check_prevalence(prevalence)
        if not is_labelled(cohort):
            raise SettingsError("--prevalence restates what labels measure and slides have none. Leave it out.")
    refuse_mixed_labels(cohort, predictor.settings.unit)
    refuse_seen(predictor, cohort, labelled=is_labelled(cohort), progress=progress)
    remove(folder.external)  # an earlier prediction's
    save_cohort(cohort, folder.local / "cohort.csv")
    return folder


def is_labelled(cohort: Cohort) -> bool:
    """Say whether every slide has a label, so that predictions are measured."""
    return all(slide.label is not None for slide in cohort.slides)


def predict_slide(
    predictor: Predictor, slide: CohortSlide, units: Mapping[EncoderSpec, Units], folder: RunFolder
) -> SlidePrediction:
    """Return the mean of all models on one slide or patient; attention is written where bags say where tiles lie."""
    bags = {encoder: own.bags for encoder, own in units.items()}
    predictions = [
        member.model.predict(bags[member.encoder].features[slide.slide_id]).of(slide) for member in predictor.members
    ]
    mean = average_predictions(predictions)
    first = units[predictor.members[0].encoder]
    save_unit_attention(mean, first, folder)
    unlike = None
    if predictor.reference is not None:
        features_by_name = {name_in_files(encoder): loaded.features[slide.slide_id] for encoder, loaded in bags.items()}
        unlike = predictor.reference.judge(first.bags.facts[slide.slide_id], features_by_name)
    return dataclasses.replace(mean, spread=measure_spread(predictor.members, predictions), unlike=unlike)


def finish_prediction(
    predictor: Predictor,
    predictions: Sequence[SlidePrediction],
    folder: RunFolder,
    *,
    prevalence: float | None,
    notes: Sequence[str],
    progress: Progress,
) -> None:
    """Write predictions and the record; with labels, measure at the frozen threshold."""
    save_predictions(predictions, predictor.classes, folder.predictions)
    if predictions and all(prediction.label is not None for prediction in predictions):
        measure_external(
            predictions, predictor.classes, predictor.positive, predictor.threshold, prevalence=prevalence
        ).save(folder.metrics)
    RunRecord(
        classes=predictor.classes,
        positive=predictor.positive,
        settings=predictor.settings,
        external=True,
        notes=(*notes, *_say_unlike(predictions, progress)),
        versions=list_versions(),
        files=hash_tables(folder.path),
    ).save(folder.settings)


def _say_unlike(predictions: Sequence[SlidePrediction], progress: Progress) -> list[str]:
    """Say aloud which slides are unlike those of training; return the same as notes."""
    notes = []
    for prediction in predictions:
        if prediction.unlike is not None and prediction.unlike.reasons:
            reasons = "; ".join(prediction.unlike.reasons)
            notes.append(f"slide '{prediction.slide_id}' is unlike those of training: {reasons}")
            progress.say(notes[-1])
    return notes
