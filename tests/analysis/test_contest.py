"""All arms held against each other: verdicts on planted truth."""

import json
from dataclasses import replace

import numpy as np
import pytest

from lamella.analysis.contest import Contest, judge_contest
from tests.analysis.contests import facts_of, make_contest
from tests.analysis.simulators import draw_h


def test_a_cheap_arm_that_is_equal_is_recommended_and_one_that_is_worse_is_not() -> None:
    equal = make_contest([2.5, 2.5, 2.5], n=900, shared=0.95)
    found = judge_contest(equal, facts_of(equal, [1.0, 5.0, 9.0]), margin=0.05)
    assert (found["verdict"]["kind"], found["verdict"]["arm"]) == ("non-inferior", "arm0")
    assert found["verdict"]["question"] == "contest"
    worse = make_contest([1.0, 2.5, 2.5], n=900, shared=0.95)
    found = judge_contest(worse, facts_of(worse, [1.0, 5.0, 9.0]), margin=0.05)
    assert (found["verdict"]["kind"], found["verdict"]["arm"]) == ("only", "arm1")
    assert found["arms"][0]["worse_than"] == ["arm1", "arm2"]
    assert found["verdict"]["worse"] == "It is shown that arm0 is worse than arm1 and arm2."
    assert found["verdict"]["still_in"] == ["arm1", "arm2"]


def test_one_chain_asks_how_much_may_be_cut_and_names_the_contest_second() -> None:
    contest = make_contest([2.5, 2.5, 2.5, 1.0], n=400, shared=0.95)
    facts = replace(facts_of(contest, [9.0, 5.0, 2.0, 1.0]), chains=[("arm0", "arm3", "arm1", "arm2")])
    found = judge_contest(contest, facts, margin=0.05)
    assert found["verdict"]["question"] == "reference"
    assert (found["verdict"]["kind"], found["verdict"]["arm"]) == ("only", "arm2")
    (chain,) = found["chains"]
    assert [step["arm"] for step in chain["steps"]] == ["arm1", "arm2", "arm3"]  # by arithmetic, not as listed
    assert [step["accepted"] for step in chain["steps"]] == [True, True, False]
    assert found["verdict"]["use"] == (
        "Use arm2: it is non-inferior to the whole network, arm0 (it loses less than 0.05 AUC); arm3 is not shown to "
        "be."
    )
    assert found["contest"]["arm"] == "arm2"


def test_several_chains_have_a_sentence_each_and_the_contest_recommends() -> None:
    contest = make_contest([2.5, 2.5, 2.5, 2.5], n=900, shared=0.95)
    facts = replace(facts_of(contest, [9.0, 5.0, 4.0, 1.0]), chains=[("arm0", "arm1"), ("arm2", "arm3")])
    found = judge_contest(contest, facts, margin=0.05)["verdict"]
    assert (found["question"], found["arm"]) == ("contest", "arm3")
    for said in ("whole network, arm0", "whole network, arm2", "Secondary question, against every arm: Use arm3"):
        assert said in found["use"]


def test_few_patients_are_inconclusive_and_say_how_many_it_takes() -> None:
    contest = make_contest([1.8, 1.8, 1.8, 1.8], n=60, shared=0.6)
    found = judge_contest(contest, facts_of(contest, [1, 2, 3, 4]), margin=0.05)["verdict"]
    assert (found["kind"], found["arm"]) == ("inconclusive", None)
    assert found["use"].startswith("Inconclusive: no arm is shown to be non-inferior to all others (margin 0.05 AUC).")
    assert found["patients_needed_for"] == "arm0"
    assert found["patients_needed"] > 60
    assert found["patients_range"][0] <= found["patients_needed"]
    assert f"About {found['patients_needed']:,} patients would settle whether arm0" in found["open"]
    assert "(80% power if it is truly as good, same prevalence and models; 90% range" in found["open"]
    assert f"Best guess, not proven: {found['best_guess']}." in found["open"]


def test_where_no_data_could_show_the_margin_that_is_said() -> None:
    contest = make_contest([3.0, 3.0], n=57, shared=1.0)  # 19 against 38, and the arms are one
    found = judge_contest(contest, facts_of(contest, [1, 2]), margin=0.05)["verdict"]
    assert found["reachable_margin"] == pytest.approx(1.96 * np.sqrt((1 / 19**2 + 1 / 38**2) / 4), abs=1e-5)
    assert found["kind"] == "inconclusive"
    assert found["open"].startswith("No data from so few patients could show a margin below 0.058 AUC.")
    wide = judge_contest(contest, facts_of(contest, [1, 2]), margin=0.06)["verdict"]
    assert wide["arm"] == "arm0"
    assert "so few" not in wide["open"]


def test_a_declared_table_shows_who_is_worse_and_an_arm_shown_worse_is_out() -> None:
    contest = make_contest([2.0, 2.0, 1.0], n=80, shared=0.9)
    tables = [{"name": "IV", "title": "Cut", "rows": [("arm2", "arm0")]}]
    alone = judge_contest(contest, facts_of(contest, [3, 2, 1]), margin=0.05)
    declared = judge_contest(contest, facts_of(contest, [3, 2, 1]), margin=0.05, tables=tables)
    assert declared["tables"][0]["rows"][0]["starred"]
    assert declared["tables"][0]["rows"][0]["p"] < 0.05
    assert "arm0" in declared["arms"][2]["worse_than"]
    assert "arm2" not in declared["verdict"]["still_in"]
    assert set(alone["arms"][2]["worse_than"]) <= set(declared["arms"][2]["worse_than"])


def test_no_signal_too_few_and_a_margin_too_wide_give_their_own_verdicts() -> None:
    none = make_contest([0.0, 0.0], n=90)
    assert judge_contest(none, facts_of(none, [1, 2]), margin=0.05)["verdict"]["kind"] == "no signal"
    few = make_contest([3.0, 3.0], n=24)
    assert judge_contest(few, facts_of(few, [1, 2]), margin=0.05)["verdict"]["kind"] == "too few"
    weak = make_contest([0.7, 0.7], n=600, shared=0.999)
    found = judge_contest(weak, facts_of(weak, [1, 2]), margin=0.1)
    low = found["arms"][int(found["arms"][1]["auc"] > found["arms"][0]["auc"])]["interval"][0]
    assert 0 < (low - 0.5) / 2 < 0.1
    assert (found["verdict"]["kind"], found["verdict"]["arm"]) == ("margin too wide", None)
    assert f"at most {(low - 0.5) / 2:.3f}:" in found["verdict"]["use"]
    assert found["verdict"]["patients_needed"] is None


def test_an_arm_that_does_not_beat_chance_is_not_recommended_for_agreeing_with_others() -> None:
    """All arms are one weak arm; with a tiny margin it agrees with itself, yet says nothing of the label."""
    contest = make_contest([0.0, 0.0, 3.0], n=900, shared=0.5)
    found = judge_contest(contest, facts_of(contest, [1, 2, 3]), margin=0.05)
    assert found["verdict"]["arm"] == "arm2"
    assert [one["not_worse"] for one in found["arms"]] == [False, False, True]


def test_a_verdict_is_json_without_nan_and_the_same_each_time() -> None:
    contest = make_contest([1.0, 1.4, 2.0], n_seeds=3)
    tables = [{"name": "I", "title": "each", "rows": [("arm1", "arm0"), ("arm2", "arm0")]}]
    first, second = (judge_contest(contest, facts_of(contest, [1, 2, 3]), margin=0.05, tables=tables) for _ in range(2))
    assert json.dumps(first.as_json(), allow_nan=False) == json.dumps(second.as_json(), allow_nan=False)
    assert len(first["arms"][0]["seed_auc"]) == 3
    assert first["tables"][0]["rows"][1]["p_holm"] >= first["tables"][0]["rows"][1]["p"]


def test_the_ladder_agrees_with_the_verdict_and_with_the_smallest_margins() -> None:
    contest = make_contest([2.2, 2.4, 2.5], n=300, shared=0.9)
    for margin in (0.03, 0.05, 0.07):
        found = judge_contest(contest, facts_of(contest, [1, 2, 3]), margin=margin)
        for row in found["ladder"]:
            expected = [one["arm"] for one in found["arms"] if one["deficit_upper"] < row["margin"]]
            if row["margin"] == margin:
                assert row["noninferior"] == [one["arm"] for one in found["arms"] if one["not_worse"]]
                assert set(expected) <= set(row["noninferior"])
            else:
                assert row["noninferior"] == expected
        assert found["verdict"]["arm"] == next(row["arm"] for row in found["ladder"] if row["margin"] == margin)


def test_what_a_choice_costs_is_least_for_the_highest_arm() -> None:
    contest = make_contest([1.0, 2.0, 2.5], n=300)
    loss = [one["expected_loss"] for one in judge_contest(contest, facts_of(contest, [1, 2, 3]), margin=0.05)["arms"]]
    assert loss[0] > loss[1] > loss[2] > 0
    apart = make_contest([0.5, 0.5, 5.0], n=900)
    found = judge_contest(apart, facts_of(apart, [1, 2, 3]), margin=0.05)["arms"]
    assert found[0]["expected_loss"] == pytest.approx(found[2]["auc"] - found[0]["auc"], abs=0.003)


def test_a_class_that_nobody_has_is_a_class_of_too_few() -> None:
    made = make_contest([3.0, 3.0], n=120)
    logits = np.concatenate([made.logits, np.full((2, 120, 1), -9.0)], axis=2)
    three = Contest(names=made.names, logits=logits, by_seed=None, targets=made.targets, folds=made.folds)
    found = judge_contest(three, facts_of(three, [1, 2]), margin=0.05)
    assert found["n_per_class"] == [80, 40, 0]
    assert found["verdict"]["kind"] == "too few"
    assert "No verdict: no patients of the rarest class" in found["verdict"]["sentence"]


def test_three_classes_are_judged_as_two_are() -> None:
    rng = np.random.default_rng(4)
    targets = np.arange(240) % 3
    shared = rng.normal(size=(240, 3)) + 2.0 * np.eye(3)[targets]
    logits = shared + 0.1 * rng.normal(size=(3, 240, 3))
    folds = np.arange(240) // 3 % 5
    contest = Contest(names=("a", "b", "c"), logits=logits, by_seed=None, targets=targets, folds=folds)
    found = judge_contest(contest, facts_of(contest, [1, 2, 3]), margin=0.05)
    assert (found["verdict"]["kind"], found["verdict"]["arm"]) == ("non-inferior", "a")
    json.dumps(found.as_json(), allow_nan=False)


def test_one_arm_alone_has_no_patients_needed_and_a_verdict() -> None:
    contest = make_contest([2.0])
    found = judge_contest(contest, facts_of(contest, [1.0]), margin=0.05)
    assert found["verdict"]["patients_needed"] is None
    assert (found["verdict"]["kind"], found["verdict"]["arm"]) == ("one arm", "arm0")
    json.dumps(found.as_json(), allow_nan=False)


def test_arms_without_any_difference_at_all_are_judged_without_nan() -> None:
    contest = make_contest([2.0, 2.0], shared=1.0)
    found = judge_contest(contest, facts_of(contest, [1.0, 2.0]), margin=0.05)
    assert found["verdict"]["arm"] in (None, "arm0")
    assert found["arms"][0]["deficit_upper"] > 0
    json.dumps(found.as_json(), allow_nan=False)


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
    found = judge_contest(contest, facts_of(contest, [1, 2]), margin=0.05)
    assert (found["units"], found["n_patients"], found["n_units"]) == ("slides", 60, 120)
    assert any("clustered by patient" in note for note in found["notes"])
    assert found["n_per_class"] == [60, 60]
    assert found["verdict"]["kind"] in ("non-inferior", "only")


def test_36_arms_of_400_patients_are_judged_in_seconds() -> None:
    contest = make_contest([1.5] * 36, n=400, n_seeds=3)
    found = judge_contest(contest, facts_of(contest, [float(j + 1) for j in range(36)]), margin=0.05)
    assert len(found["arms"]) == 36


def test_where_no_fold_holds_two_classes_one_is_told_what_to_do() -> None:
    from lamella.errors import CohortError

    made = make_contest([1.0, 1.0], n=30)
    apart = Contest(names=made.names, logits=made.logits, by_seed=None, targets=made.targets, folds=made.targets)
    with pytest.raises(CohortError, match="fewer folds"):
        judge_contest(apart, facts_of(apart, [1, 2]), margin=0.05)


def test_a_planted_cohort_of_60_and_60_ends_conclusively() -> None:
    """Depths 3 and 2 are as good as the whole network and agree with it, depth 1 is not."""
    recommended = []
    for seed in range(10):
        cohort = draw_h(np.random.default_rng(seed), n=120, prevalence=0.5, aucs=[0.95, 0.95, 0.95, 0.75], rho=0.95)
        contest = Contest(
            names=("@4", "@3", "@2", "@1"),
            logits=np.stack([np.zeros_like(cohort.scores), cohort.scores], axis=-1),
            by_seed=None,
            targets=cohort.targets,
            folds=cohort.folds,
        )
        facts = replace(facts_of(contest, [9.0, 5.0, 2.0, 1.0]), chains=[contest.names])
        found = judge_contest(contest, facts, margin=0.05)
        recommended.append(found["verdict"]["arm"])
        assert "@4" in found["arms"][3]["worse_than"]
    assert recommended.count("@2") >= 8
    assert "@1" not in recommended
