"""One entry: every figure with its interval, or the reason why there is none; never NaN."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from lamella.analysis.calibration import find_calibration
from lamella.analysis.intervals import find_wilson_interval
from lamella.analysis.metrics import measure
from lamella.analysis.predictions import PredictionTable, average_by_patient
from lamella.analysis.thresholds import Decisions, Threshold, find_threshold
from tests.analysis.conftest import make_table


def with_thresholds(table: PredictionTable, value: float = 0.5) -> Decisions:
    found = Threshold(value=value, rule="prevalence", note="given", n_positive=4, n_negative=4, prevalence=0.5)
    return Decisions(thresholds={int(fold): found for fold in table.folds})


def walk(content: Any) -> Iterator[Any]:
    """Yield every leaf and every dict."""
    if isinstance(content, dict):
        yield content
        for value in content.values():
            yield from walk(value)
    elif isinstance(content, list):
        for value in content:
            yield from walk(value)
    else:
        yield content


def check_honest(result: dict[str, Any]) -> None:
    """Nothing is NaN; JSON holds it; what has no value has a reason; an interval holds its value."""
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    for leaf in walk(result):
        if isinstance(leaf, dict) and "value" in leaf and "reason" in leaf:
            if leaf["value"] is None:
                assert leaf["reason"], leaf
            elif leaf["interval"] is not None:
                assert leaf["interval"][0] - 1e-9 <= leaf["value"] <= leaf["interval"][1] + 1e-9, leaf
        assert not (isinstance(leaf, float) and math.isnan(leaf))


def test_a_cross_validated_run_has_every_figure(table: PredictionTable) -> None:
    result = measure(table, decisions=with_thresholds(table))
    check_honest(result.as_json())
    assert (result["headline"], result["n_folds"], result["cross_validated"]) == ("patients", 5, True)
    assert result["patients"] == result["slides"]
    for name in (
        "auc",
        "auc_pooled",
        "average_precision",
        "balanced_accuracy",
        "sensitivity",
        "specificity",
        "ppv",
        "npv",
        "brier",
    ):
        assert result["patients"][name]["interval"] is not None, name
    assert "widened for cross-validation" in result["patients"]["auc"]["method"]
    assert [group["fold"] for group in result["folds"]] == ["0", "1", "2", "3", "4"]
    assert [group["batch"] for group in result["batches"]] == ["x", "y", "z"]
    assert result["auc_within_batches"]["n_pairs"] < result["patients"]["n_pairs"]
    assert any("too narrow under cross-validation" in note for note in result["notes"])


def test_one_test_set_is_not_widened(table: PredictionTable) -> None:
    single = replace(table, folds=np.zeros(60, int))
    result = measure(single, decisions=with_thresholds(single), n_draws=200)
    check_honest(result.as_json())
    patients = result["patients"]
    assert patients["auc"]["value"] == pytest.approx(patients["auc_pooled"]["value"])
    assert "cross-validation" not in patients["auc"]["method"]
    assert not any("cross-validation" in note for note in result["notes"])


def test_decisions_are_counted_right() -> None:
    table = make_table(50, n_folds=2, seed=4)
    result = measure(table, decisions=with_thresholds(table, 0.4), n_draws=50)["slides"]
    said, true = table.probabilities[:, 1] >= 0.4, table.targets == 1
    expected = {
        "sensitivity": (said & true).sum() / true.sum(),
        "specificity": (~said & ~true).sum() / (~true).sum(),
        "ppv": (said & true).sum() / said.sum(),
        "npv": (~said & ~true).sum() / (~said).sum(),
    }
    for name, value in expected.items():
        assert result[name]["value"] == pytest.approx(value), name
    assert result["balanced_accuracy"]["value"] == pytest.approx(
        (expected["sensitivity"] + expected["specificity"]) / 2
    )
    assert result["ppv"]["prevalence"] == true.mean()
    assert result["brier"]["value"] == pytest.approx(np.mean((table.probabilities[:, 1] - true) ** 2))


def test_the_positive_class_may_be_the_first(table: PredictionTable) -> None:
    last = measure(table, decisions=with_thresholds(table), n_draws=50)["slides"]
    first = measure(replace(table, positive="benign"), decisions=with_thresholds(table), n_draws=50)["slides"]
    assert first["auc"]["value"] == pytest.approx(last["auc"]["value"])
    assert first["sensitivity"]["value"] == pytest.approx(last["specificity"]["value"])
    assert first["brier"]["value"] == pytest.approx(last["brier"]["value"])
    assert list(first["per_class"]) == ["benign"]


def test_several_slides_a_patient_are_measured_both_ways() -> None:
    table = make_table(120, per_patient=4)
    result = measure(table, decisions=with_thresholds(table), n_draws=200)
    check_honest(result.as_json())
    assert (result["slides"]["n"], result["patients"]["n"], result["slides"]["n_patients"]) == (120, 30, 30)
    patients = measure(average_by_patient(table), decisions=with_thresholds(table), n_draws=200)
    assert result["patients"] == patients["patients"]
    assert result["slides"]["calibration"]["slope"]["interval"] is None


def test_patients_of_several_labels_are_scored_by_slide() -> None:
    table = make_table(40, per_patient=2)
    labels = ("benign", "malignant", *table.labels[2:])
    result = measure(replace(table, labels=labels), n_draws=100)
    check_honest(result.as_json())
    assert (result["headline"], result["patients"]) == ("slides", None)
    assert any("1 patients have slides of several labels" in note for note in result["notes"])


def test_three_classes_are_the_mean_of_one_against_rest() -> None:
    table = make_table(90, classes=("a", "b", "c"))
    result = measure(table, n_draws=100)
    check_honest(result.as_json())
    by_class = [result["slides"]["per_class"][name]["auc"]["value"] for name in "abc"]
    assert result["slides"]["auc"]["value"] == pytest.approx(np.mean(by_class))
    assert result["slides"]["sensitivity"]["reason"] == "of two classes only; see per_class"
    assert result["slides"]["balanced_accuracy"]["value"] is not None
    assert result["positive"] is None


@pytest.mark.parametrize("kept", ["none", "one", "one class", "one class a fold", "two", "no batches"])
def test_a_poor_cohort_degrades_with_reasons(kept: str, table: PredictionTable) -> None:
    benign = [row for row in range(60) if table.labels[row] == "benign"]
    malignant = [row for row in range(60) if table.labels[row] == "malignant"]
    rows = {
        "none": [],
        "one": benign[:1],
        "one class": benign,
        "one class a fold": [r for r in benign if table.folds[r] == 0] + [r for r in malignant if table.folds[r] == 1],
        "two": benign[:1] + malignant[:1],
        "no batches": list(range(60)),
    }[kept]
    poor = table.take(rows)
    poor = replace(poor, batches=None if kept == "no batches" else poor.batches)
    for decisions in (None, with_thresholds(table)):
        result = measure(poor, decisions=decisions, n_draws=50)
        check_honest(result.as_json())
        if kept in ("none", "one", "one class", "one class a fold"):
            assert result["patients"]["auc"]["value"] is None
    assert any("Fewer than 10" in note for note in result["notes"]) == (
        (kept not in ("no batches",) and kept != "one class") or kept == "one class"
    )


def test_perfect_predictions_are_not_certain() -> None:
    table = make_table(40, n_folds=1)
    logits = np.stack([np.zeros(40), np.where(table.targets == 1, 4.0, -4.0) + np.arange(40) / 50], axis=1)
    result = measure(replace(table, logits=logits), decisions=with_thresholds(table), n_draws=100)
    check_honest(result.as_json())
    assert result["patients"]["auc"]["value"] == 1
    assert result["patients"]["auc"]["interval"][0] < 0.95
    assert result["patients"]["sensitivity"]["interval"][0] < 0.9
    assert result["patients"]["calibration"]["slope"]["value"] is None


def test_the_bootstrap_is_repeatable_and_small_changes_of_order_do_not_matter(table: PredictionTable) -> None:
    first, second = (measure(table, n_draws=100, seed=1)["slides"]["brier"] for _ in range(2))
    assert first == second
    assert measure(table, n_draws=100, seed=2)["slides"]["brier"] != first


def test_class_weights_undone_leave_the_intercept_at_zero() -> None:
    """Statistics.md, test h: prevalence 20%, balanced loss, log weight taken off, n 2,000."""
    rng = np.random.default_rng(11)
    n, weights = 2000, np.array([0.625, 2.5])

    def draw() -> tuple[np.ndarray, np.ndarray]:
        positive = rng.random(n) < 0.2
        return rng.normal(size=(n, 3)) + 0.8 * positive[:, None], positive

    undone, left = [], []
    for _ in range(20):  # one draw varies by 0.1: the mean of twenty shows a bias that small
        (x, y), (x_new, y_new) = draw(), draw()
        fit = LogisticRegression(C=1e6, class_weight={False: weights[0], True: weights[1]}).fit(x, y)
        weighted = fit.decision_function(x_new)
        undone.append(find_calibration(weighted - np.log(weights[1]) + np.log(weights[0]), y_new).intercept)
        left.append(find_calibration(weighted, y_new).intercept)
    assert np.mean(undone) == pytest.approx(0, abs=0.1)
    assert np.mean(left) < -1  # so that the test is known to notice


def test_thresholds_are_reported_with_their_rule(table: PredictionTable) -> None:
    found = find_threshold(table.take(range(12)), prevalence=0.4)
    result = measure(table, decisions=Decisions(thresholds=dict.fromkeys(range(5), found)), n_draws=20)
    assert result["thresholds"]["3"]["rule"] == "prevalence"
    assert result["thresholds"]["3"]["value"] == 0.4


def test_shares_and_calibration_are_widened_for_cross_validation_by_1_plus_4a_1_minus_a(table: PredictionTable) -> None:
    """Each fold's models trained on the others' patients: a share is worth fewer of them."""
    found = measure(table, decisions=with_thresholds(table), n_draws=50)["patients"]
    single = replace(table, folds=np.zeros(60, int))
    once = measure(single, decisions=with_thresholds(single), n_draws=50)["patients"]
    factor = 1 + 4 * found["auc"]["value"] * (1 - found["auc"]["value"])
    for name in ("sensitivity", "specificity", "ppv", "npv"):
        n = found[name]["n"] / factor
        assert found[name]["interval"] == pytest.approx(find_wilson_interval(found[name]["value"], n))
        assert "widened for cross-validation" in found[name]["method"]
        assert once[name]["method"] == "Wilson"
    wide, narrow = (one["calibration"]["slope"]["interval"] for one in (found, once))
    assert wide[1] - wide[0] == pytest.approx(np.sqrt(factor) * (narrow[1] - narrow[0]))


def test_calibration_is_told_batch_by_batch() -> None:
    """In batch z all log-odds are shifted by 2: its intercept says so, the others' do not."""
    table = make_table(600, seed=3)
    shift = np.array([2.0 * (batch == "z") for batch in table.batches or ()])
    moved = replace(table, logits=table.logits * 1.2 + np.stack([np.zeros(600), shift], axis=1))
    found = {one["batch"]: one["calibration"]["intercept"] for one in measure(moved, n_draws=20)["batches"]}
    assert found["z"]["value"] == pytest.approx(-2.0, abs=0.5)
    assert abs(found["x"]["value"]) < 0.5
    assert found["x"]["interval"][0] < found["x"]["value"] < found["x"]["interval"][1]
