"""The card of an export is loaded whole, or it is refused in one line."""

import json
from pathlib import Path

import pytest

from lamella.errors import ModelError
from lamella.exports.card import ExportCard, ExportedHead, OnnxFiles, TrainedOn, hash_card, load_card
from lamella.files import parse_json_file
from lamella.runs.record import RunRecord, SettingsRecord, StageTwoRecord
from tests.exports.cards import make_card


def test_a_card_is_written_to_the_byte_as_it_was_loaded(model: Path, tmp_path: Path) -> None:
    load_card(model).save(tmp_path / "model.json")
    assert (tmp_path / "model.json").read_bytes() == (model / "model.json").read_bytes()


def test_keys_of_other_versions_are_kept(tmp_path: Path) -> None:
    ExportCard.model_validate(make_card({}) | {"of_tomorrow": {"x": [1]}}).save(tmp_path / "model.json")
    assert parse_json_file(tmp_path / "model.json")["of_tomorrow"] == {"x": [1]}
    assert load_card(tmp_path).arm == "resnet18@1"


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"members": []}, "members"),
        ({"classes": None}, "classes"),
        ({"encoders": {"encoder": {}}}, "encoders.encoder.name"),
        ({"threshold": {"value": 0.5}}, "threshold.rule"),
        ({"files": ["a"]}, "files"),
    ],
)
def test_a_card_that_lacks_something_is_refused_naming_it(tmp_path: Path, changes: dict, where: str) -> None:
    content = make_card({}) | changes
    (tmp_path / "model.json").write_text(json.dumps(content | {"card_sha256": hash_card(content)}))
    with pytest.raises(ModelError, match=f"lacks {where}, or holds something else there. Get the folder again"):
        load_card(tmp_path)


def test_the_page_of_formats_names_every_entry() -> None:
    page = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
    section = page[page.index("## run.json") : page.index("## Feature bags")]
    for model in (RunRecord, SettingsRecord, StageTwoRecord, ExportCard, TrainedOn, ExportedHead, OnnxFiles):
        for name in model.model_fields:
            assert f"`{name}`" in section, f"{model.__name__}.{name}"


def test_a_threshold_of_a_later_version_is_read(tmp_path: Path) -> None:
    threshold = {"value": 0.5, "rule": "youden", "note": "", "n_positive": 1, "n_negative": 1, "prevalence": 0.5}
    content = make_card({}) | {"threshold": threshold | {"of_tomorrow": 1}}
    (tmp_path / "model.json").write_text(json.dumps(content | {"card_sha256": hash_card(content)}))
    read = load_card(tmp_path).threshold
    assert read is not None
    assert {name: getattr(read, name) for name in threshold} == threshold
