"""The bags of a folder are found by slide, each once, whichever tool wrote them."""

from pathlib import Path

import pytest

from lamella.errors import BagError
from lamella.features.finding import find_bags
from tests.features.foreign import FEATURES, write_lazyslide, write_slide2vec


def name_bags(folder: Path | str) -> list[tuple[str, str]]:
    return [(slide_id, path.name) for slide_id, path in find_bags(folder)]


def test_each_slide_is_listed_once_by_what_says_most(tmp_path: Path):
    for name in ("S-2.pt", "S-2.h5", "S-1.features.h5", "S-1.features.pt", "S-3.npz", "S-10.pt"):
        (tmp_path / name).touch()
    for name in ("S-4.coordinates.npz", "S-5_patches.h5", ".S-6.h5", "S-7.meta.json", "S-8.csv"):
        (tmp_path / name).touch()
    (tmp_path / "S-9.h5").mkdir()
    assert name_bags(tmp_path) == [
        ("S-1", "S-1.features.h5"), ("S-10", "S-10.pt"), ("S-2", "S-2.h5"), ("S-3", "S-3.npz"),
    ]  # fmt: skip


def test_a_store_is_a_bag_and_an_image_in_zarr_is_none(tmp_path: Path):
    pytest.importorskip("zarr")
    write_lazyslide(tmp_path / "S-1.zarr", {"uni2": FEATURES})
    (tmp_path / "S-2.ome.zarr").mkdir()
    (tmp_path / "S-2.ome.zarr" / ".zgroup").write_text('{"zarr_format": 2}')
    assert name_bags(tmp_path) == [("S-1", "S-1.zarr")]


def test_a_folder_above_the_bags_names_theirs(tmp_path: Path):
    write_slide2vec(tmp_path)
    with pytest.raises(BagError, match=r"holds no bag .* Its folder 'tile_embeddings' does: name that"):
        find_bags(tmp_path)
    with pytest.raises(BagError, match="is no folder"):
        find_bags(tmp_path / "absent")
