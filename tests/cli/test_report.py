"""`lamella report` writes a page again, or one of several folders."""

import json
from pathlib import Path

from typer.testing import CliRunner

from lamella.cli import build_app
from lamella.reports.page import write_page
from tests.reports.fake_run import write_run


def call(*arguments: object) -> tuple[int, str]:
    ended = CliRunner().invoke(build_app(), ["report", *map(str, arguments)])
    return ended.exit_code, ended.output


def test_a_page_is_written_again_and_two_side_by_side(tmp_path: Path) -> None:
    first, second = (write_run(tmp_path / name, n_slides=20, n_drawn=0, seed=n) for n, name in enumerate("ab"))
    write_page(first)
    (first / "report.html").unlink()
    code, said = call(first)
    assert code == 0
    assert f"The page is '{first / 'report.html'}'." in " ".join(said.split())
    assert (first / "report.html").exists()
    code, said = call(first, second, "--out", tmp_path / "both.html", "--json")
    assert code == 0
    assert json.loads(said) == {"page": str(tmp_path / "both.html"), "data": str(tmp_path / "both.parquet")}
    assert "Runs and studies side by side" in (tmp_path / "both.html").read_text()
    code, said = call(first, second)
    assert (code, said.splitlines()) == (1, ["one page of several folders needs a name. Pass --out report.html"])
