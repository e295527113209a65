"""Measuring a run: the model and its baselines on the same folds, thresholds from validation alone."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit, logit

from lamella.analysis.baselines import predict_from_batches, predict_from_vectors
from lamella.analysis.metrics import measure
from lamella.analysis.predictions import PredictionTable, average_by_patient
from lamella.analysis.prevalence import find_at_prevalence, find_net_benefit
from lamella.analysis.sites import predict_next_site
from lamella.analysis.thresholds import Decisions, Threshold, find_threshold
from lamella.cohort import Cohort, Round
from lamella.errors import CohortError, SettingsError
from lamella.mil.prediction import SlidePrediction, make_prediction
from lamella.runs.bags import RunBags
from lamella.runs.predictions import average_models, tabulate
from lamella.runs.predictions_table import load_predictions
from lamella.runs.rounds import Protocol, ProtocolOutcome

METRICS_FORMAT = 1
_BASELINE_DRAWS = 500


def measure_run(
    outcomes: Sequence[ProtocolOutcome], bags: RunBags, cohort: Cohort, *, sensitivity: float | None = None
) -> dict[str, Any]:
    """Measure the outcome of a run's protocols, the cohort's own folds first.

    Args:
        outcomes: Of the folds, and if there is one of the batches left out.
        bags: For what the baselines look at.
        cohort: Labels, classes, batches.
        sensitivity: The least that the threshold must reach on validation.

    Returns:
        What `metrics.json` holds: `arms` (`model`, `baselines`, perhaps `leave_one_batch_out`), `thresholds`,
        `frozen_threshold` (for new slides), as docs/formats.md has it.
    """
    first = outcomes[0]
    decisions = _decide(first, cohort, sensitivity)
    model = measure(_average(first, "test", cohort), decisions=decisions)
    arms: dict[str, Any] = {"model": model, "baselines": _measure_baselines(first.protocol, bags, cohort)}
    for other in outcomes[1:]:
        left_out = measure(_average(other, "test", cohort), decisions=_decide(other, cohort, sensitivity))
        arms["leave_one_batch_out"] = left_out | {
            "baselines": _measure_baselines(other.protocol, bags, cohort),
            "next_site": _predict_next(left_out["batches"], cohort),
        }
    return {
        "format": METRICS_FORMAT,
        "classes": list(cohort.classes),
        "positive": cohort.positive,
        "arms": arms,
        "thresholds": model["thresholds"],
        "frozen_threshold": _freeze(decisions),
        "notes": [*model["notes"], *_say_next_site(arms.get("leave_one_batch_out", {}).get("next_site"))],
    }


def _say_next_site(found: Mapping[str, Any] | None) -> list[str]:
    """Say where the AUC of the next batch may lie; nothing where that cannot be told."""
    if found is None or found["interval"] is None:
        return []
    low, high = found["interval"]
    said = f"Batches left out: mean AUC {found['mean']:.2f} over {found['n_sites']} batches; "
    said += f"95% prediction interval for the next batch {low:.2f}-{high:.2f}."
    return [f"{said} {found['note']}".strip()]


def _predict_next(batches: Sequence[Mapping[str, Any]], cohort: Cohort) -> dict[str, Any] | None:
    """Return where the AUC of the next batch may lie, from those left out; None with more than two classes."""
    if cohort.positive is None or len(cohort.classes) != 2:
        return None
    known = [one for one in batches if one["auc"]["value"] is not None]
    counts = [(one["n_by_class"][cohort.positive], one["n"] - one["n_by_class"][cohort.positive]) for one in known]
    return predict_next_site([one["auc"]["value"] for one in known], [m for m, _ in counts], [q for _, q in counts])


def measure_external(
    predictions: Sequence[SlidePrediction],
    classes: tuple[str, ...],
    positive: str | None,
    frozen: Mapping[str, Any] | None,
    *,
    prevalence: float | None = None,
) -> dict[str, Any]:
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
    thresholds = None if frozen is None else {0: Threshold(**frozen)}
    model = measure(table, decisions=Decisions(thresholds=thresholds))
    stated = None if prevalence is None else _restate(model, table, prevalence, frozen)
    return {
        "format": METRICS_FORMAT,
        "classes": list(classes),
        "positive": positive,
        "external": True,
        **({} if stated is None else {"at_prevalence": stated}),
        "arms": {"model": model, "baselines": {}},
        "thresholds": model["thresholds"],
        "frozen_threshold": frozen,
        "notes": model["notes"],
    }


def _restate(
    model: Mapping[str, Any], table: PredictionTable, prevalence: float, frozen: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return predictive values and net benefit at a stated prevalence; the latter where that of training is known."""
    if len(table.classes) != 2:
        raise SettingsError(
            f"a prevalence is of one class of two and there are {len(table.classes)}. Leave --prevalence out."
        )
    own = model[model["headline"]]
    found: dict[str, Any] = {"prevalence": prevalence, "net_benefit": []}
    found |= find_at_prevalence(own["sensitivity"], own["specificity"], prevalence)
    if frozen is not None:
        units = table if table.mixed_patients else average_by_patient(table)
        place = units.positive_index
        found["net_benefit"] = find_net_benefit(
            units.scores[:, place],
            units.targets == place,
            prevalence=prevalence,
            trained_prevalence=float(frozen["prevalence"]),
        )
    return found


def find_frozen_threshold(outcome: ProtocolOutcome, cohort: Cohort, sensitivity: float | None) -> dict[str, Any] | None:
    """Return the threshold for new slides, found on each round's validation slides; None without two classes.

    Args:
        outcome: Rounds and what was predicted of their validation slides.
        cohort: Labels, classes.
        sensitivity: The least that it must reach on validation; None is Youden's.
    """
    return _freeze(_decide(outcome, cohort, sensitivity))


def measure_table(path: Path, *, positive: str | None = None) -> dict[str, Any]:
    """Measure a predictions table: `slide_id, label, fold`, and `logit_<class>` or `prob_<class>` for each class.

    Args:
        path: CSV as `lamella run` writes it; `patient_id`, `fold` and `batch` may be absent.
        positive: The class that is scored; None takes the last.

    Raises:
        CohortError: If the table is absent or lacks what is needed.
    """
    table = load_predictions(path, positive=positive)
    model = measure(table)
    return {
        "format": METRICS_FORMAT,
        "classes": list(table.classes),
        "positive": table.classes[table.positive_index] if len(table.classes) == 2 else None,
        "arms": {"model": model, "baselines": {}},
        "notes": model["notes"],
    }


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


def _freeze(decisions: Decisions) -> dict[str, Any] | None:
    """Return the threshold for new slides, which are scored by the mean of all folds' logits: the mean log-odds."""
    if not decisions.thresholds:
        return None
    found = list(decisions.thresholds.values())
    odds = np.mean([logit(np.clip(one.value, 1e-6, 1 - 1e-6)) for one in found])
    rules = sorted({one.rule for one in found})
    frozen = dataclasses.replace(
        found[0],
        value=float(expit(odds)),
        rule="+".join(rules),
        note=f"the mean, in log-odds, of the {len(found)} rounds' thresholds",
        n_positive=sum(one.n_positive for one in found),
        n_negative=sum(one.n_negative for one in found),
        prevalence=float(np.mean([one.prevalence for one in found])),
    )
    return frozen.as_json()


def _measure_baselines(protocol: Protocol, bags: RunBags, cohort: Cohort) -> dict[str, Any]:
    """Measure what colour, the amount of tissue, and the batch alone predict on the same rounds."""
    measured: dict[str, Any] = {}
    vectors = _find_vectors(bags)
    for name, found in vectors.items():
        measured[name] = _measure_baseline(protocol, cohort, found) if found else {"reason": "the bags do not state it"}
    batches = {slide.slide_id: slide.batch for slide in cohort.slides}
    if any(batch is not None for batch in batches.values()):
        measured["batch"] = _measure_baseline(protocol, cohort, None)
    else:
        measured["batch"] = {"reason": "the cohort has no batch column"}
    return measured


def _measure_baseline(protocol: Protocol, cohort: Cohort, vectors: Mapping[str, Any] | None) -> dict[str, Any]:
    """Measure one baseline: logistic regression on vectors, or the batch's training prevalence where there are none."""
    labels, batches = _labels(cohort), {slide.slide_id: slide.batch for slide in cohort.slides}
    by_id = {slide.slide_id: slide for slide in cohort.slides}
    predictions: list[SlidePrediction] = []
    for round_ in protocol.rounds:
        sides = {"train": round_.train, "test": round_.test, "classes": cohort.classes}
        if vectors is None:
            logits = predict_from_batches(batches, labels, **sides)
        else:
            logits = predict_from_vectors(vectors, labels, **sides)
        predictions += [
            make_prediction(values, np.ones(1)).of(by_id[slide_id], fold=round_.fold)
            for slide_id, values in logits.items()
        ]
    table = average_models(tabulate(predictions, cohort.classes), cohort.classes, cohort.positive)
    return measure(table, n_draws=_BASELINE_DRAWS)


def _find_vectors(bags: RunBags) -> dict[str, dict[str, Any]]:
    """Return each slide's colour (mean and SD of red, green, blue) and amount of tissue, where bags state them."""
    colour: dict[str, Any] = {}
    tissue: dict[str, Any] = {}
    for slide_id, own in bags.provenance.items():
        if "colour" not in own or "tissue_um2" not in own:
            return {"colour": {}, "tissue": {}}
        colour[slide_id] = np.array([float(value) for value in str(own["colour"]).strip("[]").split(",")])
        tissue[slide_id] = np.log([float(own["tissue_um2"]) + 1, len(bags.features[slide_id])])
    return {"colour": colour, "tissue": tissue}


def _find_prevalences(one: Round, labels: Mapping[str, str], classes: Sequence[str]) -> list[float]:
    """Return each class's share of the training slides."""
    return [sum(labels[i] == name for i in one.train) / len(one.train) for name in classes]


def _labels(cohort: Cohort) -> dict[str, str]:
    return {slide.slide_id: str(slide.label) for slide in cohort.slides}


def _average(outcome: ProtocolOutcome, side: str, cohort: Cohort, *, fold: int | None = None) -> PredictionTable:
    """Return the slides of a side, of one round or of all, each by the mean of its models."""
    table = outcome.predictions
    wanted = table["side"] == side
    if fold is not None:
        wanted &= table["fold"] == fold
    return average_models(table[wanted], cohort.classes, cohort.positive)
