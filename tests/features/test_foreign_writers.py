"""Bags written by the tools' own writers, where they are installed, are read to the last value."""

from pathlib import Path

import numpy as np
import pytest

from lamella.features.layouts import load_bag
from tests.features.foreign import COORDS, FEATURES, OTHERS, VECTOR

pytestmark = pytest.mark.filterwarnings("ignore")  # of the tools
BOXES = [(int(x), int(y), 256, 256, 1, np.zeros((256, 256, 3), np.uint8)) for x, y in COORDS]


def test_what_atlaspatch_writes_is_read(tmp_path: Path):
    storage = pytest.importorskip("atlas_patch.services.storage", reason="atlas-patch is not installed")
    from atlas_patch.utils.feature_h5 import append_slide_embedding, write_patient_embedding_h5

    path = tmp_path / "S-1.h5"
    sizes = {"patch_size": 256, "patch_size_level0": 512, "level0_mag": 40, "target_mag": 20, "level0_wh": (4000, 3000)}
    about = {"overlap": 0, "slide_stem": "S-1", "wsi_path": "S-1.svs", "extra_file_attrs": {"mpp": 0.25}}
    writer = storage.H5PatchWriter(chunk_rows=8, **sizes, **about)
    writer.write_coords(path, BOXES, batch=2)
    for name, rows in (("uni_v1", FEATURES), ("resnet50", OTHERS)):
        left = iter(rows)
        writer.append_features(
            output_path=path,
            entries=BOXES,
            feature_name=name,
            feature_fn=lambda tiles, left=left: np.stack([next(left) for _ in tiles]),
            feature_attrs={"name": name, "embedding_dim": rows.shape[1]},
            feature_batch=2,
            expected_total=len(rows),
        )
    append_slide_embedding(path, "titan", VECTOR, attrs={"source_patch_encoder": "conch_v15"})
    write_patient_embedding_h5(tmp_path / "P-1.h5", VECTOR, attrs={"encoder_name": "moozy", "num_slides": 2})
    bag = load_bag(path, encoder="uni_v1")
    assert (bag.features == FEATURES).all()
    assert (bag.coords_l0 == COORDS).all()
    assert (bag.tile_l0, bag.slide_size, bag.mpp) == ((512, 512), (4000, 3000), pytest.approx(0.5))
    assert (load_bag(path, encoder="resnet50").features == OTHERS).all()
    assert (load_bag(path, encoder="titan").features == VECTOR).all()
    assert (load_bag(tmp_path / "P-1.h5").features == VECTOR).all()


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_what_wsidata_writes_is_read(tmp_path: Path, shared_data: Path, zarr_format: int):
    wsidata = pytest.importorskip("wsidata", reason="wsidata is not installed")
    from spatialdata._io.format import SpatialDataContainerFormatV01, SpatialDataContainerFormatV02
    from wsidata.io import add_features, add_tiles

    path = tmp_path / "S-1.zarr"
    slide = wsidata.open_wsi(shared_data / "slides" / "CMU-1-Small-Region.svs", store=str(path))
    spec = wsidata.TileSpec.from_wsidata(slide, tile_px=224, mpp=1.0)
    add_tiles(slide, "tiles", COORDS, spec, np.array([0, 0, 0, 1, 1]))
    add_features(slide, "uni2_tiles", "tiles", FEATURES)
    formats = {2: SpatialDataContainerFormatV01, 3: SpatialDataContainerFormatV02}
    slide.write(str(path), sdata_formats=formats[zarr_format]())
    bag = load_bag(path)
    assert (path / "zarr.json").exists() == (zarr_format == 3)
    assert (bag.features == FEATURES).all()
    assert (bag.coords_l0 == COORDS).all()
    assert (bag.encoder, bag.mpp, bag.tile_px, bag.slide_size) == ("uni2", 1.0, 224, (2220, 2967))
    assert bag.tile_l0 == pytest.approx((448.9, 448.9), abs=0.01)  # 224 px of 1 um on a slide of 0.499 um
    np.testing.assert_allclose(bag.coords_um, COORDS * 0.499)


def test_where_hs2p_places_tiles_is_read_beside_what_slide2vec_writes(tmp_path: Path, shared_data: Path):
    hs2p = pytest.importorskip("hs2p", reason="hs2p is not installed")
    artifacts = pytest.importorskip("slide2vec.artifacts", reason="slide2vec is not installed")
    import torch

    slide = hs2p.SlideSpec(sample_id="S-1", image_path=shared_data / "slides" / "CMU-1-Small-Region.svs")
    tiling = hs2p.TilingConfig(
        requested_spacing_um=0.5, requested_tile_size_px=256, tolerance=0.05, overlap=0.0, backend="openslide"
    )
    tiles = hs2p.tile_slide(slide, tiling=tiling, segmentation=hs2p.SegmentationConfig(method="hsv", downsample=16))
    hs2p.save_tiling_result(tiles, output_dir=tmp_path)
    rows = np.random.default_rng(0).normal(size=(len(tiles.x), 8)).astype(np.float16)
    stated = {"encoder_name": "uni2", "tile_size_lv0": int(tiles.tile_size_lv0), "requested_tile_size_px": 256}
    for suffix in ("pt", "npz"):
        artifacts.write_tile_embeddings(
            "S-1", torch.from_numpy(rows), output_dir=tmp_path, output_format=suffix, tile_index=tiles.tile_index,
            metadata=stated | {"requested_spacing_um": 0.5},
        )  # fmt: skip
        bag = load_bag(tmp_path / "tile_embeddings" / f"S-1.{suffix}")
        assert len(rows) > 10
        assert (bag.features == rows.astype(np.float32)).all()
        assert (bag.coords_l0 == np.stack([tiles.x, tiles.y], axis=1)).all()
        assert (bag.encoder, bag.mpp, bag.slide_size) == ("uni2", 0.5, (2220, 2967))


def test_what_mussel_writes_is_read(tmp_path: Path, shared_data: Path):
    segment = pytest.importorskip("mussel.utils.segment", reason="mussel-pathology is not installed")
    from mussel.utils.file import save_hdf5

    tiles, path = str(tmp_path / "S-1.patch.h5"), tmp_path / "S-1.features.h5"
    slide = str(shared_data / "slides" / "CMU-1-Small-Region.svs")
    areas = {"tissue_area_threshold": 1, "ref_patch_size": 64}
    _, _, corners, _ = segment.segment_tissue(slide, patch_size=128, mpp=1.0, output_h5_path=tiles, **areas)
    coords = np.array(corners, np.int64)
    rows = np.random.default_rng(0).normal(size=(len(coords), 8)).astype(np.float32)
    save_hdf5(str(path), {"features": rows, "coords": coords}, attr_h5_path=tiles, mode="w")
    bag = load_bag(path)
    assert len(rows) > 10
    assert (bag.features == rows).all()
    assert (bag.coords_l0 == coords).all()
    assert (bag.layout, bag.tile_px, bag.mpp, bag.slide_size) == ("mussel", 128, 1.0, (2220, 2967))
    assert bag.tile_l0 == (257, 257)  # 128 px of 1 um on a slide of 0.499 um, rounded up
    half = np.ascontiguousarray(rows).view("<u2")[:, 1::2].copy().view("V2")
    save_hdf5(str(path), {"features": half, "coords": coords}, attr_h5_path=tiles, mode="w")
    np.testing.assert_allclose(load_bag(path).features, rows, rtol=2**-7)
