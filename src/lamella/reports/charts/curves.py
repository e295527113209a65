"""Curves and dots of predictions, as SVG text, the same bytes for the same numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from lamella.analysis.calibration import find_calibration_groups
from lamella.analysis.curves import find_mean_roc, find_precision_recall, find_roc
from lamella.reports.charts.canvas import (
    ACCENT,
    DASHES,
    FAINT,
    SECOND,
    SERIES,
    label_unit_square,
    legend,
    open_figure,
    render,
    shorten,
)

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


def draw_roc(series: Sequence[Scores], *, point: tuple[float, float] | None = None, name: str = "roc") -> str:
    """Draw ROC curves, averaged over folds so that the area under each is its within-fold AUC.

    Args:
        series: One or more sets of scores; the folds of a single one are drawn as thin lines.
        point: `(1 - specificity, sensitivity)` at the threshold in use.
        name: Of the chart, unique on its page.

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
    return render(figure, name)


def draw_precision_recall(series: Sequence[Scores], *, name: str = "precision-recall") -> str:
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
    return render(figure, name)


def draw_calibration(scores: Scores, *, name: str = "calibration") -> str:
    """Draw observed against predicted shares of groups of slides, with Wilson intervals, and each prediction as a tick.

    Args:
        scores: `score` holds probabilities, 0 to 1. Under 20 slides make no groups, so only the ticks are drawn.
        name: Of the chart, unique on its page.

    Returns:
        SVG text.
    """
    figure, axes = open_figure(4.4, 4.4)
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.9, linestyle=":", label="perfect calibration")
    groups = find_calibration_groups(scores.score, scores.truth)
    if groups:
        predicted, observed, low, high = ([getattr(group, key) for group in groups] for key in _GROUP_KEYS)
        axes.vlines(predicted, low, high, color=ACCENT, linewidth=1.4, label="95% interval (Wilson)")
        size = f"{min(group.n for group in groups)} or more"
        axes.plot(predicted, observed, marker="o", markersize=6, color=ACCENT, linewidth=1.6, label=f"groups of {size}")
    else:
        axes.text(0.5, 0.02, "too few slides to group: ticks only", color=FAINT, fontsize=9, ha="center")
    for truth, edge, sign in ((True, 1.045, 1), (False, -0.045, -1)):
        marks = scores.score[scores.truth == truth]
        axes.vlines(marks, edge, edge + sign * 0.03, color=SECOND if truth else FAINT, linewidth=0.8, clip_on=False)
    label_unit_square(axes, "predicted probability", "observed share", room=0.09)
    legend(axes, "best", below=0.9)
    return render(figure, name)


def draw_scores(
    probability: NDArray[np.float64],
    label: Sequence[str],
    *,
    positive: str,
    thresholds: Sequence[float] = (),
    name: str = "scores",
    narrow: bool = False,
) -> str:
    """Draw each slide's probability as a dot, one row a label.

    Args:
        probability: `(N,)` float64 probability of `positive`, 0 to 1.
        label: `N` labels.
        positive: The label whose probability is drawn.
        thresholds: Those in use, one a fold.
        name: Of the chart, unique on its page.
        narrow: Whether it is for a phone.

    Returns:
        SVG text.
    """
    classes = sorted(set(label), key=lambda shown: (shown != positive, shown))
    width = 3.9 if narrow else 7.2
    figure, axes = open_figure(width, 0.8 + 0.75 * max(len(classes), 1))
    for threshold in thresholds:
        axes.axvline(threshold, color=FAINT, linewidth=0.8, linestyle="--")
    labels = np.asarray(label)
    for line, shown in enumerate(classes):
        shares = np.sort(probability[labels == shown])
        axes.scatter(shares, line + _spread(shares), s=34, color=SECOND if shown == positive else ACCENT, alpha=0.7,
                     marker="o" if shown == positive else "D", linewidths=0)  # fmt: skip
    counts = [f"{shorten(shown, 14 if narrow else 24)} ({int((labels == shown).sum())})" for shown in classes]
    axes.set_yticks(range(len(classes)), counts)
    axes.set_ylim(len(classes) - 0.4, -0.6)
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel(f"predicted probability of {shorten(positive)}")
    axes.spines[["left", "top", "right"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    left = (0.25 + 0.085 * max(map(len, counts))) / width
    figure.subplots_adjust(left=left, right=0.97, top=0.97, bottom=0.52 / figure.get_size_inches()[1])
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
    for index in range(1, sorted_values.size):
        near = int((sorted_values[index] - sorted_values[:index] < 0.012).sum())
        shift[index] = (1 if near % 2 else -1) * ((near + 1) // 2) * 0.07
    return np.clip(shift, -0.36, 0.36)
