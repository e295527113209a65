"""JSON, YAML and cells of anyone: read as text, bounded in size and depth, refused in one line where they are none."""

import csv
import time
from pathlib import Path

import pytest

import lamella
from lamella.cells import unescape_cell
from lamella.errors import CohortError, LamellaError, ModelError, OutputError, SettingsError
from lamella.files import read_json, write_json, write_table
from lamella.reports.page import write_page
from lamella.runs.predict import open_run
from tests.test_hostile import invoke

BAD_JSON = {
    "deep": "[" * 100_000,
    "deep object": '{"a":' * 5_000 + "1" + "}" * 5_000,
    "list": "[1, 2]",
    "number": "7",
    "text": '"run"',
    "no text": b"\xff\xfe\x00{",
    "cut": '{"classes": ["a"',
    "a number of 5000 digits": '{"a": ' + "9" * 5_000 + "}",
    "empty": "",
}


@pytest.mark.parametrize("case", BAD_JSON)
def test_json_that_is_none_of_ours_is_one_line(tmp_path: Path, case: str) -> None:
    content = BAD_JSON[case]
    (tmp_path / "run.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ModelError, match=r"run\.json.* is damaged"):
        read_json(tmp_path / "run.json", made_by="lamella run", error=ModelError)
    with pytest.raises(LamellaError, match=r"damaged|no models"):
        open_run(tmp_path)
    code, said = invoke("predict", tmp_path, "new.tif", "--out", tmp_path / "out")
    assert (code, len(said.splitlines())) == (1, 1)
    with pytest.raises(LamellaError):
        lamella.load_regions(tmp_path / "run.json")
    (tmp_path / "study.json").write_bytes((tmp_path / "run.json").read_bytes())
    with pytest.raises(LamellaError):
        write_page(tmp_path)


def test_json_is_refused_by_size(tmp_path: Path) -> None:
    write_json(tmp_path / "big.json", {"a": "b" * 2000})
    with pytest.raises(OutputError, match=r"larger than 0 MB\. Run `lamella run` again"):
        read_json(tmp_path / "big.json", made_by="lamella run", max_bytes=1000)


LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)
BAD_YAML = {
    "laughs": (LAUGHS, "'\\*a' repeats another part"),
    "merge": ("a: &a {x: 1}\nb: {<<: *a}\n", "'\\*a' repeats another part"),
    "deep": ("a: " + "[" * 20_000, "nested more than 64 deep"),
    "deep objects": ("a: " + "{b: " * 5_000, "nested more than 64 deep"),
    "date": ("a: 2001-99-99\n", "holds a value that cannot be"),
    "tag": ("a: !!python/object/apply:os.system ['true']\n", "is not YAML"),
    "no text": (b"\xff\xfe\xff", "cannot be read"),
    "list": ("[1, 2]", "declares nothing"),
}


@pytest.mark.parametrize("case", BAD_YAML)
def test_yaml_that_unfolds_or_runs_is_one_line_at_once(tmp_path: Path, case: str) -> None:
    content, said = BAD_YAML[case]
    (tmp_path / "study.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    began = time.monotonic()
    with pytest.raises(SettingsError, match=said):
        lamella.load_design(tmp_path / "study.yaml")
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("cell", ["=1+1", "@SUM(A1)", "+cmd|' /C calc'!A0", "-2+3+cmd", "=HYPERLINK(0)"])
@pytest.mark.parametrize("column", ["slide_id", "patient_id", "label"])
def test_an_id_or_label_that_a_spreadsheet_would_run_is_refused(tmp_path: Path, cell: str, column: str) -> None:
    row = {"slide": "S-1.tif", "slide_id": "S-1", "patient_id": "P-1", "label": "a"} | {column: cell}
    other = {"slide": "S-2.tif", "slide_id": "S-2", "patient_id": "P-2", "label": "b"}
    with (tmp_path / "cohort.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(row))
        writer.writeheader()
        writer.writerows([row, other])
    with pytest.raises(CohortError, match=rf"column '{column}' (has|makes) .*in row 2\."):
        lamella.load_cohort(tmp_path / "cohort.csv")


@pytest.mark.parametrize("labels", [("+", "-"), ("3+", "0"), ("-1", "1"), ("+ve", "-ve"), ("++", "+")])
def test_signs_and_numbers_stay_labels(tmp_path: Path, labels: tuple[str, str]) -> None:
    rows = [{"slide": f"S-{i}.tif", "slide_id": f"S-{i}", "label": label} for i, label in enumerate(labels)]
    write_table(tmp_path / "cohort.csv", list(rows[0]), rows)
    assert set(lamella.load_cohort(tmp_path / "cohort.csv").classes) == set(labels)


@pytest.mark.parametrize("name", ["CON", "nul", "COM1.old", "a/b", "a\\b", "S-1.", "a" * 151, "lpt9", "..", "=S-1"])
def test_a_name_that_no_file_can_have_is_no_slide_id(tmp_path: Path, name: str) -> None:
    with (tmp_path / "cohort.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([["slide", "slide_id", "label"], ["x.tif", name, "a"], ["y.tif", "S-2", "b"]])
    with pytest.raises(CohortError, match=r"column 'slide_id' .*in row 2"):
        lamella.load_cohort(tmp_path / "cohort.csv")
    if "/" not in name and "\\" not in name and len(name) < 150:
        with pytest.raises(CohortError, match="gives its name to result files"):
            lamella.gather_slides([tmp_path / f"{name}.tif"])


def test_what_tables_say_is_text_to_a_spreadsheet_and_read_back_as_it_was(tmp_path: Path) -> None:
    reasons = ["=1+1", "'=1+1", "-2+3", "-1", "'tis", "@x\ty", "\tx", "plain"]
    write_table(tmp_path / "failures.csv", ["slide_id", "reason"], [{"slide_id": "S", "reason": r} for r in reasons])
    with (tmp_path / "failures.csv").open(encoding="utf-8", newline="") as stream:
        written = [row["reason"] for row in csv.DictReader(stream)]
    assert written == ["'=1+1", "''=1+1", "'-2+3", "-1", "'tis", "'@x\ty", "'\tx", "plain"]
    assert [unescape_cell(cell) for cell in written] == reasons
