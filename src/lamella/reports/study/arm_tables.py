"""The arms of a study as tables: the ladder, how each did, what each costs, and what did not run."""

from typing import Any

from lamella.reports.scrub import drop_folders
from lamella.reports.study.record import StudyRecord
from lamella.reports.study.tables import (
    NONE,
    NOT_ADJUSTED,
    PRETRAINING,
    Row,
    StudyTable,
    format_interval,
    format_number,
    format_p,
    format_seconds,
    format_short,
)

BADGES = {"recommended": "recommended", "best": "highest AUC"}


def tabulate_ladder(record: StudyRecord) -> StudyTable:
    """Return the smallest margin at which each arm is accepted, the cheapest arm first."""
    rows = []
    chained = any(one.get("margin_to_whole") is not None for one in record.arms)
    for one in sorted(record.arms, key=lambda one: (one["cost"], one["gflops"], one["arm"])):
        cells = [one["arm"], format_number(one["auc"]), format_short(one["cost"])]
        if chained:
            cells.append(format_number(one.get("margin_to_whole")))
        cells += [format_number(one.get("deficit_upper")), ", ".join(one.get("worse_than") or ()) or NONE]
        rows.append(Row(cells=tuple(cells), kind=record.kind_of(one["arm"]), badges=badge_arm(record, one)))
    whole = ("smallest margin, against the whole network",) if chained else ()
    return StudyTable(
        key="ladder",
        title="Result by non-inferiority margin",
        head=("arm", "AUC", "seconds a slide", *whole, "smallest margin, against every other arm",
              "shown to be worse than"),
        rows=tuple(rows),
        note=f"The declared margin is {record.verdict.get('margin', 0):g}. An arm is non-inferior at every margin "
        "above its smallest one. The bounds of a column hold together, so they may be read at any margin.",
        empty="There is no result by margin: arms were not compared.",
    )  # fmt: skip


def tabulate_arms(record: StudyRecord) -> StudyTable:
    """Return every arm that ran, the highest AUC first."""
    rows = []
    for one in sorted(record.arms, key=lambda one: (-one["auc"], not record.kind_of(one["arm"]), one["arm"])):
        cells = (
            one["arm"],
            format_number(one["auc"]),
            format_interval(one["interval"]),
            format_number(one.get("expected_loss")),
            "yes" if one["not_worse"] else "not shown",
            format_p(one.get("chance_p_holm")),
            format_number(one.get("fold_sd")),
            format_number(one.get("seed_sd")),
            format_number(one.get("auc_pooled")),
            format_interval(one.get("auc_pooled_interval")),
        )
        rows.append(Row(cells=cells, kind=record.kind_of(one["arm"]), badges=badge_arm(record, one)))
    return StudyTable(
        key="arms",
        title="All arms",
        head=("arm", "AUC", "95% interval", "expected loss", "non-inferior to all", "p against chance (Holm)",
              "SD of folds",
              "SD of seeds", "AUC pooled", "its bootstrap interval"),
        rows=tuple(rows),
        note=f"AUC counts pairs of the same fold. {NOT_ADJUSTED} Expected loss: by how much AUC an arm lies below the "
        "best on average over what the AUCs may truly be, for a lab that must choose anyway; it decides nothing. SDs "
        "of folds and seeds tell spread and make no interval. 'Pooled' compares scores of different models with each "
        "other; its bootstrap interval holds the trained models fixed and is too narrow under cross-validation.",
        empty="No arm ran: 'What was not run' says why.",
    )  # fmt: skip


def tabulate_choices(record: StudyRecord) -> StudyTable | None:
    """Return which arm was fine-tuned in which fold; None where none was chosen in each fold."""
    choices = next((row["chosen"] for row in record.study["arms"] if row.get("chosen")), None)
    if choices is None:
        return None
    rows = []
    for one in choices:
        losses = one["val_log_loss"]
        others = [f"{name} {format_number(loss)}" for name, loss in losses.items() if name != one["arm"]]
        cells = (str(one["fold"]), one["arm"], format_number(losses[one["arm"]]), "; ".join(others) or NONE)
        rows.append(Row(cells=cells))
    return StudyTable(
        key="choices",
        title="Chosen in each fold",
        head=("fold", "arm", "its log-loss on validation", "the others'"),
        rows=tuple(rows),
        note="In each fold the frozen arm of least log-loss on that fold's own validation patients was fine-tuned; "
        "patients that the fold tests took no part in the choice, so 'best of each fold' has no advantage from having "
        "been chosen. It is a way of choosing, not one network.",
        empty="",
    )


def badge_arm(record: StudyRecord, one: dict[str, Any]) -> tuple[str, ...]:
    """Return the words beside an arm's name."""
    kind = BADGES.get(record.kind_of(one["arm"]))
    return (*([kind] if kind else []), *(["added later"] if one.get("added_later") else []))


def number_arms(record: StudyRecord) -> dict[str, int]:
    """Return each arm's number in the chart of cost, the cheapest being 1."""
    order = sorted(record.arms, key=lambda one: (one["cost"], one["gflops"], one["arm"]))
    return {one["arm"]: place + 1 for place, one in enumerate(order)}


def tabulate_costs(record: StudyRecord) -> StudyTable:
    """Return what each arm that ran costs, the cheapest first."""
    numbers = number_arms(record)
    arms = {one["arm"]: one for one in record.arms}
    rows = []
    for name, number in numbers.items():
        one, row = arms[name], record.described.get(name, {})
        millions = None if row.get("parameters") is None else row["parameters"] / 1e6
        cells = (
            name,
            str(number),
            format_number(one["auc"]),
            format_short(one["cost"]),
            format_short(one["gflops"]),
            format_number(millions, 2),
            str(row.get("dim", NONE)),
            PRETRAINING.get(str(row.get("pretraining")), NONE),
            format_number(row.get("imagenet_top1"), 1),
        )
        rows.append(Row(cells=cells, kind=record.kind_of(name), badges=badge_arm(record, one)))
    return StudyTable(
        key="costs",
        title="What each arm costs",
        head=("arm", "no.", "AUC", "seconds a slide", "GFLOPs a tile", "million weights", "width", "pretraining",
              "ImageNet top-1, %"),
        rows=tuple(rows),
        note=say_costs(record),
        empty="No arm ran, so none was timed.",
    )  # fmt: skip


def say_costs(record: StudyRecord) -> str:
    """Return how costs were measured, and on what."""
    said = "Seconds of encoding an average slide, measured once (each arm alone on the same 64 tiles, arms in turn, "
    said += "median of 5) and kept; within a tenth, fewer GFLOPs count as cheaper."
    first: dict[str, Any] = next(iter(record.costs.values()), {})
    parts = [str(first[key]) for key in ("runtime", "precision", "device", "processor") if first.get(key)]
    if first.get("n_cores"):
        parts.append(f"{first['n_cores']} cores")
    return said + (f" Here: {', '.join(dict.fromkeys(parts))}." if parts else "")


def tabulate_not_run(record: StudyRecord) -> StudyTable:
    """Return the arms that did not run, why, what they would have cost, and what would let them."""
    rows = []
    for one in record.study["arms"]:
        if one["state"] == "done":
            continue
        reason, command = one.get("reason"), one.get("command")
        cells = (
            one["arm"],
            one["state"],
            drop_folders(str(reason)) if reason and reason != command else NONE,
            format_seconds(one.get("estimated_seconds")),
            drop_folders(str(command)) if command else NONE,
        )
        rows.append(Row(cells=cells))
    return StudyTable(
        key="not-run",
        title="What was not run",
        head=("arm", "state", "why", "would take about", "how to get it"),
        rows=tuple(rows),
        note="No arm is dropped in silence. `lamella study` with the same --out runs what has become possible.",
        empty="Nothing: every arm of the design ran.",
    )
