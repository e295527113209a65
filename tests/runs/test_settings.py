"""What a finished run says of its settings makes new slides' bags."""

import dataclasses

import pytest

from lamella.encoders import EncoderSpec, RuntimeSettings
from lamella.features.plan import CutSettings
from lamella.features.settings import ExtractSettings
from lamella.runs.settings import RunSettings, describe_settings, restore_extract_settings
from lamella.tiles import TileSpec

SETTINGS = RunSettings(
    extract=ExtractSettings(
        cut=CutSettings(spec=TileSpec(tile_px=96, mpp=0.7, stride_px=48, min_tissue=0.3), tissue="otsu"),
        encoders=(EncoderSpec("resnet18@2", "random"),),
        dtype="float32",
    )
)


@pytest.mark.parametrize(
    ("precision", "of_new_slides"), [("auto", "auto"), ("fp32", "fp32"), ("bf16", "bf16"), ("int8", "auto")]
)
def test_new_slides_are_cut_and_encoded_as_the_runs_were_but_not_in_int8(precision: str, of_new_slides: str) -> None:
    """int8 has the scales of the run's own tiles."""
    runtime = RuntimeSettings(precision=precision)
    asked = dataclasses.replace(SETTINGS, extract=dataclasses.replace(SETTINGS.extract, runtime=runtime))
    restored = restore_extract_settings(describe_settings(asked), asked.extract.encoder)
    expected = dataclasses.replace(asked.extract, runtime=RuntimeSettings(precision=of_new_slides), off_spec=True)
    assert restored == expected
