"""AUC against tiles a slide, as SVG text: a line each encoder, depth and head, the arms that differ in tiles alone."""

from collections.abc import Sequence

from matplotlib.ticker import NullLocator

from lamella.reports.charts.canvas import DASHES, SERIES, legend, open_figure, render, shorten
from lamella.reports.charts.marks import BudgetMark


def draw_budgets(marks: Sequence[BudgetMark], *, name: str, narrow: bool = False) -> str:
    """Draw AUC with its interval against the mean number of tiles of a slide, on a logarithmic axis.

    Args:
        marks: Of one or more series, told apart by colour and dash.
        name: Of the chart, unique on its page.
        narrow: Whether it is for a phone.

    Returns:
        SVG text.
    """
    figure, axes = open_figure(*((3.9, 3.9) if narrow else (7.2, 4.0)))
    counts = [mark.n_tiles for mark in marks]
    axes.set(xscale="log", xlim=(min(counts) / 1.25, max(counts) * 1.25))
    series = list(dict.fromkeys(mark.series for mark in marks))
    for number, label in enumerate(series):
        own = sorted((mark for mark in marks if mark.series == label), key=lambda mark: mark.n_tiles)
        colour, dash = SERIES[number % 6], DASHES[number // 6 % 4 if len(series) > 6 else number % 4]
        beside = 1.012 ** (2 * number - len(series) + 1)  # intervals of several lines do not hide each other
        places = [mark.n_tiles * beside for mark in own]
        axes.plot(places, [mark.auc for mark in own], color=colour, linestyle=dash, marker="o", markersize=5,
                  linewidth=1.5, label=shorten(label, 30 if narrow else 44))  # fmt: skip
        for place, mark in zip(places, own, strict=True):
            if mark.low is not None and mark.high is not None:
                axes.vlines(place, mark.low, mark.high, color=colour, linewidth=1.0, alpha=0.7)
    axes.margins(y=0.06)
    ticks = _list_ticks(counts)
    axes.set_xticks(ticks, [f"{tick:.0f}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set(xlabel="tiles a slide (mean over slides)", ylabel="AUC with 95% interval")
    axes.spines[["top", "right"]].set_visible(False)
    legend(axes, "lower right")
    figure.subplots_adjust(left=0.17 if narrow else 0.1, right=0.98, top=0.98, bottom=0.13)
    return render(figure, name)


def _list_ticks(counts: Sequence[float]) -> list[float]:
    """Return the counts that are drawn, without those that stand too near to another to be named."""
    ticks: list[float] = []
    for count in sorted(set(counts)):
        if not ticks or count > 1.25 * ticks[-1]:
            ticks.append(count)
    return ticks
