"""Bags whose embeddings stay in their files: all is read once when one is opened, and found to be whole and finite."""

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamella.errors import BagError
from lamella.features.bag import FeatureBag
from lamella.features.h5_rows import refuse_other_rows
from lamella.features.layouts import open_bag
from lamella.features.rows import CACHE, StoredRows

_BLOCK_BYTES = 32 << 20
_FLOAT32 = np.dtype(np.float32)


def store_bag(path: Path, bag: FeatureBag) -> tuple[StoredRows, StoredRows, str]:
    """Return a bag's embeddings and corners as they lie in its file, checked, and the SHA-256 of the embeddings.

    Those of ours keep the type that they are stored in; others are float32.

    Args:
        path: The file; `FILE#ENCODER` where it holds embeddings of several.
        bag: The same, opened; nothing of it is held.

    Raises:
        BagError: If the file is damaged, is not as it was written, or holds NaN or infinity.
    """
    is_sliced = bag.read_slice is not None and path.suffix != ".npz"  # which unpacks from its beginning
    n_bytes = bag.shape[0] * bag.shape[1] * _FLOAT32.itemsize
    sha256, dtype, values = hashlib.sha256(), _FLOAT32, None
    if is_sliced and not CACHE.has_room(n_bytes):
        for block in _read_blocks(bag):
            _look_at(path, block, sha256)
            dtype = block.dtype
        if bag.layout == "lamella":
            refuse_other_rows(path, "features", sha256.hexdigest())
    else:
        values = bag.read_stored()
        for start in range(0, len(values), _count_rows(bag)):
            _look_at(path, values[start : start + _count_rows(bag)], sha256)
        dtype = values.dtype
    read = bag.read_slice if is_sliced and bag.read_slice is not None else partial(_read_whole, path)
    if bag.layout != "lamella":
        read = partial(_read_float32, read)
    rows = StoredRows(bag.shape, dtype, read, is_sliced=is_sliced)
    corners = StoredRows((len(bag.corners_l0), 2), np.dtype(np.int64), partial(_read_corners, path), is_sliced=False)
    for stored, held in ((rows, values), (corners, bag.corners_l0)):
        if held is not None and CACHE.has_room(held.nbytes):
            CACHE.hold(stored, np.array(held) if held is bag.corners_l0 else held)
    return rows, corners, sha256.hexdigest()


def _count_rows(bag: FeatureBag) -> int:
    """Return how many rows make a block."""
    return max(1, _BLOCK_BYTES // max(1, bag.shape[1] * _FLOAT32.itemsize))


def _read_blocks(bag: FeatureBag) -> Iterator[NDArray[Any]]:
    """Yield all embeddings, block by block."""
    assert bag.read_slice is not None
    for start in range(0, max(bag.shape[0], 1), _count_rows(bag)):
        block = bag.read_slice(start, min(start + _count_rows(bag), bag.shape[0]))
        yield block if bag.layout == "lamella" else _as_float32(block)


def _look_at(path: Path, block: NDArray[Any], sha256: "hashlib._Hash") -> None:
    """Hash a block, and refuse one that is not finite."""
    sha256.update(np.ascontiguousarray(block).data)
    if not np.isfinite(block).all():
        raise BagError(f"'{path.name}' holds NaN or infinite features. Extract that slide again.")


def _read_whole(path: Path, start: int, stop: int) -> NDArray[Any]:
    return open_bag(path).read_stored()[start:stop]


def _read_corners(path: Path, start: int, stop: int) -> NDArray[Any]:
    return np.array(open_bag(path).corners_l0[start:stop])


def _read_float32(read: Any, start: int, stop: int) -> NDArray[np.float32]:
    return _as_float32(read(start, stop))


def _as_float32(rows: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # what overflows is infinite, and refused
        return rows.astype(np.float32, copy=False)
