"""Regions come in and outlines go out in level-0 pixels, in register to the pixel."""

import json

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lamella.errors import TissueError
from lamella.tissue import load_regions, rasterise_regions, regions, restrict_tissue, save_tissue_geojson
from lamella.tissue.mask import TissueMask, whole_slide
from lamella.tissue.regions import find_outlines

SQUARE = {"type": "Polygon", "coordinates": [[[10, 20], [40, 20], [40, 30], [10, 30], [10, 20]]]}
# A square of 20 with a hole of 10, and a triangle apart.
HOLED = {
    "type": "MultiPolygon",
    "coordinates": [
        [[[0, 0], [20, 0], [20, 20], [0, 20], [0, 0]], [[5, 5], [15, 5], [15, 15], [5, 15], [5, 5]]],
        [[[50, 50], [60, 50], [50, 60], [50, 50]]],
    ],
}
law = settings(max_examples=60, deadline=None)
masks = hnp.arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))


def feature(geometry):
    """Wrap a geometry as QuPath exports an annotation."""
    return {"type": "Feature", "id": "8d2c", "geometry": geometry, "properties": {"objectType": "annotation"}}


def write(tmp_path, content):
    path = tmp_path / "regions.geojson"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def tissue_of(mask, slide_size=(1300, 900)):
    return TissueMask(mask, slide_size, (0.5, 0.5), "glass")


@law
@given(masks)
def test_outlines_drawn_again_give_the_mask_back(tmp_path_factory, mask):
    # 1300 x 900 is no multiple of most shapes: the outlines fall between level-0 pixels.
    path = tmp_path_factory.mktemp("outlines") / "tissue.geojson"
    save_tissue_geojson(tissue_of(mask), path)
    features = json.loads(path.read_text())["features"]
    shapes = [shapely.geometry.shape(feature["geometry"]) for feature in features]
    assert all(shape.is_valid and shape.geom_type == "Polygon" for shape in shapes)
    back = rasterise_regions(shapely.MultiPolygon(shapes), mask.shape, (1300, 900))
    np.testing.assert_array_equal(back, mask)


@law
@given(masks)
def test_outlines_have_the_area_of_the_mask(mask):
    assert sum(piece.area for piece in find_outlines(mask)) == mask.sum()


def test_outlines_run_along_the_edges_of_level_0_pixels(tmp_path):
    mask = np.zeros((3, 5), bool)
    mask[1, 2:4] = True
    save_tissue_geojson(tissue_of(mask, (500, 600)), tmp_path / "tissue.geojson")
    (written,) = json.loads((tmp_path / "tissue.geojson").read_text())["features"]
    assert shapely.geometry.shape(written["geometry"]).bounds == (200, 200, 400, 400)
    assert written["properties"]["objectType"] == "annotation"
    assert written["properties"]["classification"]["name"] == "Tissue"
    assert load_regions(tmp_path / "tissue.geojson").bounds == (200, 200, 400, 400)


def test_a_hole_is_written_as_a_hole(tmp_path):
    mask = np.ones((5, 7), bool)
    mask[2, 3:5] = False
    save_tissue_geojson(tissue_of(mask), tmp_path / "tissue.geojson")
    (written,) = json.loads((tmp_path / "tissue.geojson").read_text())["features"]
    assert len(written["geometry"]["coordinates"]) == 2


def test_no_tissue_writes_no_outline(tmp_path):
    save_tissue_geojson(tissue_of(np.zeros((5, 7), bool)), tmp_path / "tissue.geojson")
    assert json.loads((tmp_path / "tissue.geojson").read_text()) == {
        "type": "FeatureCollection",
        "lamella": {"frame": "scan", "unit": "level-0 pixel", "bounds_l0": [0, 0, 1300, 900]},
        "features": [],
    }


def test_written_outlines_are_loaded_again(tmp_path):
    mask = np.array([[True, False, True], [True, True, False]])
    save_tissue_geojson(tissue_of(mask), tmp_path / "tissue.geojson")
    region = load_regions(tmp_path / "tissue.geojson")
    np.testing.assert_array_equal(rasterise_regions(region, mask.shape, (1300, 900)), mask)


@law
@given(masks, st.integers(0, 1000))
def test_rasterising_asks_each_pixel_s_centre(mask, seed):
    height, width = mask.shape
    corners = np.random.default_rng(seed).uniform(-20, 150, (5, 2))
    region = shapely.MultiPoint(corners).convex_hull.difference(shapely.Point(corners[0]).buffer(20))
    y, x = np.mgrid[:height, :width] + 0.5
    expected = shapely.contains_xy(region, x * 130 / width, y * 90 / height)
    np.testing.assert_array_equal(rasterise_regions(region, mask.shape, (130, 90)), expected)


@pytest.mark.parametrize(
    "content",
    [
        SQUARE,
        feature(SQUARE),
        [feature(SQUARE)],
        {"type": "FeatureCollection", "features": [feature(SQUARE)]},
        {"type": "GeometryCollection", "geometries": [SQUARE]},
        {"type": "FeatureCollection", "features": [feature(SQUARE), feature(None), feature(SQUARE)]},
    ],
)
def test_every_wrapping_of_geojson_is_read(tmp_path, content):
    region = load_regions(write(tmp_path, content))
    assert region.bounds == (10, 20, 40, 30)
    assert region.area == 300


def test_holes_and_several_parts_are_read(tmp_path):
    assert load_regions(write(tmp_path, feature(HOLED))).area == 400 - 100 + 50


def test_overlapping_regions_count_once(tmp_path):
    other = {"type": "Polygon", "coordinates": [[[30, 20], [60, 20], [60, 30], [30, 30], [30, 20]]]}
    region = load_regions(write(tmp_path, [feature(SQUARE), feature(other)]))
    assert region.area == 500
    assert rasterise_regions(region, (100, 100), (100, 100)).sum() == 500


def test_an_outline_that_crosses_itself_is_mended(tmp_path):
    bow = {"type": "Polygon", "coordinates": [[[0, 0], [20, 20], [20, 0], [0, 20], [0, 0]]]}
    region = load_regions(write(tmp_path, feature(bow)))
    assert region.is_valid
    assert region.area == 200


def test_points_and_lines_are_left_out_and_counted(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(regions.logger, "warning", lambda text, *values: said.append(text % values))
    point = {"type": "Point", "coordinates": [1, 2]}
    line = {"type": "LineString", "coordinates": [[1, 2], [3, 4]]}
    region = load_regions(write(tmp_path, [feature(SQUARE), feature(point), feature(point), feature(line)]))
    assert region.area == 300
    assert "left out 2 Point, 1 LineString; only annotations with an area count" in said[0]


def of_class(classification, geometry=SQUARE, **properties):
    return {"type": "Feature", "geometry": geometry, "properties": {"classification": classification, **properties}}


FAR = {"type": "Polygon", "coordinates": [[[50, 20], [90, 20], [90, 40], [50, 40], [50, 20]]]}


@pytest.mark.parametrize(
    "classification",
    [
        {"name": "Tumor", "color": [200, 0, 0]},
        {"name": "Tumor", "colorRGB": -3670016},
        {"names": ["Tumor"]},
        "Tumor",
        {"names": ["Tumor", "Positive"]},
        {"name": "Tumor: Positive"},
        ["Tumor", "Positive"],
    ],
)
def test_a_class_is_read_however_qupath_wrote_it_and_those_derived_from_it_are_of_it(tmp_path, classification):
    path = write(tmp_path, [of_class(classification), of_class({"name": "Stroma"}, FAR)])
    assert load_regions(path, ["Tumor"]).area == 300
    assert load_regions(path, ["stroma"]).area == 800
    assert load_regions(path, ["Tumor", "Stroma"]).area == 1100
    with pytest.raises(TissueError, match=r"hold 2 classes \(1 Tumor.*, 1 Stroma\). .*--include-class \"?Tumor"):
        load_regions(path)


@pytest.mark.parametrize("nothing", [None, {}, {"name": None}, "", {"names": []}])
def test_areas_without_a_class_are_a_class_of_their_own(tmp_path, nothing):
    assert load_regions(write(tmp_path, [of_class(nothing)])).area == 300
    path = write(tmp_path, [of_class(nothing), of_class({"name": "Tumor"}, FAR)])
    with pytest.raises(TissueError, match=r"1 Unclassified, 1 Tumor"):
        load_regions(path)
    assert load_regions(path, ["Unclassified"]).area == 300
    with pytest.raises(TissueError, match=r"hold no area of class Necrosis; their classes are Unclassified, Tumor"):
        load_regions(path, ["Necrosis"])


def test_classes_with_an_asterisk_count_only_where_they_are_asked_for(tmp_path):
    path = write(tmp_path, [of_class({"name": "Tumor"}), of_class({"name": "Ignore*"}, FAR)])
    assert load_regions(path).bounds == (10, 20, 40, 30)
    assert load_regions(path, ["Ignore*"]).bounds == (50, 20, 90, 40)
    only = write(tmp_path, [of_class({"name": "Region*"}), of_class({"names": ["Tumor", "Ignore*"]}, FAR)])
    with pytest.raises(TissueError, match=r'1 Region\*, 1 Tumor: Ignore\* are ignored .*--include-class "Region\*"'):
        load_regions(only)


@pytest.mark.parametrize(
    "kind",
    [
        {"properties": {"objectType": "detection"}},
        {"properties": {"objectType": "cell", "classification": {"name": "Tumor"}}},
        {"properties": {"objectType": "tile"}},
        {"properties": {"object_type": "tma_core"}},
        {"id": "PathDetectionObject"},
        {"id": "PathCellObject", "properties": {}},
    ],
)
def test_what_is_no_annotation_is_no_region(tmp_path, kind):
    detected = {"type": "Feature", "geometry": FAR, **kind}
    drawn = {"type": "Feature", "geometry": SQUARE, "id": "PathAnnotationObject", "properties": {}}
    assert load_regions(write(tmp_path, [drawn, detected])).bounds == (10, 20, 40, 30)
    with pytest.raises(TissueError, match=r"hold no area \(it holds 1 (detection|cell|tile|tmacore)\)"):
        load_regions(write(tmp_path, [detected]))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_every_encoding_of_json_is_read(tmp_path, encoding):
    path = tmp_path / "regions.geojson"
    path.write_bytes(json.dumps(of_class("Tumeur é"), ensure_ascii=False).encode(encoding))
    assert load_regions(path, ["tumeur É"]).area == 300


@pytest.mark.parametrize(
    "content",
    [
        "[" * 300 + json.dumps(SQUARE) + "]" * 300,
        '{"type": "GeometryCollection", "geometries": [' * 100 + json.dumps(SQUARE) + "]}" * 100,
    ],
)
def test_wrappings_may_be_deep(tmp_path, content):
    assert load_regions(write(tmp_path, content)).area == 300


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[" * 200_000 + "]" * 200_000, "are nested too deeply to be GeoJSON"),
        ('{"type": "Polygon", "coordinates": ' + "[" * 300 + "]" * 300 + "}", "hold no area"),
    ],
)
def test_what_is_nested_too_deeply_is_refused_in_one_line(tmp_path, content, says):
    with pytest.raises(TissueError, match=says) as caught:
        load_regions(write(tmp_path, content))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "are not JSON"),
        ("", "are not JSON"),
        ("[1, 2]", "not GeoJSON"),
        ('{"a": 1}', "not GeoJSON"),
        ('{"type": 3}', "not GeoJSON"),
        ('{"type": "FeatureCollection", "features": []}', "hold no area"),
        ('{"type": "Point", "coordinates": [1, 2]}', r"hold no area \(it holds 1 Point\)"),
        ('{"type": "Polygon"}', "make no area"),
        ('{"type": "Polygon", "coordinates": [[[1, 2], [3, 4]]]}', "make no area"),
        ('{"type": "Polygon", "coordinates": [["a", "b"]]}', "make no area"),
        ('{"type": "Polygon", "coordinates": 5}', "make no area"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [NaN, 1], [1, 1], [0, 0]]]}', "no number"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [2, 2], [0, 0]]]}', "hold no area"),
        ('{"type": "FeatureCollection", "features": 7}', "not GeoJSON"),
    ],
)
def test_what_is_no_region_is_refused_in_one_line(tmp_path, content, says):
    with pytest.raises(TissueError, match=says) as caught:
        load_regions(write(tmp_path, content))
    assert "\n" not in str(caught.value)
    assert "regions.geojson" in str(caught.value)


def test_a_missing_or_binary_file_is_refused_in_one_line(tmp_path):
    with pytest.raises(TissueError, match="cannot be read"):
        load_regions(tmp_path / "none.geojson")
    (tmp_path / "picture.geojson").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(TissueError, match="not JSON"):
        load_regions(tmp_path / "picture.geojson")


def test_include_and_exclude_each_take_a_step_in_the_ledger():
    whole = whole_slide((9, 13), slide_size=(1300, 900), slide_mpp=(0.5, 0.5), method="glass")
    left = restrict_tissue(whole, include=shapely.box(100, 0, 700, 900), exclude=shapely.box(0, 300, 300, 900))
    expected = np.zeros((9, 13), bool)
    expected[:, 1:7] = True
    expected[3:, :3] = False
    np.testing.assert_array_equal(left.mask, expected)
    assert [step.step for step in left.ledger] == ["whole slide", "include", "exclude"]
    assert left.ledger[-1].kept_um2 == expected.sum() * 50.0**2
    assert left.ledger[-1].removed_um2 == 12 * 50.0**2


def test_regions_of_another_slide_are_refused():
    whole = whole_slide((9, 13), slide_size=(1300, 900), slide_mpp=(0.5, 0.5), method="glass")
    with pytest.raises(TissueError, match="1300 x 900 level-0 pixels"):
        restrict_tissue(whole, include=shapely.box(5000, 100, 6000, 200))
    beside = restrict_tissue(whole, exclude=shapely.box(5000, 100, 6000, 200))
    assert beside.mask.all()
    assert "cover no part" in beside.notes[0]


def test_include_without_tissue_is_said_aloud():
    mask = np.zeros((9, 13), bool)
    mask[0, 0] = True
    left = restrict_tissue(tissue_of(mask), include=shapely.box(500, 500, 700, 700))
    assert not left.mask.any()
    assert left.notes == ("no tissue lies in --include",)
