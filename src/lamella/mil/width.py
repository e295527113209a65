"""Embeddings brought to one width, so that a wide encoder does not win by its width alone."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lamella.errors import SettingsError
from lamella.mil.batches import Bag


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """The first principal components of training tiles.

    Attributes:
        mean: `(D,)` float32, the mean tile, each slide weighing the same.
        axes: `(D, W)` float32, orthonormal columns, of the largest variance first.
    """

    mean: NDArray[np.float32]
    axes: NDArray[np.float32]

    def apply(self, bag: Bag) -> NDArray[np.float32]:
        """Return a bag `(N, D)` as `(N, W)` float32."""
        projected: NDArray[np.float32] = np.matmul(bag[:].astype(np.float32) - self.mean, self.axes, dtype=np.float32)
        return projected


def fit_projection(bags: Iterable[Bag], width: int) -> Projection | None:
    """Fit principal components to the tiles of training slides, each slide weighing the same.

    Args:
        bags: Of the training slides of one fold alone, `(N, D)` each; at least one.
        width: W.

    Returns:
        The projection; None where the embeddings are no wider than that, and are left as they are.

    Raises:
        SettingsError: If the width is less than 1.
    """
    if width < 1:
        raise SettingsError(f"width is {width} and must be at least 1. Set it to 64 or 256.")
    first: NDArray[np.float64] | None = None
    second: NDArray[np.float64] | None = None
    n_slides = 0
    for bag in bags:
        rows = bag[:].astype(np.float64)
        if rows.shape[1] <= width:
            return None
        mean, square = rows.mean(axis=0), rows.T @ rows / len(rows)
        first, second = (mean, square) if first is None or second is None else (first + mean, second + square)
        n_slides += 1
    if first is None or second is None:
        raise SettingsError("there are no training slides to fit principal components to. Use fewer folds.")
    mean = first / n_slides
    _, vectors = np.linalg.eigh(second / n_slides - np.outer(mean, mean))  # ascending
    axes = vectors[:, ::-1][:, :width]
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(width)])  # an axis has no direction of its own
    return Projection(mean.astype(np.float32), (axes * signs).astype(np.float32))
