"""A page as one HTML file that needs nothing else.

Pictures are inlined and the page forbids itself to load anything; its only script sorts, filters and saves tables and
moves sliders.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import matplotlib

from lamella.errors import SettingsError
from lamella.reports.draw.cam import CAM_COLOURS
from lamella.reports.draw.overlay import OverlayStyle
from lamella.reports.page.drawings import Drawing, draw_chart
from lamella.reports.page.parts import Charts, Page, Slides
from lamella.reports.page.pictures import ShownSlides, inline_slides

_ROOM_FOR_MARKUP = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class PageSettings:
    """What a page shows.

    Attributes:
        max_slides: Most slides shown with pictures.
        max_mb: Most megabytes of the page, pictures included.
        max_rows: Most slides listed in the table of slides.

    Raises:
        SettingsError: If a number is negative.
    """

    max_slides: int = 50
    max_mb: float = 18.0
    max_rows: int = 500

    def __post_init__(self) -> None:
        """Refuse numbers that cannot be."""
        if min(self.max_slides, self.max_mb, self.max_rows) < 0:
            raise SettingsError("a page cannot show fewer than 0 slides, rows or megabytes. Leave these numbers out.")


def render_page(page: Page, folders: Sequence[Path], *, settings: PageSettings | None = None) -> str:
    """Return a page as HTML, no larger than the settings say.

    Args:
        page: What it holds.
        folders: Where the pictures of its slides lie: `Slides.source` counts them.
        settings: How much is shown.
    """
    settings = settings or PageSettings()
    template = _open_templates().get_template("page.html.j2")
    drawings: Mapping[str, Drawing] = {
        chart.key: draw_chart(chart)
        for block in page.list_blocks()
        if isinstance(block, Charts)
        for chart in block.charts
    }
    context = {
        "page": page,
        "drawings": drawings,
        "scales": {"attention": _list_stops(OverlayStyle().colours), "cam": _list_stops(CAM_COLOURS)},
    }
    parts = [block for block in page.list_blocks() if isinstance(block, Slides)]
    bare = len(template.render(**context, shown=dict.fromkeys((part.source for part in parts), ShownSlides())).encode())
    n_slides = -(-settings.max_slides // max(len(parts), 1))
    n_cards = sum(min(n_slides, len(part.cards)) + 1 for part in parts)
    room = max(0, int(settings.max_mb * 1e6) - bare - _ROOM_FOR_MARKUP * n_cards)
    shown = {
        part.source: inline_slides(
            part, folders[part.source], max_slides=n_slides, max_bytes=room // max(len(parts), 1)
        )
        for part in parts
        if part.source < len(folders)
    }
    return template.render(**context, shown=shown)


def _open_templates() -> jinja2.Environment:
    """Return the templates' environment: everything is escaped but what is marked as markup."""
    return jinja2.Environment(
        loader=jinja2.PackageLoader("lamella.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _list_stops(colours: str) -> str:
    """Return a colour map as the stops of a CSS gradient, as it lies over grey tissue."""
    share, opacity = [step / 8 for step in range(9)], OverlayStyle().opacity
    rgb = matplotlib.colormaps[colours](share)[:, :3] * 255 * opacity + 190 * (1 - opacity)
    return ",".join(f"rgb({r:.0f} {g:.0f} {b:.0f})" for r, g, b in rgb)
