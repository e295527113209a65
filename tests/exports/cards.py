"""A card of an exported model, as its file holds it."""

from collections.abc import Mapping

from pydantic import JsonValue

from lamella.exports.card import ExportCard, ExportedEncoder, ExportedHead, Figures, TrainedOn
from lamella.runs.record import SettingsRecord


def make_card(files: Mapping[str, str]) -> dict[str, JsonValue]:
    """Return what the card of a model of one encoder and one head holds, but for its own hash."""
    encoder = ExportedEncoder(
        name="resnet18@1", network="resnet18", depth=1, width=64, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2),
        pixels="RGB", resized_to_px=None, source="drawn", weights="random", trained_on=(), licence="not stated",
        fingerprint="0" * 64, openvino=None,
    )  # fmt: skip
    settings = SettingsRecord(
        encoder="resnet18@1", tile_px=64, mpp=0.5, stride_px=64, min_tissue=0.5, tissue="glass", max_upsample=1.1,
        dtype="float16", precision="auto",
    )  # fmt: skip
    trained_on = TrainedOn(
        n_slides=2, n_patients=2, n_tiles=18, n_slides_by_class={"benign": 1, "malignant": 1}, slide_mpp=(0.5, 0.5),
        formats={"generic-tiff": 2}, in_regions=False,
    )  # fmt: skip
    return ExportCard(
        format="lamella-export", format_version=1, lamella_version="9.0", made="2026-11-27", arm="resnet18@1",
        finetuned="frozen", classes=("benign", "malignant"), positive="malignant", threshold=None, settings=settings,
        encoders={"encoder": encoder},
        members=(ExportedHead(fold=0, seed=0, head="fold0-seed0", encoder="encoder"),),
        trained_on=trained_on, figures=Figures(), notes=(), pseudonyms=False, versions={}, limits=(),
        files=dict(files),
    ).as_json()  # fmt: skip
