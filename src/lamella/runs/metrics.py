"""What a run's predictions are worth, as `metrics.json` holds it: models that save and load themselves.

    metrics = Metrics.load(folder.metrics)
    metrics.scores.model.headline_units.auc.value

In the file, `scores` are `arms`, and what was `finetuned` is the `arm`: so have they been called since 0.1.0.
"""

from typing import Literal

from pydantic import Field

from lamella.analysis.figure import Figure, Interval
from lamella.analysis.prevalence import NetBenefit
from lamella.analysis.scores import Score
from lamella.analysis.thresholds import Threshold
from lamella.records import Record
from lamella.runs.record import StageTwoRecord

METRICS_FORMAT = 1


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
    """Predictive values, and at each cut net benefit, at a prevalence that was stated."""

    prevalence: float
    net_benefit: tuple[NetBenefit, ...]
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
