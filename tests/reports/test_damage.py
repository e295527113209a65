"""Records of a run or a study with values that cannot be: the page is refused in one line that names the folder."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from lamella.errors import LamellaError, ModelError
from lamella.files import parse_json_file
from lamella.reports.page import write_page
from tests.reports.fake_run import write_run
from tests.reports.page.fake_study import write_study

ODD: tuple[Any, ...] = (None, [], {}, "text", -1, 1e300, [[]], {"a": []}, True, [None])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    write_run(folder, n_slides=12, n_drawn=0)
    return folder


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    write_study(folder, n_drawn=0)
    return folder


def list_places(content: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """List where values stand in JSON, the first of each list alone."""
    inner = list(content.items()) if isinstance(content, dict) else []
    inner += enumerate(content[:1]) if isinstance(content, list) else []
    return [at, *(place for key, value in inner for place in list_places(value, (*at, key)))]


def replace(content: Any, place: tuple[Any, ...], value: Any) -> Any:
    """Return JSON with another value at a place."""
    if not place:
        return value
    copy = content.copy()
    copy[place[0]] = replace(content[place[0]], place[1:], value)
    return copy


def damage(folder: Path, name: str, n: int, write: Any) -> None:
    """Write a page of `n` damaged forms of a record: it is written, or refused in a line of ours."""
    rng, path = random.Random(name), folder / name
    whole = json.loads(path.read_text(encoding="utf-8"))
    places, said = list_places(whole), []
    for _ in range(n):
        path.write_text(json.dumps(replace(whole, rng.choice(places), rng.choice(ODD))), encoding="utf-8")
        try:
            write(folder)
        except LamellaError as error:
            said.append(str(error))
    path.write_text(json.dumps(whole), encoding="utf-8")
    assert all(len(line.splitlines()) == 1 and (str(folder) in line or name in line) for line in said), said


@pytest.mark.parametrize("name", ["run.json", "metrics.json"])
def test_a_run_with_odd_values_is_refused_or_shown(run: Path, tmp_path: Path, name: str) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    damage(copy, name, 12, write_page)
    write_page(copy)


@pytest.mark.parametrize("name", ["study.json", "verdict.json", "metrics.json", "controls.json"])
def test_a_study_with_odd_values_is_refused_or_shown(study: Path, tmp_path: Path, name: str) -> None:
    copy = shutil.copytree(study, tmp_path / "study")
    damage(copy, name, 8, write_page)
    write_page(copy)


def test_the_refusal_names_folder_and_remedy(study: Path, run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(study, tmp_path / "study")
    content = parse_json_file(copy / "study.json")
    (copy / "study.json").write_text(json.dumps(content | {"arms": 7}))
    with pytest.raises(ModelError, match=r"study.json' is damaged \(arms: .*\). Run `lamella study` again"):
        write_page(copy)
    other = shutil.copytree(run, tmp_path / "run")
    content = parse_json_file(other / "run.json")
    (other / "run.json").write_text(json.dumps(content | {"settings": [1]}))
    with pytest.raises(ModelError, match=r"run.json' is damaged \(settings: .*\). Run `lamella run` again"):
        write_page(other)


@pytest.mark.parametrize(
    "content", [b"slide_id,label\n\xff\xfe,a\n", "slide_id,label\nS-1,a\n".encode("utf-16"), b"\xe9"]
)
def test_a_table_that_is_no_text_is_one_line(run: Path, tmp_path: Path, content: bytes) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "predictions.csv").write_bytes(content)
    with pytest.raises(ModelError, match=r"predictions\.csv"):
        write_page(copy)


@pytest.mark.parametrize("content", ["{}", '{"a": {"b": []}}', '{"classes": ["x", "y"]}'])
def test_a_record_that_names_no_classes_or_settings_is_refused(run: Path, tmp_path: Path, content: str) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "run.json").write_text(content)
    with pytest.raises(LamellaError, match=r"run.json' is damaged \((classes|settings): Field required\)"):
        write_page(copy)
