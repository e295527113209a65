"""The run folder: the one place that knows where a run keeps what.

DIR/report.html                the page
DIR/report.parquet             every number of it, from which `lamella report` makes it again
DIR/run.json                   settings, versions, notes
DIR/cohort.csv                 ids, labels, folds; no paths
DIR/ledger.csv                 tissue kept and removed by each step
DIR/predictions.csv            out-of-fold predictions
DIR/metrics.json               results with intervals, and the baselines
DIR/failures.csv               slides that could not be done, with the reason
DIR/models/<round>/seed<s>/    a model each: model.safetensors, model.json
DIR/finetuned/                 stage 2: encoders, models and what each arm found (runs.stage_two says what lies where)
DIR/cka.json                   how far fine-tuning moved each block
DIR/external.json              of new slides predicted by several models: whether what was recommended holds there
DIR/heatmaps/<slide_id>/       pictures, GeoJSON and TIFF of attention
DIR/cam/<slide_id>/            class activation maps (explain.cam says what lies where)
DIR/features/...               bags; where `features.at` stands in its place, that names their folder, relative to DIR
DIR/attention/<slide_id>.h5    attention as numbers
DIR/local/                     what holds paths, and with --pseudonyms the key of the ids: not to be passed on
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lamella.errors import ModelError
from lamella.files import find_sha256

_TABLES = ("cohort.csv", "ledger.csv", "predictions.csv", "predictions.parquet", "results.csv")


class _HasPath(Protocol):
    @property
    def path(self) -> Path: ...


class Inside:
    """A path inside a folder of ours, by its name there."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, folder: _HasPath, _: type[_HasPath]) -> Path:
        """Return it."""
        return folder.path / self._name


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Names inside a run folder.

    Attributes:
        path: The folder.
    """

    path: Path

    page = Inside("report.html")
    settings = Inside("run.json")
    cohort = Inside("cohort.csv")
    ledger = Inside("ledger.csv")
    predictions = Inside("predictions.csv")
    metrics = Inside("metrics.json")
    cka = Inside("cka.json")
    external = Inside("external.json")
    failures = Inside("failures.csv")
    models = Inside("models")
    finetuned = Inside("finetuned")
    heatmaps = Inside("heatmaps")
    attention = Inside("attention")
    cam = Inside("cam")
    local = Inside("local")

    @property
    def features(self) -> Path:
        """Bags: the run's own, or those that the arms of a study share."""
        elsewhere = self.path / "features.at"
        if elsewhere.exists():
            return Path(os.path.normpath(self.path / _read_elsewhere(elsewhere)))
        return self.path / "features"

    @property
    def given_bags(self) -> Path:
        """What says where the bags lie that were there before the run."""
        return self.local / "bags.json"

    def model(self, protocol: str, fold: int, seed: int) -> Path:
        """Return the folder of one model; `protocol` is `fold` or `batch`."""
        return self.models / f"{protocol}{fold}" / f"seed{seed}"

    def stage_two(self, fold: int, seed: int) -> Path:
        """Return where stage 2 of a fold and seed lies: its arms, a folder each."""
        return self.finetuned / f"fold{fold}" / f"seed{seed}"

    def cam_of(self, arm: str) -> Path:
        """Return where the maps of an arm lie, a folder a slide; `arm` is `frozen` or `tuned`."""
        return self.cam if arm == "frozen" else self.cam / arm


def hash_tables(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each table of a run or study that is there, by name, for its record to hold."""
    return {name: find_sha256(folder / name) for name in _TABLES if (folder / name).is_file()}


def refuse_changed_tables(folder: Path, stated: Mapping[str, str], *, made_by: str) -> None:
    """Refuse a folder of which a table is not the one that its record speaks of; one that is not there is no matter.

    Args:
        folder: Of the run or study.
        stated: What its record has as `files`: what `hash_tables` returned; of earlier versions nothing.
        made_by: The command that wrote it.

    Raises:
        ModelError: Naming the table.
    """
    for name, sha256 in hash_tables(folder).items():
        if name in stated and stated[name] != sha256:
            raise ModelError(
                f"'{name}' of '{folder}' is not as it was written (its SHA-256 differs): it was changed or is damaged. "
                f"Run `{made_by}` again."
            )


def _read_elsewhere(path: Path) -> str:
    """Return where the bags of an arm lie: in the features of the study that it is an arm of.

    Raises:
        ModelError: If it names anything else: an arm may have been passed on by anyone.
    """
    try:
        said = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        said = ""
    if not re.fullmatch(r"(\.\./){1,4}features(/weights-[^/\\\x00]+)?", said):
        raise ModelError(f"'{path}' does not name the features of a study. Run `lamella study` again.")
    return said
