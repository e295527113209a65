"""A finished run, read back from its folder: the one place that knows its file names and columns.

The page is built from this alone, never from objects of a running study, so it can be built again years later.
"""

import csv
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lamella.cells import unescape_cell
from lamella.errors import OutputError
from lamella.files import parse_json_file
from lamella.reports.results import Results, read_results
from lamella.runs.folder import refuse_changed_tables

Row = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class SlideEntry:
    """One slide of a run.

    Attributes:
        slide_id: Its key.
        patient_id: Whose it is.
        label: Its class; empty where not known.
        batch: Its batch; empty where not known.
        split: `train`, `val` or `test`; empty with folds.
        fold: Round in which it was tested; None where it was not.
        probabilities: By class; empty where it was not predicted.
        n_tiles: How many tiles it has; None where not known.
        overlay: Attention on the slide, a PNG; None where not drawn.
        sheet: Its most attended tiles, a PNG; None where not drawn.
        cam: Its class activation map, a PNG; None where not drawn.
    """

    slide_id: str
    patient_id: str
    label: str
    batch: str = ""
    split: str = ""
    fold: int | None = None
    probabilities: Mapping[str, float] = field(default_factory=dict)
    n_tiles: int | None = None
    overlay: Path | None = None
    sheet: Path | None = None
    cam: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRow:
    """Tissue of one slide after one step.

    Attributes:
        slide_id: Which slide.
        step: What was done.
        kept_um2: Area left, um2.
        removed_um2: Area taken away, um2.
    """

    slide_id: str
    step: str
    kept_um2: float
    removed_um2: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureRow:
    """A slide that could not be done.

    Attributes:
        slide_id: Which slide.
        stage: Where it stopped.
        reason: Why, in words.
    """

    slide_id: str
    stage: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """What a run folder holds.

    Attributes:
        slides: In the order of the cohort table.
        classes: Labels, in the order of the predictions' columns.
        positive: The class whose probability is scored; empty where there are no predictions.
        results: From `metrics.json`; None where it holds none.
        ledger: From `ledger.csv`.
        failures: From `failures.csv`.
        settings: What was asked for, name by name.
        runtime: On what the encoder ran.
        versions: Of the packages that bear on results.
        finished: When, as the run wrote it; empty where it did not.
        notes: What the run said aloud.
        external: Whether the slides are new to the models (`lamella predict`), not cross-validated.
        missing: Files that are not there, in words.
        localisation: By arm, what `lamella localise` found.
    """

    slides: tuple[SlideEntry, ...]
    classes: tuple[str, ...]
    positive: str
    results: Results | None
    ledger: tuple[LedgerRow, ...]
    failures: tuple[FailureRow, ...]
    settings: Mapping[str, Any]
    runtime: str
    versions: Mapping[str, str]
    finished: str
    notes: tuple[str, ...]
    external: bool
    missing: tuple[str, ...]
    localisation: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_one_round(self) -> bool:
        """Whether all slides were tested in one round: a split of train, val and test, no cross-validation."""
        return not self.external and len({slide.fold for slide in self.slides if slide.fold is not None}) == 1


def load_record(folder: Path) -> RunRecord:
    """Read a run folder; files that are not there are listed in `missing`.

    Raises:
        OutputError: If the folder holds no predictions and no cohort, or a file of it is damaged.
    """
    folder = Path(folder)
    predictions, cohort = _read_table(folder / "predictions.csv"), _read_table(folder / "cohort.csv")
    if predictions is None and cohort is None:
        raise OutputError(
            f"'{folder}' holds no run (neither cohort.csv nor predictions.csv). "
            "Name the --out folder of a `lamella run`."
        )
    run, metrics = _read_json(folder / "run.json"), _read_json(folder / "metrics.json")
    ledger, failures = _read_table(folder / "ledger.csv"), _read_table(folder / "failures.csv")
    present = {
        "the cohort (cohort.csv)": cohort,
        "predictions (predictions.csv)": predictions,
        "the tissue ledger (ledger.csv)": ledger,
        "results (metrics.json)": metrics,
        "settings and versions (run.json)": run,
    }
    if run is not None and not {"classes", "settings"} <= run.keys():
        raise OutputError(
            f"'run.json' of '{folder}' is damaged (it names no classes or settings). Run the same command again that "
            "wrote it."
        )
    run = run or {}
    refuse_changed_tables(folder, run, made_by="lamella predict" if run.get("external") else "lamella run")
    classes = tuple(run.get("classes") or _list_classes(predictions or []))
    pairs = (
        (_read_json(folder / "cka.json") or {}).get("pairs") or (metrics or {}).get("cka") or []
    )  # 0.1.0: in metrics
    results = read_results(metrics, pairs) if metrics else None
    notes = [*(run.get("notes") or ()), *(pair["note"] for pair in pairs if "note" in pair)]
    return RunRecord(
        slides=_read_slides(folder, cohort, predictions or [], ledger or []),
        classes=classes,
        positive=str(run.get("positive") or (classes[-1] if classes else "")),
        results=results,
        ledger=tuple(_read_ledger_row(row) for row in ledger or []),
        failures=tuple(
            FailureRow(slide_id=row.get("slide_id", ""), stage=row.get("stage", ""), reason=row.get("reason", ""))
            for row in failures or []
        ),
        settings=run.get("settings") or {},
        runtime=str(run.get("runtime") or ""),
        versions={str(name): str(version) for name, version in (run.get("versions") or {}).items()},
        finished=str(run.get("finished") or ""),
        notes=tuple(dict.fromkeys(str(note) for note in notes)),
        external=bool(run.get("external")),
        missing=tuple(name for name, found in present.items() if found is None),
        localisation={
            arm: found
            for arm, name in (("frozen", "localisation.json"), ("tuned", "localisation-tuned.json"))
            if (found := _read_json(folder / name)) is not None
        },
    )


def _read_slides(
    folder: Path, cohort: list[Row] | None, predictions: list[Row], ledger: list[Row]
) -> tuple[SlideEntry, ...]:
    """Join cohort, predictions, tile counts and pictures, slide by slide."""
    predicted = {row["slide_id"]: row for row in predictions}
    n_tiles = {row["slide_id"]: _whole(row.get("n_tiles")) for row in ledger}
    rows = {row["slide_id"]: row for row in cohort or predictions}
    entries = []
    for slide_id, row in rows.items():
        own = predicted.get(slide_id, {})
        pictures = folder / "heatmaps" / slide_id
        overlay, sheet = pictures / "attention.png", pictures / "top_tiles.png"
        cam = folder / "cam" / slide_id / "cam.png"
        entries.append(
            SlideEntry(
                slide_id=slide_id,
                patient_id=row.get("patient_id") or slide_id,
                label=row.get("label", ""),
                batch=row.get("batch", ""),
                split=row.get("split", ""),
                fold=_whole(own.get("fold") or row.get("fold")),
                probabilities={key.removeprefix("prob_"): _number(own[key]) for key in own if key.startswith("prob_")},
                n_tiles=n_tiles.get(slide_id),
                overlay=overlay if overlay.is_file() else None,
                sheet=sheet if sheet.is_file() else None,
                cam=cam if cam.is_file() else None,
            )
        )
    return tuple(entries)


def _read_ledger_row(row: Row) -> LedgerRow:
    return LedgerRow(
        slide_id=row["slide_id"],
        step=row.get("step", ""),
        kept_um2=_number(row.get("kept_um2")),
        removed_um2=_number(row.get("removed_um2")),
    )


def _list_classes(predictions: list[Row]) -> list[str]:
    """Return the classes that the predictions' columns name."""
    return [key.removeprefix("prob_") for key in (predictions[0] if predictions else {}) if key.startswith("prob_")]


def _whole(cell: str | None) -> int | None:
    """Return a whole number, None for an empty cell."""
    return None if cell is None or math.isnan(number := _number(cell)) else int(number)


def _number(cell: str | None) -> float:
    """Return a number, NaN for an empty cell.

    Raises:
        OutputError: If the cell holds something else.
    """
    try:
        return float(cell) if cell else math.nan
    except ValueError as error:
        raise OutputError(f"a table of this run says '{cell}' for a number. Run `lamella run` again.") from error


def _read_table(path: Path) -> list[Row] | None:
    """Read a CSV as one mapping a row; None where there is no file."""
    if not path.is_file():
        return None
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            if "slide_id" not in (reader.fieldnames or ()):
                raise OutputError(f"'{path.name}' of this run has no column 'slide_id'. Run `lamella run` again.")
            return [
                {key: unescape_cell(value or "") for key, value in row.items() if key is not None} for row in reader
            ]
    except (ValueError, csv.Error) as error:  # not UTF-8 text, a NUL, a cell without end
        raise OutputError(f"'{path.name}' of this run is damaged (not UTF-8 CSV). Run `lamella run` again.") from error


def _read_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON file that holds one mapping; None where there is no file."""
    if not path.is_file():
        return None
    try:
        found = parse_json_file(path)
    except (OSError, ValueError) as error:
        raise OutputError(f"'{path.name}' of this run is damaged ({error}). Run `lamella run` again.") from error
    if not isinstance(found, dict):
        raise OutputError(f"'{path.name}' of this run is damaged (no mapping). Run `lamella run` again.")
    return found
