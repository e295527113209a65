"""The sections of the page on predictions that were made elsewhere."""

from lamella import __version__
from lamella.reports.page.arms import sort_by_cost, tabulate_arms
from lamella.reports.page.cohort import tabulate_batches, tabulate_classes, tabulate_slides
from lamella.reports.page.declared import say_how_to_read, tabulate_declared
from lamella.reports.page.evidence import tabulate_measures, tabulate_within_batches
from lamella.reports.page.figures import chart_arms, chart_curves, chart_scores
from lamella.reports.page.parts import Page, Row, Section, Table, Text
from lamella.reports.page.shared import build_section, list_calls, list_methods, list_verdict
from lamella.reports.record import Record
from lamella.reports.words import format_number, format_short


def build_compare_page(record: Record, *, max_rows: int) -> Page:
    """Return the page of a comparison.

    Args:
        record: The comparison.
        max_rows: Most slides listed in the table of slides.
    """
    study = record.study
    assert study is not None, "a run has a page of its own"
    per_class = ", ".join(f"{n} {name}" for name, n in study.cohort.per_class.items())
    counts = f"{len(study.arms)} arms, {study.cohort.n_patients} patients ({per_class})"
    sections = [
        build_section("answer", "The answer", "Answer", list_verdict(record)),
        build_section("all-arms", "All arms", "Arms", [chart_arms(record), tabulate_arms(record)]),
        _build_declared(record),
        build_section("cost", "Cost", "Cost", [_tabulate_given_costs(record)]) if record.cost_unit else None,
        build_section(
            "curves",
            f"ROC and calibration: {record.shown}",
            "ROC, calibration",
            [chart_curves(record), chart_scores(record), tabulate_measures(record)],
        ),
        build_section(
            "cohort",
            "Patients and predictions",
            "Patients",
            [
                tabulate_classes(record),
                tabulate_batches(record),
                tabulate_within_batches(record),
                *list_calls(record),
                tabulate_slides(record, max_rows=max_rows),
            ],
        ),
        build_section("methods", "Methods, ready to paste", "Methods", list_methods(record)),
    ]
    return Page(
        name=f"Lamella: a comparison of {len(study.arms)} arms",
        title="Which of these predicts as well as the others",
        subtitle=counts,
        version=study.versions.get("lamella", __version__),
        sections=tuple(section for section in sections if section is not None),
    )


def _build_declared(record: Record) -> Section | None:
    tables = tabulate_declared(record)
    if not tables:
        return None
    return build_section("declared", "Declared comparisons", "Comparisons", [Text(say_how_to_read(record)), *tables])


def _tabulate_given_costs(record: Record) -> Table:
    rows = tuple(
        Row(cells=(arm.arm, format_number(arm.auc), format_short(arm.cost)), kind=record.kind_of(arm.arm))
        for arm in sort_by_cost(record.arms)
    )
    return Table(
        key="costs",
        title="What each arm costs, as it was given",
        head=("arm", "AUC", record.cost_unit),
        rows=rows,
        titled=False,
    )
