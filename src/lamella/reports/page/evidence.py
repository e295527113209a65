"""What stands beside the arms as tables: other measures, baselines, batches, CKA, localisation."""

import re
from dataclasses import replace

from lamella.analysis.figure import NO_FIGURE, Figure
from lamella.analysis.scores import GroupScores, Score, Units
from lamella.explain.records import CkaPair, MapMeasures, PatientMean
from lamella.reports.page.parts import Row, Table
from lamella.reports.record import Record
from lamella.reports.scrub import drop_folders
from lamella.reports.words import (
    BASELINES,
    HELD_FIXED,
    MAP_MEASURES,
    MEASURES,
    NONE,
    NOT_ADJUSTED,
    Printed,
    format_count,
    format_estimate,
    format_interval,
    format_number,
)


def tabulate_measures(record: Record) -> Table:
    """Return what else was measured of the shown arm and the one of highest AUC."""
    names = dict.fromkeys(name for name in (record.shown, record.conclusion.best_arm) if name)
    arms = [(name, record.metrics[name]) for name in names if name in record.metrics]
    threshold = drop_folders(record.threshold_note)
    said = f"Thresholds of {record.shown}: {threshold}." if threshold else ""
    return Table(
        key="measures",
        title="Other measures",
        head=("arm", "of", "measure", "value", "95% interval", "CI method", "at a prevalence of"),
        rows=tuple(row for name, arm in arms for row in _list_measures(name, arm.headline, arm.headline_units)),
        note=f"{NOT_ADJUSTED} {HELD_FIXED} Predictive values and average precision hold at the prevalence beside them. "
        f"Brier score and log-loss are better where lower. Calibration is perfect at intercept 0 (below it, "
        f"probabilities are too high) and slope 1 (below it, they are too extreme). {said}".strip(),
        empty="There is no metrics.json, so nothing else can be said of the arms.",
    )


def tabulate_all_measures(record: Record) -> Table:
    """Return every further measure of a run: by slide, with each batch left out, and of the baselines."""
    arms = [] if record.left_out is None else [(f"{record.shown}, each batch left out", record.left_out)]
    arms += [(BASELINES.get(name, name), metrics) for name, metrics in record.baselines.items()]
    shown = record.shown_metrics
    rows = _list_measures(str(record.shown), "slides", shown.slides) if shown and shown.counts_patients else []
    for name, metrics in arms:
        if metrics.counts_patients:
            rows += _list_measures(name, "patients", metrics.patients) + _list_measures(name, "slides", metrics.slides)
        else:
            rows += _list_measures(name, metrics.headline, metrics.headline_units)
    return Table(
        key="all-measures",
        title="Measures by slide, with batches left out, and of the baselines",
        head=("arm", "of", "measure", "value", "95% interval", "CI method", "at a prevalence of"),
        rows=tuple(rows),
        folded=True,
    )


def _list_measures(arm: str, unit: str, measures: Units | None) -> list[Row]:
    return [
        Row(
            cells=(
                arm,
                unit,
                measure,
                format_number(figure.value),
                format_interval(figure.interval),
                (figure.method if figure.value is not None else figure.reason) or NONE,
                format_number(figure.prevalence),
            )
        )
        for measure, figure in ([] if measures is None else _list_figures(measures))
        if figure.value is not None or figure.reason is not None
    ]


def _list_figures(measures: Units) -> list[tuple[str, Figure]]:
    """List the measures of an arm but its AUC, which stands elsewhere: (name, figure)."""
    figures = [(word, getattr(measures, key)) for key, word in MEASURES.items() if key != "auc"]
    if measures.calibration is not None:
        figures.append(("calibration intercept", measures.calibration.intercept))
        figures.append(("calibration slope", measures.calibration.slope))
    return figures


def tabulate_baselines(record: Record) -> Table:
    """Return what colour, amount of tissue and batch alone reach on the same folds."""
    figures = [(BASELINES.get(name, name), figure) for name, figure in record.controls.baselines.items()]
    if record.left_out is not None:
        left_out = record.left_out.baselines
        figures += [(f"{BASELINES.get(name, name)}, each batch left out", arm.auc) for name, arm in left_out.items()]
    rows = [
        Row(
            cells=(
                name,
                format_number(figure.value),
                format_interval(figure.interval),
                drop_folders(figure.reason) if figure.reason else NONE,
            )
        )
        for name, figure in figures
    ]
    return _without_reasons(
        Table(
            key="baselines",
            title="Baselines that ignore morphology, on the same folds",
            head=("baseline", "AUC", "95% interval", "why there is none"),
            rows=tuple(rows),
            note=NOT_ADJUSTED,
            empty="No baselines were measured, so what colour, tissue or batch alone would reach is not known.",
        )
    )


def tabulate_within_batches(record: Record) -> Table:
    """Return the AUC within each batch, that of baselines beside it, and the AUC over pairs of the same batch."""
    beside = {name: metrics for name, metrics in record.baselines.items() if metrics.batches}
    rows = []
    for batch in record.controls.batches:
        others = (_find_batch(metrics, str(batch.batch)) for metrics in beside.values())
        rows.append(Row(cells=_say_batch(batch, [format_estimate(auc.value, auc.interval) for auc in others])))
    within = record.within_batches
    if rows and within.value is not None:
        pairs = [metrics.auc_within_batches or NO_FIGURE for metrics in beside.values()]
        cells = ("pairs within a batch", NONE, NONE, format_number(within.value), format_interval(within.interval))
        rows.append(Row(cells=(*cells, NONE, *(format_estimate(auc.value, auc.interval) for auc in pairs), NONE)))
    last = " The last row counts only pairs of the same batch: what a batch's look cannot explain."
    return _without_reasons(
        Table(
            key="batches",
            title="Within each batch",
            head=("batch", "n", "of which", "AUC", "95% interval", "calibration intercept",
                  *(f"{BASELINES.get(name, name)}, AUC" for name in beside), "why there is none"),
            rows=tuple(rows),
            note=f"Of {record.controls.arm or 'the arm that the controls ran on'}. {NOT_ADJUSTED} A calibration "
            "intercept below 0 means that probabilities are too high in that batch."
            f"{last if within.value is not None else ''}",
            empty="The cohort names no batches (--batch-col), so none can be looked at by itself.",
        )
    )  # fmt: skip


def _find_batch(metrics: Score, name: str) -> Figure:
    return next((batch.auc for batch in metrics.batches if batch.batch == name), NO_FIGURE)


def _say_batch(batch: GroupScores, others: list[Printed]) -> tuple[str, ...]:
    intercept = None if batch.calibration is None else batch.calibration.intercept.value
    return (
        str(batch.batch),
        format_count(batch.n),
        ", ".join(f"{n} {name}" for name, n in batch.n_by_class.items()) or NONE,
        format_number(batch.auc.value),
        format_interval(batch.auc.interval),
        format_number(intercept, 2),
        *others,
        drop_folders(batch.auc.reason) if batch.auc.reason else NONE,
    )


def tabulate_robustness(record: Record) -> Table:
    """Return how far each arm follows the batch in place of the label."""
    measured = record.controls.robustness or ()
    rows = []
    for arm in measured:
        gap = Printed(NONE)
        if arm.gap is not None and arm.gap.value is not None and arm.gap.standard_error is not None:
            gap = Printed(f"{arm.gap.value:+.3f} (SE {arm.gap.standard_error:.3f})", arm.gap.value)
        batch = arm.batch_auc or NO_FIGURE
        index = format_number(None if arm.index is None else arm.index.value)
        cells = (arm.arm, gap, index, format_number(batch.value), format_interval(batch.interval))
        rows.append(Row(cells=cells, kind=record.kind_of(arm.arm)))
    k = next((arm.index.k for arm in measured if arm.index is not None), None)
    return Table(
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


def _without_reasons(table: Table) -> Table:
    """Return a table without its last column, the reasons, where there are none."""
    if any(row.cells[-1] != NONE for row in table.rows):
        return table
    return replace(table, head=table.head[:-1], rows=tuple(replace(row, cells=row.cells[:-1]) for row in table.rows))


def tabulate_cka(record: Record) -> Table:
    """Return every comparison of a fine-tuned encoder with its frozen one, by block."""
    rows = [
        Row(
            cells=(
                pair.arm,
                str(pair.fold),
                str(pair.seed),
                format_count(block + 1),
                format_number(value),
                _say_bounds(pair, block),
                *(_pick(values, block) for values in (pair.one_block, pair.another_seed, pair.random)),
                _pick(pair.weight_change, block, digits=6),
            )
        )
        for pair in record.cka
        for block, value in enumerate(pair.cka)
    ]
    return Table(
        key="cka",
        title="CKA by block",
        head=("arm", "fold", "seed", "block", "CKA", "95% interval (jackknife)", "that block alone", "another seed",
              "random weights", "change of weights"),
        rows=tuple(rows),
        note="Debiased linear CKA of the frozen encoder with the fine-tuned one over the fold's test slides, one tile "
        "a slide in each minibatch; intervals leave out one slide at a time. Later blocks inherit what earlier ones "
        "changed. 'That block alone': only this block is the fine-tuned one. 'Random weights' is the control: the same "
        "network, never trained.",
        folded=True,
    )  # fmt: skip


def _say_bounds(pair: CkaPair, block: int) -> Printed:
    low, high = (None if ends is None else ends[block] for ends in (pair.low, pair.high))
    return Printed(NONE) if low is None or high is None else format_interval((low, high))


def _pick(values: tuple[float | None, ...] | None, block: int, *, digits: int = 3) -> Printed:
    return format_number(None if values is None else values[block], digits)


def tabulate_localisation(record: Record) -> Table:
    """Return how well each arm's maps meet the outlines, beside darkness and other controls."""
    rows = [
        Row(
            cells=(
                arm.arm,
                re.sub(r"^cam\b", "class activation map", name),
                *(_say_map(measures, key) for key in MAP_MEASURES),
                format_number(None if measures.froc is None else measures.froc.score),
                format_number(None if measures.tile_share is None else measures.tile_share.value),
                format_count(measures.n_patients),
            ),
            badges=("control",) if name == "darkness" or "," in name else (),
        )
        for arm in record.localisation
        for name, measures in arm.maps.items()
    ]
    return Table(
        key="localisation",
        title="Maps against outlines",
        head=("arm", "map", *MAP_MEASURES.values(), "FROC score", "share inside", "patients"),
        rows=tuple(rows),
        note=f"Averaged over slides, then patients. {NOT_ADJUSTED} {HELD_FIXED} By chance an AUC is 0.5, and an AP the "
        "share that lies inside. Darkness, random weights and permuted labels are controls: a map that does no better "
        f"has found nothing. {_say_froc(record)}".strip(),
        titled=False,
    )


def _say_map(measures: MapMeasures, key: str) -> Printed:
    figure: PatientMean | None = getattr(measures, key)
    if figure is None:
        return Printed(NONE)
    cell = format_estimate(figure.value, figure.interval)
    return Printed(cell.replace(" to ", "\u00a0to\u00a0"), cell.value, cell.low, cell.high)  # stays on its line


def _say_froc(record: Record) -> str:
    """Return how maps were held against outlines, as the first arm that says it has it."""
    for arm in record.localisation:
        settings = arm.settings
        froc = next((measures.froc for measures in arm.maps.values() if measures.froc is not None), None)
        counted = f"{froc.n_lesions} lesions on {froc.n_slides} slides" if froc else "no lesion is large enough"
        if settings.k is None or settings.smallest_um is None or settings.radius_um is None:
            continue
        return (
            f"Top k: share of the {settings.k} highest tiles in a lesion. FROC by CAMELYON16's rules ({counted}; "
            f"under {settings.smallest_um:g} µm ignored, neither hit nor false positive; detections "
            f"{settings.radius_um:g} µm apart)."
        )
    return ""
