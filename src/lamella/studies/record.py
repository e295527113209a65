"""What a study says of itself, `study.json`: the design, each arm and its state, versions, notes. No paths."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from pydantic import Field

from lamella.cohort import Cohort, list_rounds
from lamella.errors import ModelError, SettingsError
from lamella.runs.record import Record, list_versions
from lamella.studies.arms import Arm
from lamella.studies.folder import StudyFolder

RECORD_FORMAT: Final = 1
# What may change while a study goes on: its figures stay those of the same folds, seeds, tiles and training.
_FREE = {"arms", "comparisons", "margin", "budget", "preset", "permutations", "cka", "cam", "localise",
         "lesion_class", "lesion_value", "finetune_best", "control_arm", "reference"}  # fmt: skip


class ChosenArm(Record):
    """The frozen arm that was chosen in one fold, and the log-loss on validation of all it was chosen from."""

    fold: int
    arm: str
    val_log_loss: dict[str, float]


class ArmRecord(Record):
    """What a study says of one arm.

    Attributes:
        arm: Its name.
        key: By which its folder was named until 0.1.0.
        encoder: Without its depth.
        depth: How many blocks are kept.
        weights: `auto`, `random`, or the name of a file.
        finetuned: `frozen`, `head` or `tuned`.
        head: How tiles are pooled.
        tiles: Name of the tile spec.
        state: `done`, `not run`, `waiting for weights`, `failed` or that it was left out.
        reason: Why it is not done.
        command: What gets its weights, where they are not here.
        estimated_seconds: What it would take; what it took, where it is done.
        declared: Whether it stood in the design before results were seen.
        pretraining: `imagenet`, `histology`, `random` or `other`.
        imagenet_top1: Of its card.
        parameters: Of its network.
        gflops: A tile.
        dim: Width of its embeddings.
        licence: Of its weights.
        chosen: In each fold, where it is chosen there.
    """

    arm: str
    key: str
    encoder: str
    depth: int
    weights: str
    finetuned: Literal["frozen", "head", "tuned"]
    head: str
    tiles: str
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
    chosen: tuple[ChosenArm, ...] = ()


class CohortCounts(Record):
    """What a study's cohort holds.

    Attributes:
        n_slides: Slides.
        n_patients: Patients.
        per_class: Patients of each class.
        n_rounds: Folds, or one.
        n_failed: Slides that could not be done.
        tiles_a_slide: Mean, by tile spec.
        own_division: Whether the table brought its folds or splits.
    """

    n_slides: int
    n_patients: int
    per_class: dict[str, int]
    n_rounds: int
    n_failed: int = 0
    tiles_a_slide: dict[str, float] = Field(default_factory=dict)
    own_division: bool = False


class StudyRecord(Record):
    """What `study.json` holds.

    Attributes:
        format: `lamella-study`.
        format_version: Of the file.
        status: How far it is: `running`, `finished` or `budget spent`.
        preset: That the design was made from.
        design: What is compared, as its file has it.
        classes: In the order of the logits.
        positive: The class that is scored, of two.
        arms: In the order of the design.
        cohort: What it holds.
        versions: Of Python, the system and the packages that bear on results.
        notes: What was said aloud.
        scope: What the page is to say of this cohort besides.
        files: SHA-256 of each table, by name.
    """

    format: Literal["lamella-study"] = "lamella-study"
    format_version: Literal[1]
    status: str
    preset: str | None
    design: dict[str, Any]
    classes: tuple[str, ...]
    positive: str | None
    arms: tuple[ArmRecord, ...]
    cohort: CohortCounts
    versions: dict[str, str] = Field(default_factory=dict)
    notes: tuple[str, ...] = ()
    scope: str | None = None
    files: dict[str, str] = Field(default_factory=dict)


class Design(Protocol):
    """What a record needs to know of a design."""

    preset: str | None

    def as_plain(self) -> dict[str, Any]:
        """Return it as its file has it."""
        ...


def describe_study(cohort: Cohort, design: Design, *, status: str, rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what `study.json` is to hold of a study.

    Args:
        cohort: With folds or splits.
        design: What is compared.
        status: How far it is: `running`, `finished` or `budget spent`.
        rows: What is said of each arm.
    """
    slides = cohort.slides
    patients = {name: {slide.patient_id for slide in slides if slide.label == name} for name in cohort.classes}
    return StudyRecord(
        format="lamella-study",
        format_version=RECORD_FORMAT,
        status=status,
        preset=design.preset,
        design=design.as_plain(),
        classes=cohort.classes,
        positive=cohort.positive,
        arms=tuple(ArmRecord.model_validate(row) for row in rows),
        cohort=CohortCounts(
            n_slides=len(slides),
            n_patients=len({slide.patient_id for slide in slides}),
            per_class={name: len(ids) for name, ids in patients.items()},
            n_rounds=len(list_rounds(cohort)),
        ),
        versions=list_versions(),
    ).as_json()


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
    for key, value in design.as_plain().items():
        if key not in _FREE and earlier.design.get(key) != value:
            raise SettingsError(
                f"'{folder.path}' holds a study whose '{key}' is {earlier.design.get(key)} and {value} is asked "
                "for. Name another --out; only arms may be added to a study."
            )
