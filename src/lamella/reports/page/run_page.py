"""The sections of a run's page: those of a study of one arm, with what was asked of it."""

from lamella import __version__
from lamella.reports.page.answers import (
    list_answers,
    list_cautions,
    list_facts,
    name_model,
    say_counts,
    say_validity,
)
from lamella.reports.page.arms import tabulate_arms, tabulate_external, tabulate_stage_two
from lamella.reports.page.cards import list_slides
from lamella.reports.page.cohort import list_tables, tabulate_settings, tabulate_versions
from lamella.reports.page.evidence import (
    tabulate_all_measures,
    tabulate_baselines,
    tabulate_cka,
    tabulate_measures,
    tabulate_within_batches,
)
from lamella.reports.page.figures import chart_arms, chart_batches, chart_cka, chart_curves, chart_scores
from lamella.reports.page.parts import Block, Facts, Page, Section, Text
from lamella.reports.page.reasons import say_cka
from lamella.reports.page.shared import build_section, list_calls, list_notes, list_outlines
from lamella.reports.record import Record
from lamella.reports.scrub import drop_folders
from lamella.runs.record import MADE_BY


def build_run_page(record: Record, *, max_rows: int) -> Page:
    """Return the page of a run, or of predictions by one.

    Args:
        record: The run.
        max_rows: Most slides listed in the table of slides.
    """
    version = record.versions.get("lamella", __version__)
    model = drop_folders(name_model(record))
    finished = (record.run.finished or "")[:10] if record.run is not None else ""
    return Page(
        name=f"Lamella: {model}",
        title="Slides, labels and what a model makes of them",
        subtitle=" · ".join(part for part in (model, say_counts(record), finished) if part),
        version=version,
        sections=tuple(_list_sections(record, version, max_rows=max_rows)),
    )


def _list_sections(record: Record, version: str, *, max_rows: int) -> list[Section]:
    stage_two, cka = tabulate_stage_two(record), tabulate_cka(record)
    return [
        build_section("answer", "The answer", "Answer", _list_answer(record)),
        build_section(
            "all-arms",
            "The model",
            "Model",
            [
                tabulate_arms(record),
                tabulate_external(record) if record.external is not None else None,
                stage_two if stage_two.rows else None,
                Text(say_cka(record)) if record.stage_two or record.cka else None,
                chart_cka(record),
                cka if cka.rows else None,
            ],
        ),
        build_section(
            "curves",
            "ROC, calibration, operating point",
            "ROC, calibration",
            [
                chart_curves(record),
                chart_scores(record),
                *list_calls(record),
                tabulate_measures(record),
                tabulate_all_measures(record),
            ],
        ),
        build_section(
            "controls",
            "Baselines and batches",
            "Controls",
            [
                Text("Each baseline is fitted and tested on the same folds as the model: a result means something only "
                     "beside them."),
                tabulate_baselines(record),
                tabulate_within_batches(record),
                chart_batches(record),
            ],
        ),
        build_section("outlines", "Maps against outlines", "Localisation", list_outlines(record)),
        build_section("slides", "Slides", "Slides", [list_slides(record)]),
        build_section("cohort", "Cohort, tissue, failures", "Cohort", list(list_tables(record, max_rows=max_rows))),
        build_section("reproduction", "Settings and versions", "Settings", _list_settings(record)),
        build_section("cite", "How to cite", "How to cite", [Text(text) for text in _list_citations(record, version)]),
    ]  # fmt: skip


def _list_answer(record: Record) -> list[Block | None]:
    first, *others = list_answers(record)
    facts = list_facts(record)
    absent = f"Not in this folder, so not on this page: {', '.join(record.missing)}." if record.missing else ""
    if record.external is not None:
        first, others = record.external.sentence, [first, *others]
    return [
        Text(first, "lead"),
        *(Text(text) for text in others),
        Facts(facts=tuple(facts)) if facts else None,
        Text(say_validity(record)),
        *(Text(text, "caution") for text in list_cautions(record)),
        list_notes(record),
        chart_arms(record),
        Text(absent, "note") if absent else None,
    ]


def _list_settings(record: Record) -> list[Block | None]:
    if record.run is None:
        return [Text("There is no run.json, so settings and versions are not known.", "note")]
    asked = record.run.settings.as_json()
    if record.run.settings.bags is not None:
        unknown = dict.fromkeys((*MADE_BY, "fingerprint", "magnification"), "unknown: the bags do not state it")
        asked = {key: unknown.get(key, value) if value is None else value for key, value in asked.items()}
        bags = {key: unknown.get(key) if value is None else value for key, value in asked["bags"].items()}
        asked["bags"] = bags | {"tools": ", ".join(record.run.settings.bags.tools)}
    settings = [
        *asked.items(),
        *([("ran on", record.run.runtime)] if record.run.runtime else []),
    ]
    return [tabulate_settings(settings), tabulate_versions(record)]


def _list_citations(record: Record, version: str) -> list[str]:
    auc = (
        ""
        if record.is_external
        else "AUC within folds (LeDell, Petersen and van der Laan, Electronic Journal of Statistics 2015) with a score "
        "interval after Newcombe (Statistics in Medicine 2006); "
    )
    return [
        f"Lamella {version}: from whole-slide images and slide labels to predictions, attention heatmaps and "
        "statistics. Apache-2.0. CITATION.cff in its repository has the entry.",
        "Methods: attention-based multiple-instance learning (Ilse, Tomczak and Welling, ICML 2018); "
        f"{auc}calibration after Van Calster and others (BMC Medicine 2019). Cite the encoder's own paper too.",
    ]
