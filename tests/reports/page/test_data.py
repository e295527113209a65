"""The data file: every number of a page, from which the same page is made again, alone or beside others."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from lamella.errors import ModelError, SettingsError
from lamella.files import parse_json_file
from lamella.reports.page import build_page, write_page, write_report
from lamella.reports.page.data import load_data, save_data
from lamella.reports.page.parts import Card, Charts, Picture, Slides, Table
from lamella.reports.page.pictures import inline_slides
from tests.reports.fake_run import write_run
from tests.reports.page.fake_study import write_study


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("home")
    write_run(home / "run", n_drawn=1)
    write_study(home / "study", n_drawn=1, n_slides=60)
    for name in ("run", "study"):
        write_page(home / name)
    return {name: home / name for name in ("run", "study")}


@pytest.mark.parametrize("name", ["run", "study"])
def test_what_is_written_is_read_back(folders: dict[str, Path], name: str) -> None:
    page = build_page(folders[name])
    assert load_data(folders[name] / "report.parquet") == page
    tables = [block for block in page.list_blocks() if isinstance(block, Table) and block.rows]
    charts = [chart for block in page.list_blocks() if isinstance(block, Charts) for chart in block.charts]
    frame = pd.read_parquet(folders[name] / "report.parquet")
    assert set(frame["part"]) == {part.key for part in (*tables, *charts)}
    assert len(tables) >= 8
    assert len(charts) >= 6


def test_numbers_are_whole_where_the_page_rounds_them(folders: dict[str, Path]) -> None:
    frame = pd.read_parquet(folders["study"] / "report.parquet")
    cells = frame[(frame["part"] == "arms") & (frame["form"] == "table")]
    verdict = parse_json_file(folders["study"] / "verdict.json")
    aucs = cells[cells["column"] == "AUC"]
    assert sorted(aucs["value"]) == sorted(arm["auc"] for arm in verdict["arms"])
    assert all(len(text) == 5 for text in aucs["text"])
    intervals = cells[cells["column"] == "95% interval"]
    assert sorted(zip(intervals["low"], intervals["high"], strict=True)) == sorted(
        tuple(arm["interval"]) for arm in verdict["arms"]
    )
    marked = cells[cells["mark"] == "best"]
    assert set(marked["badges"]) == {"highest AUC"}


def test_the_page_is_made_again_from_its_numbers_alone(folders: dict[str, Path], tmp_path: Path) -> None:
    for name in ("run", "study"):
        bare = tmp_path / name
        bare.mkdir()
        shutil.copy(folders[name] / "report.parquet", bare)
        text = write_report([bare]).read_text(encoding="utf-8")
        whole = (folders[name] / "report.html").read_text(encoding="utf-8")
        assert "<img" in whole
        assert "<img" not in text
        assert text[: text.index('<section id="slides">')] == whole[: whole.index('<section id="slides">')]
        assert text[text.index('<section id="cohort">') :] == whole[whole.index('<section id="cohort">') :]


def test_beside_its_folder_the_page_is_the_same_to_the_byte(folders: dict[str, Path], tmp_path: Path) -> None:
    copy = shutil.copytree(folders["run"], tmp_path / "run")
    (copy / "report.html").unlink()
    assert write_report([copy]) == copy / "report.html"
    assert (copy / "report.html").read_bytes() == (folders["run"] / "report.html").read_bytes()


def test_a_folder_without_numbers_is_read_from_its_records(folders: dict[str, Path], tmp_path: Path) -> None:
    copy = shutil.copytree(folders["run"], tmp_path / "run")
    (copy / "report.parquet").unlink()
    (copy / "index.html").write_text("<!DOCTYPE html><title>Lamella: the page of version 0.1.0</title>")
    write_report([copy])
    assert (copy / "report.html").read_bytes() == (folders["run"] / "report.html").read_bytes()
    assert (copy / "report.parquet").exists()
    assert not (copy / "index.html").exists()


def test_a_file_that_is_no_page_of_ours_stays(folders: dict[str, Path], tmp_path: Path) -> None:
    copy = shutil.copytree(folders["run"], tmp_path / "run")
    (copy / "index.html").write_text("<title>My own list</title>")
    write_page(copy)
    assert (copy / "index.html").read_text() == "<title>My own list</title>"


def test_runs_and_studies_stand_side_by_side_on_one_page(folders: dict[str, Path], tmp_path: Path) -> None:
    out = write_report([folders["study"], folders["run"]], tmp_path / "both.html")
    text = out.read_text(encoding="utf-8")
    frame = pd.read_parquet(tmp_path / "both.parquet")
    arms = frame[(frame["part"] == "side-by-side") & (frame["column"] == "AUC")]
    model = json.loads((folders["run"] / "metrics.json").read_text())["arms"]["model"]
    assert model["patients"]["auc"]["value"] in arms["value"].tolist()
    verdict = parse_json_file(folders["study"] / "verdict.json")
    assert {arm["auc"] for arm in verdict["arms"]} < set(arms["value"])
    for said in ("study: The answer", "run: The answer", "Arms of different folders need not"):
        assert said in text
    ids = [part.split('"')[0] for part in text.split(' id="')[1:]]
    assert len(ids) == len(set(ids))
    assert text.count("<article") == 2
    assert str(tmp_path) not in text


def test_folders_of_the_same_name_are_told_apart(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    shutil.copytree(folders["run"], tmp_path / "other" / "run")
    text = write_report([folders["run"], tmp_path / "other" / "run"], tmp_path / "both.html").read_text()
    assert "run (2): The answer" in text


@pytest.mark.parametrize("content", [b"", b"PAR1 and nothing"])
def test_a_damaged_file_is_one_line(folders: dict[str, Path], tmp_path: Path, content: bytes) -> None:
    copy = shutil.copytree(folders["run"], tmp_path / "run")
    (copy / "report.parquet").write_bytes(content)
    with pytest.raises(
        ModelError, match=r"report.parquet' is damaged .* Remove it, and run `lamella report` again"
    ) as raised:
        write_report([copy])
    assert len(str(raised.value).splitlines()) == 1


def test_a_row_that_lacks_a_cell_is_damage(folders: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "report.parquet"
    table = pq.read_table(folders["run"] / "report.parquet")
    keep = [not (part == "arms" and row == 0 and at == 1) for part, row, at in zip(
        *(table[name].to_pylist() for name in ("part", "row", "position")), strict=True)]  # fmt: skip
    pq.write_table(table.filter(keep), path)
    with pytest.raises(ModelError, match="a row of 'arms' has not the 7 cells of its head"):
        load_data(path)


def test_a_file_of_a_later_version_is_passed_over(folders: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "report.parquet"
    table = pq.read_table(folders["run"] / "report.parquet")
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, b"lamella.format": b"2"}), path)
    assert load_data(path) is None
    assert load_data(tmp_path / "absent.parquet") is None


def test_a_name_that_leads_out_of_the_folder_shows_no_picture(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    outside = folders["run"] / "heatmaps" / "S-400" / "attention.png"
    shutil.copy(outside, tmp_path / "secret.png")
    for path in ("../secret.png", str(tmp_path / "secret.png")):
        card = Card(name="S-1", tags=(), is_wrong=False, pictures=(Picture(name="attention", path=path),))
        slides = Slides(cards=(card,), positive="tumour", empty="none")
        shown = inline_slides(slides, tmp_path / "folder", max_slides=9, max_bytes=10**7)
        assert (len(shown.cards), shown.n_unreadable) == (0, 1)


def test_what_cannot_be_reported_is_said(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"one page of several folders needs a name. Pass --out report.html"):
        write_report(list(folders.values()))
    with pytest.raises(SettingsError, match=r"must end in .html"):
        write_report([folders["run"]], tmp_path / "page")
    with pytest.raises(ModelError, match=r"holds no run .* and no study"):
        write_report([tmp_path])


def test_the_same_numbers_are_the_same_bytes(folders: dict[str, Path], tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_data(build_page(folders["run"]), tmp_path / f"{name}.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
