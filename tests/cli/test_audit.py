"""lamella audit and lamella doctor, run as a user runs them."""

import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lamella.cli import build_app
from tests.audits.test_cohort import draw_tissue_picture, save_picture

TILES = ["--tile-px", "128", "--mpp", "0.5"]


def run(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(build_app(), [str(argument) for argument in arguments])
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """Two good slides."""
    for n in range(2):
        save_picture(tmp_path / f"S-{n}.png", draw_tissue_picture(n))
    path = tmp_path / "cohort.csv"
    path.write_text("slide,label\nS-0.png,x\nS-1.png,y\n")
    return path


def test_a_good_cohort_is_told_with_what_it_will_cost(cohort: Path, tmp_path: Path) -> None:
    code, out, err = run("audit", cohort, "--out", tmp_path / "a.csv", "--slide-mpp", 0.5, *TILES)
    assert code == 0, err
    assert out.splitlines()[1].split()[:5] == ["S-0", "png", "1600", "x", "1100"]
    assert " of disk." in err
    with (tmp_path / "a.csv").open(newline="") as stream:
        assert [row["slide_id"] for row in csv.DictReader(stream)] == ["S-0", "S-1"]


def test_what_would_go_wrong_is_named_and_exit_1(cohort: Path, tmp_path: Path) -> None:
    cohort.write_text(cohort.read_text() + "gone.png,y\n")
    code, _, err = run("audit", cohort, "-o", tmp_path / "a.csv", "-q", *TILES)
    assert code == 1
    lines = err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["S-0", "S-1", "gone"]
    assert "--slide-mpp" in lines[0]
    assert "there is no file" in lines[2]


def test_json_holds_everything(cohort: Path, tmp_path: Path) -> None:
    code, out, _ = run("audit", cohort, "-o", tmp_path / "a.csv", "--slide-mpp", 0.5, "--json", "-q", *TILES)
    told = json.loads(out)
    assert code == 0
    assert told["ok"]
    assert told["tiles"] == sum(slide["n_tiles"] for slide in told["slides"])
    assert told["slides"][0]["problems"] == []


def test_slides_without_labels_can_be_looked_at(cohort: Path, tmp_path: Path) -> None:
    cohort.write_text("slide\nS-0.png\n")
    code, _, err = run("audit", cohort, "-o", tmp_path / "a.csv", "--slide-mpp", 0.5, *TILES)
    assert (code, "--label-col" in err) == (1, True)
    code, _, _ = run("audit", cohort, "-o", tmp_path / "a.csv", "--slide-mpp", 0.5, "--unlabelled", *TILES)
    assert code == 0


def test_the_doctor_tells_machines_too() -> None:
    code, out, _ = run("doctor", "--json")
    assert code == 0
    assert {"topic", "name", "here", "detail", "remedy"} == set(json.loads(out)[0])
