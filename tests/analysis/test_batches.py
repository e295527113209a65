"""The verdict within batches: a reader of batches is not recommended, and what cannot be told within them is said."""

import json
from dataclasses import replace

import numpy as np
import pytest

from lamella.analysis.batches import predict_from_other_folds
from lamella.analysis.contest import Contest, judge_contest
from tests.analysis.contests import facts_of, make_contest


def draw(n: int, share: float, *, seed: int = 0, n_folds: int = 5) -> Contest:
    """A cheap arm that reads the batch, a dear one that reads tissue; a share of each class lies in its batch."""
    rng = np.random.default_rng(seed)
    targets = np.arange(n) % 2
    batches = np.where(rng.random(n) < share, targets, 1 - targets)
    scores = np.stack([3.0 * batches + rng.normal(size=n), 1.6 * targets + rng.normal(size=n)])
    logits = np.stack([np.zeros_like(scores), scores], axis=-1)
    return Contest(
        names=("batch reader", "tissue"),
        logits=logits,
        by_seed=None,
        targets=targets,
        folds=rng.permutation(n) % n_folds,
        batches=batches,
    )


def test_where_batch_and_label_go_together_only_patients_of_a_batch_are_compared() -> None:
    contest = draw(400, 0.8)
    blind = judge_contest(replace(contest, batches=None), facts_of(contest, [1, 2]), margin=0.05)
    found = judge_contest(contest, facts_of(contest, [1, 2]), margin=0.05)
    assert blind["batches"] is None
    assert blind["arms"][0]["auc"] > 0.7
    assert found["verdict"]["arm"] == "tissue"
    assert found["verdict"]["use"].startswith("The batch alone predicts the label (AUC 0.7")
    assert found["batches"]["pairs"] == "fold and batch"
    assert found["batches"]["baseline"]["p"] < 1e-6
    reader, tissue = found["arms"]
    assert reader["auc_within_batch"] == pytest.approx(0.5, abs=0.07)
    assert reader["worse_than"] == ["tissue"]
    assert reader["deficit_upper"] > 0.2
    assert tissue["auc_within_batch"] == pytest.approx(0.87, abs=0.06)
    assert all(row["arm"] != "batch reader" for row in found["ladder"])


def test_batches_that_say_nothing_change_nothing() -> None:
    contest = make_contest([2.5, 2.5], n=600, shared=0.95)
    with_batches = replace(contest, batches=np.arange(600) // 3 % 2)
    plain, found = (judge_contest(one, facts_of(one, [1, 2]), margin=0.05) for one in (contest, with_batches))
    assert found["batches"]["pairs"] == "fold"
    assert plain["verdict"] == found["verdict"]


def test_batches_of_one_class_leave_no_verdict() -> None:
    contest = draw(200, 1.0)
    found = judge_contest(contest, facts_of(contest, [1, 2]), margin=0.05)
    assert (found["verdict"]["kind"], found["verdict"]["arm"]) == ("too few", None)
    assert "The batch alone predicts the label" in found["verdict"]["use"]
    assert "No verdict: no patients of the rarest class" in found["verdict"]["use"]
    assert found["batches"]["n_least_within"] == 0
    json.dumps(found.as_json(), allow_nan=False)


def test_under_ten_patients_of_a_class_in_pairs_of_a_batch_leave_no_verdict() -> None:
    contest = draw(200, 0.99, seed=3)
    found = judge_contest(contest, facts_of(contest, [1, 2]), margin=0.05)
    assert 0 < found["batches"]["n_least_within"] < 10
    assert found["verdict"]["kind"] == "too few"


def test_many_small_batches_that_predict_nothing_leave_the_verdict_and_say_so() -> None:
    contest = make_contest([2.5, 2.5], n=600, shared=0.95)
    alone = replace(contest, batches=np.arange(600))
    found = judge_contest(alone, facts_of(alone, [1, 2]), margin=0.05)
    assert found["verdict"]["arm"] == "arm0"
    assert "Too few patients share fold and batch" in found["batches"]["note"]


def test_on_one_test_set_the_batch_alone_is_judged_by_its_training_prevalence() -> None:
    contest = replace(draw(300, 0.8, seed=2), folds=np.zeros(300, int))
    assert contest.batches is not None
    shares = np.where(contest.batches[:, None] == 1, [0.2, 0.8], [0.8, 0.2])
    found = judge_contest(replace(contest, batch_logits=np.log(shares)), facts_of(contest, [1, 2]), margin=0.05)
    assert found["batches"]["baseline"]["auc"] == pytest.approx(0.8, abs=0.06)
    assert found["verdict"]["arm"] == "tissue"


def test_the_batch_alone_is_its_prevalence_in_the_other_folds() -> None:
    targets, folds = np.array([0, 1, 1, 1, 0, 0]), np.array([0, 0, 0, 1, 1, 1])
    found = predict_from_other_folds(targets, folds, np.array([0, 0, 1, 0, 0, -1]), 2)
    share = np.exp(found)
    assert share[0] == pytest.approx([(1 + 2 / 3) / 3, (1 + 1 / 3) / 3], abs=1e-3)  # batch 0 of fold 1: one of each
    assert share[2] == pytest.approx([2 / 3, 1 / 3], abs=1e-3)  # batch 1 was never seen
    assert share[5] == pytest.approx([1 / 3, 2 / 3], abs=1e-3)  # no batch: what fold 0 holds of each
