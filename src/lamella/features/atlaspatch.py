"""AtlasPatch's files: the tiles of a slide, and in the same file embeddings of any number of encoders.

    coords                    (N, 5) int32: x, y, width and height as read, level
    features/<encoder>        (N, D) float32, one dataset an encoder
    slide_features/<encoder>  (D,), of a whole slide

Sizes stand in the attributes of the file. A file of one patient's embedding has `features` (D,) and no coords.
"""

from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from lamella.errors import BagError
from lamella.features.bag import FeatureBag
from lamella.features.encoder_choice import choose_encoder
from lamella.features.h5_reading import find_size, mark_file, read_array, read_attributes
from lamella.features.h5_rows import find_shape, read_rows, read_slice

TILE_GROUP, SLIDE_GROUP = "features", "slide_features"


def is_atlaspatch(file: h5py.File) -> bool:
    """Tell whether an HDF5 file is AtlasPatch's, with or without embeddings."""
    return any(isinstance(file.get(group), h5py.Group) for group in (TILE_GROUP, SLIDE_GROUP)) or "passports" in file


def list_encoders(file: h5py.File) -> list[str]:
    """List the encoders of a file: those of tiles by name, then those of the slide as `slide_features/<name>`."""
    names = []
    for group, prefix in ((TILE_GROUP, ""), (SLIDE_GROUP, f"{SLIDE_GROUP}/")):
        if isinstance(file.get(group, getlink=True), (h5py.HardLink, h5py.SoftLink)) and group in file:
            held = file[group]
            if isinstance(held, h5py.Group):  # a name that begins so is of a run that was stopped
                names += [f"{prefix}{name}" for name in held if not name.startswith("__tmp_")]
    return names


def open_atlaspatch(path: Path, file: h5py.File, slide_mpp: float | None, encoder: str | None) -> FeatureBag:
    """Return the bag of one encoder in AtlasPatch's file, its embeddings still in the file.

    Args:
        path: The file.
        file: The same, opened.
        slide_mpp: Resolution of the slide's level 0, um per pixel; None takes what the file states as `mpp`, if any.
        encoder: Which encoder, where the file holds several; None takes the only one of tiles.

    Raises:
        BagError: If it holds none, or several and none is named.
    """
    encoders = list_encoders(file)
    of_tiles = [name for name in encoders if not name.startswith(f"{SLIDE_GROUP}/")]
    if encoder is not None and encoder not in encoders and f"{SLIDE_GROUP}/{encoder}" in encoders:
        encoder = f"{SLIDE_GROUP}/{encoder}"
    chosen = choose_encoder(path.name, of_tiles if encoder is None and of_tiles else encoders, encoder)
    of_slide = chosen.startswith(f"{SLIDE_GROUP}/")
    dataset = chosen if of_slide else f"{TILE_GROUP}/{chosen}"
    attributes = read_attributes(file)
    if isinstance(file.get(dataset), h5py.Dataset):
        attributes |= {key: value for key, value in read_attributes(file[dataset]).items() if key not in attributes}
    slide_mpp = find_size(attributes, "mpp") if slide_mpp is None else slide_mpp
    side_l0, tile_px = find_size(attributes, "patch_size_level0"), find_size(attributes, "patch_size")
    width, height = find_size(attributes, "level0_width"), find_size(attributes, "level0_height")
    corners = None if of_slide else read_boxes(file)
    mark = mark_file(path)
    return FeatureBag(
        slide_id=path.stem,
        shape=find_shape(file, dataset),
        coords_l0=corners,
        coords_um=None if slide_mpp is None or corners is None else corners.astype(np.float64) * slide_mpp,
        layout="atlaspatch",
        encoder=chosen.removeprefix(f"{SLIDE_GROUP}/"),
        tile_px=None if tile_px is None else int(tile_px),
        mpp=None if slide_mpp is None or side_l0 is None or tile_px is None else side_l0 * slide_mpp / tile_px,
        tile_l0=None if of_slide or side_l0 is None else (side_l0, side_l0),
        slide_size=None if width is None or height is None else (int(width), int(height)),
        provenance=attributes,
        read_stored=partial(read_rows, path, dataset, "atlaspatch", mark),
        read_slice=partial(read_slice, path, dataset, "atlaspatch", mark),
        is_slide_embedding=of_slide,
    )


def read_boxes(file: h5py.File) -> NDArray[np.int64]:
    """Return `(N, 2)` int64 corners `(x, y)`, level-0 px, of AtlasPatch's boxes `(x, y, width, height, level)`.

    Raises:
        BagError: If the file holds no such boxes.
    """
    values: NDArray[Any] = read_array(file, "coords") if "coords" in file else np.zeros(0)
    if values.ndim != 2 or values.shape[1] != 5 or not (np.abs(values.astype(np.float64)) <= 2**53).all():
        raise BagError(
            f"'coords' of '{Path(file.filename).name}' has shape {values.shape} and AtlasPatch's is (tiles, 5), "
            "pixels: x, y, width, height, level. Make the file again."
        )
    return values[:, :2].astype(np.int64)
