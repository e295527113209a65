"""A study folder, read for its page: files alone, no torch, anything but the record and the verdict may be absent."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lamella.errors import ModelError
from lamella.study.study_folder import StudyFolder


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class SlideCall:
    """One slide as the shown arm sees it.

    Attributes:
        slide_id: Which slide.
        label: Its label.
        probability: Of the positive class, or of its own label with more than two classes.
        fold: Round that tested it.
        loss: Log-loss of its label: the larger, the worse the error.
    """

    slide_id: str
    label: str
    probability: float
    fold: int
    loss: float


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class StudyRecord:
    """What a page needs of a study.

    Attributes:
        folder: Where it lies.
        study: `study.json`.
        verdict: `verdict.json`, or nothing where no arm ran.
        controls: `controls.json`.
        metrics: `metrics.json`, by arm.
        cka: `cka.json`.
        localisation: `localisation.json`.
        costs: `costs.json`.
        ledger: Rows of `ledger.csv`.
        failures: Rows of `failures.csv`.
        shown: Name of the arm whose slides are shown.
        calls: Its slides, the worst errors first.
    """

    folder: StudyFolder
    study: dict[str, Any]
    verdict: dict[str, Any]
    controls: dict[str, Any]
    metrics: dict[str, Any]
    cka: dict[str, Any]
    localisation: dict[str, Any]
    costs: dict[str, Any]
    ledger: list[dict[str, str]]
    failures: list[dict[str, str]]
    shown: str | None
    calls: list[SlideCall]

    @property
    def positive(self) -> str:
        """The class that is scored, or the last."""
        return str(self.study["positive"] or self.study["classes"][-1])

    def scores_of(self, arm: str) -> tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.int64]]:
        """Return truth `(n,)`, probability of the positive class `(n,)` and fold `(n,)` of an arm's test slides."""
        frame = load_predictions(self.folder, self.study["classes"], arm)
        truth = (frame["label"] == self.positive).to_numpy()
        return truth, frame[f"p_{self.positive}"].to_numpy(np.float64), frame["fold"].to_numpy(np.int64)


def load_study(path: Path) -> StudyRecord:
    """Read a study folder.

    Raises:
        ModelError: If it holds no study, or a file of it is damaged.
    """
    folder = StudyFolder(Path(path))
    study = _read(folder.record)
    if study.get("format") != "lamella-study":
        raise ModelError(f"'{path}' holds no study (study.json). Name the --out folder of a `lamella study`.")
    verdict = _read(folder.verdict)
    own = verdict.get("verdict", {})
    shown = own.get("arm") or own.get("best_arm")
    return StudyRecord(
        folder=folder,
        study=study,
        verdict=verdict,
        controls=_read(folder.controls),
        metrics=_read(folder.metrics),
        cka=_read(folder.cka),
        localisation=_read(folder.localisation),
        costs=_read(folder.costs),
        ledger=_read_rows(folder.path / "ledger.csv"),
        failures=_read_rows(folder.path / "failures.csv"),
        shown=shown,
        calls=[] if shown is None else _list_calls(folder, study, shown),
    )


def load_predictions(folder: StudyFolder, classes: list[str], arm: str) -> pd.DataFrame:
    """Return an arm's test slides, one row each: the mean logits over seeds as probabilities `p_<class>`."""
    frame = pd.read_parquet(folder.predictions)
    frame = frame[(frame["arm"] == arm) & (frame["side"] == "test")]
    logits = [f"logit_{name}" for name in classes]
    grouped = frame.groupby("slide_id", as_index=False).agg(
        {"label": "first", "fold": "first", **dict.fromkeys(logits, "mean")}
    )
    values = grouped[logits].to_numpy(np.float64)
    shares = np.exp(values - np.logaddexp.reduce(values, axis=1, keepdims=True))
    for place, name in enumerate(classes):
        grouped[f"p_{name}"] = shares[:, place]
    return grouped


def _list_calls(folder: StudyFolder, study: dict[str, Any], arm: str) -> list[SlideCall]:
    frame = load_predictions(folder, study["classes"], arm)
    calls = []
    for row in frame.to_dict("records"):
        label = str(row["label"])
        scored = study["positive"] if study["positive"] is not None else label
        own = max(float(row[f"p_{label}"]), 1e-300)
        calls.append(
            SlideCall(
                slide_id=str(row["slide_id"]),
                label=label,
                probability=float(row[f"p_{scored}"]),
                fold=int(row["fold"]),
                loss=float(-np.log(own)),
            )
        )
    return sorted(calls, key=lambda call: (-call.loss, call.slide_id))


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"'{path}' is damaged. Run `lamella study` again: it makes what is missing.") from error
    return content if isinstance(content, dict) else {}


def _read_rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))
