"""The figures of a comparison by CKA, drawn from the numbers that it left."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lamella.files import write_text
from lamella.records import Record
from lamella.reports.charts.blocks import BlockSeries, draw_alignment, draw_by_block

MATRIX, DIAGONAL = "cka-matrix.svg", "cka-blocks.svg"
_Matrix = tuple[tuple[float, ...], ...]


class Alignment(Record):
    """CKA of every block against every other, with 95% limits."""

    cka: _Matrix
    low: _Matrix
    high: _Matrix


class Comparison(Record):
    """What `lamella cka` leaves of two encoders, and of controls, as `cka.json`."""

    first: str
    second: str
    alignments: dict[str, Alignment]
    one_block: Alignment | None


def save_cka_figures(folder: Path) -> tuple[Path, Path]:
    """Draw the matrix of all blocks, and the diagonals as the paper's figure 2; return both files.

    Args:
        folder: Holds `cka.json`.

    Raises:
        ModelError: If there is no comparison, or it is damaged.
    """
    compared = Comparison.load(folder / "cka.json", made_by="lamella cka")
    matrix = np.array(compared.alignments[compared.second].cka)
    write_text(folder / MATRIX, draw_alignment(matrix, first=compared.first, second=compared.second))
    # Block against the same block: the second encoder, one block of it alone, and the controls.
    series = [
        BlockSeries(name=name, values=_diagonal(each.cka), low=_diagonal(each.low), high=_diagonal(each.high))
        for name, each in compared.alignments.items()
    ]
    alone = compared.one_block
    if alone is not None:
        values, low, high = (np.array(rows[0]) for rows in (alone.cka, alone.low, alone.high))
        series.insert(1, BlockSeries(name="that block alone", values=values, low=low, high=high))
    write_text(folder / DIAGONAL, draw_by_block(series, label="CKA"))
    return folder / MATRIX, folder / DIAGONAL


def _diagonal(rows: _Matrix) -> NDArray[np.float64]:
    return np.diagonal(np.array(rows))
