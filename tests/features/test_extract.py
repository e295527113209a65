"""Slides become bags: the same ones whatever runs beside them, and nothing is lost to a bad slide."""

import csv
import dataclasses
import json

import h5py
import numpy as np
import pytest
import shapely
import torch

from lamella.cohort import gather_slides
from lamella.encoders import EncoderSpec, RuntimeSettings, open_runtime
from lamella.encoders.network import build_network
from lamella.errors import SettingsError, SlideError
from lamella.features import stream
from lamella.features.extract import ExtractSettings, extract_cohort
from lamella.features.layouts import load_bag
from lamella.features.plan import CutSettings
from lamella.slide import open_slide
from lamella.tiles import TileSpec
from tests.tiny import draw_glass, draw_tissue, save_slide

SPEC = TileSpec(tile_px=64, mpp=0.5, stride_px=60)
SETTINGS = ExtractSettings(
    cut=CutSettings(spec=SPEC),
    encoders=(EncoderSpec("efficientnet-lite0"),),
    runtime=RuntimeSettings(runtime="torch", n_threads=1),
)


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides")
    return [save_slide(folder / f"S-{seed}.tiff", draw_tissue(seed)) for seed in range(3)]


@pytest.fixture(scope="module")
def bags(slides, tmp_path_factory):
    out = tmp_path_factory.mktemp("bags")
    report = extract_cohort(gather_slides(slides).slides, SETTINGS, out)
    assert len(report.done) == 3
    assert not report.failures
    return out, report.folder


def test_each_row_is_the_embedding_of_the_tile_at_its_coordinates(slides, bags):
    bag = load_bag(bags[1].features_path("S-1"))
    runtime = open_runtime(
        SETTINGS.encoder, SETTINGS.runtime, tile_px=64, check_tiles=lambda: np.zeros((64, 64, 64, 3), np.uint8)
    )
    with open_slide(slides[1]) as slide:
        tiles = np.stack([slide.read_box((int(x), int(y)), (64, 64), 0.5) for x, y in bag.coords_l0[:8]])
    rows = np.concatenate(
        list(runtime.encode(tiles[i : i + runtime.batch_size] for i in range(0, 8, runtime.batch_size)))
    )
    np.testing.assert_allclose(bag.features[:8], rows, rtol=2e-2, atol=2e-2)  # float16, and one grey level


def test_a_bag_made_beside_others_equals_one_made_alone(slides, bags, tmp_path):
    report = extract_cohort(gather_slides(slides[2:]).slides, SETTINGS, tmp_path)
    alone, beside = (load_bag(folder.features_path("S-2")) for folder in (report.folder, bags[1]))
    assert (alone.coords_l0 == beside.coords_l0).all()
    np.testing.assert_allclose(alone.features, beside.features, rtol=2e-3, atol=2e-3)


def test_finished_bags_are_kept_untouched(slides, bags):
    path = bags[1].features_path("S-0")
    before = path.stat().st_mtime_ns
    report = extract_cohort(gather_slides(slides).slides, SETTINGS, bags[0])
    assert (len(report.done), len(report.kept)) == (0, 3)
    assert path.stat().st_mtime_ns == before


def test_a_bag_made_otherwise_is_refused_and_not_overwritten(slides, bags):
    otherwise = dataclasses.replace(SETTINGS, cut=CutSettings(spec=SPEC, tissue="otsu"))
    report = extract_cohort(gather_slides(slides[:1]).slides, otherwise, bags[0])
    assert report.failures[0].stage == "provenance"
    assert "tissue glass (now otsu)" in report.failures[0].reason
    with h5py.File(bags[1].features_path("S-0")) as file:
        assert file.attrs["tissue"] == "glass"


def test_another_resolution_for_the_same_file_is_another_bag(slides, bags):
    given = gather_slides(slides[:1], slide_mpp=0.45).slides
    report = extract_cohort(given, SETTINGS, bags[0])
    assert "mpp_source file (now given)" in report.failures[0].reason


def test_a_bad_slide_is_listed_and_the_others_finish(slides, tmp_path):
    broken = tmp_path / "broken.tiff"
    broken.write_bytes(slides[0].read_bytes()[:3000])
    (tmp_path / "text.svs").write_text("no slide")
    cohort = gather_slides([broken, slides[0], tmp_path / "text.svs", tmp_path / "absent.svs"])
    report = extract_cohort(cohort.slides, SETTINGS, tmp_path / "out")
    assert report.done == ("S-0",)
    with (tmp_path / "out" / "failures.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert {row["slide_id"] for row in rows} == {"broken", "text", "absent"}
    assert all(row["stage"] == "open" and row["reason"] for row in rows)


def test_a_slide_damaged_inside_loses_only_itself(slides, tmp_path, monkeypatch):
    """The error comes while tiles of another slide are already with the encoder."""
    read = stream.read_block

    def fail_once(slide, block, spec, level):
        if slide.path.name == "S-1.tiff":
            raise SlideError("slide 'S-1.tiff' is damaged there. Copy it again.")
        return read(slide, block, spec, level)

    monkeypatch.setattr(stream, "read_block", fail_once)
    report = extract_cohort(gather_slides(slides).slides, SETTINGS, tmp_path)
    assert set(report.done) == {"S-0", "S-2"}
    assert [(failure.slide_id, failure.stage) for failure in report.failures] == [("S-1", "decode")]
    assert not report.folder.features_path("S-1").exists()
    assert not list(report.folder.features.glob(".*"))


def test_no_path_is_written_into_a_bag(slides, bags):
    folder = str(slides[0].parent).encode()
    for path in bags[0].rglob("*.h5"):
        assert folder not in path.read_bytes()


def test_one_region_file_for_several_slides_is_refused(slides, tmp_path):
    (tmp_path / "one.geojson").write_text("{}")
    settings = dataclasses.replace(SETTINGS, cut=CutSettings(spec=SPEC, include=tmp_path / "one.geojson"))
    with pytest.raises(SettingsError, match="a folder that holds one"):
        extract_cohort(gather_slides(slides).slides, settings, tmp_path)


def test_a_bag_of_other_regions_or_another_class_is_not_used_again(slides, tmp_path):
    roi = tmp_path / "roi"
    roi.mkdir()
    features = [
        {
            "type": "Feature",
            "geometry": shapely.geometry.mapping(shapely.box(left, 0, left + 150, 250)),
            "properties": {"classification": {"name": name}},
        }
        for left, name in ((0, "Tumor"), (160, "Stroma"))
    ]
    (roi / "s-0.tif.geojson").write_text(json.dumps(features))
    cohort = gather_slides(slides[:1]).slides

    def extract(**choice):
        cut = CutSettings(spec=SPEC, **choice)
        return extract_cohort(cohort, dataclasses.replace(SETTINGS, cut=cut), tmp_path / "out")

    with pytest.raises(SettingsError, match=r"hold 2 classes .*--include-class"):
        extract(include=roi)
    assert extract(include=roi, include_class=("Tumor",)).done == ("S-0",)
    assert extract(include=roi, include_class=("tumor",)).kept == ("S-0",)
    for other in ({"include": roi, "include_class": ("Stroma",)}, {"exclude": roi, "exclude_class": ("Tumor",)}, {}):
        assert "regions" in extract(**other).failures[0].reason
    (roi / "s-0.tif.geojson").write_text(json.dumps(features[:1]))
    assert "regions" in extract(include=roi, include_class=("Tumor",)).failures[0].reason


def test_slides_without_regions_are_counted_aloud(slides, tmp_path):
    roi = tmp_path / "roi"
    roi.mkdir()
    (roi / "S-1.json").write_text(json.dumps(shapely.geometry.mapping(shapely.box(0, 0, 150, 250))))
    cut = CutSettings(spec=SPEC, exclude=roi)
    report = extract_cohort(gather_slides(slides).slides, dataclasses.replace(SETTINGS, cut=cut), tmp_path / "out")
    assert "2 of 3 slides have no regions file in 'roi': nothing excluded there" in report.notes


def test_a_slide_without_tissue_says_so(tmp_path):
    blank = save_slide(tmp_path / "blank.tiff", draw_glass())
    report = extract_cohort(gather_slides([blank]).slides, SETTINGS, tmp_path / "out")
    assert report.failures[0].stage == "tissue"
    assert "holds no tissue" in report.failures[0].reason


DEEP = tuple(EncoderSpec(name, "random") for name in ("resnet18@1", "resnet18@2", "resnet18@3", "resnet18"))


def test_depths_extracted_together_equal_those_extracted_apart_and_read_each_tile_once(slides, tmp_path, monkeypatch):
    both = (*DEEP, EncoderSpec("efficientnet-lite0@2"))
    read, batches = [], []
    read_block, open_one = stream.read_block, stream.open_runtime
    monkeypatch.setattr(stream, "read_block", lambda *given: read.append(given) or read_block(*given))
    monkeypatch.setattr(
        stream, "open_runtime", lambda trunk, *a, **k: batches.append(trunk.name) or open_one(trunk, *a, **k)
    )
    cohort = gather_slides(slides[:2])
    settings = dataclasses.replace(SETTINGS, encoders=both, dtype="float32")
    together = extract_cohort(cohort.slides, settings, tmp_path / "together")
    assert batches == ["resnet18@1,2,3,4", "efficientnet-lite0@2"]
    assert [folder.features.name for folder in together.folders] == [
        "features_resnet18_1",
        "features_resnet18_2",
        "features_resnet18_3",
        "features_resnet18",
        "features_efficientnet-lite0_2",
    ]
    n_read = len(read)
    for spec, folder in zip(both, together.folders, strict=True):
        read.clear()
        alone = extract_cohort(
            cohort.slides, dataclasses.replace(settings, encoders=(spec,)), tmp_path / folder.features.name
        )
        assert len(read) == n_read
        for slide_id in together.done:
            ours, apart = (load_bag(one.features_path(slide_id)) for one in (folder, alone.folder))
            np.testing.assert_array_equal(ours.features, apart.features)
            assert ours.provenance["fingerprint"] == apart.provenance["fingerprint"]
            assert ours.encoder == spec.name


def test_a_slide_that_has_some_of_the_depths_gets_only_the_missing_ones(slides, tmp_path, monkeypatch):
    cohort = gather_slides(slides)
    few = dataclasses.replace(SETTINGS, encoders=DEEP[1:2])
    extract_cohort(cohort.slides[:1], few, tmp_path)
    first = few.folder(tmp_path).features_path(cohort.slides[0].slide_id)
    before = first.stat().st_mtime_ns
    opened, open_one = [], stream.open_runtime
    monkeypatch.setattr(
        stream, "open_runtime", lambda trunk, *a, **k: opened.append(trunk.name) or open_one(trunk, *a, **k)
    )
    settings = dataclasses.replace(SETTINGS, encoders=DEEP[:2])
    report = extract_cohort(cohort.slides, settings, tmp_path)
    assert opened == ["resnet18@1,2"] * 2, "which depths a slide lacks does not decide how it is computed"
    assert sorted(report.done) == [slide.slide_id for slide in cohort.slides]
    assert first.stat().st_mtime_ns == before
    again = extract_cohort(cohort.slides, settings, tmp_path)
    assert not again.done
    assert len(again.kept) == 3


def test_one_encoder_named_twice_is_refused():
    with pytest.raises(SettingsError, match="each must be named once"):
        dataclasses.replace(SETTINGS, encoders=(EncoderSpec("resnet18"), EncoderSpec("resnet18@4")))


def test_slides_of_a_cohort_that_the_encoder_was_trained_on_are_said_aloud(slides, tmp_path):
    for name in ("tumor_001.tiff", "normal_002.tiff"):
        (tmp_path / name).write_bytes(slides[0].read_bytes())
    weights = tmp_path / "ciga.ckpt"
    state = build_network(EncoderSpec("resnet18", "random")).blocks.named_state()
    torch.save({"state_dict": {f"model.resnet.{key}": tensor for key, tensor in state.items()}}, weights)
    settings = dataclasses.replace(SETTINGS, encoders=(EncoderSpec("resnet18-ciga@1", str(weights)),))
    report = extract_cohort(gather_slides([tmp_path / "tumor_001.tiff"]).slides, settings, tmp_path / "bags")
    assert "was trained on CAMELYON16 and 1 slides bear its names ('tumor_001')" in report.notes[0]
