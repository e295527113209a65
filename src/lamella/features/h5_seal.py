"""The seal of an HDF5 file of ours: a hash of all that it holds, so that one that was changed or damaged is told."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from lamella.errors import BagError
from lamella.features.h5_reading import find_part

SEAL = "content_sha256"


def seal_h5(file: h5py.File, hashes: Mapping[str, str] | None = None) -> None:
    """Write the seal of a file to which everything else is written.

    Args:
        file: Open for writing.
        hashes: SHA-256 of the bytes of datasets, by name, where they are known; the others are read again.
    """
    file.attrs[SEAL] = _hash_file(file, hashes or {})


def refuse_changed(
    file: h5py.File, held: Mapping[str, NDArray[Any]], *, made_by: str, hashes: Mapping[str, str] | None = None
) -> None:
    """Refuse a file whose seal is not that of its content; one without a seal is of an earlier version, and passes.

    Args:
        file: Open for reading.
        held: Datasets that were read already, as they are stored, by name.
        made_by: The command that makes such files.
        hashes: SHA-256 of datasets that were read block by block, by name.

    Raises:
        BagError: If anything in it differs from what was written.
    """
    seal = file.attrs.get(SEAL)
    if seal is None:
        return
    hashes = {**(hashes or {}), **{name: hash_array(values) for name, values in held.items()}}
    if seal != _hash_file(file, hashes):
        raise BagError(
            f"'{Path(file.filename).name}' is not as it was written (its own SHA-256 differs): it was changed or is "
            f"damaged. Delete it and run `{made_by}` again."
        )


def is_sealed(file: h5py.File) -> bool:
    """Say whether a file bears a seal, and so is one of ours whatever else became of it."""
    return SEAL in file.attrs


def hash_array(values: NDArray[Any]) -> str:
    """Return the SHA-256 of the bytes of an array, 64 hex digits."""
    return hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()


def _hash_file(file: h5py.File, hashes: Mapping[str, str]) -> str:
    sha = hashlib.sha256(_describe_attributes(file))
    for name in sorted(file):
        dataset = find_part(file, name) if file.mode == "r" else file[name]  # a file being written claims nothing
        if not isinstance(dataset, h5py.Dataset):
            sha.update(repr((name, type(dataset).__name__)).encode())
            continue
        content = hashes.get(name) or hash_array(np.asarray(dataset[()]))
        sha.update(repr((name, dataset.dtype.str, dataset.shape, content)).encode())
        sha.update(_describe_attributes(dataset))
    return sha.hexdigest()


def _describe_attributes(thing: h5py.File | h5py.Dataset) -> bytes:
    """Return attributes as bytes that are equal for equal attributes."""
    stated = [(key, _describe(value)) for key, value in sorted(thing.attrs.items()) if key != SEAL]
    return repr(stated).encode("utf-8", "backslashreplace")


def _describe(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tolist()
    return (value.dtype.str, value.item()) if isinstance(value, np.generic) else value
