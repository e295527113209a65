"""What stage 2 is worth beside stage 1, on the same slides, and what is written of it.

DIR/finetuned/arms.json          AUC of stage 1, head and tuned, differences from stage 1, intervals
DIR/finetuned/predictions.csv    what each of them says of each slide
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lamella.analysis.auc import estimate_auc, find_auc_interval
from lamella.analysis.differences import find_differences
from lamella.analysis.predictions import PredictionTable, average_by_patient
from lamella.cohort import Cohort
from lamella.errors import CohortError
from lamella.progress import Progress
from lamella.runs.folder import RunFolder
from lamella.runs.metrics import Difference, KeptEpoch, StageTwoScore, StageTwoScores
from lamella.runs.predictions import average_models, save_table
from lamella.runs.settings import StageTwo
from lamella.runs.stage_two import STAGE_1, StageOne, Training, train_rounds

_ROW = ["finetuned", "reading"]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class StageTwoOutcome:
    """What came out of stage 2.

    Attributes:
        predictions: The long table, with `finetuned` and `reading`, as `train_rounds` returns it.
        trainings: Of each fold and seed, the head alone and the tuned encoder.
        scores: As `arms.json` holds them.
    """

    predictions: pd.DataFrame
    trainings: list[Training]
    scores: StageTwoScores


def finetune_rounds(
    stage_1: StageOne, cohort: Cohort, stage: StageTwo, folder: RunFolder, progress: Progress
) -> StageTwoOutcome:
    """Train stage 2 of every fold, and measure it beside stage 1; finished trainings are kept.

    Args:
        stage_1: Folds, models and bags.
        cohort: For paths, labels and patients.
        stage: How.
        folder: The run's.
        progress: Where to report to.

    Raises:
        EncoderError: If the encoder cannot be trained as asked.
        SlideError: If a slide that is learned from cannot be read any more.
    """
    predictions, trainings = train_rounds(stage_1, cohort, stage, folder, progress)
    whole, lost = _keep_whole(predictions)
    notes = _say_unchanged(trainings)
    if lost:
        notes.append(
            f"{len(lost)} slides could not be encoded with a fine-tuned encoder (finetuned/*/*/tuned/features/"
            f"failures.csv says why) and are left out of every arm of stage 2: {', '.join(lost[:3])}"
            f"{', ...' if len(lost) > 3 else ''}."
        )
    for note in notes:
        progress.say(note)
    rows, n_patients = _measure(whole, cohort)
    scores = StageTwoScores(
        scores=rows,
        n_patients=n_patients,
        n_seeds=whole["seed"].nunique(),
        settings=stage.describe(),
        best_epochs=tuple(
            KeptEpoch(
                fold=training.fold,
                seed=training.seed,
                finetuned=training.finetuned,
                best_epoch=training.record.best_epoch,
            )
            for training in trainings
        ),
        notes=tuple(notes),
    )
    scores.save(folder.finetuned / "arms.json")
    columns = ["slide_id", "patient_id", "label", "fold", "seed", "arm", "reading"]
    columns += [f"logit_{name}" for name in cohort.classes]
    save_table(predictions.rename(columns={"finetuned": "arm"}), columns, folder.finetuned / "predictions.csv")
    return StageTwoOutcome(predictions=predictions, trainings=trainings, scores=scores)


def _measure(predictions: pd.DataFrame, cohort: Cohort) -> tuple[tuple[StageTwoScore, ...], int]:
    """Measure stage 1, head and tuned on the same slides: AUC within folds with intervals, and paired differences.

    A patient's score is the mean over its slides and over the seeds. The noise of training enters the differences by
    the SD over seeds, where there are several.

    Returns:
        The scores, and how many patients they are of.
    """
    seeds = sorted(set(predictions["seed"]))
    parts = {(str(kind), str(reading)): part for (kind, reading), part in predictions.groupby(_ROW, sort=False)}
    names = list(parts)
    averaged = [_average(part, cohort) for part in parts.values()]
    first = averaged[0]
    estimate = estimate_auc(
        np.stack([table.logits for table in averaged]), first.targets, folds=first.folds, patients=first.patients
    )
    seed_auc = np.array([[_find_auc(part[part["seed"] == seed], cohort) for seed in seeds] for part in parts.values()])
    differences = None if estimate is None else find_differences(estimate, seed_auc=seed_auc)
    scores = []
    for number, (kind, reading) in enumerate(names):
        none = {"arm": kind, "reading": reading, "auc": None, "interval": None, "less_stage_1": None}
        score = StageTwoScore.model_validate(none)
        if estimate is not None:
            base, less = names.index((STAGE_1, reading)), None
            if number != base and differences is not None:
                compared = differences.compare(number, base)
                less = Difference(difference=compared.difference, interval=compared.interval)
            reached = {
                "auc": float(estimate.auc[number]),
                "interval": find_auc_interval(estimate, arm=number),
                "less_stage_1": less,
                "auc_by_seed": tuple(seed_auc[number].tolist()),
            }
            score = score.model_copy(update=reached)
        scores.append(score)
    return tuple(scores), len(first.labels)


def _average(predictions: pd.DataFrame, cohort: Cohort) -> PredictionTable:
    """Return one row a patient: the mean logits over seeds, then over slides."""
    ordered = predictions.sort_values("slide_id", kind="stable")
    return average_by_patient(average_models(ordered, cohort.classes, cohort.positive))


def _find_auc(predictions: pd.DataFrame, cohort: Cohort) -> float:
    table = _average(predictions, cohort)
    estimate = estimate_auc(table.logits, table.targets, folds=table.folds, patients=table.patients)
    return float("nan") if estimate is None else float(estimate.auc[0])


def _keep_whole(predictions: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Return the predictions of the slides that all arms, readings and seeds predicted, and the ids of the others.

    Raises:
        CohortError: If no slide was.
    """
    wanted = len(predictions[[*_ROW, "seed"]].drop_duplicates())
    counts = predictions.groupby("slide_id").size()
    lost = sorted(str(slide_id) for slide_id in counts.index[counts < wanted])
    if len(lost) == len(counts):
        raise CohortError(
            "no slide could be predicted by every arm of stage 2. Mend the slides that "
            "finetuned/*/*/tuned/features/failures.csv lists, and run the same command again."
        )
    return predictions[~predictions["slide_id"].isin(lost)], lost


def _say_unchanged(trainings: Sequence[Training]) -> list[str]:
    """Say how often no epoch was better than stage 1, so that what is called trained is as it was."""
    notes = []
    for kind, name in (("head", "the head alone"), ("tuned", "encoder and head")):
        epochs = [training.record.best_epoch for training in trainings if training.finetuned == kind]
        if epochs.count(0):
            notes.append(
                f"in {epochs.count(0)} of {len(epochs)} trainings on of {name} no epoch did better on validation than "
                "stage 1, which was kept as it was: there, a difference from stage 1 says nothing of fine-tuning."
            )
    return notes
