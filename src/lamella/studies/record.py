"""What a study says of itself, `study.json`: the design, each arm and its state, versions, notes. No paths."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from pydantic import Field, RootModel

from lamella.cohort import Cohort, list_rounds
from lamella.defaults import UNIT, UnitName
from lamella.errors import ModelError, SettingsError
from lamella.records import Record, Result
from lamella.runs.record import list_versions
from lamella.studies.arms import Arm, Finetuned
from lamella.studies.folder import StudyFolder

RECORD_FORMAT: Final = 1
# What may change while a study goes on: its figures stay those of the same folds, seeds, tiles and training.
_FREE = {"arms", "comparisons", "margin", "budget", "preset", "permutations", "cka", "cam", "localise",
         "lesion_class", "lesion_value", "costs", "finetune_best", "control_arm", "reference", "off_spec"}  # fmt: skip


class ChosenArm(Record):
    """The frozen arm that was chosen in one fold, and the log-loss on validation of all it was chosen from."""

    fold: int
    arm: str
    val_log_loss: dict[str, float]


class ArmRecord(Record):
    """What a study says of one arm.

    `state` is `done`, `not run`, `waiting for weights` or `failed`, and `reason` says why it is not done;
    `estimated_seconds` is what it took, once done; `chosen` is there where the arm is another one in each fold. Of an
    arm whose bags or predictions were made elsewhere `depth` is None, and `weights`, `head` and `tiles` are "".
    `tiles_per_slide` and `width` are None where all tiles are read and embeddings are as they are; `mean_tiles` is how
    many tiles a slide has that the arm reads, on average. `mpp_asked` and `mpp_seen` are the resolutions of its tiles
    as they are cut, and as its encoder sees them.
    """

    arm: str
    key: str
    encoder: str
    depth: int | None
    weights: str
    finetuned: Finetuned
    head: str
    tiles: str
    tile_px: int | None = None
    mpp_asked: float | None = None
    mpp_seen: float | None = None
    state: str
    reason: str | None
    command: str | None = None
    estimated_seconds: float | None = None
    declared: bool
    pretraining: str = "other"
    imagenet_top1: float | None = None
    parameters: int | None = None
    gflops: float | None = None
    dim: int | None = None
    licence: str | None = None
    features: str | None = None
    tiles_per_slide: int | None = None
    width: int | None = None
    mean_tiles: float | None = None
    chosen: tuple[ChosenArm, ...] = ()

    @property
    def series(self) -> tuple[str, ...]:
        """What it shares with the arms that differ from it in depth or tuning alone."""
        most = "" if self.tiles_per_slide is None else f"{self.tiles_per_slide} tiles"
        width = "" if self.width is None else f"width {self.width}"
        return self.encoder, self.weights, self.head, self.tiles, *(part for part in (most, width) if part)


class TilesRecord(Record):
    """How slides were cut."""

    tile_px: int
    mpp: float
    stride_px: int | None = None
    min_tissue: float


class TrainRecord(Record):
    """How heads were trained."""

    epochs: int
    patience: int
    lr: float
    weight_decay: float


class FinetuneRecord(Record):
    """How encoders were fine-tuned."""

    k: int
    epochs: int
    encoder_lr: float
    head_lr: float
    train_blocks: int | None = None
    flips: bool = False
    stain_jitter: float = 0.0
    n_seeds: int


class ComparisonRecord(Record):
    """A comparison that the design declares."""

    name: str
    rule: str | None = None
    encoders: tuple[str, ...] | None = None
    pairs: tuple[tuple[str, str], ...] = ()


class DesignRecord(Record):
    """What a study was asked."""

    tiles: dict[str, TilesRecord] = Field(default_factory=dict)
    seeds: int
    folds: int
    unit: UnitName = UNIT
    split: str = "folds"
    split_seed: int = 0
    train: TrainRecord | None = None
    finetune: FinetuneRecord | None = None
    comparisons: tuple[ComparisonRecord, ...] = ()
    margin: float
    reference: tuple[str, ...] = ()
    cam: bool = False


class CohortCounts(Record):
    """What a study's cohort holds; `own_division` is whether the table brought its division, None in version 0.1.0."""

    n_slides: int
    n_patients: int
    per_class: dict[str, int]
    n_rounds: int
    n_failed: int = 0
    tiles_a_slide: dict[str, float] = Field(default_factory=dict)
    own_division: bool | None = None


class WorkRecord(Record):
    """One item of a study's list of work, and whether it is `done` or `to do`."""

    item: str
    state: str


class GivenRecord(Record):
    """How predictions that were made elsewhere were taken: files by arm, costs, folds left out."""

    files: dict[str, str]
    costs: dict[str, float] | None = None
    n_left_out: int


class StudyRecord(Result):
    """What `study.json` holds; its `status` is `running`, `finished` or `budget spent`.

    `given` is there where Lamella trained nothing, and compared predictions that were made elsewhere. `cost_unit` is
    there where costs were not all measured here: "" where an arm has none.
    """

    format: Literal["lamella-study"] = "lamella-study"
    format_version: Literal[1]
    status: str
    preset: str | None
    design: DesignRecord
    classes: tuple[str, ...] = Field(min_length=1)
    positive: str | None
    arms: tuple[ArmRecord, ...]
    cohort: CohortCounts
    versions: dict[str, str] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()
    scope: str | None = None
    given: GivenRecord | None = None
    cost_unit: str | None = None
    work: tuple[WorkRecord, ...] = ()
    files: dict[str, str] = Field(default_factory=dict)


class EncoderCost(Record):
    """What encoding a tile costs (the median of `runs`), and on what that was measured."""

    seconds_per_tile: float
    runs: tuple[float, ...] = ()
    gflops: float
    parameters: int | None = None
    dim: int | None = None
    device: str | None = None
    precision: str | None = None
    runtime: str | None = None
    processor: str | None = None
    n_cores: int | None = None


class Costs(RootModel[dict[str, EncoderCost]]):
    """What `costs.json` holds, by `lamella.studies.costs.name_cost`."""


class Design(Protocol):
    """What a record needs to know of a design."""

    preset: str | None

    def as_plain(self) -> dict[str, Any]:
        """Return it as its file has it."""
        ...


def describe_study(cohort: Cohort, design: Design, *, status: str, arms: Iterable[ArmRecord]) -> StudyRecord:
    """Return what is known of a study from its cohort, its design and its arms.

    Args:
        cohort: With folds or splits.
        design: What is compared.
        status: How far it is: `running`, `finished` or `budget spent`.
        arms: What is said of each.
    """
    slides = cohort.slides
    patients = {name: {slide.patient_id for slide in slides if slide.label == name} for name in cohort.classes}
    return StudyRecord(
        format="lamella-study",
        format_version=RECORD_FORMAT,
        status=status,
        preset=design.preset,
        design=DesignRecord.model_validate(design.as_plain()),
        classes=cohort.classes,
        positive=cohort.positive,
        arms=tuple(arms),
        cohort=CohortCounts(
            n_slides=len(slides),
            n_patients=len({slide.patient_id for slide in slides}),
            per_class={name: len(ids) for name, ids in patients.items()},
            n_rounds=len(list_rounds(cohort)),
        ),
        versions=list_versions(),
    )


def was_declared(arm: Arm, earlier: StudyRecord | None) -> bool:
    """Say whether an arm stood in the design before any result was seen.

    Args:
        arm: Which arm.
        earlier: The record of an earlier run into the same folder; None where there was none.
    """
    if earlier is None:
        return True
    known = {row.arm: row.declared for row in earlier.arms}
    return known.get(arm.name, earlier.status == "running")


def load_record(path: Path) -> StudyRecord | None:
    """Return what `study.json` holds; None where there is none.

    Raises:
        SettingsError: If it cannot be read.
    """
    if not path.exists():
        return None
    try:
        return StudyRecord.load(path, made_by="lamella study")
    except ModelError as error:
        raise SettingsError(f"'{path}' is no record of a study that this version reads. Name another --out.") from error


def refuse_other_design(earlier: StudyRecord | None, design: Design, folder: StudyFolder) -> None:
    """Refuse to go on in a folder whose study was divided, cut or trained otherwise: its figures would be mixed."""
    if earlier is None:
        return
    stated = earlier.design.as_json()
    for key, value in design.as_plain().items():
        # What an earlier version did not know was as it is by default.
        before = stated[key] if key in stated else getattr(earlier.design, key, None)
        if key == "tiles":  # an arm that is added may bring tiles of its own
            value = {name: spec for name, spec in value.items() if name in (before or {})}
        if key not in _FREE and before != value:
            raise SettingsError(
                f"'{folder.path}' holds a study whose '{key}' is {before} and {value} is asked "
                "for. Name another --out; only arms may be added to a study."
            )
