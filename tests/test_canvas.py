"""A slide on a larger canvas gives what its scan alone gives, moved by its corner: embeddings, maps, localisation."""

import re

import numpy as np
import pytest

from lamella.cohort import gather_slides
from lamella.encoders import EncoderSpec, RuntimeSettings
from lamella.explain.cam_mapper import CamMapper
from lamella.explain.cam_parts import CamPart
from lamella.explain.cam_record import load_cam_record
from lamella.explain.localise_scene import list_maps, set_scene
from lamella.explain.localise_sources import Source
from lamella.explain.outlines import load_truth
from lamella.features.bag import load_patches
from lamella.features.extract import ExtractSettings, extract_cohort
from lamella.features.layouts import open_own_bag
from lamella.features.plan import CutSettings
from lamella.maps import load_map
from lamella.mil import fit_model
from lamella.mil.settings import TrainSettings
from lamella.progress import SilentProgress
from lamella.runs.settings import CamSettings
from lamella.slide import open_slide
from lamella.tiles import TileSpec
from tests.slide.drawn import draw, write_levels
from tests.slide.mirax import write_mirax

CORNER = (256, 128)  # whole tiles of 64 px, so that both grids cut the same tiles
EXTRACT = ExtractSettings(
    cut=CutSettings(spec=TileSpec(tile_px=64, mpp=0.5), tissue="otsu"),
    encoders=(EncoderSpec("resnet18@1", "random"),),
    runtime=RuntimeSettings(runtime="torch", n_threads=1),
    dtype="float32",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The cohort of both slides, the folder of their bags, a model, and where things lie."""
    folder = tmp_path_factory.mktemp("frames")
    pixels, _ = draw(640, 384, blobs=((200, 150, 150, 110), (490, 280, 110, 80)))
    write_mirax(folder / "canvas.mrxs", pixels, (4, 2), (20, 12), n_levels=2)
    with open_slide(folder / "canvas.mrxs") as slide:
        assert slide.bounds_l0 == (*CORNER, 640, 384)
        write_levels(folder / "scan.tif", [slide.read_region(CORNER, 0, (640, 384))])
    cohort = gather_slides([folder / "canvas.mrxs", folder / "scan.tif"])
    report = extract_cohort(cohort.slides, EXTRACT, folder / "bags")
    assert report.failures == ()
    features = open_own_bag(report.folder.features_path("scan")).read_stored()
    rng = np.random.default_rng(0)
    bags = {f"T{i}": features + rng.normal(0, 0.05, features.shape).astype(np.float32) for i in range(6)}
    model = fit_model(
        bags,
        {name: "ab"[i % 2] for i, name in enumerate(bags)},
        train=[f"T{i}" for i in range(4)],
        val=["T4", "T5"],
        classes=("a", "b"),
        settings=TrainSettings(epochs=1),
    )
    return cohort, report.folder, model, folder


def test_bags_hold_the_same_tiles_moved_by_the_corner(made):
    _, bags, _, _ = made
    canvas, scan = (load_patches(bags.patches_path(name))[0] for name in ("canvas", "scan"))
    features = {name: open_own_bag(bags.features_path(name)).read_stored() for name in ("canvas", "scan")}
    by_corner = {tuple(corner): row for corner, row in zip(scan.tolist(), features["scan"], strict=True)}
    shared = [tuple(corner) in by_corner for corner in (canvas - np.array(CORNER)).tolist()]
    assert np.mean(shared) > 0.9  # tissue at a tile's threshold may fall to either side
    assert len(shared) > 15
    for corner, row, known in zip((canvas - np.array(CORNER)).tolist(), features["canvas"], shared, strict=True):
        if known:
            np.testing.assert_allclose(row, by_corner[tuple(corner)], atol=1e-4)


def test_maps_cover_the_scan_and_localisation_sees_lesions_where_they_are(made, tmp_path):
    cohort, bags, model, _ = made
    mapper = CamMapper(("a", "b"), CamSettings(runtime=RuntimeSettings(runtime="torch")), "b", EXTRACT)
    part = CamPart(encoder=EXTRACT.encoder, models=(model,), bags=bags.features)
    source = Source("", lambda _: [part], mapper, tmp_path)
    ring = "[[80,60],[340,60],[340,252],[80,252],[80,60]]"
    truth = tmp_path / "lesion.geojson"
    truth.write_text(f'{{"type": "Polygon", "coordinates": [{ring}]}}')
    scenes, maps = {}, {}
    with SilentProgress().stage("", None, "") as stage:
        for item in cohort.slides:
            with open_slide(item.path, slide_mpp=item.slide_mpp) as slide:
                scenes[item.slide_id] = set_scene(
                    item, slide, load_truth(truth, slide.size, slide.bounds_l0), source, EXTRACT, smallest_um=275.0
                )
                maps[item.slide_id] = list_maps(scenes[item.slide_id], [source], stage)
    canvas, scan = scenes["canvas"], scenes["scan"]
    assert canvas.slide_size == scan.slide_size == (640, 384)
    np.testing.assert_array_equal(canvas.mask, scan.mask)
    assert canvas.mask.sum() == 65 * 48  # a pixel is a sixteenth of a tile: 4 x 4
    by_corner = dict(zip(map(tuple, scan.corners_l0.tolist()), scan.covered, strict=True))
    known = [n for n, corner in enumerate(canvas.corners_l0.tolist()) if tuple(corner) in by_corner]
    assert [canvas.covered[n] for n in known] == pytest.approx([by_corner[tuple(canvas.corners_l0[n])] for n in known])
    rasters = [load_map(tmp_path / name / "cam.tiff") for name in ("canvas", "scan")]
    assert rasters[0].shape == rasters[1].shape
    filled = [np.isfinite(raster) for raster in rasters]
    assert (filled[0] & filled[1]).sum() / (filled[0] | filled[1]).sum() > 0.9
    dark = [maps[name]["darkness"].raster for name in ("canvas", "scan")]
    both = np.isfinite(dark[0]) & np.isfinite(dark[1])
    assert np.abs(dark[0] - dark[1])[both].mean() < 1
    records = [load_cam_record(tmp_path / name) for name in ("canvas", "scan")]
    assert [record.slide_um for record in records] == [(320.0, 192.0)] * 2
    assert [record.frame for record in records] == ["scan"] * 2


def test_a_map_of_an_earlier_version_is_made_again(made, tmp_path):
    cohort, bags, model, _ = made
    mapper = CamMapper(("a", "b"), CamSettings(runtime=RuntimeSettings(runtime="torch")), "b", EXTRACT)
    part = CamPart(encoder=EXTRACT.encoder, models=(model,), bags=bags.features)
    bags_of_slide = [part.open_bag(cohort.slides[0].slide_id)]
    with SilentProgress().stage("", None, "") as stage:
        first = mapper.map_slide(cohort.slides[0], [part], bags_of_slide, tmp_path / "c", stage)
        text = (tmp_path / "c" / "cam.json").read_text()
        text = re.sub(r',\s*"record_sha256": "[0-9a-f]+"', "", text)  # an earlier version wrote none
        (tmp_path / "c" / "cam.json").write_text(text.replace('"frame": "scan"', '"frame": "canvas"'))
        assert load_cam_record(tmp_path / "c").frame == "canvas"
        again = mapper.map_slide(cohort.slides[0], [part], bags_of_slide, tmp_path / "c", stage)
    assert again == first
    assert again.frame == "scan"
