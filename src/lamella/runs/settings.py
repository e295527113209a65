"""What to run: the settings of one run, and how they are written down and read back."""

import dataclasses
from dataclasses import dataclass, field
from typing import TypedDict, TypeVar, get_args

from lamella.defaults import (
    CAM_ARM,
    CAM_METHOD,
    EVALUATE,
    FINETUNE_SEEDS,
    N_FOLDS,
    N_SEEDS,
    UNIT,
    CamArm,
    CamMethod,
    Evaluation,
    UnitName,
)
from lamella.encoders import EncoderSpec, RuntimeSettings, find_encoder
from lamella.encoders.scale import find_seen
from lamella.errors import SettingsError
from lamella.features.plan import CutSettings
from lamella.features.settings import ExtractSettings, name_in_files
from lamella.finetune.settings import FinetuneSettings
from lamella.mil.settings import TrainSettings
from lamella.runs.record import SettingsRecord, StageTwoRecord, Value
from lamella.tiles import TileSpec

_T = TypeVar("_T")
_ONE = "Leave one of the two out."


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """How bags become models, predictions and metrics.

    Attributes:
        train: How a head is trained; its seed is the first of `n_seeds`.
        n_seeds: How many heads are trained in each round; their logits are averaged.
        n_folds: How many folds are made where the cohort brings none.
        split_seed: Of the folds.
        sensitivity: The least sensitivity that the threshold must reach on validation; None is Youden's.
        by_batch: Whether a cohort with batches is also tested with each batch left out.
        width: Most numbers of an embedding that heads read, by principal components of each fold's training tiles; None
            leaves embeddings as they are.
        unit: `slide`, or `patient`: then a patient's slides are one bag, and patients are predicted.
    """

    train: TrainSettings = field(default_factory=TrainSettings)
    n_seeds: int = N_SEEDS
    n_folds: int = N_FOLDS
    split_seed: int = 0
    sensitivity: float | None = None
    by_batch: bool = True
    unit: UnitName = UNIT
    width: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        if self.n_seeds < 1:
            raise SettingsError(f"{self.n_seeds} seeds are asked for and at least 1 is needed. Pass --seeds 3.")
        if self.sensitivity is not None and not 0 < self.sensitivity < 1:
            raise SettingsError(
                f"sensitivity is {self.sensitivity} and must lie between 0 and 1. Pass --sensitivity 0.95."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTwo:
    """Whether and how a run goes on to stage 2.

    Attributes:
        finetune: How encoder and head are trained; its seed is the first of `n_seeds`.
        n_seeds: How many of stage 1's seeds are trained on; each has an encoder of its own.
        evaluate: `all` (every tile of the test slides is encoded anew) or `top-k` (those that stage 1 attends most).
    """

    finetune: FinetuneSettings = field(default_factory=FinetuneSettings)
    n_seeds: int = FINETUNE_SEEDS
    evaluate: str = EVALUATE

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        if self.evaluate not in get_args(Evaluation):
            raise SettingsError(f"--evaluate is '{self.evaluate}' and must be all or top-k. Pass --evaluate all.")
        if self.n_seeds < 1:
            raise SettingsError(f"{self.n_seeds} seeds are to be fine-tuned and at least 1 is needed. Pass 1.")

    @property
    def finetuned(self) -> tuple[str, ...]:
        """What is trained: the control alone, or both."""
        return ("head",) if self.finetune.finetuned == "head" else ("head", "tuned")

    def describe(self) -> StageTwoRecord:
        """Return it as files hold it."""
        return StageTwoRecord(finetune=self.finetune.as_json(), n_seeds=self.n_seeds, evaluate=self.evaluate)


@dataclass(frozen=True, slots=True, kw_only=True)
class CamSettings:
    """Which maps, and how they are computed.

    Attributes:
        method: `exact` (attention and ReLU masks held: cells sum to what the model said) or `grad` (Grad-CAM:
            attention may vary, cells sum to nothing in particular, any network of timm).
        target: The class whose contrast is split; None is the class that the run scores.
        finetuned: `frozen` (stage 1) or `tuned` (stage 2 of the run).
        runtime: Where the encoder runs; at precision `auto` in fp32.
    """

    method: str = CAM_METHOD
    target: str | None = None
    finetuned: str = CAM_ARM
    runtime: RuntimeSettings = field(default_factory=RuntimeSettings)

    def __post_init__(self) -> None:
        """Refuse what cannot be computed."""
        if self.method not in get_args(CamMethod):
            raise SettingsError(f"a map by '{self.method}' is not known. Pass --method exact or --method grad.")
        if self.finetuned not in get_args(CamArm):
            raise SettingsError(f"arm '{self.finetuned}' is not known. Pass --arm frozen or --arm tuned.")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings(TrainingSettings):
    """How a cohort becomes predictions, from the slides on.

    Attributes:
        extract: How slides become bags.
        n_heatmaps: How many slides get heatmaps; None is all.
        stage_two: Whether and how encoder and head are trained on; None ends with stage 1.
        cam: Whether and how the slides with heatmaps get class activation maps too.
        cka: Whether frozen and fine-tuned encoders are compared block by block.
    """

    extract: ExtractSettings
    n_heatmaps: int | None = None
    stage_two: StageTwo | None = None
    cam: CamSettings | None = None
    cka: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be run."""
        TrainingSettings.__post_init__(self)
        if self.unit == "patient" and (self.stage_two is not None or self.cam is not None):
            asked = "--finetune" if self.stage_two is not None else "--cam"
            raise SettingsError(f"{asked} reads the bag of one slide, and --unit patient makes bags of several. {_ONE}")
        if self.stage_two is not None and self.stage_two.n_seeds > self.n_seeds:
            raise SettingsError(
                f"{self.stage_two.n_seeds} seeds of stage 1 are to be fine-tuned and it has {self.n_seeds}. Pass "
                f"--seeds {self.stage_two.n_seeds} or --finetune-seeds {self.n_seeds}."
            )
        if self.cka and (self.stage_two is None or self.stage_two.finetune.finetuned != "tuned"):
            raise SettingsError("--cka compares the frozen encoder with the fine-tuned one. Pass --finetune tuned too.")


def join_settings(
    training: TrainingSettings,
    extract: ExtractSettings,
    *,
    n_heatmaps: int | None = None,
    stage_two: StageTwo | None = None,
    cam: CamSettings | None = None,
    cka: bool = False,
) -> RunSettings:
    """Return the settings of a run that begins at the slides."""
    shared = {field.name: getattr(training, field.name) for field in dataclasses.fields(TrainingSettings)}
    return RunSettings(**shared, extract=extract, n_heatmaps=n_heatmaps, stage_two=stage_two, cam=cam, cka=cka)


def describe_settings(settings: RunSettings) -> SettingsRecord:
    """Return settings without paths, as records hold them."""
    extract = settings.extract
    cut, spec = extract.cut, extract.cut.spec
    return SettingsRecord(
        encoder=name_in_files(extract.encoder),
        weights=extract.encoder.weights if extract.encoder.weights == "random" else "pretrained",
        tile_px=spec.tile_px,
        mpp=spec.mpp,
        mpp_seen=find_seen(find_encoder(extract.encoder.name), spec.tile_px, spec.mpp)[1],
        stride_px=spec.stride,
        min_tissue=spec.min_tissue,
        tissue=cut.tissue,
        max_upsample=cut.max_upsample,
        tiles_per_slide=spec.tiles_per_slide,
        include_class=cut.include_class,
        exclude_class=cut.exclude_class,
        dtype=extract.dtype,
        device=extract.runtime.device,
        precision=extract.runtime.precision,
        **describe_training(settings),
        stage_two=None if settings.stage_two is None else settings.stage_two.describe(),
    )


class TrainingFields(TypedDict):
    """How heads were trained, as fields of `SettingsRecord`."""

    train: dict[str, Value]
    unit: UnitName
    width: int | None
    n_seeds: int
    n_folds: int
    split_seed: int
    sensitivity: float | None


def describe_training(settings: TrainingSettings) -> TrainingFields:
    """Return how heads were trained, as records hold it."""
    return {
        "train": dataclasses.asdict(settings.train),
        "unit": settings.unit,
        "width": settings.width,
        "n_seeds": settings.n_seeds,
        "n_folds": settings.n_folds,
        "split_seed": settings.split_seed,
        "sensitivity": settings.sensitivity,
    }


def restore_extract_settings(record: SettingsRecord, encoder: EncoderSpec) -> ExtractSettings:
    """Return the settings by which a finished run cut and encoded, for new slides; nothing of them is `unknown`.

    A run in int8 has its new slides in `auto`: its scales are those of its own tiles, and fp32 lies nearer to them than
    int8 with the scales of others does.
    """
    spec = TileSpec(
        tile_px=_known(record.tile_px),
        mpp=_known(record.mpp),
        stride_px=_known(record.stride_px),
        min_tissue=_known(record.min_tissue),
        tiles_per_slide=record.tiles_per_slide,
    )
    cut = CutSettings(spec=spec, tissue=_known(record.tissue), max_upsample=_known(record.max_upsample))
    precision = _known(record.precision)
    runtime = RuntimeSettings(precision="auto" if precision == "int8" else precision)
    # The run has seen what it saw: new slides are seen alike.
    return ExtractSettings(cut=cut, encoders=(encoder,), runtime=runtime, dtype=_known(record.dtype), off_spec=True)


def _known(value: _T | None) -> _T:
    assert value is not None, "callers refuse runs on bags that do not state it"
    return value
