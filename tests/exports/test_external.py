"""A study, or models given together, on labelled slides of elsewhere: is the recommendation confirmed?"""

import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from lamella.cli import build_app
from lamella.cohort import load_cohort
from lamella.encoders import RuntimeSettings
from lamella.files import parse_json_file
from lamella.pipeline.study import compare_arms
from lamella.studies.design import check_design
from lamella.studies.execute import Study
from lamella.studies.options import StudyOptions
from tests.tiny import draw_cohort, draw_tissue, save_cohort_table, save_slide

OPTIONS = StudyOptions(runtime=RuntimeSettings(runtime="torch", n_threads=1))
WHOLE, CUT = "resnet18@4, random weights", "resnet18@1, random weights"
DESIGN = check_design(
    {
        "tiles": {"default": {"tile_px": 64, "mpp": 0.5}},
        "arms": [{"encoders": ["resnet18"], "depths": [4, 1], "weights": ["random"]}],
        "seeds": 1,
        "folds": 3,
        "train": {"epochs": 8},
        "permutations": 0,
    },
    "the test",
)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    cohort = load_cohort(draw_cohort(tmp_path_factory.mktemp("cohort"), 24))
    return compare_arms(cohort, DESIGN, tmp_path_factory.mktemp("study") / "out", options=OPTIONS)


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rows = tmp_path_factory.mktemp("elsewhere"), []
    for number in range(12):
        save_slide(folder / f"N-{number:02d}.tif", draw_tissue(100 + number, malignant=number % 2 == 1))
        label = "malignant" if number % 2 else "benign"
        rows.append({"slide": f"N-{number:02d}.tif", "patient_id": f"Q-{number:02d}", "label": label})
    return save_cohort_table(folder / "cohort.csv", rows)


def call(*arguments: object) -> str:
    ended = CliRunner().invoke(build_app(), [str(argument) for argument in arguments])
    assert ended.exit_code == 0, ended.output
    return ended.output


def recommend(study: Study, tmp_path: Path, arm: str | None) -> Path:
    """Return a folder of the same study that recommended what is said."""
    import shutil

    folder = Path(shutil.copytree(study.folder.path, tmp_path / "study"))
    verdict = parse_json_file(folder / "verdict.json")
    verdict["verdict"]["arm"] = arm
    (folder / "verdict.json").write_text(json.dumps(verdict))
    return folder


def test_a_studys_recommendation_is_asked_again_on_new_slides(study: Study, elsewhere: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = call("predict", recommend(study, tmp_path, CUT), elsewhere, "--out", out)
    external = parse_json_file(out / "external.json")
    assert external["answer"] in ("confirmed", "not confirmed", "inconclusive")
    assert external["claim"] == {"arm": CUT, "against": WHOLE}
    assert external["margin"] == 0.05
    assert external["cross_validated"] is False
    assert external["sentence"] in " ".join(said.split())
    rows = pd.read_csv(out / "arms.csv")
    assert list(rows["arm"]) == [WHOLE, CUT]
    assert list(rows["n_patients"]) == [12, 12]
    assert rows["answer"].iloc[1] == external["answer"]
    assert external["arms"][1]["at_frozen_threshold"]["sensitivity"]["value"] is not None
    figure = parse_json_file(out / "metrics.json")["arms"]["model"]["patients"]["auc"]
    assert figure["value"] == pytest.approx(external["arms"][1]["auc"])
    assert figure["interval"] == pytest.approx(external["arms"][1]["interval"])
    assert (out / "report.html").exists()
    assert len(pd.read_csv(out / "arms" / "0" / "predictions.csv")) == 12


def test_a_study_without_a_recommendation_is_measured_and_says_that_nothing_was_claimed(
    study: Study, elsewhere: Path, tmp_path: Path
) -> None:
    call("predict", recommend(study, tmp_path, None), elsewhere, "--out", tmp_path / "out")
    external = parse_json_file(tmp_path / "out" / "external.json")
    assert external["answer"] is None
    assert "No arm was recommended" in external["sentence"]
    assert len(external["arms"]) == 2


def test_models_given_together_are_held_against_the_first(study: Study, elsewhere: Path, tmp_path: Path) -> None:
    for name, arm in (("whole", WHOLE), ("cut", CUT)):
        call("export", study.folder.path, "--arm", arm, "--out", tmp_path / name)
    out = tmp_path / "out"
    together = ["--with", tmp_path / "cut", "--margin", "0.1", "--json"]
    command = [str(word) for word in ("predict", tmp_path / "whole", elsewhere, *together, "--out", out)]
    content = json.loads(CliRunner().invoke(build_app(), command).stdout)
    assert content["external"]["claim"] == {"arm": CUT, "against": WHOLE}
    assert content["external"]["margin"] == 0.1
    unlabelled = tmp_path / "unlabelled.csv"
    frame = pd.read_csv(elsewhere).drop(columns="label")
    frame["slide"] = [str(elsewhere.parent / name) for name in frame["slide"]]
    frame.to_csv(unlabelled, index=False)
    call("predict", tmp_path / "whole", unlabelled, "--with", tmp_path / "cut", "--out", tmp_path / "plain")
    assert (tmp_path / "plain" / "predictions.csv").exists()
    assert not (tmp_path / "plain" / "external.json").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--margin", "0.1"], "--margin compares models and only one is given"),
        (["--margin", "0.7"], "--margin is 0.7 and must be above 0 and below 0.5"),
        (["--with", "STUDY"], "is a study: it brings its arms along"),
        (["--with", "RUN"], "a model is given twice"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(
    study: Study, elsewhere: Path, tmp_path: Path, arguments: list[str], said: str
) -> None:
    run = study.runs[CUT].path
    given = [{"STUDY": str(study.folder.path), "RUN": str(run)}.get(argument, argument) for argument in arguments]
    command = ["predict", str(run), str(elsewhere), *given, "--out", str(tmp_path)]
    ended = CliRunner().invoke(build_app(), command)
    assert ended.exit_code == 1
    assert said in " ".join(ended.output.split())


def test_predictive_values_and_net_benefit_are_restated_at_a_prevalence(
    study: Study, elsewhere: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    said = call("predict", study.runs[CUT].path, elsewhere, "--prevalence", "0.1", "--out", out)
    metrics = parse_json_file(out / "metrics.json")
    units, restated = metrics["arms"]["model"]["patients"], metrics["at_prevalence"]
    sensitivity, specificity = units["sensitivity"]["value"], units["specificity"]["value"]
    called = 0.1 * sensitivity + 0.9 * (1 - specificity)
    if called:
        assert restated["ppv"]["value"] == pytest.approx(0.1 * sensitivity / called)
    assert restated["ppv"]["prevalence"] == 0.1
    assert [row["everybody"] for row in restated["net_benefit"]] == pytest.approx(
        [0.1 - 0.9 * row["cut"] / (1 - row["cut"]) for row in restated["net_benefit"]]
    )
    assert len(restated["net_benefit"]) == 19
    assert "At a prevalence of 0.1" in " ".join(said.split())
