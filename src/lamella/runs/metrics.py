"""What a run's predictions are worth, as `metrics.json` holds it: models that save and load themselves.

    metrics = Metrics.load(folder.metrics)
    metrics.scores.model.headline_units.auc.value

In the file, `scores` are `arms`, and what was `finetuned` is the `arm`: so have they been called since 0.1.0.
"""

from typing import Any, Literal

from pydantic import Field

from lamella.analysis.thresholds import Threshold
from lamella.runs.record import Record

METRICS_FORMAT = 1
Interval = tuple[float, float]


class Figure(Record):
    """A number with its 95% interval, or the reason why there is none.

    Attributes:
        value: The number; None where it cannot be had.
        interval: Its 95% interval; None where there is none.
        method: How the interval is made.
        reason: Why there is no number, or what it leaves out.
        n: Of a share, of how many.
        prevalence: Share of the positive class among what was counted, where the figure depends on it.
    """

    value: float | None
    interval: Interval | None = None
    method: str | None = None
    reason: str | None = None
    n: int | None = None
    prevalence: float | None = None


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
    """Figures over slides, or over patients.

    Attributes:
        n: How many slides or patients.
        n_patients: Of how many patients.
        n_by_class: How many of each class.
        auc: Over pairs of the same fold.
        n_pairs: How many such pairs there are.
        auc_pooled: Over all pairs.
        average_precision: Over all folds together, as are those that follow.
        brier: Half of the sum over both of two classes.
        log_loss: Of the label.
        balanced_accuracy: At each fold's threshold, as are those that follow.
        sensitivity: Of two classes, as are those that follow.
        specificity: Share of the negative class that is called so.
        ppv: At the prevalence of these slides.
        npv: At the prevalence of these slides.
        per_class: The positive class alone, of two.
        calibration: Of the positive class; None with more than two.
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
    """The AUC inside one fold or one batch.

    Attributes:
        fold: Which fold; None of a batch.
        batch: Which batch; None of a fold.
        n: How many slides or patients it has.
        n_by_class: How many of each class.
        auc: Over pairs of the same fold.
        calibration: Of a batch, with two classes.
    """

    fold: str | None = None
    batch: str | None = None
    n: int
    n_by_class: dict[str, int]
    auc: Figure
    calibration: Calibration | None = None


class NextSite(Record):
    """Where the AUC of the next batch may lie, from batches that were each left out.

    Attributes:
        n_sites: How many were left out.
        mean: Their mean AUC.
        sd_between: By how much they differ, SD of log-odds.
        interval: 95% prediction interval; None below three.
        note: What weakens it.
    """

    n_sites: int
    mean: float | None
    sd_between: float | None
    interval: Interval | None
    note: str


class Score(Record):
    """What the model, or a baseline on the same folds, is worth.

    Attributes:
        reason: Why there is nothing else, of a baseline that could not be had.
        classes: In the order of the logits.
        positive: The class that is scored, of two.
        cross_validated: Whether slides were tested in several rounds.
        n_folds: In how many.
        headline: `patients`, or `slides` where a patient's slides differ in label.
        slides: Figures over slides.
        patients: Figures over patients; None where their slides differ in label.
        folds: Each fold alone.
        batches: Each batch alone.
        auc_within_batches: Over pairs of the same fold and the same batch.
        thresholds: By fold.
        curves: Points of the plots, by class.
        notes: What a reader must know.
        baselines: Of the batches left out: what colour, tissue and batch alone reach there.
        next_site: Of the batches left out: where the next one may lie.
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
    curves: dict[str, Any] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()
    baselines: dict[str, "Score"] = Field(default_factory=dict)
    next_site: NextSite | None = None

    @property
    def headline_units(self) -> Units | None:
        """Figures over patients, or over slides where a patient's slides differ in label; None where there are none."""
        return self.slides if self.headline == "slides" else self.patients


class Scores(Record):
    """The model beside what is simpler.

    Attributes:
        model: The model itself.
        baselines: What colour, tissue and batch alone reach on the same folds.
        leave_one_batch_out: The model with each batch left out in turn; None where this was not done.
    """

    model: Score
    baselines: dict[str, Score] = Field(default_factory=dict)
    leave_one_batch_out: Score | None = None


class Difference(Record):
    """A paired difference of AUC with its 95% interval."""

    difference: float
    interval: Interval


class StageTwoScore(Record):
    """What stage 1, the head alone or the tuned encoder is worth on one reading of the slides.

    Attributes:
        finetuned: `stage 1`, `head` (the control) or `tuned`.
        reading: `all` tiles, or its own `top` ones.
        auc: Within folds; None where no fold tests two classes.
        interval: 95%.
        less_stage_1: Against stage 1 of the same reading; None for stage 1 itself.
        auc_by_seed: Of each seed.
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
    """Stage 2 beside stage 1, as `finetuned/arms.json` holds it.

    Attributes:
        scores: Stage 1, head and tuned, each on both readings.
        n_patients: Patients that all of them predicted.
        n_seeds: Seeds that were trained on.
        settings: How.
        best_epochs: Of each fold, seed and kind.
        notes: What must be said aloud.
    """

    scores: tuple[StageTwoScore, ...] = Field(validation_alias="arms", serialization_alias="arms")
    n_patients: int
    n_seeds: int
    settings: dict[str, Any]
    best_epochs: tuple[KeptEpoch, ...]
    notes: tuple[str, ...]


class AtPrevalence(Record):
    """Predictive values and net benefit at a prevalence that was stated.

    Attributes:
        prevalence: Share of the positive class.
        net_benefit: Each with `cut`, `model` and `everybody`.
        ppv: Positive predictive value.
        npv: Negative predictive value.
    """

    prevalence: float
    net_benefit: tuple[dict[str, float], ...]
    ppv: Figure
    npv: Figure


class Metrics(Record):
    """What `metrics.json` holds.

    Attributes:
        format: Of the file.
        classes: In the order of the logits.
        positive: The class that is scored, of two.
        external: Whether new slides were measured.
        at_prevalence: Of new slides, where a prevalence was stated.
        scores: The model beside its baselines.
        thresholds: By round.
        frozen_threshold: For new slides; None with more than two classes.
        notes: What a reader must know.
        stage_two: Stage 2 beside stage 1, where there was fine-tuning.
    """

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
