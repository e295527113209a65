"""Predictions of any origin, as a table: the same verdict, and one clear line where a table does not hang together."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lamella.analysis.contest import judge_contest
from lamella.analysis.frames import count_lost_as_wrong, gather_contest, judge_arms
from lamella.errors import CohortError, ModelError, SettingsError
from tests.analysis.contests import facts_of, make_contest


def make_frame(shifts: list[float], n: int = 120, *, n_seeds: int = 2) -> pd.DataFrame:
    """The predictions of `make_contest` as a table, rows shuffled."""
    contest = make_contest(shifts, n=n, n_seeds=n_seeds)
    by_seed = contest.logits[:, None] if contest.by_seed is None else contest.by_seed
    rows = [
        {
            "arm": name,
            "slide_id": f"S{i:03d}",
            "patient_id": f"P{i:03d}",
            "label": ("benign", "tumour")[contest.targets[i]],
            "fold": int(contest.folds[i]),
            "seed": seed,
            "side": "test",
            "logit_benign": by_seed[j, seed, i, 0],
            "logit_tumour": by_seed[j, seed, i, 1],
        }
        for j, name in enumerate(contest.names)
        for seed in range(n_seeds)
        for i in range(n)
    ]
    return pd.DataFrame(rows)


def shuffle(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows in another order, arms first seen in the same one."""
    order = np.random.default_rng(0).permutation(len(frame))
    return frame.iloc[order].sort_values("arm", kind="stable")


def test_a_table_is_judged_as_the_contest_that_it_holds() -> None:
    contest = make_contest([1.8, 2.2, 2.4], n_seeds=2)
    facts = replace(facts_of(contest, [1, 2, 3]), chains=[("arm2", "arm1", "arm0")])
    table = [{"name": "IV", "title": "", "rows": [("arm0", "arm2")]}]
    expected = judge_contest(contest, facts, margin=0.05, tables=table)
    found = judge_arms(
        shuffle(make_frame([1.8, 2.2, 2.4])),
        costs={"arm0": 1, "arm1": 2, "arm2": 3},
        chains=[("arm2", "arm1", "arm0")],
        tables=table,
    )
    assert found["n_lost"] == 0
    for key in ("chains", "tables", "contest", "ladder", "n_seeds", "n_per_class"):
        assert json.dumps(found[key]) == json.dumps(expected[key])
    for key in ("kind", "arm", "use", "worse", "still_in", "best_guess"):
        assert found["verdict"][key] == expected["verdict"][key]


@pytest.mark.parametrize("columns", [("prob_benign", "prob_tumour"), ("score",)])
def test_probabilities_and_one_score_say_the_same_as_logits(columns: tuple[str, ...]) -> None:
    frame = make_frame([1.0, 2.0], n_seeds=1)
    expected = judge_arms(frame)
    odds = frame.pop("logit_tumour") - frame.pop("logit_benign")
    frame["prob_tumour"] = 1 / (1 + np.exp(-odds))
    frame["prob_benign"] = 1 - frame["prob_tumour"]
    frame["score"] = odds
    found = judge_arms(frame.drop(columns=[c for c in ("prob_benign", "prob_tumour", "score") if c not in columns]))
    assert [one["auc"] for one in found["arms"]] == pytest.approx([one["auc"] for one in expected["arms"]])


def test_a_score_may_be_of_the_first_class() -> None:
    frame = make_frame([2.0], n_seeds=1).assign(score=lambda f: f["logit_benign"] - f["logit_tumour"])
    frame = frame.drop(columns=["logit_benign", "logit_tumour"])
    assert judge_arms(frame, positive="benign")["arms"][0]["auc"] > 0.85
    assert judge_arms(frame, positive="tumour")["arms"][0]["auc"] < 0.15


def test_only_arm_patient_label_and_score_are_needed() -> None:
    frame = make_frame([2.0, 2.0], n_seeds=1)[["arm", "patient_id", "label", "logit_tumour"]]
    found = judge_arms(frame.rename(columns={"logit_tumour": "score"}))
    assert not found["cross_validated"]
    assert (found["n_patients"], found["n_seeds"]) == (120, 1)


def test_slides_of_a_patient_are_averaged_and_validation_rows_are_not_counted() -> None:
    frame = make_frame([1.5, 2.0], n_seeds=1)
    second = frame.assign(slide_id=frame["slide_id"] + "b", logit_tumour=frame["logit_tumour"] + 0.5)
    validation = frame.assign(side="val", slide_id=frame["slide_id"] + "v", logit_tumour=99.0)
    contest, lost = gather_contest(pd.concat([frame, second, validation]))
    whole, _ = gather_contest(frame)
    assert lost == ()
    assert contest.units == whole.units
    assert contest.logits[..., 1] == pytest.approx(whole.logits[..., 1] + 0.25)


def test_slides_that_differ_in_label_are_scored_themselves() -> None:
    frame = make_frame([2.0, 2.0], n_seeds=1)
    frame["patient_id"] = "P" + (frame["slide_id"].str[1:].astype(int) // 2).astype(str)
    frame["fold"] = frame["patient_id"].str[1:].astype(int) % 5
    contest, _ = gather_contest(frame)
    assert len(contest.units) == 120
    assert contest.patients is not None
    assert len(set(contest.patients.tolist())) == 60


def test_a_patient_that_one_arm_lost_leaves_all_and_seeds_that_one_arm_lacks_too() -> None:
    frame = make_frame([1.5, 2.0], n_seeds=3)
    frame = frame[~((frame["arm"] == "arm0") & (frame["slide_id"] == "S007"))]
    frame = frame[~((frame["arm"] == "arm1") & (frame["seed"] == 2))]
    contest, lost = gather_contest(frame)
    assert lost == ("P007",)
    assert "P007" not in contest.units
    assert contest.by_seed is not None
    assert contest.by_seed.shape[1] == 2
    found = judge_arms(frame)
    assert found["n_lost"] == 1
    assert found["lost_as_wrong"] is not None


def test_patients_that_an_arm_lost_are_counted_as_wrong_in_a_second_reading() -> None:
    """The cheap arm lost the eight patients of class tumour that are hardest to tell: without them it is as good."""
    frame = make_frame([2.5, 2.5], n=600, n_seeds=2)
    tumours = frame[(frame["label"] == "tumour") & (frame["arm"] == "arm0")]
    lost = set(tumours.groupby("slide_id")["logit_tumour"].mean().nsmallest(25).index)
    frame = frame[~((frame["arm"] == "arm0") & frame["slide_id"].isin(lost))]
    found = judge_arms(frame, costs={"arm0": 1.0, "arm1": 9.0})
    assert (found["n_lost"], found["verdict"]["arm"]) == (25, "arm0")
    assert found["lost_as_wrong"]["arm"] != "arm0"
    assert any(
        note.startswith("25 patients are left out because an arm lacks a slide of theirs.") for note in found["notes"]
    )
    wrong, _ = gather_contest(count_lost_as_wrong(frame))
    assert len(wrong.units) == 600
    place = wrong.units.index("P" + sorted(lost)[0][1:])
    assert wrong.logits[0, place].tolist() == [0.0, -1000.0]
    assert wrong.logits[1, place, 1] > -100


def test_batches_are_known_where_all_slides_of_a_patient_share_one() -> None:
    frame = make_frame([2.0], n=30, n_seeds=1)
    frame["batch"] = np.where(frame["slide_id"].str[1:].astype(int) % 2 == 0, "scanner 1", "scanner 2")
    frame.loc[frame["slide_id"] == "S004", "batch"] = None
    contest, _ = gather_contest(frame)
    assert contest.batches is not None
    assert contest.batches[:6].tolist()[4] == -1
    assert contest.batches[0] == contest.batches[2] != contest.batches[1]


def test_what_does_not_hang_together_is_said_in_one_line() -> None:
    frame = make_frame([1.0, 2.0], n_seeds=1)
    for changed, said in (
        (frame.drop(columns="label"), "no column 'label'"),
        (frame.drop(columns=["logit_benign", "logit_tumour"]), "have no score"),
        (frame.assign(side="val"), "holds val; only rows of 'test' count"),
        (pd.concat([frame, frame.head(1)]), "arm 'arm0' predicts slide 'S000' twice with seed 0"),
        (frame.assign(label=frame["label"].replace("tumour", "grade 2")), "and labels benign, grade 2"),
        (frame.assign(patient_id="P1", fold=frame["fold"]), "patient 'P1' is tested in several folds"),
        (frame.assign(label=frame["label"].where(frame["label"] == "benign")), "'label' of the predictions has empty"),
        (frame.drop(columns="logit_benign").rename(columns={"logit_tumour": "score"}).assign(label=frame["slide_id"]),
         "speaks of two classes"),
    ):  # fmt: skip
        with pytest.raises(CohortError, match=said):
            judge_arms(changed)
    with pytest.raises(ModelError, match="arm 'arm0' gives slide 'S003' a score that is not finite"):
        judge_arms(frame.assign(logit_tumour=frame["logit_tumour"].where(frame["slide_id"] != "S003")))
    with pytest.raises(CohortError, match="arm 'arm1' has no cost"):
        judge_arms(frame, costs={"arm0": 1.0})
    with pytest.raises(CohortError, match="no arm is called 'arm7'"):
        judge_arms(frame, chains=[("arm7", "arm0")])


def test_patients_in_two_batches_have_these_together_as_their_batch() -> None:
    """One slide a scanner, and the scanner goes with the label: as confounded as with one slide."""
    frame = make_frame([1.0, 2.0], n=200, n_seeds=1)
    read = (frame["label"] == "tumour").to_numpy()
    frame["logit_tumour"] = 3.0 * read + np.random.default_rng(0).normal(size=len(frame))
    first = frame.assign(batch=np.where(read, "B", "A"))
    second = frame.assign(batch=np.where(read, "D", "C"), slide_id=frame["slide_id"] + "b")
    found = judge_arms(pd.concat([first, second]))
    assert found["verdict"]["kind"] == "too few"
    assert found["verdict"]["use"].startswith("The batch alone predicts the label (AUC 1.00)")
    with pytest.raises(CohortError, match="has several values of batch"):
        judge_arms(frame.assign(batch=frame["arm"]))


def test_one_test_set_whose_batches_are_its_labels_gives_no_verdict() -> None:
    frame = make_frame([3.0, 3.0], n=200, n_seeds=1).assign(fold=0)
    assert judge_arms(frame)["verdict"]["kind"] != "too few"
    found = judge_arms(frame.assign(batch=frame["label"]))
    assert (found["verdict"]["kind"], found["verdict"]["arm"]) == ("too few", None)
    assert found["batches"]["baseline"]["auc"] == 1.0
    alone = judge_arms(frame.assign(batch=frame["patient_id"]))
    assert alone["batches"]["baseline"]["p"] >= 0.5
    assert any(note.startswith("Too few patients share fold and batch") for note in alone["notes"])


def test_reversed_scores_and_lost_seeds_are_said() -> None:
    frame = make_frame([3.0, 3.0], n=200, n_seeds=3)
    frame = frame[~((frame["arm"] == "arm1") & (frame["seed"] == 2))]
    turned = frame.assign(logit_tumour=-frame["logit_tumour"])
    notes = judge_arms(turned)["notes"]
    assert "1 seeds that an arm did not run are left out." in notes
    assert sum("the order is reversed" in note for note in notes) == 2


def test_without_costs_there_are_none() -> None:
    frame = make_frame([3.0, 3.0], n=100, n_seeds=1)
    assert {row["cost"] for row in judge_arms(frame)["arms"]} == {None}
    assert {row["cost"] for row in judge_arms(frame, costs={"arm0": 1, "arm1": 2.5})["arms"]} == {1.0, 2.5}


def test_where_all_other_folds_train_errors_are_wider() -> None:
    frame = make_frame([1.0, 1.2], n=200, n_seeds=1)
    wide, usual = (judge_arms(frame, n_left_out=n)["arms"][0]["deficit_upper"] for n in (1, 2))
    assert wide > usual
    test_set = frame.assign(fold=0)
    assert judge_arms(test_set, n_left_out=1) == judge_arms(test_set)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"margin": float("nan")}, "the margin is nan"),
        ({"margin": "0.05"}, "the margin is '0.05'"),
        ({"margin": 2}, "between 0 and 0.5"),
        ({"costs": {"arm0": float("nan"), "arm1": 1.0}}, "arm 'arm0' costs nan"),
        ({"costs": {"arm0": -1.0, "arm1": 1.0}}, "arm 'arm0' costs -1.0"),
        ({"chains": [["arm1", "arm1"]]}, "arm 'arm1' stands in the chains twice"),
        ({"chains": [["arm1", "arm0"], ["arm1"]]}, "arm 'arm1' stands in the chains twice"),
        ({"chains": [[]]}, "a chain is empty"),
        ({"tables": [{"name": "I"}]}, "a table needs 'name', 'title' and 'rows'"),
        ({"tables": [{"name": "I", "title": "t", "rows": [("arm0", "arm0")]}]}, "holds arm 'arm0' against itself"),
        ({"n_left_out": 3}, "3 folds left out are asked for"),
    ],
)
def test_settings_that_cannot_be_are_one_line(given: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        judge_arms(make_frame([1.0, 2.0], n=60, n_seeds=1), **given)


def test_scores_that_are_none_are_one_line() -> None:
    frame = make_frame([1.0, 2.0], n=60, n_seeds=1)
    scored = frame.drop(columns="logit_benign").rename(columns={"logit_tumour": "score"})
    share = 1 / (1 + np.exp(-frame["logit_tumour"]))
    shares = scored.drop(columns="score").assign(prob_tumour=share, prob_benign=1 - share)
    assert judge_arms(shares)["verdict"] == judge_arms(scored)["verdict"]
    for changed, said in (
        (shares.assign(prob_tumour=100 * share, prob_benign=100 - 100 * share), "is not between 0 and 1"),
        (shares.assign(prob_benign=share), "does not sum to 1"),
        (scored.assign(score=scored["score"].astype(str).str.replace(".", ",")), "which is no number"),
        (scored.assign(score=1j), "complex"),
        (scored.assign(fold=scored["fold"].where(scored["fold"] != 1)), "column 'fold' of the predictions has empty"),
        (scored.assign(arm=" "), "column 'arm' of the predictions has empty"),
        (pd.concat([scored, scored[["score"]]], axis=1), "several columns 'score'"),
        (scored[scored["label"] == "benign"], "all patients are 'benign'"),
        (None, "of type NoneType"),
    ):
        with pytest.raises(CohortError, match=said):
            judge_arms(changed)
    with pytest.raises(CohortError, match="no class is called 'grade 2'"):
        judge_arms(shares, positive="grade 2")


def test_names_and_labels_are_taken_as_text() -> None:
    frame = make_frame([1.0, 2.0], n=100, n_seeds=1)
    scored = frame.drop(columns="logit_benign").rename(columns={"logit_tumour": "score"})
    numbers = scored.assign(arm=scored["arm"].str[-1].astype(int), label=(scored["label"] == "tumour").astype(int))
    spaced = scored.assign(label=scored["label"] + np.where(np.arange(len(scored)) % 7 == 0, " ", ""))
    expected = [row["auc"] for row in judge_arms(scored)["arms"]]
    assert [row["auc"] for row in judge_arms(numbers, positive=1, costs={0: 1, 1: 5})["arms"]] == expected
    assert [row["auc"] for row in judge_arms(spaced)["arms"]] == expected


@pytest.mark.parametrize(
    "kind", ["ties", "constant", "copies", "perfect", "reversed", "one positive", "one fold of a class"]
)
@pytest.mark.parametrize("n_folds", [1, 2, 3, 5])
def test_edge_cases_are_judged_without_nan(kind: str, n_folds: int) -> None:
    rng = np.random.default_rng(1)
    n = 60
    label = np.arange(n) % 2
    fold = np.arange(n) // 2 % n_folds
    if kind == "one positive":
        label = (np.arange(n) == 7).astype(int)
    if kind == "one fold of a class":
        label = np.where(fold == 0, 0, label)
        label[:2] = 1 if n_folds == 1 else label[:2]
        label[1::2] = np.where(fold[1::2] == 0, label[1::2] if n_folds > 1 else 1, 1)
    noisy = label + rng.normal(size=n)
    scores = {
        "ties": [np.round(noisy), np.round(noisy + rng.normal(0, 0.3, n)), noisy],
        "constant": [np.zeros(n), noisy, np.zeros(n)],
        "copies": [noisy, noisy, noisy],
        "perfect": [label * 1.0, label * 2.0, label * 3.0],
        "reversed": [-label * 1.0, label * 1.0, noisy],
    }.get(kind, [noisy, noisy + rng.normal(0, 0.3, n), noisy])
    frame = pd.concat(
        pd.DataFrame({"arm": f"@{4 - j}", "patient_id": np.arange(n), "label": label, "fold": fold, "score": score})
        for j, score in enumerate(scores)
    )
    tables = [{"name": "IV", "title": "", "rows": [("@3", "@4"), ("@2", "@4")]}]
    for chains in ([], [("@4", "@3", "@2")]):
        found = judge_arms(frame, costs={"@4": 9.0, "@3": 5.0, "@2": 2.0}, chains=chains, tables=tables)
        json.dumps(found.as_json(), allow_nan=False)
        assert all(0 <= one["auc"] <= 1 for one in found["arms"])
        assert found["verdict"]["use"]
        if kind == "one positive":
            assert found["verdict"]["kind"] == "too few"
        if kind == "constant":
            assert found["verdict"]["arm"] in (None, "@3")
        if kind == "reversed":
            assert found["verdict"]["arm"] != "@4"


def test_three_classes_with_seeds_slides_and_batches_are_judged_without_nan() -> None:
    rng = np.random.default_rng(2)
    rows = []
    for arm, strength in (("a", 2.0), ("b", 1.9), ("c", 0.5)):
        for seed in range(2):
            for i in range(150):
                logits = strength * np.eye(3)[i % 3] + rng.normal(size=3)
                rows.append(
                    {"arm": arm, "seed": seed, "slide_id": i, "patient_id": i // 2 if i % 5 else i + 1000,
                     "label": f"grade {i % 3}", "fold": 0, "batch": "xyz"[i // 7 % 3],
                     **{f"logit_grade {c}": logits[c] for c in range(3)}}
                )  # fmt: skip
    found = judge_arms(pd.DataFrame(rows), costs={"a": 3.0, "b": 2.0, "c": 1.0})
    json.dumps(found.as_json(), allow_nan=False)
    assert found["arms"][2]["worse_than"] == ["a", "b"]
    assert found["units"] == "slides"
