"""A page's chart, drawn by its name: as screens and paper show it and, where one does not serve both, as phones do."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from markupsafe import Markup

from lamella.reports.charts.arms import draw_cost, draw_forest, draw_permutations
from lamella.reports.charts.blocks import BlockSeries, draw_alignment, draw_by_block
from lamella.reports.charts.budgets import draw_budgets
from lamella.reports.charts.canvas import theme_chart
from lamella.reports.charts.curves import Scores, draw_calibration, draw_precision_recall, draw_roc, draw_scores
from lamella.reports.charts.marks import ArmMark, BlockMark, BudgetMark, Mark, PairMark, PermutedMark, ScoreMark
from lamella.reports.page.parts import Chart

_M = TypeVar("_M", ScoreMark, BlockMark)


@dataclass(frozen=True, slots=True)
class Drawing:
    """A chart as markup.

    Attributes:
        wide: As screens and paper show it.
        narrow: As phones show it; None where one serves both.
    """

    wide: Markup
    narrow: Markup | None = None


def draw_chart(chart: Chart) -> Drawing:
    """Draw a chart in the page's own colours, described by its caption."""
    draw = DRAWN[chart.drawn].draw
    svgs = draw(chart, chart.marks)
    wide, *narrow = (theme_chart(svg, chart.caption) for svg in svgs)
    return Drawing(wide, *narrow)


def _draw_forest(chart: Chart, marks: Sequence[ArmMark]) -> list[str]:
    return [draw_forest(marks, name=f"{chart.key}{end}", narrow=bool(end)) for end in ("", "-narrow")]


def _draw_cost(chart: Chart, marks: Sequence[ArmMark]) -> list[str]:
    unit = next(iter(chart.labels), "")
    return [draw_cost(marks, name=f"{chart.key}{end}", unit=unit, narrow=bool(end)) for end in ("", "-narrow")]


def _draw_budgets(chart: Chart, marks: Sequence[BudgetMark]) -> list[str]:
    return [draw_budgets(marks, name=f"{chart.key}{end}", narrow=bool(end)) for end in ("", "-narrow")]


def _draw_permuted(chart: Chart, marks: Sequence[PermutedMark]) -> list[str]:
    return [draw_permutations(marks, name=chart.key)]


def _draw_roc(chart: Chart, marks: Sequence[ScoreMark]) -> list[str]:
    point = (chart.guides[0], chart.guides[1]) if chart.guides else None
    return [draw_roc(_list_scores(marks), point=point, name=chart.key)]


def _draw_recall(chart: Chart, marks: Sequence[ScoreMark]) -> list[str]:
    return [draw_precision_recall(_list_scores(marks), name=chart.key)]


def _draw_calibration(chart: Chart, marks: Sequence[ScoreMark]) -> list[str]:
    return [draw_calibration(_list_scores(marks)[0], name=chart.key)]


def _draw_scores(chart: Chart, marks: Sequence[ScoreMark]) -> list[str]:
    scores = np.array([mark.score for mark in marks])
    labels = [mark.label for mark in marks]
    positive = marks[0].series
    return [
        draw_scores(
            scores, labels, positive=positive, thresholds=chart.guides, name=f"{chart.key}{end}", narrow=bool(end)
        )
        for end in ("", "-narrow")
    ]


def _draw_blocks(chart: Chart, marks: Sequence[BlockMark]) -> list[str]:
    series = []
    for name, group in _group(marks):
        bounded = all(mark.low is not None and mark.high is not None for mark in group)
        series.append(
            BlockSeries(
                name=name,
                values=np.array([mark.value for mark in group]),
                low=np.array([mark.low for mark in group], dtype=np.float64) if bounded else None,
                high=np.array([mark.high for mark in group], dtype=np.float64) if bounded else None,
            )
        )
    return [draw_by_block(series, label="CKA", name=chart.key)]


def _draw_alignment(chart: Chart, marks: Sequence[PairMark]) -> list[str]:
    matrix = np.full((max(mark.first for mark in marks), max(mark.second for mark in marks)), np.nan)
    for mark in marks:
        matrix[mark.first - 1, mark.second - 1] = mark.value
    first, second = chart.labels
    return [draw_alignment(matrix, first=first, second=second, name=chart.key)]


def _list_scores(marks: Sequence[ScoreMark]) -> list[Scores]:
    return [
        Scores(
            name=name,
            truth=np.array([mark.is_positive for mark in group]),
            score=np.array([mark.score for mark in group]),
            fold=np.array([mark.fold for mark in group], dtype=np.int64),
        )
        for name, group in _group(marks)
    ]


def _group(marks: Iterable[_M]) -> list[tuple[str, list[_M]]]:
    """Return marks by their series, in the order in which these come."""
    groups: dict[str, list[_M]] = {}
    for mark in marks:
        groups.setdefault(mark.series, []).append(mark)
    return list(groups.items())


@dataclass(frozen=True, slots=True)
class _Drawer:
    """How a chart is drawn.

    Attributes:
        mark: What it is drawn from.
        draw: The chart and its marks -> SVG texts, a second one for phones.
    """

    mark: type[Mark]
    draw: Callable[[Chart, Any], list[str]]


DRAWN = {
    "forest": _Drawer(ArmMark, _draw_forest),
    "cost": _Drawer(ArmMark, _draw_cost),
    "budgets": _Drawer(BudgetMark, _draw_budgets),
    "permuted": _Drawer(PermutedMark, _draw_permuted),
    "roc": _Drawer(ScoreMark, _draw_roc),
    "recall": _Drawer(ScoreMark, _draw_recall),
    "calibration": _Drawer(ScoreMark, _draw_calibration),
    "scores": _Drawer(ScoreMark, _draw_scores),
    "blocks": _Drawer(BlockMark, _draw_blocks),
    "alignment": _Drawer(PairMark, _draw_alignment),
}
"""Every kind of chart that a page can hold, by name."""
