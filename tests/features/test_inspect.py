"""`lamella inspect`: which tool wrote a bag, what it lacks, what contradicts itself, whole folders."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from lamella.cli import build_app
from lamella.features.inspect import inspect_file
from lamella.features.inspect_folder import inspect_folder
from tests.features.foreign import (
    COORDS,
    FEATURES,
    OTHERS,
    write_atlaspatch,
    write_hs2p,
    write_lazyslide,
    write_mussel,
    write_slide2vec,
    write_stamp_slide,
    write_trident_slide,
)
from tests.features.test_bag import write_bag
from tests.features.test_layouts import write_clam, write_trident

BOTH = {"uni_v1": FEATURES, "resnet50": OTHERS}


def test_an_encoder_is_named_once_for_a_folder(tmp_path: Path):
    for slide_id in ("S-1", "S-2"):
        write_atlaspatch(tmp_path / "patches" / f"{slide_id}.h5", BOTH)
    content = inspect_folder(tmp_path / "patches#resnet50")
    assert [(line.slide_id, line.encoder, line.width) for line in content.bags] == [
        ("S-1", "resnet50", 6), ("S-2", "resnet50", 6),
    ]  # fmt: skip
    assert content.remarks == ()


@pytest.mark.parametrize(
    ("layout", "tool"),
    [
        ("trident", "TRIDENT"), ("clam", "CLAM"), ("stamp", "STAMP"), ("atlaspatch", "AtlasPatch"),
        ("mussel", "Mussel"), ("slide2vec", "slide2vec"), ("lazyslide", "LazySlide"), ("ours", "lamella extract"),
    ],
)  # fmt: skip
def test_the_tool_that_wrote_a_bag_is_named(tmp_path: Path, layout: str, tool: str):
    path = tmp_path / "S-1.h5"
    if layout == "clam":
        write_clam(tmp_path)
        path = tmp_path / "h5_files" / "S-1.h5"
    elif layout == "slide2vec":
        path = write_slide2vec(tmp_path)
    elif layout == "lazyslide":
        pytest.importorskip("zarr")
        path = write_lazyslide(tmp_path / "S-1.zarr", {"uni2": FEATURES})
    elif layout == "atlaspatch":
        write_atlaspatch(path, {"uni_v1": FEATURES})
    elif layout == "ours":
        write_bag(path, FEATURES, COORDS)
    else:
        {"trident": write_trident, "stamp": write_stamp_slide, "mussel": write_mussel}[layout](path)
    assert inspect_file(path)["written by"].startswith(tool)


def test_what_a_bag_lacks_is_said_with_what_it_is_for(tmp_path: Path):
    torch.save(torch.from_numpy(FEATURES), tmp_path / "S-1.pt")
    said = inspect_file(tmp_path / "S-1.pt")
    assert said["missing"] == (
        "encoder (new slides cannot be encoded alike); mpp; corners in level-0 px (no attention maps)"
    )
    write_trident(tmp_path / "S-2.h5")
    assert inspect_file(tmp_path / "S-2.h5")["missing"] == "mpp (pass --slide-mpp)"
    assert "missing" not in inspect_file(tmp_path / "S-2.h5", slide_mpp=0.25)


def test_a_resolution_that_the_tiles_contradict_is_told(tmp_path: Path):
    path = write_mussel(tmp_path / "S-1.h5")
    assert "wrong" not in inspect_file(path)
    with h5py.File(path, "a") as file:
        file["coords"].attrs["native_mpp"] = 0.5
    assert inspect_file(path)["wrong"] == ("mpp is stated as 0.5, but 448 px of 0.5 um seen as 224 px are 1 um/px")


def test_tiles_in_one_place_are_told(tmp_path: Path):
    coords = COORDS.copy()
    coords[3] = coords[1]
    write_trident(tmp_path / "S-1.h5", coords=coords)
    assert inspect_file(tmp_path / "S-1.h5")["wrong"] == "1 tiles lie where another does"


def test_a_file_of_several_encoders_says_which(tmp_path: Path):
    path = write_atlaspatch(tmp_path / "S-1.h5", BOTH, slide=True)
    assert inspect_file(path)["encoders"] == "resnet50, uni_v1, slide_features/titan"
    assert inspect_file(Path(f"{path}#uni_v1"))["embedding"] == 8
    write_atlaspatch(tmp_path / "S-2.h5", {})
    assert inspect_file(tmp_path / "S-2.h5")["holds"] == "tiles of a slide"


def test_a_slide_embedding_is_called_so(tmp_path: Path):
    said = inspect_file(write_trident_slide(tmp_path))
    assert (said["holds"], said["encoder"], said["tiles"]) == ("embedding of a whole slide", "titan", 1)
    assert said["constant columns"] == 0  # one row is constant in every column, and that says nothing
    assert "missing" not in said


def test_a_folder_is_compared_and_what_cannot_be_read_is_listed(tmp_path: Path):
    write_mussel(tmp_path / "S-1.h5")
    write_mussel(tmp_path / "S-2.h5", features=FEATURES[:, :6])
    (tmp_path / "S-3.h5").write_bytes(b"none")
    np.savez(tmp_path / "S-4.npz", features=FEATURES)
    content = inspect_folder(tmp_path)
    assert [(line.tool, line.n_tiles, line.width) for line in content.bags] == [
        ("Mussel", 5, 8), ("Mussel", 5, 6), (None, None, None), ("not stated", 5, 8),
    ]  # fmt: skip
    assert "not a readable HDF5 file" in content.bags[2].wrong[0]
    assert content.remarks == (
        "written by differs between bags: Mussel (2), not stated (1). One model needs bags made alike.",
        "width differs between bags: 8 (2), 6 (1). One model needs bags made alike.",
        "mpp differs between bags: 0.5 (2), not stated (1). One model needs bags made alike.",
    )


def test_the_verb_prints_a_folder_and_fails_where_a_bag_cannot_be_read(tmp_path: Path):
    write_hs2p(tmp_path)  # not in the folder of the bags, and read by none
    bags = tmp_path / "bags"
    bags.mkdir()
    write_mussel(bags / "S-1.h5")
    run = CliRunner().invoke
    result = run(build_app(), ["inspect", str(bags), "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert [(line["slide_id"], line["tool"], line["mpp"]) for line in told["bags"]] == [("S-1", "Mussel", 0.5)]
    (bags / "S-2.h5").write_bytes(b"none")
    result = run(build_app(), ["inspect", str(bags)])
    assert result.exit_code == 1
    assert "S-2: 'S-2.h5' is not a readable HDF5 file" in result.output
    assert "1 of 2 bags cannot be read." in result.output
