"""AUC within folds in draws of patients, all arms at once; and what the best arm's AUC is worth, having been picked."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lamella.analysis.predictions import find_log_odds

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class PairTable:
    """Every same-fold pair of every class, so that an AUC in a draw is a weighted mean.

    Attributes:
        classes: Per class with pairs: places of its units `(m,)`, of the others `(q,)`, which pairs share a fold
            `(m, q)` float32, and who is in the right order, ties one half, `(J, m, q)` float32.
    """

    classes: tuple[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]], ...]

    @classmethod
    def of(cls, logits: Floats, targets: NDArray[np.int64], folds: NDArray[np.int64]) -> "PairTable":
        """Build the table from `(J, n, C)` logits."""
        scores = np.stack([find_log_odds(arm) for arm in logits])  # (J, n, C)
        found = []
        columns = [1] if scores.shape[2] == 2 else range(scores.shape[2])
        for column in columns:
            ups, downs = np.flatnonzero(targets == column), np.flatnonzero(targets != column)
            same = (folds[ups][:, None] == folds[downs]).astype(np.float32)
            if same.sum() == 0:
                continue
            first, second = scores[:, ups, column][:, :, None], scores[:, downs, column][:, None, :]
            right = ((first > second) + 0.5 * (first == second)).astype(np.float32) * same
            found.append((ups, downs, same, right))
        return cls(tuple(found))

    def weigh(self, weights: Floats) -> Floats:
        """Return the AUC of each arm under weights `(R, n)`: `(R, J)`, NaN where a draw leaves no pair."""
        parts = []
        for ups, downs, same, right in self.classes:
            first, second = weights[:, ups].astype(np.float32), weights[:, downs].astype(np.float32)
            pairs = ((first @ same) * second).sum(axis=1).astype(np.float64)
            hits = np.stack([((first @ arm) * second).sum(axis=1) for arm in right], axis=1).astype(np.float64)
            parts.append(np.divide(hits, pairs[:, None], out=np.full_like(hits, np.nan), where=pairs[:, None] > 0))
        return np.asarray(np.mean(parts, axis=0))


def correct_best(pairs: PairTable, draws: NDArray[np.int64]) -> float | None:
    """Return the AUC of whichever arm is best, corrected for having been picked (BBC-CV; Tsamardinos et al. 2018).

    In each draw of patients the best arm is picked on those drawn and scored on those left out; the mean over draws.

    Args:
        pairs: Of all arms.
        draws: `(R, n)` how often each unit is in each draw.

    Returns:
        None where no draw leaves pairs on both sides.
    """
    inside, outside = pairs.weigh(draws.astype(np.float64)), pairs.weigh((draws == 0).astype(np.float64))
    usable = np.isfinite(inside).all(axis=1) & np.isfinite(outside).all(axis=1)
    if not usable.any():
        return None
    picked = inside[usable].argmax(axis=1)
    return float(outside[usable][np.arange(len(picked)), picked].mean())
