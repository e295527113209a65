"""A folder of a run or of a study, read back: the one place that knows their file names and columns.

Whatever a folder lacks is listed, and the rest is shown.
"""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import RootModel

from lamella.analysis.figure import NO_FIGURE
from lamella.analysis.scores import Score
from lamella.analysis.verdict import Conclusion, ExternalVerdict, Verdict
from lamella.cells import unescape_cell
from lamella.defaults import UnitName
from lamella.errors import ModelError
from lamella.explain.records import CkaRecord, Localisation, LocalisationSettings
from lamella.records import load_content
from lamella.reports.record import FailureRow, LedgerRow, Record, SlideRecord, find_shares
from lamella.runs.folder import RunFolder, refuse_changed_tables
from lamella.runs.metrics import Metrics
from lamella.runs.record import RunRecord
from lamella.studies.folder import StudyFolder
from lamella.studies.looks import Controls, StudyLocalisation
from lamella.studies.record import Costs, StudyRecord

_LEAST_SHARE = 1e-7
_Row = Mapping[str, str]


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
    run = load_content(folder.settings, RunRecord, made_by="lamella run")
    verb = "lamella predict" if run is not None and run.external else "lamella run"
    metrics = load_content(folder.metrics, Metrics, made_by=verb)
    refuse_changed_tables(path, {} if run is None else run.files, made_by=verb)
    ledger = _read_rows(folder.ledger, verb)
    present = {
        "the cohort (cohort.csv)": cohort,
        "predictions (predictions.csv)": predictions,
        "the tissue ledger (ledger.csv)": ledger if run is None or run.settings.bags is None else (),
        "results (metrics.json)": metrics,
        "settings and versions (run.json)": run,
    }
    classes = run.classes if run is not None else _list_classes(predictions or [])
    if not classes:
        raise ModelError(f"'{path}' names no classes (run.json, predictions.csv). Run `{verb}` again.")
    arm = "model" if run is None else run.settings.encoder or "model"
    content = load_content(folder.cka, CkaRecord, made_by=verb)
    if content is None:  # version 0.1.0 kept them in metrics.json
        content = CkaRecord(pairs=(getattr(metrics, "model_extra", None) or {}).get("cka") or ())
    scores = None if metrics is None else metrics.scores
    model = None if scores is None else scores.model
    thresholds = {} if metrics is None else metrics.scores.model.thresholds or metrics.thresholds
    baselines = {} if scores is None else scores.baselines
    notes = [
        *(() if run is None else run.notes),
        *(() if metrics is None else (*metrics.notes, *metrics.scores.model.notes)),
    ]
    maps = [(name, load_content(path / f"localisation{end}.json", Localisation, made_by="lamella localise"))
            for name, end in ((arm, ""), (f"{arm}, tuned", "-tuned"))]  # fmt: skip
    record = Record(
        folder=path,
        run=run,
        study=None,
        classes=tuple(classes),
        scored=(run.positive if run is not None else None)
        or (metrics.positive if metrics is not None else None)
        or (classes[-1] if len(classes) == 2 else None),
        shown=arm,
        unit=_find_unit(predictions or [], cohort or []) if run is None else run.settings.unit,
        slides=(),
        predictions=_frame_run(predictions or [], arm, classes),
        metrics={} if model is None else {arm: model},
        baselines=baselines,
        left_out=None if scores is None else scores.leave_one_batch_out,
        external=load_content(folder.external, ExternalVerdict, made_by=verb),
        stage_two=() if metrics is None or metrics.stage_two is None else metrics.stage_two.scores,
        controls=Controls(
            arm=arm,
            baselines={name: baseline.auc for name, baseline in baselines.items()},
            batches=() if model is None else model.batches,
        ),
        within_batches=(model.auc_within_batches if model is not None else None) or NO_FIGURE,
        thresholds={int(fold): chosen.value for fold, chosen in thresholds.items()},
        threshold_note=_say_thresholds(chosen.note for chosen in thresholds.values()),
        cka=content.pairs,
        localisation=tuple(found.model_copy(update={"arm": name}) for name, found in maps if found is not None),
        ledger=_list_ledger(ledger or [], verb),
        failures=_list_failures(_read_rows(folder.failures, verb) or []),
        notes=tuple(dict.fromkeys(notes)),
        missing=tuple(name for name, content in present.items() if content is None),
    )  # fmt: skip
    return replace(record, slides=_list_slides(record, cohort or predictions or [], ledger or [], verb))


def _load_study(folder: StudyFolder) -> Record:
    path, verb = folder.path, "lamella study"
    study = load_content(folder.record, StudyRecord, made_by=verb)
    if study is None:
        raise ModelError(f"'{path}' holds no study (study.json). Name the --out folder of a `lamella study`.")
    refuse_changed_tables(path, study.files, made_by=verb)
    verdict = load_content(folder.verdict, Verdict, made_by=verb)
    conclusion = Conclusion() if verdict is None else verdict.verdict
    shown = conclusion.arm or conclusion.best_arm
    metrics = load_content(folder.metrics, RootModel[dict[str, Score]], made_by=verb)
    by_arm = {} if metrics is None else metrics.root
    cka = load_content(folder.cka, CkaRecord, made_by=verb) or CkaRecord()
    localisation = load_content(folder.localisation, StudyLocalisation, made_by=verb) or StudyLocalisation()
    costs = load_content(folder.costs, Costs, made_by=verb)
    ledger = _read_rows(path / "ledger.csv", verb)
    score = by_arm.get(shown or "")
    record = Record(
        folder=path,
        run=None,
        study=study,
        classes=study.classes,
        scored=study.positive,
        shown=shown,
        unit=study.design.unit,
        slides=(),
        predictions=_frame_study(folder, study.classes),
        metrics=by_arm,
        verdict=verdict,
        controls=load_content(folder.controls, Controls, made_by=verb) or Controls(),
        thresholds={},
        threshold_note=_say_thresholds(t.note for t in score.thresholds.values()) if score is not None else "",
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


def _share_settings(content: StudyLocalisation) -> tuple[Localisation, ...]:
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
    if not rows:
        return pd.DataFrame()
    for name in classes:
        if f"prob_{name}" not in rows[0]:
            raise ModelError(f"'predictions.csv' has no column 'prob_{name}'. Run `lamella run` again.")
    shares = np.array([[_parse_number(row[f"prob_{name}"], "lamella run") for name in classes] for row in rows])
    return pd.DataFrame(
        {
            "arm": arm,
            "slide_id": [row["slide_id"] for row in rows],
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


def _find_unit(predictions: Sequence[_Row], cohort: Sequence[_Row]) -> UnitName:
    """Return what was predicted where no `run.json` says it (of bags that were there): patients, if none is a slide."""
    predicted, slides = {row["slide_id"] for row in predictions}, {row["slide_id"] for row in cohort}
    patients = {row.get("patient_id", "") for row in cohort}
    return "patient" if predicted and predicted <= patients and not predicted & slides else "slide"


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
    by_patient = record.unit == "patient"
    if by_patient:
        folds = {row["slide_id"]: folds[patient] for row in rows if (patient := row.get("patient_id", "")) in folds}
    return tuple(
        SlideRecord(
            slide_id=slide_id,
            patient_id=row.get("patient_id") or slide_id,
            label=row.get("label", ""),
            batch=row.get("batch", ""),
            split=row.get("split", ""),
            fold=folds.get(slide_id, _parse_whole(row.get("fold"), verb)),
            n_tiles=n_tiles.get(slide_id),
            shares=shares.get((row.get("patient_id") or slide_id) if by_patient else slide_id, {}),
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
    except ModelError:
        raise
    except (OSError, ValueError, csv.Error) as error:  # not UTF-8 text, a NUL, a cell without end
        raise ModelError(
            f"'{path}' is damaged (not UTF-8 CSV). Run `{verb}` again: it makes what is missing."
        ) from error
