"""Finished runs, exported models and attention."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from lamella.files import write_json, write_record
from tests.exports.cards import make_card
from tests.gallery.scenes.encoders import write_encoder
from tests.gallery.scenes.tables import write_table

CLASSES = ("benign", "malignant")


def save_run(
    folder: str, *, models: int = 1, patients: Sequence[str] = ("P-99",), classes: Sequence[str] = CLASSES
) -> None:
    """Write a finished run of an encoder of one's own, whose file has been changed since."""
    from lamella.mil import fit_model, save_model
    from lamella.mil.settings import TrainSettings

    write_encoder("mine.py")
    settings = {
        "encoder": "mine.py:build",
        "weights": "pretrained",
        "tile_px": 64,
        "mpp": 0.5,
        "stride_px": 64,
        "min_tissue": 0.5,
        "tissue": "glass",
        "max_upsample": 1.1,
        "dtype": "float16",
        "precision": "auto",
    }
    write_record(Path(folder) / "run.json", {"classes": classes, "positive": classes[1], "settings": settings})
    write_json(Path(folder) / "local" / "encoder.json", {"name": "mine.py:build", "weights": "auto"})
    Path(folder, "models").mkdir()
    rng = np.random.default_rng(0)
    bags = {f"S-{i:04d}": rng.normal(i % 2, 1, (7, 9)).astype(np.float32) for i in range(4)}
    labels = {name: classes[i % 2] for i, name in enumerate(bags)}
    names = tuple(bags)
    train = TrainSettings(epochs=1)
    for i in range(models):
        model = fit_model(bags, labels, train=names[:2], val=names[2:], classes=classes, settings=train)
        provenance = {
            "encoder": "mine.py:build",
            "fingerprint": hashlib.sha256(b"as it was").hexdigest(),
            "tile_px": 64,
            "mpp": 0.5,
            "seen_patients": list(patients),
            "seen_images": [],
        }
        model = dataclasses.replace(model, positive=classes[1], provenance=provenance)
        save_model(model, Path(folder) / "models" / f"fold{i}" / "seed0")


def save_export(
    folder: str, *, files: Mapping[str, str] | None = None, version: int | None = None, **changes: str
) -> None:
    """Write of an exported model what is looked at before its encoder.

    Args:
        folder: The model's.
        files: What the card lists, in place of what is there.
        version: Of the format, in place of today's.
        **changes: What is changed in the card after it was hashed.
    """
    from lamella.exports.card import CARD, hash_card
    from lamella.files import find_sha256

    write_json(Path(folder) / "seen.json", {"salt": "0123456789abcdef", "patients": [], "images": []})
    files = files or {"seen.json": find_sha256(Path(folder) / "seen.json")}
    card = make_card(files)
    card |= {} if version is None else {"format_version": version}
    write_json(Path(folder) / CARD, card | {"card_sha256": hash_card(card)} | changes)


def save_tested_run(folder: str) -> None:
    """Write a finished run that knows where its slides lie, each of which it has tested."""
    save_run(folder, models=3)
    rows = [f"../../S-{412 + i:04d}.tif,{('benign', 'malignant')[i // 3 % 2]},{i % 3}" for i in range(12)]
    write_table(f"{folder}/local/cohort.csv", "slide,label,fold", *rows)


def save_attention_file(path: str, *, slide_size: tuple[int, int], image: str = "") -> None:
    """Write attention over three tiles of a slide of `slide_size` level-0 pixels."""
    from lamella.runs.attention import AttentionRecord, save_attention

    record = AttentionRecord(
        slide_id=Path(path).stem,
        attention=np.array([0.5, 0.3, 0.2], np.float32),
        coords_l0=np.array([[0, 64], [64, 64], [128, 192]], np.int64),
        tile_l0=(64.0, 64.0),
        tile_px=64,
        mpp=0.5,
        slide_size=slide_size,
        slide_mpp=(0.5, 0.5),
        key="",
        image=image,
    )
    save_attention(record, Path(path))


def change_record(path: str) -> None:
    """Change a text of a record after it was written."""
    record = Path(path)
    record.write_text(record.read_text(encoding="utf-8").replace("malignant", "tumour"), encoding="utf-8")
