"""Thresholds come from validation, by the rule that its size allows."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit

from lamella.analysis.predictions import PredictionTable
from lamella.analysis.thresholds import Decisions, decide_classes, find_threshold
from lamella.errors import SettingsError
from tests.analysis.conftest import make_table


def from_scores(ups: list[float], downs: list[float]) -> PredictionTable:
    n = len(ups) + len(downs)
    scores = np.array(ups + downs)
    return PredictionTable(
        classes=("no", "yes"),
        slide_ids=tuple(f"s{i}" for i in range(n)),
        patient_ids=tuple(f"p{i}" for i in range(n)),
        labels=("yes",) * len(ups) + ("no",) * len(downs),
        folds=np.zeros(n, int),
        logits=np.stack([np.zeros(n), scores], axis=1),
    )


def test_youden_needs_ten_patients_of_each_class() -> None:
    found = find_threshold(from_scores([1.0 + i for i in range(10)], [-1.0 - i for i in range(10)]), prevalence=0.3)
    assert (found.rule, found.value, found.n_positive) == ("youden", 0.5, 10)
    found = find_threshold(from_scores([1.0] * 9, [-1.0] * 30), prevalence=0.3)
    assert (found.rule, found.value) == ("prevalence", 0.3)
    assert "9 positive and 30 negative patients and Youden's needs 10 of each" in found.note


def test_youden_is_the_largest_sensitivity_plus_specificity() -> None:
    rng = np.random.default_rng(0)
    ups, downs = rng.normal(1, 1, 15).round(1), rng.normal(-1, 1, 25).round(1)
    found = find_threshold(from_scores(ups.tolist(), downs.tolist()), prevalence=0.4)

    def youden(cut: float) -> float:
        return float((expit(ups) >= cut).mean() - (expit(downs) >= cut).mean())

    assert youden(found.value) == pytest.approx(max(youden(cut) for cut in np.linspace(0.001, 0.999, 999)))


def test_slides_of_one_patient_are_one_patient() -> None:
    table = make_table(60, per_patient=6, n_folds=1)
    found = find_threshold(table, prevalence=0.5)
    assert found.n_positive + found.n_negative == 10
    assert found.rule == "prevalence"


@pytest.mark.parametrize(("wanted", "cut"), [(0.95, 0.5), (0.9, 1.5), (0.8, 2.5), (1.0, 0.5)])
def test_a_wanted_sensitivity_is_kept_at_the_highest_cut(wanted: float, cut: float) -> None:
    table = from_scores([float(i) for i in range(1, 11)], [0.0, -3.0])
    found = find_threshold(table, prevalence=0.5, sensitivity=wanted)
    assert found.rule == "sensitivity"
    assert found.value == pytest.approx(expit(cut))


def test_without_positives_a_wanted_sensitivity_falls_back() -> None:
    found = find_threshold(from_scores([], [0.0]), prevalence=0.2, sensitivity=0.95)
    assert (found.rule, found.value) == ("prevalence", 0.2)
    assert "a sensitivity needs a positive" in found.note


def test_all_scores_alike_still_give_a_threshold() -> None:
    assert find_threshold(from_scores([2.0] * 10, [2.0] * 10), prevalence=0.5).value == pytest.approx(expit(2.0))


def test_settings_out_of_range_are_refused() -> None:
    table = from_scores([1.0], [0.0])
    with pytest.raises(SettingsError, match="prevalence is 1"):
        find_threshold(table, prevalence=1)
    with pytest.raises(SettingsError, match="sensitivity is 0"):
        find_threshold(table, prevalence=0.5, sensitivity=0)
    with pytest.raises(SettingsError, match="needs two classes and there are 3"):
        find_threshold(make_table(classes=("a", "b", "c")), prevalence=0.5)


def test_each_fold_is_decided_by_its_own_threshold() -> None:
    table = replace(from_scores([0.0, 0.0], []), folds=np.array([0, 1]))
    low, high = (find_threshold(table, prevalence=0.5).model_copy(update={"value": value}) for value in (0.4, 0.6))
    assert np.asarray(decide_classes(table, Decisions(thresholds={0: low, 1: high}))).tolist() == [1, 0]
    assert decide_classes(table, Decisions(thresholds={0: low})) == "fold 1 has no threshold"
    assert decide_classes(table, Decisions()) == "no threshold was given"


def test_of_three_classes_the_one_most_above_its_prevalence_is_taken() -> None:
    table = replace(
        make_table(3, classes=("a", "b", "c"), n_folds=1),
        logits=np.log([[0.5, 0.3, 0.2], [0.8, 0.1, 0.1], [0.6, 0.3, 0.1]]),
    )
    assert np.asarray(decide_classes(table, Decisions())).tolist() == [0, 0, 0]
    weighed = decide_classes(table, Decisions(prevalences={0: (0.7, 0.2, 0.1)}))
    assert np.asarray(weighed).tolist() == [2, 0, 1]
    assert decide_classes(table, Decisions(prevalences={1: (0.7, 0.2, 0.1)})) == "fold 0 has no training prevalences"
