"""How far features and scores follow the batch in place of the label. It stands beside cost, never in the verdict."""

import numpy as np
from numpy.typing import NDArray

from lamella.analysis.auc import estimate_auc
from lamella.records import Record

Floats = NDArray[np.float64]


class RobustnessIndex(Record):
    """The robustness index of PathoROB (Komen et al. 2026).

    Attributes:
        value: SO/(SO + OS); None where no neighbour is of either kind. 1: neighbours share the label across
            batches; 0: they share the batch, whatever the label.
        k: Neighbours of each slide.
        n_same_label: SO, neighbours of the same label from another batch.
        n_same_batch: OS, neighbours of another label from the same batch.
    """

    value: float | None
    k: int
    n_same_label: int
    n_same_batch: int


def find_robustness_index(
    features: Floats,
    targets: NDArray[np.int64],
    batches: NDArray[np.int64],
    patients: NDArray[np.int64],
    *,
    k: int,
) -> RobustnessIndex:
    """Return the robustness index over the k nearest slides of each by cosine, the patient's own left out.

    Args:
        features: `(n, D)` one vector a slide, such as the mean over its tiles.
        targets: `(n,)` label of each slide.
        batches: `(n,)` batch of each slide, all known.
        patients: `(n,)` patient of each slide.
        k: Neighbours, at least 1; fewer where a patient leaves fewer.

    Example:
        Two labels and two batches; the first direction tells labels apart, the second batches, and labels lie further
        apart, so the nearest slide is one of the same label:

        >>> features = np.array([[4.0, 1.0], [4.0, -1.0], [-4.0, 1.0], [-4.0, -1.0]])
        >>> label, batch = np.array([1, 1, 0, 0]), np.array([0, 1, 0, 1])
        >>> find_robustness_index(features, label, batch, np.arange(4), k=1).value
        1.0
    """
    unit = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    similarity = unit @ unit.T
    similarity[patients[:, None] == patients] = -np.inf
    order = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    near = np.isfinite(np.take_along_axis(similarity, order, axis=1))
    same_label, same_batch = targets[order] == targets[:, None], batches[order] == batches[:, None]
    so, os = int((near & same_label & ~same_batch).sum()), int((near & ~same_label & same_batch).sum())
    return RobustnessIndex(
        value=so / (so + os) if so + os else None, k=min(k, order.shape[1]), n_same_label=so, n_same_batch=os
    )


def find_batch_gap(
    logits: Floats,
    targets: NDArray[np.int64],
    folds: NDArray[np.int64],
    batches: NDArray[np.int64],
    *,
    patients: NDArray[np.int64] | None = None,
) -> tuple[float, float] | None:
    """Return the AUC over all pairs less that over pairs of the same batch, with its standard error.

    Above 0 an arm gains by knowing the batch.

    Args:
        logits: `(n, C)`.
        targets: `(n,)` class of each unit.
        folds: `(n,)` model that scored each unit.
        batches: `(n,)` batch of each unit, all known.
        patients: `(n,)` where units are slides; None where they are patients.

    Returns:
        None where no batch holds two classes within a fold.
    """
    cells = np.unique(np.stack([folds, batches]), axis=1, return_inverse=True)[1].reshape(-1)
    n_rounds = len(np.unique(folds))
    whole = estimate_auc(logits, targets, folds=folds, patients=patients, n_rounds=n_rounds)
    within = estimate_auc(logits, targets, folds=cells, patients=patients, n_rounds=n_rounds)
    if whole is None or within is None:
        return None
    apart = whole.influence[:, 0] - within.influence[:, 0]
    groups = np.arange(len(targets)) if patients is None else np.unique(patients, return_inverse=True)[1].reshape(-1)
    sums = np.bincount(groups, weights=apart)
    n = len(sums)
    error = float(np.sqrt(n / max(1, n - 1) * ((sums - sums.mean()) ** 2).sum()))
    return float(whole.auc[0] - within.auc[0]), error
