"""A cut of benchmarks/statistics.py: 300 cohorts a row, bars two points looser. Letters are those of the design."""

import numpy as np
import pytest

from lamella.analysis.permutation import judge_permutations
from tests.analysis.simulators import (
    draw_cv,
    draw_h,
    find_calibration_intercept,
    find_control,
    find_coverage,
    find_false_signals,
    find_picking_bias,
    find_planted,
    find_power_at_needed,
    find_wrong_not_worse,
)

N = 300


@pytest.mark.parametrize("n", [40, 100])
@pytest.mark.parametrize(("prevalence", "auc"), [(0.5, 0.5), (0.2, 0.7), (0.5, 0.9), (0.2, 0.98)])
def test_a_intervals_hold_the_truth_on_one_test_set(n: int, prevalence: float, auc: float) -> None:
    second = max(0.5, auc - 0.05)
    found = find_coverage(lambda rng: draw_h(rng, n=n, prevalence=prevalence, aucs=[auc, second], rho=0.8), N, seed=1)
    assert min(found["auc"], found["difference"]) >= 0.91


@pytest.mark.parametrize("n", [40, 100])
@pytest.mark.parametrize(("prevalence", "auc"), [(0.5, 0.5), (0.2, 0.7), (0.5, 0.9), (0.2, 0.98)])
def test_a_intervals_hold_the_truth_under_cross_validation(n: int, prevalence: float, auc: float) -> None:
    found = find_coverage(lambda rng: draw_cv(rng, n=n, prevalence=prevalence, auc=auc), N, seed=2)
    assert min(found["auc"], found["difference"]) >= 0.91


def test_a_slides_of_a_patient_are_not_taken_for_patients() -> None:
    found = find_coverage(lambda rng: draw_h(rng, n=60, prevalence=0.5, aucs=[0.8, 0.75], rho=0.8, slides=6), N, seed=3)
    assert min(found["auc"], found["difference"]) >= 0.91
    assert found["wald"] < 0.85


def test_b_the_simulators_can_tell_right_from_wrong() -> None:
    edge = find_coverage(lambda rng: draw_h(rng, n=40, prevalence=0.5, aucs=[0.98, 0.95], rho=0.8), N, seed=4)
    chance = find_coverage(lambda rng: draw_cv(rng, n=100, prevalence=0.5, auc=0.5), N, seed=5)
    for found in (edge, chance):
        assert found["wald"] < 0.9
        assert found["bootstrap"] < 0.9


@pytest.mark.parametrize(("n_arms", "n"), [(4, 100), (9, 40), (9, 400), (24, 100)])
@pytest.mark.parametrize(("best", "margin"), [(0.90, 0.05), (0.99, 0.02)])
def test_c_an_arm_that_is_worse_by_the_margin_is_hardly_ever_recommended(
    n_arms: int, n: int, best: float, margin: float
) -> None:
    assert find_wrong_not_worse(n=n, n_arms=n_arms, best=best, margin=margin, n_cohorts=N, seed=6) <= 0.06


def test_c_without_signal_no_arm_beats_chance_and_no_row_is_starred() -> None:
    chance, starred = find_false_signals(n=100, n_arms=4, n_cohorts=N, seed=7)
    assert max(chance, starred) <= 0.085


@pytest.mark.parametrize(("auc", "rho"), [(0.9, 0.8), (0.8, 0.95), (0.95, 0.95)])
def test_d_at_the_patients_needed_equal_arms_are_accepted(auc: float, rho: float) -> None:
    _, accepted = find_power_at_needed(auc=auc, rho=rho, margin=0.05, n_cohorts=N, seed=8)
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


def test_h_class_weights_are_undone() -> None:
    undone, left_in = find_calibration_intercept(n=2000, seed=12)
    assert abs(undone) <= 0.1 + 0.1  # one draw of 2,000 has a standard error of 0.06
    assert left_in < -1


def test_planted_a_cheap_arm_that_is_equal_is_recommended_and_one_that_is_worse_is_not() -> None:
    equal, wrong = find_planted(n=400, n_cohorts=100, seed=13)
    assert equal >= 0.78
    assert wrong <= 0.06
