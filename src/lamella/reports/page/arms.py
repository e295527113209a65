"""The arms as tables: how each did, the result by margin, what each costs, and what did not run."""

from collections.abc import Mapping, Sequence

from lamella.analysis.verdict import ArmVerdict
from lamella.reports.page.parts import Row, Table
from lamella.reports.record import Record
from lamella.reports.scrub import drop_folders
from lamella.reports.words import (
    NONE,
    NOT_ADJUSTED,
    PRETRAINING,
    STAGE_TWO,
    format_count,
    format_interval,
    format_number,
    format_p,
    format_seconds,
    format_short,
)
from lamella.studies.record import ArmRecord

BADGES = {"recommended": "recommended", "best": "highest AUC"}


def tabulate_ladder(record: Record) -> Table:
    """Return the smallest margin at which each arm is accepted, the cheapest arm first."""
    rows = []
    chained = any(arm.margin_to_whole is not None for arm in record.arms)
    priced = any(arm.cost is not None for arm in record.arms)
    for arm in sort_by_cost(record.arms):
        cells = [arm.arm, format_number(arm.auc), *([format_short(arm.cost)] if priced else [])]
        if chained:
            cells.append(format_number(arm.margin_to_whole))
        cells += [format_number(arm.deficit_upper), ", ".join(arm.worse_than) or NONE]
        rows.append(Row(cells=tuple(cells), kind=record.kind_of(arm.arm), badges=badge_arm(record, arm)))
    cost = (record.cost_unit or "seconds a slide",) if priced else ()
    whole = ("smallest margin, against the whole network",) if chained else ()
    margin = 0 if record.verdict is None else record.verdict.margin
    return Table(
        key="ladder",
        title="Result by non-inferiority margin",
        head=("arm", "AUC", *cost, *whole, "smallest margin, against every other arm",
              "shown to be worse than"),
        rows=tuple(rows),
        note=f"The declared margin is {margin:g}. An arm is non-inferior at every margin above its smallest one. The "
        "bounds of a column hold together, so they may be read at any margin.",
        empty="There is no result by margin: arms were not compared.",
    )  # fmt: skip


def tabulate_external(record: Record) -> Table:
    """Return what each of several models reaches on new patients, and its answer there."""
    verdict = record.external
    arms = () if verdict is None else verdict.arms
    chained = any(arm.loss is not None for arm in arms)
    loss = ("loss against the whole network", "95% interval") if chained else ()
    rows = []
    for arm in arms:
        cells = [arm.arm, format_number(arm.auc), format_interval(arm.interval)]
        if chained:
            cells += [format_number(arm.loss), format_interval(arm.loss_interval)]
        cells += [format_number(arm.smallest_margin), ", ".join(arm.worse_than) or NONE, arm.answer or NONE]
        recommended = verdict is not None and arm.arm == verdict.claim.arm
        badges = (BADGES["recommended"],) if recommended else ()
        rows.append(Row(cells=tuple(cells), kind="recommended" if recommended else "", badges=badges))
    margin = 0 if verdict is None else verdict.margin
    return Table(
        key="external",
        title="Does the recommendation hold for these patients?",
        head=("arm", "AUC", "95% interval", *loss, "smallest margin", "shown to be worse than", "answer"),
        rows=tuple(rows),
        note=f"All models predict the same patients, at the declared margin ({margin:g}). The arm whose slides "
        "and figures this page shows is the recommended one, or the first.",
    )


def tabulate_arms(record: Record) -> Table:
    """Return every arm that ran, the highest AUC first."""
    if record.study is None:
        return _tabulate_run(record)
    rows = []
    for arm in sorted(record.arms, key=lambda arm: (-arm.auc, not record.kind_of(arm.arm), arm.arm)):
        cells = (
            arm.arm,
            format_number(arm.auc),
            format_interval(arm.interval),
            format_number(arm.expected_loss),
            "yes" if arm.not_worse else "not shown",
            format_p(arm.chance_p_holm),
            format_number(arm.fold_sd),
            format_number(arm.seed_sd),
            format_number(arm.auc_pooled),
            format_interval(arm.auc_pooled_interval),
        )
        rows.append(Row(cells=cells, kind=record.kind_of(arm.arm), badges=badge_arm(record, arm)))
    return Table(
        key="arms",
        title="All arms",
        head=("arm", "AUC", "95% interval", "expected loss", "non-inferior to all", "p against chance (Holm)",
              "SD of folds", "SD of seeds", "AUC pooled", "its bootstrap interval"),
        rows=tuple(rows),
        note=f"AUC counts pairs of the same fold. {NOT_ADJUSTED} Expected loss: by how much AUC an arm lies below the "
        "best on average over what the AUCs may truly be, for a lab that must choose anyway; it decides nothing. SDs "
        "of folds and seeds tell spread and make no interval. 'Pooled' compares scores of different models with each "
        "other; its bootstrap interval holds the trained models fixed and is too narrow under cross-validation.",
        empty="No arm ran: 'What was not run' says why.",
        titled=False,
    )  # fmt: skip


def _tabulate_run(record: Record) -> Table:
    """Return the arm of a run, by slide and by patient, and with each batch left out."""
    metrics = record.shown_metrics
    rows = []
    if metrics is not None:
        pairs = [(str(record.shown), "patients", metrics.patients), (str(record.shown), "slides", metrics.slides)]
        if not metrics.counts_patients:
            pairs = [(str(record.shown), metrics.headline, metrics.headline_units)]
        if record.left_out is not None:
            left_out = record.left_out
            pairs.append((f"{record.shown}, each batch left out", left_out.headline, left_out.headline_units))
        for number, (name, unit, measures) in enumerate(pairs):
            if measures is None or measures.auc.value is None:
                continue
            cells = (
                name,
                format_number(measures.auc.value),
                format_interval(measures.auc.interval),
                unit,
                format_count(measures.n),
                NONE if record.is_one_round else format_number(measures.auc_pooled.value),
                NONE if record.is_one_round else format_interval(measures.auc_pooled.interval),
            )
            rows.append(Row(cells=cells, kind="" if number else "best"))
    return Table(
        key="arms",
        title="The model",
        head=("arm", "AUC", "95% interval", "of", "n", "AUC pooled", "its bootstrap interval"),
        rows=tuple(rows),
        note="AUC counts pairs of the same fold. 'Pooled' compares scores of different models with each other; its "
        "bootstrap interval holds the trained models fixed and is too narrow under cross-validation.",
        empty="There are no results: metrics.json is not there or holds none for the model.",
        titled=False,
    ).without_empty_columns()


def tabulate_stage_two(record: Record) -> Table:
    """Return stage 1, the control and the fine-tuned encoder, each on all tiles and on its own most attended ones."""
    readings = {"all": "all tiles", "top": "its most attended"}
    rows = []
    for arm in record.stage_two:
        difference = arm.less_stage_1
        cells = (
            STAGE_TWO.get(arm.finetuned, arm.finetuned),
            readings.get(arm.reading, arm.reading),
            format_number(arm.auc),
            format_interval(arm.interval),
            format_number(None if difference is None else difference.difference),
            format_interval(None if difference is None else difference.interval, signed=True),
        )
        rows.append(Row(cells=cells))
    return Table(
        key="stage-two",
        title="Frozen, head only and fine-tuned",
        head=("arm", "read from", "AUC", "95% interval", "less frozen", "its 95% interval"),
        rows=tuple(rows),
        note="The frozen model here has the seeds that were fine-tuned, so its AUC may differ from the one above, "
        "which averages all seeds. Differences are paired: the same patients, read the same way. An interval that "
        "holds 0 shows none.",
    )


def tabulate_choices(record: Record) -> Table | None:
    """Return which arm was fine-tuned in which fold; None where none was chosen in each fold."""
    choices = next((arm.chosen for arm in record.described.values() if arm.chosen), None)
    if choices is None:
        return None
    rows = []
    for choice in choices:
        losses = choice.val_log_loss
        others = [f"{name} {format_number(loss)}" for name, loss in losses.items() if name != choice.arm]
        cells = (str(choice.fold), choice.arm, format_number(losses[choice.arm]), "; ".join(others) or NONE)
        rows.append(Row(cells=cells))
    return Table(
        key="choices",
        title="Chosen in each fold",
        head=("fold", "arm", "its log-loss on validation", "the others'"),
        rows=tuple(rows),
        note="In each fold the frozen arm of least log-loss on that fold's own validation patients was fine-tuned; "
        "patients that the fold tests took no part in the choice, so 'best of each fold' has no advantage from having "
        "been chosen. It is a way of choosing, not one network.",
    )


def badge_arm(record: Record, arm: ArmVerdict) -> tuple[str, ...]:
    """Return the words beside an arm's name."""
    kind = BADGES.get(record.kind_of(arm.arm))
    return (*([kind] if kind else []), *(["added later"] if arm.added_later else []))


def sort_by_cost(arms: Sequence[ArmVerdict]) -> list[ArmVerdict]:
    """Return the arms, the cheapest first; where that of one is not known, as they were named."""
    if any(arm.cost is None for arm in arms):
        return list(arms)
    return sorted(arms, key=lambda arm: (arm.cost or 0.0, arm.gflops or 0.0, arm.arm))


def number_arms(record: Record) -> dict[str, int]:
    """Return each arm's number in the chart of cost, the cheapest being 1."""
    return {arm.arm: number for number, arm in enumerate(sort_by_cost(record.arms), 1)}


def tabulate_costs(record: Record) -> Table:
    """Return what each arm that ran costs, the cheapest first."""
    numbers = number_arms(record)
    rows = []
    for arm in sort_by_cost(record.arms):
        described = record.described.get(arm.arm)
        parameters = None if described is None else described.parameters
        cells = (
            arm.arm,
            format_count(numbers[arm.arm]),
            format_number(arm.auc),
            format_short(arm.cost),
            format_short(arm.gflops),
            format_number(None if parameters is None else parameters / 1e6, 2),
            NONE if described is None or described.dim is None else str(described.dim),
            *_say_scale(described),
            NONE if described is None else PRETRAINING.get(str(described.pretraining), NONE),
            format_number(None if described is None else described.imagenet_top1, 1),
        )
        rows.append(Row(cells=cells, kind=record.kind_of(arm.arm), badges=badge_arm(record, arm)))
    return Table(
        key="costs",
        title="What each arm costs",
        head=("arm", "no.", "AUC", record.cost_unit or "seconds a slide", "GFLOPs a tile", "million weights", "width",
              "tile, px", "um/px asked", "um/px seen", "pretraining", "ImageNet top-1, %"),
        rows=tuple(rows),
        note=say_costs(record),
        empty="No arm ran, so none was timed.",
    )  # fmt: skip


def _say_scale(described: ArmRecord | None) -> tuple[str, str, str]:
    """Return the side of an arm's tiles, and their resolution as they are cut and as the encoder sees them."""
    if described is None or described.mpp_asked is None:
        return NONE, NONE, NONE
    return str(described.tile_px), f"{described.mpp_asked:.3g}", format_short(described.mpp_seen)


def tabulate_budgets(record: Record) -> Table:
    """Return the arms by how many tiles of a slide they read, the fewest first."""
    rows = []
    described = {arm.arm: row for arm in record.arms if (row := record.described.get(arm.arm)) and row.mean_tiles}
    for arm in sorted((arm for arm in record.arms if arm.arm in described), key=lambda arm: _count(described, arm)):
        most = described[arm.arm].tiles_per_slide
        cells = (
            arm.arm,
            "all" if most is None else format_count(most),
            format_number(described[arm.arm].mean_tiles, 1),
            format_number(arm.auc),
            format_interval(arm.interval),
            format_short(arm.cost),
        )
        rows.append(Row(cells=cells, kind=record.kind_of(arm.arm), badges=badge_arm(record, arm)))
    return Table(
        key="budgets",
        title="Arms by tiles a slide",
        head=("arm", "at most", "tiles a slide", "AUC", "95% interval", record.cost_unit or "seconds a slide"),
        rows=tuple(rows),
        note="Tiles were spread over the tissue by farthest-point sampling; a slide with fewer is read whole.",
        titled=False,
    )


def _count(described: Mapping[str, ArmRecord], arm: ArmVerdict) -> tuple[float, str]:
    return described[arm.arm].mean_tiles or 0.0, arm.arm


def say_costs(record: Record) -> str:
    """Return how costs were measured, and on what."""
    if record.study is not None and record.study.cost_unit is not None:
        if not record.cost_unit:
            return "Of bags that were there the costs are not known (lamella study --costs TABLE)."
        return f"{record.cost_unit[0].upper()}{record.cost_unit[1:]}; those of bags that were there as given."
    said = (
        "Seconds of encoding an average slide, measured once (each arm alone on the same 64 tiles, arms in turn, "
        "median of 5) and kept; within a tenth, fewer GFLOPs count as cheaper."
    )
    if not record.costs:
        return said
    cost = record.costs[0]
    parts = [part for part in (cost.runtime, cost.precision, cost.device, cost.processor) if part]
    parts += [f"{cost.n_cores} cores"] if cost.n_cores else []
    return said + (f" Here: {', '.join(dict.fromkeys(parts))}." if parts else "")


def tabulate_not_run(record: Record) -> Table:
    """Return the arms that did not run, why, what they would have cost, and what would let them."""
    rows = []
    for arm in record.described.values():
        if arm.state == "done":
            continue
        cells = (
            arm.arm,
            arm.state,
            drop_folders(arm.reason) if arm.reason and arm.reason != arm.command else NONE,
            format_seconds(arm.estimated_seconds),
            drop_folders(arm.command) if arm.command else NONE,
        )
        rows.append(Row(cells=cells))
    return Table(
        key="not-run",
        title="What was not run",
        head=("arm", "state", "why", "would take about", "how to get it"),
        rows=tuple(rows),
        note="No arm is dropped in silence. `lamella study` with the same --out runs what has become possible.",
        empty="Nothing: every arm of the design ran.",
        titled=False,
    )
