"""One embedding of a whole slide in an HDF5 file: a bag of one instance.

TRIDENT writes `features` (D,) beside the corners of the tiles it came from, Mussel and AtlasPatch (of a patient)
`features` (D,) alone, and STAMP `feats`.
"""

from functools import partial
from pathlib import Path

import h5py

from lamella.features.bag import FeatureBag
from lamella.features.h5_reading import find_size, mark_file, read_attributes
from lamella.features.h5_rows import find_shape, read_rows, read_slice

_ENCODER_NAMES = ("encoder", "encoder_name", "extractor")
_TRIDENT_FOLDER = "slide_features_"


def open_slide_embedding(path: Path, file: h5py.File, name: str) -> FeatureBag:
    """Return the bag of one instance in a file, the embedding still in it.

    The corners of the tiles from which TRIDENT made it are not the instance's, so it has none.

    Args:
        path: The file.
        file: The same, opened.
        name: The dataset, `(D,)` or `(1, D)`.
    """
    stated = read_attributes(file) | read_attributes(file[name])
    of_tiles = read_attributes(file["coords"]) if "coords" in file else {}
    if "patch_size_level0" in of_tiles or path.parent.name.startswith(_TRIDENT_FOLDER):
        layout = "trident"
    elif name == "feats":
        layout = "stamp"
    else:
        layout = "atlaspatch" if "num_slides" in stated else "slide embedding"
    encoder = next((str(stated[key]) for key in _ENCODER_NAMES if stated.get(key) not in (None, "", "None")), None)
    if encoder is None and path.parent.name.startswith(_TRIDENT_FOLDER):
        encoder = path.parent.name.removeprefix(_TRIDENT_FOLDER)  # the only place where TRIDENT states it
    width, height = find_size(of_tiles, "level0_width"), find_size(of_tiles, "level0_height")
    tile_px, mark = find_size(of_tiles, "patch_size"), mark_file(path)
    return FeatureBag(
        slide_id=str(stated.get("name") or path.stem.removesuffix(".features")),
        shape=find_shape(file, name),
        coords_l0=None,
        coords_um=None,
        layout=layout,
        encoder=encoder,
        tile_px=None if tile_px is None else int(tile_px),
        mpp=find_size(of_tiles, "mpp"),
        tile_l0=None,
        slide_size=None if width is None or height is None else (int(width), int(height)),
        provenance=of_tiles | stated,
        read_stored=partial(read_rows, path, name, layout, mark),
        read_slice=partial(read_slice, path, name, layout, mark),
        is_slide_embedding=True,
    )
