"""Declared comparisons as the paper prints them: each arm with what it is held against, and the paper's figures."""

from collections.abc import Mapping, Sequence
from typing import Any

from lamella.reports.study.arm_tables import badge_arm
from lamella.reports.study.paper_figures import COLUMNS, NOTE, PRESETS, find_paper_figure, format_pair
from lamella.reports.study.record import StudyRecord
from lamella.reports.study.tables import (
    NONE,
    NOT_ADJUSTED,
    Row,
    StudyTable,
    format_interval,
    format_number,
    format_p,
)

_HEAD = ("arm", "AUC", "95% interval", "against", "difference", "its 95% interval", "p", "p (Holm)")


def tabulate_declared(record: StudyRecord) -> list[StudyTable]:
    """Return the declared tables, the paper's I to IV where the design has them."""
    return [_tabulate(record, table) for table in record.verdict.get("tables", [])]


def say_how_to_read(record: StudyRecord) -> str:
    """Return what must be known of the declared tables."""
    said = f"* p below 0.05 after Holm's adjustment within its table. {NOT_ADJUSTED}"
    return f"{said} {NOTE}" if record.study.get("preset") in PRESETS else said


def _tabulate(record: StudyRecord, table: Mapping[str, Any]) -> StudyTable:
    absent = _list_absent(record, table)
    names = [name for row in table["rows"] for name in (row["base"], row["arm"])] + [row["arm"] for row in absent]
    described = record.described
    top1 = any(described.get(name, {}).get("imagenet_top1") is not None for name in names) and table["name"] == "I"
    paper = record.study.get("preset") in PRESETS and any(_find(described.get(name)) for name in names)
    head = (*_HEAD, *(("ImageNet top-1, %",) if top1 else ()), *(COLUMNS if paper else ()))
    rows = []
    for kind, found in _order(table["rows"]):
        name = found["base"] if kind == "base" else found["arm"]
        cells = [name, *_say_arm(record, name), *_say_difference(kind, found)]
        cells += _beside(described.get(name), top1=top1, paper=paper)
        row_kind = record.kind_of(name) or ("starred" if kind == "arm" and found["starred"] else "")
        arm = next((one for one in record.arms if one["arm"] == name), {"arm": name})
        rows.append(Row(cells=tuple(cells), kind=row_kind, badges=badge_arm(record, arm)))
    for row in absent:
        cells = [row["arm"], *[NONE] * (len(_HEAD) - 1), *_beside(row, top1=top1, paper=paper)]
        rows.append(Row(cells=tuple(cells), kind="absent", badges=(str(row["state"]),)))
    return StudyTable(
        key=f"table-{table['name']}",
        title=f"Table {table['name']}: {table['title']}",
        head=head,
        rows=tuple(rows),
        empty="No pair of this table ran; 'What was not run' says why.",
    )


def _order(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    """Return what a table lists: each base once, followed by the arms that are held against it."""
    listed: list[tuple[str, Mapping[str, Any]]] = []
    for base in dict.fromkeys(row["base"] for row in rows):
        own = [row for row in rows if row["base"] == base]
        listed.append(("base", own[0]))
        listed += [("arm", row) for row in own]
    return listed


def _say_arm(record: StudyRecord, name: str) -> tuple[str, str]:
    arm = next((one for one in record.arms if one["arm"] == name), None)
    return (NONE, NONE) if arm is None else (format_number(arm["auc"]), format_interval(arm["interval"]))


def _say_difference(kind: str, row: Mapping[str, Any]) -> tuple[str, str, str, str, str]:
    if kind == "base":
        return ("(reference)", NONE, NONE, NONE, NONE)
    return (
        row["base"],
        f"{row['difference']:+.3f}{' *' if row['starred'] else ''}",
        format_interval(row["interval"], signed=True),
        format_p(row["p"]),
        format_p(row["p_holm"]),
    )


def _beside(row: Mapping[str, Any] | None, *, top1: bool, paper: bool) -> list[str]:
    """Return the further columns of an arm: its ImageNet accuracy, and what the paper found."""
    cells = [format_number((row or {}).get("imagenet_top1"), 1)] if top1 else []
    return cells + (list(format_pair(_find(row))) if paper else [])


def _find(row: Mapping[str, Any] | None) -> Any:
    return None if row is None else find_paper_figure(row["encoder"], row["depth"], row["finetuned"], row["weights"])


def _list_absent(record: StudyRecord, table: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the arms that a table would list had they run."""
    declared = next(
        (one for one in record.study["design"].get("comparisons", []) if one["name"] == table["name"]), None
    )
    if declared is None:
        return []
    listed = {name for pair in declared.get("pairs") or () for name in pair}
    encoders = declared.get("encoders")
    return [
        row
        for row in record.study["arms"]
        if row["state"] != "done"
        and (row["arm"] in listed or _follows(row, declared.get("rule")))
        and (encoders is None or row["encoder"] in encoders)
    ]


def _follows(row: Mapping[str, Any], rule: str | None) -> bool:
    """Say whether an arm is one that a rule of the design speaks of."""
    frozen, whole = row["finetuned"] == "frozen", row["depth"] == 4
    follows: dict[str, bool] = {
        "each against the first": frozen and whole,
        "histology against ImageNet": frozen and row.get("pretraining") == "histology",
        "tuned against frozen": not frozen,
        "depth against 4": not whole,
    }
    return follows.get(rule or "", False)
