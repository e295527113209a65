"""What stands beside the arms as tables: other measures, baselines, batches, CKA, localisation."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lamella.reports.scrub import drop_folders
from lamella.reports.study.record import StudyRecord
from lamella.reports.study.tables import (
    HELD_FIXED,
    NONE,
    NOT_ADJUSTED,
    Row,
    StudyTable,
    format_interval,
    format_number,
)

BASELINES = {
    "colour": "Colour alone",
    "tissue": "Amount of tissue",
    "amount": "Amount of tissue",
    "batch": "Batch alone",
}
_MEASURES = {
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "balanced_accuracy": "balanced accuracy",
    "ppv": "positive predictive value",
    "npv": "negative predictive value",
    "average_precision": "average precision",
    "brier": "Brier score",
    "log_loss": "log-loss",
}
_MAP_MEASURES = {
    "tile_auc": "tile AUC",
    "tile_ap": "tile AP",
    "pixel_auc": "pixel AUC",
    "pixel_ap": "pixel AP",
    "pointing": "pointing",
    "top_k": "top k",
}


def tabulate_measures(record: StudyRecord) -> StudyTable:
    """Return what else was measured of the recommended arm and the one of highest AUC."""
    rows = []
    names = dict.fromkeys(name for name in (record.own.get("arm"), record.own.get("best_arm")) if name)
    for name in names:
        metrics = record.metrics.get(name, {})
        group = metrics.get(metrics.get("headline", "patients"), {})
        found = {_MEASURES[key]: group.get(key) for key in _MEASURES}
        found |= {f"calibration {key}": one for key, one in (group.get("calibration") or {}).items()}
        rows += [_say_measure(name, measure, one) for measure, one in found.items() if isinstance(one, Mapping)]
    return StudyTable(
        key="measures",
        title="Other measures",
        head=("arm", "measure", "value", "95% interval", "how the interval is made", "at a prevalence of"),
        rows=tuple(rows),
        note=f"{NOT_ADJUSTED} {HELD_FIXED} Predictive values and average precision hold at the prevalence beside them. "
        f"Calibration is perfect at intercept 0 and slope 1. {_say_thresholds(record)}".strip(),
        empty="There is no metrics.json, so nothing else can be said of the arms.",
    )


def _say_measure(arm: str, measure: str, one: Mapping[str, Any]) -> Row:
    value = one.get("value")
    return Row(
        cells=(
            arm,
            measure,
            format_number(value),
            format_interval(one.get("interval")),
            str(one.get("method") or NONE) if value is not None else str(one.get("reason") or NONE),
            format_number(one.get("prevalence")),
        )
    )


def _say_thresholds(record: StudyRecord) -> str:
    notes = [
        str(one["note"])
        for one in (record.metrics.get(record.shown or "", {}).get("thresholds") or {}).values()
        if isinstance(one, Mapping) and one.get("note")
    ]
    said = list(dict.fromkeys(notes))
    return f"Thresholds of {record.shown}: {'; '.join(said[:2])}." if said else ""


def tabulate_baselines(record: StudyRecord) -> StudyTable:
    """Return what colour, amount of tissue and batch alone reach on the same folds."""
    rows = [
        Row(
            cells=(
                BASELINES.get(name, name),
                format_number(one.get("value")),
                format_interval(one.get("interval")),
                drop_folders(str(one.get("reason") or NONE)),
            )
        )
        for name, one in record.controls.get("baselines", {}).items()
    ]
    return _without_reasons(
        StudyTable(
            key="baselines",
            title="Baselines on the same folds",
            head=("baseline", "AUC", "95% interval", "why there is none"),
            rows=tuple(rows),
            note=NOT_ADJUSTED,
            empty="No baselines were measured, so what colour, tissue or batch alone would reach is not known.",
        )
    )


def tabulate_batches(record: StudyRecord) -> StudyTable:
    """Return the AUC within each batch."""
    rows = []
    for one in record.controls.get("batches", []):
        figure = one.get("auc") or {}
        per_class = ", ".join(f"{n} {name}" for name, n in one.get("n_by_class", {}).items())
        rows.append(
            Row(
                cells=(
                    str(one["batch"]),
                    str(one.get("n", NONE)),
                    per_class or NONE,
                    format_number(figure.get("value")),
                    format_interval(figure.get("interval")),
                    format_number(((one.get("calibration") or {}).get("intercept") or {}).get("value"), 2),
                    drop_folders(str(figure.get("reason") or NONE)),
                )
            )
        )
    return _without_reasons(
        StudyTable(
            key="batches",
            title="Within each batch",
            head=("batch", "n", "of which", "AUC", "95% interval", "calibration intercept", "why there is none"),
            rows=tuple(rows),
            note=f"Of {record.controls.get('arm') or 'the arm that the controls ran on'}. {NOT_ADJUSTED} A calibration "
            "intercept below 0 means that probabilities are too high in that batch.",
            empty="The cohort names no batches (--batch-col), so none can be looked at by itself.",
        )
    )


def tabulate_robustness(record: StudyRecord) -> StudyTable:
    """Return how far each arm follows the batch in place of the label."""
    rows = []
    for one in record.controls.get("robustness") or []:
        gap, index, read = (one.get(key) or {} for key in ("gap", "index", "batch_auc"))
        error = gap.get("standard_error")
        rows.append(
            Row(
                cells=(
                    str(one["arm"]),
                    NONE if gap.get("value") is None else f"{gap['value']:+.3f} (SE {error:.3f})",
                    format_number(index.get("value")),
                    format_number(read.get("value")),
                    format_interval(read.get("interval")),
                ),
                kind=record.kind_of(str(one["arm"])),
            )
        )
    k = next((one["index"]["k"] for one in record.controls.get("robustness") or [] if one.get("index")), None)
    return StudyTable(
        key="robustness",
        title="Robustness to batches",
        head=(
            "arm",
            "AUC less AUC within batches",
            "robustness index",
            "batch read from features, AUC",
            "95% interval",
        ),
        rows=tuple(rows),
        note="AUC less AUC within batches: what an arm gains by knowing the batch. Robustness index (PathoROB; Komen "
        f"2026), over the {k} nearest slides by mean features, the patient's own left out: 1 where neighbours share "
        "the label across batches, 0 where they share the batch across labels. Reading the batch: logistic regression "
        f"on mean features, same folds, 0.5 is chance. None of these enters the verdict. {NOT_ADJUSTED}",
        empty="The cohort names no two batches, so robustness to them was not measured.",
    )


def _without_reasons(table: StudyTable) -> StudyTable:
    """Return a table without its last column, the reasons, where there are none."""
    if any(row.cells[-1] != NONE for row in table.rows):
        return table
    return replace(table, head=table.head[:-1], rows=tuple(replace(row, cells=row.cells[:-1]) for row in table.rows))


def tabulate_cka(record: StudyRecord) -> StudyTable:
    """Return every comparison of a fine-tuned encoder with its frozen one, by block."""
    rows = []
    for pair in record.cka.get("pairs", []):
        for block, value in enumerate(pair.get("cka", [])):
            cells = (
                str(pair["arm"]),
                str(pair["fold"]),
                str(pair["seed"]),
                str(block + 1),
                format_number(value),
                format_interval([pair["low"][block], pair["high"][block]]) if "low" in pair else NONE,
                *(_at(pair, key, block) for key in ("one_block", "another_seed", "random")),
                _at(pair, "weight_change", block, digits=6),
            )
            rows.append(Row(cells=cells))
    return StudyTable(
        key="cka",
        title="CKA by block",
        head=("arm", "fold", "seed", "block", "CKA", "95% interval (jackknife)", "that block alone", "another seed",
              "random weights", "change of weights"),
        rows=tuple(rows),
        note="Debiased linear CKA of the frozen encoder with the fine-tuned one over the fold's test slides, one tile "
        "a slide in each minibatch; intervals leave out one slide at a time. 'That block alone': only this block is "
        "the fine-tuned one. 'Random weights' is the control: the same network, never trained.",
        empty="",
    )  # fmt: skip


def _at(pair: Mapping[str, Any], key: str, block: int, *, digits: int = 3) -> str:
    values = pair.get(key)
    return NONE if not values else format_number(values[block], digits)


def tabulate_localisation(record: StudyRecord) -> StudyTable:
    """Return how well each arm's maps meet the outlines, beside darkness and other controls."""
    rows = []
    for arm, name, one in _list_maps(record.localisation):
        cells = [_say_map(one.get(measure)) for measure in _MAP_MEASURES]
        froc = one.get("froc")
        score = froc.get("score", froc.get("value")) if isinstance(froc, Mapping) else froc
        share = one.get("tile_share")
        share = share.get("value") if isinstance(share, Mapping) else share
        is_control = name == "darkness" or "," in name
        rows.append(
            Row(
                cells=(
                    arm,
                    re.sub(r"^cam\b", "class activation map", name),
                    *cells,
                    format_number(score),
                    format_number(share),
                    str(one.get("n_patients", NONE)),
                ),
                badges=("control",) if is_control else (),
            )
        )
    return StudyTable(
        key="localisation",
        title="Maps against outlines",
        head=("arm", "map", *_MAP_MEASURES.values(), "FROC score", "share inside", "patients"),
        rows=tuple(rows),
        note=f"Averaged over slides, then patients. {NOT_ADJUSTED} {HELD_FIXED} By chance an AUC is 0.5, and an AP the "
        "share that lies inside. Darkness, random weights and permuted labels are controls: a map that does no better "
        "has found nothing.",
        empty="",
    )


def _list_maps(content: Mapping[str, Any]) -> list[tuple[str, str, Mapping[str, Any]]]:
    """Return (arm, map, what it reached): arms with their maps, or plain rows."""
    found = [(arm["arm"], name, one) for arm in content.get("arms", []) for name, one in arm.get("maps", {}).items()]
    return found + [(row["arm"], row.get("map", "attention"), row) for row in content.get("rows", [])]


def _say_map(one: Any) -> str:
    if not isinstance(one, Mapping):
        return format_number(one)
    if one.get("interval") is None:
        return format_number(one.get("value"))
    interval = format_interval(one["interval"], digits=2).replace(" ", "\u00a0")  # stays on its line
    return f"{format_number(one.get('value'))} ({interval})"
