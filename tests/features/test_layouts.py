"""Files of the field, made to their true layout (field.md 1d), are read; ours are read by the field."""

import csv

import h5py
import numpy as np
import pytest
import torch

from lamella.errors import BagError
from lamella.features.bag import save_patches
from lamella.features.layouts import load_bag
from tests.features.test_bag import PROVENANCE, write_bag

RNG = np.random.default_rng(3)
FEATURES = RNG.normal(size=(5, 8)).astype(np.float32)
COORDS = np.array([[0, 512], [512, 512], [1024, 512], [0, 1024], [512, 1536]])


def write_trident(path, *, features=FEATURES, coords=COORDS):
    """Write what TRIDENT 0.3 writes: attributes on the datasets, float16, one row a chunk, None as 'None'."""
    with h5py.File(path, "w") as file:
        data = file.create_dataset("features", data=features.astype(np.float16), chunks=(1, features.shape[-1]))
        data.attrs.update({"name": "S-1", "savetodir": "/somewhere", "encoder": "resnet50"})
        place = file.create_dataset("coords", data=coords, chunks=(1, 2), maxshape=(None, 2))
        place.attrs.update(
            {
                "patch_size": 256, "patch_size_level0": 512, "level0_magnification": 40,
                "target_magnification": 20, "overlap": 0, "name": "S-1", "savetodir": "/somewhere",
                "level0_width": 4000, "level0_height": 3000, "custom": "None",
            }
        )  # fmt: skip


def write_clam(folder, *, with_patches=True):
    """Write what CLAM writes: `h5_files/` without attributes, `pt_files/`, and `patches/` with the tile size."""
    for name in ("h5_files", "pt_files", "patches"):
        (folder / name).mkdir()
    with h5py.File(folder / "h5_files" / "S-1.h5", "w") as file:
        file.create_dataset("features", data=FEATURES, chunks=(5, 8), maxshape=(None, 8))
        file.create_dataset("coords", data=COORDS.astype(np.int32), chunks=(5, 2), maxshape=(None, 2))
    torch.save(torch.from_numpy(FEATURES), folder / "pt_files" / "S-1.pt")
    if with_patches:
        with h5py.File(folder / "patches" / "S-1.h5", "w") as file:
            place = file.create_dataset("coords", data=COORDS, chunks=(1, 2), maxshape=(None, 2))
            place.attrs.update(
                {
                    "patch_size": 256, "patch_level": 1, "downsample": np.array([2.0, 2.0]),
                    "downsampled_level_dim": np.array([2000, 1500]), "level_dim": np.array([2000, 1500]),
                    "name": "S-1", "save_path": "/somewhere",
                }
            )  # fmt: skip


def test_trident_is_read(tmp_path):
    write_trident(tmp_path / "S-1.h5")
    bag = load_bag(tmp_path / "S-1.h5")
    assert (bag.layout, bag.encoder, bag.tile_px, bag.tile_l0) == ("trident", "resnet50", 256, (512, 512))
    assert bag.slide_size == (4000, 3000)
    assert bag.mpp is None  # TRIDENT states magnifications, not resolutions
    assert (bag.coords_l0 == COORDS).all()
    np.testing.assert_allclose(bag.features, FEATURES, rtol=1e-3, atol=1e-4)
    assert load_bag(tmp_path / "S-1.h5", slide_mpp=0.265).mpp == pytest.approx(0.53)


@pytest.mark.parametrize("shape", [(0, 8), (0,)])
def test_an_empty_trident_slide_is_an_empty_bag(tmp_path, shape):
    write_trident(tmp_path / "S-1.h5", features=np.zeros((1, 8), np.float32), coords=COORDS[:0])
    with h5py.File(tmp_path / "S-1.h5", "a") as file:
        del file["features"]
        file.create_dataset("features", data=np.zeros(shape, np.float32))
    assert len(load_bag(tmp_path / "S-1.h5").features) == 0


def test_clam_h5_takes_its_tile_size_from_the_patches_beside_it(tmp_path):
    write_clam(tmp_path)
    bag = load_bag(tmp_path / "h5_files" / "S-1.h5")
    assert (bag.layout, bag.tile_px, bag.tile_l0) == ("clam", 256, (512, 512))
    assert (bag.features == FEATURES).all()
    assert (bag.coords_l0 == COORDS).all()


def test_clam_h5_alone_states_no_tile_size(tmp_path):
    write_clam(tmp_path, with_patches=False)
    assert load_bag(tmp_path / "h5_files" / "S-1.h5").tile_px is None


def test_clam_pt_is_read(tmp_path):
    write_clam(tmp_path)
    bag = load_bag(tmp_path / "pt_files" / "S-1.pt")
    assert bag.layout == "clam"
    assert (bag.features == FEATURES).all()


def test_a_pt_file_that_would_run_code_is_refused(tmp_path):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    torch.save(Hostile(), tmp_path / "S-1.pt")
    with pytest.raises(BagError, match="plain tensors"):
        load_bag(tmp_path / "S-1.pt")
    assert not (tmp_path / "owned").exists()


def test_stamp_is_read_in_um_and_in_pixels_once_the_resolution_is_known(tmp_path):
    with h5py.File(tmp_path / "S-1.h5", "w") as file:
        file["coords"] = COORDS * 0.25
        file["feats"] = FEATURES.astype(np.float16)
        file.attrs.update(
            {
                "stamp_version": "2.5.0", "extractor": "ctranspath", "unit": "um", "tile_size_um": 256.0,
                "tile_size_px": 224, "code_hash": "00", "feat_type": "tile",
            }
        )  # fmt: skip
    bag = load_bag(tmp_path / "S-1.h5")
    assert (bag.layout, bag.encoder, bag.tile_px) == ("stamp", "ctranspath", 224)
    assert bag.mpp == pytest.approx(256 / 224)
    assert bag.coords_l0 is None
    np.testing.assert_allclose(bag.coords_um, COORDS * 0.25)
    assert (load_bag(tmp_path / "S-1.h5", slide_mpp=0.25).coords_l0 == COORDS).all()


def test_a_file_without_features_says_what_it_holds(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["weights"] = [1, 2]
    with pytest.raises(BagError, match=r"holds 'weights' but no 'features'"):
        load_bag(tmp_path / "x.h5")


def test_torchmil_opens_our_folder_as_a_trident_dataset(tmp_path):
    datasets = pytest.importorskip("torchmil.datasets")
    root = tmp_path / "224px_0.5mpp_112px"
    write_bag(root / "features_resnet18" / "S-7.h5", FEATURES, COORDS)
    save_patches(root / "patches" / "S-7_patches.h5", COORDS, PROVENANCE)
    with (tmp_path / "labels.csv").open("w", newline="") as table:
        csv.writer(table).writerows([["slide_id", "label"], ["S-7", 1]])
    dataset = datasets.TridentWSIDataset(
        base_path=f"{root}/",
        labels_path=str(tmp_path / "labels.csv"),
        feature_extractor="resnet18",
        patch_size=224,
        bag_keys=["X", "Y", "coords"],
        wsi_name_col="slide_id",
        wsi_label_col="label",
    )
    bag = dataset[0]
    np.testing.assert_allclose(bag["X"], FEATURES, rtol=1e-3, atol=1e-4)
    assert int(bag["Y"]) == 1
    assert len(bag["coords"]) == len(COORDS)
