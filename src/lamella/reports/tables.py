"""The page's tables, as plain rows of text; the template escapes every cell."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from lamella.reports.gallery import find_call
from lamella.reports.record import RunRecord
from lamella.reports.results import MEASURES, Arm, Group, StageTwoArm
from lamella.reports.scrub import drop_folders
from lamella.reports.sentences import count, join_words, title_arm

_MOST_NAMED = 8
_NONE = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of the page.

    Attributes:
        head: Names of the columns.
        rows: Cells, the first of each row being its name.
        note: A line under it.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def tabulate_classes(record: RunRecord) -> Table:
    """Count slides by class, and by fold or split."""
    parts = {
        slide.slide_id: slide.split or ("" if slide.fold is None else f"fold {slide.fold}") for slide in record.slides
    }
    columns = sorted(set(parts.values()) - {""}, key=lambda part: (_SPLITS.get(part, 9), len(part), part))
    labels = list(dict.fromkeys([*record.classes, *(slide.label for slide in record.slides)]))
    rows = []
    for label in labels:
        own = [slide for slide in record.slides if slide.label == label]
        n_patients = len({slide.patient_id for slide in own})
        counts = Counter(parts[slide.slide_id] for slide in own)
        rows.append(
            (label or "(no label)", f"{len(own):,}", f"{n_patients:,}", *(str(counts[part]) for part in columns))
        )
    note = "Columns count the slides tested in each fold." if any(part.startswith("fold") for part in columns) else ""
    return Table(head=("class", "slides", "patients", *columns), rows=tuple(rows), note=note)


def tabulate_batches(record: RunRecord) -> Table | None:
    """Count slides by batch and class; None where no batch is known."""
    batches = sorted({slide.batch for slide in record.slides})
    if batches in ([], [""]):
        return None
    rows = []
    for batch in batches:
        counts = Counter(slide.label for slide in record.slides if slide.batch == batch)
        rows.append((batch or "(no batch)", *(str(counts[label]) for label in record.classes)))
    one_sided = [row[0] for row in rows if sum(cell != "0" for cell in row[1:]) < 2]
    note = f"Only one class in {_name_some(one_sided)}: within it nothing can be compared." if one_sided else ""
    return Table(head=("batch", *record.classes), rows=tuple(rows), note=note)


def tabulate_ledger(record: RunRecord) -> Table | None:
    """Add up the tissue that each step kept and removed; None without a ledger."""
    if not record.ledger:
        return None
    steps = dict.fromkeys(row.step for row in record.ledger)
    rows = []
    for step in steps:
        own = [row for row in record.ledger if row.step == step]
        kept, removed = (math.fsum(x for x in areas if math.isfinite(x)) for areas in (
            [row.kept_um2 for row in own], [row.removed_um2 for row in own]))  # fmt: skip
        before = kept + removed
        most = max(own, key=lambda row: row.removed_um2 / (row.kept_um2 + row.removed_um2 or 1))
        share = most.removed_um2 / (most.kept_um2 + most.removed_um2 or 1)
        worst = f"{most.slide_id} ({share:.0%})" if share >= 0.005 else ""
        rows.append((step, _area(kept), _area(removed), f"{removed / before:.1%}" if before else "", worst))
    empty = [slide.slide_id for slide in record.slides if slide.n_tiles == 0]
    note = f"No tile is left of {_name_some(empty)}." if empty else ""
    head = ("step", "kept, mm2", "removed, mm2", "removed", "most from slide")
    return Table(head=head, rows=tuple(rows), note=note)


def tabulate_tiles(record: RunRecord) -> Table | None:
    """Compare the number of tiles between classes; None where it is not known."""
    rows = []
    for label in dict.fromkeys([*record.classes, *(slide.label for slide in record.slides)]):
        own = [slide.n_tiles for slide in record.slides if slide.label == label and slide.n_tiles is not None]
        if own:
            cells = (f"{len(own):,}", f"{min(own):,}", f"{median(own):,.0f}", f"{max(own):,}")
            rows.append((label or "(no label)", *cells))
    if not rows:
        return None
    return Table(head=("tiles a slide", "slides", "fewest", "median", "most"), rows=tuple(rows))


def tabulate_results(record: RunRecord) -> list[tuple[str, Table]]:
    """Tabulate every figure of the model beside the baselines: by slide, by patient, by batch."""
    results = record.results
    if results is None:
        return []
    model, one = results.model, record.is_one_round
    arms = [model, *results.baselines]
    found = [
        ("By slide", _tabulate_groups(arms, [arm.slides for arm in arms], one_round=one)),
        (
            "By patient",
            _tabulate_groups(arms, [arm.patients for arm in arms], one_round=one) if model.counts_patients else None,
        ),
        ("By batch", _tabulate_batch_results(arms)),
    ]
    if results.left_out is not None:
        arms = [results.left_out, *results.left_out_baselines]
        found.append(("Each batch left out in turn", _tabulate_groups(arms, [arm.headline for arm in arms])))
    found.append(("Frozen, control and fine-tuned", _tabulate_stage_two(results.stage_two)))
    found.append(("Which blocks fine-tuning moved", _tabulate_cka(results.cka)))
    return [*((title, table) for title, table in found if table is not None), *tabulate_localisation(record)]


def _tabulate_stage_two(arms: Sequence[StageTwoArm]) -> Table | None:
    """Tabulate stage 1, the control and the tuned encoder, each on all tiles and on its own most attended ones."""
    if not arms:
        return None
    names = {"stage 1": "stage 1 (frozen)", "head": "head only (control)", "tuned": "encoder and head"}
    readings = {"all": "all tiles", "top": "its most attended"}
    rows = tuple(
        (
            names.get(one.arm, one.arm),
            readings.get(one.reading, one.reading),
            _NONE if one.auc is None else str(one.auc),
            _NONE if one.less_stage_1 is None else str(one.less_stage_1),
        )
        for one in arms
    )
    note = (
        "Stage 1 here is the seeds that were trained on, so its AUC may differ from the model's above, which averages "
        "all seeds. Differences are paired: the same patients, read the same way. An interval that holds 0 shows none."
    )
    return Table(head=("trained", "read from", "AUC", "less stage 1"), rows=rows, note=note)


def _tabulate_cka(rows: Sequence[Mapping[str, Any]]) -> Table | None:
    """Tabulate how far each block was moved: means over folds and seeds, with the range."""
    if not rows:
        return None
    columns = (
        ("CKA", "cka"),
        ("that block alone", "one_block"),
        ("another seed", "another_seed"),
        ("random weights", "random"),
        ("change of weights", "weight_change"),
    )
    blocks = range(len(rows[0]["cka"]))
    body = []
    for block in blocks:
        cells = [str(block + 1)]
        for _, key in columns:
            values = [row[key][block] for row in rows if row.get(key) is not None and row[key][block] is not None]
            cells.append(_say_range(values, percent=key == "weight_change"))
        body.append(tuple(cells))
    note = (
        "Linear CKA of the frozen encoder with the fine-tuned one over held-out slides, by block: 1 is no change. "
        "Later blocks inherit what earlier ones changed; the second column takes that block alone from the fine-tuned "
        f"network. Means and ranges over {len(rows)} trainings (folds and seeds). Another seed and random weights are "
        "controls."
    )
    return Table(head=("block", *(name for name, _ in columns)), rows=tuple(body), note=note)


def _say_range(values: Sequence[float], *, percent: bool = False) -> str:
    """Return a mean with the range, or nothing."""
    values = [value for value in values if math.isfinite(value)]
    if not values:
        return _NONE
    mean, low, high = math.fsum(values) / len(values), min(values), max(values)
    if percent:
        return f"{mean * 100:.2g}%" if len(values) == 1 else f"{mean * 100:.2g}% (to {high * 100:.2g}%)"
    return f"{mean:.3f}" if len(values) == 1 else f"{mean:.3f} ({low:.3f} to {high:.3f})"


def tabulate_localisation(record: RunRecord) -> list[tuple[str, Table]]:
    """Tabulate where maps light up, of each arm that was measured."""
    found = []
    for arm, content in record.localisation.items():
        maps = content.get("maps") or {}
        if not maps:
            continue
        rows = []
        for name, one in maps.items():
            cells = [_say_estimate(one.get(key)) for key in ("tile_auc", "tile_ap", "pixel_auc", "pixel_ap")]
            froc = one.get("froc")
            pointing = [_say_estimate(one.get(key), digits=2) for key in ("pointing", "top_k")]
            rows.append((name, *cells, *pointing, _NONE if froc is None else f"{froc['score']:.2f}"))
        first, settings = next(iter(maps.values())), content.get("settings") or {}
        share = first.get("tile_share") or {"value": math.nan}
        froc = first.get("froc")
        counted = f"{froc['n_lesions']} lesions on {froc['n_slides']} slides" if froc else "no lesion is large enough"
        note = (
            f"On {first['n_slides']} slides with lesions, by models that did not learn from them; means over patients, "
            "intervals by drawing patients with the models held fixed: too narrow under cross-validation. AP has a "
            f"chance level of {share['value']:.3f} on tiles. Top k: share of the {settings.get('k')} highest tiles in "
            f"a lesion. FROC by CAMELYON16's rules ({counted}; under {settings.get('smallest_um'):g} um neither "
            f"hit nor false; detections {settings.get('radius_um'):g} um apart). Darkness needs no model at all."
        )
        head = ("map", "tile AUC", "tile AP", "pixel AUC", "pixel AP", "pointing", "top k", "FROC")
        title = "Localisation" if arm == "frozen" else f"Localisation, {arm}"
        found.append((title, Table(head=head, rows=tuple(rows), note=note)))
    return found


def _say_estimate(one: Mapping[str, Any] | None, *, digits: int = 3) -> str:
    if one is None:
        return _NONE
    if one["interval"] is None:
        return f"{one['value']:.{digits}f}"
    low, high = one["interval"]
    return f"{one['value']:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def tabulate_calls(record: RunRecord) -> Table | None:
    """Count what slides of each class were called; None where nothing was predicted."""
    labelled = [
        (slide.label, call.predicted) for slide in record.slides if slide.label and (call := find_call(slide, record))
    ]
    if not labelled:
        return None
    counts = Counter(labelled)
    rows = tuple((label, *(str(counts[label, called]) for called in record.classes)) for label in record.classes)
    return Table(head=("label", *(f"called {name}" for name in record.classes)), rows=rows)


def list_slides(record: RunRecord, *, max_rows: int) -> Table:
    """List the slides with their predictions, most probably positive first."""
    order = sorted(record.slides, key=lambda slide: -slide.probabilities.get(record.positive, -1.0))
    rows = []
    for slide in order[:max_rows]:
        call = find_call(slide, record)
        share = slide.probabilities.get(record.positive)
        fold = slide.split or ("" if slide.fold is None else str(slide.fold))
        rows.append((
            slide.slide_id, slide.patient_id, slide.label, slide.batch, fold,
            "" if slide.n_tiles is None else f"{slide.n_tiles:,}", "" if share is None else f"{share:.2f}",
            call.predicted if call else "", "" if call is None or call.right is not False else "wrong",
        ))  # fmt: skip
    left = len(order) - len(rows)
    note = f"{count(left, 'more slide')} in predictions.csv." if left > 0 else ""
    head = ("slide", "patient", "label", "batch", "fold", "tiles", f"p({record.positive})", "called", "")
    return _drop_empty_columns(Table(head=head, rows=tuple(rows), note=note))


def tabulate_failures(record: RunRecord) -> Table | None:
    """List slides that could not be done, with the reason; None where all were."""
    if not record.failures:
        return None
    rows = tuple((row.slide_id, row.stage, drop_folders(row.reason)) for row in record.failures)
    return Table(head=("slide", "stage", "reason"), rows=rows)


def tabulate_settings(record: RunRecord) -> Table:
    """List what was asked for, name by name."""
    rows = [(name, drop_folders(value)) for name, value in _flatten(record.settings)]
    if record.runtime:
        rows.append(("ran on", drop_folders(record.runtime)))
    return Table(head=("setting", "value"), rows=tuple(rows))


def _tabulate_groups(arms: list[Arm], groups: list[Group | None], *, one_round: bool = False) -> Table | None:
    """Lay arms beside each other, one figure a row; what a figure lacks is said in the note.

    In one round there are no folds to pool, so the AUC stands there once.
    """
    known = [key for key in MEASURES if any(group and key in group.measures for group in groups)]
    known = [key for key in known if not (one_round and key == "auc_pooled")]
    if not known or groups[0] is None:
        return None
    rows = []
    for key in known:
        cells = [str(group.measures[key]) if group and key in group.measures else _NONE for group in groups]
        rows.append(("AUC" if one_round and key == "auc" else MEASURES[key], *cells))
    missing: dict[str, list[str]] = {}
    for arm, group in zip(arms, groups, strict=True):
        for reason in dict.fromkeys(reason for key, reason in (group.reasons.items() if group else ()) if key in known):
            missing.setdefault(reason, []).append(title_arm(arm))
    notes = [f"{title_arm(arm)}: {arm.reason}." for arm in arms if arm.reason]
    notes += [f"Where there is no figure ({'; '.join(titles)}): {reason}." for reason, titles in missing.items()]
    return Table(head=("", *map(title_arm, arms)), rows=tuple(rows), note=" ".join(notes))


def _tabulate_batch_results(arms: list[Arm]) -> Table | None:
    """Lay the arms' AUC within each batch, and within all, beside each other."""
    shown = [arm for arm in arms if any("auc" in group.measures for group in arm.batches)]
    if not shown:
        return None
    by_arm = [{group.name: group for group in arm.batches} for arm in shown]
    rows = []
    for group in arms[0].batches:
        cells = [str(own[group.name].measures.get("auc", _NONE)) if group.name in own else _NONE for own in by_arm]
        rows.append((group.name, "" if group.n is None else str(group.n), *cells))
    if any(arm.within_batches for arm in shown):
        rows.append(("pairs within a batch", "", *(str(arm.within_batches or _NONE) for arm in shown)))
    note = "The last line counts only pairs of the same batch: what a batch's look cannot explain."
    head = ("AUC within batch", "n", *map(title_arm, shown))
    return Table(head=head, rows=tuple(rows), note=note if shown[0].within_batches else "")


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """List nested settings as dotted names with their values as text."""
    found: list[tuple[str, str]] = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found += _flatten(value, f"{prefix}{name}.")
        else:
            text = "not set" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
            found.append((f"{prefix}{name}", text))
    return found


def _drop_empty_columns(table: Table) -> Table:
    """Return a table without the columns that hold nothing."""
    kept = [place for place in range(len(table.head)) if any(row[place] for row in table.rows)]
    rows = tuple(tuple(row[place] for place in kept) for row in table.rows)
    return Table(head=tuple(table.head[place] for place in kept), rows=rows, note=table.note)


def _area(um2: float) -> str:
    """Return an area in mm2 with three digits that matter."""
    mm2 = um2 / 1e6
    return f"{mm2:,.0f}" if mm2 >= 100 else f"{mm2:.3g}"


def _name_some(names: list[str]) -> str:
    """Name a few, and count the rest."""
    shown = names[:_MOST_NAMED]
    return join_words(shown) if len(names) <= _MOST_NAMED else f"{', '.join(shown)} and {len(names) - _MOST_NAMED} more"


_SPLITS = {"train": 0, "val": 1, "test": 2}
