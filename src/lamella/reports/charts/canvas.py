"""The canvas of all charts: axes, lettering and colours, and a figure as SVG text.

Colours are those of Okabe and Ito, told apart by every kind of colour vision, and never the only sign: lines differ in
width or dash too. Lettering stays text, so that it can be searched, read aloud and follows the page's font. The
colours of `THEME` stand in the SVG as they are; a page may replace them by its own.
"""

import io
import re
from typing import Any, Literal

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.text import Text

INK, FAINT, ACCENT, SECOND, SKY = "#1b2a33", "#6a7780", "#0072b2", "#d55e00", "#56b4e9"
THEME = {"ink": INK, "faint": FAINT, "accent": ACCENT, "second": SECOND, "sky": SKY}
SERIES = (ACCENT, SECOND, "#009e73", "#cc79a7", "#e69f00", SKY)
DASHES = ("-", "--", "-.", ":")
_FONT = "'DejaVu Sans'"
_FONTS = "system-ui, 'Segoe UI', 'Helvetica Neue', Arial, 'DejaVu Sans'"


def open_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """Open a figure of `width` x `height` inches, apart from matplotlib's global state."""
    figure = Figure(figsize=(width, height))
    FigureCanvasSVG(figure)
    figure.patch.set_visible(False)
    axes = figure.add_subplot()
    axes.patch.set_visible(False)
    for spine in axes.spines.values():
        spine.set(color=FAINT, linewidth=0.8)
    axes.tick_params(colors=INK, labelcolor=INK, color=FAINT, width=0.8)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    return figure, axes


def label_unit_square(axes: Axes, x_label: str, y_label: str, *, room: float = 0.02) -> None:
    """Show 0 to 1 on both axes, equally long."""
    axes.set(xlim=(-0.02, 1.02), ylim=(-room, 1 + room), aspect="equal", xlabel=x_label, ylabel=y_label)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    axes.spines[["top", "right"]].set_visible(False)
    axes.figure.subplots_adjust(left=0.15, right=0.97, top=0.97, bottom=0.14)


def legend(axes: Axes, place: Literal["lower left", "lower right", "best"], *, below: float = 1.0) -> None:
    """Name the lines."""
    axes.legend(
        *axes.get_legend_handles_labels(),
        loc=place,
        frameon=False,
        labelcolor=INK,
        fontsize=9,
        handlelength=1.8,
        bbox_to_anchor=(0, 0, 1, below),
    )


def shorten(name: str, most: int = 24) -> str:
    """Cut a long name, so that it stays in its margin."""
    return name if len(name) <= most else f"{name[: most - 2]}..."


def render(figure: Figure, name: str) -> str:
    """Return a figure as SVG text without date, maker, document type or any address but the namespaces of SVG.

    Every id in it begins with `name`, so that several charts can stand in one page.
    """
    for text in figure.findobj(Text):
        if isinstance(text, Text):  # always; findobj cannot say so
            text.set_parse_math(False)
    stream = io.StringIO()
    settings: Any = {"svg.hashsalt": f"lamella {name}", "svg.fonttype": "none", "font.sans-serif": ["DejaVu Sans"]}
    with matplotlib.rc_context(settings):
        figure.savefig(stream, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = svg.replace("*{stroke-linejoin", "svg *{stroke-linejoin")
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    # The layout is measured in DejaVu Sans, which is wider than what readers have, so their text fits.
    return svg.replace(_FONT, _FONTS)


def theme_chart(svg: str, description: str) -> Markup:
    """Return a chart for a page: in the page's own colours, which differ by day and by night, and described.

    Args:
        svg: Of `render`; the texts in it are escaped already.
        description: What it shows, for those who cannot see it.
    """
    for name, colour in THEME.items():
        svg = svg.replace(colour, f"var(--{name})")
    return Markup(svg.replace("<svg ", f'<svg role="img" aria-label="{escape(description)}" ', 1))
