"""Mussel's files of tile embeddings: CLAM's datasets, with sizes and resolutions as attributes of `coords`.

`patch_size` is in level-0 px here and `patch_size_to_resize_to_for_desired_mpp` is what the encoder saw; in CLAM's and
TRIDENT's files `patch_size` is the latter.
"""

from functools import partial
from pathlib import Path

import h5py
import numpy as np

from lamella.features.bag import FeatureBag
from lamella.features.h5_reading import find_size, mark_file, read_attributes, read_corners
from lamella.features.h5_rows import find_shape, read_rows, read_slice

SEEN_PX = "patch_size_to_resize_to_for_desired_mpp"


def is_mussel(file: h5py.File) -> bool:
    """Tell whether an HDF5 file of `features` and `coords` is Mussel's."""
    return "coords" in file and SEEN_PX in file["coords"].attrs


def open_mussel(path: Path, file: h5py.File, slide_mpp: float | None) -> FeatureBag:
    """Return the bag in Mussel's file, its embeddings still in the file.

    Args:
        path: The file.
        file: The same, opened.
        slide_mpp: Resolution of the slide's level 0, um per pixel; None takes the one that Mussel states.
    """
    attributes, corners, mark = read_attributes(file["coords"]), read_corners(file), mark_file(path)
    side_l0, tile_px = find_size(attributes, "patch_size"), find_size(attributes, SEEN_PX)
    stated_mpp = find_size(attributes, "native_mpp") if slide_mpp is None else slide_mpp
    size = np.atleast_1d(attributes.get("level_dim", ()))
    plain = {key: value for key, value in attributes.items() if not isinstance(value, np.ndarray)}
    return FeatureBag(
        slide_id=str(attributes.get("name") or path.stem.removesuffix(".features")),
        shape=find_shape(file, "features"),
        coords_l0=corners,
        coords_um=None if stated_mpp is None else corners.astype(np.float64) * stated_mpp,
        layout="mussel",
        encoder=None,
        tile_px=None if tile_px is None else int(tile_px),
        mpp=find_size(attributes, "mpp"),
        tile_l0=None if side_l0 is None else (side_l0, side_l0),
        slide_size=(int(size[0]), int(size[1])) if size.shape == (2,) else None,
        provenance=plain,
        read_stored=partial(read_rows, path, "features", "mussel", mark),
        read_slice=partial(read_slice, path, "features", "mussel", mark),
    )
