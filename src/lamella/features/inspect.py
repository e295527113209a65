"""What is in a file: a bag of any layout, or the tiles of a slide, in words and numbers."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from lamella.cells import Cell
from lamella.features.bag import FeatureBag, load_patches
from lamella.features.h5_reading import Attribute, open_h5
from lamella.features.layouts import load_bag


def inspect_file(path: Path, *, slide_mpp: float | None = None) -> dict[str, Cell]:
    """Return what a bag or a patches file holds, JSON-ready, the most telling first.

    Args:
        path: A file of ours, TRIDENT's, CLAM's (.h5, .pt) or STAMP's.
        slide_mpp: Resolution of the slide's level 0, um per pixel, for layouts that do not state it.

    Raises:
        BagError: If the file is absent, damaged, or of none of these layouts.
    """
    path = Path(path)
    if path.suffix in (".h5", ".hdf5"):
        with open_h5(path) as file:
            only_tiles = "coords" in file and "features" not in file and "feats" not in file
        if only_tiles:
            coords, attributes = load_patches(path)
            return {"file": path.name, "holds": "tiles of a slide", "tiles": len(coords), **_plain(attributes)}
    bag = load_bag(path, slide_mpp=slide_mpp)
    stated = bag.provenance if bag.layout == "lamella" else {}
    return _describe(path, bag) | _plain({key: value for key, value in stated.items() if key != "seen_patients"})


def _describe(path: Path, bag: FeatureBag) -> dict[str, Cell]:
    finite = np.isfinite(bag.features)
    described: dict[str, Cell] = {
        "file": path.name,
        "holds": f"feature bag, {bag.layout} layout",
        "slide_id": bag.slide_id,
        "tiles": bag.shape[0],
        "embedding": bag.shape[1],
        "encoder": bag.encoder or "not stated",
        "tile_px": bag.tile_px if bag.tile_px is not None else "not stated",
        "mpp": bag.mpp if bag.mpp is not None else "not stated",
        "coordinates": _frame(bag),
        "not finite": int(finite.size - finite.sum()),
    }
    if bag.features.size and finite.all():
        described |= {
            "mean": round(float(bag.features.mean()), 4),
            "sd": round(float(bag.features.std()), 4),
            "constant columns": int((np.ptp(bag.features, axis=0) == 0).sum()),
        }
    return described


def _frame(bag: FeatureBag) -> str:
    if bag.coords_l0 is not None:
        return "level-0 pixels"
    return "um" if bag.coords_um is not None else "none"


def _plain(attributes: Mapping[str, Attribute | list[str]]) -> dict[str, Cell]:
    """Return attributes as JSON can hold them."""
    return {
        key: value if isinstance(value, (str, int, float, bool)) else str(value) for key, value in attributes.items()
    }
