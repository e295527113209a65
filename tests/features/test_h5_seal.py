"""A bag of ours carries a hash of its content: a value that was changed in it is told, wherever it stands."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from lamella.errors import BagError
from lamella.features.bag import load_patches, save_patches
from lamella.features.h5_seal import SEAL
from lamella.features.layouts import load_bag, open_own_bag
from tests.features.test_bag import PROVENANCE, write_bag

FEATURES = np.arange(12, dtype=np.float32).reshape(4, 3)
COORDS = np.array([[0, 0], [448, 0], [0, 448], [448, 448]], np.int64)


def test_one_changed_value_of_a_bag_is_told_and_an_older_bag_without_a_seal_is_read(tmp_path: Path) -> None:
    path = tmp_path / "S-7.h5"
    write_bag(path, FEATURES, COORDS)
    assert len(load_bag(path).features) == len(open_own_bag(path).read_stored()) == 4
    with h5py.File(path, "a") as file:
        file["features"][2, 1] += 1
    for read in (load_bag, lambda path: open_own_bag(path).read_stored()):
        with pytest.raises(BagError, match="not as it was written"):
            read(path)
    with h5py.File(path, "a") as file:
        del file.attrs[SEAL]
    assert load_bag(path).features[2, 1] == 8


def test_a_changed_attribute_of_the_tiles_is_told(tmp_path: Path) -> None:
    path = tmp_path / "S-7_patches.h5"
    save_patches(path, COORDS, PROVENANCE)
    load_patches(path)
    with h5py.File(path, "a") as file:
        file["coords"].attrs["patch_size_level0"] = 500
    with pytest.raises(BagError, match="not as it was written"):
        load_patches(path)


@pytest.mark.parametrize("lost", ["fingerprint", "slide_mpp_x", "tile_px", "slide_sha256"])
def test_a_sealed_bag_is_ours_whatever_attribute_it_lost(tmp_path: Path, lost: str) -> None:
    path = tmp_path / "S-7.h5"
    write_bag(path, FEATURES, COORDS)
    with h5py.File(path, "a") as file:
        file.attrs[lost[:-1]] = file.attrs.pop(lost) if lost in file.attrs else 0
    with pytest.raises(BagError, match="not as it was written"):
        load_bag(path)
