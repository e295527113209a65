"""What a bag states of itself is read once, and keeps the keys of models that were trained before."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from lamella.errors import BagError
from lamella.features.bag import BagWriter
from lamella.features.layouts import open_own_bag
from lamella.runs.attention import locate_attention
from lamella.runs.bags import RunBags, hash_json
from lamella.runs.facts import BagFacts, read_facts

_IDENTITY = ("slide_sha256", "fingerprint", "tile_px", "mpp", "stride_px", "min_tissue", "tissue", "regions",
             "max_upsample", "slide_mpp_x", "slide_mpp_y", "dtype", "precision")  # fmt: skip


def save_bag(path: Path) -> None:
    writer = BagWriter(path, np.array([[0, 0], [64, 128]], np.int64), dim=3, dtype="float32")
    writer.append(np.arange(6, dtype=np.float32).reshape(2, 3))
    writer.finish(
        {
            "slide_id": "A",
            "slide_sha256": "ab" * 32,
            "slide_quickhash": "cd",
            "slide_mpp_x": 0.25,
            "slide_mpp_y": 0.2,
            "slide_width": 900,
            "slide_height": 700,
            "tile_px": 64,
            "mpp": 1,
            "stride_px": 32,
            "min_tissue": 0.5,
            "tissue": "glass",
            "regions": "",
            "max_upsample": 1.1,
            "encoder": "mine",
            "fingerprint": "ef" * 32,
            "dtype": "float32",
            "precision": "fp32",
            "colour": "[1.5, 2.0, 3.0, 0.5, 0.25, 1.0]",
            "ledger": '[["pen", 2.0, 1]]',
        }
    )


def test_the_key_of_a_bag_is_that_of_its_attributes_as_they_are_stored(tmp_path: Path) -> None:
    save_bag(tmp_path / "A.h5")
    bag = open_own_bag(tmp_path / "A.h5")
    rows = bag.read_stored()
    bags = RunBags(features={"A": rows}, corners_l0={"A": bag.corners_l0}, facts={"A": read_facts(bag)})
    assert bags.facts["A"].ledger == (("pen", 2.0, 1.0),)
    assert bags.facts["A"].colours.tolist() == [1.5, 2.0, 3.0, 0.5, 0.25, 1.0]
    assert bags.key("A") == hash_json([*(bag.provenance.get(name) for name in _IDENTITY), len(rows)])


def test_an_attribute_of_another_kind_is_refused_naming_it(tmp_path: Path) -> None:
    save_bag(tmp_path / "A.h5")
    bag = open_own_bag(tmp_path / "A.h5")
    for name, value in (("stride_px", "wide"), ("colour", "[1, 2"), ("ledger", "[[1]]")):
        with pytest.raises(BagError, match=rf"is damaged \({name}"):
            read_facts(dataclasses.replace(bag, provenance={**bag.provenance, name: value}))


def test_a_tile_is_as_wide_as_its_um_on_the_slide_or_as_another_tool_says() -> None:
    ours = BagFacts(slide_id="A", tile_px=64, mpp=0.5, slide_mpp_x=0.25, slide_mpp_y=0.2)
    assert ours.tile_l0 == (128.0, 160.0)
    assert BagFacts(slide_id="A", tile_px=64, tile_width_l0=128, tile_height_l0=120).tile_l0 == (128.0, 120.0)
    nothing = BagFacts(slide_id="A", tile_width_l0=128, tile_height_l0=120)
    with pytest.raises(BagError, match="does not say how large its tiles are"):
        locate_attention(np.ones(1, np.float32), np.zeros((1, 2), np.int64), nothing, key="")
