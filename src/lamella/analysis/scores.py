"""What predictions are worth, as `metrics.json` holds it: the models that `measure` builds.

score = measure(table)
score.headline_units.auc.value
"""

from typing import Literal

from pydantic import Field

from lamella.analysis.curves import ClassCurves
from lamella.analysis.figure import Figure
from lamella.analysis.sites import NextSite
from lamella.analysis.thresholds import Threshold
from lamella.records import Record, Result


class CalibrationScores(Record):
    """How far probabilities can be taken at their word: intercept 0 and slope 1 are perfect."""

    intercept: Figure
    slope: Figure


class ClassScores(Record):
    """One class against the rest: how many there are of it, AUC within folds, calibration."""

    n: int
    auc: Figure
    calibration: CalibrationScores


class Units(Record):
    """Figures over `n` slides or patients: within folds `auc`, over all folds what stands below it, then decisions.

    `per_class` has the positive class alone of two; `calibration` is of that class, None with more than two.
    """

    n: int
    n_patients: int
    n_by_class: dict[str, int]
    auc: Figure
    n_pairs: int
    auc_pooled: Figure
    average_precision: Figure
    brier: Figure
    log_loss: Figure
    balanced_accuracy: Figure
    sensitivity: Figure
    specificity: Figure
    ppv: Figure
    npv: Figure
    per_class: dict[str, ClassScores]
    calibration: CalibrationScores | None


class GroupScores(Record):
    """The AUC inside one fold or one batch, and of a batch with two classes its calibration."""

    fold: str | None = None
    batch: str | None = None
    n: int
    n_by_class: dict[str, int]
    auc: Figure
    calibration: CalibrationScores | None = None


class Score(Result):
    """What the model, or a baseline on the same folds, is worth.

    A baseline that could not be had states its `reason` and nothing else. `baselines` and `next_site` are of batches
    left out. `patients` is None where a patient's slides differ in label; `headline` is `slides` then.
    """

    reason: str | None = None
    classes: tuple[str, ...] = ()
    positive: str | None = None
    cross_validated: bool = False
    n_folds: int = 0
    headline: Literal["patients", "slides"] = "patients"
    slides: Units | None = None
    patients: Units | None = None
    folds: tuple[GroupScores, ...] = ()
    batches: tuple[GroupScores, ...] = ()
    auc_within_batches: Figure | None = None
    thresholds: dict[str, Threshold] = Field(default_factory=dict)
    curves: dict[str, ClassCurves] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()
    baselines: dict[str, "Score"] = Field(default_factory=dict)
    next_site: NextSite | None = None

    @property
    def headline_units(self) -> Units | None:
        """Figures over patients, or over slides where a patient's slides differ in label; None where there are none."""
        return self.slides if self.headline == "slides" else self.patients

    @property
    def auc(self) -> Figure:
        """The headline figure, or why there is none."""
        return Figure(reason=self.reason) if self.headline_units is None else self.headline_units.auc

    @property
    def counts_patients(self) -> bool:
        """Whether patients were scored and are fewer than slides."""
        return self.patients is not None and self.slides is not None and self.patients.n != self.slides.n
