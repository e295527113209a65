"""`lamella encoders`: groups, and filters that each leave out what they say."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lamella.cli import build_app
from lamella.encoders import find_encoder, list_encoders


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAMELLA_HOME", str(tmp_path))


def run(*options: str) -> list[dict[str, Any]]:
    done = CliRunner().invoke(build_app(), ["encoders", *options, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.output)


def test_encoders_are_listed_in_groups_and_json_has_the_whole_card() -> None:
    rows = run()
    assert [row["encoder"] for row in rows] == [card.name for card in list_encoders()]
    groups = [row["group"] for row in rows]
    assert list(dict.fromkeys(groups)) == ["convolutional", "pathology", "general"]
    assert groups == sorted(groups, key=["convolutional", "pathology", "general"].index)
    virchow2 = next(row for row in rows if row["encoder"] == "virchow2")
    assert virchow2["um/px"] == "0.25, 0.5, 1, 2"
    assert virchow2["pooling"] == "token+mean"
    assert virchow2["commercial use"] is False
    assert "Zimmermann" in virchow2["citation"]


def test_each_filter_leaves_out_what_it_says() -> None:
    cheap = run("--like", "vit", "--licence", "permissive", "--max-gflops", "20")
    assert [row["encoder"] for row in cheap] == ["dinov2-s", "dinov2-s-reg"]
    assert {row["licence"] for row in run("--licence", "NC-ND")} == {"cc-by-nc-nd-4.0"}
    assert all(find_encoder(row["encoder"]).commercial_use for row in run("--licence", "commercial"))
    assert {row["group"] for row in run("--like", "pathology")} >= {"pathology"}
    assert all("TCGA" in row["trained on"] for row in run("--like", "tcga"))
    assert max(row["GFLOP a tile"] for row in run("--max-gflops", "5")) <= 5
    here = [row["encoder"] for row in run("--here")]
    assert "efficientnet-lite0" in here
    assert "uni" not in here


def test_a_filter_that_leaves_nothing_says_so() -> None:
    assert run("--like", "vit", "--max-gflops", "0.1") == []
    done = CliRunner().invoke(build_app(), ["encoders", "--like", "nothing of the kind"])
    assert done.exit_code == 0
    assert "No encoder is like that. Leave out one of --like" in done.output


def test_the_table_leaves_long_columns_to_json() -> None:
    done = CliRunner().invoke(build_app(), ["encoders", "--like", "uni2"])
    head, row = done.output.splitlines()[:2]
    assert "citation" not in head
    assert row.split()[:3] == ["pathology", "uni2-h", "1,536"]
