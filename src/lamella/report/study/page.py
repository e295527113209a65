"""The page of a study: one file, no network, from the study's files alone."""

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from lamella import __version__
from lamella.files import write_text
from lamella.report.figures import (
    BlockSeries,
    ForestRow,
    Scores,
    draw_by_block,
    draw_calibration,
    draw_cost,
    draw_forest,
    draw_roc,
)
from lamella.report.study.methods import SOURCES, write_methods
from lamella.report.study.record import SlideCall, StudyRecord, load_study
from lamella.report.study.tables import (
    sum_ledger,
    tabulate_arms,
    tabulate_controls,
    tabulate_declared,
    tabulate_ladder,
    tabulate_localisation,
    tabulate_not_run,
    tabulate_rows,
)

MAX_MB = 12.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SlideCard:
    """One slide of the page: its views, inlined, in the same frame."""

    call: SlideCall
    thumbnail: str
    attention: str
    cam: str | None


def write_study_page(folder: Path) -> Path:
    """Write `report.html` into a study folder.

    Args:
        folder: Of a study, finished or not.

    Returns:
        Path of the page.

    Raises:
        ModelError: If the folder holds no study, or a file of it is damaged.
        OutputError: If the page cannot be written.
    """
    record = load_study(folder)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lamella.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("study.html.j2").render(**_fill(record))
    write_text(record.folder.page, page)
    return record.folder.page


def _fill(record: StudyRecord) -> dict[str, Any]:
    study, verdict = record.study, record.verdict
    own = verdict.get("verdict", {})
    return {
        "version": __version__,
        "study": study,
        "verdict": verdict,
        "own": own,
        "sentence": own.get("sentence", "No arm ran: see what was not run."),
        "positive": record.positive,
        "ladder": tabulate_ladder(record),
        "arms": tabulate_arms(record),
        "declared": tabulate_declared(record),
        "not_run": tabulate_not_run(record),
        "controls": tabulate_controls(record),
        "permutations": record.controls.get("permutations"),
        "localisation": tabulate_localisation(record),
        "ledger": tabulate_rows("ledger", "Tissue", sum_ledger(record.ledger), empty="There is no ledger."),
        "failures": tabulate_rows(
            "failures", "Failures", record.failures, empty="None: every slide was read, cut, encoded and drawn."
        ),
        "charts": _draw_charts(record),
        "cka_note": _say_cka(record),
        "shown": record.shown,
        "cards": _list_cards(record),
        "methods": write_methods(study, verdict),
        "sources": SOURCES,
        "notes": [*study["notes"], *verdict.get("notes", [])],
    }


def _draw_charts(record: StudyRecord) -> dict[str, Markup]:
    """Draw what there are numbers for, by key."""
    arms, own = record.verdict.get("arms", []), record.verdict.get("verdict", {})
    if not arms:
        return {}
    rows = [
        ForestRow(
            name=_shorten(one["arm"]),
            value=one["auc"],
            low=one["interval"][0],
            high=one["interval"][1],
            emphasised=one["arm"] in (own.get("arm"), own.get("best_arm")),
        )
        for one in arms
    ]
    charts = {"forest": draw_forest(rows), "cost": draw_cost(rows, [max(one["cost"], 1e-6) for one in arms])}
    series = [
        BlockSeries(
            name=f"{row['arm']}, fold {row['fold']}",
            values=np.array(row["cka"]),
            low=np.array(row["low"]),
            high=np.array(row["high"]),
        )
        for row in record.cka.get("pairs", [])
        if "cka" in row
    ]
    if series:
        charts["cka"] = draw_by_block(series[:6], label="CKA, frozen against fine-tuned")
    if record.shown is not None and len(record.study["classes"]) == 2:
        truth, score, fold = record.scores_of(record.shown)
        if 0 < truth.sum() < len(truth):
            scores = Scores(name=record.shown, truth=truth, score=score, fold=fold)
            charts |= {"roc": draw_roc([scores]), "calibration": draw_calibration(scores)}
    return {key: Markup(svg) for key, svg in charts.items()}


def _shorten(arm: str) -> str:
    """Return an arm's name as charts have room for it; the tables have it whole."""
    for long, short in (("efficientnet", "effnet"), (", random weights", ", random"), (", head only", ", head")):
        arm = arm.replace(long, short)
    return arm


def _say_cka(record: StudyRecord) -> str:
    pairs = record.cka.get("pairs", [])
    if not pairs:
        return "No fine-tuned encoder was compared with its frozen one."
    notes = list(dict.fromkeys(row["note"] for row in pairs if "note" in row))
    said = "Linear CKA, debiased, over the slides that each fold tested; bars leave out one slide at a time."
    return " ".join([said, *notes])


def _list_cards(record: StudyRecord) -> list[SlideCard]:
    """Return the slides that have pictures, the worst errors first, until the page would grow too large."""
    cards, room = [], MAX_MB * 1e6
    for call in record.calls:
        folder = record.folder.slides / call.slide_id
        paths = [folder / f"{name}.jpg" for name in ("thumbnail", "attention", "cam")]
        if not (paths[0].exists() and paths[1].exists()):
            continue
        found = [_inline(path) if path.exists() else None for path in paths]
        room -= sum(len(one) for one in found if one is not None)
        if room < 0:
            break
        cards.append(SlideCard(call=call, thumbnail=str(found[0]), attention=str(found[1]), cam=found[2]))
    return cards


def _inline(path: Path) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(path.read_bytes()).decode()}"
