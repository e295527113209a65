"""lamella split, run as a user runs it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lamella.cli import build_app
from lamella.cohort import list_rounds, load_cohort


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """Twelve slides of nine patients in three batches."""
    rows = ["file,diagnosis,patient,site"]
    rows += [f"s/S-{n}.svs,{'yx'[n % 2]},P{n % 9},{'abc'[n % 3]}" for n in range(12)]
    path = tmp_path / "cohort.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


COLUMNS = ["--slide-col", "file", "--label-col", "diagnosis", "--patient-col", "patient", "--batch-col", "site"]


def run(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(build_app(), [str(argument) for argument in arguments])
    return done.exit_code, done.stdout, done.stderr


def test_folds_are_written_and_counted(cohort: Path, tmp_path: Path) -> None:
    code, out, err = run("split", cohort, "--out", tmp_path / "f" / "folds.csv", "--folds", 3, "--seed", 1, *COLUMNS)
    assert code == 0, err
    assert out.splitlines()[0].split() == ["fold", "patients", "slides", "x", "y"]
    assert len(out.splitlines()) == 4
    assert err.splitlines()[0] == "The positive label is 'y', the last one sorted; --positive chooses another."
    assert "Wrote '" in err
    assert len(list_rounds(load_cohort(tmp_path / "f" / "folds.csv"))) == 3


def test_a_holdout_is_one_round(cohort: Path, tmp_path: Path) -> None:
    code, out, err = run("split", cohort, "-o", tmp_path / "h.csv", "--holdout", "--json", "-q", *COLUMNS)
    assert (code, err) == (0, "")
    assert [row["split"] for row in json.loads(out)["counts"]] == ["train", "val", "test"]
    assert len(list_rounds(load_cohort(tmp_path / "h.csv"))) == 1


def test_batches_are_left_out_one_at_a_time(cohort: Path, tmp_path: Path) -> None:
    code, out, _ = run("split", cohort, "-o", tmp_path / "b.csv", "--folds", "batch", *COLUMNS)
    assert code == 0
    assert [line.split()[:2] for line in out.splitlines()] == [["fold", "batch"], ["0", "a"], ["1", "b"], ["2", "c"]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "cohort 'cohort.csv' has no column 'slide'; it has 'file', 'diagnosis', 'patient', 'site'. "
             "Pass --slide-col file."),
        ([*COLUMNS, "--folds", "many"], "--folds is 'many' and must be a number from 3, or batch. Pass --folds 5."),
        ([*COLUMNS, "--folds", "9"], "class 'x' has 6 patients and each of 9 folds needs one. "
                                     "Pass --folds 6, or add patients of it."),
        ([*COLUMNS, "--folds", "4", "--holdout"], "--holdout and --folds ask for two different divisions. "
                                                  "Pass one of them."),
        ([*COLUMNS, "--positive", "z", "-q"], "no slide has the label 'z' that is to be the positive one; "
                                        "the labels are 'x', 'y'. Pass --positive y."),
    ],
)  # fmt: skip
def test_what_cannot_be_split_is_said_in_one_line(
    cohort: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    code, _, err = run("split", cohort, "-o", tmp_path / "x.csv", *options)
    assert code == 1
    assert err.splitlines()[-1] == message
    assert not (tmp_path / "x.csv").exists()


def test_the_cohort_itself_is_never_overwritten(cohort: Path) -> None:
    before = cohort.read_bytes()
    code, _, err = run("split", cohort, "-o", cohort, *COLUMNS)
    assert code == 1
    assert "is the cohort itself" in err
    assert cohort.read_bytes() == before
