"""Rows that stay in their files: the same numbers whatever is held, and never more held than the budget."""

import gc
from pathlib import Path

import h5py
import numpy as np
import pytest

from lamella.cohort import load_cohort
from lamella.errors import BagError
from lamella.features import rows as rows_module
from lamella.features import stored_bags
from lamella.features.bag import BagWriter
from lamella.features.layouts import open_bag
from lamella.features.rows import RowCache, StoredRows
from lamella.features.stored_bags import store_bag
from lamella.mil.settings import TrainSettings
from lamella.runs.execute import train_on_bags
from lamella.runs.settings import TrainingSettings


def make_rows(cache: RowCache, n: int, *, seed: int = 0) -> tuple[StoredRows, np.ndarray, list[tuple[int, int]]]:
    values = np.random.default_rng(seed).normal(size=(n, 5)).astype(np.float32)
    asked: list[tuple[int, int]] = []

    def read(start: int, stop: int) -> np.ndarray:
        asked.append((start, stop))
        return values[start:stop].copy()

    return StoredRows((n, 5), values.dtype, read, is_sliced=True, cache=cache), values, asked


def test_small_bags_are_read_once_and_the_last_used_stay_within_the_budget() -> None:
    cache = RowCache(budget=4 * 40 * 5 * 4)  # four bags of 40 rows, each at the limit of what is held
    bags = [make_rows(cache, 40, seed=i) for i in range(6)]
    for rows, values, _ in bags:
        assert np.array_equal(rows[7:19], values[7:19])
        assert cache.n_bytes <= cache.budget
    assert np.array_equal(bags[5][0][[3, 1]], bags[5][1][[3, 1]])
    assert bags[5][2] == [(0, 40)]
    assert np.array_equal(np.asarray(bags[0][0]), bags[0][1])  # it had left
    assert bags[0][2] == [(0, 40), (0, 40)]
    with pytest.raises(ValueError, match="read-only"):
        bags[0][0][:][0, 0] = 1


def test_a_large_bag_is_read_by_slices_and_never_held() -> None:
    cache = RowCache(budget=1000)
    rows, values, asked = make_rows(cache, 60)
    assert np.array_equal(rows[50:70], values[50:])
    assert np.array_equal(rows[70:], values[70:])
    assert asked == [(50, 60), (60, 60)]
    assert cache.n_bytes == 0


def test_what_nobody_holds_any_more_leaves_the_cache() -> None:
    cache = RowCache(budget=1 << 20)
    rows, _, _ = make_rows(cache, 40)
    _ = rows[:]
    assert cache.n_bytes == 800
    del rows
    gc.collect()
    assert cache.n_bytes == 0


def write_ours(path: Path, features: np.ndarray) -> Path:
    corners = np.arange(2 * len(features)).reshape(-1, 2)
    writer = BagWriter(path, corners, dim=features.shape[1], dtype="float32")
    writer.append(features)
    writer.finish(
        {
            "slide_id": path.stem, "slide_sha256": path.stem, "slide_quickhash": path.stem, "fingerprint": "0" * 64,
            "encoder": "any", "tile_px": 256, "mpp": 0.5, "stride_px": 256, "slide_mpp_x": 0.25, "slide_mpp_y": 0.25,
            "slide_width": 9000, "slide_height": 7000,
        }
    )  # fmt: skip
    return path


@pytest.mark.parametrize("layout", ["ours", "clam"])
def test_by_blocks_as_much_is_found_as_in_one_piece(
    layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    path = tmp_path / "S-1.h5"
    if layout == "ours":
        write_ours(path, features)
    else:
        with h5py.File(path, "w") as file:
            file["features"] = features
    whole = store_bag(path, open_bag(path))
    monkeypatch.setattr(rows_module.CACHE, "_budget", 100)
    monkeypatch.setattr(stored_bags, "_BLOCK_BYTES", 7 * 24)
    by_blocks = store_bag(path, open_bag(path))
    assert whole[2] == by_blocks[2]
    assert np.array_equal(by_blocks[0][40:], features[40:])
    assert np.array_equal(whole[1][:], by_blocks[1][:])
    with h5py.File(path, "r+") as file:
        file["features"][33, 2] = 5 if layout == "ours" else np.nan
    with pytest.raises(BagError, match="not as it was written" if layout == "ours" else "NaN or infinite"):
        store_bag(path, open_bag(path))
    with pytest.raises(BagError, match="written anew while it was read"):
        _ = by_blocks[0][:3]


def test_a_cohort_larger_than_the_budget_trains_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [f"S-{i}.svs,{('benign', 'tumour')[i % 2]}" for i in range(12)]
    (tmp_path / "cohort.csv").write_text("\n".join(["slide,label", *lines]) + "\n")
    (tmp_path / "bags").mkdir()
    for i in range(12):
        rows = np.random.default_rng(i).normal(i % 2, 1, (20 + i, 6)).astype(np.float32)
        write_ours(tmp_path / "bags" / f"S-{i}.h5", rows)
    cohort = load_cohort(tmp_path / "cohort.csv")
    for head in ("attention", "transmil"):
        settings = TrainingSettings(train=TrainSettings(epochs=2, head=head), n_seeds=1, n_folds=3)
        written = []
        for budget in (1 << 30, 1200, 100):
            monkeypatch.setattr(rows_module.CACHE, "_budget", budget)
            out = tmp_path / f"{head}{budget}"
            train_on_bags(cohort, tmp_path / "bags", settings, out)
            parts = [*sorted(out.glob("models/*/*/model.*")), out / "predictions.csv", *sorted(out.glob("attention/*"))]
            written.append([path.read_bytes() for path in parts])
        assert len(written[0]) == 3 * 2 + 1 + 12
        assert written[0] == written[1] == written[2]
