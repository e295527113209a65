"""Localisation of a run: outlines of every kind mean the same, controls stand beside, and nothing leaks."""

import csv
import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import shapely
from shapely.geometry import mapping

from lamella.analysis.localise import Lesions
from lamella.cohort.permute import permute_labels
from lamella.encoders import EncoderSpec, RuntimeSettings
from lamella.errors import CohortError, SettingsError, TissueError
from lamella.explain.localise import LocaliseSettings, localise_run
from lamella.explain.localise_scene import SlideMap, average_over_tiles, find_detections
from lamella.explain.outlines import load_truth
from lamella.explain.records import Localisation
from lamella.features.extract import ExtractSettings
from lamella.features.plan import CutSettings
from lamella.mil.settings import TrainSettings
from lamella.reports.page import write_page
from lamella.runs.execute import execute_run
from lamella.runs.predict import open_run
from lamella.runs.settings import CamSettings, RunSettings
from lamella.tiles import TileSpec
from tests.runs.test_stage_two import write_cohort
from tests.tiny import draw_tissue, save_slide

SIZE = (310, 250)
LESION = (180, 100, 270, 200)  # x0, y0, x1, y1
CAM = CamSettings(runtime=RuntimeSettings(runtime="torch", n_threads=1))


def write_geojson(path, *areas):
    features = [{"type": "Feature", "geometry": mapping(area), "properties": {}} for area in areas]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))


def write_xml(path, *rings):
    """Write outlines as ASAP does: `(group, [(x, y), ...])` each."""
    parts = []
    for number, (group, ring) in enumerate(rings):
        points = "".join(f'<Coordinate Order="{i}" X="{x}" Y="{y}"/>' for i, (x, y) in enumerate(ring))
        parts.append(
            f'<Annotation Name="A{number}" Type="Polygon" PartOfGroup="{group}" Color="#F4FA58">'
            f"<Coordinates>{points}</Coordinates></Annotation>"
        )
    path.write_text(
        '<?xml version="1.0"?><ASAP_Annotations><Annotations>' + "".join(parts) + "</Annotations></ASAP_Annotations>"
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Twelve slides; half have a lesion of small dark specks at a known place, for an encoder that sees texture."""
    folder = tmp_path_factory.mktemp("cohort")
    names = {f"S-{i:02}.tiff": ("benign", "tumour")[i % 2] for i in range(12)}
    x0, y0, x1, y1 = LESION
    for i, name in enumerate(names):
        pixels = draw_tissue(i, width=SIZE[0], height=SIZE[1])
        if i % 2:
            pixels[y0:y1, x0:x1] = draw_tissue(i, malignant=True, width=200, height=200)[50:150, 40:130]
            pixels[y0:y1, x0:x1] //= 2
            write_geojson(folder / f"S-{i:02}.geojson", shapely.box(*LESION))
        save_slide(folder / name, pixels)
    extract = ExtractSettings(
        cut=CutSettings(spec=TileSpec(tile_px=32, mpp=0.5)),
        encoders=(EncoderSpec("resnet18@1", "random"),),
        runtime=RuntimeSettings(runtime="torch", n_threads=1),
    )
    settings = RunSettings(extract=extract, train=TrainSettings(epochs=30, lr=3e-3), n_seeds=1, n_folds=3)
    out = tmp_path_factory.mktemp("run")
    execute_run(write_cohort(folder, names), settings, out)
    write_page(out)
    return out, folder


def test_attention_and_cam_find_the_lesion_and_the_controls_do_not_reach_them(run):
    out, folder = run
    content, failures = localise_run(open_run(out), LocaliseSettings(lesions=folder, cam=CAM, controls=True))
    assert failures == ()
    maps = content.maps
    assert list(maps) == [
        *("attention", "cam", "attention, random weights", "cam, random weights"),
        *("attention, permuted labels", "cam, permuted labels", "darkness"),
    ]
    for name, measures in maps.items():
        assert measures.n_slides == 6, name
        for measure in ("tile_auc", "pixel_auc", "tile_ap", "pixel_ap", "pointing", "top_k"):
            mean = getattr(measures, measure)
            low, high = mean.interval
            assert 0 <= low <= mean.value <= high <= 1
    assert maps["attention"].tile_auc.value > 0.9
    assert maps["cam"].pixel_auc.value > 0.85
    assert maps["darkness"].tile_auc.value > 0.9  # the lesions are dark, and this says so
    assert maps["attention, permuted labels"].tile_auc.value < maps["attention"].tile_auc.value
    assert Localisation.load(out / "localisation.json") == content
    assert content.settings.radius_um == 1.5 * 32 * 0.5
    with (out / "localisation.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 6 * 7
    write_page(out)
    page = (out / "report.html").read_text()
    assert "Maps against outlines" in page
    assert "attention, permuted labels" in page


def test_run_again_it_finds_the_same_and_makes_no_map_anew(run):
    out, folder = run
    wanted = LocaliseSettings(lesions=folder, cam=CAM)
    first = localise_run(open_run(out), wanted)[0]
    times = {path: path.stat().st_mtime_ns for path in out.glob("cam/*/cam.tiff")}
    assert localise_run(open_run(out), wanted)[0] == first
    assert {path: path.stat().st_mtime_ns for path in out.glob("cam/*/cam.tiff")} == times
    alone = localise_run(open_run(out), LocaliseSettings(lesions=folder, cam=None))[0]
    assert list(alone.maps) == ["attention", "darkness"]
    assert alone.maps["attention"] == first.maps["attention"]


def test_outlines_of_every_kind_mean_the_same(tmp_path):
    x0, y0, x1, y1 = LESION
    hole = (200, 120, 220, 150)
    write_geojson(tmp_path / "a.geojson", shapely.box(*LESION).difference(shapely.box(*hole)))
    ring, inner = (list(shapely.box(*edges).exterior.coords)[:-1] for edges in (LESION, hole))
    write_xml(tmp_path / "b.xml", ("_0", ring), ("_2", inner))
    mask = np.zeros((SIZE[1], SIZE[0]), np.uint8)
    mask[y0:y1, x0:x1] = 255
    mask[hole[1] : hole[3], hole[0] : hole[2]] = 0
    cv2.imwrite(str(tmp_path / "c.png"), mask)
    masks = [load_truth(tmp_path / name, SIZE)((125, 155)) for name in ("a.geojson", "b.xml", "c.png")]
    assert masks[0].sum() == (90 * 100 - 20 * 30) / 4
    for mask in masks[1:]:
        np.testing.assert_array_equal(mask, masks[0])


def test_outlines_that_cannot_be_meant_are_refused(tmp_path):
    write_geojson(tmp_path / "far.geojson", shapely.box(9000, 9000, 9100, 9100))
    with pytest.raises(TissueError, match="lie beside the slide of 310 x 250 px"):
        load_truth(tmp_path / "far.geojson", SIZE)
    cv2.imwrite(str(tmp_path / "square.png"), np.zeros((50, 50), np.uint8))
    with pytest.raises(TissueError, match="not the same shape"):
        load_truth(tmp_path / "square.png", SIZE)
    (tmp_path / "bad.xml").write_text("<ASAP_Annotations>")
    with pytest.raises(TissueError, match="are not the XML of ASAP or ImageScope"):
        load_truth(tmp_path / "bad.xml", SIZE)
    write_xml(tmp_path / "none.xml", ("_2", [(0, 0), (5, 0), (5, 5)]))
    with pytest.raises(TissueError, match="hold no area that counts: 1 _2 are ignored unless asked for"):
        load_truth(tmp_path / "none.xml", SIZE)


def test_a_folder_without_outlines_is_refused_and_a_slide_without_them_is_named(run, tmp_path):
    out, _ = run
    with pytest.raises(CohortError, match=r"is called after a slide \(0 of 6\): 'S-07.geojson'"):
        localise_run(open_run(out), LocaliseSettings(lesions=tmp_path, cam=None))
    with pytest.raises(CohortError, match="there is no folder"):
        localise_run(open_run(out), LocaliseSettings(lesions=tmp_path / "x", cam=None))
    with pytest.raises(SettingsError, match="above 0"):
        LocaliseSettings(lesions=tmp_path, k=0)
    write_geojson(tmp_path / "S-01.geojson", shapely.box(*LESION))
    content = localise_run(open_run(out), LocaliseSettings(lesions=tmp_path, cam=None))[0]
    assert content.notes[0].startswith("5 of 6 tested slides labelled tumour have no outlines and were left out")
    assert "'S-11'" in content.notes[0]
    assert content.maps["attention"].n_slides == 1


def save_labels(path, *, lesion=2, other=1):
    """Save a label image: tissue to the left is one label, the lesion another."""
    labels = np.zeros((SIZE[1], SIZE[0]), np.uint8)
    labels[:, :100] = other
    labels[LESION[1] : LESION[3], LESION[0] : LESION[2]] = lesion
    cv2.imwrite(str(path), labels)


def test_masks_measure_what_outlines_do(run, tmp_path):
    out, folder = run
    masks, labels = tmp_path / "masks", tmp_path / "labels"
    masks.mkdir()
    labels.mkdir()
    for number in range(1, 12, 2):
        save_labels(masks / f"S-{number:02}.tiff_mask.PNG", lesion=255, other=0)
        save_labels(labels / f"s-{number:02}.png")
    expected = localise_run(open_run(out), LocaliseSettings(lesions=folder, cam=None))[0].maps
    assert localise_run(open_run(out), LocaliseSettings(lesions=masks, cam=None))[0].maps == expected
    chosen = LocaliseSettings(lesions=labels, cam=None, values=("2",))
    assert localise_run(open_run(out), chosen)[0].maps == expected
    with pytest.raises(CohortError, match=r"no lesion in 'labels' could be measured. .*values 0, 1, 2, so it is not"):
        localise_run(open_run(out), LocaliseSettings(lesions=labels, cam=None))


def test_masks_without_a_lesion_are_failures_and_where_all_are_it_is_an_error(run, tmp_path):
    out, _ = run
    for number in range(1, 12, 2):
        save_labels(tmp_path / f"S-{number:02}.png", lesion=0, other=0)
    with pytest.raises(CohortError, match=r"no lesion in .* could be measured. The first: mask 'S-.*' marks no lesion"):
        localise_run(open_run(out), LocaliseSettings(lesions=tmp_path, cam=None))
    save_labels(tmp_path / "S-05.png", lesion=255, other=0)
    content, failures = localise_run(open_run(out), LocaliseSettings(lesions=tmp_path, cam=None))
    assert content.maps["attention"].n_slides == 1
    assert sorted(failure.slide_id for failure in failures) == ["S-01", "S-03", "S-07", "S-09", "S-11"]
    assert all("marks no lesion" in failure.reason for failure in failures)


def test_a_tile_is_one_detection_at_its_centre_in_um():
    """Two tiles in a row and one apart, on a slide of unequal resolutions; the raster is 4 um a pixel."""
    scene = SimpleNamespace(
        slide=SimpleNamespace(mpp=(0.25, 0.5), size=(1600, 400)),
        corners_l0=np.array([[400, 100], [800, 100], [0, 100]]),
        tile_l0=(400.0, 200.0),  # 100 um a side
        shape=(50, 100),
        um_per_px=4.0,
        lesions=Lesions(labels=np.zeros((50, 100), np.int32), counted=np.array([True])),
    )
    scene.lesions.labels[23:28, 35:40] = 1  # about the centre of the first tile, at 150 um, 100 um
    raster = np.zeros((50, 100), np.float32)
    raster[12:37, 25:50] = 0.9
    tiles = np.array([0.9, 0.8, 0.1])
    for is_by_tile in (True, False):
        judged = find_detections(scene, SlideMap(tiles, raster, scale=2.0, is_by_tile=is_by_tile), None)
        assert judged.hits.tolist() == pytest.approx([1.8]), is_by_tile
        assert judged.false.tolist() == [], is_by_tile
    # The neighbours, 100 um away, are then detections too.
    judged = find_detections(scene, SlideMap(tiles, raster, is_by_tile=True), 90.0)
    assert judged.false.tolist() == [0.8, 0.1]


def test_only_the_class_that_is_lesion_counts(run, tmp_path):
    out, folder = run
    square = {"properties": {"classification": {"name": "Tumor"}}, "geometry": mapping(shapely.box(*LESION))}
    other = {"properties": {"classification": {"name": "Stroma"}}, "geometry": mapping(shapely.box(0, 0, 90, 90))}
    for number in range(1, 12, 2):
        features = [{"type": "Feature", **outline} for outline in (square, other)[: 1 + number % 3]]
        (tmp_path / f"S-{number:02}.tiff.geojson").write_text(json.dumps(features))
    expected = localise_run(open_run(out), LocaliseSettings(lesions=folder, cam=None))[0].maps
    chosen = LocaliseSettings(lesions=tmp_path, cam=None, classes=("Tumor",))
    content = localise_run(open_run(out), chosen)[0]
    assert content.maps == expected
    assert content.settings.lesion_classes == ("Tumor",)
    with pytest.raises(SettingsError, match=r"--lesions: the files hold 2 classes .*--lesion-class Tumor"):
        localise_run(open_run(out), LocaliseSettings(lesions=tmp_path, cam=None))
    (tmp_path / "S-01.png").write_bytes(b"")
    with pytest.raises(CohortError, match=r"--lesions: slide 'S-01' has 2 files"):
        localise_run(open_run(out), chosen)


def test_lesions_smaller_than_the_raster_are_noted(run, tmp_path):
    out, _ = run
    for number in range(1, 12, 2):
        edge = 90 if number > 1 else 0.5
        write_geojson(tmp_path / f"S-{number:02}.geojson", shapely.box(180.1, 100.1, 180.1 + edge, 100.1 + edge))
    content = localise_run(open_run(out), LocaliseSettings(lesions=tmp_path, cam=None))[0]
    assert content.maps["attention"].n_slides == 5
    assert content.notes[0] == "lesions of 'S-01' are smaller than a sixteenth of a tile: left out."


def test_a_mean_over_tiles_counts_cut_pixels_by_their_share():
    raster = np.arange(12.0).reshape(3, 4)
    corners = np.array([[50, 50], [0, 0]])
    averaged = average_over_tiles(raster, corners, (150.0, 100.0), (400, 300))
    first_row, second_row = (0.5 * 0 + 1) / 1.5, (0.5 * 4 + 5) / 1.5
    assert averaged.tolist() == pytest.approx([(first_row + second_row) / 2, (0 + 0.5 * 1) / 1.5])
    exact = [raster[r : r + 1, c : c + 1].item() for r, c in ((0, 0), (1, 1))]
    assert average_over_tiles(raster, np.array([[0, 0], [100, 100]]), (100.0, 100.0), (400, 300)).tolist() == exact


def test_permuted_labels_stay_in_their_fold_and_with_their_patient(run):
    from lamella.explain.cam import load_paths

    out, _ = run
    cohort = load_paths(open_run(out).folder)
    permuted = permute_labels(cohort)
    assert [s.label for s in permuted.slides] != [s.label for s in cohort.slides]
    for fold in range(3):
        before, after = (sorted(s.label for s in labelled.slides if s.fold == fold) for labelled in (cohort, permuted))
        assert before == after
