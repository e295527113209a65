"""What other programs open: GeoJSON for QuPath, and a TIFF that registers."""

import json
import uuid
from types import SimpleNamespace

import numpy as np
import openslide
import pytest
import pyvips
import shapely
import tifffile

from lamella.errors import SettingsError, TissueError
from lamella.maps import stitch_tiles
from lamella.reports.draw.cam import save_contours
from lamella.reports.draw.geojson import ATTENTION, RANK, save_attention_geojson
from lamella.reports.draw.heatmap import SlideAttention
from lamella.reports.draw.tiff import plan_map, save_attention_tiff
from lamella.samples.outlines import save_outlines
from lamella.tissue import load_regions, save_tissue_geojson
from lamella.tissue.mask import TissueMask


@pytest.fixture
def tiles():
    """Tiles off-centre on a slide wider than high, of unequal resolutions and fractional tile size."""
    rng = np.random.default_rng(5)
    coords = np.stack(np.meshgrid(np.arange(9) * 222 + 2500, np.arange(5) * 223 + 300), axis=-1).reshape(-1, 2)
    attention = rng.random(45)
    return SlideAttention(
        attention=attention / attention.sum(),
        coords_l0=coords.astype(np.int64),
        tile_size_l0=(443.5644, 447.1058),
        slide_size=(6100, 3300),
        slide_mpp=(0.2525, 0.2505),
    )


def test_geojson_gives_back_every_tile(tiles, tmp_path):
    save_attention_geojson(tiles, tmp_path / "attention.geojson")
    back = json.loads((tmp_path / "attention.geojson").read_text(encoding="utf-8"))["features"]
    rings = np.array([feature["geometry"]["coordinates"][0] for feature in back])
    measured = [feature["properties"]["measurements"] for feature in back]
    assert rings[:, 0].tolist() == tiles.coords_l0.tolist()
    np.testing.assert_allclose(rings[:, 2] - rings[:, 0], [tiles.tile_size_l0] * 45, atol=1e-3)
    assert [tile[ATTENTION] for tile in measured] == tiles.attention.tolist()
    assert [tile[RANK] for tile in measured] == tiles.rank.tolist()
    assert sorted(tile[RANK] for tile in measured) == list(range(1, 46))


def test_geojson_is_what_qupath_reads(tiles, tmp_path):
    save_attention_geojson(tiles, tmp_path / "attention.geojson")
    features = json.loads((tmp_path / "attention.geojson").read_text())["features"]
    for feature in features:
        ring = feature["geometry"]["coordinates"][0]
        assert feature["type"] == "Feature"
        assert feature["geometry"]["type"] == "Polygon"
        assert len(ring) == 5
        assert ring[0] == ring[-1]
        assert feature["properties"]["objectType"] == "detection"
        assert all(isinstance(value, int | float) for value in feature["properties"]["measurements"].values())


def check_qupath_features(path):
    """Hold a file against what QuPath documents of its GeoJSON; return the features."""
    content = json.loads(path.read_text())
    assert content["type"] == "FeatureCollection"
    features = content["features"]
    assert len({uuid.UUID(feature["id"]) for feature in features}) == len(features)
    for feature in features:
        assert set(feature) == {"type", "id", "geometry", "properties"}
        properties = feature["properties"]
        assert properties["objectType"] in ("annotation", "detection")
        assert properties["isLocked"] in (True, False)
        assert properties["name"]
        assert set(properties["classification"]) == {"name", "color"}
        assert len(properties["classification"]["color"]) == 3
        assert all(isinstance(band, int) and 0 <= band <= 255 for band in properties["classification"]["color"])
        assert all(np.isfinite(value) for value in properties.get("measurements", {}).values())
        drawn = shapely.geometry.shape(feature["geometry"])
        assert drawn.is_valid
        assert drawn.area > 0
    return features


def test_every_geojson_that_we_write_is_what_qupath_documents(tiles, tmp_path):
    save_attention_geojson(tiles, tmp_path / "attention.geojson")
    features = check_qupath_features(tmp_path / "attention.geojson")
    assert {feature["properties"]["classification"]["name"] for feature in features} == {"Attention tile"}
    # Detections are what was measured, not what was drawn: they are no regions when they come back.
    with pytest.raises(TissueError, match=r"hold no area \(it holds 45 detection\)"):
        load_regions(tmp_path / "attention.geojson")
    mask = np.zeros((9, 13), bool)
    mask[2:7, 3:10] = True
    mask[4, 5] = False
    mask[0, 12] = True
    save_tissue_geojson(TissueMask(mask, (1300, 900), (0.5, 0.5), "glass"), tmp_path / "tissue.geojson")
    assert len(check_qupath_features(tmp_path / "tissue.geojson")) == 2
    raster = np.zeros((30, 40), np.float32)
    raster[5:9, 6:12], raster[20:24, 30:33], raster[12:15, 2:5] = 1.0, 0.5, -2.0
    record = SimpleNamespace(target="malignant")
    save_contours(raster, record, (0, 0, 1300, 900), tmp_path / "cam.geojson")
    contours = check_qupath_features(tmp_path / "cam.geojson")
    assert [one["properties"]["name"] for one in contours][:2] == ["50% for malignant", "80% for malignant"]
    save_outlines((shapely.box(10, 20, 60, 40),), tmp_path / "lesion.geojson")
    check_qupath_features(tmp_path / "lesion.geojson")


def test_ids_are_the_same_whenever_the_same_is_written(tiles, tmp_path):
    save_attention_geojson(tiles, tmp_path / "first.geojson")
    save_attention_geojson(tiles, tmp_path / "again.geojson")
    assert (tmp_path / "first.geojson").read_bytes() == (tmp_path / "again.geojson").read_bytes()


def test_the_tiff_covers_the_slide_in_um(tiles, tmp_path):
    path = tmp_path / "attention.tiff"
    save_attention_tiff(tiles, path)
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        per_cm = [tag.value[0] / tag.value[1] for tag in (page.tags["XResolution"], page.tags["YResolution"])]
        assert page.tags["ResolutionUnit"].value == 3  # centimetres
        extent = page.imagewidth / per_cm[0] * 10_000, page.imagelength / per_cm[1] * 10_000
        assert page.dtype == np.float32
        assert page.is_tiled
    assert extent == pytest.approx(tiles.slide_um, rel=1e-4)
    with openslide.OpenSlide(path) as slide:
        mpp = (
            float(slide.properties[openslide.PROPERTY_NAME_MPP_X]),
            float(slide.properties[openslide.PROPERTY_NAME_MPP_Y]),
        )
        assert (slide.dimensions[0] * mpp[0], slide.dimensions[1] * mpp[1]) == pytest.approx(tiles.slide_um, rel=1e-4)
    image = pyvips.Image.new_from_file(str(path))
    assert (image.width / image.xres * 1000, image.height / image.yres * 1000) == pytest.approx(
        tiles.slide_um, rel=1e-4
    )


def test_the_tiff_states_its_resolution_as_ome_too(tiles, tmp_path):
    path = tmp_path / "attention.tiff"
    save_attention_tiff(tiles, path)
    with tifffile.TiffFile(path) as file:
        assert file.is_ome
        pixels = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
    sizes = pixels["SizeX"] * pixels["PhysicalSizeX"], pixels["SizeY"] * pixels["PhysicalSizeY"]
    assert sizes == pytest.approx(tiles.slide_um, rel=1e-6)


def test_the_tiff_holds_the_map_to_the_pixel_with_smaller_levels(tiles, tmp_path):
    path = tmp_path / "attention.tiff"
    save_attention_tiff(tiles, path, map_mpp=1.0)
    shape = plan_map(tiles, map_mpp=1.0)
    expected = stitch_tiles(tiles.relative, tiles.coords_l0, tiles.tile_size_l0, tiles.slide_size, shape)
    with tifffile.TiffFile(path) as file:
        levels = file.series[0].levels
        np.testing.assert_array_equal(levels[0].asarray(), expected)
        sizes = [level.shape for level in levels]
        assert len(sizes) >= 3
        assert sizes[1] == (shape[0] // 2, shape[1] // 2)
        # Empty places stay empty, and do not eat into tiles, at every level.
        covered = np.isfinite(expected).mean()
        assert np.isfinite(levels[-1].asarray()).mean() == pytest.approx(covered, abs=0.02)


def test_the_exports_hold_no_path_and_no_date(tiles, tmp_path):
    folder = tmp_path / "Jane-Doe"
    save_attention_tiff(tiles, folder / "Jane-Doe.tiff")
    save_attention_geojson(tiles, folder / "Jane-Doe.geojson")
    for path in folder.iterdir():
        assert b"Jane" not in path.read_bytes()
        assert str(tmp_path).encode() not in path.read_bytes()


def test_a_map_finer_than_the_slide_is_refused(tiles, tmp_path):
    with pytest.raises(SettingsError, match=r"0.1 um/px and the slide has 0.2505"):
        save_attention_tiff(tiles, tmp_path / "attention.tiff", map_mpp=0.1)
