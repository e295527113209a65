"""What is in a file: a bag of any layout, or the tiles of a slide, in words and numbers."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lamella.cells import Cell
from lamella.features.atlaspatch import SLIDE_GROUP, TILE_GROUP, is_atlaspatch, read_boxes
from lamella.features.bag import FeatureBag, load_patches
from lamella.features.bag_checks import TOOLS, find_slide_mpp, list_doubts, list_missing
from lamella.features.encoder_choice import split_address
from lamella.features.h5_reading import Attribute, open_h5, read_attributes
from lamella.features.inspect_folder import list_held_encoders
from lamella.features.layouts import load_bag


def inspect_file(path: Path, *, slide_mpp: float | None = None) -> dict[str, Cell]:
    """Return what a bag or a patches file holds, JSON-ready, the most telling first.

    Args:
        path: A file of ours or of another tool; `FILE#ENCODER` where it holds embeddings of several, of which it is
            else said which they are.
        slide_mpp: Resolution of the slide's level 0, um per pixel, for layouts that do not state it.

    Raises:
        BagError: If the file is absent, damaged, or of none of these layouts.
    """
    path, encoder = split_address(path)
    encoders = [] if encoder is not None else list_held_encoders(path)
    if len(encoders) > 1:
        return {
            "file": path.name,
            "holds": f"embeddings of {len(encoders)} encoders; name one to see it: {path.name}#{encoders[0]}",
            "encoders": ", ".join(encoders),
        }
    if path.suffix in (".h5", ".hdf5"):
        with open_h5(path) as file:
            if is_atlaspatch(file) and TILE_GROUP not in file and SLIDE_GROUP not in file:
                sizes = _plain(read_attributes(file))
                return {"file": path.name, "holds": "tiles of a slide", "tiles": len(read_boxes(file)), **sizes}
            only_tiles = "coords" in file and "features" not in file and "feats" not in file
            sizes = _plain(read_attributes(file["coords"])) if only_tiles else {}
        if only_tiles:
            coords, attributes = load_patches(path)
            placed = _plain(attributes) or sizes
            return {"file": path.name, "holds": "tiles of a slide", "tiles": len(coords), **placed}
    bag = load_bag(path, slide_mpp=slide_mpp, encoder=encoder)
    about = bag.provenance if bag.layout == "lamella" else {}
    return _describe(path, bag) | _plain({key: value for key, value in about.items() if key != "seen_patients"})


def _describe(path: Path, bag: FeatureBag) -> dict[str, Cell]:
    finite = np.isfinite(bag.features)
    described: dict[str, Cell] = {
        "file": path.name,
        "holds": "embedding of a whole slide" if bag.is_slide_embedding else f"feature bag, {bag.layout} layout",
        "written by": TOOLS[bag.layout],
        "slide_id": bag.slide_id,
        "tiles": bag.shape[0],
        "embedding": bag.shape[1],
        "encoder": bag.encoder or "not stated",
        "tile_px": bag.tile_px if bag.tile_px is not None else "not stated",
        "mpp": bag.mpp if bag.mpp is not None else "not stated",
        "coordinates": _frame(bag),
        **_place(bag),
        "not finite": int(finite.size - finite.sum()),
    }
    if bag.features.size and finite.all():
        described |= {
            "mean": round(float(bag.features.mean()), 4),
            "sd": round(float(bag.features.std()), 4),
            "constant columns": 0 if len(finite) == 1 else int((np.ptp(bag.features, axis=0) == 0).sum()),
        }
    missing, doubts = list_missing(bag), list_doubts(bag)
    return (
        described
        | ({"missing": "; ".join(missing)} if missing else {})
        | ({"wrong": "; ".join(doubts)} if doubts else {})
    )


def _place(bag: FeatureBag) -> dict[str, str]:
    """Return what another tool's bag states of slide and tiles; ours states it by name further down."""
    if bag.layout == "lamella":
        return {}
    slide_mpp = find_slide_mpp(bag)
    stated = {
        "tile on the slide": None if bag.tile_l0 is None else "{:g} x {:g} px".format(*bag.tile_l0),
        "slide": None if bag.slide_size is None else "{} x {} px".format(*bag.slide_size),
        "slide mpp": None if slide_mpp is None else "{:.4g} x {:.4g}".format(*slide_mpp),
    }
    return {key: value for key, value in stated.items() if value is not None}


def _frame(bag: FeatureBag) -> str:
    if bag.coords_l0 is not None:
        return "level-0 pixels"
    return "um" if bag.coords_um is not None else "none"


def _plain(attributes: Mapping[str, Attribute | list[str]]) -> dict[str, Cell]:
    """Return attributes as JSON can hold them."""
    return {
        key: value if isinstance(value, (str, int, float, bool)) else str(value) for key, value in attributes.items()
    }
