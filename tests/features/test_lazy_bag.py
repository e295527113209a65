"""A bag is opened without its features; what is wrong with it is refused then, or when they are read."""

import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from lamella.errors import BagError
from lamella.features.h5_seal import SEAL
from lamella.features.layouts import load_bag, open_bag, open_own_bag
from tests.features.test_bag import write_bag
from tests.features.test_h5_seal import COORDS, FEATURES
from tests.features.test_layouts import COORDS as TRIDENT_COORDS
from tests.features.test_layouts import write_trident


@pytest.fixture
def datasets_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the datasets whose values are read, in order."""
    names: list[str] = []
    read = h5py.Dataset.__getitem__

    def count(dataset: h5py.Dataset, key: object, **options: object) -> object:
        names.append(dataset.name)
        return read(dataset, key, **options)

    monkeypatch.setattr(h5py.Dataset, "__getitem__", count)
    return names


@pytest.mark.parametrize("layout", ["lamella", "trident"])
def test_features_are_read_when_they_are_asked_for_and_once(tmp_path: Path, datasets_read: list[str], layout: str):
    path = tmp_path / "S-7.h5"
    if layout == "lamella":
        write_bag(path, FEATURES, COORDS)
    else:
        write_trident(path)
    datasets_read.clear()
    bag = open_bag(path)
    assert bag.layout == layout
    assert bag.shape == ((4, 3) if layout == "lamella" else (5, 8))
    assert (bag.corners_l0 == (COORDS if layout == "lamella" else TRIDENT_COORDS)).all()
    assert datasets_read == ["/coords"]
    assert bag.features.shape == bag.shape
    assert bag.features is bag.features
    assert datasets_read.count("/features") == 1


def test_a_value_that_was_changed_is_told_when_the_features_are_read(tmp_path: Path):
    path = tmp_path / "S-7.h5"
    write_bag(path, FEATURES, COORDS)
    with h5py.File(path, "a") as file:
        file["features"][0, 0] = 9
    bag = open_own_bag(path)
    for read in (bag.read_stored, lambda: bag.features):
        with pytest.raises(BagError, match="not as it was written"):
            read()


def test_a_bag_written_anew_since_it_was_opened_is_told(tmp_path: Path):
    path = tmp_path / "S-7.h5"
    write_bag(path, FEATURES, COORDS)
    bag = open_bag(path)
    write_bag(path, FEATURES + 1, COORDS)
    with pytest.raises(BagError, match="written anew"):
        bag.read_stored()
    assert load_bag(path).features[0, 0] == 1


@pytest.mark.parametrize(
    ("features", "said"),
    [
        (np.zeros(768, np.float32), "1 feature rows and 4 coordinates"),
        (np.zeros((2, 4, 3), np.float32), r"has shape \(2, 4, 3\)"),
        (np.zeros((4, 3), "S3"), "must be an array of numbers"),
        (np.zeros((3, 3), np.float32), "3 feature rows and 4 coordinates"),
    ],
)
@pytest.mark.parametrize("sealed", [True, False])
def test_a_bag_of_other_type_or_shape_is_refused_before_its_features_are_read(
    tmp_path: Path, features: np.ndarray, said: str, sealed: bool
):
    path = tmp_path / "S-7.h5"
    write_bag(path, FEATURES, COORDS)
    with h5py.File(path, "a") as file:
        del file["features"]
        file["features"] = features
        if not sealed:
            del file.attrs[SEAL]
    with pytest.raises(BagError, match="not as it was written" if sealed else said):
        open_bag(path)


@pytest.mark.parametrize("name", ["features", "coords", "seen_patients"])
def test_a_dataset_that_claims_more_than_its_file_is_refused_before_it_is_read(
    tmp_path: Path, datasets_read: list[str], name: str
):
    path = tmp_path / "S-7.h5"
    write_bag(path, FEATURES, COORDS)
    with h5py.File(path, "a") as file:
        if name in file:
            del file[name]
        file.create_dataset(name, (10**9, 768), np.uint8, chunks=(64, 768))
    datasets_read.clear()
    with pytest.raises(BagError, match="claims"):
        open_bag(path)
    assert f"/{name}" not in datasets_read


def test_a_run_refuses_another_tool_s_bag(tmp_path: Path):
    write_trident(tmp_path / "S-1.h5")
    with pytest.raises(BagError, match=r"'S-1\.h5' was not made by `lamella extract`"):
        open_own_bag(tmp_path / "S-1.h5")


def test_an_opened_bag_travels_between_processes(tmp_path: Path):
    write_bag(tmp_path / "S-7.h5", FEATURES, COORDS)
    torch.save(torch.from_numpy(FEATURES), tmp_path / "S-7.pt")
    for name in ("S-7.h5", "S-7.pt"):
        bag = pickle.loads(pickle.dumps(open_bag(tmp_path / name)))
        assert np.array_equal(bag.features, FEATURES)
