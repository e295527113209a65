"""Declared comparisons as the paper prints them: each arm with what it is held against, and the paper's figures."""

from collections.abc import Iterator

from lamella.analysis.verdict import DeclaredPair, DeclaredTable
from lamella.reports.page.arms import badge_arm
from lamella.reports.page.paper_figures import COLUMNS, NOTE, PRESETS, Pair, find_paper_figure, format_pair
from lamella.reports.page.parts import Row, Table
from lamella.reports.record import Record
from lamella.reports.words import NONE, NOT_ADJUSTED, Printed, format_interval, format_number, format_p
from lamella.studies.record import ArmRecord, ComparisonRecord

_HEAD = ("arm", "AUC", "95% interval", "against", "difference", "its 95% interval", "p", "p (Holm)")


def tabulate_declared(record: Record) -> list[Table]:
    """Return the declared tables, the paper's I to IV where the design has them."""
    return [] if record.verdict is None else [_tabulate(record, table) for table in record.verdict.tables]


def say_how_to_read(record: Record) -> str:
    """Return what must be known of the declared tables."""
    said = f"* p below 0.05 after Holm's adjustment within its table. {NOT_ADJUSTED}"
    return f"{said} {NOTE}" if _has_paper(record) else said


def _has_paper(record: Record) -> bool:
    return record.study is not None and record.study.preset in PRESETS


def _tabulate(record: Record, table: DeclaredTable) -> Table:
    absent = _list_absent(record, table)
    described = record.described
    names = [name for pair in table.rows for name in (pair.base, pair.arm)] + [arm.arm for arm in absent]
    listed = [described[name] for name in names if name in described]
    top1 = table.name == "I" and any(arm.imagenet_top1 is not None for arm in listed)
    paper = _has_paper(record) and any(_find(arm) is not None for arm in listed)
    arms = {arm.arm: arm for arm in record.arms}
    rows = []
    for name, pair in _order(table.rows):
        arm = arms.get(name)
        figures = (NONE, NONE) if arm is None else (format_number(arm.auc), format_interval(arm.interval))
        cells = (name, *figures, *_say_difference(pair), *_beside(described.get(name), top1=top1, paper=paper))
        kind = record.kind_of(name) or ("starred" if pair is not None and pair.starred else "")
        rows.append(Row(cells=cells, kind=kind, badges=() if arm is None else badge_arm(record, arm)))
    for missing in absent:
        cells = (missing.arm, *[NONE] * (len(_HEAD) - 1), *_beside(missing, top1=top1, paper=paper))
        rows.append(Row(cells=cells, kind="absent", badges=(missing.state,)))
    return Table(
        key=f"table-{table.name}",
        title=f"Table {table.name}: {table.title}",
        head=(*_HEAD, *(("ImageNet top-1, %",) if top1 else ()), *(COLUMNS if paper else ())),
        rows=tuple(rows),
        empty="No pair of this table ran; 'What was not run' says why.",
    )


def _order(pairs: tuple[DeclaredPair, ...]) -> Iterator[tuple[str, DeclaredPair | None]]:
    """Yield what a table lists: each base once (without a pair), followed by the arms that are held against it."""
    for base in dict.fromkeys(pair.base for pair in pairs):
        yield base, None
        yield from ((pair.arm, pair) for pair in pairs if pair.base == base)


def _say_difference(pair: DeclaredPair | None) -> tuple[str, ...]:
    if pair is None:
        return ("(reference)", NONE, NONE, NONE, NONE)
    return (
        pair.base,
        Printed(f"{pair.difference:+.3f}{' *' if pair.starred else ''}", pair.difference),
        format_interval(pair.interval, signed=True),
        format_p(pair.p),
        format_p(pair.p_holm),
    )


def _beside(arm: ArmRecord | None, *, top1: bool, paper: bool) -> tuple[str, ...]:
    """Return the further columns of an arm: its ImageNet accuracy, and what the paper found."""
    accuracy = (format_number(None if arm is None else arm.imagenet_top1, 1),) if top1 else ()
    return (*accuracy, *(format_pair(_find(arm)) if paper else ()))


def _find(arm: ArmRecord | None) -> Pair | None:
    if arm is None or arm.depth is None:
        return None
    return find_paper_figure(arm.encoder, arm.depth, arm.finetuned, arm.weights)


def _list_absent(record: Record, table: DeclaredTable) -> list[ArmRecord]:
    """Return the arms that a table would list had they run."""
    comparisons = () if record.study is None else record.study.design.comparisons
    declared = next((comparison for comparison in comparisons if comparison.name == table.name), None)
    if declared is None:
        return []
    listed = {name for pair in declared.pairs for name in pair}
    return [
        arm
        for arm in record.described.values()
        if arm.state != "done"
        and (arm.arm in listed or _follows(arm, declared))
        and (declared.encoders is None or arm.encoder in declared.encoders)
    ]


def _follows(arm: ArmRecord, declared: ComparisonRecord) -> bool:
    """Say whether an arm is one that a rule of the design speaks of."""
    frozen, whole = arm.finetuned == "frozen", arm.depth in (None, 4)
    follows = {
        "each against the first": frozen and whole,
        "histology against ImageNet": frozen and arm.pretraining == "histology",
        "tuned against frozen": not frozen,
        "depth against 4": not whole,
        "fewer tiles against most": arm.tiles_per_slide is not None,
    }
    return follows.get(declared.rule or "", False)
