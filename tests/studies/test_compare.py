"""Predictions of other tools before the judge: the command, its folder, and the page that is made of it."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from lamella.analysis.frames import judge_arms
from lamella.cli import build_app
from lamella.errors import CohortError
from lamella.pipeline.compare import compare_tables
from lamella.runs.folder import hash_tables
from lamella.studies.compare import CompareSettings, load_given_costs
from lamella.studies.judge import judge_again
from tests.studies.test_given import make_truth, write_clam, write_ours, write_patients, write_sklearn, write_stamp


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tools on the same patients: scikit-learn good, CLAM as good with noise, STAMP poor."""
    folder, rng = tmp_path_factory.mktemp("desk"), np.random.default_rng(1)
    truth = make_truth(140)
    write_sklearn(truth, folder)
    write_patients(truth, folder)
    write_clam(truth.assign(msih=(truth["msih"] + rng.normal(0, 0.05, len(truth))).clip(0.01, 0.99)), folder)
    noise = {name: rng.normal(0, 0.35) for name in truth["patient_id"].unique()}
    write_stamp(truth.assign(msih=(truth["msih"] + truth["patient_id"].map(noise)).clip(0.01, 0.99)), folder)
    (folder / "costs.csv").write_text("arm,seconds_a_slide\nsklearn,3.2\nclam,2.1\nstamp,0.4\n")
    return folder


def run(desk: Path, *words: str) -> tuple[int, str]:
    ended = CliRunner().invoke(build_app(), ["compare", *(word.replace("DESK", str(desk)) for word in words)])
    return ended.exit_code, ended.output


def test_three_tools_are_compared_by_one_command(desk: Path, tmp_path: Path) -> None:
    code, said = run(
        desk, "DESK/sklearn.csv", "DESK/clam", "DESK/stamp", "--patients", "DESK/patients.csv", "--costs",
        "DESK/costs.csv", "--positive", "MSIH", "--reference", "sklearn", "--out", str(tmp_path / "out"),
    )  # fmt: skip
    assert code == 0, said
    assert "stamp is worse than" in said
    verdict = json.loads((tmp_path / "out" / "verdict.json").read_text())
    assert {arm["arm"]: arm["cost"] for arm in verdict["arms"]} == {"sklearn": 3.2, "clam": 2.1, "stamp": 0.4}
    assert [(row["arm"], row["base"]) for row in verdict["tables"][0]["rows"]] == [
        ("clam", "sklearn"),
        ("stamp", "sklearn"),
    ]
    assert verdict["n_patients"] == 138
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Which of these predicts as well as the others" in page
    assert "Each arm against sklearn" in page
    results = pd.read_csv(tmp_path / "out" / "results.csv")
    assert len(results) == 9
    assert set(results["arm"]) == {"sklearn", "clam", "stamp"}


def test_the_verdict_is_that_of_judge_arms_on_the_same_numbers(desk: Path, tmp_path: Path) -> None:
    settings = CompareSettings(positive="MSIH", n_left_out=1)
    tables = {"sklearn": desk / "sklearn.csv", "clam": desk / "clam"}
    compared = compare_tables(tables, tmp_path / "out", settings=settings, patients=desk / "patients.csv")
    frame = pd.read_parquet(tmp_path / "out" / "predictions.parquet")
    judged = judge_arms(frame, n_left_out=1)
    assert compared.verdict.as_json() == judged.as_json()
    assert compared.record.files == hash_tables(tmp_path / "out")
    assert judge_again(tmp_path / "out").as_json() == judged.as_json()


def test_without_costs_nothing_is_called_cheap(desk: Path, tmp_path: Path) -> None:
    code, said = run(desk, "DESK/sklearn.csv", "DESK/stamp", "--positive", "MSIH", "--out", str(tmp_path / "out"))
    assert code == 0, said
    assert "cheapest" not in said
    assert "No costs were given" in said
    page = (tmp_path / "out" / "report.html").read_text()
    assert "cheapest" not in page
    assert "seconds a slide" not in page


def test_a_run_and_a_table_of_ones_own_are_compared(desk: Path, tmp_path: Path) -> None:
    truth = make_truth(140)
    (tmp_path / "run").mkdir()
    write_ours(truth, tmp_path).rename(tmp_path / "run" / "predictions.csv")
    compared = compare_tables(
        {"ours": tmp_path / "run", "stamp": desk / "stamp"},
        tmp_path / "out",
        settings=CompareSettings(positive="MSIH"),
    )
    assert [arm.arm for arm in compared.verdict.arms] == ["ours", "stamp"]


def test_patients_that_one_tool_lost_are_left_out_and_said(desk: Path, tmp_path: Path) -> None:
    short = pd.read_csv(desk / "sklearn.csv", index_col=0)
    short[short["patient_id"] != "P07"].to_csv(tmp_path / "short.csv")
    compared = compare_tables(
        {"whole": desk / "sklearn.csv", "short": tmp_path / "short.csv"},
        tmp_path / "out",
        settings=CompareSettings(positive="MSIH"),
    )
    assert (compared.verdict.n_patients, compared.verdict.n_lost) == (137, 1)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("arm,price\na,1\n", "needs the columns arm"),
        ("arm,cost\na,0\n", "above 0"),
        ("arm,cost\na,x\n", "above 0"),
        ("arm,cost\na,1\na,2\n", "two rows"),
        ("arm,cost\na,1\n", "no cost of arm 'b'"),
    ],
)
def test_costs_that_cannot_be_are_one_line(content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "costs.csv").write_text(content)
    with pytest.raises(CohortError, match=said):
        load_given_costs(tmp_path / "costs.csv", ["a", "b"])
