"""Reading HDF5 files that may be in use, damaged, or not what they say: whatever goes wrong is a `BagError`."""

import math
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from lamella.errors import BagError, LamellaError
from lamella.features.h5_child import CHILD
from lamella.machine import refuse_passing
from lamella.memory import refuse_beyond_memory
from lamella.regular import refuse_irregular

# What h5py and NumPy raise on damaged files, and what plain code raises on content of another kind than expected.
_DAMAGE = (
    KeyError,
    OSError,
    RuntimeError,
    ValueError,
    TypeError,
    IndexError,
    AttributeError,
    OverflowError,
    MemoryError,
)
# A dataset that claims to be this many times larger than its file, and larger than this, was never written.
_MOST_COMPRESSED, _ALWAYS_READ_BYTES = 200, 256 << 20
_UNSTATED = ("", "None", "none", "nan")
FileMark = tuple[int, int, int]
Attribute = str | int | float | NDArray[Any]  # JSON stays text


@contextmanager
def open_h5(path: Path, *, made_by: str = "lamella extract", survived: FileMark | None = None) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading; whatever its damage raises while it is read becomes a `BagError`.

    Args:
        path: The file.
        made_by: The command that makes such files.
        survived: `mark_file` of the file when it was opened before: unchanged, it is not tried in a child again.

    Raises:
        BagError: If it is absent, in use by another process, damaged or no HDF5 file.
    """
    path = Path(path)
    refuse_irregular(path, f"'{path.name}'", BagError)
    if not path.exists():
        raise BagError(f"there is no file '{path}'. Run `{made_by}` to make it, or check the name.")
    if mark_file(path) != survived and CHILD.ask(path=str(path.resolve())) is None:
        raise BagError(
            f"'{path.name}' is damaged so badly that HDF5 crashes or never ends reading it. If `{made_by}` made it, "
            "delete it and run that again."
        )
    try:
        file = h5py.File(path, "r")
    except _DAMAGE as error:
        refuse_passing(error, str(path))
        raise _say_unopened(path, error, made_by) from error
    try:
        with file:
            yield file
    except LamellaError:
        raise
    except _DAMAGE as error:
        refuse_passing(error, str(path))
        said = " ".join(str(error).split())[:120]
        raise BagError(
            f"'{path.name}' is damaged or of another layout ({said}). If `{made_by}` made it, delete it and run that "
            "again."
        ) from error


def mark_file(path: Path) -> FileMark:
    """Return what changes when a file is written again: its inode, size and time."""
    stated = path.stat()
    return stated.st_ino, stated.st_size, stated.st_mtime_ns


def _say_unopened(path: Path, error: Exception, made_by: str) -> BagError:
    """Tell a file that is in use from one that may not be read, and both from one that is damaged."""
    said = str(error)
    if isinstance(error, BlockingIOError) or ("unable to lock file" in said and "errno = 11" in said):
        return BagError(
            f"'{path.name}' is in use: another process has it open for writing. Wait until that has finished, then run "
            "the same command again."
        )
    if "unable to lock file" in said:
        return BagError(
            f"'{path.name}' cannot be locked: its file system has no file locks. Set HDF5_USE_FILE_LOCKING=FALSE and "
            "run the same command again."
        )
    if "already open for write" in said:
        return BagError(
            f"'{path.name}' is still open for writing, or its writer was stopped before it closed the file. If nothing "
            f"is writing it, repair it with `h5clear -s {shlex.quote(path.name)}`."
        )
    if isinstance(error, PermissionError) or "Permission denied" in said:
        return BagError(f"'{path.name}' cannot be read: permission denied. Check the permissions of the file.")
    if path.suffix.lower() not in (".h5", ".hdf5"):  # perhaps a slide: nobody is told to delete that
        return BagError(
            f"'{path.name}' is no HDF5 file and one that `{made_by}` wrote is wanted. Name a file that ends in .h5."
        )
    return BagError(
        f"'{path.name}' is not a readable HDF5 file ({path.stat().st_size} bytes). Delete it and run `{made_by}` again."
    )


def read_array(file: h5py.File, name: str) -> NDArray[Any]:
    """Return a dataset of numbers.

    Raises:
        BagError: As `find_array`.
    """
    values: NDArray[Any] = find_array(file, name)[()]
    return values


def find_array(file: h5py.File, name: str) -> h5py.Dataset:
    """Return a dataset of numbers, of which nothing is read yet.

    Raises:
        BagError: If it is none, or as `find_part`.
    """
    dataset = find_part(file, name)
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "fiu" or dataset.shape is None:
        kind = dataset.dtype if isinstance(dataset, h5py.Dataset) else type(dataset).__name__.lower()
        raise BagError(
            f"'{name}' of '{Path(file.filename).name}' is of type {kind} and must be an array of numbers. Make the "
            "file again."
        )
    return dataset


def find_part(file: h5py.File, name: str) -> h5py.Dataset | h5py.Group:
    """Return what goes by a name in a file, of which nothing is read yet.

    Raises:
        BagError: If it lies in another file, or claims to be far larger than its own.
    """
    called = f"'{name}' of '{Path(file.filename).name}'"
    if isinstance(file.get(name, getlink=True), h5py.ExternalLink):
        raise BagError(f"{called} is a link to another file, and a bag must hold its own numbers. Copy them into it.")
    part = file[name]
    if not isinstance(part, h5py.Dataset) or part.shape is None:
        return part
    if part.external or part.is_virtual:
        raise BagError(f"{called} lies in another file, and a bag must hold its own numbers. Copy them into it.")
    n_bytes, file_bytes = math.prod(part.shape) * part.dtype.itemsize, Path(file.filename).stat().st_size
    if n_bytes > max(_ALWAYS_READ_BYTES, _MOST_COMPRESSED * file_bytes):
        raise BagError(
            f"{called} claims {n_bytes / 2**30:,.1f} GiB in a file of {file_bytes:,} bytes: the file is damaged. Make "
            "it again."
        )
    refuse_beyond_memory(
        n_bytes, called, "Make the file again with fewer rows, or use a larger machine.", error=BagError
    )
    return part


def read_corners(file: h5py.File) -> NDArray[np.int64]:
    """Return `(N, 2)` int64 corners `(x, y)`, as stored.

    Raises:
        BagError: If the dataset is no such thing, or a coordinate is no number.
    """
    values = read_array(file, "coords")
    if values.shape == (0,):
        return np.zeros((0, 2), np.int64)
    if values.ndim != 2 or values.shape[1] != 2:
        raise BagError(
            f"'coords' of '{Path(file.filename).name}' has shape {values.shape} and must be (tiles, 2), the corner "
            "(x, y) of each tile. Make the file again."
        )
    if not np.isfinite(values).all() or np.abs(values).max(initial=0) > 2**53:
        raise BagError(f"'coords' of '{Path(file.filename).name}' holds a coordinate that is no pixel. Make it again.")
    return values.astype(np.int64)


def read_attributes(file: h5py.File | h5py.Dataset) -> dict[str, Attribute]:
    """Return the attributes of a file or dataset as plain Python values (JSON texts stay texts)."""
    return {key: plain(value) for key, value in file.attrs.items()}


def plain(value: Any) -> Attribute:
    """Return an HDF5 attribute as a plain Python value; an array of one value is that value."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    if isinstance(value, np.generic):
        value = value.item()
    number_or_text: Attribute = value.decode() if isinstance(value, bytes) else value
    return number_or_text


def find_number(attributes: Mapping[str, Attribute], key: str) -> float | None:
    """Return an attribute that is a finite number; None where it is not stated.

    Raises:
        ValueError: If it is stated and no finite number, which `open_h5` turns into a `BagError`.
    """
    value = attributes.get(key)
    if value is None or (isinstance(value, str) and value.strip() in _UNSTATED):
        return None
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{key} is {value}")
    return number


def find_size(attributes: Mapping[str, Attribute], key: str) -> float | None:
    """Return an attribute that is a number above 0; None where it is not stated.

    Raises:
        ValueError: If it is stated and no such number, which `open_h5` turns into a `BagError`.
    """
    number = find_number(attributes, key)
    if number is not None and number <= 0:
        raise ValueError(f"{key} is {number:g}")
    return number
