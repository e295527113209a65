"""The page: a run folder as one HTML file that needs nothing else.

Pictures are inlined, there is no script, and the page forbids itself to load anything. It is built from the folder's
files alone (`lamella.reports.record`), so it can be built again at any time.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from lamella import __version__
from lamella.errors import SettingsError
from lamella.files import refuse_links, write_text
from lamella.reports.charts import draw_charts
from lamella.reports.damage import refusing_damage
from lamella.reports.gallery import Gallery, build_gallery
from lamella.reports.record import RunRecord, load_record
from lamella.reports.scrub import drop_folders
from lamella.reports.sentences import (
    count,
    list_cautions,
    name_model,
    say_answer,
    say_baselines,
    say_counts,
    say_validity,
)
from lamella.reports.tables import (
    Table,
    list_slides,
    tabulate_batches,
    tabulate_calls,
    tabulate_classes,
    tabulate_failures,
    tabulate_ledger,
    tabulate_results,
    tabulate_settings,
    tabulate_tiles,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PageSettings:
    """What a page shows.

    Attributes:
        max_slides: Most slides shown with pictures.
        max_mb: Most megabytes of pictures.
        max_rows: Most slides listed in the table of slides.
        title: Head of the page.

    Raises:
        SettingsError: If a number is negative.
    """

    max_slides: int = 50
    max_mb: float = 18.0
    max_rows: int = 500
    title: str = "Slides, labels and what a model makes of them"

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be."""
        if min(self.max_slides, self.max_mb, self.max_rows) < 0:
            raise SettingsError("a page cannot show fewer than 0 slides, rows or megabytes. Leave these numbers out.")


def write_page(run_dir: Path, *, settings: PageSettings | None = None) -> Path:
    """Write `index.html` into a run folder.

    Args:
        run_dir: Folder of a finished run, or of predictions by one.
        settings: How much is shown.

    Returns:
        Path of the page.

    Raises:
        ModelError: If a record of the run is damaged.
        OutputError: If the folder is not a run, or the page cannot be written.
    """
    run_dir = Path(run_dir)
    page = run_dir / "index.html"
    refuse_links(run_dir)
    with refusing_damage(run_dir, "Run `lamella run` again: it makes what is missing."):
        text = render_page(load_record(run_dir), settings=settings)
    write_text(page, text)
    return page


def render_page(record: RunRecord, *, settings: PageSettings | None = None) -> str:
    """Return the page of a run as HTML.

    Args:
        record: The run.
        settings: How much is shown.
    """
    settings = settings or PageSettings()
    gallery = build_gallery(record, max_slides=settings.max_slides, max_bytes=int(settings.max_mb * 1e6))
    results = record.results
    context: dict[str, Any] = {
        "title": settings.title,
        "version": record.versions.get("lamella", __version__),
        "finished": record.finished[:10],
        "model": drop_folders(name_model(record)),
        "counts": say_counts(record),
        "answer": drop_folders(say_answer(record)),
        "baselines": say_baselines(results) if results else "",
        "validity": say_validity(record),
        "cautions": [drop_folders(text) for text in list_cautions(record)],
        "external": record.external,
        "positive": record.positive,
        "n_classes": len(record.classes),
        "facts": _list_facts(record),
        "notes": [drop_folders(note) for note in record.notes],
        "result_notes": [drop_folders(note) for note in results.notes] if results else [],
        "missing": record.missing,
        "charts": draw_charts(record),
        "threshold_note": drop_folders(results.threshold_note) if results else "",
        "calibration": {key: str(value) for key, value in results.model.calibration.items()} if results else {},
        "classes": tabulate_classes(record),
        "batches": tabulate_batches(record),
        "ledger": tabulate_ledger(record),
        "tiles": tabulate_tiles(record),
        "results": tabulate_results(record),
        "calls": tabulate_calls(record),
        "slides": list_slides(record, max_rows=settings.max_rows),
        "failures": tabulate_failures(record),
        "settings": tabulate_settings(record),
        "versions": Table(head=("package", "version"), rows=tuple(record.versions.items())),
        "gallery": gallery,
        "gallery_note": _say_left_out(gallery),
    }
    return _environment().get_template("page.html.j2").render(context)


def _environment() -> jinja2.Environment:
    """Return the templates' environment: everything is escaped but what is marked as markup."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lamella.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda share: f"{share:.0%}"
    return environment


def _list_facts(record: RunRecord) -> list[tuple[str, str, str]]:
    """List the figures beside the answer: name, value, interval."""
    group = record.results.model.headline if record.results else None
    if record.results is None or group is None:
        return []
    wanted = {"sensitivity": "Sensitivity", "specificity": "Specificity", "balanced_accuracy": "Balanced accuracy"}
    facts = []
    auc = record.results.model.auc
    measures = group.measures
    if "sensitivity" in measures:
        wanted.pop("balanced_accuracy")
    for name, found in [("AUC", auc), *((title, measures.get(key)) for key, title in wanted.items())]:
        if found is not None:
            value, _, interval = str(found).partition(" ")
            facts.append((name, value, interval.strip("()")))
    return facts


def _say_left_out(gallery: Gallery) -> str:
    """Return how many slides the gallery does not show, and why; empty when it shows all."""
    parts = []
    if gallery.n_left_out:
        parts.append(
            f"Left out to keep this page small: {count(gallery.n_left_out, 'more slide')} with heatmaps; the "
            "pictures lie in the run's folder heatmaps/. Shown are wrong calls "
            "first, then the surest right ones of each class."
        )
    if gallery.n_unreadable:
        parts.append(f"Pictures of {count(gallery.n_unreadable, 'slide')} are left out because they cannot be read.")
    return " ".join(parts)
