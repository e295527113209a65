"""What is said of bags is kept in them: a resumed extraction says and decides what an undisturbed one does."""

import dataclasses
import json
from pathlib import Path

import h5py
import pytest

from lamella.cohort import CohortSlide
from lamella.encoders import EncoderSpec, RuntimeSettings
from lamella.encoders.runtime import opening
from lamella.encoders.runtime.checking import compare_depths
from lamella.features import stream
from lamella.features.extract import extract_cohort
from lamella.features.plan import CutSettings
from lamella.features.said import SlideNotes, find_settled, read_standing
from lamella.features.settings import ExtractSettings
from lamella.tiles import TileSpec
from tests.tiny import draw_tissue, save_slide

SETTINGS = ExtractSettings(
    cut=CutSettings(spec=TileSpec(tile_px=64, mpp=0.5)),
    encoders=(EncoderSpec("resnet18@1", "random"),),
    runtime=RuntimeSettings(device="cpu"),
    dtype="float32",
)


class Heard:
    """A progress that keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)

    def stage(self, name: str, total: int | None, unit: str):
        from lamella.progress import SilentProgress

        return SilentProgress().stage(name, total, unit)


@pytest.fixture
def slides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[CohortSlide]:
    """Four slides of few tiles; the second and third are taken for another resolution than they state."""
    monkeypatch.setenv("LAMELLA_HOME", str(tmp_path / "store"))
    found = []
    for i in range(4):
        path = save_slide(tmp_path / f"S-{i}.tif", draw_tissue(i, width=300 + 10 * i, height=220), mpp=0.5)
        found.append(CohortSlide(slide_id=f"S-{i}", path=path, patient_id=f"P-{i}", label=None))
    return [dataclasses.replace(one, slide_mpp=0.45) if i in (1, 2) else one for i, one in enumerate(found)]


def extract(slides: list[CohortSlide], out: Path, settings: ExtractSettings = SETTINGS):
    heard = Heard()
    report = extract_cohort(slides, settings, out, progress=heard)
    assert report.failures == ()
    return report, heard


@pytest.mark.parametrize("n_left", [0, 1, 2, 4])
def test_a_resumed_extraction_says_what_an_undisturbed_one_says(
    slides: list[CohortSlide], tmp_path: Path, n_left: int
) -> None:
    whole, aloud = extract(slides, tmp_path / "whole")
    assert any("random weights" in note for note in whole.notes)
    assert any("slide 'S-1' states 0.5 um/px" in note and "(and 1 more slides)" in note for note in whole.notes)
    assert sorted(aloud.said) == sorted(whole.notes)
    for slide in slides[:n_left]:
        whole.folder.features_path(slide.slide_id).unlink()
    resumed, aloud = extract(slides, tmp_path / "whole")
    assert len(resumed.done) == n_left
    assert resumed.notes == whole.notes
    assert sorted(aloud.said) == sorted(whole.notes)


@pytest.fixture
def strays(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let this processor have bf16, which comes too far from fp32; return the precisions that were checked."""
    checked = []

    def compare(ours, reference, widths, *, precision):
        checked.append(precision)
        checks = compare_depths(ours, reference, widths, precision=precision)
        return tuple(dataclasses.replace(c, cosine_mean=0.5) if precision == "bf16" else c for c in checks)

    monkeypatch.setattr(opening, "compare_depths", compare)
    monkeypatch.setattr(opening.machine, "cpu_precisions", lambda core: ("fp32", "bf16"))
    return checked


def test_a_precision_that_was_decided_is_neither_decided_nor_checked_again(
    slides: list[CohortSlide], tmp_path: Path, strays: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = extract(slides, tmp_path / "out")
    assert set(strays) == {"bf16", "fp32"}
    assert any("strays from fp32" in note for note in whole.notes)
    whole.folder.features_path("S-2").unlink()
    monkeypatch.setenv("LAMELLA_HOME", str(tmp_path / "cold"))
    monkeypatch.setattr(stream, "gather_check_tiles", lambda *_, **__: pytest.fail("nothing is to be checked"))
    strays.clear()
    resumed, _ = extract(slides, tmp_path / "out")
    assert (resumed.done, strays, resumed.notes) == (("S-2",), [], whole.notes)
    stated = [_read(whole.folder.features_path(one.slide_id)) for one in slides]
    assert len({(one["precision"], one["check_cosine"], one["check_tiles"], one["runtime"]) for one in stated}) == 1


@pytest.mark.parametrize("left", [["S-0"], ["S-0", "S-0"], [None, "S-1"], ["S-0", "S-3", "S-2"]])
def test_a_run_that_ended_between_two_depths_of_a_slide_ends_as_one_that_was_not_disturbed(
    slides: list[CohortSlide], tmp_path: Path, strays: list[str], monkeypatch: pytest.MonkeyPatch, left
) -> None:
    """Of each depth at most one bag is left."""
    depths = tuple(EncoderSpec(f"resnet18@{depth}", "random") for depth in (1, 2, 3))
    settings = dataclasses.replace(SETTINGS, encoders=depths)
    whole, _ = extract(slides, tmp_path / "out", settings)
    bags = {path: _read(path) for folder in whole.folders for path in folder.features.iterdir()}
    assert len(bags) == 12
    left = [folder.features_path(slide_id or "none") for folder, slide_id in zip(whole.folders, left, strict=False)]
    for path in bags.keys() - set(left):
        path.unlink()
    monkeypatch.setenv("LAMELLA_HOME", str(tmp_path / "cold"))
    resumed, _ = extract(slides, tmp_path / "out", settings)
    assert sorted(resumed.done) == [slide.slide_id for slide in slides]
    assert resumed.notes == whole.notes
    apart = {"sha256", "slide_salt"}
    for path, stated in bags.items():
        again = _read(path)
        assert again.keys() == stated.keys()
        assert [key for key in stated.keys() - apart if str(again[key]) != str(stated[key])] == []


def test_a_precision_that_was_asked_for_and_not_used_does_not_part_a_run_from_its_bags(
    slides: list[CohortSlide], tmp_path: Path, strays: list[str]
) -> None:
    settings = dataclasses.replace(SETTINGS, runtime=RuntimeSettings(device="cpu", precision="bf16"))
    whole, _ = extract(slides, tmp_path / "out", settings)
    assert _read(whole.folder.features_path("S-0"))["precision"] == "fp32"
    again, _ = extract(slides, tmp_path / "out", settings)
    assert (len(again.kept), again.notes) == (4, whole.notes)
    other = extract_cohort(
        slides, dataclasses.replace(settings, runtime=RuntimeSettings(precision="fp32")), tmp_path / "out"
    )
    assert len(other.kept) == 4, "they are in fp32"


def test_bags_that_were_computed_differently_settle_nothing() -> None:
    made = {"runtime": "torch 2.0", "precision": "fp32", "check_cosine": -1.0, "check_tiles": 0}
    bag = read_standing(made)
    assert find_settled([bag, bag]) is not None
    assert find_settled([bag, read_standing(made | {"precision": "bf16"})]) is None
    assert find_settled([read_standing({"precision": "fp32"})]) is None
    assert find_settled([]) is None


@pytest.mark.parametrize(
    "damaged", ["", "[]", "3", '{"overruled_mpp": [1]}', '{"slide": 3}', '{"overruled_mpp": "ab"}']
)
def test_a_bag_of_an_earlier_version_or_with_damaged_notes_says_nothing(damaged: str) -> None:
    assert read_standing({"notes": damaged}).slide == SlideNotes()
    assert read_standing({}).runtime_notes == ()


def _read(path: Path) -> dict[str, object]:
    with h5py.File(path) as file:
        stated = dict(file.attrs)
    json.loads(stated["notes"])
    return stated
