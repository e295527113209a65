"""A study folder, read for its page: files alone, no torch; anything but `study.json` may be absent."""

import csv
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from lamella.cells import unescape_cell
from lamella.errors import ModelError
from lamella.files import parse_json_file
from lamella.reports.figures import Scores
from lamella.runs.folder import refuse_changed_tables
from lamella.studies.folder import StudyFolder

Rows = list[dict[str, str]]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class SlideCall:
    """One slide as the shown arm sees it.

    Attributes:
        slide_id: Which slide.
        patient_id: Of which patient.
        label: Its label.
        probability: Of the positive class, or of its own label with more than two classes.
        fold: Round that tested it.
        loss: Log-loss of its label: the larger, the worse the error.
        right: Whether its label is the likelier class, one half being the threshold.
    """

    slide_id: str
    patient_id: str
    label: str
    probability: float
    fold: int
    loss: float
    right: bool


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
        cohort: Rows of `cohort.csv`.
        ledger: Rows of `ledger.csv`.
        failures: Rows of `failures.csv`.
        predictions: Of the test slides, a row an arm and slide, logits averaged over seeds; empty where there are none.
        calls: Slides as the shown arm sees them, the worst errors first.
    """

    folder: StudyFolder
    study: dict[str, Any]
    verdict: dict[str, Any]
    controls: dict[str, Any]
    metrics: dict[str, Any]
    cka: dict[str, Any]
    localisation: dict[str, Any]
    costs: dict[str, Any]
    cohort: Rows
    ledger: Rows
    failures: Rows
    predictions: pd.DataFrame
    calls: tuple[SlideCall, ...] = ()

    @property
    def classes(self) -> list[str]:
        """The labels, sorted as the models have them."""
        return list(self.study["classes"])

    @property
    def positive(self) -> str:
        """The class that is scored, or the last."""
        return str(self.study.get("positive") or self.classes[-1])

    @property
    def own(self) -> dict[str, Any]:
        """The verdict itself; empty where no arm ran."""
        return dict(self.verdict.get("verdict", {}))

    @property
    def shown(self) -> str | None:
        """Name of the arm whose slides and curves are shown: the recommended one, else the one of highest AUC."""
        return self.own.get("arm") or self.own.get("best_arm")

    @property
    def arms(self) -> list[dict[str, Any]]:
        """What the verdict says of each arm that ran."""
        return list(self.verdict.get("arms", []))

    @property
    def described(self) -> dict[str, dict[str, Any]]:
        """Each arm's row in `study.json`, by name."""
        return {row["arm"]: row for row in self.study["arms"]}

    def kind_of(self, arm: str) -> str:
        """Return `recommended`, `best` (of highest AUC) or nothing."""
        if arm == self.own.get("arm"):
            return "recommended"
        return "best" if arm == self.own.get("best_arm") else ""

    def find_scores(self, arm: str, positive: str) -> Scores | None:
        """Return an arm's test scores for a class, by patient where patients are compared; None with one kind only."""
        frame = self.predictions[self.predictions["arm"] == arm] if len(self.predictions) else self.predictions
        if frame.empty or positive not in self.classes:
            return None
        logits = [f"logit_{name}" for name in self.classes]
        if self.verdict.get("units", "patients") == "patients":
            frame = frame.groupby("patient_id", as_index=False, sort=True).agg(
                {"label": "first", "fold": "first", **dict.fromkeys(logits, "mean")}
            )
        truth = (frame["label"] == positive).to_numpy()
        if truth.all() or not truth.any():
            return None
        share = _find_shares(frame[logits].to_numpy(np.float64))[:, self.classes.index(positive)]
        return Scores(name=arm, truth=truth, score=share, fold=frame["fold"].to_numpy(np.int64))


def load_study(path: Path) -> StudyRecord:
    """Read a study folder.

    Args:
        path: Of a study, finished or not.

    Raises:
        ModelError: If it holds no study, or a file of it is damaged.
    """
    folder = StudyFolder(Path(path))
    study = _read(folder.record)
    if study.get("format") != "lamella-study":
        raise ModelError(f"'{path}' holds no study (study.json). Name the --out folder of a `lamella study`.")
    refuse_changed_tables(folder.path, study, made_by="lamella study")
    cohort, failures = _read_rows(folder.path / "cohort.csv"), _read_rows(folder.path / "failures.csv")
    predictions = _load_predictions(folder, list(study["classes"]))
    record = StudyRecord(
        folder=folder,
        study=study,
        verdict=_read(folder.verdict),
        controls=_read(folder.controls),
        metrics=_read(folder.metrics),
        cka=_read(folder.cka),
        localisation=_read(folder.localisation),
        costs=_read(folder.costs),
        cohort=cohort,
        ledger=_read_rows(folder.path / "ledger.csv"),
        failures=failures,
        predictions=predictions,
    )
    return replace(record, calls=_list_calls(record))


def _load_predictions(folder: StudyFolder, classes: list[str]) -> pd.DataFrame:
    """Return the test slides, a row an arm and slide: the mean logits over seeds."""
    if not folder.predictions.exists():
        return pd.DataFrame()
    try:
        frame = pd.read_parquet(folder.predictions)
        frame = frame[frame["side"] == "test"]
        kept = {"patient_id": "first", "label": "first", "fold": "first"}
        means = {f"logit_{name}": "mean" for name in classes}
        return frame.groupby(["arm", "slide_id"], as_index=False, sort=True).agg({**kept, **means})
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(_say_damaged(folder.predictions)) from error


def _find_shares(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return probabilities `(n, C)` of logits `(n, C)`."""
    return np.asarray(np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)))


def _list_calls(record: StudyRecord) -> tuple[SlideCall, ...]:
    if record.shown is None or record.predictions.empty:
        return ()
    frame = record.predictions[record.predictions["arm"] == record.shown]
    shares = _find_shares(frame[[f"logit_{name}" for name in record.classes]].to_numpy(np.float64))
    calls = []
    for row, share in zip(frame.to_dict("records"), shares, strict=True):
        label = str(row["label"])
        if label not in record.classes:
            continue
        own = float(share[record.classes.index(label)])
        scored = record.study.get("positive") or label
        calls.append(
            SlideCall(
                slide_id=str(row["slide_id"]),
                patient_id=str(row["patient_id"]),
                label=label,
                probability=float(share[record.classes.index(scored)]),
                fold=int(row["fold"]),
                loss=float(-np.log(max(own, 1e-300))),
                right=bool(own >= share.max()),
            )
        )
    return tuple(sorted(calls, key=lambda call: (-call.loss, call.slide_id)))


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        content = parse_json_file(path)
    except (OSError, ValueError) as error:
        raise ModelError(_say_damaged(path)) from error
    return content if isinstance(content, dict) else {}


def _read_rows(path: Path) -> Rows:
    if not path.exists():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            return [
                {key: unescape_cell(value or "") for key, value in row.items() if key} for row in csv.DictReader(stream)
            ]
    except (OSError, ValueError, csv.Error) as error:
        raise ModelError(_say_damaged(path)) from error


def _say_damaged(path: Path) -> str:
    return f"'{path}' is damaged. Run `lamella study` again: it makes what is missing."
