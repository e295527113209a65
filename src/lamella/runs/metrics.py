"""What a run's predictions are worth, as `metrics.json` holds it: models that save and load themselves.

    metrics = Metrics.load(folder.metrics)
    metrics.scores.model.headline_units.auc.value

In the file, `scores` are `arms`, and what was `finetuned` is the `arm`: so have they been called since 0.1.0.
"""

from typing import Literal, Self

from pydantic import Field, JsonValue, model_validator

from lamella.analysis.thresholds import Threshold
from lamella.runs.record import Record, StageTwoRecord

METRICS_FORMAT = 1
Interval = tuple[float, float]


class Figure(Record):
    """A number with its 95% interval and how that is made, or the reason why there is none.

    `n` is what a share is of; `prevalence` is that at which the figure holds, where it depends on it.
    """

    value: float | None = None
    interval: Interval | None = None
    method: str | None = None
    reason: str | None = None
    n: int | None = None
    prevalence: float | None = None

    @model_validator(mode="after")
    def _has_value_or_reason(self) -> Self:
        if "value" not in self.model_fields_set and self.reason is None:
            raise ValueError("neither a value nor a reason why there is none")
        return self


NO_FIGURE = Figure(value=None)


class Calibration(Record):
    """How far probabilities can be taken at their word: intercept 0 and slope 1 are perfect."""

    intercept: Figure
    slope: Figure


class ClassScores(Record):
    """One class against the rest: how many there are of it, AUC within folds, calibration."""

    n: int
    auc: Figure
    calibration: Calibration


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
    calibration: Calibration | None


class GroupScores(Record):
    """The AUC inside one fold or one batch, and of a batch with two classes its calibration."""

    fold: str | None = None
    batch: str | None = None
    n: int
    n_by_class: dict[str, int]
    auc: Figure
    calibration: Calibration | None = None


class NextSite(Record):
    """Where the AUC of the next batch may lie, from batches that were each left out; no interval below three."""

    n_sites: int
    mean: float | None
    sd_between: float | None
    interval: Interval | None
    note: str


class Score(Record):
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
    curves: dict[str, JsonValue] = Field(default_factory=dict)
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


class Scores(Record):
    """The model, what colour, tissue and batch alone reach on its folds, and the model with each batch left out."""

    model: Score
    baselines: dict[str, Score] = Field(default_factory=dict)
    leave_one_batch_out: Score | None = None


class Difference(Record):
    """A paired difference of AUC with its 95% interval."""

    difference: float
    interval: Interval


class StageTwoScore(Record):
    """What `stage 1`, the `head` alone or the `tuned` encoder is worth, on `all` tiles or its own `top` ones.

    `auc` is None where no fold tests two classes; `less_stage_1` is against the same reading, None for stage 1 itself.
    """

    finetuned: str = Field(validation_alias="arm", serialization_alias="arm")
    reading: Literal["all", "top"]
    auc: float | None
    interval: Interval | None
    less_stage_1: Difference | None
    auc_by_seed: tuple[float, ...] = ()


class KeptEpoch(Record):
    """The epoch of one training of stage 2 that was kept; 0 is stage 1, which none bettered on validation."""

    fold: int
    seed: int
    finetuned: str = Field(validation_alias="arm", serialization_alias="arm")
    best_epoch: int


class StageTwoScores(Record):
    """Stage 2 beside stage 1 on the patients that all of them predicted, as `finetuned/arms.json` holds it."""

    scores: tuple[StageTwoScore, ...] = Field(validation_alias="arms", serialization_alias="arms")
    n_patients: int
    n_seeds: int
    settings: StageTwoRecord
    best_epochs: tuple[KeptEpoch, ...]
    notes: tuple[str, ...]


class AtPrevalence(Record):
    """Predictive values, and at each cut net benefit (`cut`, `model`, `everybody`), at a prevalence that was stated."""

    prevalence: float
    net_benefit: tuple[dict[str, float], ...]
    ppv: Figure
    npv: Figure


class Metrics(Record):
    """What `metrics.json` holds; docs/formats.md says what each field is."""

    format: int = METRICS_FORMAT
    classes: tuple[str, ...]
    positive: str | None = None
    external: bool = False
    at_prevalence: AtPrevalence | None = None
    scores: Scores = Field(validation_alias="arms", serialization_alias="arms")
    thresholds: dict[str, Threshold] = Field(default_factory=dict)
    frozen_threshold: Threshold | None = None
    notes: tuple[str, ...] = ()
    stage_two: StageTwoScores | None = None
