"""Reading arrays of numbers from a NumPy archive (.npz), rows at a time; nothing pickled is ever loaded."""

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from lamella.errors import BagError, LamellaError
from lamella.machine import refuse_passing
from lamella.memory import refuse_beyond_memory
from lamella.regular import refuse_irregular, refuse_zip_bomb

_DAMAGE = (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error,
           SyntaxError, TypeError, MemoryError, OverflowError)  # fmt: skip
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_SKIPPED_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class NpzArray:
    """An array in an archive, of which nothing but the header is read.

    Attributes:
        path: The archive.
        name: The array, without `.npy`.
        shape: As stored.
        dtype: As stored, a number.
        is_fortran: Whether columns come first in the file.
    """

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    is_fortran: bool

    def read(self) -> NDArray[Any]:
        """Return the whole array.

        Raises:
            BagError: If the archive is damaged.
        """
        with _opening(self.path) as archive, archive.open(f"{self.name}.npy") as member:
            values: NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
            if values.shape != self.shape or values.dtype != self.dtype:
                raise ValueError("it was written anew while it was read")
            return values

    def read_rows(self, start: int, stop: int) -> NDArray[Any]:
        """Return rows `start` to before `stop` of an array stored by rows; those before are unpacked and dropped.

        Raises:
            BagError: If the archive is damaged.
        """
        if self.is_fortran:
            return self.read()[start:stop]
        start, stop, _ = slice(start, stop).indices(self.shape[0])
        row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        with _opening(self.path) as archive, archive.open(f"{self.name}.npy") as member:
            _read_header(member)
            _skip(member, start * row_bytes)
            content = member.read(max(0, stop - start) * row_bytes)
            return np.frombuffer(content, self.dtype).reshape(max(0, stop - start), *self.shape[1:])


def list_npz(path: Path) -> dict[str, NpzArray]:
    """List the arrays of numbers in an archive by name.

    Raises:
        BagError: If it is absent, damaged, unpacks into far more than it is, or claims more than memory holds.
    """
    path = Path(path)
    refuse_irregular(path, f"'{path.name}'", BagError)
    if not path.exists():
        raise BagError(f"there is no file '{path}'. Check the name.")
    refuse_zip_bomb(path, f"'{path.name}'", BagError)
    arrays = {}
    with _opening(path) as archive:
        for info in archive.infolist():
            if not info.filename.endswith(".npy"):
                continue
            name = info.filename.removesuffix(".npy")
            with archive.open(info) as member:
                shape, is_fortran, dtype = _read_header(member)
            if dtype.kind not in "fiu":
                continue
            n_bytes = math.prod(shape) * dtype.itemsize
            refuse_beyond_memory(n_bytes, f"'{name}' of '{path.name}'", "Get the file again.", error=BagError)
            if n_bytes > info.file_size:
                raise ValueError(f"'{name}' claims {n_bytes:,} bytes and {info.file_size:,} are there")
            arrays[name] = NpzArray(path, name, shape, dtype, is_fortran)
    return arrays


@contextmanager
def _opening(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open an archive; whatever its damage raises while it is read becomes a `BagError`."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except LamellaError:
        raise
    except _DAMAGE as error:
        refuse_passing(error, str(path))
        said = " ".join(str(error).split())[:120] or type(error).__name__
        raise BagError(
            f"'{path.name}' is damaged or no NumPy archive ({said}). Get it again from where it came."
        ) from error


def _read_header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the header of one array: shape, whether columns come first, type."""
    version = np.lib.format.read_magic(member)
    if version not in _HEADERS:
        raise ValueError(f"an array of format {version}")
    try:
        shape, is_fortran, dtype = _HEADERS[version](member)
    except Exception as error:  # NumPy parses it as Python, and raises whatever the damage makes of it
        raise ValueError(f"its header is none: {type(error).__name__}") from error
    if min(shape, default=0) < 0:
        raise ValueError(f"an array of shape {shape}")
    return shape, is_fortran, dtype


def _skip(member: IO[bytes], n_bytes: int) -> None:
    while n_bytes > 0:
        skipped = len(member.read(min(n_bytes, _SKIPPED_BYTES)))
        if not skipped:
            raise ValueError("it ends within its array")
        n_bytes -= skipped
