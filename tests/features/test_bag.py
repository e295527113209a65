"""A bag is whole or absent, says how it was made, and is refused when that is not what is asked."""

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamella.errors import BagError, OutputError
from lamella.features.bag import (
    FEATURE_KEYS,
    BagFolder,
    BagWriter,
    find_differences,
    folder_name,
    load_patches,
    save_patches,
)
from lamella.features.layouts import load_bag
from lamella.tiles import TileSpec

PROVENANCE = {
    "slide_id": "S-7",
    "slide_quickhash": "ab" * 32,
    "slide_mpp_x": 0.25,
    "slide_mpp_y": 0.252,
    "mpp_source": "file",
    "slide_width": 9000,
    "slide_height": 5000,
    "magnification": 40.0,
    "tile_px": 224,
    "mpp": 0.5,
    "stride_px": 112,
    "min_tissue": 0.5,
    "tissue": "glass",
    "regions": "",
    "max_upsample": 1.1,
    "encoder": "resnet18",
    "fingerprint": "cd" * 32,
    "dtype": "float16",
    "ledger": '[["whole slide", 10.0, 0.0]]',
}


def write_bag(path, features, coords, *, dtype="float16", **changes):
    """Write a bag as the extraction does, in two pieces."""
    writer = BagWriter(path, coords, dim=features.shape[1], dtype=dtype)
    for piece in np.array_split(features, 2):
        writer.append(piece)
    writer.finish(PROVENANCE | {"dtype": dtype} | changes)


@given(n=st.integers(1, 40), dim=st.integers(1, 9), seed=st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_write_then_read_is_identity(tmp_path_factory, n, dim, seed):
    rng = np.random.default_rng(seed)
    path = tmp_path_factory.mktemp("bag") / "S-7.h5"
    features, coords = rng.normal(size=(n, dim)).astype(np.float32), rng.integers(0, 5000, (n, 2))
    write_bag(path, features, coords, dtype="float32")
    bag = load_bag(path)
    assert (bag.features == features).all()
    assert (bag.coords_l0 == coords).all()
    assert (bag.slide_id, bag.encoder, bag.tile_px, bag.mpp) == ("S-7", "resnet18", 224, 0.5)
    assert bag.tile_l0 == pytest.approx((448, 444.444444))
    assert bag.slide_size == (9000, 5000)
    assert bag.fingerprint == "cd" * 32


def test_float16_costs_one_part_in_two_thousand(tmp_path):
    features = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32)
    write_bag(tmp_path / "a.h5", features, np.zeros((50, 2), np.int64))
    read = load_bag(tmp_path / "a.h5").features
    assert np.abs(read / features - 1).max() < 1 / 1900


def test_a_value_beyond_float16_is_refused_not_made_infinite(tmp_path):
    writer = BagWriter(tmp_path / "a.h5", np.zeros((1, 2), np.int64), dim=2, dtype="float16")
    with pytest.raises(BagError, match="--dtype float32"):
        writer.append(np.array([[1.0, 1e6]], np.float32))
    writer.discard()
    assert list(tmp_path.iterdir()) == []


def test_an_unfinished_bag_leaves_nothing(tmp_path):
    writer = BagWriter(tmp_path / "a.h5", np.zeros((3, 2), np.int64), dim=2, dtype="float16")
    writer.append(np.zeros((2, 2), np.float32))
    assert not (tmp_path / "a.h5").exists()
    with pytest.raises(BagError, match="2 of 3 tiles"):
        writer.finish(PROVENANCE)
    assert list(tmp_path.iterdir()) == []


def test_a_bag_made_otherwise_is_told_apart_by_what_differs(tmp_path):
    write_bag(tmp_path / "a.h5", np.zeros((4, 3), np.float32), np.zeros((4, 2), np.int64))
    wanted = PROVENANCE | {"mpp": 0.25, "fingerprint": "ef" * 32}
    differences = find_differences(tmp_path / "a.h5", wanted, FEATURE_KEYS)
    assert differences == ("mpp 0.5 (now 0.25)", "fingerprint cdcdcdcdcdcd... (now efefefefefef...)")
    assert find_differences(tmp_path / "a.h5", PROVENANCE, FEATURE_KEYS) == ()


def test_chunks_hold_many_rows(tmp_path):
    write_bag(tmp_path / "a.h5", np.zeros((900, 64), np.float32), np.zeros((900, 2), np.int64))
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["features"].chunks == (900, 64)
        assert file["features"].dtype == np.float16


def test_patches_are_read_back_with_their_provenance(tmp_path):
    coords = np.array([[0, 5], [448, 5]])
    save_patches(tmp_path / "p.h5", coords, PROVENANCE)
    read, attributes = load_patches(tmp_path / "p.h5")
    assert (read == coords).all()
    assert attributes["tissue"] == "glass"


@pytest.mark.parametrize("content", [b"", b"no hdf5", b"\x89HDF\r\n\x1a\n" + b"\0" * 50])
def test_a_damaged_file_is_one_line(tmp_path, content):
    (tmp_path / "bad.h5").write_bytes(content)
    with pytest.raises(BagError, match=r"'bad.h5' is not a readable HDF5 file .* Delete it"):
        load_bag(tmp_path / "bad.h5")


def test_a_missing_bag_names_the_command_that_makes_it(tmp_path):
    with pytest.raises(BagError, match="lamella extract"):
        load_bag(tmp_path / "none.h5")


def test_a_folder_that_cannot_be_made_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="Choose another --out"):
        BagWriter(tmp_path / "file" / "a.h5", np.zeros((1, 2), np.int64), dim=2, dtype="float16")


def test_folders_carry_the_spec_and_the_encoder(tmp_path):
    folder = BagFolder(tmp_path, TileSpec(tile_px=224, mpp=0.25, stride_px=112), "timm:vit_tiny/x@3")
    assert folder.features_path("S-7") == tmp_path / "224px_0.25mpp_112px" / "features_timm_vit_tiny_x_3" / "S-7.h5"
    assert folder.patches_path("S-7") == tmp_path / "224px_0.25mpp_112px" / "patches" / "S-7_patches.h5"
    assert folder_name("efficientnet-lite0") == "efficientnet-lite0"
