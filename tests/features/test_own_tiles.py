"""Tiles that nobody asked for are those that the encoder was made for; what it was not made for is refused."""

import dataclasses
from pathlib import Path

import h5py
import pytest

from lamella.cohort import CohortSlide
from lamella.encoders import EncoderSpec, RuntimeSettings
from lamella.errors import EncoderError, SettingsError
from lamella.features.extract import extract_cohort
from lamella.features.own_tiles import choose_tiles
from lamella.features.plan import CutSettings
from lamella.features.settings import ExtractSettings
from lamella.tiles import TileSpec
from tests.tiny import draw_tissue, save_slide

UNI, CONCH, RESNET = EncoderSpec("uni"), EncoderSpec("conch-v1.5"), EncoderSpec("resnet18@2")
FIXED = EncoderSpec("timm:vit_tiny_patch16_224@1", "random")


def test_what_is_asked_for_is_taken_and_the_rest_is_the_encoders_own() -> None:
    assert choose_tiles([UNI]) == (224, 0.5)
    assert choose_tiles([UNI], mpp=0.25) == (224, 0.25)
    assert choose_tiles([CONCH, UNI], tile_px=96, mpp=1.0) == (96, 1.0)
    assert choose_tiles([RESNET]) == choose_tiles([]) == (512, 0.5)
    assert choose_tiles([RESNET], tile_px=64, mpp=0.0) == (64, 0.0), "nought is a number, and refused as one"


@pytest.mark.parametrize("asked", [{}, {"mpp": 0.5}])
def test_encoders_that_want_different_tiles_do_not_share_them(asked: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match=r"'uni' is made for tiles of 224 px at 0.5 um/px and 'conch-v1.5' for 448"):
        choose_tiles([UNI, CONCH], **asked)
    assert choose_tiles([UNI, CONCH], tile_px=224) == (224, 0.5)


def test_a_bag_states_what_was_asked_and_seen_and_what_is_off_spec_is_refused_or_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAMELLA_HOME", str(tmp_path / "store"))
    path = save_slide(tmp_path / "S-0.tif", draw_tissue(0, width=300, height=220), mpp=0.5)
    slides = [CohortSlide(slide_id="S-0", path=path, patient_id="P-0", label=None)]
    settings = ExtractSettings(
        cut=CutSettings(spec=TileSpec(tile_px=56, mpp=0.5)),
        encoders=(FIXED,),
        runtime=RuntimeSettings(device="cpu", precision="fp32"),
    )
    report = extract_cohort(slides, settings, tmp_path / "out")
    with h5py.File(report.folder.features_path("S-0")) as file:
        stated = dict(file.attrs)
    assert (stated["seen_px"], stated["mpp_asked"], stated["mpp_seen"]) == (224, 0.5, 0.125)
    assert any("are resized to 224 px, and it sees 0.125 um/px" in note for note in report.notes)

    import lamella.features.extract as module
    import lamella.features.said as said

    def declare(name: str):
        return dataclasses.replace(find(name), trained_mpp=(0.5,))

    find = module.find_encoder
    monkeypatch.setattr(module, "find_encoder", declare)
    monkeypatch.setattr(said, "find_encoder", declare)
    with pytest.raises(EncoderError, match=r"would see 0\.125 um/px"):
        extract_cohort(slides, settings, tmp_path / "out")
    insisted = extract_cohort(slides, dataclasses.replace(settings, off_spec=True), tmp_path / "out")
    assert len(insisted.kept) == 1
    assert any("was trained at 0.5 um/px and sees 0.125 um/px" in note for note in insisted.notes)
