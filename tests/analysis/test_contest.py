"""All arms held against each other: verdicts on planted truth."""

import json

import numpy as np
import pytest

from lamella.analysis.contest import Contest, judge_arms
from tests.analysis.contests import facts_of, make_contest


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


def test_where_one_cant_tell_the_sentence_gives_the_best_estimate_and_the_patients_needed() -> None:
    contest = make_contest([1.8, 1.8, 1.8, 1.8], n=60, shared=0.3)
    found = judge_arms(contest, facts_of(contest, [1, 2, 3, 4]), margin=0.02)["verdict"]
    assert f"The best estimate is {found['best_arm']}" in found["sentence"]
    assert f"about {found['patients_needed']:,} patients" in found["sentence"]
    assert found["arm"] is None


def test_a_sentence_says_nothing_of_arms_dearer_than_the_recommended_one() -> None:
    contest = make_contest([1.0, 2.5, 1.0], n=900, shared=0.95)
    found = judge_arms(contest, facts_of(contest, [1.0, 5.0, 9.0]), margin=0.05)
    assert found["verdict"]["arm"] == "arm1"
    assert [row["not_worse"] for row in found["arms"]] == [False, True, False]
    assert found["verdict"]["sentence"].startswith("Only arm1: ")
    assert "dearer" not in found["verdict"]["sentence"]


def test_a_class_that_nobody_has_is_a_class_of_too_few() -> None:
    made = make_contest([3.0, 3.0], n=120)
    logits = np.concatenate([made.logits, np.full((2, 120, 1), -9.0)], axis=2)
    three = Contest(names=made.names, logits=logits, by_seed=None, targets=made.targets, folds=made.folds)
    found = judge_arms(three, facts_of(three, [1, 2]), margin=0.05)
    assert found["n_per_class"] == [80, 40, 0]
    assert found["verdict"]["kind"] == "too few"
    assert "there are 0 patients of the rarest class" in found["verdict"]["sentence"]


def test_three_classes_are_judged_as_two_are() -> None:
    rng = np.random.default_rng(4)
    targets = np.arange(240) % 3
    shared = rng.normal(size=(240, 3)) + 2.0 * np.eye(3)[targets]
    logits = shared + 0.1 * rng.normal(size=(3, 240, 3))
    folds = np.arange(240) // 3 % 5
    contest = Contest(names=("a", "b", "c"), logits=logits, by_seed=None, targets=targets, folds=folds)
    found = judge_arms(contest, facts_of(contest, [1, 2, 3]), margin=0.05)
    assert (found["verdict"]["kind"], found["verdict"]["arm"]) == ("enough", "a")
    json.dumps(found, allow_nan=False)


def test_one_arm_alone_has_no_patients_needed_and_a_verdict() -> None:
    contest = make_contest([2.0])
    found = judge_arms(contest, facts_of(contest, [1.0]), margin=0.05)
    assert found["verdict"]["patients_needed"] is None
    json.dumps(found, allow_nan=False)


def test_arms_without_any_difference_at_all_are_judged_without_nan() -> None:
    contest = make_contest([2.0, 2.0], shared=1.0)
    found = judge_arms(contest, facts_of(contest, [1.0, 2.0]), margin=0.05)
    assert found["verdict"]["arm"] in (None, "arm0")
    assert found["arms"][0]["deficit_upper"] > 0
    json.dumps(found, allow_nan=False)


def test_mixed_labels_are_clustered_by_patient_and_said_so() -> None:
    rng = np.random.default_rng(5)
    n = 60
    targets = np.tile([0, 1], n)
    patients = np.repeat(np.arange(n), 2)
    common = 1.5 * targets + np.repeat(rng.normal(size=n), 2)
    scores = common + 0.3 * rng.normal(size=(2, 2 * n))
    logits = np.stack([np.zeros_like(scores), scores], axis=-1)
    folds = patients % 5
    contest = Contest(names=("a", "b"), logits=logits, by_seed=None, targets=targets, folds=folds, patients=patients)
    found = judge_arms(contest, facts_of(contest, [1, 2]), margin=0.05)
    assert (found["units"], found["n_patients"], found["n_units"]) == ("slides", 60, 120)
    assert any("clustered by patient" in note for note in found["notes"])
    assert found["verdict"]["patients_needed"] > 1


def test_36_arms_of_400_patients_are_judged_in_seconds() -> None:
    contest = make_contest([1.5] * 36, n=400, n_seeds=3)
    found = judge_arms(contest, facts_of(contest, [float(j + 1) for j in range(36)]), margin=0.05)
    assert len(found["arms"]) == 36


def test_where_no_fold_holds_two_classes_one_is_told_what_to_do() -> None:
    from lamella.errors import CohortError

    made = make_contest([1.0, 1.0], n=30)
    apart = Contest(names=made.names, logits=made.logits, by_seed=None, targets=made.targets, folds=made.targets)
    with pytest.raises(CohortError, match="fewer folds"):
        judge_arms(apart, facts_of(apart, [1, 2]), margin=0.05)
