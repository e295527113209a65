"""Metrics: what a run's predictions are worth, in numbers that say how sure they are. `measure` is the one entry."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lamella.analysis.auc import (
    AucEstimate,
    estimate_auc,
    find_auc_interval,
    find_cv_factor,
    find_pooled_auc,
    find_score_interval,
)
from lamella.analysis.calibration import Calibration, find_calibration
from lamella.analysis.curves import find_curves
from lamella.analysis.figure import Figure, make_absent, make_bootstrapped, make_figure, make_share
from lamella.analysis.intervals import draw_patients
from lamella.analysis.predictions import PredictionTable, average_by_patient
from lamella.analysis.scores import CalibrationScores, ClassScores, GroupScores, Score, Units
from lamella.analysis.thresholds import Decisions, decide_classes
from lamella.analysis.weighted import (
    weigh_average_precision,
    weigh_balanced_accuracy,
    weigh_mean,
    weigh_pooled_auc,
)

Floats = NDArray[np.float64]
N_DRAWS = 2000
SCORE_METHOD = "score interval (Newcombe 2006, method 5)"


def measure(
    table: PredictionTable, *, decisions: Decisions | None = None, n_draws: int = N_DRAWS, seed: int = 0
) -> Score:
    """Measure predictions by slide, by patient, by batch and by fold.

    Rows of more than one fold are taken as cross-validation: pairs are compared within folds, and the interval of the
    AUC is widened because the folds' models trained on each other's test slides. One fold is a single test set (or an
    external cohort).

    Args:
        table: One row a slide, each predicted by a model that never saw it.
        decisions: Thresholds (two classes) or prevalences (more); None leaves out what needs a decision.
        n_draws: Draws of the patient bootstrap.
        seed: Of the bootstrap.

    Raises:
        CohortError: If a patient is tested in several folds.
    """
    decisions = decisions or Decisions()
    mixed = table.mixed_patients
    bootstrap = _Bootstrap(n_draws=n_draws, seed=seed)
    slides = _measure_units(table, decisions, bootstrap)
    by_patient = table if mixed else average_by_patient(table)
    if mixed:
        patients = None
    elif len(by_patient.slide_ids) == len(table.slide_ids):
        patients = slides
    else:
        patients = _measure_units(by_patient, decisions, bootstrap)
    thresholds = {} if decisions.thresholds is None else decisions.thresholds
    return Score(
        classes=table.classes,
        positive=table.classes[table.positive_index] if len(table.classes) == 2 else None,
        cross_validated=table.cross_validated,
        n_folds=len(np.unique(table.folds)),
        headline="slides" if mixed else "patients",
        slides=slides,
        patients=patients,
        folds=_measure_groups(by_patient, "fold", [str(fold) for fold in by_patient.folds.tolist()]),
        batches=() if by_patient.batches is None else _measure_groups(by_patient, "batch", by_patient.batches),
        auc_within_batches=_measure_within_batches(by_patient),
        thresholds={str(fold): threshold for fold, threshold in sorted(thresholds.items())},
        curves=find_curves(by_patient),
        notes=_find_notes(table),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bootstrap:
    """Settings of the bootstrap; the same draws for every figure and every arm."""

    n_draws: int
    seed: int

    def draw(self, table: PredictionTable) -> NDArray[np.int32]:
        """Draw patients of the table."""
        rng = np.random.default_rng(self.seed)
        return draw_patients(table.targets, table.folds, table.patients, n_draws=self.n_draws, rng=rng)


def _measure_units(table: PredictionTable, decisions: Decisions, bootstrap: _Bootstrap) -> Units:
    """Measure one table, its rows as units."""
    targets = table.targets
    counts = {name: int((targets == column).sum()) for column, name in enumerate(table.classes)}
    estimate = estimate_auc(table.logits, targets, folds=table.folds, patients=table.patients)
    draws = bootstrap.draw(table)
    factor = 1.0 if estimate is None or not estimate.cross_validated else find_cv_factor(float(estimate.auc[0]))
    per_class = _measure_classes(table, estimate)
    return Units(
        n=len(targets),
        n_patients=len(set(table.patient_ids)),
        n_by_class=counts,
        auc=_describe_auc(estimate, table),
        n_pairs=0 if estimate is None else estimate.n_pairs,
        **_measure_pooled(table, draws),
        **_measure_decisions(table, decide_classes(table, decisions), draws, factor),
        per_class=per_class,
        calibration=per_class[table.classes[table.positive_index]].calibration if len(table.classes) == 2 else None,
    )


def _describe_auc(estimate: AucEstimate | None, table: PredictionTable) -> Figure:
    """Return the headline AUC with its score interval."""
    if estimate is None:
        return make_absent(
            f"no fold holds {'both' if len(table.classes) == 2 else 'two'} classes, so there is no pair to order"
        )
    method = SCORE_METHOD
    if estimate.cross_validated:
        method += ", widened for cross-validation by 1 + 4A(1 - A)"
    if estimate.deff[0] > 1:
        method += f", design effect {estimate.deff[0]:.2f} of slides within patients"
    absent = [name for column, name in enumerate(table.classes) if column not in estimate.scored]
    reason = f"without class {', '.join(absent)}, which has no pair within a fold" if absent else None
    return make_figure(float(estimate.auc[0]), find_auc_interval(estimate), method, reason=reason)


def _measure_pooled(table: PredictionTable, draws: NDArray[np.integer]) -> dict[str, Figure]:
    """Measure what takes all folds together: pooled AUC, average precision, Brier score, log-loss."""
    targets, scores, probabilities = table.targets, table.scores, table.probabilities
    if len(targets) == 0:
        empty = make_absent("there are no predictions")
        return dict.fromkeys(("auc_pooled", "average_precision", "brier", "log_loss"), empty)
    present = [column for column in table.scored_columns if 0 < (targets == column).sum() < len(targets)]

    def average(weigh: Callable[[Floats, NDArray[np.bool_], Floats], Floats]) -> Figure:
        def statistic(weights: Floats) -> Floats:
            return np.asarray(np.mean([weigh(scores[:, c], targets == c, weights) for c in present], axis=0))

        return make_bootstrapped(statistic, draws) if present else make_absent("all predictions are of one class")

    precision = average(weigh_average_precision)
    if present:
        prevalence = float(np.mean([(targets == column).mean() for column in present]))
        precision = precision.model_copy(update={"prevalence": prevalence})
    truth = np.eye(len(table.classes))[targets]
    # Two classes: the usual score of the positive class, half of the sum over both.
    brier = ((probabilities - truth) ** 2).sum(axis=1) / (2 if len(table.classes) == 2 else 1)
    log_loss = -np.log(np.maximum(probabilities[np.arange(len(targets)), targets], 1e-300))
    return {
        "auc_pooled": average(weigh_pooled_auc),
        "average_precision": precision,
        "brier": make_bootstrapped(lambda weights: weigh_mean(brier, weights), draws),
        "log_loss": make_bootstrapped(lambda weights: weigh_mean(log_loss, weights), draws),
    }


def _measure_decisions(
    table: PredictionTable, decided: NDArray[np.int64] | str, draws: NDArray[np.integer], factor: float
) -> dict[str, Figure]:
    """Measure decided classes: balanced accuracy; of two classes sensitivity, specificity, PPV and NPV.

    `factor` is by how much cross-validation multiplies the variance of a share.
    """
    two = ("sensitivity", "specificity", "ppv", "npv")
    names = ("balanced_accuracy", *two)
    if isinstance(decided, str) or len(table.labels) == 0:
        reason = decided if isinstance(decided, str) else "there are no predictions"
        return {name: make_absent(reason) for name in names}
    targets = table.targets
    absent = [name for column, name in enumerate(table.classes) if not (targets == column).any()]
    result = {name: make_absent("of two classes only; see per_class") for name in two}
    if absent:
        result["balanced_accuracy"] = make_absent(f"class {', '.join(absent)} is absent")
    else:
        result["balanced_accuracy"] = make_bootstrapped(
            lambda weights: weigh_balanced_accuracy(decided, targets, weights), draws
        )
    if len(table.classes) == 2:
        true, said = targets == table.positive_index, decided == table.positive_index
        prevalence = float(true.mean())
        for name, among, hits in (
            ("sensitivity", true, said),
            ("specificity", ~true, ~said),
            ("ppv", said, true),
            ("npv", ~said, ~true),
        ):
            share = make_share(hits[among], table.patients[among], factor=factor)
            holds_at = {"prevalence": prevalence} if name in ("ppv", "npv") else {}
            result[name] = share.model_copy(update=holds_at)
    return result


def _measure_classes(table: PredictionTable, estimate: AucEstimate | None) -> dict[str, ClassScores]:
    """Measure each class against the rest (the positive one alone, of two): AUC within folds and calibration."""
    result = {}
    alone = len(set(table.patient_ids)) == len(table.patient_ids)
    for column in table.scored_columns:
        positive = table.targets == column
        auc = make_absent(f"class {table.classes[column]} has no pair within a fold")
        if estimate is not None and column in estimate.scored:
            index = estimate.scored.index(column)
            value = float(estimate.class_auc[index, 0])
            interval = find_score_interval(
                value,
                estimate.n_positive[index],
                estimate.n_negative[index],
                deff=float(estimate.deff[0]),
                cross_validated=estimate.cross_validated,
            )
            auc = make_figure(value, interval, SCORE_METHOD)
        factor = find_cv_factor(auc.value) if table.cross_validated and auc.value is not None else 1.0
        calibration = find_calibration(table.scores[:, column], positive, factor=factor)
        result[table.classes[column]] = ClassScores(
            n=int(positive.sum()), auc=auc, calibration=_describe_calibration(calibration, alone=alone)
        )
    return result


def _describe_calibration(calibration: Calibration, *, alone: bool) -> CalibrationScores:
    """Return intercept and slope; Wald's intervals only where each row is a patient, as they count them so."""
    intercept_interval, slope_interval = calibration.intercept_interval, calibration.slope_interval
    reason = calibration.reason
    return CalibrationScores(
        intercept=make_figure(
            calibration.intercept,
            intercept_interval if alone else None,
            "Wald",
            reason=reason if calibration.intercept is None else None,
        ),
        slope=make_figure(
            calibration.slope,
            slope_interval if alone else None,
            "Wald",
            reason=reason if calibration.slope is None else None,
        ),
    )


def _measure_groups(table: PredictionTable, key: str, names: Sequence[str | None]) -> tuple[GroupScores, ...]:
    """Measure the AUC inside each group (a fold, a batch), pairs within folds."""
    groups = []
    for name in sorted({name for name in names if name is not None}, key=lambda name: (len(name), name)):
        rows = np.flatnonzero([other == name for other in names])
        part = table.take(rows)
        estimate = estimate_auc(
            part.logits,
            part.targets,
            folds=part.folds,
            patients=part.patients,
            # The models of a single fold trained on nobody's test slides; a batch holds rows of several folds.
            n_rounds=len(np.unique(part.folds)),
        )
        counts = {label: part.labels.count(label) for label in table.classes}
        group = GroupScores(n=len(rows), n_by_class=counts, auc=_describe_auc(estimate, part))
        calibration = {"calibration": _calibrate(part)} if key == "batch" and len(part.classes) == 2 else {}
        groups.append(group.model_copy(update={key: name, **calibration}))
    return tuple(groups)


def _calibrate(part: PredictionTable) -> CalibrationScores:
    """Return the calibration intercept and slope of one batch: a shift there is what a new scanner does first."""
    scores, positive = part.scores[:, part.positive_index], part.targets == part.positive_index
    calibration = find_calibration(scores, positive)
    factor = 1.0
    if part.cross_validated and calibration.intercept is not None:
        auc = find_pooled_auc(scores, positive)
        factor = 1.0 if auc is None else find_cv_factor(auc)
        calibration = find_calibration(scores, positive, factor=factor)
    return _describe_calibration(calibration, alone=True)


def _measure_within_batches(table: PredictionTable) -> Figure:
    """Measure the AUC over pairs of the same fold *and* the same batch: what a batch's look cannot explain."""
    if table.batches is None or all(batch is None for batch in table.batches):
        return make_absent("no batches were given")
    known = np.flatnonzero([batch is not None for batch in table.batches])
    part = table.take(known)
    pairs = [f"{fold}/{batch}" for fold, batch in zip(part.folds.tolist(), part.batches or (), strict=True)]
    cells = np.unique(pairs, return_inverse=True)[1].reshape(-1)
    estimate = estimate_auc(
        part.logits, part.targets, folds=cells, patients=part.patients, n_rounds=len(np.unique(part.folds))
    )
    if estimate is None:
        return make_absent("no batch holds two classes within a fold")
    return _describe_auc(estimate, part).model_copy(update={"n_pairs": estimate.n_pairs})


def _find_notes(table: PredictionTable) -> tuple[str, ...]:
    """Say what a reader must know of how the figures were counted."""
    notes = []
    if table.cross_validated:
        notes.append(
            "Bootstrap intervals hold the trained models fixed; they are too narrow under cross-validation. "
            "The AUC's interval is widened for it."
        )
        notes.append("auc_pooled compares scores of different models; auc compares within folds only.")
    if table.mixed_patients:
        n = len(table.mixed_patients)
        notes.append(f"{n} patients have slides of several labels: slides are scored, errors are clustered by patient.")
    small = [name for name in table.classes if _count_patients(table, name) < 10]
    if small:
        notes.append(f"Fewer than 10 patients of class {', '.join(small)}: read every figure with that in mind.")
    return tuple(notes)


def _count_patients(table: PredictionTable, label: str) -> int:
    """Count the patients with a row of a class."""
    return len({p for p, actual in zip(table.patient_ids, table.labels, strict=True) if actual == label})
