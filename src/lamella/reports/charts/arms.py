"""Charts of a study's arms: forest, cost against AUC, permuted labels. Wide for a screen and paper, narrow for a phone.

matplotlib's SVG rather than a script that draws: some 30 kB a chart and not 4.5 MB of it, the same bytes for the same
numbers, sharp in print, in the page's colours by day and by night, and nothing to run. Every number stands in a table
beside its chart, so nothing needs to be pointed at.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter

from lamella.reports.charts.canvas import ACCENT, DASHES, FAINT, INK, SECOND, SERIES, open_figure, render
from lamella.reports.charts.marks import ArmMark, PermutedMark

_MARKS = {"frozen": "o", "head": "s", "tuned": "D"}
_SAID = {"frozen": "frozen", "head": "head only", "tuned": "fine-tuned"}
_ANGLES = (30, -40, 150, 220, 90, 270, 0, 180, 60, -65, 120, 240)  # where a number is looked for first
_DISTANCES_PT = (9.0, 17.0, 26.0)


def draw_forest(arms: Sequence[ArmMark], *, name: str, narrow: bool = False) -> str:
    """Draw each arm's AUC with its interval, and its folds as dots.

    Args:
        arms: From top to bottom.
        name: Of the chart, unique on its page.
        narrow: Whether names stand above their lines, for a phone.

    Returns:
        SVG text.
    """
    width, step = (3.9, 0.5) if narrow else (9.4, 0.33)
    height = 0.62 + step * max(len(arms), 1)
    figure, axes = open_figure(width, height)
    if not narrow:
        axes.axvline(0.5, color=FAINT, linewidth=0.9, linestyle=":")
    for line, arm in enumerate(arms):
        if narrow:  # not through the names
            axes.vlines(0.5, line - 0.15, line + 0.3, color=FAINT, linewidth=0.9, linestyle=":")
        _draw_line(axes, line, arm)
        weight = "bold" if arm.emphasised else "normal"
        text = f"{arm.auc:.3f}"
        if arm.low is not None and arm.high is not None:
            text += f" ({arm.low:.3f} to {arm.high:.3f})"
        at = ("axes fraction", "data")
        if narrow:
            axes.annotate(_cut(arm.name, 28), (0, line - 0.42), xycoords=at, va="center", color=INK, fontsize=9,
                          fontweight=weight)  # fmt: skip
            axes.annotate(text, (1, line - 0.42), xycoords=at, va="center", ha="right", color=INK, fontsize=9,
                          fontweight=weight)  # fmt: skip
        else:
            axes.annotate(text, (1.02, line), xycoords=at, va="center", color=INK, fontweight=weight)
    longest = max((len(_cut(arm.name, 44)) for arm in arms), default=1)
    left = 0.03 if narrow else (0.25 + 0.082 * longest) / width
    axes.set_yticks([] if narrow else range(len(arms)), [] if narrow else [_cut(arm.name, 44) for arm in arms])
    for label, arm in zip(axes.get_yticklabels(), arms, strict=False):
        label.set_fontweight("bold" if arm.emphasised else "normal")
    axes.set_ylim(len(arms) - 0.4, -0.8 if narrow else -0.6)
    lows = [value for arm in arms for value in (arm.low, arm.auc, *arm.folds) if value is not None]
    axes.set_xlim(min(0.45, *(low - 0.02 for low in lows)) if lows else 0.45, 1.015)
    axes.set_xlabel("AUC with 95% interval; dots: folds" if any(arm.folds for arm in arms) else "AUC with 95% interval")
    axes.spines[["left", "top", "right"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.subplots_adjust(
        left=left, right=0.97 if narrow else 1 - 2.15 / width, top=1 - 0.05 / height, bottom=0.5 / height
    )
    return render(figure, name)


def _draw_line(axes: Axes, line: int, arm: ArmMark) -> None:
    """Draw one arm of the forest."""
    colour = ACCENT if arm.emphasised else FAINT
    if arm.folds:
        axes.plot(arm.folds, [line + 0.22] * len(arm.folds), marker="o", markersize=2.6, color=colour, alpha=0.75,
                  linestyle="none")  # fmt: skip
    if arm.low is not None and arm.high is not None:
        axes.plot([arm.low, arm.high], [line, line], color=colour, linewidth=2.6 if arm.emphasised else 1.7)
    axes.plot([arm.auc], [line], marker="s" if arm.emphasised else "o", markersize=7.5 if arm.emphasised else 6,
              color=colour)  # fmt: skip


def draw_cost(arms: Sequence[ArmMark], *, name: str, unit: str = "", narrow: bool = False) -> str:
    """Draw AUC with its interval against cost, on a logarithmic axis, each arm under its number.

    Args:
        arms: Numbered, with their costs.
        name: Of the chart, unique on its page.
        unit: Of the costs; "" is seconds of encoding, measured by the study.
        narrow: Whether it is for a phone.

    Returns:
        SVG text.
    """
    figure, axes = open_figure(*((3.9, 4.2) if narrow else (9.4, 4.6)))
    axes.set(xscale="log", xlim=_span_costs([arm.cost for arm in arms]))
    colours = _colour_series(arms)
    for series, (colour, dash) in colours.items():
        own = sorted((arm for arm in arms if arm.series == series), key=lambda arm: arm.cost)
        path = [arm for arm in own if arm.finetuned == "frozen"]
        axes.plot([arm.cost for arm in path], [arm.auc for arm in path], color=colour, linestyle=dash, linewidth=1.2)
        for arm in own:
            if arm.low is not None and arm.high is not None:
                axes.vlines(arm.cost, arm.low, arm.high, color=colour, linewidth=0.9, alpha=0.6)
            axes.plot([arm.cost], [arm.auc], marker=_MARKS.get(arm.finetuned, "o"), color=colour,
                      markersize=8 if arm.emphasised else 5.5, markeredgecolor=INK if arm.emphasised else colour,
                      markeredgewidth=1.6 if arm.emphasised else 0.8)  # fmt: skip
    for kind in dict.fromkeys(arm.finetuned for arm in arms):
        axes.plot([], [], marker=_MARKS.get(kind, "o"), color=FAINT, linestyle="none", label=_SAID.get(kind, kind))
    axes.margins(y=0.06)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    where = "" if narrow else ", on the machine of the study"
    axes.set(xlabel=unit or f"seconds a slide (encoding{where})", ylabel="AUC with 95% interval")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", frameon=False, labelcolor=INK, fontsize=9, handletextpad=0.2)
    figure.subplots_adjust(left=0.17 if narrow else 0.08, right=0.98, top=0.98, bottom=0.13 if narrow else 0.12)
    _number_points(axes, arms)
    return render(figure, name)


def _span_costs(costs: Sequence[float]) -> tuple[float, float]:
    """Return the ends of a logarithmic axis: a tenth of its length beside the outermost costs, at least 4 times."""
    low, high = min(costs), max(costs)
    beside = max((high / low) ** 0.1, 2 / (high / low) ** 0.5)
    return low / beside, high * beside


def _colour_series(arms: Sequence[ArmMark]) -> dict[str, tuple[str, str]]:
    """Return colour and dash of each series, in the order in which they come."""
    names = dict.fromkeys(arm.series for arm in arms)
    return {name: (SERIES[place % 6], DASHES[place // 6 % 4]) for place, name in enumerate(names)}


def _number_points(axes: Axes, arms: Sequence[ArmMark]) -> None:
    """Write each arm's number beside its point, where no other number or point stands; a far one has a leader."""
    axes.figure.canvas.draw()
    points = [axes.transData.transform((arm.cost, arm.auc)) * 72 / axes.figure.dpi for arm in arms]
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in points]
    for arm, (x, y) in zip(arms, points, strict=True):
        half = 3.4 * len(str(arm.number))
        spots = [
            (distance * np.cos(np.radians(angle)), distance * np.sin(np.radians(angle)))
            for distance in _DISTANCES_PT
            for angle in _ANGLES
        ]
        boxes = [(x + dx - half, y + dy - 4.5, x + dx + half, y + dy + 4.5) for dx, dy in spots]
        crowded = [sum(_overlaps(box, other) for other in taken) for box in boxes]
        best = crowded.index(min(crowded))
        taken.append(boxes[best])
        leader = {"arrowstyle": "-", "color": FAINT, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 2}
        axes.annotate(str(arm.number), (arm.cost, arm.auc), xytext=spots[best], textcoords="offset points", color=INK,
                      fontsize=8.5, fontweight="bold" if arm.emphasised else "normal", ha="center", va="center",
                      arrowprops=leader if best >= len(_ANGLES) else None)  # fmt: skip


def _cut(name: str, most: int) -> str:
    """Shorten a name that has no room, keeping both ends: depth and tuning stand at the right."""
    if len(name) <= most:
        return name
    half = (most - 3) // 2
    return f"{name[:half]}...{name[-(most - 3 - half) :]}"


def _overlaps(first: tuple[float, ...], second: tuple[float, ...]) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]


def draw_permutations(marks: Sequence[PermutedMark], *, name: str = "permutations") -> str:
    """Draw the AUC of each run on permuted labels as a dot, beside the arm's own.

    Returns:
        SVG text.
    """
    own = next(mark.auc for mark in marks if mark.series == "own")
    series = [label for label in dict.fromkeys(mark.series for mark in marks) if label != "own"]
    height = 0.75 + 0.6 * len(series)
    figure, axes = open_figure(4.6, height)
    axes.axvline(0.5, color=FAINT, linewidth=0.9, linestyle=":")
    axes.axvline(own, color=ACCENT, linewidth=2)
    axes.annotate("true labels", (own, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 2),
                  textcoords="offset points", ha="center", va="bottom", color=INK, fontsize=9)  # fmt: skip
    for line, label in enumerate(series):
        values = [mark.auc for mark in marks if mark.series == label]
        shift = np.resize([0.0, 0.14, -0.14, 0.28, -0.28], len(values))
        axes.plot(np.sort(values), line + shift, marker="o", markersize=4, color=SECOND, alpha=0.7, linestyle="none")
    axes.set_yticks(range(len(series)), series)
    axes.set_ylim(len(series) - 0.4, -0.6)
    axes.set_xlim(min(0.2, *(mark.auc for mark in marks)) - 0.02, 1.02)
    axes.set_xlabel("AUC with permuted labels, a dot a run")
    axes.spines[["left", "top", "right"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.subplots_adjust(left=0.25, right=0.95, top=1 - 0.24 / height, bottom=0.46 / height)
    return render(figure, name)
