"""A folder of a run or of a study, read back: the one place that knows their file names and columns.

A run is a study of one arm. Pages are made from this alone, never from objects of a running study, so they can be made
again years later; whatever a folder lacks is listed and the rest is shown.
"""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import RootModel

from lamella.cells import unescape_cell
from lamella.errors import ModelError
from lamella.reports.charts.marks import ScoreMark
from lamella.reports.models import (
    ArmMaps,
    ArmMetrics,
    ArmVerdict,
    CkaContent,
    CkaPair,
    Conclusion,
    Controls,
    Cost,
    Estimate,
    LocalisationSettings,
    RunContent,
    RunMetrics,
    StageTwoArm,
    StudyArm,
    StudyContent,
    StudyLocalisation,
    Verdict,
    read_content,
)
from lamella.runs.folder import RunFolder, refuse_changed_tables
from lamella.studies.folder import StudyFolder

_LEAST_SHARE = 1e-7
_Row = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class SlideRecord:
    """One slide.

    Attributes:
        slide_id: Its key.
        patient_id: Whose it is.
        label: Its class; empty where not known.
        batch: Its batch; empty where not known.
        split: `train`, `val` or `test`; empty with folds.
        fold: Round in which it was tested; None where it was not.
        n_tiles: How many tiles it has; None where not known.
        shares: Its probabilities by class, as the shown arm sees it; empty where it was not predicted.
    """

    slide_id: str
    patient_id: str
    label: str
    batch: str = ""
    split: str = ""
    fold: int | None = None
    n_tiles: int | None = None
    shares: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What the shown arm says of a slide.

    Attributes:
        slide: Which slide.
        predicted: The class it is called.
        probability: Of the positive class; with several classes of its label, or of the predicted one without a label.
        loss: Log-loss of its label: the larger, the worse the error; None without a label.
        right: Whether the predicted class is its label; None without a label.
    """

    slide: SlideRecord
    predicted: str
    probability: float
    loss: float | None
    right: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRow:
    """Tissue of one slide after one step: area kept and taken away, um2."""

    slide_id: str
    step: str
    kept_um2: float
    removed_um2: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureRow:
    """A slide that could not be done: where it stopped and why."""

    slide_id: str
    stage: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Record:
    """What a folder holds.

    Attributes:
        folder: Where it lies.
        run: `run.json`; None of a study, and where it is absent.
        study: `study.json`; None of a run.
        classes: Labels, in the order of the predictions' columns.
        scored: The class whose probability is shown; None with several classes of which none is positive.
        shown: Name of the arm whose slides and curves are shown; None where none ran.
        slides: Of the cohort, in its order.
        predictions: Of the tested slides, a row an arm and slide: `arm slide_id patient_id label fold logit_<class>`.
        metrics: By arm.
        baselines: Every measure of a run's baselines, by name; `controls` has their AUC, of a study too.
        left_out: Of a run's model with each batch left out; None where that was not done.
        stage_two: Frozen, control and fine-tuned, of a run.
        verdict: Of a study whose arms ran.
        controls: Permuted labels, baselines, batches.
        within_batches: AUC of the shown arm over pairs of the same fold and batch.
        thresholds: Of the shown arm, by fold; empty where the likeliest class counts.
        threshold_note: How these were chosen.
        cka: Fine-tuned encoders against frozen ones.
        localisation: Maps against outlines, by arm.
        no_localisation: Why there are none, where that was written down.
        costs: On what arms were timed.
        ledger: Tissue by slide and step.
        failures: Slides that could not be done.
        notes: What must be said with the results.
        missing: Files that are not there, in words.
    """

    folder: Path
    run: RunContent | None
    study: StudyContent | None
    classes: tuple[str, ...]
    scored: str | None
    shown: str | None
    slides: tuple[SlideRecord, ...]
    predictions: pd.DataFrame
    metrics: Mapping[str, ArmMetrics]
    baselines: Mapping[str, ArmMetrics] = field(default_factory=dict)
    left_out: ArmMetrics | None = None
    stage_two: tuple[StageTwoArm, ...] = ()
    verdict: Verdict | None = None
    controls: Controls = Controls()
    within_batches: Estimate = Estimate()
    thresholds: Mapping[int, float]
    threshold_note: str = ""
    cka: tuple[CkaPair, ...] = ()
    localisation: tuple[ArmMaps, ...] = ()
    no_localisation: str = ""
    costs: tuple[Cost, ...] = ()
    ledger: tuple[LedgerRow, ...] = ()
    failures: tuple[FailureRow, ...] = ()
    notes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def positive(self) -> str:
        """The class that is scored, or the last."""
        return self.scored or self.classes[-1]

    @property
    def is_external(self) -> bool:
        """Whether the slides are new to the models (`lamella predict`)."""
        return self.run is not None and self.run.external

    @property
    def is_one_round(self) -> bool:
        """Whether all slides were tested in one round: a split of train, val and test, no cross-validation."""
        if self.study is not None:
            return self.verdict is not None and not self.verdict.cross_validated
        return not self.is_external and len({slide.fold for slide in self.slides if slide.fold is not None}) == 1

    @property
    def versions(self) -> Mapping[str, str]:
        """Of the packages that bear on results."""
        content = self.study or self.run
        return {} if content is None else content.versions

    @property
    def arms(self) -> tuple[ArmVerdict, ...]:
        """What the verdict says of each arm that ran."""
        return () if self.verdict is None else self.verdict.arms

    @property
    def conclusion(self) -> Conclusion:
        """What to use; empty where no arm ran."""
        return Conclusion() if self.verdict is None else self.verdict.verdict

    @property
    def described(self) -> Mapping[str, StudyArm]:
        """Each arm of the design, by name."""
        return {} if self.study is None else {arm.arm: arm for arm in self.study.arms}

    @property
    def shown_metrics(self) -> ArmMetrics | None:
        """Every measure of the shown arm."""
        return self.metrics.get(self.shown or "")

    @property
    def counts_patients(self) -> bool:
        """Whether patients are scored, not slides."""
        if self.verdict is not None:
            return self.verdict.units == "patients"
        return self.shown_metrics is not None and self.shown_metrics.counts_patients

    def kind_of(self, arm: str) -> str:
        """Return `recommended`, `best` (of highest AUC) or nothing."""
        if arm == self.conclusion.arm:
            return "recommended"
        return "best" if arm == self.conclusion.best_arm else ""

    def find_call(self, slide: SlideRecord) -> Call | None:
        """Find what the shown arm says of a slide, at its fold's threshold where there is one; None if nothing."""
        shares = slide.shares
        if not shares:
            return None
        predicted = max(shares, key=lambda name: shares[name])
        threshold = self.thresholds.get(slide.fold or 0)
        if len(shares) == 2 and self.scored in shares and threshold is not None:
            other = next(name for name in shares if name != self.scored)
            predicted = str(self.scored) if shares[str(self.scored)] >= threshold else other
        own = shares.get(slide.label)
        shown = self.scored or (slide.label if own is not None else predicted)
        return Call(
            slide=slide,
            predicted=predicted,
            probability=shares.get(shown, math.nan),
            loss=None if own is None else -math.log(max(own, 1e-300)),
            right=None if not slide.label else predicted == slide.label or own == shares[predicted],
        )

    def list_calls(self) -> list[Call]:
        """List what the shown arm says, the worst errors first; slides without a label by their probability."""
        calls = [call for slide in self.slides if (call := self.find_call(slide)) is not None]
        return sorted(calls, key=lambda call: (-(call.loss or 0.0), -call.probability, call.slide.slide_id))

    def list_scores(self, arm: str, positive: str, *, series: str = "", by_slide: bool = False) -> list[ScoreMark]:
        """List an arm's test scores for a class, by patient where patients are compared; none with one kind only."""
        frame = self.predictions[self.predictions["arm"] == arm] if len(self.predictions) else self.predictions
        if frame.empty or positive not in self.classes:
            return []
        frame = frame[frame["label"] != ""]
        logits = [f"logit_{name}" for name in self.classes]
        if self.counts_patients and not by_slide:
            first = {"label": "first", "fold": "first"}
            means = dict.fromkeys(logits, "mean")
            frame = frame.groupby("patient_id", as_index=False, sort=self.study is not None).agg(first | means)
        truth = frame["label"] == positive
        if not by_slide and (truth.all() or not truth.any()):
            return []
        shares = find_shares(frame[logits].to_numpy(np.float64))[:, self.classes.index(positive)]
        return [
            ScoreMark(
                series=series or arm, label=str(label), is_positive=label == positive, score=share, fold=int(fold)
            )
            for label, share, fold in zip(frame["label"], shares.tolist(), frame["fold"], strict=True)
        ]


def find_shares(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return probabilities `(n, C)` of logits `(n, C)`."""
    return np.asarray(np.exp(logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)))


def load_record(folder: Path) -> Record:
    """Read a folder of a run or of a study.

    Args:
        folder: Of a run, of predictions by one, or of a study, finished or not.

    Raises:
        ModelError: If it holds neither, or a file of it is damaged.
    """
    folder = Path(folder)
    return _load_study(StudyFolder(folder)) if StudyFolder(folder).record.exists() else _load_run(RunFolder(folder))


def _load_run(folder: RunFolder) -> Record:
    path = folder.path
    cohort, predictions = (_read_rows(file, "lamella run") for file in (folder.cohort, folder.predictions))
    if cohort is None and predictions is None:
        raise ModelError(
            f"'{path}' holds no run (neither cohort.csv nor predictions.csv) and no study (study.json). Name the --out "
            "folder of a `lamella run`, `lamella predict` or `lamella study`."
        )
    run = read_content(folder.settings, RunContent, made_by="lamella run")
    verb = "lamella predict" if run is not None and run.external else "lamella run"
    metrics = read_content(folder.metrics, RunMetrics, made_by=verb)
    refuse_changed_tables(path, {} if run is None else {"files": run.files}, made_by=verb)
    ledger = _read_rows(folder.ledger, verb)
    present = {
        "the cohort (cohort.csv)": cohort,
        "predictions (predictions.csv)": predictions,
        "the tissue ledger (ledger.csv)": ledger,
        "results (metrics.json)": metrics,
        "settings and versions (run.json)": run,
    }
    classes = run.classes if run is not None else _list_classes(predictions or [])
    if not classes:
        raise ModelError(f"'{path}' names no classes (run.json, predictions.csv). Run `{verb}` again.")
    metrics = metrics or RunMetrics()
    arm = str(run.settings.get("encoder") or "model") if run is not None else "model"
    content = read_content(folder.cka, CkaContent, made_by=verb)
    pairs = metrics.cka if content is None else content.pairs
    model = metrics.arms.model
    thresholds = (model.thresholds if model is not None else None) or metrics.thresholds or {}
    maps = [(name, read_content(path / f"localisation{end}.json", ArmMaps, made_by="lamella localise"))
            for name, end in ((arm, ""), (f"{arm}, tuned", "-tuned"))]  # fmt: skip
    record = Record(
        folder=path,
        run=run,
        study=None,
        classes=tuple(classes),
        scored=(run.positive if run is not None else None) or (classes[-1] if len(classes) == 2 else None),
        shown=arm,
        slides=(),
        predictions=_frame_run(predictions or [], arm, classes),
        metrics={} if model is None else {arm: model},
        baselines=metrics.arms.baselines,
        left_out=metrics.arms.leave_one_batch_out,
        stage_two=() if metrics.stage_two is None else metrics.stage_two.arms,
        controls=Controls(
            arm=arm,
            baselines={name: baseline.auc for name, baseline in metrics.arms.baselines.items()},
            batches=() if model is None else model.batches,
        ),
        within_batches=Estimate() if model is None else model.auc_within_batches,
        thresholds={fold: chosen.value for fold, chosen in thresholds.items() if chosen.value is not None},
        threshold_note=_say_thresholds(chosen.note for chosen in thresholds.values()),
        cka=pairs,
        localisation=tuple(found.model_copy(update={"arm": name}) for name, found in maps if found is not None),
        ledger=_list_ledger(ledger or [], verb),
        failures=_list_failures(_read_rows(folder.failures, verb) or []),
        notes=tuple(dict.fromkeys((*(run.notes if run is not None else ()), *metrics.notes,
                                   *(model.notes if model is not None else ())))),
        missing=tuple(name for name, content in present.items() if content is None),
    )  # fmt: skip
    return replace(record, slides=_list_slides(record, cohort or predictions or [], ledger or [], verb))


def _load_study(folder: StudyFolder) -> Record:
    path, verb = folder.path, "lamella study"
    study = read_content(folder.record, StudyContent, made_by=verb)
    if study is None:
        raise ModelError(f"'{path}' holds no study (study.json). Name the --out folder of a `lamella study`.")
    refuse_changed_tables(path, {"files": study.files}, made_by=verb)
    verdict = read_content(folder.verdict, Verdict, made_by=verb)
    conclusion = Conclusion() if verdict is None else verdict.verdict
    shown = conclusion.arm or conclusion.best_arm
    metrics = read_content(folder.metrics, RootModel[dict[str, ArmMetrics]], made_by=verb)
    by_arm = {} if metrics is None else metrics.root
    cka = read_content(folder.cka, CkaContent, made_by=verb) or CkaContent()
    localisation = read_content(folder.localisation, StudyLocalisation, made_by=verb) or StudyLocalisation()
    costs = read_content(folder.costs, RootModel[dict[str, Cost]], made_by=verb)
    ledger = _read_rows(path / "ledger.csv", verb)
    own = by_arm.get(shown or "")
    record = Record(
        folder=path,
        run=None,
        study=study,
        classes=study.classes,
        scored=study.positive,
        shown=shown,
        slides=(),
        predictions=_frame_study(folder, study.classes),
        metrics=by_arm,
        verdict=verdict,
        controls=read_content(folder.controls, Controls, made_by=verb) or Controls(),
        thresholds={},
        threshold_note=_say_thresholds(t.note for t in (own.thresholds or {}).values()) if own is not None else "",
        cka=cka.pairs,
        localisation=_share_settings(localisation),
        no_localisation=localisation.reason or "",
        costs=() if costs is None else tuple(costs.root.values()),
        ledger=_list_ledger(ledger or [], verb),
        failures=_list_failures(_read_rows(path / "failures.csv", verb) or []),
        notes=(*study.notes, *(verdict.notes if verdict is not None else ())),
    )
    cohort = _read_rows(path / "cohort.csv", verb)
    rows = cohort if cohort is not None else _list_tested(record)
    missing = ("the cohort (cohort.csv)",) if cohort is None else ()
    return replace(record, slides=_list_slides(record, rows, ledger or [], verb), missing=missing)


def _share_settings(content: StudyLocalisation) -> tuple[ArmMaps, ...]:
    """Return the arms' maps, each with the settings that the study says once for all."""
    stated = content.settings
    return tuple(
        arm if arm.settings != LocalisationSettings() else arm.model_copy(update={"settings": stated})
        for arm in content.arms
    )


def _list_tested(record: Record) -> list[_Row]:
    """Return the slides that predictions name, where there is no cohort."""
    if record.predictions.empty:
        return []
    first = record.predictions.drop_duplicates("slide_id")
    return [{key: str(row[key]) for key in ("slide_id", "patient_id", "label")} for row in first.to_dict("records")]


def _say_thresholds(notes: Iterable[str]) -> str:
    return "; in other folds ".join(dict.fromkeys(note for note in notes if note))


def _frame_run(rows: Sequence[_Row], arm: str, classes: Sequence[str]) -> pd.DataFrame:
    """Return the predictions of a run as those of a study are: a row a slide, a logit being the log of a share."""
    frame = pd.DataFrame([row for row in rows if any(key.startswith("prob_") for key in row)])
    if frame.empty or any(f"prob_{name}" not in frame for name in classes):
        return pd.DataFrame()
    shares = np.array([[_parse_number(row[f"prob_{name}"], "lamella run") for name in classes] for row in rows])
    ids = frame["slide_id"].tolist()
    return pd.DataFrame(
        {
            "arm": arm,
            "slide_id": ids,
            "patient_id": [row.get("patient_id") or row["slide_id"] for row in rows],
            "label": [row.get("label", "") for row in rows],
            "fold": [_parse_whole(row.get("fold"), "lamella run") or 0 for row in rows],
            **{f"logit_{name}": np.log(np.maximum(shares[:, n], _LEAST_SHARE)) for n, name in enumerate(classes)},
        }
    )


def _frame_study(folder: StudyFolder, classes: Sequence[str]) -> pd.DataFrame:
    """Return the test slides, a row an arm and slide: the mean logits over seeds."""
    if not folder.predictions.exists():
        return pd.DataFrame()
    try:
        frame = pd.read_parquet(folder.predictions)
        frame = frame[frame["side"] == "test"]
        first = dict.fromkeys(("patient_id", "label", "fold"), "first")
        means = {f"logit_{name}": "mean" for name in classes}
        return frame.groupby(["arm", "slide_id"], as_index=False, sort=True).agg({**first, **means})
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"'{folder.predictions}' is damaged. Run `lamella study` again: it makes what is missing."
        ) from error


def _list_slides(record: Record, rows: Sequence[_Row], ledger: Sequence[_Row], verb: str) -> tuple[SlideRecord, ...]:
    """Join cohort, predictions of the shown arm and tile counts, slide by slide."""
    n_tiles = {row["slide_id"]: _parse_whole(row.get("n_tiles"), verb) for row in ledger}
    frame = record.predictions
    if not frame.empty:
        frame = frame[frame["arm"] == record.shown]
    shares: dict[str, dict[str, float]] = {}
    folds: dict[str, int] = {}
    if not frame.empty:
        values = find_shares(frame[[f"logit_{name}" for name in record.classes]].to_numpy(np.float64))
        for slide_id, fold, row in zip(frame["slide_id"], frame["fold"], values.tolist(), strict=True):
            shares[str(slide_id)] = dict(zip(record.classes, row, strict=True))
            folds[str(slide_id)] = int(fold)
    folds = {} if record.is_external else folds
    return tuple(
        SlideRecord(
            slide_id=slide_id,
            patient_id=row.get("patient_id") or slide_id,
            label=row.get("label", ""),
            batch=row.get("batch", ""),
            split=row.get("split", ""),
            fold=folds.get(slide_id, _parse_whole(row.get("fold"), verb)),
            n_tiles=n_tiles.get(slide_id),
            shares=shares.get(slide_id, {}),
        )
        for slide_id, row in {row["slide_id"]: row for row in rows}.items()
    )


def _list_ledger(rows: Sequence[_Row], verb: str) -> tuple[LedgerRow, ...]:
    return tuple(
        LedgerRow(
            slide_id=row["slide_id"],
            step=row.get("step", ""),
            kept_um2=_parse_number(row.get("kept_um2"), verb),
            removed_um2=_parse_number(row.get("removed_um2"), verb),
        )
        for row in rows
    )


def _list_failures(rows: Sequence[_Row]) -> tuple[FailureRow, ...]:
    return tuple(
        FailureRow(slide_id=row["slide_id"], stage=row.get("stage", ""), reason=row.get("reason", "")) for row in rows
    )


def _list_classes(predictions: Sequence[_Row]) -> tuple[str, ...]:
    """Return the classes that the predictions' columns name."""
    first = predictions[0] if predictions else {}
    return tuple(key.removeprefix("prob_") for key in first if key.startswith("prob_"))


def _parse_whole(cell: str | None, verb: str) -> int | None:
    """Return a whole number, None for an empty cell."""
    number = _parse_number(cell, verb)
    return None if math.isnan(number) else int(number)


def _parse_number(cell: str | None, verb: str) -> float:
    """Return a number, NaN for an empty cell."""
    try:
        return float(cell) if cell else math.nan
    except ValueError as error:
        raise ModelError(f"a table of this folder says '{cell}' for a number. Run `{verb}` again.") from error


def _read_rows(path: Path, verb: str) -> list[_Row] | None:
    """Read a CSV as one mapping a row; None where there is no file."""
    if not path.is_file():
        return None
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            if "slide_id" not in (reader.fieldnames or ()):
                raise ModelError(f"'{path}' has no column 'slide_id'. Run `{verb}` again: it makes what is missing.")
            return [{key: unescape_cell(cell or "") for key, cell in row.items() if key is not None} for row in reader]
    except (OSError, ValueError, csv.Error) as error:  # not UTF-8 text, a NUL, a cell without end
        raise ModelError(
            f"'{path}' is damaged (not UTF-8 CSV). Run `{verb}` again: it makes what is missing."
        ) from error
