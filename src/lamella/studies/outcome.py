"""What the arms of a study predicted: one long table, and what is made of it.

DIR/predictions.parquet    arm, slide_id, patient_id, label, batch, fold, seed, side, logit_<class>...
DIR/results.csv            a row an arm, fold and seed, with its AUC on the fold's test patients
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lamella.analysis.auc import estimate_auc
from lamella.analysis.predictions import PredictionTable, average_by_patient
from lamella.analysis.scores import Score
from lamella.cohort import Cohort
from lamella.files import replacing, write_table
from lamella.runs.predictions import average_models
from lamella.studies.arms import Arm

RESULT_COLUMNS = ("arm", "encoder", "depth", "weights", "finetuned", "head", "tiles", "tiles_per_slide", "width",
                  "fold", "seed", "n_patients", "auc", "best_epoch", "seconds_per_tile")  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ArmOutcome:
    """What came out of one arm.

    Attributes:
        arm: Which arm.
        predictions: The long table: test slides of every fold and seed; validation slides where the arm has them.
        best_epochs: By fold and seed, the epoch that was kept.
        val_losses: By fold, the log-loss on its validation patients, mean over seeds; empty where it is not known.
        metrics: What it is worth.
    """

    arm: Arm
    predictions: pd.DataFrame
    best_epochs: Mapping[tuple[int, int], int]
    val_losses: Mapping[int, float]
    metrics: Score

    @property
    def tested(self) -> set[str]:
        """Ids of the slides that it tested."""
        return set(self.predictions["slide_id"][self.predictions["side"] == "test"])

    @property
    def seeds(self) -> tuple[int, ...]:
        """Its seeds, ascending."""
        return tuple(sorted({int(seed) for seed in self.predictions["seed"]}))


def average_arm(
    predictions: pd.DataFrame, cohort: Cohort, *, kept: set[str] | None = None, seeds: Collection[int] | None = None
) -> PredictionTable:
    """Return an arm's test predictions, one row a patient (or slide, where a patient's slides differ in label).

    Args:
        predictions: The arm's.
        cohort: Classes.
        kept: Slides that are counted; None counts all.
        seeds: Which seeds are averaged; None averages all.
    """
    wanted = predictions["side"] == "test"
    if kept is not None:
        wanted &= predictions["slide_id"].isin(kept)
    if seeds is not None:
        wanted &= predictions["seed"].isin(seeds)
    ordered = predictions[wanted].sort_values("slide_id", kind="stable")
    table = average_models(ordered, cohort.classes, cohort.positive)
    return table if table.mixed_patients else average_by_patient(table)


def list_predictions(outcomes: Sequence[ArmOutcome]) -> pd.DataFrame:
    """Return the one long table of a study: a row an arm, slide, seed and side, with a logit for each class."""
    tables = [outcome.predictions.assign(arm=outcome.arm.name) for outcome in outcomes]
    table = pd.concat(tables, ignore_index=True)
    return table[["arm", *(name for name in table.columns if name != "arm")]]


def save_outcomes(
    outcomes: Sequence[ArmOutcome], cohort: Cohort, costs: Mapping[str, float], predictions: Path, results: Path
) -> None:
    """Write `predictions.parquet` and `results.csv`.

    Args:
        outcomes: Of the arms that ran.
        cohort: Classes.
        costs: Seconds a tile by arm name.
        predictions: The one file.
        results: The other.
    """
    frame = list_predictions(outcomes)
    with replacing(predictions) as temporary:
        frame.to_parquet(temporary, index=False)
    write_table(results, RESULT_COLUMNS, [row for outcome in outcomes for row in _list_results(outcome, cohort, costs)])


def _list_results(
    outcome: ArmOutcome, cohort: Cohort, costs: Mapping[str, float]
) -> list[dict[str, str | int | float]]:
    arm, rows = outcome.arm, []
    for seed in outcome.seeds:
        table = average_arm(outcome.predictions, cohort, seeds=[seed])
        for fold in sorted(set(table.folds.tolist())):
            part = table.take(np.flatnonzero(table.folds == fold))
            estimate = estimate_auc(part.logits, part.targets, folds=part.folds)
            rows.append(
                {
                    "arm": arm.name,
                    **{name: value for name, value in asdict(arm).items() if name != "features"},
                    "weights": arm.weights if arm.weights in ("auto", "random") else Path(arm.weights).name,
                    **({"depth": "", "weights": "", "head": "", "tiles": ""} if arm.is_chosen else {}),
                    **({"depth": "", "weights": "", "tiles": ""} if arm.features else {}),
                    "tiles_per_slide": arm.tiles_per_slide or "",
                    "width": arm.width or "",
                    "fold": fold,
                    "seed": seed,
                    "n_patients": len(set(part.patient_ids)),
                    "auc": "" if estimate is None else f"{float(estimate.auc[0]):.6f}",
                    "best_epoch": outcome.best_epochs.get((fold, seed), ""),
                    "seconds_per_tile": costs.get(arm.name, ""),
                }
            )
    return rows
