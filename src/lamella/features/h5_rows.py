"""The embeddings in an HDF5 file: how many there are, and reading them, all or a slice.

A leading axis of one goes. A single vector is one embedding of a whole slide: a bag of one instance.
"""

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from lamella.errors import BagError
from lamella.features.h5_reading import FileMark, find_array, find_part, mark_file, open_h5
from lamella.features.h5_seal import refuse_changed

_BFLOAT16 = np.dtype("V2")


def find_shape(file: h5py.File, name: str) -> tuple[int, int]:
    """Return `(N, D)` of stored embeddings, of which nothing is read yet; `(0,)` is TRIDENT's empty slide.

    Raises:
        BagError: If the dataset is no matrix and no vector, or lies in another file.
    """
    dataset = _find_rows(file, name)
    if dataset.file.filename != file.filename:  # a link to a link
        raise BagError(
            f"'{name}' of '{Path(file.filename).name}' lies in another file, and a bag must hold its own numbers. Copy "
            "them into it."
        )
    shape = _drop_batch(dataset.shape)
    if shape == (0,):
        return 0, 0
    if len(shape) == 1:
        return 1, int(shape[0])
    if len(shape) != 2:
        raise BagError(
            f"'{name}' of '{Path(file.filename).name}' has shape {shape}; a bag is (tiles, width) and an embedding of "
            "a whole slide is (width,). Name a file of tile or slide embeddings."
        )
    return int(shape[0]), int(shape[1])


def is_vector(file: h5py.File, name: str) -> bool:
    """Tell whether a dataset is one embedding of a whole slide, `(D,)`."""
    shape = _find_rows(file, name).shape
    return len(shape) == 1 and shape != (0,)


def read_rows(path: Path, name: str, layout: str, mark: FileMark) -> NDArray[Any]:
    """Return the embeddings of a bag that was opened before, `(N, D)`, all of the file checked."""
    with open_h5(path, survived=mark) as file:
        _refuse_rewritten(path, mark)
        shape, stored = find_shape(file, name), _find_rows(file, name)[()]
        refuse_changed(file, {name: stored}, made_by="lamella extract")
        return _as_float(stored.reshape(shape), layout)


def read_slice(path: Path, name: str, layout: str, mark: FileMark, start: int, stop: int) -> NDArray[Any]:
    """Return the embeddings `start` to `stop` of a bag that was opened before; no others are read, or checked."""
    with open_h5(path, survived=mark) as file:
        _refuse_rewritten(path, mark)
        shape, dataset = find_shape(file, name), _find_rows(file, name)
        if dataset.ndim == 2:
            return _as_float(dataset[start:stop], layout)
        if dataset.ndim == 3:
            return _as_float(dataset[0, start:stop], layout)
        return _as_float(dataset[()].reshape(shape)[start:stop], layout)


def refuse_other_rows(path: Path, name: str, sha256: str) -> None:
    """Refuse a file of ours that is not as it was written, where the SHA-256 of its embeddings is known already.

    Raises:
        BagError: If anything in it differs.
    """
    with open_h5(path) as file:
        refuse_changed(file, {}, made_by="lamella extract", hashes={name: sha256})


def _drop_batch(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[1:] if len(shape) == 3 and shape[0] == 1 else shape


def _find_rows(file: h5py.File, name: str) -> h5py.Dataset:
    """Return a dataset of numbers, bfloat16 among them, which HDF5 knows as two bytes without meaning (Mussel)."""
    part = find_part(file, name)
    is_bfloat16 = isinstance(part, h5py.Dataset) and part.dtype == _BFLOAT16 and part.shape is not None
    return part if is_bfloat16 else find_array(file, name)


def _as_float(rows: NDArray[Any], layout: str) -> NDArray[Any]:
    """Return rows of ours as they are stored, others' as float32."""
    if rows.dtype == _BFLOAT16:  # the upper half of a float32
        return (np.ascontiguousarray(rows).view("<u2").astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore"):
        return rows if layout == "lamella" else rows.astype(np.float32, copy=False)


def _refuse_rewritten(path: Path, mark: FileMark) -> None:
    if mark_file(path) != mark:
        raise BagError(f"'{path.name}' was written anew while it was read. Run the same command again.")
