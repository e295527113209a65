"""The page of a study: one file, no network, from the study's files alone.

Pictures are inlined and the page forbids itself to load anything; its only script sorts, filters and saves tables and
moves sliders. It may be written again at any time.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import matplotlib

from lamella import __version__
from lamella.errors import SettingsError
from lamella.files import refuse_links, write_text
from lamella.reports.cam import CAM_COLOURS
from lamella.reports.damage import refusing_damage
from lamella.reports.overlay import OverlayStyle
from lamella.reports.scrub import drop_folders
from lamella.reports.study.arm_tables import (
    badge_arm,
    number_arms,
    tabulate_arms,
    tabulate_choices,
    tabulate_costs,
    tabulate_ladder,
    tabulate_not_run,
)
from lamella.reports.study.cohort_tables import tabulate_classes, tabulate_failures, tabulate_ledger, tabulate_slides
from lamella.reports.study.comparisons import say_how_to_read, tabulate_declared
from lamella.reports.study.drawing import draw_arm_charts, draw_baselines, draw_cka, draw_curves, draw_permuted
from lamella.reports.study.evidence import (
    tabulate_baselines,
    tabulate_batches,
    tabulate_cka,
    tabulate_localisation,
    tabulate_measures,
    tabulate_robustness,
)
from lamella.reports.study.methods import SOURCES, write_methods
from lamella.reports.study.paper_figures import FIGURE_2
from lamella.reports.study.record import StudyRecord, load_study
from lamella.reports.study.sentences import (
    list_cautions,
    list_facts,
    list_localisation_notes,
    list_sentences,
    say_cka,
    say_imagenet,
    say_leak,
    say_no_localisation,
    say_no_slides,
    say_patients_needed,
    say_permutations,
    say_validity,
)
from lamella.reports.study.slides import Slides, build_slides

_ROOM_FOR_MARKUP = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyPageSettings:
    """What a page shows.

    Attributes:
        max_slides: Most slides shown with pictures.
        max_mb: Most megabytes of the page, pictures included.
        max_rows: Most slides listed in the table of slides.

    Raises:
        SettingsError: If a number is negative.
    """

    max_slides: int = 24
    max_mb: float = 15.0
    max_rows: int = 500

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be."""
        if min(self.max_slides, self.max_mb, self.max_rows) < 0:
            raise SettingsError("a page cannot show fewer than 0 slides, rows or megabytes. Leave these numbers out.")


def write_study_page(folder: Path, *, settings: StudyPageSettings | None = None) -> Path:
    """Write `report.html` into a study folder.

    Args:
        folder: Of a study, finished or not.
        settings: How much is shown.

    Returns:
        Path of the page.

    Raises:
        ModelError: If the folder holds no study, or a file of it is damaged.
        OutputError: If the page cannot be written.
    """
    refuse_links(Path(folder))
    with refusing_damage(Path(folder), "Run `lamella study` again: it makes what is missing."):
        record = load_study(Path(folder))
        text = render_study_page(record, settings=settings)
    write_text(record.folder.page, text)
    return record.folder.page


def render_study_page(record: StudyRecord, *, settings: StudyPageSettings | None = None) -> str:
    """Return the page of a study as HTML, no larger than the settings say.

    Args:
        record: The study.
        settings: How much is shown.
    """
    settings = settings or StudyPageSettings()
    template = _environment().get_template("study.html.j2")
    context = _fill(record, settings)
    bare = len(template.render(**context, slides=Slides()).encode())
    room = max(0, int(settings.max_mb * 1e6) - bare - _ROOM_FOR_MARKUP * (settings.max_slides + 1))
    slides = build_slides(record, max_slides=settings.max_slides, max_bytes=room)
    return template.render(**context, slides=slides)


def _environment() -> jinja2.Environment:
    """Return the templates' environment: everything is escaped but what is marked as markup."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("lamella.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _fill(record: StudyRecord, settings: StudyPageSettings) -> dict[str, Any]:
    study, verdict = record.study, record.verdict
    return {
        "version": study.get("versions", {}).get("lamella", __version__),
        "study": study,
        "positive": record.positive,
        "sentences": list_sentences(record),
        "facts": list_facts(record),
        "validity": say_validity(record),
        "patients_needed": say_patients_needed(record),
        "leak": say_leak(record),
        "cautions": list_cautions(record),
        "notes": [drop_folders(str(note)) for note in (*study.get("notes", []), *verdict.get("notes", []))],
        "ladder": tabulate_ladder(record),
        "arms": tabulate_arms(record),
        "costs": tabulate_costs(record),
        "key": [(number, one["arm"], badge_arm(record, one)) for number, one in _list_numbered(record)],
        "imagenet": say_imagenet(record),
        "declared": tabulate_declared(record),
        "choices": tabulate_choices(record),
        "how_to_read": say_how_to_read(record),
        "charts": draw_arm_charts(record),
        "cka_charts": draw_cka(record),
        "cka": tabulate_cka(record),
        "cka_note": say_cka(record),
        "figure_2": FIGURE_2 if study.get("preset") == "paper" else "",
        "curves": draw_curves(record),
        "measures": tabulate_measures(record),
        "localisation": tabulate_localisation(record),
        "no_localisation": say_no_localisation(record),
        "localisation_notes": list_localisation_notes(record),
        "baselines": tabulate_baselines(record),
        "baselines_chart": draw_baselines(record),
        "batches": tabulate_batches(record),
        "robustness": tabulate_robustness(record),
        "permutations": say_permutations(record),
        "permutations_chart": draw_permuted(record),
        "shown": record.shown,
        "no_slides": say_no_slides(record),
        "scales": {"attention": _list_stops(OverlayStyle().colours), "cam": _list_stops(CAM_COLOURS)},
        "classes": tabulate_classes(record),
        "slide_table": tabulate_slides(record, max_rows=settings.max_rows),
        "ledger": tabulate_ledger(record),
        "failures": tabulate_failures(record),
        "methods": write_methods(record),
        "sources": SOURCES,
        "not_run": tabulate_not_run(record),
    }


def _list_numbered(record: StudyRecord) -> list[tuple[int, dict[str, Any]]]:
    """Return the arms by their numbers in the chart of cost."""
    arms = {one["arm"]: one for one in record.arms}
    return [(number, arms[name]) for name, number in number_arms(record).items()]


def _list_stops(colours: str) -> str:
    """Return a colour map as the stops of a CSS gradient, as it lies over grey tissue."""
    share, opacity = [place / 8 for place in range(9)], OverlayStyle().opacity
    rgb = matplotlib.colormaps[colours](share)[:, :3] * 255 * opacity + 190 * (1 - opacity)
    return ",".join(f"rgb({r:.0f} {g:.0f} {b:.0f})" for r, g, b in rgb)
