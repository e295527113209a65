"""The sections of a study's page."""

from lamella import __version__
from lamella.reports.page.arms import (
    badge_arm,
    sort_by_cost,
    tabulate_arms,
    tabulate_budgets,
    tabulate_choices,
    tabulate_costs,
    tabulate_not_run,
)
from lamella.reports.page.cards import list_slides
from lamella.reports.page.cohort import list_tables
from lamella.reports.page.declared import say_how_to_read, tabulate_declared
from lamella.reports.page.evidence import (
    tabulate_baselines,
    tabulate_cka,
    tabulate_measures,
    tabulate_robustness,
    tabulate_within_batches,
)
from lamella.reports.page.figures import (
    chart_arms,
    chart_baselines,
    chart_batches,
    chart_budgets,
    chart_cka,
    chart_cost,
    chart_curves,
    chart_permuted,
    chart_scores,
)
from lamella.reports.page.paper_figures import FIGURE_2
from lamella.reports.page.parts import Block, Listing, Page, Text
from lamella.reports.page.reasons import (
    say_cka,
    say_imagenet,
    say_leak,
    say_permutations,
)
from lamella.reports.page.shared import build_section, list_calls, list_methods, list_outlines, list_verdict
from lamella.reports.record import Record


def build_study_page(record: Record, *, max_rows: int) -> Page:
    """Return the page of a study.

    Args:
        record: The study.
        max_rows: Most slides listed in the table of slides.
    """
    study = record.study
    assert study is not None, "a run has a page of its own"
    per_class = ", ".join(f"{n} {name}" for name, n in study.cohort.per_class.items())
    subtitle = f"{len(study.arms)} arms on {study.cohort.n_slides} slides of {study.cohort.n_patients} patients"
    subtitle += ", a patient's slides being one bag" if study.design.unit == "patient" else ""
    parts = [subtitle, per_class, f"preset {study.preset}" if study.preset else ""]
    parts += [study.status] if study.status != "finished" else []
    sections = (
        build_section("answer", "The answer", "Answer", list_verdict(record)),
        build_section(
            "all-arms", "All arms", "Arms", [chart_arms(record), tabulate_arms(record), Text(say_imagenet(record))]
        ),
        build_section("declared", "Declared comparisons", "Comparisons", _list_declared(record)),
        build_section("cost", "Cost", "Cost", [chart_cost(record), _list_key(record), tabulate_costs(record)]),
        build_section("tiles-a-slide", "Tiles a slide", "Tiles", _list_budgets(record)),
        build_section("moved", "Which blocks moved", "CKA", _list_moved(record)),
        build_section("curves", _title("ROC and calibration", record), "ROC, calibration", _list_curves(record)),
        build_section("outlines", "Maps against outlines", "Localisation", list_outlines(record)),
        build_section("controls", "Baselines and controls", "Controls", _list_controls(record)),
        build_section("slides", _title("Slides", record), "Slides", [list_slides(record)]),
        build_section(
            "cohort",
            "Cohort, tissue, failures",
            "Cohort",
            [*list_tables(record, max_rows=max_rows), *list_calls(record)],
        ),
        build_section("methods", "Methods, ready to paste", "Methods", list_methods(record)),
        build_section("not-run-arms", "What was not run", "Not run", [tabulate_not_run(record)]),
    )
    return Page(
        name=f"Lamella: a study of {len(study.arms)} arms",
        title="Which encoder, how deep, frozen or fine-tuned",
        subtitle=" · ".join(part for part in parts if part),
        version=study.versions.get("lamella", __version__),
        sections=tuple(section for section in sections if section.blocks),
    )


def _title(title: str, record: Record) -> str:
    return f"{title}: {record.shown}" if record.shown else title


def _list_declared(record: Record) -> list[Block | None]:
    tables = tabulate_declared(record)
    said = Text(say_how_to_read(record)) if tables else Text("The design declares none, or no arm ran.", "note")
    return [said, *tables, tabulate_choices(record)]


def _list_budgets(record: Record) -> list[Block | None]:
    chart = chart_budgets(record)
    return [] if chart is None else [chart, tabulate_budgets(record)]


def _list_key(record: Record) -> Listing | None:
    items = tuple("\n".join([arm.arm, *badge_arm(record, arm)]) for arm in sort_by_cost(record.arms))
    return Listing(items=items, style="key") if items else None


def _list_moved(record: Record) -> list[Block | None]:
    paper = record.study is not None and record.study.preset == "paper"
    table = tabulate_cka(record)
    return [
        Text(say_cka(record) + (f" {FIGURE_2}" if paper else "")),
        chart_cka(record),
        table if table.rows else None,
    ]


def _list_curves(record: Record) -> list[Block | None]:
    absent = Text("Not drawn: no predictions of the test slides are there, or only one class was tested.", "note")
    return [chart_curves(record) or absent, chart_scores(record), tabulate_measures(record)]


def _list_controls(record: Record) -> list[Block | None]:
    leak = say_leak(record)
    said = say_permutations(record)
    return [
        Text("A figure means something only beside what colour, the amount of tissue and the batch alone reach on the "
             "same folds."),
        chart_baselines(record),
        tabulate_baselines(record),
        Text("Permuted labels", "heading"),
        Text(f"Leak: {said} {leak}", "leak") if leak else Text(said),
        chart_permuted(record),
        tabulate_within_batches(record),
        chart_batches(record),
        tabulate_robustness(record),
    ]  # fmt: skip
