"""A cut of benchmarks/study_statistics.py: 300 cohorts a row, bars two points looser. Letters are the design's."""

from functools import partial

import numpy as np
import pytest

from lamella.analysis.permutation import judge_permutations
from tests.analysis.simulators import draw_cv, draw_h, draw_mixed, find_coverage
from tests.analysis.trials import (
    cross_validated,
    find_accepted,
    find_batch_readers,
    find_blind,
    find_calibration_intercept,
    find_control,
    find_false_signals,
    find_picking_bias,
    find_power,
    find_predictive_coverage,
    find_wrong,
    find_wrong_cut,
    on_test_set,
    state_patients,
)

N = 300


@pytest.mark.parametrize("n", [40, 100])
@pytest.mark.parametrize(("prevalence", "auc"), [(0.5, 0.5), (0.2, 0.7), (0.5, 0.9), (0.2, 0.98)])
def test_a_intervals_hold_the_truth_on_one_test_set(n: int, prevalence: float, auc: float) -> None:
    second = max(0.5, auc - 0.05)
    draw = partial(draw_h, n=n, prevalence=prevalence, aucs=[auc, second], rho=0.8)
    found = find_coverage(draw, N, seed=1, pooled=False)
    assert min(found.auc, found.difference) >= 0.91


@pytest.mark.parametrize("n", [40, 100])
@pytest.mark.parametrize(("prevalence", "auc"), [(0.5, 0.5), (0.2, 0.7), (0.5, 0.9), (0.2, 0.98)])
def test_a_intervals_hold_the_truth_under_cross_validation(n: int, prevalence: float, auc: float) -> None:
    draw = partial(draw_cv, n=n, prevalence=prevalence, aucs=[auc] * 2)
    found = find_coverage(draw, N, seed=2, pooled=False)
    assert min(found.auc, found.difference) >= 0.91


def test_a_slides_of_a_patient_are_not_taken_for_patients() -> None:
    found = find_coverage(lambda rng: draw_h(rng, n=60, prevalence=0.5, aucs=[0.8, 0.75], rho=0.8, slides=6), N, seed=3)
    assert min(found.auc, found.difference) >= 0.91
    assert found.wald < 0.85


def test_a_slides_of_a_patient_may_differ_in_label() -> None:
    found = find_coverage(partial(draw_mixed, n=60, aucs=[0.8, 0.75], rho=0.8), N, seed=14, pooled=False)
    assert min(found.auc, found.difference) >= 0.91


def test_b_the_simulators_can_tell_right_from_wrong() -> None:
    edge = find_coverage(lambda rng: draw_h(rng, n=40, prevalence=0.5, aucs=[0.98, 0.95], rho=0.8), N, seed=4)
    chance = find_coverage(lambda rng: draw_cv(rng, n=40, prevalence=0.2, aucs=[0.7, 0.7]), N, seed=5)
    others = find_coverage(lambda rng: draw_cv(rng, n=100, prevalence=0.5, aucs=[0.5, 0.5], all_but_k=True), N, seed=5)
    for found in (edge, chance, others):
        assert found.wald < 0.9
        assert found.bootstrap < 0.9


@pytest.mark.parametrize("n", [40, 100, 400])
@pytest.mark.parametrize(("best", "margin"), [(0.90, 0.05), (0.99, 0.02)])
def test_c_an_arm_that_is_worse_by_the_margin_is_hardly_ever_accepted(n: int, best: float, margin: float) -> None:
    found = find_wrong(on_test_set(0.8), n=n, n_arms=(4, 9), best=best, margin=margin, n_cohorts=N, seed=6)
    assert max(now for now, _ in found.values()) <= 0.052


@pytest.mark.parametrize("best", [0.90, 0.99])
def test_c_nor_is_a_depth_that_is_worse_by_the_margin(best: float) -> None:
    margin = 0.05 if best == 0.90 else 0.02
    assert find_wrong_cut(on_test_set(0.8), n=200, best=best, margin=margin, n_cohorts=N, seed=6) <= 0.052


def test_c_nor_are_they_under_cross_validation() -> None:
    draw = cross_validated()
    assert find_wrong(draw, n=250, n_arms=(4,), best=0.9, margin=0.05, n_cohorts=N, seed=6)[4][0] <= 0.052
    assert find_wrong_cut(draw, n=250, best=0.9, margin=0.05, n_cohorts=N, seed=6) <= 0.052


@pytest.mark.parametrize("cv", [False, True])
def test_c_without_signal_no_arm_beats_chance_and_no_row_is_starred(cv: bool) -> None:
    draw = cross_validated() if cv else on_test_set(0.8)
    assert max(find_false_signals(draw, n=100, n_arms=4, n_cohorts=N, seed=7)) <= 0.085


@pytest.mark.parametrize(("rho", "n_arms"), [(0.8, 2), (0.8, 6)])
def test_d_at_the_patients_needed_the_arm_is_accepted(rho: float, n_arms: int) -> None:
    draw, aucs = on_test_set(rho), [0.9] * n_arms
    n, arm = state_patients(draw, n_pilot=100, aucs=aucs, seed=8)
    assert 0.63 <= find_accepted(draw, n=n, aucs=aucs, arm=arm, n_cohorts=N, seed=18) <= 0.98


def test_i_the_errors_of_differences_are_not_too_wide() -> None:
    for n_folds in (3, 5, 10):
        draw_one = partial(draw_cv, n=100, prevalence=0.5, aucs=[0.9, 0.9], n_folds=n_folds)
        found = find_coverage(draw_one, N, seed=20, pooled=False)
        assert 0.9 <= found.ratio <= 1.27
        assert found.ratio < found.ratio_before - 0.1


def test_a_differences_of_arms_that_are_unlike_are_covered_too() -> None:
    found = find_coverage(partial(draw_cv, n=100, prevalence=0.5, aucs=[0.98, 0.7]), N, seed=25, pooled=False)
    assert found.difference >= 0.91


def test_i_the_reference_question_has_power_where_the_contest_of_all_has_little() -> None:
    equal = {"aucs": [0.9] * 12, "good": 3, "n_cohorts": 100, "seed": 21}
    cut, _, _ = find_power(on_test_set(0.92), n=150, n_declared=1, **equal)
    shared, _, _ = find_power(on_test_set(0.92), n=150, n_declared=3, **equal)
    assert cut >= 0.76
    assert shared >= 0.53
    poor = {"aucs": [0.9, 0.9, 0.7, 0.65] * 3, "good": 1, "n_cohorts": 150, "seed": 22}
    cut, contest, before = find_power(cross_validated(), n=250, n_declared=1, **poor)
    assert cut >= 0.38
    assert contest >= 0.23
    assert before <= contest - 0.1  # the rule of version 0.1.0


def test_j_a_reader_of_batches_is_not_recommended_and_the_tissue_arm_is() -> None:
    reader, tissue = find_batch_readers(n=400, n_cohorts=100, seed=23, within=True)
    assert reader <= 0.04
    assert tissue >= 0.88
    assert find_batch_readers(n=400, n_cohorts=100, seed=23, within=False)[0] > 0.08  # what the rule is there for


@pytest.mark.parametrize("other", [0.5, 0.6])
def test_j_an_arm_at_chance_is_not_recommended(other: float) -> None:
    assert find_blind(on_test_set(0.8), n=400, other=other, n_cohorts=100, seed=24) <= 0.04


@pytest.mark.parametrize("n_arms", [9, 24])
def test_e_the_best_of_equal_arms_is_corrected_for_having_been_picked(n_arms: int) -> None:
    raw, corrected = find_picking_bias(n_arms=n_arms, n=100, n_cohorts=100, seed=9)
    assert raw > 0.03
    assert abs(corrected) <= 0.015


@pytest.mark.parametrize("kind", ["stopping", "standardising", "patient"])
def test_g_a_leak_makes_the_control_fire(kind: str) -> None:
    assert judge_permutations(0.9, find_control(kind, n=80, n_runs=19, seed=10)).leak


def test_g_without_a_leak_the_control_stays_at_chance() -> None:
    aucs = np.array(find_control("honest", n=80, n_runs=99, seed=11))
    assert abs(aucs.mean() - 0.5) <= 3 * aucs.std(ddof=1) / np.sqrt(len(aucs))
    assert not judge_permutations(0.9, aucs.tolist()).leak


def test_h_class_weights_are_undone() -> None:
    found = np.array([find_calibration_intercept(n=2000, seed=seed) for seed in range(10)])  # one errs by 0.06 or so
    undone, left_in = found.mean(axis=0)
    assert abs(undone) <= 0.1
    assert left_in < -1


def test_ppv_and_npv_at_a_stated_prevalence_hold_the_truth() -> None:
    assert min(find_predictive_coverage(n=80, prevalence=0.1, n_cohorts=N, seed=15)) >= 0.91
