"""A canvas larger than the scan: Lamella counts from the canvas's corner, GeoJSON from the scan's, as QuPath does."""

import json

import cv2
import numpy as np
import pytest
import shapely
import tifffile

from lamella.audits.slide import audit_slide
from lamella.cohort import CohortSlide
from lamella.errors import TissueError
from lamella.explain.cam_record import CamRecord
from lamella.explain.outlines import load_truth
from lamella.features.bag import load_patches
from lamella.features.plan import CutSettings, plan_slide
from lamella.features.tissue import save_tiles, save_tissue
from lamella.maps import load_map
from lamella.reports.draw.cam import save_contours
from lamella.reports.draw.heatmap import SlideAttention
from lamella.reports.draw.slides import SlideCaption, draw_slide
from lamella.slide import open_slide
from lamella.slide.frame import clip_bounds, find_scan_part, to_canvas, to_scan
from lamella.tiles import TileSpec, place_tiles
from lamella.tissue import load_regions, rasterise_regions
from tests.slide.drawn import draw, write_scn
from tests.slide.mirax import write_mirax

SCAN = (1536, 1024)
PIECES = ((450, 380, 330, 270), (1180, 760, 260, 200))  # x, y, half width, half height, on the scan
SPEC = TileSpec(tile_px=112, mpp=0.5)
LEFT = [[100, 80], [820, 80], [820, 680], [100, 680], [100, 80]]  # around the left piece, as QuPath would export it


@pytest.fixture(scope="module")
def scan():
    """`(1024, 1536, 3)` uint8 and its tissue."""
    return draw(*SCAN, blobs=PIECES)


@pytest.fixture(scope="module", params=["scn", "mirax", "scn at an edge"])
def slide(request, scan, tmp_path_factory):
    """A slide whose scan lies off the canvas's corner, and where: `(path, (x, y, width, height))`."""
    folder = tmp_path_factory.mktemp("frame")
    if request.param == "mirax":
        write_mirax(folder / "s.mrxs", scan[0], (8, 4), (40, 28))
        return folder / "s.mrxs", (512, 256, *SCAN)
    corner, canvas = ((500, 300), (2400, 1800)) if request.param == "scn" else ((1000, 0), (2539, 1777))
    return write_scn(folder / "s.scn", scan[0], corner, canvas), (*corner, *SCAN)


def item(path):
    return CohortSlide(slide_id="s", path=path, patient_id="s")


def write_ring(path, ring):
    feature = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}, "properties": {}}
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    return path


def test_the_scan_lies_where_the_file_says(slide, scan):
    path, bounds = slide
    with open_slide(path) as opened:
        assert opened.bounds_l0 == bounds
        assert opened.size[0] > bounds[2]
        pixels = opened.read_region(bounds[:2], 0, bounds[2:])
        small = opened.read_scan(2.0)
    assert np.abs(pixels.astype(int) - scan[0]).mean() < 3  # JPEG
    assert small.shape == (256, 384, 3)
    truth = scan[0].reshape(256, 4, 384, 4, 3).mean((1, 3))
    apart = np.abs(small - truth).mean()
    assert apart < 3
    for axis in (0, 1):
        for step in (-1, 1):
            assert np.abs(np.roll(small, step, axis=axis) - truth).mean() > 1.2 * apart


@pytest.mark.parametrize("method", ["glass", "otsu"])
def test_tiles_are_those_of_the_scan_alone_and_lie_on_its_tissue(slide, scan, method):
    path, bounds = slide
    plan = plan_slide(item(path), CutSettings(spec=SPEC, tissue=method))
    with plan.slide:
        corners = plan.corners_l0 - np.array(bounds[:2])
    assert len(corners) > 30
    assert (corners >= 0).all()
    assert (corners + 112 <= np.array(SCAN)).all()
    shares = [scan[1][y : y + 112, x : x + 112].mean() for x, y in corners]
    assert min(shares) > 0.4
    assert np.mean(shares) > 0.85
    # All that a mask without any error would give, on the same grid.
    canvas = np.zeros((plan.slide.size[1], plan.slide.size[0]), bool)
    canvas[bounds[1] : bounds[1] + SCAN[1], bounds[0] : bounds[0] + SCAN[0]] = scan[1]
    truth = place_tiles(canvas, SPEC, slide_size=plan.slide.size, slide_mpp=(0.5, 0.5), bounds_l0=bounds)
    assert abs(len(truth) - len(corners)) <= 2
    assert plan.tissue.ledger[-1].step == "outside the scan"


def test_regions_drawn_in_qupath_lie_on_what_was_outlined(slide, tmp_path):
    path, bounds = slide
    ring = write_ring(tmp_path / "s.geojson", LEFT)
    everything = plan_slide(item(path), CutSettings(spec=SPEC))
    inside = plan_slide(item(path), CutSettings(spec=SPEC, include=ring))
    outside = plan_slide(item(path), CutSettings(spec=SPEC, exclude=ring))
    for plan in (everything, inside, outside):
        plan.slide.close()
    whole, left, right = (set(map(tuple, plan.corners_l0.tolist())) for plan in (everything, inside, outside))
    assert left == {corner for corner in whole if corner[0] < bounds[0] + 820}
    assert right == whole - left
    assert len(left) > 15
    assert len(right) > 5
    row = audit_slide(item(path), CutSettings(spec=SPEC, include=ring))
    assert (row.n_tiles, row.problems) == (len(left), ())
    assert row.tissue_share == pytest.approx(inside.tissue.tissue_um2 / (SCAN[0] * SCAN[1] * 0.25))


def test_outlines_go_out_and_come_back_to_the_pixel(slide, scan, tmp_path):
    path, bounds = slide
    save_tissue([item(path)], CutSettings(spec=SPEC), tmp_path / "out")
    written = json.loads((tmp_path / "out" / "s.geojson").read_text())
    assert written["lamella"] == {"frame": "scan", "unit": "level-0 pixel", "bounds_l0": list(bounds)}
    region = load_regions(tmp_path / "out" / "s.geojson")
    truth = shapely.union_all(
        [shapely.affinity.scale(shapely.Point(x, y).buffer(1, 64), a, b) for x, y, a, b in PIECES]
    )
    assert region.intersection(truth).area / region.union(truth).area > 0.95  # in the scan's frame
    again = plan_slide(item(path), CutSettings(spec=SPEC, include=tmp_path / "out" / "s.geojson"))
    first = plan_slide(item(path), CutSettings(spec=SPEC))
    for plan in (again, first):
        plan.slide.close()
    np.testing.assert_array_equal(again.tissue.mask, first.tissue.mask)
    np.testing.assert_array_equal(again.corners_l0, first.corners_l0)


def test_coordinates_of_bags_count_on_the_canvas_and_say_so(slide, tmp_path):
    path, bounds = slide
    save_tiles([item(path)], CutSettings(spec=SPEC), tmp_path / "out")
    corners, stated = load_patches(next((tmp_path / "out").rglob("s_patches.h5")))
    assert stated["frame"] == "canvas"
    names = ("bounds_x_l0", "bounds_y_l0", "bounds_width_l0", "bounds_height_l0")
    assert tuple(stated[name] for name in names) == bounds
    assert corners.min(axis=0)[0] >= bounds[0]


def test_what_is_written_for_qupath_lies_on_the_scan(slide, tmp_path):
    path, bounds = slide
    x, y = bounds[0] + 410, bounds[1] + 220
    with open_slide(path) as opened:
        tiles = SlideAttention(
            attention=np.array([0.7, 0.3]),
            coords_l0=np.array([[x, y], [x + 112, y]]),
            tile_size_l0=(112.0, 112.0),
            slide_size=opened.size,
            slide_mpp=opened.mpp,
        )
        caption = SlideCaption(title="s", subtitle="", key="k")
        draw_slide(opened, tiles, tmp_path, caption, tile_px=112, mpp=0.5)
        record = CamRecord(
            slide_id="s", target="a", others="b", method="exact", contrast=1.0, cells=1.0, tile_bias=0.0,
            constant=0.0, cell_px=16, slide_um=(SCAN[0] / 2, SCAN[1] / 2), key="k", frame="scan",
        )  # fmt: skip
        raster = np.zeros((SCAN[1] // 16, SCAN[0] // 16), np.float32)
        raster[20:30, 40:45] = 1
        save_contours(raster, record, opened.bounds_l0, tmp_path / "cam.geojson")
    first = json.loads((tmp_path / "attention.geojson").read_text())
    assert first["lamella"]["bounds_l0"] == list(bounds)
    assert first["features"][0]["geometry"]["coordinates"][0][0] == [410, 220]
    attention = load_map(tmp_path / "attention.tiff")
    with tifffile.TiffFile(tmp_path / "attention.tiff") as file:
        per_cm = [n / d for n, d in (file.pages[0].tags[name].value for name in ("XResolution", "YResolution"))]
    extent_um = [n * 1e4 / r for n, r in zip(attention.shape[::-1], per_cm, strict=True)]
    assert extent_um == pytest.approx([SCAN[0] / 2, SCAN[1] / 2], rel=1e-4)
    known = np.argwhere(np.isfinite(attention)) * [SCAN[1], SCAN[0]] / attention.shape
    assert known.min(axis=0) == pytest.approx([220, 410], abs=8)
    assert known.max(axis=0) == pytest.approx([220 + 112, 410 + 224], abs=15)
    shapes = [
        shapely.geometry.shape(one["geometry"])
        for one in json.loads((tmp_path / "cam.geojson").read_text())["features"]
    ]
    assert shapely.union_all(shapes).bounds == pytest.approx((640, 320, 720, 480), abs=16)


def test_lesions_lie_on_the_scan_whatever_they_are_written_in(slide, tmp_path):
    path, bounds = slide
    with open_slide(path) as opened:
        canvas = opened.size
    box = (300, 200, 700, 500)  # on the scan
    ring = [[box[0], box[1]], [box[2], box[1]], [box[2], box[3]], [box[0], box[3]], [box[0], box[1]]]
    write_ring(tmp_path / "a.geojson", ring)
    points = "".join(
        f'<Coordinate Order="{n}" X="{x + bounds[0]}" Y="{y + bounds[1]}"/>' for n, (x, y) in enumerate(ring[:-1])
    )
    (tmp_path / "b.xml").write_text(
        f'<A><Annotation PartOfGroup="_0"><Coordinates>{points}</Coordinates></Annotation></A>'
    )
    on_scan = np.zeros(SCAN[::-1], np.uint8)
    on_scan[box[1] : box[3], box[0] : box[2]] = 255
    cv2.imwrite(str(tmp_path / "c.png"), on_scan)
    on_canvas = np.zeros(canvas[::-1], np.uint8)
    on_canvas[bounds[1] : bounds[1] + SCAN[1], bounds[0] : bounds[0] + SCAN[0]] = on_scan
    cv2.imwrite(str(tmp_path / "d.png"), on_canvas)
    for name in ("a.geojson", "b.xml", "c.png", "d.png"):
        mask = load_truth(tmp_path / name, canvas, bounds)((256, 384))
        rows, columns = np.nonzero(mask)
        assert (columns.min(), columns.max() + 1) == (75, 175), name
        assert (rows.min(), rows.max() + 1) == (50, 125), name
        assert mask.sum() == 100 * 75, name


def test_a_mask_that_fits_canvas_and_scan_alike_is_told_apart_by_its_size_or_refused():
    canvas, bounds = (2000, 1000), (300, 100, 1000, 500)
    assert find_scan_part((500, 250), canvas, (0, 0, *canvas), name="m.png") == (0, 0, 500, 250)
    with pytest.raises(TissueError, match="fits the canvas of 2000 x 1000 px and the scan of 1000 x 500 px alike"):
        find_scan_part((500, 250), canvas, bounds, name="m.png")
    assert find_scan_part((2000, 1000), canvas, bounds, name="m.png") == (300, 100, 1000, 500)
    assert find_scan_part((77, 77), (770, 770), (10, 20, 600, 300), name="m.png") == (1, 2, 60, 30)
    with pytest.raises(TissueError, match="not the same shape"):
        find_scan_part((77, 40), (770, 770), (10, 20, 600, 500), name="m.png")


def test_tiles_that_would_cross_the_edge_of_the_scan_are_left_out():
    mask = np.ones((10, 16), bool)
    spec = TileSpec(tile_px=100, mpp=0.5, min_tissue=0.0)
    slide = {"slide_size": (1600, 1000), "slide_mpp": (0.5, 0.5)}
    corners = place_tiles(mask, spec, **slide, bounds_l0=(150, 300, 700, 350))
    assert sorted(map(tuple, corners.tolist())) == [(x, y) for x in range(200, 800, 100) for y in (300, 400, 500)]
    assert len(place_tiles(mask, spec, **slide, bounds_l0=(0, 0, 1600, 1000))) == 160


def test_points_go_to_the_canvas_and_back():
    bounds = (517, 293, 1600, 1200)
    points = np.array([[0.0, 0.0], [12.25, 900.5]])
    np.testing.assert_array_equal(to_canvas(points, bounds), [[517, 293], [529.25, 1193.5]])
    np.testing.assert_array_equal(to_scan(to_canvas(points, bounds), bounds), points)


def test_bounds_beyond_the_canvas_are_cut_and_senseless_ones_are_the_canvas():
    assert clip_bounds((-20, 30, 400, 5000), (1000, 800)) == (0, 30, 380, 770)
    assert clip_bounds((2000, 30, 400, 50), (1000, 800)) == (0, 0, 1000, 800)
    assert clip_bounds((10, 30, 0, 50), (1000, 800)) == (0, 0, 1000, 800)


def test_a_slide_without_bounds_is_all_scan(tmp_path):
    from tests.slide.drawn import write_levels

    pixels, _ = draw(700, 500, blobs=((200, 200, 120, 100),))
    with open_slide(write_levels(tmp_path / "plain.tif", [pixels])) as opened:
        assert opened.bounds_l0 == (0, 0, 700, 500)
        np.testing.assert_array_equal(opened.read_scan(1.0), opened.read_thumbnail(1.0))
    plan = plan_slide(item(tmp_path / "plain.tif"), CutSettings(spec=TileSpec(tile_px=64, mpp=0.5)))
    plan.slide.close()
    assert "outside the scan" not in [step.step for step in plan.tissue.ledger]


def test_a_region_of_the_scan_is_rasterised_on_the_canvas_by_its_corner():
    from lamella.slide import move_to_canvas

    region = move_to_canvas(shapely.box(100, 50, 300, 150), (200, 100, 600, 400))
    mask = rasterise_regions(region, (6, 10), (1000, 600))
    assert region.bounds == (300, 150, 500, 250)
    assert np.argwhere(mask).tolist() == [[1, 3], [1, 4]]  # centres at y 150, upper edges count
