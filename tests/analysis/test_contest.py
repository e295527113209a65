"""All arms held against each other: brute-force references, and verdicts on planted truth."""

import itertools
import json

import numpy as np
import pytest

from lamella.analysis.auc import compare_auc, estimate_auc
from lamella.analysis.comparisons import adjust_holm, correlate_with_imagenet, judge_against_chance
from lamella.analysis.contest import ArmFacts, Contest, judge_arms
from lamella.analysis.permutation import judge_permutations
from lamella.analysis.recommend import find_cheapest, find_deficits
from lamella.analysis.selection import PairTable, correct_best


def make_contest(
    shifts: list[float], n: int = 120, *, n_folds: int = 5, seed: int = 0, shared: float = 0.9, n_seeds: int = 1
) -> Contest:
    """Arms of the given distance between classes, correlated, on the same patients."""
    rng = np.random.default_rng(seed)
    targets = (np.arange(n) % 3 == 0).astype(np.int64)
    common = rng.normal(size=n)
    scores = [
        d * targets + np.sqrt(shared) * common + np.sqrt(1 - shared) * rng.normal(size=(n_seeds, n)) for d in shifts
    ]
    logits = np.stack([np.stack([np.zeros_like(s), s], axis=-1) for s in scores])  # (J, S, n, 2)
    return Contest(
        names=tuple(f"arm{j}" for j in range(len(shifts))),
        logits=logits.mean(axis=1),
        by_seed=logits if n_seeds > 1 else None,
        targets=targets,
        folds=np.arange(n) // 3 % n_folds,
    )


def facts_of(contest: Contest, costs: list[float]) -> ArmFacts:
    names = contest.names
    return ArmFacts(
        costs=dict(zip(names, costs, strict=True)),
        gflops=dict(zip(names, costs, strict=True)),
        imagenet_top1=dict.fromkeys(names),
    )


def test_two_perfect_arms_are_not_certainly_equal() -> None:
    targets = np.array([1] * 17 + [0] * 23)
    logits = np.stack([np.stack([np.zeros(40), 9.0 * targets], axis=-1)] * 2)
    estimate = estimate_auc(logits, targets, folds=np.zeros(40, int))
    assert estimate is not None
    found = compare_auc(estimate, 0, 1)
    assert found is not None
    assert found.difference == 0
    assert found.interval[1] == pytest.approx(0.072, abs=5e-4)


def test_weighted_auc_equals_a_brute_force_double_loop_with_ties_and_folds() -> None:
    rng = np.random.default_rng(3)
    n = 31
    targets, folds = rng.integers(0, 3, n), rng.integers(0, 4, n)
    logits = rng.integers(0, 4, (2, n, 3)).astype(float)
    weights = rng.integers(0, 3, (2, n)).astype(float)
    found = PairTable.of(logits, targets, folds).weigh(weights)
    from lamella.analysis.predictions import find_log_odds

    for r, j in itertools.product(range(2), range(2)):
        score, by_class = find_log_odds(logits[j]), []
        for c in range(3):
            hits = pairs = 0.0
            for a, b in itertools.product(np.flatnonzero(targets == c), np.flatnonzero(targets != c)):
                if folds[a] == folds[b]:
                    w = weights[r, a] * weights[r, b]
                    hits += w * ((score[a, c] > score[b, c]) + 0.5 * (score[a, c] == score[b, c]))
                    pairs += w
            by_class.append(hits / pairs)
        assert found[r, j] == pytest.approx(np.mean(by_class), abs=1e-6)  # pairs are held in float32


def test_the_weights_of_all_units_give_the_auc_itself() -> None:
    contest = make_contest([0.3, 1.5])
    estimate = estimate_auc(contest.logits, contest.targets, folds=contest.folds)
    assert estimate is not None
    whole = PairTable.of(contest.logits, contest.targets, contest.folds).weigh(np.ones((1, 120)))[0]
    assert whole == pytest.approx(estimate.auc, abs=1e-6)


def test_a_cheap_arm_that_is_equal_is_enough_and_one_that_is_worse_is_not() -> None:
    equal = make_contest([2.5, 2.5, 2.5], n=900, shared=0.95)
    found = judge_arms(equal, facts_of(equal, [1.0, 5.0, 9.0]), margin=0.05)
    assert (found["verdict"]["kind"], found["verdict"]["arm"]) == ("enough", "arm0")
    worse = make_contest([1.0, 2.5, 2.5], n=900, shared=0.95)
    found = judge_arms(worse, facts_of(worse, [1.0, 5.0, 9.0]), margin=0.05)
    assert (found["verdict"]["kind"], found["verdict"]["arm"]) == ("only", "arm1")
    assert [row["arm"] for row in found["ladder"]][-1] == "arm1"


def test_few_patients_leave_one_unable_to_tell_and_say_how_many_it_takes() -> None:
    contest = make_contest([1.8, 1.8, 1.8, 1.8], n=60, shared=0.3)
    found = judge_arms(contest, facts_of(contest, [1, 2, 3, 4]), margin=0.02)["verdict"]
    assert found["kind"] == "cannot tell"
    assert found["patients_needed"] > 60
    assert found["patients_range"][0] <= found["patients_needed"] <= found["patients_range"][1]


def test_no_signal_and_too_few_patients_give_their_own_verdicts() -> None:
    none = make_contest([0.0, 0.0], n=90)
    assert judge_arms(none, facts_of(none, [1, 2]), margin=0.05)["verdict"]["kind"] == "no signal"
    few = make_contest([3.0, 3.0], n=24)
    assert judge_arms(few, facts_of(few, [1, 2]), margin=0.05)["verdict"]["kind"] == "too few"


def test_a_verdict_is_json_without_nan_and_the_same_each_time() -> None:
    contest = make_contest([1.0, 1.4, 2.0], n_seeds=3)
    tables = [{"name": "I", "title": "each", "rows": [("arm1", "arm0"), ("arm2", "arm0")]}]
    first, second = (judge_arms(contest, facts_of(contest, [1, 2, 3]), margin=0.05, tables=tables) for _ in range(2))
    assert json.dumps(first, allow_nan=False) == json.dumps(second, allow_nan=False)
    assert len(first["arms"][0]["seed_auc"]) == 3
    assert first["tables"][0]["rows"][1]["p_holm"] >= first["tables"][0]["rows"][1]["p"]


def test_the_deficit_of_an_arm_is_the_largest_bound_over_the_others() -> None:
    contest = make_contest([1.0, 1.5, 2.0])
    estimate = estimate_auc(contest.logits, contest.targets, folds=contest.folds)
    assert estimate is not None
    deficits = find_deficits(estimate)
    assert deficits is not None
    assert deficits.z == pytest.approx(2.2414, abs=1e-3)  # 1 - 0.025 / 2
    bounds = [deficits.differences[0, b] + deficits.z * deficits.errors[0, b] for b in (1, 2)]
    assert deficits.upper[0] == pytest.approx(max(bounds))


def test_of_arms_within_a_tenth_of_the_cost_the_one_of_less_arithmetic_is_cheaper() -> None:
    assert find_cheapest([0, 1], np.array([1.0, 1.2]), np.array([5.0, 1.0])) == 0
    assert find_cheapest([0, 1], np.array([1.0, 1.09]), np.array([5.0, 1.0])) == 1
    assert find_cheapest([], np.array([1.0]), np.array([1.0])) is None


def test_holm_is_monotone_and_never_above_one() -> None:
    assert adjust_holm([0.9, 0.6]) == [1.0, 1.0]
    assert adjust_holm([]) == []


def test_a_single_test_set_is_tested_against_chance_as_mann_whitney_is() -> None:
    targets = np.array([1] * 12 + [0] * 20)
    score = np.linspace(0, 1, 32)[::-1]
    estimate = estimate_auc(np.stack([np.zeros(32), score], axis=-1), targets, folds=np.zeros(32, int))
    assert estimate is not None
    from scipy.stats import mannwhitneyu

    reference = mannwhitneyu(
        score[targets == 1], score[targets == 0], alternative="greater", method="asymptotic", use_continuity=False
    )
    assert judge_against_chance(estimate)[0] == pytest.approx(reference.pvalue, rel=1e-6)


def test_the_best_of_equal_arms_is_corrected_downwards() -> None:
    rng = np.random.default_rng(1)
    contest = make_contest([1.0] * 24, n=100, shared=0.3)
    draws = rng.multinomial(100, np.full(100, 0.01), size=300)
    pairs = PairTable.of(contest.logits, contest.targets, contest.folds)
    corrected = correct_best(pairs, draws)
    raw = pairs.weigh(np.ones((1, 100))).max()
    assert corrected is not None
    assert corrected < raw - 0.02


def test_imagenet_ranks_are_permuted_exactly_for_few_encoders_and_ties_do_not_break_it() -> None:
    rng = np.random.default_rng(0)
    auc, top1 = np.array([0.6, 0.7, 0.8, 0.9]), np.array([70.0, 72.0, 75.0, 80.0])
    found = correlate_with_imagenet(auc, top1, auc + rng.normal(0, 0.01, (200, 4)))
    assert found is not None
    assert found["rho"] == pytest.approx(1.0)
    assert found["p"] == pytest.approx(2 / 24)
    assert correlate_with_imagenet(auc[:3], top1[:3], auc[None, :3]) is None
    assert correlate_with_imagenet(np.full(4, 0.5), top1, auc[None]) is None


def test_permuted_labels_that_still_predict_are_called_a_leak() -> None:
    assert judge_permutations(0.9, [0.7, 0.72, 0.68, 0.71])["leak"]
    found = judge_permutations(0.7, [0.7, 0.2, 0.5, 0.6])
    assert not found["leak"]
    assert found["p"] == pytest.approx(2 / 5)


def test_a_batch_that_keeps_its_labels_is_no_leak_as_long_as_exchanged_ones_are_at_chance() -> None:
    found = judge_permutations(0.9, [0.72, 0.7, 0.74, 0.71], within=[0.4, 0.6, 0.5, 0.55])
    assert not found["leak"]
    assert found["mean"] == pytest.approx(0.7175)
    assert judge_permutations(0.9, [0.72, 0.7], within=[0.8, 0.82])["leak"]
