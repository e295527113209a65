"""slide2vec's files: embeddings (.pt or .npz), what they are (.meta.json), and hs2p's tiles in a folder beside.

    OUT/tile_embeddings/<slide>.pt|npz    (N, D); in .npz `features`, and `tile_index` where not all tiles are there
    OUT/tile_embeddings/<slide>.meta.json encoder, sizes
    OUT/tiles/<slide>.coordinates.npz     `x`, `y`, level-0 px
    OUT/tiles/<slide>.coordinates.meta.json
    OUT/slide_embeddings/<slide>.pt|npz   (D,)

Embeddings of a class of annotations lie one folder deeper, tiles too.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamella.errors import BagError
from lamella.features.bag import FeatureBag
from lamella.features.npz_reading import NpzArray, list_npz
from lamella.files import parse_json_file

_TILES, _SLIDE = "tile_embeddings", "slide_embeddings"
_NAMES = ("features", "embeddings", "feats")


@dataclass(frozen=True, slots=True)
class _Tiles:
    """Where hs2p placed tiles: `corners_l0` `(N, 2)` int64 `(x, y)`, and what it states of slide and tiles."""

    corners_l0: NDArray[np.int64]
    stated: Mapping[str, Any]


def is_slide2vec(path: Path) -> bool:
    """Tell whether slide2vec's metadata lie beside a file of embeddings."""
    return path.suffix in (".pt", ".npz") and _meta_path(path).is_file()


def open_npz(path: Path, slide_mpp: float | None) -> FeatureBag:
    """Return the bag in a NumPy archive, slide2vec's or any with `features`, its embeddings still in the file.

    Args:
        path: The file.
        slide_mpp: Resolution of the slide's level 0, um per pixel; None takes what hs2p states.

    Raises:
        BagError: If it is damaged or holds no embeddings, or slide2vec's metadata contradict it.
    """
    arrays = list_npz(path)
    names = [name for name in _NAMES if name in arrays]
    if len(names) != 1:
        held = ", ".join(f"'{name}'" for name in list(arrays)[:6]) or "no array of numbers"
        hint = " It holds where tiles lie; name the file of their embeddings." if {"x", "y"} <= set(arrays) else ""
        raise BagError(f"'{path.name}' holds {held}, and embeddings are called 'features'.{hint or ' Save them so.'}")
    stored = arrays[names[0]]
    shape = stored.shape[1:] if len(stored.shape) == 3 and stored.shape[0] == 1 else stored.shape
    if len(shape) not in (1, 2):
        raise BagError(
            f"'{names[0]}' of '{path.name}' has shape {stored.shape}; a bag is (tiles, width) and an embedding of a "
            "whole slide is (width,). Name a file of tile or slide embeddings."
        )
    is_vector = len(shape) == 1
    n_tiles, width = (1, shape[0]) if is_vector else shape
    bag = FeatureBag(
        slide_id=path.stem, shape=(n_tiles, width), coords_l0=None, coords_um=None, layout="npz", encoder=None,
        tile_px=None, mpp=None, tile_l0=None, slide_size=None, provenance={}, is_slide_embedding=is_vector,
        read_stored=partial(_read_matrix, stored, (n_tiles, width)),
        read_slice=stored.read_rows if len(stored.shape) == 2 else None,
    )  # fmt: skip
    index = arrays["tile_index"].read() if "tile_index" in arrays else None
    return add_meta(path, bag, slide_mpp, index) if is_slide2vec(path) else bag


def add_meta(path: Path, bag: FeatureBag, slide_mpp: float | None, index: NDArray[Any] | None = None) -> FeatureBag:
    """Return a bag with what slide2vec and hs2p state of it beside its file.

    Args:
        path: The file of the embeddings.
        bag: What it holds.
        slide_mpp: Resolution of the slide's level 0, um per pixel; None takes what hs2p states.
        index: Which of the slide's tiles the rows are of; None for all in order.

    Raises:
        BagError: If metadata and file contradict each other.
    """
    meta = _load_json(_meta_path(path))
    kind = str(meta.get("artifact_type", _TILES))
    if kind not in (_TILES, _SLIDE, "patient_embeddings"):
        raise BagError(f"'{path.name}' is of slide2vec's {kind}; a bag is of its {_TILES} or {_SLIDE}. Name one.")
    _refuse_contradiction(path, bag, meta, is_of_tiles=kind == _TILES)
    tiles = _load_tiles(path, str(meta.get("sample_id") or path.stem)) if kind == _TILES else None
    corners = None if tiles is None else _pick(path, tiles.corners_l0, index)
    stated = {} if tiles is None else tiles.stated
    slide_mpp = _number(path, stated, "base_spacing_um") if slide_mpp is None else slide_mpp
    side_l0, tile_px = _number(path, meta, "tile_size_lv0"), _number(path, meta, "requested_tile_size_px")
    return replace(
        bag,
        slide_id=str(meta.get("sample_id") or path.stem),
        coords_l0=corners,
        coords_um=None if corners is None or slide_mpp is None else corners.astype(np.float64) * slide_mpp,
        layout="slide2vec",
        encoder=None if meta.get("encoder_name") is None else str(meta["encoder_name"]),
        tile_px=None if tile_px is None else int(tile_px),
        mpp=_number(path, meta, "requested_spacing_um"),
        tile_l0=None if side_l0 is None or kind != _TILES else (side_l0, side_l0),
        slide_size=_find_size(path, stated),
        provenance={key: value for key, value in meta.items() if isinstance(value, (str, int, float, bool))},
        is_slide_embedding=kind != _TILES,
    )


def _read_matrix(stored: NpzArray, shape: tuple[int, int]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        return stored.read().reshape(shape).astype(np.float32, copy=False)


def _meta_path(path: Path) -> Path:
    return path.with_name(f"{path.stem}.meta.json")


def _load_json(path: Path) -> dict[str, Any]:
    try:
        content = parse_json_file(path)
        if not isinstance(content, dict):
            raise ValueError("no object")
    except (OSError, ValueError) as error:
        said = " ".join(str(error).split())[:120]
        raise BagError(
            f"'{path.name}' is damaged ({said}). Get it again, or remove it to read the bag alone."
        ) from error
    return content


def _refuse_contradiction(path: Path, bag: FeatureBag, meta: Mapping[str, Any], *, is_of_tiles: bool) -> None:
    for key, number in (("num_tiles", bag.shape[0]), ("feature_dim", bag.shape[1])):
        if is_of_tiles and isinstance(meta.get(key), int) and meta[key] != number:
            raise BagError(
                f"'{path.name}' has {key} {number:,} and '{_meta_path(path).name}' states {meta[key]:,}: they are of "
                "different runs. Run slide2vec again for that slide."
            )


def _load_tiles(path: Path, sample_id: str) -> _Tiles | None:
    """Load where the tiles of a slide lie, from the folder that is the embeddings' neighbour; None where it is not."""
    parts = path.resolve().parts
    places = [place for place, part in enumerate(parts) if part == _TILES]
    if not places or "/" in sample_id or "\\" in sample_id:
        return None
    folder = Path(*parts[: places[-1]], "tiles", *parts[places[-1] + 1 : -1])
    npz = folder / f"{sample_id}.coordinates.npz"
    if not npz.is_file():
        return None
    arrays = list_npz(npz)
    if not {"x", "y"} <= set(arrays) or len(arrays["x"].shape) != 1 or arrays["x"].shape != arrays["y"].shape:
        raise BagError(f"'{npz.name}' holds no 'x' and 'y' of equal length. Run hs2p again for that slide.")
    columns = [arrays[name].read() for name in ("x", "y")]
    if not all(np.isfinite(column).all() and np.abs(column).max(initial=0) <= 2**53 for column in columns):
        raise BagError(f"'{npz.name}' holds a coordinate that is no pixel. Run hs2p again for that slide.")
    stated: dict[str, Any] = {}
    meta = folder / f"{sample_id}.coordinates.meta.json"
    if meta.is_file():
        slide = _load_json(meta).get("slide")
        stated = slide if isinstance(slide, dict) else {}
    return _Tiles(np.stack(columns, axis=1).astype(np.int64), stated)


def _pick(path: Path, corners: NDArray[np.int64], index: NDArray[Any] | None) -> NDArray[np.int64]:
    """Return the corners of the tiles that `tile_index` names."""
    if index is None:
        return corners
    if (
        index.ndim != 1
        or index.dtype.kind not in "iu"
        or index.min(initial=0) < 0
        or index.max(initial=-1) >= len(corners)
    ):
        raise BagError(
            f"'tile_index' of '{path.name}' names tiles that are not among the {len(corners):,} of its coordinates. "
            "Run slide2vec again for that slide."
        )
    picked: NDArray[np.int64] = corners[index]
    return picked


def _number(path: Path, stated: Mapping[str, Any], key: str) -> float | None:
    value = stated.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise BagError(
            f"the metadata of '{path.name}' state {key} = {str(value)[:40]!r}, not a number above 0. Run slide2vec "
            "again for that slide."
        )
    return float(value)


def _find_size(path: Path, stated: Mapping[str, Any]) -> tuple[int, int] | None:
    size = stated.get("dimensions")
    if size is None:
        return None
    if not isinstance(size, list) or len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise BagError(
            f"the coordinates' metadata of '{path.name}' state a slide of {str(size)[:40]} px. Run hs2p again."
        )
    return size[0], size[1]
