"""Reading bags of any layout: our own, TRIDENT's, CLAM's (.h5 and .pt) and STAMP's.

They are told apart by content, not by name: STAMP has `feats` and a unit, ours states a `fingerprint`, TRIDENT's
coordinates state `patch_size_level0`, and a file of `features` and `coords` without any attribute is CLAM's.
"""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from lamella.errors import BagError
from lamella.features.bag import FeatureBag, open_h5, plain, read_attributes


def load_bag(path: Path, *, slide_mpp: float | None = None) -> FeatureBag:
    """Return the bag in a file of ours, TRIDENT's, CLAM's (.h5, .pt) or STAMP's.

    Args:
        path: The file.
        slide_mpp: Resolution of the slide's level 0, in um per pixel, for layouts that do not state it; only then
            can STAMP's coordinates (um) be given in level-0 pixels.

    Raises:
        BagError: If the file is absent, damaged, or of none of these layouts.
    """
    path = Path(path)
    if path.suffix in (".pt", ".pth"):
        return _load_clam_tensor(path)
    with open_h5(path) as file:
        if "feats" in file:
            return _read_stamp(path, file, slide_mpp)
        if "features" not in file:
            raise BagError(
                f"'{path.name}' holds {_names(file)} but no 'features' or 'feats', so it is not a feature bag. Name "
                "a file made by `lamella extract`, TRIDENT, CLAM or STAMP."
            )
        if "fingerprint" in file.attrs:
            return _read_lamella(file)
        if "coords" in file and "patch_size_level0" in file["coords"].attrs:
            return _read_trident(path, file, slide_mpp)
        return _read_clam(path, file)


def _read_lamella(file: h5py.File) -> FeatureBag:
    attributes = read_attributes(file)
    slide_mpp = (float(attributes["slide_mpp_x"]), float(attributes["slide_mpp_y"]))
    tile_px, mpp = int(attributes["tile_px"]), float(attributes["mpp"])
    coords = file["coords"][:].astype(np.int64)
    return FeatureBag(
        slide_id=str(attributes["slide_id"]),
        features=_features(file["features"]),
        coords_l0=coords,
        coords_um=coords * np.array(slide_mpp),
        layout="lamella",
        encoder=str(attributes["encoder"]),
        tile_px=tile_px,
        mpp=mpp,
        tile_l0=(tile_px * mpp / slide_mpp[0], tile_px * mpp / slide_mpp[1]),
        slide_size=(int(attributes["slide_width"]), int(attributes["slide_height"])),
        provenance=attributes,
    )


def _read_trident(path: Path, file: h5py.File, slide_mpp: float | None) -> FeatureBag:
    attributes = {key: plain(value) for key, value in file["coords"].attrs.items()}
    attributes |= {key: plain(value) for key, value in file["features"].attrs.items()}
    coords = file["coords"][:].astype(np.int64)
    side_l0, tile_px = float(attributes["patch_size_level0"]), int(attributes["patch_size"])
    encoder = attributes.get("encoder")
    return FeatureBag(
        slide_id=str(attributes.get("name") or path.stem),
        features=_features(file["features"]),
        coords_l0=coords,
        coords_um=None if slide_mpp is None else coords * slide_mpp,
        layout="trident",
        encoder=None if encoder is None else str(encoder),
        tile_px=tile_px,
        # TRIDENT states magnifications only; without the slide's resolution the tile's is not known.
        mpp=None if slide_mpp is None else side_l0 * slide_mpp / tile_px,
        tile_l0=(side_l0, side_l0),
        slide_size=_size(attributes, "level0_width", "level0_height"),
        provenance=attributes,
    )


def _read_clam(path: Path, file: h5py.File) -> FeatureBag:
    """Read CLAM's features; the tile size stands in the `patches` file of the same slide, where there is one."""
    attributes: dict[str, Any] = {}
    for folder in (path.parent.parent / "patches", path.parent.parent.parent / "patches", path.parent):
        sibling = folder / path.name
        if sibling.exists() and sibling != path:
            with open_h5(sibling) as patches:
                if "coords" in patches:
                    attributes = {key: plain(value) for key, value in patches["coords"].attrs.items()}
            break
    tile_px = int(attributes["patch_size"]) if "patch_size" in attributes else None
    tile_l0 = None
    if tile_px is not None and "downsample" in attributes:
        down_x, down_y = np.broadcast_to(np.asarray(attributes["downsample"], dtype=float), (2,))
        tile_l0 = (tile_px * float(down_x), tile_px * float(down_y))
    return FeatureBag(
        slide_id=path.stem,
        features=_features(file["features"]),
        coords_l0=file["coords"][:].astype(np.int64) if "coords" in file else None,
        coords_um=None,
        layout="clam",
        encoder=None,
        tile_px=tile_px,
        mpp=None,
        tile_l0=tile_l0,
        slide_size=None,
        provenance={key: value for key, value in attributes.items() if not isinstance(value, np.ndarray)},
    )


def _load_clam_tensor(path: Path) -> FeatureBag:
    if not path.exists():
        raise BagError(f"there is no file '{path}'. Check the name.")
    try:
        import torch  # only this layout needs it
    except ImportError as error:
        raise BagError(
            f"'{path.name}' is a torch file and torch is not installed. Run: pip install 'lamella[torch]', or open the "
            ".h5 beside it."
        ) from error
    try:
        tensor = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, zipfile.BadZipFile, ValueError) as error:
        raise BagError(f"'{path.name}' is not a readable torch file of plain tensors. Open the .h5 instead.") from error
    if not isinstance(tensor, torch.Tensor) or tensor.ndim != 2:
        raise BagError(f"'{path.name}' holds {type(tensor).__name__}, not an (N, D) tensor as CLAM writes it.")
    return FeatureBag(
        slide_id=path.stem, features=tensor.float().numpy(), coords_l0=None, coords_um=None, layout="clam",
        encoder=None, tile_px=None, mpp=None, tile_l0=None, slide_size=None, provenance={},
    )  # fmt: skip


def _read_stamp(path: Path, file: h5py.File, slide_mpp: float | None) -> FeatureBag:
    attributes = read_attributes(file)
    if attributes.get("unit", "um") != "um":
        raise BagError(f"'{path.name}' states its coordinates in '{attributes['unit']}'; only 'um' is known.")
    coords_um = file["coords"][:].astype(np.float64)
    tile_um, tile_px = attributes.get("tile_size_um"), attributes.get("tile_size_px")
    side_l0 = None if slide_mpp is None or tile_um is None else float(tile_um) / slide_mpp
    return FeatureBag(
        slide_id=path.stem,
        features=_features(file["feats"]),
        coords_l0=None if slide_mpp is None else np.rint(coords_um / slide_mpp).astype(np.int64),
        coords_um=coords_um,
        layout="stamp",
        encoder=None if "extractor" not in attributes else str(attributes["extractor"]),
        tile_px=None if tile_px is None else int(tile_px),
        mpp=None if tile_um is None or tile_px is None else float(tile_um) / int(tile_px),
        tile_l0=None if side_l0 is None else (side_l0, side_l0),
        slide_size=None,
        provenance=attributes,
    )


def _features(dataset: h5py.Dataset) -> NDArray[np.float32]:
    """Read `(N, D)` as float32; an empty slide of TRIDENT's may have the shape (0,)."""
    shape = dataset.shape if isinstance(dataset, h5py.Dataset) else ()
    if shape == (0,):
        return np.zeros((0, 0), np.float32)
    if len(shape) != 2:
        raise BagError(
            f"'{Path(dataset.file.filename).name}' holds features of shape {shape} and a bag's are (tiles, width). "
            "Name a file made by `lamella extract`, TRIDENT, CLAM or STAMP."
        )
    features: NDArray[np.float32] = dataset[:].astype(np.float32)
    return features


def _size(attributes: dict[str, Any], width: str, height: str) -> tuple[int, int] | None:
    try:
        return int(attributes[width]), int(attributes[height])
    except (KeyError, ValueError, TypeError):
        return None


def _names(file: h5py.File) -> str:
    return ", ".join(f"'{name}'" for name in file) or "nothing"
