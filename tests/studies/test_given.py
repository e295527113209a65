"""Predictions of other tools: each form read to the same table, and what does not hang together refused in one line."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from lamella.errors import CohortError
from lamella.studies.given import join_arms, load_given
from lamella.studies.given_columns import load_known

CLASSES = ("MSIH", "nonMSIH")


def make_truth(n: int = 30, *, seed: int = 0) -> pd.DataFrame:
    """Patients with one slide each, two of them with two, in three folds."""
    rng = np.random.default_rng(seed)
    patients = [f"P{i:02d}" for i in range(n - 2)] + ["P00", "P01"]
    labels = {name: CLASSES[i % 3 > 0] for i, name in enumerate(dict.fromkeys(patients))}
    probability = {
        name: float(np.clip(rng.normal(0.3 + 0.4 * (label == "MSIH"), 0.2), 0.01, 0.99))
        for name, label in labels.items()
    }
    rows = [
        {"slide_id": f"S{i:02d}", "patient_id": name, "label": labels[name], "fold": int(name[1:]) // 2 % 3,
         "msih": probability[name]}
        for i, name in enumerate(patients)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def write_ours(truth: pd.DataFrame, folder: Path) -> Path:
    table = truth.assign(prob_MSIH=truth["msih"], prob_nonMSIH=1 - truth["msih"]).drop(columns="msih")
    table.to_csv(folder / "ours.csv", index=False)
    return folder / "ours.csv"


def write_sklearn(truth: pd.DataFrame, folder: Path) -> Path:
    """`predict_proba[:, 1]` beside the labels, with the index that pandas writes."""
    truth.rename(columns={"msih": "score", "label": "y_true"}).to_csv(folder / "sklearn.csv")
    return folder / "sklearn.csv"


def write_clam(truth: pd.DataFrame, folder: Path) -> Path:
    """A file a fold, slides, numbers for labels."""
    (folder / "clam").mkdir()
    for fold, part in truth.groupby("fold"):
        numbers = part["label"].map({"MSIH": 1, "nonMSIH": 0})
        content = {"slide_id": part["slide_id"], "Y": numbers.astype(float), "Y_hat": numbers, "p_0": 1 - part["msih"],
                   "p_1": part["msih"]}  # fmt: skip
        pd.DataFrame(content).to_csv(folder / "clam" / f"fold_{fold}.csv")
    return folder / "clam"


def write_stamp(truth: pd.DataFrame, folder: Path) -> Path:
    """A file a fold, patients."""
    for fold, part in truth.drop_duplicates("patient_id").groupby("fold"):
        content = {"PATIENT": part["patient_id"], "isMSIH": part["label"], "pred": part["label"],
                   "isMSIH_MSIH": part["msih"], "isMSIH_nonMSIH": 1 - part["msih"], "loss": 0.1}  # fmt: skip
        (folder / "stamp" / f"split-{fold}").mkdir(parents=True)
        pd.DataFrame(content).to_csv(folder / "stamp" / f"split-{fold}" / "patient-preds.csv", index=False)
    return folder / "stamp"


def write_patients(truth: pd.DataFrame, folder: Path) -> Path:
    truth[["slide_id", "patient_id", "label"]].to_csv(folder / "patients.csv", index=False)
    return folder / "patients.csv"


WRITERS: dict[str, Callable[[pd.DataFrame, Path], Path]] = {
    "ours": write_ours,
    "sklearn": write_sklearn,
    "clam": write_clam,
    "stamp": write_stamp,
}


@pytest.mark.parametrize("tool", WRITERS)
def test_every_form_holds_the_same_patients_folds_and_scores(tool: str, tmp_path: Path) -> None:
    truth = make_truth()
    known = load_known(write_patients(truth, tmp_path))
    (arm,) = load_given(WRITERS[tool](truth, tmp_path), name=tool, known=known, positive="MSIH")
    frame = join_arms([arm])
    by = "slide_id" if arm.has_slides else "patient_id"
    expected = truth.drop_duplicates(by).set_index(by)
    got = frame.set_index(by).loc[expected.index]
    assert arm.has_folds
    assert len(frame) == len(expected)
    assert got["label"].tolist() == expected["label"].tolist()
    assert got["patient_id" if by == "slide_id" else "slide_id"].notna().all()
    if by == "slide_id":
        assert got["patient_id"].tolist() == expected["patient_id"].tolist()
    assert got["fold"].tolist() == expected["fold"].tolist()
    odds = (got["logit_MSIH"] - got["logit_nonMSIH"]).to_numpy(np.float64)
    np.testing.assert_allclose(odds, np.log(expected["msih"] / (1 - expected["msih"])), atol=1e-9)


def test_tools_that_score_slides_and_patients_meet_at_patients_whatever_their_folds_are_called(tmp_path: Path) -> None:
    truth = make_truth()
    known = load_known(write_patients(truth, tmp_path))
    other = truth.assign(fold=truth["fold"].map({0: 3, 1: 1, 2: 2}))  # the same folds, numbered from 1
    arms = [
        *load_given(write_stamp(truth, tmp_path), name="stamp", known=known),
        *load_given(write_ours(other, tmp_path), name="ours", known=known),
        *load_given(write_clam(truth, tmp_path), name="clam", known=known),
    ]
    frame = join_arms(arms)
    assert frame["slide_id"].equals(frame["patient_id"])
    wide = frame.pivot(index="patient_id", columns="arm", values=["fold", "logit_MSIH", "logit_nonMSIH"])
    assert (wide["fold"].nunique(axis=1) == 1).all()
    odds = wide["logit_MSIH"] - wide["logit_nonMSIH"]
    np.testing.assert_allclose(odds["ours"].astype(float), odds["stamp"].astype(float), atol=1e-9)
    np.testing.assert_allclose(odds["clam"].astype(float), odds["stamp"].astype(float), atol=1e-9)


def test_files_that_all_score_one_test_set_are_models_of_it(tmp_path: Path) -> None:
    truth = make_truth().drop_duplicates("patient_id").assign(fold=0)
    for model in range(3):
        folder = tmp_path / "deploy" / f"split-{model}"
        folder.mkdir(parents=True)
        shifted = truth["msih"].clip(0.05, 0.9) + 0.01 * model
        content = {"PATIENT": truth["patient_id"], "isMSIH": truth["label"], "isMSIH_MSIH": shifted,
                   "isMSIH_nonMSIH": 1 - shifted}  # fmt: skip
        pd.DataFrame(content).to_csv(folder / "patient-preds.csv", index=False)
    (arm,) = load_given(tmp_path / "deploy", name="stamp")
    assert sorted(arm.tables) == [0, 1, 2]
    assert not arm.has_folds
    assert "averaged" in arm.notes[-1]


def test_arms_and_seeds_in_one_table_are_told_apart(tmp_path: Path) -> None:
    truth = make_truth()
    rows = [
        truth.assign(arm=arm, seed=seed, prob_MSIH=truth["msih"], prob_nonMSIH=1 - truth["msih"])
        for arm in ("uni2", "virchow2")
        for seed in (0, 1)
    ]
    pd.concat(rows).drop(columns="msih").to_parquet(tmp_path / "both.parquet")
    arms = load_given(tmp_path / "both.parquet", name="both")
    assert [(arm.name, sorted(arm.tables)) for arm in arms] == [("uni2", [0, 1]), ("virchow2", [0, 1])]


def refusal(tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame], **options: object) -> str:
    table = pd.read_csv(write_ours(make_truth(), tmp_path))
    change(table).to_csv(tmp_path / "changed.csv", index=False)
    known = load_known(write_patients(make_truth(), tmp_path))
    with pytest.raises(CohortError) as caught:
        load_given(tmp_path / "changed.csv", name="changed", known=known, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.assign(prob_MSIH=t["prob_MSIH"] * 100, prob_nonMSIH=t["prob_nonMSIH"] * 100), "per cent"),
        (lambda t: t.assign(label=t["label"].map({"MSIH": "nonMSIH", "nonMSIH": "MSIH"})), "Correct one of the two"),
        (lambda t: t.drop(columns=["slide_id", "patient_id"]), "neither a column slide_id nor patient_id"),
        (lambda t: t.drop(columns=["prob_MSIH", "prob_nonMSIH"]), "no scores that are known"),
        (lambda t: t.drop(columns="patient_id").assign(slide_id="x" + t["slide_id"]), "not in the table of patients"),
        (lambda t: t.assign(side="val"), "side 'test'"),
        (lambda t: t.assign(seed="a"), "'seed'"),
        (lambda t: pd.concat([t, t.head(1)]), "Keep one row a slide"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_one_line(
    change: Callable[[pd.DataFrame], pd.DataFrame], said: str, tmp_path: Path
) -> None:
    assert said in refusal(tmp_path, change)


def test_folds_that_divide_patients_otherwise_are_refused(tmp_path: Path) -> None:
    truth = make_truth()
    first = load_given(write_ours(truth, tmp_path), name="a")
    second = load_given(write_ours(truth.assign(fold=np.arange(len(truth)) % 3), tmp_path), name="b")
    with pytest.raises(CohortError, match="different folds"):
        join_arms([*first, *second])
    without = load_given(write_ours(truth.drop(columns="fold"), tmp_path), name="c")
    with pytest.raises(CohortError, match="'c' does not"):
        join_arms([*first, *without])
    with pytest.raises(CohortError, match="two arms are called 'a'"):
        join_arms([*first, *first])


def test_folds_that_are_known_of_some_patients_alone_are_refused(tmp_path: Path) -> None:
    truth = make_truth()
    table = write_ours(truth.drop(columns="fold"), tmp_path)
    truth[["slide_id", "fold"]].head(20).to_csv(tmp_path / "some.csv", index=False)
    with pytest.raises(CohortError, match="gives no fold of 'S20'"):
        load_given(table, name="a", known=load_known(tmp_path / "some.csv"))
    truth.assign(fold=truth["fold"].where(truth.index > 3)).to_csv(tmp_path / "blank.csv", index=False)
    blank = pd.read_csv(tmp_path / "blank.csv").assign(prob_MSIH=0.4, prob_nonMSIH=0.6).drop(columns="msih")
    blank.to_csv(tmp_path / "blank.csv", index=False)
    with pytest.raises(CohortError, match="'fold' is empty in row 2"):
        load_given(tmp_path / "blank.csv", name="a")


def test_a_table_of_slides_tells_the_folds_of_patients(tmp_path: Path) -> None:
    truth = make_truth()
    stamp = write_stamp(truth.assign(fold=0), tmp_path) / "split-0" / "patient-preds.csv"
    truth[["slide_id", "patient_id", "fold"]].to_csv(tmp_path / "slides.csv", index=False)
    (arm,) = load_given(stamp, name="stamp", known=load_known(tmp_path / "slides.csv"))
    assert sorted(set(arm.tables[0].folds.tolist())) == [0, 1, 2]


def test_seeds_that_not_every_arm_has_are_averaged(tmp_path: Path) -> None:
    truth = make_truth()
    seeds = pd.concat(
        truth.assign(seed=seed, prob_MSIH=truth["msih"] ** (seed + 1), prob_nonMSIH=1 - truth["msih"] ** (seed + 1))
        for seed in (1, 2, 3)
    )
    seeds.drop(columns="msih").to_csv(tmp_path / "three.csv", index=False)
    arms = [*load_given(tmp_path / "three.csv", name="three"), *load_given(write_ours(truth, tmp_path), name="one")]
    frame = join_arms(arms)
    three = frame[frame["arm"] == "three"].set_index("slide_id").loc[truth["slide_id"]]
    assert (len(three), set(frame["seed"])) == (len(truth), {0})
    expected = np.mean([np.log(truth["msih"] ** (seed + 1)) for seed in (1, 2, 3)], axis=0)
    np.testing.assert_allclose(three["logit_MSIH"].to_numpy(np.float64), expected)


def test_ids_that_look_alike_in_two_tables_are_refused(tmp_path: Path) -> None:
    truth = make_truth()
    first = load_given(write_ours(truth, tmp_path), name="a")
    other = truth.assign(patient_id=truth["patient_id"].str.replace("P0", "P"), slide_id="x" + truth["slide_id"])
    second = load_given(write_ours(other, tmp_path), name="b")
    with pytest.raises(CohortError, match="patient_ids"):
        join_arms([*first, *second])


def test_scores_of_all_files_tell_what_a_score_is(tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    for fold, (labels, scores) in enumerate([([0, 0], [0.2, 0.9]), ([0, 1], [-3.0, 4.0])]):
        content = {"patient_id": [f"P{fold}{i}" for i in range(2)], "label": labels, "score": scores}
        pd.DataFrame(content).to_csv(folder / f"fold_{fold}.csv", index=False)
    (arm,) = load_given(folder, name="own")
    assert "log-odds of '1'" in arm.notes[0]
    np.testing.assert_allclose(arm.tables[0].logits[:, 1] - arm.tables[0].logits[:, 0], [0.2, 0.9, -3.0, 4.0])
