"""Reading bags of any layout: our own and those of the field's tools.

They are told apart by content, not by name: STAMP has `feats`, AtlasPatch a group `features`, ours states a
`fingerprint`, TRIDENT's coordinates state `patch_size_level0`, Mussel's what they are resized to, and a file of
`features` and `coords` without any attribute is CLAM's. Ours, TRIDENT's, CLAM's and STAMP's are read here, each other
in a module of its name.
"""

from functools import partial
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from lamella.errors import BagError
from lamella.features.atlaspatch import is_atlaspatch, open_atlaspatch
from lamella.features.bag import FeatureBag, read_seen_patients
from lamella.features.encoder_choice import OF_SEVERAL, refuse_other_encoder, split_address
from lamella.features.h5_reading import (
    Attribute,
    find_size,
    mark_file,
    open_h5,
    read_array,
    read_attributes,
    read_corners,
)
from lamella.features.h5_rows import find_shape, is_vector, read_rows, read_slice
from lamella.features.h5_seal import is_sealed, refuse_changed
from lamella.features.lazyslide import open_lazyslide
from lamella.features.mussel import is_mussel, open_mussel
from lamella.features.slide2vec import add_meta, is_slide2vec, open_npz
from lamella.features.slide_embeddings import open_slide_embedding
from lamella.features.torch_bags import load_tensor_bag

# STAMP 1 placed tiles of 256 um and wrote their corners in pixels of 224 to a tile, without a unit.
STAMP_TILE_UM, STAMP_TILE_PX = 256.0, 224


def load_bag(path: Path, *, slide_mpp: float | None = None, encoder: str | None = None) -> FeatureBag:
    """Return the bag in a file of ours or of another tool (docs/formats.md lists them), its features in memory.

    Args:
        path: The file; `FILE#ENCODER` names the encoder where the file holds embeddings of several.
        slide_mpp: Resolution of the slide's level 0, in um per pixel, for layouts that do not state it; only then
            can STAMP's coordinates (um) be given in level-0 pixels.
        encoder: The encoder, as after the `#`.

    Raises:
        BagError: If the file is absent, in use, damaged, of none of these layouts, or its parts contradict each other.
    """
    bag = open_bag(path, slide_mpp=slide_mpp, encoder=encoder)
    _ = bag.features  # read now, so that damage is told here
    return bag


def open_own_bag(path: Path) -> FeatureBag:
    """Return a bag of ours as `open_bag` does.

    Raises:
        BagError: As `open_bag`; and if another tool made it.
    """
    bag = open_bag(path)
    if bag.layout != "lamella":
        raise BagError(
            f"'{path.name}' was not made by `lamella extract`, and a run reads no other bags in its features folder. "
            "Delete it and run the same command again."
        )
    return bag


def open_bag(path: Path, *, slide_mpp: float | None = None, encoder: str | None = None) -> FeatureBag:
    """Return a bag as `load_bag` does, its features still in the file.

    Type and size of the features are checked here; that the file is as it was written, when they are read.

    Args:
        path: As `load_bag` takes it.
        slide_mpp: As `load_bag` takes it.
        encoder: As `load_bag` takes it.

    Raises:
        BagError: As `load_bag`.
    """
    path, named = split_address(path)
    encoder = named if encoder is None else encoder
    bag = _open(path, slide_mpp, encoder)
    if bag.layout not in OF_SEVERAL:
        refuse_other_encoder(path.name, bag.encoder, encoder)
    return bag


def _open(path: Path, slide_mpp: float | None, encoder: str | None) -> FeatureBag:
    if path.suffix in (".pt", ".pth"):
        return _check(path, _read_tensor(path, slide_mpp))
    if path.suffix == ".zarr":
        return _check(path, open_lazyslide(path, slide_mpp, encoder))
    if path.suffix == ".npz":
        return _check(path, open_npz(path, slide_mpp))
    with open_h5(path) as file:
        try:
            return _check(path, _open_layout(path, file, slide_mpp, encoder))
        except Exception:
            refuse_changed(file, {}, made_by="lamella extract")  # the cause, where it is a bag of ours
            raise


def _open_layout(path: Path, file: h5py.File, slide_mpp: float | None, encoder: str | None) -> FeatureBag:
    if "feats" in file:
        return open_slide_embedding(path, file, "feats") if _is_of_slide(file) else _read_stamp(path, file, slide_mpp)
    if is_atlaspatch(file):
        return open_atlaspatch(path, file, slide_mpp, encoder)
    if "features" not in file:
        raise BagError(
            f"'{path.name}' holds {_names(file)} but no 'features' or 'feats', so it is not a feature bag. Name "
            "a file made by `lamella extract`, TRIDENT, CLAM, STAMP, AtlasPatch or Mussel."
        )
    if "fingerprint" in file.attrs or is_sealed(file):
        return _read_lamella(path, file)
    if is_vector(file, "features") or ("coords" not in file and find_shape(file, "features")[0] == 1):
        return open_slide_embedding(path, file, "features")
    if "coords" in file and "patch_size_level0" in file["coords"].attrs:
        return _read_trident(path, file, slide_mpp)
    return open_mussel(path, file, slide_mpp) if is_mussel(file) else _read_clam(path, file)


def _is_of_slide(file: h5py.File) -> bool:
    """Tell whether STAMP's `feats` are of a slide or a patient, not of tiles."""
    return is_vector(file, "feats") or str(file.attrs.get("feat_type", "tile")) in ("slide", "patient")


def _check(path: Path, bag: FeatureBag) -> FeatureBag:
    """Return a bag whose parts agree.

    Raises:
        BagError: If features and coordinates differ in number, or a tile lies outside the slide that the file states.
    """
    corners = bag.coords_l0 if bag.coords_l0 is not None else bag.coords_um
    if corners is not None and len(corners) != bag.shape[0]:
        raise BagError(
            f"'{path.name}' holds {bag.shape[0]:,} feature rows and {len(corners):,} coordinates, so no row can "
            "be told which tile it is of. Extract that slide again."
        )
    if bag.slide_size is not None and bag.coords_l0 is not None and len(bag.coords_l0):
        low, high = bag.coords_l0.min(axis=0), bag.coords_l0.max(axis=0)
        if (low <= -np.asarray(bag.tile_l0 or (0, 0)) - 1).any() or (high >= bag.slide_size).any():
            raise BagError(
                f"'{path.name}' has tiles from ({low[0]}, {low[1]}) to ({high[0]}, {high[1]}) px, outside the slide of "
                f"{bag.slide_size[0]} x {bag.slide_size[1]} px that it states. Extract that slide again."
            )
    return bag


def _read_lamella(path: Path, file: h5py.File) -> FeatureBag:
    coords, attributes = read_corners(file), read_attributes(file)
    slide_mpp = (float(attributes["slide_mpp_x"]), float(attributes["slide_mpp_y"]))
    tile_px, mpp = int(attributes["tile_px"]), float(attributes["mpp"])
    if not min(*slide_mpp, mpp, tile_px) > 0:
        raise ValueError(f"{tile_px} px at {mpp} um/px on a slide of {slide_mpp} um/px")
    return FeatureBag(
        slide_id=str(attributes["slide_id"]),
        coords_l0=coords,
        coords_um=coords * np.array(slide_mpp),
        layout="lamella",
        encoder=str(attributes["encoder"]),
        tile_px=tile_px,
        mpp=mpp,
        tile_l0=(tile_px * mpp / slide_mpp[0], tile_px * mpp / slide_mpp[1]),
        slide_size=(int(attributes["slide_width"]), int(attributes["slide_height"])),
        provenance={**attributes, **read_seen_patients(file)},
        shape=find_shape(file, "features"),
        read_stored=partial(read_rows, path, "features", "lamella", mark_file(path)),
        read_slice=partial(read_slice, path, "features", "lamella", mark_file(path)),
    )


def _read_trident(path: Path, file: h5py.File, slide_mpp: float | None) -> FeatureBag:
    attributes = read_attributes(file["coords"]) | read_attributes(file["features"])
    coords = read_corners(file)
    side_l0, tile_px = find_size(attributes, "patch_size_level0"), find_size(attributes, "patch_size")
    mpp = find_size(attributes, "mpp")
    if mpp is None and None not in (slide_mpp, side_l0, tile_px):
        # TRIDENT states magnifications only; without the slide's resolution the tile's is not known.
        mpp = float(side_l0 or 0) * float(slide_mpp or 0) / float(tile_px or 1)
    encoder = attributes.get("encoder")
    return FeatureBag(
        slide_id=str(attributes.get("name") or path.stem),
        coords_l0=coords,
        coords_um=None if slide_mpp is None else coords.astype(np.float64) * slide_mpp,
        layout="trident",
        encoder=None if encoder is None else str(encoder),
        tile_px=None if tile_px is None else int(tile_px),
        mpp=mpp,
        tile_l0=None if side_l0 is None else (side_l0, side_l0),
        slide_size=_slide_size(attributes),
        provenance=attributes,
        shape=find_shape(file, "features"),
        read_stored=partial(read_rows, path, "features", "trident", mark_file(path)),
        read_slice=partial(read_slice, path, "features", "trident", mark_file(path)),
    )


def _read_clam(path: Path, file: h5py.File) -> FeatureBag:
    """Read CLAM's features; the tile size stands in the `patches` file of the same slide, where there is one."""
    attributes: dict[str, Attribute] = {}
    for folder in (path.parent.parent / "patches", path.parent.parent.parent / "patches", path.parent):
        sibling = folder / path.name
        if sibling.exists() and sibling != path:
            with open_h5(sibling) as patches:
                if "coords" in patches:
                    attributes = read_attributes(patches["coords"])
            break
    tile_px, tile_l0 = find_size(attributes, "patch_size"), None
    if tile_px is not None and "downsample" in attributes:
        down_x, down_y = np.broadcast_to(np.asarray(attributes["downsample"], dtype=float), (2,))
        tile_l0 = (tile_px * float(down_x), tile_px * float(down_y))
        if not (np.isfinite(tile_l0).all() and min(tile_l0) > 0):
            raise ValueError(f"downsample is {attributes['downsample']}")
    return FeatureBag(
        slide_id=path.stem,
        coords_l0=read_corners(file) if "coords" in file else None,
        coords_um=None,
        layout="clam",
        encoder=None,
        tile_px=None if tile_px is None else int(tile_px),
        mpp=None,
        tile_l0=tile_l0,
        slide_size=None,
        provenance={key: value for key, value in attributes.items() if not isinstance(value, np.ndarray)},
        shape=find_shape(file, "features"),
        read_stored=partial(read_rows, path, "features", "clam", mark_file(path)),
        read_slice=partial(read_slice, path, "features", "clam", mark_file(path)),
    )


def _read_tensor(path: Path, slide_mpp: float | None) -> FeatureBag:
    tensor = load_tensor_bag(path)
    bag = FeatureBag(
        slide_id=path.stem, shape=(tensor.features.shape[0], tensor.features.shape[1]), coords_l0=tensor.coords_l0,
        coords_um=None, layout="slide embedding" if tensor.is_vector else "clam", encoder=None, tile_px=None, mpp=None,
        tile_l0=None, slide_size=None, provenance={}, read_stored=partial(np.asarray, tensor.features),
        is_slide_embedding=tensor.is_vector,
    )  # fmt: skip
    return add_meta(path, bag, slide_mpp) if is_slide2vec(path) else bag


def _read_stamp(path: Path, file: h5py.File, slide_mpp: float | None) -> FeatureBag:
    attributes = read_attributes(file)
    coords_um, tile_um, tile_px = _read_stamp_corners(path, file, attributes)
    side_l0 = None if slide_mpp is None or tile_um is None else tile_um / slide_mpp
    coords_l0 = None
    if slide_mpp is not None and coords_um is not None:
        coords_l0 = np.rint(coords_um / slide_mpp).astype(np.int64)
    return FeatureBag(
        slide_id=path.stem,
        coords_l0=coords_l0,
        coords_um=coords_um,
        layout="stamp",
        encoder=None if "extractor" not in attributes else str(attributes["extractor"]),
        tile_px=None if tile_px is None else int(tile_px),
        mpp=None if tile_um is None or tile_px is None else tile_um / tile_px,
        tile_l0=None if side_l0 is None else (side_l0, side_l0),
        slide_size=None,
        provenance=attributes,
        shape=find_shape(file, "feats"),
        read_stored=partial(read_rows, path, "feats", "stamp", mark_file(path)),
        read_slice=partial(read_slice, path, "feats", "stamp", mark_file(path)),
    )


def _read_stamp_corners(
    path: Path, file: h5py.File, attributes: dict[str, Attribute]
) -> tuple[NDArray[np.float64] | None, float | None, float | None]:
    """Return STAMP's corners in um with the tile's side in um and in pixels, each None where it is not known.

    STAMP 2 states `unit` = um. STAMP 1 states none: its corners are in pixels of 224 to a tile of 256 um, as its own
    reader infers from their distance.

    Raises:
        BagError: If the unit is another, or cannot be inferred.
    """
    tile_um, tile_px = find_size(attributes, "tile_size_um"), find_size(attributes, "tile_size_px")
    if "coords" not in file:
        return None, tile_um, tile_px
    corners = read_array(file, "coords").astype(np.float64)
    if corners.ndim != 2 or corners.shape[1] != 2 or not np.isfinite(corners).all():
        raise ValueError(f"coords of shape {corners.shape}, or with a value that is no number")
    unit = str(attributes.get("unit", "")).strip()
    if unit in ("um", "\u00b5m", "\u03bcm"):
        return corners, tile_um, tile_px
    if unit not in ("", "None"):
        raise BagError(
            f"'{path.name}' states its coordinates in '{unit}'; only 'um' is known. Extract that slide again with "
            "STAMP."
        )
    step = _find_step(corners)
    if step is None:
        return None, tile_um, tile_px  # one tile: nothing tells the unit, and its features are good all the same
    if abs(step - (tile_px or STAMP_TILE_PX)) <= 1:
        side_um, side_px = tile_um or STAMP_TILE_UM, tile_px or STAMP_TILE_PX
        return corners * (side_um / side_px), side_um, side_px
    if tile_um is not None and abs(step - tile_um) <= 1:
        return corners, tile_um, tile_px
    raise BagError(
        f"'{path.name}' does not state the unit of its coordinates, and its tiles lie {step:g} apart, which is neither "
        f"STAMP 1's {STAMP_TILE_PX} px nor a stated tile size. Extract that slide again with STAMP 2."
    )


def _find_step(corners: NDArray[np.float64]) -> float | None:
    """Return the smallest distance between columns or rows of tiles; None where there is but one of each."""
    steps = [np.diff(np.unique(corners[:, axis])) for axis in (0, 1)]
    return min((float(step.min()) for step in steps if step.size), default=None)


def _slide_size(attributes: dict[str, Attribute]) -> tuple[int, int] | None:
    width, height = find_size(attributes, "level0_width"), find_size(attributes, "level0_height")
    return None if width is None or height is None else (int(width), int(height))


def _names(file: h5py.File) -> str:
    return ", ".join(f"'{name}'" for name in file) or "nothing"
