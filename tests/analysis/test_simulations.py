"""A cut of benchmarks/study_statistics.py: 300 cohorts a row, bars two points looser. Letters are the design's."""

import numpy as np
import pytest

from lamella.analysis.permutation import judge_permutations
from tests.analysis.simulators import draw_cv, draw_h, draw_mixed, find_coverage
from tests.analysis.trials import (
    cross_validated,
    find_accepted,
    find_calibration_intercept,
    find_control,
    find_false_signals,
    find_picking_bias,
    find_predictive_coverage,
    find_wrong_not_worse,
    on_test_set,
    state_patients,
)

N = 300


@pytest.mark.parametrize("n", [40, 100])
@pytest.mark.parametrize(("prevalence", "auc"), [(0.5, 0.5), (0.2, 0.7), (0.5, 0.9), (0.2, 0.98)])
def test_a_intervals_hold_the_truth_on_one_test_set(n: int, prevalence: float, auc: float) -> None:
    second = max(0.5, auc - 0.05)
    found = find_coverage(lambda rng: draw_h(rng, n=n, prevalence=prevalence, aucs=[auc, second], rho=0.8), N, seed=1)
    assert min(found.auc, found.difference) >= 0.91


@pytest.mark.parametrize("n", [40, 100])
@pytest.mark.parametrize(("prevalence", "auc"), [(0.5, 0.5), (0.2, 0.7), (0.5, 0.9), (0.2, 0.98)])
def test_a_intervals_hold_the_truth_under_cross_validation(n: int, prevalence: float, auc: float) -> None:
    found = find_coverage(lambda rng: draw_cv(rng, n=n, prevalence=prevalence, aucs=[auc] * 2), N, seed=2)
    assert min(found.auc, found.difference) >= 0.91


def test_a_slides_of_a_patient_are_not_taken_for_patients() -> None:
    found = find_coverage(lambda rng: draw_h(rng, n=60, prevalence=0.5, aucs=[0.8, 0.75], rho=0.8, slides=6), N, seed=3)
    assert min(found.auc, found.difference) >= 0.91
    assert found.wald < 0.85


def test_a_slides_of_a_patient_may_differ_in_label() -> None:
    found = find_coverage(lambda rng: draw_mixed(rng, n=60, aucs=[0.8, 0.75], rho=0.8), N, seed=14)
    assert min(found.auc, found.difference) >= 0.91


def test_b_the_simulators_can_tell_right_from_wrong() -> None:
    edge = find_coverage(lambda rng: draw_h(rng, n=40, prevalence=0.5, aucs=[0.98, 0.95], rho=0.8), N, seed=4)
    chance = find_coverage(lambda rng: draw_cv(rng, n=40, prevalence=0.2, aucs=[0.7, 0.7]), N, seed=5)
    others = find_coverage(lambda rng: draw_cv(rng, n=100, prevalence=0.5, aucs=[0.5, 0.5], all_but_k=True), N, seed=5)
    for found in (edge, chance, others):
        assert found.wald < 0.9
        assert found.bootstrap < 0.9


@pytest.mark.parametrize(("n_arms", "n"), [(4, 100), (9, 40), (9, 400), (24, 100)])
@pytest.mark.parametrize(("best", "margin"), [(0.90, 0.05), (0.99, 0.02)])
def test_c_an_arm_that_is_worse_by_the_margin_is_hardly_ever_recommended(
    n_arms: int, n: int, best: float, margin: float
) -> None:
    draw = on_test_set(0.8)
    assert find_wrong_not_worse(draw, n=n, n_arms=n_arms, best=best, margin=margin, n_cohorts=N, seed=6) <= 0.06


def test_c_nor_is_it_under_cross_validation() -> None:
    draw = cross_validated()
    assert find_wrong_not_worse(draw, n=300, n_arms=4, best=0.9, margin=0.05, n_cohorts=N, seed=6) <= 0.06


def test_c_the_rule_is_put_to_the_test_where_arms_are_recommended_at_all() -> None:
    assert find_accepted(on_test_set(0.8), n=400, aucs=[0.9] * 9, margin=0.05, n_cohorts=N, seed=6) > 0.7


@pytest.mark.parametrize("cv", [False, True])
def test_c_without_signal_no_arm_beats_chance_and_no_row_is_starred(cv: bool) -> None:
    draw = cross_validated() if cv else on_test_set(0.8)
    chance, starred = find_false_signals(draw, n=100, n_arms=4, n_cohorts=N, seed=7)
    assert max(chance, starred) <= 0.085


@pytest.mark.parametrize(("auc", "rho"), [(0.9, 0.8), (0.8, 0.95), (0.95, 0.95)])
def test_d_at_the_patients_needed_two_equal_arms_are_accepted(auc: float, rho: float) -> None:
    draw, aucs = on_test_set(rho), [auc] * 2
    n = state_patients(draw, n_pilot=200, aucs=aucs, margin=0.05, seed=8)
    accepted = find_accepted(draw, n=n, aucs=aucs, margin=0.05, n_cohorts=N, seed=18)
    assert 0.63 <= accepted <= 0.97


@pytest.mark.parametrize("n_arms", [9, 24])
def test_e_the_best_of_equal_arms_is_corrected_for_having_been_picked(n_arms: int) -> None:
    raw, corrected = find_picking_bias(n_arms=n_arms, n=100, n_cohorts=100, seed=9)
    assert raw > 0.03
    assert abs(corrected) <= 0.015


@pytest.mark.parametrize("kind", ["stopping", "standardising", "patient"])
def test_g_a_leak_makes_the_control_fire(kind: str) -> None:
    assert judge_permutations(0.9, find_control(kind, n=80, n_runs=19, seed=10))["leak"]


def test_g_without_a_leak_the_control_stays_at_chance() -> None:
    aucs = np.array(find_control("honest", n=80, n_runs=99, seed=11))
    assert abs(aucs.mean() - 0.5) <= 3 * aucs.std(ddof=1) / np.sqrt(len(aucs))
    assert not judge_permutations(0.9, aucs.tolist())["leak"]


def test_h_class_weights_are_undone() -> None:
    found = np.array([find_calibration_intercept(n=2000, seed=seed) for seed in range(10)])  # one errs by 0.06 or so
    undone, left_in = found.mean(axis=0)
    assert abs(undone) <= 0.1
    assert left_in < -1


def test_planted_a_cheap_arm_is_recommended_at_the_stated_patients_if_it_is_equal_and_not_if_it_is_worse() -> None:
    draw, equal = on_test_set(0.8), [0.9] * 12
    n = state_patients(draw, n_pilot=400, aucs=equal, margin=0.05, seed=13, n_pilots=20)
    assert n >= 400
    assert find_accepted(draw, n=n, aucs=equal, margin=0.05, n_cohorts=N, seed=13) >= 0.78
    assert find_accepted(draw, n=n, aucs=[0.85, *equal[1:]], margin=0.05, n_cohorts=N, seed=13) <= 0.06


def test_ppv_and_npv_at_a_stated_prevalence_hold_the_truth() -> None:
    assert min(find_predictive_coverage(n=80, prevalence=0.1, n_cohorts=N, seed=15)) >= 0.91
