"""What the JSON files of a run and of a study hold, typed: read once, by `lamella.reports.record`.

Keys that a page has no use for are passed over; those that folders of version 0.1.0 lack have a default.
"""

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lamella.errors import ModelError
from lamella.files import parse_json_file

Interval = tuple[float, float]
_C = TypeVar("_C", bound=BaseModel)


class _Content(BaseModel):
    """Content of a file: read, never changed."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class Estimate(_Content):
    """A figure, its interval, how that is made; or the reason why there is none."""

    value: float | None = None
    interval: Interval | None = None
    method: str | None = None
    reason: str | None = None
    prevalence: float | None = None


class CalibrationLine(_Content):
    """Intercept and slope of the logits."""

    intercept: Estimate = Estimate()
    slope: Estimate = Estimate()


class Measures(_Content):
    """Every measure of some slides or patients."""

    n: int | None = None
    batch: str = ""
    n_by_class: dict[str, int] = {}
    auc: Estimate = Estimate()
    auc_pooled: Estimate = Estimate()
    average_precision: Estimate = Estimate()
    balanced_accuracy: Estimate = Estimate()
    sensitivity: Estimate = Estimate()
    specificity: Estimate = Estimate()
    ppv: Estimate = Estimate()
    npv: Estimate = Estimate()
    brier: Estimate = Estimate()
    log_loss: Estimate = Estimate()
    calibration: CalibrationLine | None = None


class ThresholdContent(_Content):
    """A threshold and how it was chosen."""

    value: float | None = None
    note: str = ""


class ArmMetrics(_Content):
    """What `measure` says of one arm."""

    headline: str = "patients"
    cross_validated: bool = True
    slides: Measures | None = None
    patients: Measures | None = None
    batches: tuple[Measures, ...] = ()
    auc_within_batches: Estimate = Estimate()
    thresholds: dict[int, ThresholdContent] | None = None
    notes: tuple[str, ...] = ()
    reason: str | None = None
    baselines: dict[str, "ArmMetrics"] = {}  # of the model with batches left out

    @property
    def headline_measures(self) -> Measures | None:
        """Those by patient where patients were scored, else by slide."""
        return self.slides if self.patients is None else self.patients

    @property
    def auc(self) -> Estimate:
        """The headline figure, or why there is none."""
        measures = self.headline_measures
        return Estimate(reason=self.reason) if measures is None else measures.auc

    @property
    def counts_patients(self) -> bool:
        """Whether patients were scored and are fewer than slides."""
        return self.patients is not None and self.slides is not None and self.patients.n != self.slides.n


class RunArms(_Content):
    """The model of a run and what it is held against."""

    model: ArmMetrics | None = None
    baselines: dict[str, ArmMetrics] = {}
    leave_one_batch_out: ArmMetrics | None = None


class PairedDifference(_Content):
    """An arm less stage 1, on the same patients."""

    difference: float
    interval: Interval | None = None


class StageTwoArm(_Content):
    """Stage 1, the control or the fine-tuned encoder, on all tiles or on its most attended ones."""

    arm: str
    reading: str
    auc: float | None = None
    interval: Interval | None = None
    less_stage_1: PairedDifference | None = None


class StageTwoContent(_Content):
    """What fine-tuning of a run reached."""

    arms: tuple[StageTwoArm, ...] = ()


class RunMetrics(_Content):
    """`metrics.json` of a run."""

    classes: tuple[str, ...] = ()
    positive: str | None = None
    arms: RunArms = RunArms()
    thresholds: dict[int, ThresholdContent] | None = None
    stage_two: StageTwoContent | None = None
    cka: tuple["CkaPair", ...] = ()  # of 0.1.0, which had no cka.json
    notes: tuple[str, ...] = ()


class RunContent(_Content):
    """`run.json`."""

    classes: tuple[str, ...] = Field(min_length=1)
    positive: str | None = None
    settings: dict[str, Any]
    runtime: str | None = None
    versions: dict[str, str] = {}
    finished: str | None = None
    notes: tuple[str, ...] = ()
    external: bool = False
    files: dict[str, str] | None = None


class CkaPair(_Content):
    """A fine-tuned encoder against its frozen one, of a fold and seed, by block; or why they were not compared."""

    arm: str = "fine-tuned"
    base: str = "frozen"
    fold: int | str = 0
    seed: int = 0
    cka: tuple[float | None, ...] = ()
    low: tuple[float | None, ...] | None = None
    high: tuple[float | None, ...] | None = None
    one_block: tuple[float | None, ...] | None = None
    another_seed: tuple[float | None, ...] | None = None
    random: tuple[float | None, ...] | None = None
    weight_change: tuple[float | None, ...] | None = None
    matrix: tuple[tuple[float, ...], ...] | None = None
    note: str | None = None


class CkaContent(_Content):
    """`cka.json`."""

    pairs: tuple[CkaPair, ...] = ()


class Froc(_Content):
    """FROC, by the rules of CAMELYON16."""

    score: float
    n_lesions: int
    n_slides: int


class MapMeasures(_Content):
    """What one map reaches against outlines."""

    n_slides: int | None = None
    n_patients: int | None = None
    tile_auc: Estimate | None = None
    tile_ap: Estimate | None = None
    pixel_auc: Estimate | None = None
    pixel_ap: Estimate | None = None
    pointing: Estimate | None = None
    top_k: Estimate | None = None
    tile_share: Estimate | None = None
    froc: Froc | None = None


class LocalisationSettings(_Content):
    """How maps were held against outlines."""

    k: int | None = None
    radius_um: float | None = None
    smallest_um: float | None = None


class ArmMaps(_Content):
    """The maps of an arm; `localisation.json` of a run holds one, which it does not name."""

    arm: str = ""
    maps: dict[str, MapMeasures] = {}
    settings: LocalisationSettings = LocalisationSettings()
    notes: tuple[str, ...] = ()


class StudyLocalisation(_Content):
    """`localisation.json` of a study."""

    arms: tuple[ArmMaps, ...] = ()
    settings: LocalisationSettings = LocalisationSettings()
    notes: tuple[str, ...] = ()
    reason: str | None = None


class Choice(_Content):
    """Which frozen arm was fine-tuned in a fold."""

    fold: int
    arm: str
    val_log_loss: dict[str, float]


class StudyArm(_Content):
    """An arm of the design, and what became of it."""

    arm: str
    encoder: str
    depth: int
    weights: str = "auto"
    finetuned: str = "frozen"
    head: str = "attention"
    tiles: str = "default"
    state: str
    reason: str | None = None
    command: str | None = None
    estimated_seconds: float | None = None
    pretraining: str | None = None
    imagenet_top1: float | None = None
    parameters: int | None = None
    dim: int | None = None
    chosen: tuple[Choice, ...] | None = None

    @property
    def series(self) -> tuple[str, ...]:
        """What it shares with the arms that differ from it in depth or tuning alone."""
        return self.encoder, self.weights, self.head, self.tiles


class TilesContent(_Content):
    """How slides were cut."""

    tile_px: int
    mpp: float
    stride_px: int | None = None
    min_tissue: float


class TrainContent(_Content):
    """How heads were trained."""

    epochs: int
    patience: int
    lr: float
    weight_decay: float


class FinetuneContent(_Content):
    """How encoders were fine-tuned."""

    k: int
    epochs: int
    encoder_lr: float
    head_lr: float
    train_blocks: int | None = None
    flips: bool = False
    stain_jitter: float = 0.0
    n_seeds: int


class Comparison(_Content):
    """A comparison that the design declares."""

    name: str
    rule: str | None = None
    encoders: tuple[str, ...] | None = None
    pairs: tuple[tuple[str, str], ...] = ()


class Design(_Content):
    """What a study was asked."""

    tiles: dict[str, TilesContent]
    seeds: int
    folds: int
    split: str = "folds"
    split_seed: int = 0
    train: TrainContent
    finetune: FinetuneContent
    comparisons: tuple[Comparison, ...] = ()
    margin: float
    cam: bool = False


class CohortSummary(_Content):
    """The cohort in numbers."""

    n_slides: int
    n_patients: int
    per_class: dict[str, int]
    n_rounds: int | None = None
    folds: int | None = None
    own_division: bool | None = None


class StudyContent(_Content):
    """`study.json`."""

    status: str
    preset: str | None = None
    scope: str | None = None
    design: Design
    classes: tuple[str, ...] = Field(min_length=1)
    positive: str | None = None
    arms: tuple[StudyArm, ...]
    cohort: CohortSummary
    notes: tuple[str, ...] = ()
    versions: dict[str, str] = {}
    files: dict[str, str] | None = None


class ArmVerdict(_Content):
    """What the judge says of an arm that ran."""

    arm: str
    auc: float
    interval: Interval
    auc_pooled: float | None = None
    auc_pooled_interval: Interval | None = None
    chance_p_holm: float | None = None
    deficit_upper: float | None = None
    margin_to_whole: float | None = None
    not_worse: bool
    worse_than: tuple[str, ...] = ()
    expected_loss: float | None = None
    cost: float
    gflops: float
    added_later: bool = False
    fold_auc: tuple[float | None, ...] = ()
    fold_sd: float | None = None
    seed_sd: float | None = None


class DeclaredPair(_Content):
    """One arm against another, as declared."""

    arm: str
    base: str
    difference: float
    interval: Interval | None
    p: float | None
    p_holm: float | None
    starred: bool


class DeclaredTable(_Content):
    """A declared table."""

    name: str
    title: str
    rows: tuple[DeclaredPair, ...]


class Chain(_Content):
    """The depths of one network."""

    whole: str


class Conclusion(_Content):
    """What to use, what is shown to be worse, what is open."""

    arm: str | None = None
    best_arm: str | None = None
    question: str | None = None
    use: str | None = None
    worse: str | None = None
    open: str | None = None
    sentence: str | None = None
    patients_needed: int | None = None
    patients_range: tuple[int, int | None] | None = None
    patients_needed_for: str | None = None
    best_auc_raw: float | None = None
    best_auc_corrected: float | None = None


class RankCorrelation(_Content):
    """How AUC goes with ImageNet accuracy."""

    rho: float
    p: float
    interval: Interval | None = None
    caption: str


class Verdict(_Content):
    """`verdict.json`."""

    margin: float
    n_patients: int
    units: str = "patients"
    cross_validated: bool = True
    arms: tuple[ArmVerdict, ...] = ()
    tables: tuple[DeclaredTable, ...] = ()
    chains: tuple[Chain, ...] = ()
    verdict: Conclusion
    imagenet: RankCorrelation | None = None
    notes: tuple[str, ...] = ()
    n_lost: int | None = None


class Permutations(_Content):
    """The control with permuted labels."""

    arm: str
    auc: float | None = None
    aucs: tuple[float, ...]
    within: tuple[float, ...] | None = None
    p: float
    mean: float
    sd: float | None = None
    mean_within: float | None = None
    smallest_leak: float | None = None
    leak: bool = False

    @property
    def exchanged(self) -> tuple[float, ...]:
        """The AUCs among those whose labels were exchanged, where that is not everybody."""
        within = self.within or ()
        return within if within != self.aucs else ()


class Gap(_Content):
    """AUC less AUC within batches."""

    value: float | None = None
    standard_error: float | None = None


class RobustnessIndex(_Content):
    """Whether neighbours share the label or the batch."""

    value: float | None = None
    k: int | None = None


class Robustness(_Content):
    """How far an arm follows the batch."""

    arm: str
    gap: Gap | None = None
    index: RobustnessIndex | None = None
    batch_auc: Estimate | None = None


class Controls(_Content):
    """`controls.json`."""

    arm: str | None = None
    permutations: Permutations | None = None
    baselines: dict[str, Estimate] = {}
    batches: tuple[Measures, ...] = ()
    robustness: tuple[Robustness, ...] | None = None


class Cost(_Content):
    """What encoding a tile costs, and on what that was measured."""

    runtime: str | None = None
    precision: str | None = None
    device: str | None = None
    processor: str | None = None
    n_cores: int | None = None


def read_content(path: Path, kind: type[_C], *, made_by: str) -> _C | None:
    """Return what a file holds; None where there is no file.

    Args:
        path: The file.
        kind: What it should hold.
        made_by: The verb that writes it, for the error.

    Raises:
        ModelError: Naming the file and the first value that cannot be.
    """
    if not path.is_file():
        return None
    remedy = f"Run `{made_by}` again: it makes what is missing."
    try:
        return kind.model_validate(parse_json_file(path))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ModelError(f"'{path}' is damaged ({where}: {' '.join(first['msg'].split())[:120]}). {remedy}") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"'{path}' is damaged ({' '.join(str(error).split())[:120]}). {remedy}") from error
