"""OME-Zarr folders are slides: NGFF 0.4 and 0.5, any axes, read by chunk; what is no brightfield slide is refused."""

import json

import numpy as np
import pytest
import zarr

from lamella.cohort import gather_slides
from lamella.errors import SlideError
from lamella.features.plan import CutSettings, plan_slide
from lamella.slide import hash_fully, hash_quickly, list_slides, open_slide
from lamella.slide.ome_zarr import ZarrReader
from lamella.tiles import TileSpec
from tests.slide.drawn import draw, pad, shrink

CUT = CutSettings(spec=TileSpec(tile_px=112, mpp=0.5))


@pytest.fixture(scope="module")
def drawn():
    return draw()


def write(path, levels, *, version="0.4", axes="cyx", unit="micrometer", steps=(0.5, 1.0, 2.0), omero=None, **array):
    """Write levels `(h, w, 3)` as an OME-Zarr image."""
    group = zarr.create_group(str(path), zarr_format=3 if version == "0.5" else 2, overwrite=True)
    datasets = []
    for k, level in enumerate(levels):
        ordered = level.transpose(["yxc".index(axis) for axis in axes if axis in "cyx"])
        shape = [ordered.shape["".join(a for a in axes if a in "cyx").index(a)] if a in "cyx" else 1 for a in axes]
        chunks = [256 if axis in "yx" else 1 for axis in axes]
        stored = group.create_array(str(k), shape=shape, chunks=chunks, dtype=ordered.dtype, **array)
        stored[:] = ordered.reshape(shape)
        scale = [steps[k] if axis in "yx" else 1.0 for axis in axes]
        datasets.append({"path": str(k), "coordinateTransformations": [{"type": "scale", "scale": scale}]})
    named = [{"name": axis, "type": "space"} | ({"unit": unit} if unit and axis in "yx" else {}) for axis in axes]
    ome = {"multiscales": [{"version": version, "axes": named, "datasets": datasets}]}
    ome |= {"omero": {"channels": omero}} if omero else {}
    group.attrs.update({"ome": {"version": "0.5", **ome}} if version == "0.5" else ome)
    return path


def levels_of(pixels):
    return [pixels, shrink(pixels, 2), shrink(pixels, 4)]


@pytest.mark.parametrize(
    ("version", "axes"), [("0.4", "cyx"), ("0.4", "tczyx"), ("0.5", "cyx"), ("0.5", "czyx"), ("0.4", "yxc")]
)
def test_pixels_and_resolution_are_those_of_the_file(drawn, tmp_path, version, axes):
    path = write(tmp_path / "s.ome.zarr", levels_of(drawn[0]), version=version, axes=axes)
    with open_slide(path) as slide:
        assert slide.size == (2000, 1500)
        assert slide.mpp == (0.5, 0.5)
        assert slide.level_downsamples == (1, 2, 4)
        assert slide.format == f"ome-zarr {version}"
        np.testing.assert_array_equal(slide.read_region((301, 205), 0, (500, 403)), drawn[0][205:608, 301:801])
        np.testing.assert_array_equal(slide.read_region((30, 20), 2, (50, 40)), shrink(drawn[0], 4)[20:60, 30:80])
    cohort = gather_slides(list_slides([path]))
    plan = plan_slide(cohort.slides[0], CUT)
    plan.slide.close()
    assert cohort.slides[0].slide_id == "s.ome"
    assert len(plan.corners_l0) == 49
    assert min(drawn[1][y : y + 112, x : x + 112].mean() for x, y in plan.corners_l0) > 0.4


def test_units_become_um_and_without_a_unit_nothing_is_stated(drawn, tmp_path):
    levels = [drawn[0][:400, :600]]
    for unit, step in (("nanometer", 250.0), ("millimeter", 0.00025), ("micrometer", 0.25)):
        with open_slide(write(tmp_path / f"{unit}.zarr", levels, unit=unit, steps=(step,))) as slide:
            assert slide.stated_mpp == pytest.approx((0.25, 0.25))
    for unit in ("", "second"):
        with open_slide(write(tmp_path / f"no{unit}.zarr", levels, unit=unit)) as slide:
            assert slide.stated_mpp is None


def test_padded_levels_of_zarr_keep_their_scale(drawn, tmp_path):
    levels = levels_of(drawn[0])
    path = write(tmp_path / "padded.zarr", [levels[0], *(pad(level) for level in levels[1:])], version="0.5")
    with open_slide(path) as slide:
        assert slide.level_downsamples == (1, 2, 4)
        assert slide.level_dimensions == ((2000, 1500), (1000, 750), (500, 375))


def test_bioformats2raw_gives_image_0_and_the_label_is_never_read(drawn, tmp_path):
    root = tmp_path / "raw.zarr"
    zarr.create_group(str(root), zarr_format=2).attrs["bioformats2raw.layout"] = 3
    write(root / "0", levels_of(drawn[0]), axes="tczyx")
    write(root / "1", [drawn[0][:100, :200]])
    with open_slide(root) as slide:
        assert slide.size == (2000, 1500)
    assert list_slides([root]) == (root,)


def test_sharded_chunks_are_read(drawn, tmp_path):
    path = write(tmp_path / "shards.zarr", [drawn[0][:600, :900]], version="0.5", shards=(3, 512, 512))
    with open_slide(path) as slide:
        np.testing.assert_array_equal(slide.read_region((250, 200), 0, (400, 300)), drawn[0][200:500, 250:650])


def test_a_read_decodes_the_chunks_under_it_and_no_more(drawn, tmp_path):
    path = write(tmp_path / "lost.zarr", [drawn[0]])
    damaged = path / "0" / "0.5.7"
    damaged.write_bytes(b"damaged")
    reader = ZarrReader(path)
    reader.read((0, 0), 0, (1500, 1200))  # far from it
    with pytest.raises(SlideError, match=r"slide 'lost\.zarr' cannot be read"):
        reader.read((1900, 1400), 0, (50, 50))
    reader.close()


def test_hashes_know_a_copy_and_a_change(drawn, tmp_path):
    one, two = (write(tmp_path / name, [drawn[0]]) for name in ("a.zarr", "b.zarr"))
    assert hash_quickly(one) == hash_quickly(two)
    assert hash_fully(one) == hash_fully(two)
    other = drawn[0].copy()
    other[700:720, 900:920] = 0
    changed = write(tmp_path / "c.zarr", [other])
    assert hash_fully(changed) != hash_fully(one)
    assert hash_quickly(changed) != hash_quickly(one)


def rgb(*colours):
    return [{"label": f"c{n}", "color": colour} for n, colour in enumerate(colours)]


def test_what_is_no_brightfield_slide_is_refused_by_name(drawn, tmp_path):
    small = drawn[0][:300, :400]
    cases = {
        "sixteen.zarr": ([small.astype(np.uint16)], {}, "has 3 channels of uint16, and brightfield has 3 of uint8"),
        "four.zarr": ([np.dstack([small, small[..., :1]])], {}, "has 4 channels of uint8"),
        "grey.zarr": ([small[..., :1]], {}, "has 1 channels of uint8"),
        "dapi.zarr": ([small], {"omero": rgb("0000FF", "00FF00", "FF0000")}, r"\(c0, c1, c2\).*it is not brightfield"),
        "named.zarr": ([small], {"omero": rgb("FF0000", "00FF00", "0000FF")}, None),
    }
    for name, (levels, options, said) in cases.items():
        path = write(tmp_path / name, levels, **options)
        if said is None:
            open_slide(path).close()
            continue
        with pytest.raises(SlideError, match=said):
            open_slide(path)
    zarr.create_group(str(tmp_path / "bare.zarr"), zarr_format=3)
    with pytest.raises(SlideError, match="without OME metadata"):
        open_slide(tmp_path / "bare.zarr")
    zarr.create_group(str(tmp_path / "plate.zarr"), zarr_format=2).attrs["plate"] = {}
    with pytest.raises(SlideError, match="is a plate of wells"):
        open_slide(tmp_path / "plate.zarr")
    stack = write(tmp_path / "stack.zarr", [small], axes="czyx")
    content = json.loads((stack / "0" / ".zarray").read_text())
    content["shape"][1] = 5
    (stack / "0" / ".zarray").write_text(json.dumps(content))
    with pytest.raises(SlideError, match="is a stack \\(5 along z\\)"):
        open_slide(stack)


def test_a_codec_that_could_run_what_it_decodes_is_refused(drawn, tmp_path):
    path = write(tmp_path / "pickle.zarr", [drawn[0][:300, :400]])
    content = json.loads((path / "0" / ".zarray").read_text())
    content["filters"] = [{"id": "pickle"}]
    (path / "0" / ".zarray").write_text(json.dumps(content))
    with pytest.raises(SlideError, match="is compressed by 'pickle', which is not taken"):
        open_slide(path)


def test_a_level_outside_the_folder_is_refused(drawn, tmp_path):
    write(tmp_path / "other.zarr", [drawn[0][:300, :400]])
    path = write(tmp_path / "s.zarr", [drawn[0][:300, :400]])
    content = json.loads((path / ".zattrs").read_text())
    content["multiscales"][0]["datasets"][0]["path"] = "../other.zarr/0"
    (path / ".zattrs").write_text(json.dumps(content))
    with pytest.raises(SlideError, match="names a level outside its folder"):
        open_slide(path)
