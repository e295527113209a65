"""The card of an export is loaded whole, or it is refused in one line."""

import json
from pathlib import Path

import pytest

from lamella.errors import ModelError
from lamella.exports.card import ExportCard, hash_card, load_card
from lamella.files import parse_json_file
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
