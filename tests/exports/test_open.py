"""An export is opened as it was written or not at all: no file changed, no code run, nothing fetched."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch

from lamella.encoders import find_encoder
from lamella.encoders.tuned import SeenSlides, save_encoder_file
from lamella.errors import ModelError
from lamella.exports.card import hash_card, load_card
from lamella.exports.open import open_export, open_predictor
from lamella.files import find_sha256, parse_json_file


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_file_that_differs_or_is_gone_is_refused(model: Path, tmp_path: Path) -> None:
    names = load_card(model).files
    assert {"encoder.safetensors", "encoder.xml", "encoder.bin", "encoder.json", "reference.npz", "seen.json"} <= {
        *names
    }
    assert len([name for name in names if name.startswith("heads/")]) == 12
    for name in names:
        copy = shutil.copytree(model, tmp_path / "copy")
        content = bytearray((copy / name).read_bytes())
        content[len(content) // 2] ^= 1
        (copy / name).write_bytes(content)
        with pytest.raises(ModelError, match=f"'{name}' of .* is not the file that was exported"):
            open_export(copy)
        (copy / name).unlink()
        with pytest.raises(ModelError, match=f"lacks '{name}'"):
            open_export(copy)
        shutil.rmtree(copy)


def test_a_card_that_was_changed_is_refused(model: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(model, tmp_path / "copy")
    card = parse_json_file(copy / "model.json")
    card["threshold"]["value"] = 0.01
    (copy / "model.json").write_text(json.dumps(card))
    with pytest.raises(ModelError, match="is not as it was written"):
        open_predictor(copy)
    card["format_version"] = 2
    (copy / "model.json").write_text(json.dumps(card))
    with pytest.raises(ModelError, match="format version 2"):
        open_predictor(copy)


def test_a_folder_of_others_runs_no_code_and_fetches_nothing(model: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(model, tmp_path / "copy")
    card = parse_json_file(copy / "model.json")
    for network in ("evil.py:build", "hf-hub:owner/name"):
        evil = dataclasses.replace(find_encoder(str(model / "encoder.safetensors")), network=network)
        save_encoder_file({"a": torch.zeros(1)}, evil, copy / "encoder.safetensors", seen=SeenSlides(), trained={})
        card["files"]["encoder.safetensors"] = find_sha256(copy / "encoder.safetensors")
        (copy / "model.json").write_text(json.dumps(card | {"card_sha256": hash_card(card)}))
        with pytest.raises(ModelError, match="none of timm's"):
            open_export(copy)
