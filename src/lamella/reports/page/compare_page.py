"""The sections of the page on predictions that were made elsewhere."""

from lamella import __version__
from lamella.reports.page.answers import list_answers, list_cautions, list_facts, say_patients_needed
from lamella.reports.page.arms import sort_by_cost, tabulate_arms, tabulate_ladder
from lamella.reports.page.cohort import tabulate_batches, tabulate_classes, tabulate_slides, tabulate_versions
from lamella.reports.page.declared import say_how_to_read, tabulate_declared
from lamella.reports.page.evidence import tabulate_measures, tabulate_within_batches
from lamella.reports.page.figures import chart_arms, chart_curves, chart_scores
from lamella.reports.page.methods import SOURCES, write_methods
from lamella.reports.page.parts import Block, Facts, Listing, Page, Row, Section, Table, Text
from lamella.reports.page.shared import build_section, list_calls, list_notes
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
        build_section("answer", "The answer", "Answer", _list_answer(record)),
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
        build_section("methods", "Methods, ready to paste", "Methods", _list_methods(record)),
    ]
    return Page(
        name=f"Lamella: a comparison of {len(study.arms)} arms",
        title="Which of these predicts as well as the others",
        subtitle=counts,
        version=study.versions.get("lamella", __version__),
        sections=tuple(section for section in sections if section is not None),
    )


def _list_answer(record: Record) -> list[Block | None]:
    first, *others = list_answers(record)
    needed = say_patients_needed(record)
    facts = list_facts(record)
    return [
        Text(first, "lead"),
        *(Text(text, "verdict") for text in others),
        Facts(facts=tuple(facts)) if facts else None,
        Text(needed, "note") if needed else None,
        Text(
            "The predictions were made elsewhere. The figures hold if no model had learned from the patients that it "
            "scores here; Lamella cannot see whether that is so."
        ),
        *(Text(text, "caution") for text in list_cautions(record)),
        list_notes(record),
        tabulate_ladder(record),
    ]


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


def _list_methods(record: Record) -> list[Block | None]:
    note = "After TRIPOD+AI (Collins 2024). What Lamella knows is filled in; the rest stands as [state: ...]."
    paragraphs = tuple(f"{heading}.\n{text}" for heading, text in write_methods(record))
    sources = tuple(f"{text} doi:{doi}" if doi else text for text, doi in SOURCES)
    return [
        Text(note, "note"),
        Listing(items=paragraphs, style="paste"),
        Text("Sources", "heading"),
        Listing(items=sources, style="sources"),
        tabulate_versions(record),
    ]
