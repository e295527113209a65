"""Figures: charts of predictions, as SVG text, the same bytes for the same numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from lamella.analysis.calibration import find_calibration_groups
from lamella.analysis.curves import find_mean_roc, find_precision_recall, find_roc
from lamella.reports.canvas import (
    ACCENT,
    DASHES,
    FAINT,
    INK,
    SECOND,
    SERIES,
    label_unit_square,
    legend,
    open_figure,
    render,
    shorten,
)

_ON_SHADES = "#0b1216"  # lettering on shades that are the same by day and by night
_GROUP_KEYS = ("predicted", "observed", "low", "high")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Scores:
    """Scores of slides and whether they are positive.

    Attributes:
        name: What is scored, for the legend.
        truth: `(N,)` bool, True on positive slides; both kinds occur.
        score: `(N,)` float64, higher for positive.
        fold: `(N,)` int64 round in which each was tested.
    """

    name: str
    truth: NDArray[np.bool_]
    score: NDArray[np.float64]
    fold: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class ForestRow:
    """One line of a forest chart.

    Attributes:
        name: What was estimated.
        value: The estimate.
        low: Lower end of its interval; None draws the estimate alone.
        high: Upper end of its interval.
        emphasised: Whether this is what the chart is about; others are drawn in grey.
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    emphasised: bool = False


def draw_roc(series: Sequence[Scores], *, point: tuple[float, float] | None = None) -> str:
    """Draw ROC curves, averaged over folds so that the area under each is its within-fold AUC.

    Args:
        series: One or more sets of scores; the folds of a single one are drawn as thin lines.
        point: `(1 - specificity, sensitivity)` at the threshold in use.

    Returns:
        SVG text.
    """
    figure, axes = open_figure(4.4, 4.4)
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.9, linestyle=":", label="chance")
    if len(series) == 1:
        _draw_folds(axes, series[0])
    for number, scores in enumerate(series):
        curve = find_mean_roc(scores.score, scores.truth, scores.fold)
        if curve is not None:
            colour, dash = SERIES[number % 6], DASHES[number % 4]
            axes.plot(*curve, linewidth=2.2, label=scores.name, color=colour, linestyle=dash)
    if point is not None:
        axes.plot(*point, marker="o", markersize=7, color=SECOND, markeredgecolor="white", linestyle="none",
                  label="at the threshold")  # fmt: skip
    label_unit_square(axes, "1 - specificity", "sensitivity")
    legend(axes, "lower right")
    return render(figure, "roc")


def draw_precision_recall(series: Sequence[Scores]) -> str:
    """Draw precision against recall, all folds together, with the prevalence that chance would reach.

    Returns:
        SVG text.
    """
    figure, axes = open_figure(4.4, 4.4)
    for number, scores in enumerate(series):
        colour = SERIES[number % 6]
        curve = find_precision_recall(scores.score, scores.truth)
        if curve is None:
            continue
        # The first precision holds from recall 0 on.
        recall, precision = np.concatenate([[0.0], curve[0]]), np.concatenate([curve[1][:1], curve[1]])
        prevalence = float(scores.truth.mean())
        chance = f"chance: prevalence {prevalence:.2f}" if len(series) == 1 else None
        axes.axhline(prevalence, color=FAINT if chance else colour, linewidth=0.9, linestyle=":", label=chance)
        axes.step(recall, precision, where="pre", color=colour, linestyle=DASHES[number % 4], linewidth=2.2,
                  label=scores.name)  # fmt: skip
    label_unit_square(axes, "recall (sensitivity)", "precision (positive predictive value)")
    legend(axes, "lower left")
    return render(figure, "precision-recall")


def draw_calibration(scores: Scores) -> str:
    """Draw observed against predicted shares of groups of slides, with Wilson intervals, and each prediction as a tick.

    Args:
        scores: `score` holds probabilities, 0 to 1. Under 20 slides make no groups, so only the ticks are drawn.

    Returns:
        SVG text.
    """
    figure, axes = open_figure(4.4, 4.4)
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.9, linestyle=":", label="perfect calibration")
    groups = find_calibration_groups(scores.score, scores.truth)
    if groups:
        predicted, observed, low, high = ([group[key] for group in groups] for key in _GROUP_KEYS)
        axes.vlines(predicted, low, high, color=ACCENT, linewidth=1.4, label="95% interval (Wilson)")
        size = f"{min(group['n'] for group in groups)} or more"
        axes.plot(predicted, observed, marker="o", markersize=6, color=ACCENT, linewidth=1.6, label=f"groups of {size}")
    else:
        axes.text(0.5, 0.02, "too few slides to group: ticks only", color=FAINT, fontsize=9, ha="center")
    for truth, edge, sign in ((True, 1.045, 1), (False, -0.045, -1)):
        marks = scores.score[scores.truth == truth]
        axes.vlines(marks, edge, edge + sign * 0.03, color=SECOND if truth else FAINT, linewidth=0.8, clip_on=False)
    label_unit_square(axes, "predicted probability", "observed share", room=0.09)
    legend(axes, "best", below=0.9)
    return render(figure, "calibration")


def draw_forest(rows: Sequence[ForestRow], *, label: str = "AUC", reference: float = 0.5, name: str = "arms") -> str:
    """Draw estimates with their intervals, one a line, with their figures at the right.

    Args:
        rows: From top to bottom.
        label: What is estimated.
        reference: Where to draw the line of no effect.
        name: Tells this chart from others of the same page, in its ids.

    Returns:
        SVG text.
    """
    figure, axes = open_figure(7.2, 0.75 + 0.42 * max(len(rows), 1))
    lows = [row.value if row.low is None else row.low for row in rows]
    axes.axvline(reference, color=FAINT, linewidth=0.9, linestyle=":")
    for line, row in enumerate(rows):
        colour = ACCENT if row.emphasised else FAINT
        text = f"{row.value:.2f}"
        if row.low is not None and row.high is not None:
            axes.plot([row.low, row.high], [line, line], color=colour, linewidth=2.4 if row.emphasised else 1.6)
            text += f" ({row.low:.2f} to {row.high:.2f})"
        marker = "s" if row.emphasised else "o"
        axes.plot([row.value], [line], marker=marker, markersize=8 if row.emphasised else 6.5, color=colour)
        axes.annotate(text, (1.02, line), xycoords=("axes fraction", "data"), va="center", color=INK,
                      fontweight="bold" if row.emphasised else "normal")  # fmt: skip
    axes.set_yticks(range(len(rows)), [shorten(row.name) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(min([reference - 0.05, *(low - 0.03 for low in lows)]), 1.01)
    axes.set_xlabel(f"{label} with 95% interval")
    axes.spines[["left", "top", "right"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.subplots_adjust(left=0.27, right=0.75, top=0.97, bottom=0.5 / figure.get_size_inches()[1])
    return render(figure, f"forest-{name}")


def draw_scores(
    probability: NDArray[np.float64], label: Sequence[str], *, positive: str, thresholds: Sequence[float] = ()
) -> str:
    """Draw each slide's probability as a dot, one row a label.

    Args:
        probability: `(N,)` float64 probability of `positive`, 0 to 1.
        label: `N` labels.
        positive: The label whose probability is drawn.
        thresholds: Those in use, one a fold.

    Returns:
        SVG text.
    """
    classes = sorted(set(label), key=lambda name: (name != positive, name))
    figure, axes = open_figure(7.2, 0.8 + 0.75 * max(len(classes), 1))
    for threshold in thresholds:
        axes.axvline(threshold, color=FAINT, linewidth=0.8, linestyle="--")
    labels = np.asarray(label)
    for line, name in enumerate(classes):
        shares = np.sort(probability[labels == name])
        axes.scatter(shares, line + _spread(shares), s=34, color=SECOND if name == positive else ACCENT, alpha=0.7,
                     marker="o" if name == positive else "D", linewidths=0)  # fmt: skip
    counts = [f"{shorten(name)} ({int((labels == name).sum())})" for name in classes]
    axes.set_yticks(range(len(classes)), counts)
    axes.set_ylim(len(classes) - 0.4, -0.6)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel(f"predicted probability of {shorten(positive)}")
    axes.spines[["left", "top", "right"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.subplots_adjust(left=0.27, right=0.97, top=0.97, bottom=0.52 / figure.get_size_inches()[1])
    return render(figure, "scores")


def draw_alignment(matrix: NDArray[np.float64], *, first: str, second: str, name: str = "cka-matrix") -> str:
    """Draw CKA of every block of one encoder with every block of another, as numbers on shades.

    Args:
        matrix: `(A, B)`, row a is block a of the first encoder.
        first: Name of the first encoder.
        second: Name of the second.
        name: Of the chart, unique on its page.
    """
    figure, axes = open_figure(4.4, 4.2)
    axes.imshow(np.clip(matrix, 0, 1), cmap="Greys", vmin=0, vmax=1.6, origin="lower", aspect="equal")
    for row, column in np.ndindex(*matrix.shape):
        axes.text(column, row, f"{matrix[row, column]:.2f}", ha="center", va="center", color=_ON_SHADES, fontsize=10)
    axes.set_xticks(range(matrix.shape[1]), [str(number + 1) for number in range(matrix.shape[1])])
    axes.set_yticks(range(matrix.shape[0]), [str(number + 1) for number in range(matrix.shape[0])])
    axes.set(xlabel=f"block of {shorten(second)}", ylabel=f"block of {shorten(first)}")
    figure.subplots_adjust(left=0.15, right=0.97, top=0.97, bottom=0.14)
    return render(figure, name)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockSeries:
    """A value at each block, with its interval.

    Attributes:
        name: What it is of.
        values: `(blocks,)`.
        low: `(blocks,)` lower ends, or None.
        high: `(blocks,)` upper ends, or None.
    """

    name: str
    values: NDArray[np.float64]
    low: NDArray[np.float64] | None = None
    high: NDArray[np.float64] | None = None


def draw_by_block(series: Sequence[BlockSeries], *, label: str, name: str = "cka-blocks") -> str:
    """Draw values by block, as the paper's figure 2.

    Args:
        series: One or more; up to six are told apart.
        label: Of the axis; what it measures is at most 1.
        name: Of the chart, unique on its page.
    """
    figure, axes = open_figure(5.6, 3.6)
    for number, one in enumerate(series):
        colour, dash = SERIES[number % 6], DASHES[number % 4]
        blocks = np.arange(1, len(one.values) + 1) + 0.04 * (number - (len(series) - 1) / 2)
        axes.plot(blocks, one.values, color=colour, linestyle=dash, marker="o", markersize=5, label=one.name)
        if one.low is not None and one.high is not None:
            axes.vlines(blocks, one.low, one.high, color=colour, linewidth=1.4)
    axes.set_xticks(range(1, max(len(one.values) for one in series) + 1))
    axes.set(xlabel="block", ylabel=label)
    # From 0.8 at the least to the 1 that CKA and AUC end at: equal networks are a line at the top, not noise.
    axes.set_ylim(min(axes.get_ylim()[0], 0.78), max(1.02, axes.dataLim.y1 + 0.01))
    axes.spines[["top", "right"]].set_visible(False)
    legend(axes, "best")
    figure.subplots_adjust(left=0.12, right=0.98, top=0.97, bottom=0.15)
    return render(figure, name)


def _draw_folds(axes: Axes, scores: Scores) -> None:
    """Draw the ROC curve of each fold that holds both kinds of slides, thin; nothing where there is one fold."""
    label: str | None = "single folds"
    folds = np.unique(scores.fold)
    for fold in folds if len(folds) > 1 else ():
        rows = scores.fold == fold
        curve = find_roc(scores.score[rows], scores.truth[rows])
        if curve is not None:
            axes.plot(*curve, color=FAINT, linewidth=0.7, alpha=0.55, label=label)
            label = None


def _spread(sorted_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Shift dots that would lie on one another, alternately up and down, the same way each time."""
    shift = np.zeros_like(sorted_values)
    for place in range(1, sorted_values.size):
        near = int((sorted_values[place] - sorted_values[:place] < 0.012).sum())
        shift[place] = (1 if near % 2 else -1) * ((near + 1) // 2) * 0.07
    return np.clip(shift, -0.36, 0.36)
