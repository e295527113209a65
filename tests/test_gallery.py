"""Every error a user can meet is one clear line that names the thing and ends with what to do."""

import csv
import inspect
import re
from collections import Counter
from pathlib import Path

import pytest

import lamella.errors
from lamella.errors import LamellaError
from tests.gallery import CASES, STEPS
from tests.gallery.case import Case, Shown, show_case
from tests.gallery.page import read_page, render_case

PAGE = Path(__file__).resolve().parents[1] / "docs" / "troubleshooting.md"
UNWANTED = re.compile(r"\bplease\b|!|Traceback", re.IGNORECASE)  # words that tell a reader nothing


@pytest.fixture(scope="module")
def snapshot() -> dict[str, str]:
    """Messages by heading, as docs/troubleshooting.md has them."""
    return read_page(PAGE)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.heading)
def test_an_error_says_in_one_line_what_is_wrong_and_what_to_do(case: Case, snapshot: dict[str, str]) -> None:
    shown = show_case(case)
    assert shown.exception is None, shown.exception
    assert shown.exit_code == case.exit_code, shown.lines
    assert_names_each_slide_once(shown)
    assert case.names in shown.message
    assert not UNWANTED.search(shown.message), shown.message
    assert len(shown.message) < 330, "longer than a reader stays"
    assert shown.message == snapshot[case.heading], "docs/troubleshooting.md says otherwise: run make docs"


def assert_names_each_slide_once(shown: Shown) -> None:
    """One line; where slides could not be done, a line each that failures.csv repeats, and one that names that file."""
    if not shown.lines[-1].endswith("failures.csv'."):
        assert len(shown.lines) == 1, shown.lines
        return
    rows = list(csv.reader(shown.failures))
    assert len(shown.lines) == len(rows) + 1
    for line, (slide_id, stage, reason) in zip(shown.lines, rows, strict=False):
        assert line == f"{slide_id} ({stage}): {reason}"


def test_the_page_shows_every_case_once_under_its_step(snapshot: dict[str, str]) -> None:
    assert list(snapshot) == [case.heading for case in CASES]
    assert [name for name, n in Counter(case.heading for case in CASES).items() if n > 1] == []
    assert len({step.title for step in STEPS}) == len(STEPS)


def test_the_page_explains_every_case(snapshot: dict[str, str]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    for case in CASES:
        assert render_case(case, snapshot[case.heading]) in page, f"{case.heading}: run make docs"


def test_every_kind_of_error_is_in_the_gallery(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each class of `lamella.errors` is raised by one of its quick cases."""
    raised: set[str] = set()
    for kind in (LamellaError, *LamellaError.__subclasses__()):
        monkeypatch.setattr(kind, "__init__", _noting(raised))
    quick = {
        "CohortError": "The table is empty",
        "LeakageError": "A patient is in two splits",
        "SettingsError": "A resolution of tiles that cannot be",
        "SlideError": "The slide is empty",
        "ResolutionError": "The slide does not state its resolution",
        "TissueError": "The slide holds no tissue",
        "TileError": "A tile is larger than the slide",
        "EncoderError": "No encoder has that name",
        "WeightsError": "The weights are not on this machine",
        "BagError": "A file is no bag",
        "ModelError": "The folder holds no run",
        "MachineError": "The machine allows no more processes",
        "OutputError": "A file is in the way of the folder",
    }
    by_heading = {case.heading: case for case in CASES}
    for heading in quick.values():
        show_case(by_heading[heading])
    kinds = {name for name, kind in inspect.getmembers(lamella.errors, inspect.isclass)} - {"LamellaError"}
    assert set(quick) == kinds
    assert raised >= kinds


def _noting(raised: set[str]):
    def note(self: LamellaError, *message: object) -> None:
        raised.add(type(self).__name__)

    return note
