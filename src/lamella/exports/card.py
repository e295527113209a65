"""The card of an exported model, `model.json`: what it is, how to cut, figures, limits, the SHA-256 of each file."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal

from pydantic import Field, JsonValue, ValidationError

from lamella.analysis.figure import Figure, Interval
from lamella.analysis.scores import CalibrationScores
from lamella.analysis.thresholds import Threshold
from lamella.errors import LamellaError, ModelError
from lamella.files import read_json, write_json
from lamella.records import Record
from lamella.runs.metrics import Difference
from lamella.runs.record import SettingsRecord

CARD, REFERENCE, SEEN = "model.json", "reference.npz", "seen.json"
FORMAT: Final = "lamella-export"
FORMAT_VERSION: Final = 1
_AGAIN = "Get the folder again from where it came."
_NUMBERED = r"fold\d{1,6}-seed\d{1,19}"
_ENCODER = rf"(?:encoder|encoders/{_NUMBERED})"
_OURS = re.compile(
    rf"README\.md|reference\.npz|seen\.json|{_ENCODER}\.(?:safetensors|json|xml|bin|onnx|onnx\.data)"
    rf"|heads\.onnx(?:\.data)?|heads/{_NUMBERED}/model\.(?:json|safetensors)"
)


class OpenVinoInput(Record):
    """How an encoder is fed as OpenVINO's network."""

    version: str
    tile_px: int
    batch_size: int
    input: str
    output: str


class ExportedEncoder(Record):
    """What an encoder of an export is, as its own `.json` says too; `width` is of an embedding."""

    name: str
    network: str
    depth: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pixels: str
    resized_to_px: int | None
    source: str
    weights: str
    trained_on: tuple[str, ...]
    licence: str
    fingerprint: str
    openvino: OpenVinoInput | None


class ExportedHead(Record):
    """One model: the folder of its head below `heads/`, and the encoder whose bags it reads; `bags` where none came."""

    fold: int
    seed: int
    head: str
    encoder: str


class TrainedOn(Record):
    """What the models have learned from; `slide_mpp` is the finest and the coarsest level 0, um per pixel, if known."""

    n_slides: int
    n_patients: int
    n_tiles: int
    n_slides_by_class: dict[str, int]
    slide_mpp: tuple[float, float] | None
    formats: dict[str, int]
    in_regions: bool


class AmongArms(Record):
    """What the study found of an arm beside the others."""

    auc: float | None = None
    interval: Interval | None = None
    auc_pooled: float | None = None
    auc_pooled_interval: Interval | None = None
    seed_sd: float | None = None
    deficit: float | None = None
    deficit_upper: float | None = None


class Figures(Record):
    """What is known of how good it is; of a fine-tuned arm of a run the AUC and its difference from stage 1 alone."""

    unit: str = "patients"
    cross_validated: bool | None = None
    n_patients: int | None = None
    n_by_class: dict[str, int] | None = None
    auc: Figure | None = None
    auc_pooled: Figure | None = None
    balanced_accuracy: Figure | None = None
    sensitivity: Figure | None = None
    specificity: Figure | None = None
    ppv: Figure | None = None
    npv: Figure | None = None
    average_precision: Figure | None = None
    brier: Figure | None = None
    log_loss: Figure | None = None
    calibration: CalibrationScores | None = None
    less_stage_1: Difference | None = None
    among_arms: AmongArms | None = None


class OnnxFiles(Record):
    """How the ONNX files are fed, and whether they were held against torch."""

    opset: int
    checked: bool
    said: str


class SeenHashes(Record):
    """What `seen.json` holds: salted hashes of patients, of files; under pseudonyms neither the salt nor patients."""

    salt: str | None
    patients: tuple[str, ...]
    images: tuple[str, ...]


class ExportCard(Record):
    """What `model.json` holds; docs/formats.md has each field."""

    format: Literal["lamella-export"] = "lamella-export"
    format_version: Literal[1] = 1
    lamella_version: str
    made: str
    arm: str
    finetuned: str
    classes: tuple[str, ...] = Field(min_length=1)
    positive: str | None
    threshold: Threshold | None
    settings: SettingsRecord
    encoders: dict[str, ExportedEncoder]
    members: tuple[ExportedHead, ...] = Field(min_length=1)
    trained_on: TrainedOn
    figures: Figures
    notes: tuple[str, ...]
    pseudonyms: bool
    versions: dict[str, str]
    limits: tuple[str, ...] = ()
    onnx: OnnxFiles | None = None
    files: dict[str, str] = Field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write it with its own SHA-256, whole or not at all."""
        content = self.as_json()
        write_json(path, content | {"card_sha256": hash_card(content)})


def load_card(folder: Path | str) -> ExportCard:
    """Load the card of an exported model, checked to be as it was written.

    Raises:
        ModelError: If there is none, or of another version, or it was changed, or lacks something, or lists a file
            that no export writes.
    """
    path = Path(folder) / CARD
    try:
        content = read_json(path, made_by="lamella export")
    except LamellaError as error:
        raise ModelError(
            f"'{folder}' holds no exported model ({CARD} cannot be read). Name the --out folder of `lamella export`."
        ) from error
    if content.get("format") != FORMAT:
        raise ModelError(f"'{path}' is no card of an exported model. Name the --out folder of `lamella export`.")
    if content.get("format_version") != FORMAT_VERSION:
        raise ModelError(
            f"'{path}' has format version {content.get('format_version')} and this version of lamella reads "
            f"{FORMAT_VERSION}. Install lamella {content.get('lamella_version')}."
        )
    if content.get("card_sha256") != hash_card(content):
        raise ModelError(f"'{path}' is not as it was written (its own SHA-256 differs). {_AGAIN}")
    try:
        card = ExportCard.model_validate(content)
    except ValidationError as error:
        where = ".".join(map(str, error.errors(include_url=False, include_input=False)[0]["loc"]))
        raise ModelError(f"'{path}' lacks {where}, or holds something else there. {_AGAIN}") from error
    strange = next((name for name in card.files if not is_ours(name)), None)
    if strange is not None:
        raise ModelError(f"'{path}' lists '{strange}', which is no file of an export. {_AGAIN}")
    return card


def hash_card(content: Mapping[str, JsonValue]) -> str:
    """Return the SHA-256 of what a card holds, less the entry that states it."""
    rest = {key: value for key, value in content.items() if key != "card_sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def is_ours(name: str) -> bool:
    """True for the name of a file that an export writes, relative to its folder.

    Example:
        >>> is_ours("heads/fold0-seed1/model.json"), is_ours("../model.json"), is_ours("heads/../../x.json")
        (True, False, False)
    """
    return _OURS.fullmatch(name) is not None
