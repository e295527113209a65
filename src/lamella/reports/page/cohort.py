"""The cohort as tables: classes, batches, tiles, tissue, slides, failures; and what was asked."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from statistics import median
from typing import Any

from lamella.reports.page.parts import Row, Table
from lamella.reports.record import Record, SlideRecord
from lamella.reports.scrub import drop_folders
from lamella.reports.words import (
    NONE,
    format_area,
    format_count,
    format_number,
    format_share,
    name_some,
)

_SPLITS = ("train", "val", "test")


def list_tables(record: Record, *, max_rows: int) -> Iterator[Table]:
    """Yield what is known of the cohort."""
    yield tabulate_classes(record)
    yield tabulate_batches(record)
    yield tabulate_tiles(record)
    yield tabulate_ledger(record)
    yield tabulate_failures(record)
    yield tabulate_slides(record, max_rows=max_rows)


def tabulate_classes(record: Record) -> Table:
    """Count slides and patients by class, and by the fold or split that they are in."""
    parts = {slide.slide_id: _find_part(slide) for slide in record.slides}
    columns = sorted(set(parts.values()) - {""}, key=_order_parts)
    rows = []
    for label in dict.fromkeys([*record.classes, *(slide.label for slide in record.slides)]):
        slides = [slide for slide in record.slides if slide.label == label]
        by_part = Counter(parts[slide.slide_id] for slide in slides)
        patients = len({slide.patient_id for slide in slides})
        cells = (format_count(by_part[part]) for part in columns)
        rows.append(Row(cells=(label or "(no label)", format_count(len(slides)), format_count(patients), *cells)))
    return Table(
        key="classes",
        title="Slides by class",
        head=("class", "slides", "patients", *columns),
        rows=tuple(rows) if record.slides else (),
        note="Patients are whole in one fold or split: none is trained on and tested by the same model."
        if columns
        else "",
        empty="There is no cohort.csv, so slides cannot be counted by class.",
    )


def _find_part(slide: SlideRecord) -> str:
    return slide.split or ("" if slide.fold is None else f"fold {slide.fold}")


def _order_parts(part: str) -> tuple[int, int, str]:
    """Return where a fold or split stands among the columns: train, val, test; folds by their numbers."""
    return (_SPLITS.index(part) if part in _SPLITS else len(_SPLITS), len(part), part)


def tabulate_batches(record: Record) -> Table:
    """Count slides by batch and class."""
    batches = sorted({slide.batch for slide in record.slides})
    rows = []
    for batch in batches if any(batches) else ():
        by_class = Counter(slide.label for slide in record.slides if slide.batch == batch)
        cells = (format_count(by_class[label]) for label in record.classes)
        rows.append(Row(cells=(batch or "(no batch)", *cells)))
    one_sided = [row.cells[0] for row in rows if sum(cell != "0" for cell in row.cells[1:]) < 2]
    return Table(
        key="batch-counts",
        title="Slides by batch",
        head=("batch", *record.classes),
        rows=tuple(rows),
        note=f"Only one class in {name_some(one_sided)}: within it nothing can be compared." if one_sided else "",
    )


def tabulate_tiles(record: Record) -> Table:
    """Compare the number of tiles between classes."""
    rows = []
    for label in dict.fromkeys([*record.classes, *(slide.label for slide in record.slides)]):
        numbers = [slide.n_tiles for slide in record.slides if slide.label == label and slide.n_tiles is not None]
        if numbers:
            middle = round(median(numbers))
            cells = map(format_count, (len(numbers), min(numbers), middle, max(numbers)))
            rows.append(Row(cells=(label or "(no label)", *cells)))
    return Table(
        key="tiles",
        title="Tiles a slide",
        head=("class", "slides", "fewest tiles", "median", "most"),
        rows=tuple(rows),
        note="Where classes differ here, the amount of tissue alone can predict the label; compare the baseline of "
        "tissue area and tile count.",
    )


def tabulate_ledger(record: Record) -> Table:
    """Add up the tissue that each step kept and removed, over all slides."""
    rows = []
    for step in dict.fromkeys(row.step for row in record.ledger):
        slides = [row for row in record.ledger if row.step == step]
        kept, removed = (
            math.fsum(area for area in areas if math.isfinite(area))
            for areas in ([row.kept_um2 for row in slides], [row.removed_um2 for row in slides])
        )
        most = max(slides, key=lambda row: _find_loss(row.kept_um2, row.removed_um2))
        loss = _find_loss(most.kept_um2, most.removed_um2)
        rows.append(
            Row(
                cells=(
                    step,
                    format_area(kept),
                    format_area(removed),
                    format_share(removed / (kept + removed) if kept + removed else None),
                    format_count(sum(row.removed_um2 > 0 for row in slides)),
                    f"{most.slide_id} ({loss:.0%})" if loss >= 0.005 else NONE,
                )
            )
        )
    empty = [slide.slide_id for slide in record.slides if slide.n_tiles == 0]
    return Table(
        key="ledger",
        title="Tissue kept and removed, all slides",
        head=("step", "kept, mm²", "removed, mm²", "removed", "slides it touched", "largest share, of slide"),
        rows=tuple(rows),
        note=f"No tile is left of {name_some(empty)}." if empty else "",
        empty="There is no ledger.csv: no slide was cut into tiles.",
    )


def _find_loss(kept: float, removed: float) -> float:
    return removed / (kept + removed or 1)


def tabulate_failures(record: Record) -> Table:
    """List the slides that could not be done, or not in full, with the reason."""
    # An id may look like a path, and stays as it is.
    rows = tuple(Row(cells=(row.slide_id, row.stage, drop_folders(row.reason))) for row in record.failures)
    return Table(
        key="failures",
        title="Failures",
        head=("slide", "step", "reason"),
        rows=rows,
        empty="None: every slide was read, cut, encoded and drawn.",
    )


def tabulate_slides(record: Record, *, max_rows: int) -> Table:
    """List the slides with what the shown arm says of each, the worst errors first."""
    calls = record.list_calls()
    rows = []
    for call in calls[:max_rows]:
        slide = call.slide
        part = slide.split or (NONE if slide.fold is None or record.is_external else str(slide.fold))
        cells = (
            NONE if slide.slides else slide.slide_id,
            slide.patient_id,
            format_count(len(slide.slides)) if slide.slides else NONE,
            slide.label,
            slide.batch or NONE,
            part,
            format_count(slide.n_tiles),
            format_number(call.probability),
            format_number(call.loss),
            call.predicted,
            NONE if call.right is None else "yes" if call.right else "no",
        )
        rows.append(Row(cells=cells))
    left_out = len(calls) - len(rows)
    more = (
        f" The {left_out} {record.unit}s with the smallest error are left out: the predictions have all."
        if left_out
        else ""
    )
    predicted = "by the threshold of its fold" if record.thresholds else "the likeliest class"
    probability = f"p({record.scored})" if record.scored else "p(label)"
    return Table(
        key="slides-all",
        title=f"All {record.unit}s, as {record.shown} sees them" if record.shown else f"All {record.unit}s",
        head=(
            "slide",
            "patient",
            "slides",
            "label",
            "batch",
            "fold",
            "tiles",
            probability,
            "log-loss",
            "predicted",
            "right",
        ),
        rows=tuple(rows),
        note=f"The worst errors first; predicted: {predicted}.{more}",
        empty="No arm ran, so nothing was predicted.",
        folded=True,
    ).without_empty_columns()


def tabulate_calls(record: Record) -> Table:
    """Count what slides of each class were called by the shown arm."""
    counts = Counter((call.slide.label, call.predicted) for call in record.list_calls() if call.slide.label)
    chosen = (
        f"The threshold is {drop_folders(record.threshold_note)}; no tested {record.unit} had a part in it."
        if record.thresholds and record.threshold_note
        else f"Each {record.unit} is called what is most probable."
        if not record.thresholds
        else f"Each {record.unit} is called what its fold's threshold says."
    )
    if len(record.classes) > 2:
        chosen += (
            " Balanced accuracy takes the class whose probability most exceeds its share in training, so that rare "
            "classes count."
        )
    return Table(
        key="calls",
        title=f"Labels and predicted classes, by {record.unit}",
        head=("label", *(f"predicted {name}" for name in record.classes)),
        rows=tuple(
            Row(cells=(label, *(format_count(counts[label, predicted]) for predicted in record.classes)))
            for label in record.classes
        )
        if counts
        else (),
        note=chosen,
    )


def tabulate_settings(settings: Iterable[tuple[str, Any]]) -> Table:
    """List what was asked for, name by name.

    Args:
        settings: (name, value), values as they were written down.
    """
    rows = [Row(cells=(name, drop_folders(text))) for name, text in _flatten(dict(settings))]
    return Table(key="settings", title="Settings", head=("setting", "value"), rows=tuple(rows))


def tabulate_versions(record: Record) -> Table:
    """List the versions of the packages that bear on results."""
    rows = tuple(Row(cells=(name, version)) for name, version in record.versions.items())
    return Table(key="versions", title="Versions", head=("package", "version"), rows=rows)


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """List nested settings as dotted names with their values as text."""
    rows: list[tuple[str, str]] = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            rows += _flatten(value, f"{prefix}{name}.")
        elif not (isinstance(value, list) and any(isinstance(item, Mapping) for item in value)):
            text = "not set" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
            rows.append((f"{prefix}{name}", text))
    return rows
