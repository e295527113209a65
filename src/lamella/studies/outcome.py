"""What the arms of a study predicted: one long table, and what is made of it.

DIR/predictions.parquet    arm, slide_id, patient_id, label, batch, fold, seed, side, logit_<class>...
DIR/results.csv            a row an arm, fold and seed, with its AUC on the fold's test patients
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lamella.analysis.auc import estimate_auc
from lamella.analysis.predictions import PredictionTable, average_by_patient
from lamella.cohort import Cohort, CohortSlide
from lamella.files import replacing, write_table
from lamella.studies.arms import Arm

RESULT_COLUMNS = ("arm", "encoder", "depth", "weights", "finetuned", "head", "tiles", "fold", "seed", "n_patients",
                  "auc", "best_epoch", "seconds_per_tile")  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class SlideLogits:
    """What one model of an arm says of one slide.

    Attributes:
        slide: Which slide.
        fold: Number of the round.
        seed: Of the model.
        side: `test` or `val`.
        logits: `(C,)` float64, class weights taken off.
    """

    slide: CohortSlide
    fold: int
    seed: int
    side: str
    logits: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ArmOutcome:
    """What came out of one arm.

    Attributes:
        arm: Which arm.
        rows: Test slides of every fold and seed; validation slides where the arm has them.
        best_epochs: By fold and seed, the epoch that was kept.
        val_losses: By fold, the log-loss on its validation patients, mean over seeds; empty where it is not known.
        metrics: What `lamella.analysis.metrics.measure` says of the arm.
    """

    arm: Arm
    rows: tuple[SlideLogits, ...]
    best_epochs: Mapping[tuple[int, int], int]
    val_losses: Mapping[int, float]
    metrics: Mapping[str, Any]

    @property
    def tested(self) -> set[str]:
        """Ids of the slides that it tested."""
        return {row.slide.slide_id for row in self.rows if row.side == "test"}

    @property
    def seeds(self) -> tuple[int, ...]:
        """Its seeds, ascending."""
        return tuple(sorted({row.seed for row in self.rows}))


def tabulate(outcome: ArmOutcome, cohort: Cohort, kept: set[str], *, seeds: Sequence[int]) -> PredictionTable:
    """Return an arm's test predictions, one row a patient (or slide, where a patient's slides differ in label).

    Args:
        outcome: The arm's.
        cohort: Classes, labels, batches.
        kept: Slides that are counted.
        seeds: Which seeds are averaged.
    """
    by_slide: dict[str, list[SlideLogits]] = {}
    for row in outcome.rows:
        if row.side == "test" and row.slide.slide_id in kept and row.seed in seeds:
            by_slide.setdefault(row.slide.slide_id, []).append(row)
    groups = [by_slide[slide_id] for slide_id in sorted(by_slide)]
    batches = tuple(group[0].slide.batch for group in groups)
    table = PredictionTable(
        classes=cohort.classes,
        positive=cohort.positive if len(cohort.classes) == 2 else None,
        slide_ids=tuple(group[0].slide.slide_id for group in groups),
        patient_ids=tuple(group[0].slide.patient_id for group in groups),
        labels=tuple(str(group[0].slide.label) for group in groups),
        folds=np.array([group[0].fold for group in groups], dtype=np.int64),
        logits=np.stack([np.mean([row.logits for row in group], axis=0) for group in groups]),
        batches=batches if any(batch is not None for batch in batches) else None,
    )
    return table if table.mixed_patients else average_by_patient(table)


def list_predictions(outcomes: Sequence[ArmOutcome], cohort: Cohort) -> pd.DataFrame:
    """Return the one long table: a row an arm, slide, seed and side, with a logit for each class."""
    return pd.DataFrame(
        [
            {
                "arm": outcome.arm.name,
                "slide_id": row.slide.slide_id,
                "patient_id": row.slide.patient_id,
                "label": row.slide.label,
                "batch": row.slide.batch,
                "fold": row.fold,
                "seed": row.seed,
                "side": row.side,
                **{f"logit_{name}": float(value) for name, value in zip(cohort.classes, row.logits, strict=True)},
            }
            for outcome in outcomes
            for row in outcome.rows
        ]
    )


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
    frame = list_predictions(outcomes, cohort)
    with replacing(predictions) as temporary:
        frame.to_parquet(temporary, index=False)
    write_table(results, RESULT_COLUMNS, [row for outcome in outcomes for row in _list_results(outcome, cohort, costs)])


def _list_results(outcome: ArmOutcome, cohort: Cohort, costs: Mapping[str, float]) -> list[dict[str, Any]]:
    arm, found = outcome.arm, []
    for seed in outcome.seeds:
        table = tabulate(outcome, cohort, outcome.tested, seeds=[seed])
        for fold in sorted(set(table.folds.tolist())):
            own = table.take(np.flatnonzero(table.folds == fold))
            estimate = estimate_auc(own.logits, own.targets, folds=own.folds)
            found.append(
                {
                    "arm": arm.name,
                    **asdict(arm),
                    "weights": arm.weights if arm.weights in ("auto", "random") else Path(arm.weights).name,
                    **({"depth": "", "weights": "", "head": "", "tiles": ""} if arm.is_chosen else {}),
                    "fold": fold,
                    "seed": seed,
                    "n_patients": len(set(own.patient_ids)),
                    "auc": "" if estimate is None else f"{float(estimate.auc[0]):.6f}",
                    "best_epoch": outcome.best_epochs.get((fold, seed), ""),
                    "seconds_per_tile": costs.get(arm.name, ""),
                }
            )
    return found
