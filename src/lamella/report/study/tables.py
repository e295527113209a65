"""The tables of a study's page: rows of text, ready to sort, filter and download."""

from dataclasses import dataclass, field
from typing import Any

from lamella.report.study.paper_figures import find_paper_figure
from lamella.report.study.record import StudyRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row; `kind` is `recommended`, `best` or empty."""

    cells: tuple[str, ...]
    kind: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyTable:
    """A table with its name in files.

    Attributes:
        key: Name of its download.
        title: Its heading.
        head: Names of the columns.
        rows: The rows.
        note: What must be said below it.
    """

    key: str
    title: str
    head: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str = ""
    empty: str = field(default="Nothing to show.")


def format_interval(interval: Any, *, signed: bool = False) -> str:
    """Return an interval in words; a dash where there is none."""
    if interval is None:
        return "-"
    sign = "+" if signed else ""
    return f"{interval[0]:{sign}.3f} to {interval[1]:{sign}.3f}"


def tabulate_arms(record: StudyRecord) -> StudyTable:
    """Return every arm that ran, as it stands."""
    own = record.verdict.get("verdict", {})
    rows = []
    described = {row["arm"]: row for row in record.study["arms"]}
    for one in record.verdict.get("arms", []):
        row = described[one["arm"]]
        kind = "recommended" if one["arm"] == own.get("arm") else "best" if one["arm"] == own.get("best_arm") else ""
        mark = {"recommended": " (recommended)", "best": " (highest)"}.get(kind, "")
        rows.append(
            Row(
                cells=(
                    one["arm"] + mark + (" (added later)" if one["added_later"] else ""),
                    f"{one['auc']:.3f}",
                    format_interval(one["interval"]),
                    f"{one['auc_pooled']:.3f}",
                    "-" if one["deficit_upper"] is None else f"{one['deficit_upper']:.3f}",
                    "yes" if one["not_worse"] else "no",
                    _p(one["chance_p_holm"]),
                    f"{one['cost']:.3g}",
                    f"{one['gflops']:.2f}",
                    f"{row['parameters'] / 1e6:.2f}",
                    "-" if row["imagenet_top1"] is None else f"{row['imagenet_top1']:.1f}",
                    find_paper_figure(row["encoder"], row["depth"], row["finetuned"]) or "-",
                ),
                kind=kind,
            )
        )
    head = ("arm", "AUC", "95% interval", "pooled", "at most worse by", "not worse", "p against chance (Holm)",
            "seconds a slide", "GFLOPs a tile", "million weights", "ImageNet top-1",
            "paper (Gastro / CAMELYON16)")  # fmt: skip
    return StudyTable(
        key="arms",
        title="All arms",
        head=head,
        rows=tuple(rows),
        note="AUC within folds; pooled compares scores of different models. 'At most worse by' are "
        "upper bounds that hold together. The paper's figures are of its own cohorts, one run each.",
        empty="No arm ran.",
    )


def tabulate_declared(record: StudyRecord) -> list[StudyTable]:
    """Return the declared comparisons, the paper's Tables I to IV where the design has them."""
    described = {row["arm"]: row for row in record.study["arms"]}
    auc = {one["arm"]: one for one in record.verdict.get("arms", [])}
    tables = []
    for table in record.verdict.get("tables", []):
        rows = [
            Row(
                cells=(
                    one["arm"],
                    one["base"],
                    f"{auc[one['arm']]['auc']:.3f}",
                    f"{auc[one['base']]['auc']:.3f}",
                    f"{one['difference']:+.3f}{' *' if one['starred'] else ''}",
                    format_interval(one["interval"], signed=True),
                    _p(one["p"]),
                    _p(one["p_holm"]),
                    _paper_pair(described[one["arm"]], described[one["base"]]),
                ),
                kind="starred" if one["starred"] else "",
            )
            for one in table["rows"]
        ]
        tables.append(
            StudyTable(
                key=f"table-{table['name']}",
                title=f"Table {table['name']}: {table['title']}",
                head=(
                    "arm",
                    "against",
                    "AUC",
                    "AUC of the other",
                    "difference",
                    "95% interval",
                    "p",
                    "p (Holm)",
                    "paper: arm, other (Gastro / CAMELYON16)",
                ),
                rows=tuple(rows),
                note="* p below 0.05 after Holm's adjustment within this table. Intervals are not adjusted.",
                empty="No pair of this table ran; 'What was not run' says why.",
            )
        )
    return tables


def tabulate_ladder(record: StudyRecord) -> StudyTable:
    """Return the cheapest arm that is not worse, by margin."""
    rows = [
        Row(cells=(f"{one['margin']:g}", one["arm"] or "none is shown to be"))
        for one in record.verdict.get("ladder", [])
    ]
    return StudyTable(
        key="ladder",
        title="The ladder of margins",
        head=("AUC that may be given up", "cheapest arm shown to be not worse"),
        rows=tuple(rows),
        note="The bounds behind it hold together, so it may be read at any margin.",
    )


def tabulate_not_run(record: StudyRecord) -> StudyTable:
    """Return the arms that did not run, why, and what would let them."""
    rows = [
        Row(cells=(one["arm"], one["state"], one["reason"] or "-"))
        for one in record.study["arms"]
        if one["state"] != "done"
    ]
    return StudyTable(
        key="not-run",
        title="What was not run",
        head=("arm", "state", "why, and what to do"),
        rows=tuple(rows),
        empty="Nothing: every arm of the design ran.",
    )


def tabulate_controls(record: StudyRecord) -> StudyTable:
    """Return what colour, amount of tissue and batch alone reach on the same folds."""
    rows = []
    for name, one in record.controls.get("baselines", {}).items():
        value = one.get("value")
        said = "-" if value is None else f"{value:.3f}"
        rows.append(Row(cells=(name, said, format_interval(one.get("interval")), one.get("reason") or "-")))
    return StudyTable(
        key="baselines",
        title="Baselines on the same folds",
        head=("baseline", "AUC", "95% interval", "why there is none"),
        rows=tuple(rows),
    )


def tabulate_localisation(record: StudyRecord) -> StudyTable:
    """Return how well each arm's maps meet the outlines, beside darkness and other controls."""
    measures = ("tile_auc", "tile_ap", "pixel_auc", "pixel_ap", "pointing", "top_k")
    rows = []
    for arm in record.localisation.get("arms", []):
        for name, one in arm.get("maps", {}).items():
            cells = [_figure(one.get(measure)) for measure in measures]
            rows.append(Row(cells=(arm["arm"], name, *cells, _figure(one.get("froc")))))
    return StudyTable(
        key="localisation",
        title="Maps against outlines",
        head=("arm", "map", "tile AUC", "tile AP", "pixel AUC", "pixel AP", "pointing", "top k", "FROC"),
        rows=tuple(rows),
        empty="No outlines were given (--lesions DIR), so nothing was measured.",
    )


def tabulate_rows(key: str, title: str, rows: list[dict[str, str]], *, empty: str) -> StudyTable:
    """Return rows of a CSV file as they stand."""
    head = tuple(rows[0]) if rows else ()
    return StudyTable(
        key=key, title=title, head=head, rows=tuple(Row(cells=tuple(r.values())) for r in rows), empty=empty
    )


def sum_ledger(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return the tissue kept and removed by each step, summed over slides, in mm2."""
    sums: dict[str, list[float]] = {}
    for row in rows:
        own = sums.setdefault(row["step"], [0.0, 0.0, 0.0])
        own[0] += float(row["kept_um2"]) / 1e6
        own[1] += float(row["removed_um2"]) / 1e6
        own[2] += 1
    return [
        {"step": step, "kept, mm2": f"{kept:.1f}", "removed, mm2": f"{gone:.1f}", "slides": f"{n:.0f}"}
        for step, (kept, gone, n) in sums.items()
    ]


def _paper_pair(arm: dict[str, Any], base: dict[str, Any]) -> str:
    found = [find_paper_figure(one["encoder"], one["depth"], one["finetuned"]) for one in (arm, base)]
    return "-" if not any(found) else ", ".join(one or "-" for one in found)


def _p(p: float) -> str:
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _figure(one: Any) -> str:
    value = one.get("value", one.get("score")) if isinstance(one, dict) else one
    return "-" if value is None else f"{float(value):.3f}"
