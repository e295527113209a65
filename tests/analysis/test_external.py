"""What was recommended, asked again on new patients: three answers, on one test set, without nonsense."""

import json

import numpy as np
import pandas as pd
import pytest

from lamella.analysis.external import CONFIRMED, INCONCLUSIVE, Claim, _answer_contest, judge_external
from lamella.analysis.verdict import ArmVerdict, Conclusion, ContestVerdict, ExternalVerdict, Verdict

NAMES = ("net@4", "net@3", "net@2")
CLASSES = ("benign", "malignant")


def make_claim(arm: str | None = "net@2", *, chain: bool = True, names: tuple[str, ...] = NAMES) -> Claim:
    costs = {name: float(len(names) - place) for place, name in enumerate(names)}
    return Claim(arms=names, arm=arm, chain=chain, margin=0.05, costs=costs)


def make_frame(noise: dict[str, float], n: int = 300, *, shift: float = 2.5, seed: int = 0) -> pd.DataFrame:
    """Return arms that see one signal, each through noise of its own."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    signal = shift * labels + rng.normal(size=n)
    return pd.DataFrame(
        [
            {
                "arm": name,
                "slide_id": f"S{i}",
                "patient_id": f"P{i}",
                "label": CLASSES[labels[i]],
                "logit_benign": 0.0,
                "logit_malignant": float(signal[i] + size * own[i]),
            }
            for name, size in noise.items()
            for own in (rng.normal(size=n),)
            for i in range(n)
        ]
    )


def judge(frame: pd.DataFrame, claim: Claim) -> ExternalVerdict:
    found = judge_external(frame, claim, classes=CLASSES)
    said = json.dumps(found.as_json(), allow_nan=False)
    assert "nan" not in said.lower().replace("finance", "")
    return found


def test_a_depth_that_loses_nothing_is_confirmed() -> None:
    found = judge(make_frame({"net@4": 0.2, "net@3": 0.2, "net@2": 0.2}), make_claim())
    assert found["answer"] == "confirmed"
    assert found["sentence"].startswith(
        "Confirmed: on these patients net@2 is non-inferior to the whole network, net@4"
    )
    assert [row["answer"] for row in found["arms"]] == [None, "confirmed", "confirmed"]
    assert found["cross_validated"] is False
    assert all(row["smallest_margin"] < 0.05 for row in found["arms"][1:])


def test_a_depth_that_is_shown_to_be_worse_is_not_confirmed_and_ends_the_order() -> None:
    found = judge(make_frame({"net@4": 0.2, "net@3": 0.2, "net@2": 4.0}), make_claim())
    assert found["answer"] == "not confirmed"
    assert "is shown to be worse: it loses 0." in found["sentence"]
    # The recommended depth is asked first; what comes after one that is not shown cannot be confirmed any more.
    assert [row["answer"] for row in found["arms"]] == [None, "inconclusive", "not confirmed"]


def test_few_patients_are_inconclusive_with_the_reason() -> None:
    found = judge(make_frame({"net@4": 0.3, "net@3": 0.3, "net@2": 0.9}, n=50), make_claim())
    assert found["answer"] == "inconclusive"
    few = judge(make_frame({"net@4": 0.3, "net@3": 0.3, "net@2": 4.0}, n=16), make_claim())
    assert few["answer"] == "inconclusive"
    assert "No verdict: only 8 patients of the rarest class" in few["sentence"]


def test_models_that_see_nothing_there_confirm_nothing() -> None:
    found = judge(make_frame({"net@4": 0.3, "net@3": 0.3, "net@2": 0.3}, shift=0.0, seed=1), make_claim())
    assert found["answer"] == "inconclusive"
    assert "no arm is shown to predict the label better than chance" in found["sentence"]


def test_intervals_of_one_test_set_take_no_factor() -> None:
    from lamella.analysis.auc import find_score_interval

    found = judge(make_frame({"net@4": 0.2, "net@2": 0.2}, n=40), make_claim(names=("net@4", "net@2")))
    for row in found["arms"]:
        assert row["interval"] == pytest.approx(find_score_interval(row["auc"], 20, 20, cross_validated=False))


def test_without_a_recommendation_there_is_nothing_to_confirm() -> None:
    frame = make_frame({"net@4": 0.2, "net@3": 0.2, "net@2": 0.2})
    found = judge(frame, make_claim(None))
    assert found["answer"] is None
    assert "No arm was recommended" in found["sentence"]
    whole = judge(frame, make_claim("net@4"))
    assert whole["answer"] is None
    assert "is the whole network itself" in whole["sentence"]


def test_the_contests_recommendation_is_held_against_every_other_arm() -> None:
    good, bad = {"net@4": 0.2, "net@3": 0.2, "net@2": 0.2}, {"net@4": 0.2, "net@3": 0.2, "net@2": 4.0}
    found = judge(make_frame(good), make_claim(chain=False))
    assert (found["answer"], found["claim"]["against"]) == ("confirmed", None)
    found = judge(make_frame(bad), make_claim(chain=False))
    assert found["answer"] == "not confirmed"
    assert "It is shown to be worse than net@" in found["sentence"]


def test_a_patient_that_one_arm_lost_leaves_all_and_is_counted() -> None:
    frame = make_frame({"net@4": 0.2, "net@3": 0.2, "net@2": 0.2})
    found = judge(frame.drop(index=frame.index[frame["arm"] == "net@2"][:3]), make_claim())
    assert (found["n_patients"], found["n_lost"]) == (297, 3)


def test_an_arm_at_chance_is_not_confirmed_for_agreeing_with_others() -> None:
    contest = ContestVerdict(kind="non-inferior", arm="a", noninferior=("a", "b"))
    judged = Verdict.model_construct(contest=contest, verdict=Conclusion(use="none"))
    for p, answer in ((0.001, CONFIRMED), (0.4, INCONCLUSIVE), (None, INCONCLUSIVE)):
        arm = ArmVerdict.model_construct(arm="a", chance_p_holm=p, worse_than=())
        assert _answer_contest(judged, arm)[0] == answer
