"""CKA by block, as SVG text: a line a training, or every block against every other."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lamella.reports.charts.canvas import DASHES, SERIES, legend, open_figure, render, shorten

_ON_SHADES = "#0b1216"  # lettering on shades that are the same by day and by night


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
    for number, line in enumerate(series):
        colour, dash = SERIES[number % 6], DASHES[number % 4]
        blocks = np.arange(1, len(line.values) + 1) + 0.04 * (number - (len(series) - 1) / 2)
        axes.plot(blocks, line.values, color=colour, linestyle=dash, marker="o", markersize=5, label=line.name)
        if line.low is not None and line.high is not None:
            axes.vlines(blocks, line.low, line.high, color=colour, linewidth=1.4)
    axes.set_xticks(range(1, max(len(line.values) for line in series) + 1))
    axes.set(xlabel="block", ylabel=label)
    # From 0.8 at the least to the 1 that CKA and AUC end at: equal networks are a line at the top, not noise.
    axes.set_ylim(min(axes.get_ylim()[0], 0.78), max(1.02, axes.dataLim.y1 + 0.01))
    axes.spines[["top", "right"]].set_visible(False)
    legend(axes, "best")
    figure.subplots_adjust(left=0.12, right=0.98, top=0.97, bottom=0.15)
    return render(figure, name)
