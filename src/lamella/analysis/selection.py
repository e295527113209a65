"""AUC within folds in draws of patients, all arms at once; and what the best arm's AUC is worth, having been picked."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamella.analysis.predictions import find_log_odds
from lamella.analysis.weighted import count_hits

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class PairTable:
    """Every same-fold pair of every class, so that an AUC in a draw is a weighted mean.

    Pairs are counted by sorting, so that 10^4 units of each class take megabytes and not their 10^8 pairs a fold.

    Attributes:
        cells: Per class with pairs, of each fold: places of its units `(n,)`, which are of the class `(n,)` bool, and
            their scores `(J, n)`.
    """

    cells: tuple[tuple[tuple[NDArray[np.int64], NDArray[np.bool_], Floats], ...], ...]

    @classmethod
    def of(cls, logits: Floats, targets: NDArray[np.int64], folds: NDArray[np.int64]) -> "PairTable":
        """Build the table from `(J, n, C)` logits."""
        scores = np.stack([find_log_odds(arm) for arm in logits])  # (J, n, C)
        columns = [1] if scores.shape[2] == 2 else range(scores.shape[2])
        parts = []
        for column in columns:
            positive, cells = targets == column, []
            for fold in np.unique(folds):
                rows = np.flatnonzero(folds == fold)
                if positive[rows].any() and not positive[rows].all():
                    cells.append((rows, positive[rows], scores[:, rows, column]))
            if cells:
                parts.append(tuple(cells))
        return cls(tuple(parts))

    def weigh(self, weights: NDArray[Any]) -> Floats:
        """Return the AUC of each arm under weights `(R, n)`: `(R, J)`, NaN where a draw leaves no pair."""
        parts = []
        for cells in self.cells:
            hits, pairs = np.zeros((len(weights), len(cells[0][2]))), np.zeros((len(weights), 1))
            for rows, positive, scores in cells:
                patient_weights = weights[:, rows].astype(np.float64)
                pairs += (patient_weights[:, positive].sum(axis=1) * patient_weights[:, ~positive].sum(axis=1))[:, None]
                for arm, score in enumerate(scores):
                    hits[:, arm] += count_hits(score, positive, patient_weights)
            parts.append(np.divide(hits, pairs, out=np.full_like(hits, np.nan), where=pairs > 0))
        return np.asarray(np.mean(parts, axis=0))


def correct_best(pairs: PairTable, draws: NDArray[np.integer]) -> float | None:
    """Return the AUC of whichever arm is best, corrected for having been picked (BBC-CV; Tsamardinos et al. 2018).

    In each draw of patients the best arm is picked on those drawn and scored on those left out; the mean over draws.

    Args:
        pairs: Of all arms.
        draws: `(R, n)` how often each unit is in each draw.

    Returns:
        None where no draw leaves pairs on both sides.
    """
    inside, outside = pairs.weigh(draws), pairs.weigh(draws == 0)
    usable = np.isfinite(inside).all(axis=1) & np.isfinite(outside).all(axis=1)
    if not usable.any():
        return None
    picked = inside[usable].argmax(axis=1)
    return float(outside[usable][np.arange(len(picked)), picked].mean())
