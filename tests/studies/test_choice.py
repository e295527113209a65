"""The frozen arm that is fine-tuned in each fold is chosen there, by that fold's own validation patients alone."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lamella.analysis.auc import estimate_auc
from lamella.analysis.scores import Score
from lamella.cohort import Cohort, load_cohort
from lamella.encoders import RuntimeSettings
from lamella.errors import ModelError
from lamella.exports.source import find_source
from lamella.pipeline.study import compare_arms
from lamella.runs.predictions import tabulate
from lamella.studies.arms import CHOSEN_ARMS, Arm
from lamella.studies.choice import choose_in_folds, count_chosen, say_choices
from lamella.studies.design import check_design
from lamella.studies.execute import Study, execute_study
from lamella.studies.judge import ArmCost, join_costs, judge_again
from lamella.studies.listing import _List
from lamella.studies.options import StudyOptions
from lamella.studies.outcome import ArmOutcome
from lamella.studies.work import WorkItem
from tests.tiny import draw_cohort

OPTIONS = StudyOptions(runtime=RuntimeSettings(runtime="torch", n_threads=1))
CONTENT = {
    "tiles": {"default": {"tile_px": 64, "mpp": 0.5}},
    "arms": [{"encoders": ["resnet18"], "depths": [2, 1], "weights": ["random"]}],
    "comparisons": [{"name": "III", "title": "Fine-tuned", "rule": "tuned against frozen"}],
    "finetune_best": True,
    "seeds": 2,
    "folds": 3,
    "train": {"epochs": 3},
    "finetune": {"k": 4, "epochs": 1, "train_blocks": 1},
    "permutations": 0,
}
NAMES = [arm.name for arm in CHOSEN_ARMS]


def make_outcome(encoder: str, losses: dict[int, float]) -> ArmOutcome:
    nothing = tabulate((), ("benign", "malignant"))
    return ArmOutcome(arm=Arm(encoder=encoder), predictions=nothing, best_epochs={}, val_losses=losses, metrics=Score())


def test_each_fold_takes_the_arm_of_least_loss_on_its_own_validation_patients() -> None:
    first = make_outcome("first", {0: 0.4, 1: 0.6, 2: 0.5, 3: 0.1})
    second = make_outcome("second", {0: 0.5, 1: 0.3, 2: 0.5, 3: 0.9})
    choices = choose_in_folds([first, second])
    assert [choice.arm.encoder for choice in choices] == ["first", "second", "first", "first"]  # a tie: the first
    assert choices[1].losses == {"first@4": 0.6, "second@4": 0.3}
    assert count_chosen(choices).encoder == "first"
    assert "first@4 (fold 0, 2, 3); second@4 (fold 1)" in say_choices(choices)
    swapped = choose_in_folds([make_outcome("first", {**first.val_losses, 2: 9.0}), second])
    assert [choice.arm for choice in swapped if choice.fold != 2] == [c.arm for c in choices if c.fold != 2]


def test_nothing_is_chosen_where_no_arm_was_validated() -> None:
    assert choose_in_folds([]) == choose_in_folds([make_outcome("first", {})]) == ()


def test_all_folds_models_cost_every_network_once_as_deep_as_it_is_read() -> None:
    costs = [(Arm(encoder="a"), 1.0), (Arm(encoder="a"), 3.0), (Arm(encoder="b"), 10.0)]
    found = join_costs([(own, ArmCost(a_slide=cost, a_tile=cost / 10, gflops=cost)) for own, cost in costs])
    assert (found.a_slide, found.gflops) == (13.0, 13.0)


def choose_and_measure(rng: np.random.Generator, *, within: bool, n: int = 60, n_arms: int = 12) -> float:
    """Return the AUC of what is chosen among arms that all are at chance, within each fold or over all folds."""
    n_folds = 5
    targets, folds = np.arange(n) % 2, rng.permutation(np.arange(n) % n_folds)
    # A model of round k scores its validation patients (fold k + 1) and its test patients (fold k). Scores of one
    # patient by an arm's models agree, as those of real encoders do: that is why a choice over all folds has seen them.
    shared = rng.normal(size=(n_arms, n))
    scores = shared[:, None] + 0.3 * rng.normal(size=(n_arms, n_folds, n))
    losses = np.array(
        [
            [
                np.logaddexp(0, np.where(targets == 1, -1, 1) * arm[k])[folds == (k + 1) % n_folds].mean()
                for k in range(5)
            ]
            for arm in scores
        ]
    )
    picked = losses.argmin(axis=0) if within else np.full(n_folds, losses.mean(axis=1).argmin())
    tested = np.array([scores[picked[folds[i]], folds[i], i] for i in range(n)])
    found = estimate_auc(np.stack([np.zeros(n), tested], axis=1), targets, folds=folds)
    assert found is not None
    return float(found.auc[0])


def test_a_choice_within_folds_has_no_winners_curse_and_one_over_all_folds_has() -> None:
    rng = np.random.default_rng(0)
    within = np.array([choose_and_measure(rng, within=True) for _ in range(400)])
    over_all = np.array([choose_and_measure(rng, within=False) for _ in range(400)])
    error = float(within.std(ddof=1)) / 20
    assert abs(within.mean() - 0.5) < 3 * error
    assert over_all.mean() > 0.5 + 10 * error


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return load_cohort(draw_cohort(tmp_path_factory.mktemp("cohort"), 24))


@pytest.fixture(scope="module")
def study(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Study:
    design = check_design(CONTENT, "the test")
    return compare_arms(cohort, design, tmp_path_factory.mktemp("study") / "out", options=OPTIONS)


def test_the_control_takes_each_folds_predictions_from_the_arm_that_was_chosen_there(study: Study) -> None:
    row = next(row for row in study.record["arms"] if row["arm"] == NAMES[0])
    assert row["state"] == "done"
    assert [one["fold"] for one in row["chosen"]] == [0, 1, 2]
    frame = pd.read_parquet(study.folder.predictions)
    keys = ["fold", "seed", "slide_id"]
    for one in row["chosen"]:
        assert one["arm"] == min(one["val_log_loss"], key=one["val_log_loss"].__getitem__)
        own, chosen = (
            frame[(frame["arm"] == name) & (frame["fold"] == one["fold"]) & (frame["side"] == "test")].sort_values(keys)
            for name in (NAMES[0], one["arm"])
        )
        assert len(own) == 16
        np.testing.assert_array_equal(own["logit_malignant"], chosen["logit_malignant"])


def test_only_the_chosen_arm_of_a_fold_is_fine_tuned_in_it(study: Study) -> None:
    chosen = {
        (one["arm"], one["fold"]) for row in study.record["arms"] if row["arm"] == NAMES[0] for one in row["chosen"]
    }
    trained = {
        (name, int(path.parent.parent.name.removeprefix("fold")))
        for name, folder in study.runs.items()
        if name != "best of each fold"
        for path in folder.finetuned.glob("fold*/seed*/tuned")
    }
    assert trained == chosen


def test_the_table_compares_what_is_tuned_with_the_frozen_arms_of_the_same_folds(study: Study) -> None:
    assert study.verdict is not None
    (table,) = study.verdict["tables"]
    assert [(row["arm"], row["base"]) for row in table["rows"]] == [(NAMES[1], NAMES[0]), (NAMES[2], NAMES[0])]
    page = study.folder.page.read_text()
    assert "Chosen in each fold" in page
    assert "biased" not in page


def test_a_study_with_choices_is_run_again_and_judged_again_to_the_same(study: Study, cohort: Cohort) -> None:
    before = {path: path.read_bytes() for path in (study.folder.predictions, study.folder.verdict)}
    times = {path: path.stat().st_mtime_ns for path in study.folder.path.rglob("model.safetensors")}
    assert times
    again = execute_study(cohort, check_design(CONTENT, "the test"), study.folder.path, options=OPTIONS)
    assert {path: path.read_bytes() for path in before} == before
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert again.record["status"] == "finished"
    judge_again(study.folder.path)
    assert json.loads(study.folder.verdict.read_text()) == json.loads(before[study.folder.verdict])


def test_what_is_chosen_in_each_fold_cannot_be_exported_as_one_network(study: Study) -> None:
    with pytest.raises(ModelError, match=r"is no one network: resnet18@\d, random weights in fold 0"):
        find_source(study.folder.path, NAMES[2])


def test_a_budget_with_room_for_a_declared_tuned_arm_alone_leaves_the_chosen_one_out_and_says_so(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arms = [*CONTENT["arms"], {"encoders": ["resnet18"], "depths": [1], "weights": ["random"], "finetuned": ["tuned"]}]
    list_choices = _List._list_choices

    def list_dear(self: _List, planned: Sequence[WorkItem]) -> list[WorkItem]:
        return [dataclasses.replace(item, seconds=1e9) for item in list_choices(self, planned)]

    monkeypatch.setattr(_List, "_list_choices", list_dear)
    budget = dataclasses.replace(OPTIONS, budget_s=3600.0)
    design = check_design(CONTENT | {"arms": arms}, "the test")
    record = execute_study(cohort, design, tmp_path / "out", options=budget).record
    rows = {row["arm"]: row for row in record["arms"]}
    assert rows["resnet18@1, random weights, tuned"]["state"] == "done"
    for name in NAMES:
        assert rows[name]["state"] == "not run"
        assert rows[name]["reason"] == "past the budget: the plan had no room for fine-tuning"
    assert any("best of each fold is not fine-tuned: it would take up to" in note for note in record["notes"])
