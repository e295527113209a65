"""Bags that say less, more or something else than they seem to: each is read right, or refused by its reason."""

import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from lamella.cli import build_app
from lamella.errors import BagError
from lamella.features import h5_reading
from lamella.features.bag import find_differences
from lamella.features.h5_child import CHILD
from lamella.features.h5_reading import open_h5
from lamella.features.inspect import inspect_file
from lamella.features.layouts import load_bag, open_own_bag
from lamella.runs.attention import load_attention
from tests.features.test_layouts import COORDS, FEATURES, write_clam, write_trident

GRID = np.stack([np.arange(20) % 5, np.arange(20) // 5], axis=1)


def write_stamp(path, coords, **attributes):
    with h5py.File(path, "w") as file:
        file["feats"] = np.zeros((len(coords), 8), np.float16)
        file["coords"] = coords
        file.attrs.update(attributes)
    return path


@pytest.mark.parametrize(
    ("coords", "attributes", "tile_um", "tile_px"),
    [
        (GRID * 224, {}, 256.0, 224),
        (GRID * 224, {"extractor": "ctranspath", "stamp_version": "1.1.0"}, 256.0, 224),
        (GRID[::-1] * 224.0 + [448, 0], {}, 256.0, 224),
        (GRID * 256.0, {"unit": "um", "tile_size_um": 256.0, "tile_size_px": 224}, 256.0, 224),
        (GRID * 256.0, {"unit": "µm", "tile_size_um": np.array([256.0]), "tile_size_px": "224"}, 256.0, 224),
        (GRID * 256.0, {"tile_size_um": 256.0, "tile_size_px": 224}, 256.0, 224),
        (GRID * 512, {"tile_size_um": 128.0, "tile_size_px": 512}, 128.0, 512),
    ],
)
def test_stamp_s_pixels_and_micrometres_are_told_apart(tmp_path, coords, attributes, tile_um, tile_px):
    bag = load_bag(write_stamp(tmp_path / "s.h5", coords, **attributes), slide_mpp=0.25)
    step = np.diff(np.unique(bag.coords_um[:, 0])).min()
    assert step == tile_um
    assert np.diff(np.unique(bag.coords_l0[:, 0])).min() == tile_um / 0.25
    assert (bag.tile_px, bag.mpp, bag.tile_l0) == (tile_px, tile_um / tile_px, (tile_um / 0.25, tile_um / 0.25))


@pytest.mark.parametrize(
    ("coords", "attributes", "said"),
    [
        (GRID * 300, {}, "lie 300 apart"),
        (GRID * 112, {"stamp_version": "1.1.0"}, "lie 112 apart"),
        (GRID * 256.0, {"unit": "px"}, "in 'px'"),
        (GRID * 256.0, {"unit": "mm", "tile_size_um": 256.0}, "in 'mm'"),
    ],
)
def test_a_unit_that_cannot_be_told_is_refused(tmp_path, coords, attributes, said):
    with pytest.raises(BagError, match=said):
        load_bag(write_stamp(tmp_path / "s.h5", coords, **attributes), slide_mpp=0.25)


def test_one_tile_of_stamp_1_has_features_and_no_place(tmp_path):
    bag = load_bag(write_stamp(tmp_path / "s.h5", GRID[:1] * 224), slide_mpp=0.25)
    assert bag.features.shape == (1, 8)
    assert bag.coords_l0 is None
    assert bag.coords_um is None


@pytest.mark.parametrize("layout", ["clam", "trident", "stamp", "tensor"])
def test_features_and_coordinates_must_agree_in_number(tmp_path, layout):
    path = tmp_path / ("b.pt" if layout == "tensor" else "b.h5")
    if layout == "trident":
        write_trident(path, coords=COORDS[:3])
    elif layout == "tensor":
        torch.save({"features": torch.zeros(20, 8), "coords": torch.zeros(10, 2, dtype=torch.int64)}, path)
    else:
        with h5py.File(path, "w") as file:
            file["feats" if layout == "stamp" else "features"] = np.zeros((20, 8), np.float32)
            file["coords"] = GRID[:10] * 224
    with pytest.raises(BagError, match="feature rows and"):
        load_bag(path)
    with pytest.raises(BagError, match="feature rows and"):
        inspect_file(path)


SPARSE = torch.from_numpy(FEATURES * (FEATURES > 0))


@pytest.mark.parametrize(
    ("stored", "wanted"),
    [
        (torch.from_numpy(FEATURES).requires_grad_(), FEATURES),
        (torch.nn.Parameter(torch.from_numpy(FEATURES)), FEATURES),
        (SPARSE.to_sparse(), SPARSE.numpy()),
        (torch.from_numpy(FEATURES)[None], FEATURES),
        (torch.from_numpy(FEATURES).to(torch.bfloat16), torch.from_numpy(FEATURES).to(torch.bfloat16).float().numpy()),
        (torch.from_numpy(FEATURES.T.copy()).T, FEATURES),
        ([torch.from_numpy(FEATURES)], FEATURES),
        ([torch.from_numpy(row) for row in FEATURES], FEATURES),
        ({"feats": torch.from_numpy(FEATURES), "label": 3}, FEATURES),
        ({"features": torch.from_numpy(FEATURES)[None].requires_grad_()}, FEATURES),
        (torch.from_numpy((FEATURES * 9).astype(np.int16)), (FEATURES * 9).astype(np.int16)),
    ],
)
def test_a_torch_file_is_read_in_whatever_dress_its_tensor_is(tmp_path, stored, wanted):
    torch.save(stored, tmp_path / "S-1.pt")
    features = load_bag(tmp_path / "S-1.pt").features
    assert features.dtype == np.float32
    assert np.array_equal(features, wanted)


def test_a_dictionary_s_corners_are_read(tmp_path):
    torch.save(
        {"features": torch.from_numpy(FEATURES)[None], "coords": torch.from_numpy(COORDS)[None]}, tmp_path / "S.pt"
    )
    assert (load_bag(tmp_path / "S.pt").coords_l0 == COORDS).all()


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        (torch.tensor(1.0), r"shape \(\)"),
        (torch.zeros(2, 5, 8), r"shape \(2, 5, 8\)"),
        (torch.zeros(5, 8, dtype=torch.complex64), "complex"),
        ({"a": torch.zeros(5, 8)}, "'a', none of which"),
        ({"feats": torch.zeros(5, 8), "features": torch.ones(5, 8)}, "2 of which"),
        ([torch.zeros(5, 8), torch.zeros(6, 8)], "holds list"),
        ({}, "nothing, none"),
        ({"features": torch.zeros(5, 8), "coords": torch.zeros(5, 3)}, r"shape \(5, 3\)"),
        (3, "holds int"),
    ],
)
def test_a_torch_file_without_a_bag_is_refused(tmp_path, stored, said):
    torch.save(stored, tmp_path / "S-1.pt")
    with pytest.raises(BagError, match=said):
        load_bag(tmp_path / "S-1.pt")


@pytest.mark.parametrize("content", [np.ones((5, 8)), {"features": np.ones((5, 8))}, print])
def test_python_objects_in_a_torch_file_are_never_run(tmp_path, content):
    torch.save(content, tmp_path / "S-1.pt")
    with pytest.raises(BagError, match="never run"):
        load_bag(tmp_path / "S-1.pt")


WRITER = "import h5py, sys; f = h5py.File(sys.argv[1], 'a'); print(1, flush=True); sys.stdin.read()"


@pytest.mark.parametrize(
    "read", [load_bag, inspect_file, open_own_bag, load_attention, lambda p: find_differences(p, {}, ())]
)
def test_a_file_that_another_process_writes_is_in_use(tmp_path, read):
    write_trident(tmp_path / "S-1.h5")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "S-1.h5")], **pipes) as writer:
        writer.stdout.readline()
        with pytest.raises(BagError, match="is in use") as refused:
            read(tmp_path / "S-1.h5")
        writer.stdin.close()
    assert "elete" not in str(refused.value)
    assert len(load_bag(tmp_path / "S-1.h5").features) == 5


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (OSError(37, "unable to lock file, errno = 37, error message = 'No locks available'"), "HDF5_USE_FILE_LOCKING"),
        (
            OSError("unable to lock file, errno = 38, error message = 'Function not implemented'"),
            "HDF5_USE_FILE_LOCKING",
        ),
        (BlockingIOError(11, "unable to lock file, errno = 11"), "is in use"),
        (OSError("unable to lock file, errno = 11, error message = 'Resource temporarily unavailable'"), "is in use"),
        (OSError("file is already open for write (may use <h5clear file>)"), "h5clear"),
        (PermissionError(13, "Permission denied"), "permissions"),
    ],
)
def test_only_damage_is_told_to_be_deleted(tmp_path, monkeypatch, raised, said):
    write_trident(tmp_path / "S-1.h5")

    def refuse(*_: object) -> None:
        raise raised

    monkeypatch.setattr(h5_reading.h5py, "File", refuse)
    with pytest.raises(BagError, match=said) as refused, open_h5(tmp_path / "S-1.h5"):
        pass
    assert "elete" not in str(refused.value)


def test_a_dataset_far_larger_than_its_file_is_refused_from_its_header(tmp_path):
    with h5py.File(tmp_path / "S-1.h5", "w") as file:
        file.create_dataset("features", (10**9, 768), np.float32, chunks=(64, 768))
    with pytest.raises(BagError, match=r"claims 2,861\.0 GiB"):
        load_bag(tmp_path / "S-1.h5")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("patch_size_level0", 0),
        ("patch_size_level0", float("nan")),
        ("patch_size", "{"),
        ("level0_width", -1),
        ("patch_size", b"\xff"),
    ],
)
def test_an_attribute_that_is_no_size_is_damage(tmp_path, name, value):
    write_trident(tmp_path / "S-1.h5")
    with h5py.File(tmp_path / "S-1.h5", "a") as file:
        file["coords"].attrs[name] = value
    with pytest.raises(BagError, match="damaged or of another layout"):
        load_bag(tmp_path / "S-1.h5")


@pytest.mark.parametrize(
    ("name", "value", "tile_px"),
    [("patch_size", "256", 256), ("patch_size", np.array([256.0]), 256), ("patch_size", "None", None)],
)
def test_an_attribute_is_read_in_whatever_type_it_is_stored(tmp_path, name, value, tile_px):
    write_trident(tmp_path / "S-1.h5")
    with h5py.File(tmp_path / "S-1.h5", "a") as file:
        file["coords"].attrs[name] = value
    assert load_bag(tmp_path / "S-1.h5").tile_px == tile_px


@pytest.mark.parametrize("corner", [(4000, 512), (0, 3000), (-600, 0), (10**9, 0)])
def test_tiles_outside_the_slide_are_refused(tmp_path, corner):
    coords = COORDS.copy()
    coords[2] = corner
    write_trident(tmp_path / "S-1.h5", coords=coords)
    with pytest.raises(BagError, match="outside the slide of 4000 x 3000 px"):
        load_bag(tmp_path / "S-1.h5")


@pytest.mark.parametrize("data", ["text", np.zeros((5, 8), np.complex64), np.zeros((5, 8), "S3")])
def test_features_that_are_no_numbers_are_refused(tmp_path, data):
    with h5py.File(tmp_path / "S-1.h5", "w") as file:
        file["features"] = data
    with pytest.raises(BagError, match="must be an array of numbers"):
        load_bag(tmp_path / "S-1.h5")


def test_a_leading_axis_of_one_is_taken_off(tmp_path):
    write_clam(tmp_path, with_patches=False)
    with h5py.File(tmp_path / "h5_files" / "S-1.h5", "a") as file:
        del file["features"]
        file["features"] = FEATURES[None]
    assert np.array_equal(load_bag(tmp_path / "h5_files" / "S-1.h5").features, FEATURES)


def mutate(content, rng):
    """Flip bits, zero a run, cut the end off, or put a large number somewhere."""
    changed, at = bytearray(content), int(rng.integers(len(content)))
    kind = rng.integers(4)
    if kind == 0:
        for at_ in rng.integers(len(content), size=4):
            changed[at_] ^= 1 << int(rng.integers(8))
    elif kind == 1:
        changed[at : at + 200] = bytes(len(changed[at : at + 200]))
    elif kind == 2:
        del changed[at:]
    else:
        changed[at : at + 4] = b"\xff\xff\xff\x7f"
    return bytes(changed)


@pytest.mark.parametrize("layout", ["trident", "clam", "stamp", "tensor"])
def test_a_damaged_bag_is_read_or_refused_and_nothing_else(tmp_path, monkeypatch, layout):
    monkeypatch.setattr(CHILD, "_seconds", 2.0)
    source = tmp_path / ("b.pt" if layout == "tensor" else "b.h5")
    if layout == "trident":
        write_trident(source)
    elif layout == "tensor":
        torch.save(torch.from_numpy(FEATURES), source)
    elif layout == "stamp":
        write_stamp(source, GRID * 256.0, unit="um", tile_size_um=256.0, tile_size_px=224)
    else:
        write_clam(tmp_path, with_patches=False)
        source = tmp_path / "h5_files" / "S-1.h5"
    content, rng, refused = source.read_bytes(), np.random.default_rng(5), 0
    for _ in range(120):
        source.write_bytes(mutate(content, rng))
        try:
            load_bag(source)
        except BagError:
            refused += 1
    assert refused > 20


def test_bags_of_trident_give_attention_and_a_heatmap(tmp_path):
    """Trained on TRIDENT's bags with coordinates, attention is written where the slide's tiles lie."""
    rng = np.random.default_rng(0)
    from tests.tiny import draw_tissue, save_slide

    corners = np.array([[x * 64, y * 64] for y in range(7) for x in range(9)])
    (tmp_path / "bags").mkdir()
    rows = ["slide,patient_id,label"]
    for i in range(12):
        path = tmp_path / "bags" / f"S-{i:02d}.h5"
        features = rng.normal(i % 2, 1, (len(corners), 8)).astype(np.float32)
        write_trident(path, features=features, coords=corners)
        with h5py.File(path, "a") as file:
            file["coords"].attrs.update(
                {"patch_size": 64, "patch_size_level0": 64, "level0_width": 620, "level0_height": 500}
            )
        rows.append(f"S-{i:02d}.tif,P-{i},{('benign', 'malignant')[i % 2]}")
    (tmp_path / "cohort.csv").write_text("\n".join(rows) + "\n")
    slide = save_slide(tmp_path / "S-03.tif", draw_tissue(3), mpp=0.5)
    cli, app = CliRunner(), build_app()
    trained = [str(tmp_path / name) for name in ("cohort.csv", "bags", "out")]
    done = cli.invoke(
        app, ["train", trained[0], "--features", trained[1], "--out", trained[2], "--folds", "3", "--seeds", "1"]
    )
    assert done.exit_code == 0, done.output
    record = load_attention(tmp_path / "out" / "attention" / "S-03.h5")
    assert (record.coords_l0 == corners).all()
    assert (record.tile_l0, record.tile_px, record.mpp, record.slide_mpp) == ((64, 64), 64, None, None)
    attention = str(tmp_path / "out" / "attention" / "S-03.h5")
    drawn = cli.invoke(app, ["heatmap", str(slide), attention, "--out", str(tmp_path / "pictures")])
    assert drawn.exit_code == 0, drawn.output
    assert (tmp_path / "pictures" / "attention.png").stat().st_size > 10_000


def test_bags_without_tile_sizes_say_why_there_is_no_attention(tmp_path):
    rng = np.random.default_rng(0)
    rows = ["slide,patient_id,label"]
    (tmp_path / "bags").mkdir()
    for i in range(12):
        torch.save(
            torch.from_numpy(rng.normal(i % 2, 1, (6, 8)).astype(np.float32)), tmp_path / "bags" / f"S-{i:02d}.pt"
        )
        rows.append(f"S-{i:02d}.tif,P-{i},{('benign', 'malignant')[i % 2]}")
    (tmp_path / "cohort.csv").write_text("\n".join(rows) + "\n")
    trained = [
        "train",
        str(tmp_path / "cohort.csv"),
        "--features",
        str(tmp_path / "bags"),
        "--out",
        str(tmp_path / "out"),
    ]
    done = CliRunner().invoke(build_app(), [*trained, "--folds", "3", "--seeds", "1"])
    assert done.exit_code == 0, done.output
    assert "no attention for 12 of 12 slides" in done.output
