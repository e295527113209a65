"""Whether a verdict may be one about batches: the same rules over pairs of the same fold *and* batch.

A reader of batches does well over all pairs where batch and label go together, and no better than chance within batches
(Howard 2021). docs/statistics.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lamella.analysis.auc import estimate_auc, find_auc_interval
from lamella.analysis.comparisons import LEVEL, judge_against_chance
from lamella.analysis.figure import Interval
from lamella.analysis.judgement import LEAST_PATIENTS, Judgement, Rules, ScoredArms, judge_pairs
from lamella.analysis.verdict import BatchBaseline, BatchVerdict, PlannedTable

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class BatchCheck:
    """Which pairs rule, and why.

    Attributes:
        plain: The judgement over pairs of the same fold.
        within: That over pairs of the same fold and batch; None where there is no such pair or no batch was given.
        ruling: The one that rules.
        sentence: Why pairs of the same batch rule; None where they do not.
        baseline: AUC of the batch alone, with its interval and p against chance; None where it is not known.
        note: What else must be known of batches.
    """

    plain: Judgement
    within: Judgement | None
    ruling: Judgement
    sentence: str | None
    baseline: BatchBaseline | None
    note: str | None

    def find_kind(self) -> str:
        """Return the kind of the verdict: of the one reference question, else of the contest."""
        return self.ruling.find_kind(chain=0 if len(self.ruling.rules.chains) == 1 else None)

    def find_within(self, arm: int) -> tuple[float, Interval] | tuple[None, None]:
        """Return an arm's AUC within batches and its interval; None for both where there is no such pair."""
        if self.within is None:
            return None, None
        return float(self.within.estimate.auc[arm]), find_auc_interval(self.within.estimate, arm=arm)

    def describe(self) -> BatchVerdict | None:
        """Return what the verdict says of batches; None where none were given."""
        if self.baseline is None and self.within is None and self.note is None:
            return None
        return BatchVerdict(
            pairs="fold and batch" if self.sentence else "fold",
            reason=self.sentence,
            baseline=self.baseline,
            kind_over_all_pairs=self.plain.find_kind(chain=0 if len(self.plain.rules.chains) == 1 else None),
            n_least_within=0 if self.within is None else self.within.n_least,
            note=self.note,
        )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Batches:
    """What is known of the units' batches.

    Attributes:
        folds: `(n,)` fold of each unit.
        numbers: `(n,)` batch of each unit, below 0 where not known; None where none were given.
        logits: `(n, C)` what the batch alone says of each unit; None works it out from the other folds, and of one test
            set from its other units.
    """

    folds: NDArray[np.int64]
    numbers: NDArray[np.int64] | None
    logits: Floats | None


def check_batches(
    plain: Judgement,
    arms: ScoredArms,
    rules: Rules,
    batches: Batches,
    tables: Sequence[PlannedTable] = (),
) -> BatchCheck:
    """Judge within batches too, and say which judgement rules.

    That within batches rules where the batch alone predicts the label better than chance, and where the two differ. A
    verdict within batches takes 10 patients of each class that stand in a pair there.

    Args:
        plain: The judgement over pairs of the same fold.
        arms: On the same units.
        rules: What is asked.
        batches: Of the units.
        tables: Declared comparisons.
    """
    numbers = batches.numbers
    if numbers is None or len(set(numbers[numbers >= 0].tolist())) < 2:
        return BatchCheck(plain=plain, within=None, ruling=plain, sentence=None, baseline=None, note=None)
    alone = np.where(numbers < 0, -1 - np.arange(len(numbers)), numbers)
    cells = np.unique(np.stack([batches.folds, alone]), axis=1, return_inverse=True)[1].reshape(-1)
    within = judge_pairs(arms, cells, rules, tables)
    baseline = _measure_baseline(arms, batches)
    predicts = baseline is not None and baseline.p < LEVEL
    enough = within is not None and within.differences is not None and within.n_least >= LEAST_PATIENTS
    differ = within is not None and enough and _sum_up(within) != _sum_up(plain)
    note = None
    if not enough:
        note = (
            "Too few patients share fold and batch with a patient of another class to compare arms within batches; the "
            "batch alone is not shown to predict the label."
        )
    if not predicts and not differ:
        return BatchCheck(plain=plain, within=within, ruling=plain, sentence=None, baseline=baseline, note=note)
    if predicts and baseline is not None:
        sentence = (
            f"The batch alone predicts the label (AUC {baseline.auc:.2f}), so only patients of the same batch are "
            "compared."
        )
    else:
        sentence = "Arms compare differently within batches, so only patients of the same batch are compared."
    ruling = within if within is not None else _empty(plain)
    return BatchCheck(plain=plain, within=within, ruling=ruling, sentence=sentence, baseline=baseline, note=note)


def predict_from_other_folds(
    targets: NDArray[np.int64], folds: NDArray[np.int64], batches: NDArray[np.int64], n_classes: int
) -> Floats:
    """Return the log of each class's share in a unit's batch in the other folds, one overall unit added, `(n, C)`."""
    logits = np.zeros((len(targets), n_classes))
    for fold in np.unique(folds):
        rest, here = folds != fold, np.flatnonzero(folds == fold)
        overall = (np.bincount(targets[rest], minlength=n_classes) + 1e-3) / (rest.sum() + n_classes * 1e-3)
        for batch in np.unique(batches[here]):
            same = rest & (batches == batch) & (batches >= 0)
            counts = np.bincount(targets[same], minlength=n_classes)
            logits[here[batches[here] == batch]] = np.log((counts + overall) / (counts.sum() + 1))
    return logits


def predict_from_others(targets: NDArray[np.int64], batches: NDArray[np.int64], n_classes: int) -> Floats:
    """Return the log of each class's share among the other units of a unit's batch, one overall unit added, `(n, C)`.

    For a single test set of which the training units are not known. What a unit's own label takes from its batch makes
    the AUC err downwards, never up.
    """
    each = np.eye(n_classes)[targets]
    overall = (each.sum(axis=0) + 1e-3) / (len(targets) + n_classes * 1e-3)
    logits = np.tile(np.log(overall), (len(targets), 1))
    for batch in np.unique(batches[batches >= 0]):
        same = batches == batch
        counts = each[same].sum(axis=0) - each[same]
        logits[same] = np.log((counts + overall) / (counts.sum(axis=1, keepdims=True) + 1))
    return logits


def _measure_baseline(arms: ScoredArms, batches: Batches) -> BatchBaseline | None:
    """Return what the batch alone reaches over pairs of the same fold; None where no fold tests two classes."""
    logits, numbers, n_classes = batches.logits, batches.numbers, arms.logits.shape[-1]
    assert numbers is not None
    if logits is None and len(np.unique(batches.folds)) == 1:
        logits = predict_from_others(arms.targets, numbers, n_classes)
    if logits is None:
        logits = predict_from_other_folds(arms.targets, batches.folds, numbers, n_classes)
    estimate = estimate_auc(logits, arms.targets, folds=batches.folds, patients=arms.patients, n_rounds=arms.n_rounds)
    if estimate is None:
        return None
    return BatchBaseline(
        auc=float(estimate.auc[0]),
        interval=find_auc_interval(estimate),
        p=float(judge_against_chance(estimate)[0]),
    )


def _sum_up(judgement: Judgement) -> tuple[str | int | None, ...]:
    chains = range(len(judgement.rules.chains))
    kinds = tuple(judgement.find_kind(chain=number) for number in (*chains, None))
    return (*kinds, judgement.find_recommended())


def _empty(plain: Judgement) -> Judgement:
    """Return a judgement over no pairs: nothing can be said."""
    n_arms = len(plain.estimate.auc)
    return replace(
        plain,
        differences=None,
        n_least=0,
        noninferior=np.zeros(n_arms, dtype=bool),
        margins=np.ones(n_arms),
        worse=np.zeros((n_arms, n_arms), dtype=bool),
        accepted=tuple(() for _ in plain.rules.chains),
        tables=tuple(table.model_copy(update={"rows": ()}) for table in plain.tables),
    )
