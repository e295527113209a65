"""The cohort of a study as tables: classes by fold, slides, tissue, failures."""

from collections import Counter

from lamella.reports.scrub import drop_folders
from lamella.reports.study.record import StudyRecord
from lamella.reports.study.tables import NONE, Row, StudyTable, format_number, tabulate_rows

_STEP = {"slide_id": "slide", "stage": "step"}


def tabulate_classes(record: StudyRecord) -> StudyTable:
    """Return slides and patients by class, and by the fold or split that they are in."""
    rows = []
    places = sorted({_place(row) for row in record.cohort} - {""}, key=_order)
    for label in record.classes:
        own = [row for row in record.cohort if row.get("label") == label]
        by_place = Counter(_place(row) for row in own)
        patients = len({row.get("patient_id") for row in own})
        rows.append(Row(cells=(label, str(len(own)), str(patients), *(str(by_place[place]) for place in places))))
    return StudyTable(
        key="classes",
        title="Slides by class",
        head=("class", "slides", "patients", *places),
        rows=tuple(rows) if record.cohort else (),
        note="Patients are whole in one fold or split: none is trained on and tested by the same model.",
        empty="There is no cohort.csv, so slides cannot be counted by class.",
    )


def _order(place: str) -> tuple[int, int, str]:
    """Return where a fold or split stands among the columns: train, val, test; folds by their numbers."""
    return (("train", "val", "test").index(place) if place in ("train", "val", "test") else 3, len(place), place)


def _place(row: dict[str, str]) -> str:
    return f"fold {row['fold']}" if row.get("fold") else row.get("split") or ""


def tabulate_slides(record: StudyRecord, *, max_rows: int) -> StudyTable:
    """Return the slides with what the shown arm says of each, the worst errors first."""
    named = record.study.get("positive")
    batches = {row["slide_id"]: row.get("batch", "") for row in record.cohort if "slide_id" in row}
    rows = [
        Row(
            cells=(
                call.slide_id,
                call.patient_id,
                call.label,
                batches.get(call.slide_id) or NONE,
                str(call.fold),
                format_number(call.probability),
                format_number(call.loss),
                "yes" if call.right else "no",
            )
        )
        for call in record.calls[:max_rows]
    ]
    left_out = len(record.calls) - len(rows)
    more = (
        f" The {left_out} slides with the smallest error are left out; predictions.parquet has all." if left_out else ""
    )
    return StudyTable(
        key="slides-all",
        title=f"All slides, as {record.shown} sees them",
        head=(
            "slide",
            "patient",
            "label",
            "batch",
            "fold",
            f"p({named})" if named else "p(label)",
            "log-loss",
            "right",
        ),
        rows=tuple(rows),
        note=f"The worst errors first; 'right' takes the likelier class.{more}",
        empty="No arm ran, so nothing was predicted.",
    )


def tabulate_ledger(record: StudyRecord) -> StudyTable:
    """Return the tissue kept and removed by each step, summed over slides."""
    sums: dict[str, list[float]] = {}
    for row in record.ledger:
        own = sums.setdefault(row["step"], [0.0, 0.0, 0.0])
        own[0] += float(row["kept_um2"]) / 1e6
        own[1] += float(row["removed_um2"]) / 1e6
        own[2] += float(row["removed_um2"]) > 0
    rows = tuple(Row(cells=(step, f"{kept:.1f}", f"{gone:.1f}", f"{n:.0f}")) for step, (kept, gone, n) in sums.items())
    return StudyTable(
        key="ledger",
        title="Tissue kept and removed, all slides",
        head=("step", "kept, mm2", "removed, mm2", "slides it touched"),
        rows=rows,
        empty="There is no ledger.csv: no slide was cut into tiles.",
    )


def tabulate_failures(record: StudyRecord) -> StudyTable:
    """Return the slides that could not be done, with the reason."""
    rows = []
    for row in record.failures:
        # An id may look like a path, and stays as it is.
        cleaned = {
            key: value if key in ("slide_id", "patient_id") else drop_folders(value) for key, value in row.items()
        }
        rows.append({_STEP.get(key, key): value for key, value in cleaned.items()})
    return tabulate_rows("failures", "Failures", rows, empty="None: every slide was read, cut, encoded and drawn.")
