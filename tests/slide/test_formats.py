"""No file of any kind is read wrong, and the table in the docs says what comes of each."""

from pathlib import Path

from tests.slide.format_table import BEGIN, END, format_table, try_all


def test_every_kind_of_file_is_read_right_or_refused_as_the_docs_say(tmp_path):
    outcomes = try_all(tmp_path)
    assert [seen for row in outcomes.values() for seen in row if "WRONG" in seen] == []
    assert sum(map(len, outcomes.values())) >= 150
    page = (Path(__file__).resolve().parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
    assert page.partition(BEGIN)[2].partition(END)[0].strip() == format_table(outcomes)
