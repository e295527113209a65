"""The control with permuted labels: everything was retrained, and nothing should be left to find."""

import math
from collections.abc import Sequence

import numpy as np

from lamella.records import Record


class Permutations(Record):
    """What an arm reaches by one seed, and what it reaches with permuted labels: `aucs`, one a run.

    `within` is over pairs among whom labels were exchanged (same fold, same batch). Labels of a batch stay in it, so a
    batch that is mostly of one class keeps much of the truth, and `aucs` may lie above 1/2 without any leak; this may
    not. None where no run has such a pair.
    """

    arm: str
    auc: float | None = None
    aucs: tuple[float, ...]
    within: tuple[float, ...] | None = None
    n: int | None = None
    p: float
    mean: float
    sd: float | None = None
    mean_within: float | None = None
    smallest_leak: float | None = None
    leak: bool = False

    @property
    def exchanged(self) -> tuple[float, ...]:
        """The AUCs among those whose labels were exchanged, where that is not everybody."""
        within = self.within or ()
        return within if within != self.aucs else ()


def judge_permutations(
    auc: float, permuted: Sequence[float], *, within: Sequence[float] | None = None, arm: str = ""
) -> Permutations:
    """Return what the control says of an arm, and of the study.

    p = (1 + runs at least as high) / (1 + runs). Where the mean of `within` lies above 1/2 by three standard errors,
    something of the test set has leaked into training; `smallest_leak`, these three errors, is the least that the runs
    could have seen.

    Args:
        auc: The arm's own, by the seed that the control trains.
        permuted: AUC of each run.
        within: AUC of each run over pairs among whom labels were exchanged; None takes `permuted`. Where labels stay
            within batches, all pairs together may lie above 1/2 without a leak.
        arm: Which arm.

    Example:
        >>> control = judge_permutations(0.9, [0.4, 0.6, 0.5])
        >>> control.p, control.leak
        (0.25, False)
    """
    values = np.asarray(permuted, dtype=np.float64)
    mean, sd = float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else 0.0
    inner = values if within is None else np.asarray(within, dtype=np.float64)
    spread = float(inner.std(ddof=1)) if len(inner) > 1 else 0.0
    smallest = 3 * spread / math.sqrt(max(1, len(inner)))
    return Permutations(
        arm=arm,
        auc=auc,
        aucs=tuple(permuted),
        within=None if within is None else tuple(within),
        n=len(values),
        p=(1 + int((values >= auc).sum())) / (1 + len(values)),
        mean=mean,
        sd=sd,
        mean_within=float(inner.mean()),
        smallest_leak=smallest if len(inner) > 1 else None,
        leak=bool(len(inner) > 1 and inner.mean() > 0.5 + smallest),
    )
