"""Measuring a run: the model and its baselines on the same folds, thresholds from validation alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from lamella.analysis.baselines import predict_from_batches, predict_from_vectors
from lamella.analysis.metrics import measure
from lamella.analysis.predictions import PredictionTable, average_by_patient
from lamella.analysis.prevalence import NetBenefit, find_at_prevalence, find_net_benefit
from lamella.analysis.scores import GroupScores, Score
from lamella.analysis.sites import NextSite, predict_next_site
from lamella.analysis.thresholds import Decisions, Threshold, find_threshold
from lamella.cohort import Cohort, Round
from lamella.errors import CohortError, SettingsError
from lamella.mil.prediction import SlidePrediction, make_prediction
from lamella.runs.bags import RunBags
from lamella.runs.metrics import METRICS_FORMAT, AtPrevalence, Metrics, Scores
from lamella.runs.predictions import average_models, tabulate
from lamella.runs.predictions_table import load_predictions
from lamella.runs.rounds import Protocol, ProtocolOutcome

_BASELINE_DRAWS = 500


def measure_run(
    outcomes: Sequence[ProtocolOutcome], bags: RunBags, cohort: Cohort, *, sensitivity: float | None = None
) -> Metrics:
    """Measure the outcome of a run's protocols, the cohort's own folds first.

    Args:
        outcomes: Of the folds, and if there is one of the batches left out.
        bags: For what the baselines look at.
        cohort: Labels, classes, batches.
        sensitivity: The least that the threshold must reach on validation.
    """
    first = outcomes[0]
    decisions = _decide(first, cohort, sensitivity)
    model = measure(_average(first, "test", cohort), decisions=decisions)
    left_out = None
    notes = model.notes
    for other in outcomes[1:]:
        left_out = measure(_average(other, "test", cohort), decisions=_decide(other, cohort, sensitivity))
        next_site = _predict_next(left_out.batches, cohort)
        left_out = left_out.model_copy(
            update={"baselines": _measure_baselines(other.protocol, bags, cohort), "next_site": next_site}
        )
        notes = (*model.notes, *_say_next_site(next_site))
    scores = Scores(model=model, baselines=_measure_baselines(first.protocol, bags, cohort))
    return Metrics(
        format=METRICS_FORMAT,
        classes=cohort.classes,
        positive=cohort.positive,
        scores=scores if left_out is None else scores.model_copy(update={"leave_one_batch_out": left_out}),
        thresholds=model.thresholds,
        frozen_threshold=_freeze(decisions),
        notes=notes,
    )


def _say_next_site(site: NextSite | None) -> list[str]:
    """Say where the AUC of the next batch may lie; nothing where that cannot be told."""
    if site is None or site.interval is None:
        return []
    low, high = site.interval
    said = f"Batches left out: mean AUC {site.mean:.2f} over {site.n_sites} batches; "
    said += f"95% prediction interval for the next batch {low:.2f}-{high:.2f}."
    return [f"{said} {site.note}".strip()]


def _predict_next(batches: Sequence[GroupScores], cohort: Cohort) -> NextSite | None:
    """Return where the AUC of the next batch may lie, from those left out; None with more than two classes."""
    if cohort.positive is None or len(cohort.classes) != 2:
        return None
    known = [batch for batch in batches if batch.auc.value is not None]
    counts = [batch.n_by_class[cohort.positive] for batch in known]
    others = [batch.n - count for batch, count in zip(known, counts, strict=True)]
    values = [float(batch.auc.value or 0) for batch in known]
    return predict_next_site(values, counts, others)


def measure_external(
    predictions: Sequence[SlidePrediction],
    classes: tuple[str, ...],
    positive: str | None,
    frozen: Threshold | None,
    *,
    prevalence: float | None = None,
) -> Metrics:
    """Measure predictions of new, labelled slides at the threshold that the run froze.

    Args:
        predictions: Of new slides.
        classes: In the order of the logits.
        positive: The class whose probability is scored.
        frozen: The threshold; None where there is none.
        prevalence: Share of the positive class at which predictive values and net benefit are wanted besides.

    Raises:
        SettingsError: If a prevalence is asked for that cannot be, or with more than two classes.
        CohortError: If a label is not one of the run's classes.
    """
    for prediction in predictions:
        if prediction.label not in classes:
            raise CohortError(
                f"slide '{prediction.slide_id}' has label '{prediction.label}' but the run knows "
                f"{', '.join(classes)}. Name the labels as the run's cohort did, or leave them out."
            )
    table = average_models(tabulate(predictions, classes), classes, positive)
    model = measure(table, decisions=Decisions(thresholds=None if frozen is None else {0: frozen}))
    metrics = Metrics(
        format=METRICS_FORMAT,
        classes=classes,
        positive=positive,
        external=True,
        scores=Scores(model=model, baselines={}),
        thresholds=model.thresholds,
        frozen_threshold=frozen,
        notes=model.notes,
    )
    if prevalence is None:
        return metrics
    return metrics.model_copy(update={"at_prevalence": _restate(model, table, prevalence, frozen)})


def _restate(model: Score, table: PredictionTable, prevalence: float, frozen: Threshold | None) -> AtPrevalence:
    """Return predictive values and net benefit at a stated prevalence; the latter where that of training is known."""
    units = model.headline_units
    if len(table.classes) != 2 or units is None:
        raise SettingsError(
            f"a prevalence is of one class of two and there are {len(table.classes)}. Leave --prevalence out."
        )
    values = find_at_prevalence(units.sensitivity, units.specificity, prevalence)
    benefit: list[NetBenefit] = []
    if frozen is not None:
        rows = table if table.mixed_patients else average_by_patient(table)
        benefit = find_net_benefit(
            rows.scores[:, rows.positive_index],
            rows.targets == rows.positive_index,
            prevalence=prevalence,
            trained_prevalence=frozen.prevalence,
        )
    return AtPrevalence(prevalence=prevalence, net_benefit=tuple(benefit), ppv=values["ppv"], npv=values["npv"])


def find_frozen_threshold(outcome: ProtocolOutcome, cohort: Cohort, sensitivity: float | None) -> Threshold | None:
    """Return the threshold for new slides, found on each round's validation slides; None without two classes.

    Args:
        outcome: Rounds and what was predicted of their validation slides.
        cohort: Labels, classes.
        sensitivity: The least that it must reach on validation; None is Youden's.
    """
    return _freeze(_decide(outcome, cohort, sensitivity))


def measure_table(path: Path, *, positive: str | None = None) -> Metrics:
    """Measure a predictions table: `slide_id, label, fold`, and `logit_<class>` or `prob_<class>` for each class.

    Args:
        path: CSV as `lamella run` writes it; `patient_id`, `fold` and `batch` may be absent.
        positive: The class that is scored; None takes the last.

    Raises:
        CohortError: If the table is absent or lacks what is needed.
    """
    table = load_predictions(path, positive=positive)
    model = measure(table)
    return Metrics(
        format=METRICS_FORMAT,
        classes=table.classes,
        positive=table.classes[table.positive_index] if len(table.classes) == 2 else None,
        scores=Scores(model=model, baselines={}),
        notes=model.notes,
    )


def _decide(outcome: ProtocolOutcome, cohort: Cohort, sensitivity: float | None) -> Decisions:
    """Find each round's threshold on its validation slides."""
    labels = _labels(cohort)
    rounds = outcome.protocol.rounds
    prevalences = {round_.fold: _find_prevalences(round_, labels, cohort.classes) for round_ in rounds}
    if len(cohort.classes) != 2 or cohort.positive is None:
        return Decisions(prevalences=prevalences)
    positive = cohort.classes.index(cohort.positive)
    thresholds = {}
    for round_ in rounds:
        thresholds[round_.fold] = find_threshold(
            _average(outcome, "val", cohort, fold=round_.fold),
            prevalence=prevalences[round_.fold][positive],
            sensitivity=sensitivity,
        )
    return Decisions(thresholds=thresholds, prevalences=prevalences)


def _freeze(decisions: Decisions) -> Threshold | None:
    """Return the threshold for new slides, which are scored by the mean of all folds' logits: the mean log-odds."""
    if not decisions.thresholds:
        return None
    thresholds = list(decisions.thresholds.values())
    odds = np.mean([logit(np.clip(threshold.value, 1e-6, 1 - 1e-6)) for threshold in thresholds])
    return Threshold(
        value=float(expit(odds)),
        rule="+".join(sorted({threshold.rule for threshold in thresholds})),
        note=f"the mean, in log-odds, of the {len(thresholds)} rounds' thresholds",
        n_positive=sum(threshold.n_positive for threshold in thresholds),
        n_negative=sum(threshold.n_negative for threshold in thresholds),
        prevalence=float(np.mean([threshold.prevalence for threshold in thresholds])),
    )


def _measure_baselines(protocol: Protocol, bags: RunBags, cohort: Cohort) -> dict[str, Score]:
    """Measure what colour, the amount of tissue, and the batch alone predict on the same rounds."""
    measured: dict[str, Score] = {}
    for name, vectors in _find_vectors(bags).items():
        absent = Score(reason="the bags do not state it")
        measured[name] = _measure_baseline(protocol, cohort, vectors) if vectors else absent
    if any(slide.batch is not None for slide in cohort.slides):
        measured["batch"] = _measure_baseline(protocol, cohort, None)
    else:
        measured["batch"] = Score(reason="the cohort has no batch column")
    return measured


def _measure_baseline(protocol: Protocol, cohort: Cohort, vectors: Mapping[str, NDArray[np.float64]] | None) -> Score:
    """Measure one baseline: logistic regression on vectors, or the batch's training prevalence where there are none."""
    labels, batches = _labels(cohort), {slide.slide_id: slide.batch for slide in cohort.slides}
    by_id = {slide.slide_id: slide for slide in cohort.slides}
    predictions: list[SlidePrediction] = []
    for round_ in protocol.rounds:
        train, test = round_.train, round_.test
        if vectors is None:
            logits = predict_from_batches(batches, labels, train=train, test=test, classes=cohort.classes)
        else:
            logits = predict_from_vectors(vectors, labels, train=train, test=test, classes=cohort.classes)
        predictions += [
            make_prediction(values, np.ones(1)).of(by_id[slide_id], fold=round_.fold)
            for slide_id, values in logits.items()
        ]
    table = average_models(tabulate(predictions, cohort.classes), cohort.classes, cohort.positive)
    return measure(table, n_draws=_BASELINE_DRAWS)


def _find_vectors(bags: RunBags) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Return each slide's colour (mean and SD of red, green, blue) and amount of tissue, where bags state them."""
    colour: dict[str, NDArray[np.float64]] = {}
    tissue: dict[str, NDArray[np.float64]] = {}
    for slide_id, facts in bags.facts.items():
        if facts.colours is None or facts.tissue_um2 is None:
            return {"colour": {}, "tissue": {}}
        colour[slide_id] = facts.colours
        tissue[slide_id] = np.log([float(facts.tissue_um2) + 1, len(bags.features[slide_id])])
    return {"colour": colour, "tissue": tissue}


def _find_prevalences(round_: Round, labels: Mapping[str, str], classes: Sequence[str]) -> list[float]:
    """Return each class's share of the training slides."""
    return [sum(labels[i] == name for i in round_.train) / len(round_.train) for name in classes]


def _labels(cohort: Cohort) -> dict[str, str]:
    return {slide.slide_id: str(slide.label) for slide in cohort.slides}


def _average(outcome: ProtocolOutcome, side: str, cohort: Cohort, *, fold: int | None = None) -> PredictionTable:
    """Return the slides of a side, of one round or of all, each by the mean of its models."""
    table = outcome.predictions
    wanted = table["side"] == side
    if fold is not None:
        wanted &= table["fold"] == fold
    return average_models(table[wanted], cohort.classes, cohort.positive)
