"""The figures of a comparison by CKA, drawn from the numbers that it left."""

from pathlib import Path
from typing import Any

import numpy as np

from lamella.errors import ModelError
from lamella.files import parse_json_file, write_text
from lamella.reports.charts.blocks import BlockSeries, draw_alignment, draw_by_block

MATRIX, DIAGONAL = "cka-matrix.svg", "cka-blocks.svg"


def save_cka_figures(folder: Path) -> tuple[Path, Path]:
    """Draw the matrix of all blocks, and the diagonals as the paper's figure 2; return both files.

    Args:
        folder: Holds `cka.json`.

    Raises:
        ModelError: If there is no comparison, or it is damaged.
    """
    try:
        content = parse_json_file(folder / "cka.json")
        matrix, diagonal = draw_matrix(content), draw_diagonals(content)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"'{folder / 'cka.json'}' holds no comparison ({error}). Run: lamella cka") from error
    write_text(folder / MATRIX, matrix)
    write_text(folder / DIAGONAL, diagonal)
    return folder / MATRIX, folder / DIAGONAL


def draw_matrix(content: dict[str, Any]) -> str:
    """Draw every block of the first encoder against every block of the second; SVG text."""
    one = content["alignments"][content["second"]]
    return draw_alignment(np.array(one["cka"]), first=content["first"], second=content["second"])


def draw_diagonals(content: dict[str, Any]) -> str:
    """Draw block against the same block: the second encoder, one block of it alone, and the controls; SVG text."""
    series = [_diagonal(name, one) for name, one in content["alignments"].items()]
    if content["one_block"] is not None:
        one = content["one_block"]
        series.insert(
            1,
            BlockSeries(
                name="that block alone",
                values=np.array(one["cka"][0]),
                low=np.array(one["low"][0]),
                high=np.array(one["high"][0]),
            ),
        )
    return draw_by_block(series, label="CKA")


def _diagonal(name: str, one: dict[str, Any]) -> BlockSeries:
    values, low, high = (np.diagonal(np.array(one[key])) for key in ("cka", "low", "high"))
    return BlockSeries(name=name, values=values, low=low, high=high)
