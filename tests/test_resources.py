"""What was rewritten to take less gives what it gave before; files that claim more than memory are refused unread."""

import struct
import zlib

import h5py
import numpy as np
import pytest
import shapely
import torch

from lamella import memory
from lamella.analysis.intervals import draw_patients
from lamella.analysis.predictions import find_log_odds
from lamella.analysis.selection import PairTable
from lamella.cohort.rows import read_rows
from lamella.errors import BagError, CohortError, TissueError
from lamella.explain.lesion_masks import load_mask
from lamella.features.h5_reading import open_h5, read_array
from lamella.features.torch_bags import load_tensor_bag
from lamella.mil.batches import Bags
from lamella.mil.standardise import find_standardisation
from lamella.mil.written import StandardRows
from lamella.runs import bags as study_bags
from lamella.tissue import annotation_xml, geojson
from lamella.tissue.areas import Area, Drawing, keep_polygons
from lamella.tissue.regions import rasterise_regions


def test_patients_are_drawn_as_one_by_one() -> None:
    rng = np.random.default_rng(0)
    patients, targets = rng.integers(3, 90, 200), rng.integers(0, 3, 200)
    folds = patients % 4
    drawn = draw_patients(targets, folds, patients, n_draws=30, rng=np.random.default_rng(1))
    kinds: dict = {}
    for patient in np.unique(patients):
        rows = patients == patient
        kinds.setdefault((folds[rows][0], tuple(sorted(set(targets[rows].tolist())))), []).append(patient)
    expected, again = np.zeros((30, 200), int), np.random.default_rng(1)
    for _, members in sorted(kinds.items()):
        counts = again.multinomial(len(members), np.full(len(members), 1 / len(members)), size=30)
        for place, patient in enumerate(members):
            expected[:, patients == patient] = counts[:, [place]]
    np.testing.assert_array_equal(drawn, expected)


def test_pairs_are_counted_as_one_by_one() -> None:
    rng = np.random.default_rng(0)
    logits, targets, folds = rng.normal(size=(3, 60, 3)).round(1), rng.integers(0, 3, 60), rng.integers(0, 4, 60)
    weights = rng.integers(0, 4, (5, 60))
    found, expected = PairTable.of(logits, targets, folds).weigh(weights), np.zeros((5, 3))
    scores = np.stack([find_log_odds(arm) for arm in logits])
    for column in range(3):
        same = (folds[:, None] == folds) & (targets == column)[:, None] & (targets != column)
        for arm in range(3):
            own = scores[arm, :, column]
            right = ((own[:, None] > own) + 0.5 * (own[:, None] == own)) * same
            hits, pairs = (np.einsum("ri,ij,rj->r", weights, table, weights) for table in (right, same))
            expected[:, arm] += hits / pairs / 3
    np.testing.assert_allclose(found, expected, rtol=1e-15)


def test_bags_are_standardised_to_the_same_bits() -> None:
    rng = np.random.default_rng(0)
    bags = {f"s{i}": rng.normal(size=(n, 7)).astype(np.float16) for i, n in enumerate((9_000, 12))}
    standard = find_standardisation(bags.values())
    mean, sd = torch.from_numpy(standard.mean), torch.from_numpy(standard.sd)
    for dtype in (torch.float32, torch.bfloat16):
        rows, n = StandardRows(bags, standard, dtype, n_readers=1, hold=False).read("s0")
        expected = ((torch.from_numpy(bags["s0"].astype(np.float32)) - mean) / sd).to(dtype)
        assert torch.equal(rows[:n], expected)
        assert not rows[n:].any()
    batch = next(Bags(list(bags.values()), standard, torch.device("cpu")).batches([0, 1], max_tiles=30_000))
    for slot, place in zip(batch[0], batch[2], strict=True):
        bag = bags[f"s{place}"]
        assert torch.equal(slot[: len(bag)], (torch.from_numpy(bag.astype(np.float32)) - mean) / sd)
        assert not slot[len(bag) :].any()


@pytest.mark.parametrize(
    ("slide_id", "found"),
    [
        ("TCGA-1", ["TCGA-1.u1.h5", "TCGA-1.u2.pt"]),  # longer names come before barcodes
        ("TCGA-2", ["TCGA-2-b.h5"]),
        ("a.b.svs", ["a.b.h5", "a.h5"]),
        ("absent", []),
    ],
)
def test_bags_are_found_by_more_than_the_id(tmp_path, slide_id, found) -> None:
    names = ("TCGA-1.u1.h5", "TCGA-1.u2.pt", "TCGA-1-x.h5", "TCGA-2-b.h5", "TCGA-10.u.h5", "a.b.h5", "a.h5", "ab.h5")
    for name in (*names, "a.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in study_bags._BagIndex(tmp_path).list_likely(slide_id)] == found


def test_areas_are_joined_as_if_each_union_were_checked_again() -> None:
    rng = np.random.default_rng(0)
    shapes = [shapely.Point(*rng.uniform(0, 100, 2)).buffer(rng.uniform(1, 12)) for _ in range(60)]
    areas = [Area(shape, "Tumor", is_hole=i % 5 == 0) for i, shape in enumerate(shapes)]
    joined = Drawing("drawn", areas).choose()
    expected = keep_polygons(shapely.union_all([area.shape for area in areas if not area.is_hole]))
    expected = keep_polygons(expected.difference(shapely.union_all([area.shape for area in areas if area.is_hole])))
    assert joined.is_valid
    assert joined.normalize() == expected.normalize()


def test_a_ring_that_crosses_itself_is_rasterised_as_its_mended_area() -> None:
    crossing = shapely.Polygon(np.random.default_rng(3).uniform(0, 90, (40, 2)))
    assert not crossing.is_valid
    raster = rasterise_regions(crossing, (60, 100), (100, 60))
    np.testing.assert_array_equal(raster, rasterise_regions(shapely.make_valid(crossing), (60, 100), (100, 60)))


@pytest.fixture
def small_machine(monkeypatch) -> None:
    """A machine of 4 MiB."""
    monkeypatch.setattr(memory, "find_memory", lambda: 4 << 20)


def test_memory_is_the_less_of_machine_and_container(tmp_path, monkeypatch) -> None:
    whole = memory.find_memory()
    monkeypatch.setattr(memory, "_CGROUP", tmp_path / "memory.max")
    (tmp_path / "memory.max").write_text(f"{1 << 30}\n")
    assert memory.find_memory() == min(whole, 1 << 30)


@pytest.mark.usefixtures("small_machine")
def test_a_bag_that_memory_does_not_hold_is_refused_by_its_header(tmp_path) -> None:
    with h5py.File(tmp_path / "S1.h5", "w") as file:
        file.create_dataset("features", (100_000, 64), "f4", chunks=(4096, 64), compression="gzip")
    with open_h5(tmp_path / "S1.h5") as file, pytest.raises(BagError, match=r"'features' of 'S1.h5' claims 0\.0 GiB"):
        read_array(file, "features")


def test_a_bag_of_a_billion_tiles_is_refused_whatever_the_machine(tmp_path) -> None:
    with h5py.File(tmp_path / "S1.h5", "w") as file:
        file.create_dataset("features", (10**9, 512), "f2", chunks=(4096, 512), compression="gzip")
    with open_h5(tmp_path / "S1.h5") as file, pytest.raises(BagError, match=r"claims 953\.7 GiB"):
        read_array(file, "features")


def test_a_bag_of_more_names_of_patients_than_bytes_is_refused(tmp_path) -> None:
    from lamella.features.bag import read_seen_patients

    with h5py.File(tmp_path / "S1.h5", "w") as file:
        file.create_dataset("seen_patients", (10**9,), "S16", chunks=(4096,))
    with pytest.raises(BagError, match="claims 1,000,000,000 names"), open_h5(tmp_path / "S1.h5") as file:
        read_seen_patients(file)


@pytest.mark.parametrize("kind", ["repeated", "sparse"])
def test_a_tensor_that_unfolds_beyond_memory_is_refused(tmp_path, kind) -> None:
    path = tmp_path / "S1.pt"
    sparse = torch.sparse_coo_tensor(torch.tensor([[0], [0]]), torch.tensor([1.0]), (10**9, 512), check_invariants=True)
    torch.save({"repeated": torch.zeros(1, 512).expand(10**9, 512), "sparse": sparse}[kind], path)
    with pytest.raises(BagError, match=r"'S1\.pt' claims 1,907\.3 GiB"):
        load_tensor_bag(path)


def save_png_header(path, width: int, height: int, *, kind: int) -> None:
    """Write a PNG that claims a size and holds next to nothing."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    palette = chunk(b"PLTE", bytes(6)) if kind == 3 else b""
    data = chunk(b"IDAT", zlib.compress(bytes(100)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + palette + data + chunk(b"IEND", b""))


@pytest.mark.parametrize(("kind", "size"), [(3, (300_000, 200_000)), (0, (30_000_000, 20_000_000))])
def test_a_mask_of_a_size_that_cannot_be_held_is_refused_by_its_header(tmp_path, kind, size) -> None:
    save_png_header(tmp_path / "S1.png", *size, kind=kind)
    with pytest.raises(TissueError, match=rf"'S1\.png', {size[0]:,} x {size[1]:,} px, claims"):
        load_mask(tmp_path / "S1.png", (3000, 2000))


@pytest.mark.parametrize(
    ("module", "name", "read"),
    [
        (geojson, "MAX_JSON_BYTES", geojson.read_geojson),
        (annotation_xml, "_MAX_BYTES", annotation_xml.read_annotation_xml),
    ],
)
def test_outlines_beyond_the_bound_are_refused_with_their_size(tmp_path, monkeypatch, module, name, read) -> None:
    monkeypatch.setattr(module, name, 1_000_000)
    (tmp_path / "S1.geojson").write_bytes(bytes(3_000_000))
    with pytest.raises(TissueError, match="are 3 MB and at most 1 MB are read"):
        read(tmp_path / "S1.geojson")


@pytest.mark.usefixtures("small_machine")
def test_a_parquet_table_of_more_rows_than_memory_holds_is_refused(tmp_path) -> None:
    import pandas as pd

    pd.DataFrame({"slide": ["a.svs"] * 100_000, "label": "x"}).to_parquet(tmp_path / "c.parquet")
    with pytest.raises(CohortError, match="100,000 rows of 2 columns, claims"):
        read_rows(tmp_path / "c.parquet")


def test_a_text_table_beyond_the_bound_is_refused(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("lamella.cohort.rows._MAX_TEXT_BYTES", 1_000_000)
    (tmp_path / "c.csv").write_text("slide,label\n" + "a.svs,x\n" * 300_000)
    with pytest.raises(CohortError, match="is 2 MB and at most 1 MB are read"):
        read_rows(tmp_path / "c.csv")
