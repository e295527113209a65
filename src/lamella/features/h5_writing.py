"""HDF5 files that end well on a full disk.

HDF5 keeps what it could not write, tries again whenever it closes, and may end the process with it. So it is handed a
stream that never refuses: the first refusal is kept, the rest is dropped, and the error is raised once the file is
closed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py

from lamella.files import replacing


class H5Writer:
    """A new HDF5 file whose writing errors are raised where they can be dealt with.

    Args:
        path: The file, made anew.

    Attributes:
        file: To write into.
    """

    def __init__(self, path: Path) -> None:
        self._stream = _KeepingStream(path)
        self.file = h5py.File(self._stream, "w")

    def check(self) -> None:
        """Raise what the operating system has refused so far.

        Raises:
            OSError: As it was.
        """
        if self._stream.error is not None:
            raise self._stream.error

    def close(self) -> None:
        """Close the file; do so before `check`, since much is written only now."""
        self.file.close()
        self._stream.close()


@contextmanager
def writing_h5(path: Path) -> Iterator[h5py.File]:
    """Yield a new HDF5 file that bears the name `path` when the block ends well, whole or not at all.

    Raises:
        OutputError: If the folder cannot be written or the disk is full.
    """
    with replacing(path) as temporary:
        writer = H5Writer(temporary)
        try:
            yield writer.file
        finally:
            writer.close()
        writer.check()


class _KeepingStream:
    """A binary stream over a file, as h5py takes it, that keeps the first error instead of raising it."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b", buffering=0)
        self.error: OSError | None = None

    def write(self, content: memoryview) -> int:
        """Write all of it, or nothing more once something was refused."""
        rest = memoryview(content)
        try:
            while self.error is None and len(rest):
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self.error = error
        return len(content)

    def truncate(self, size: int) -> int:
        """Cut or lengthen the file."""
        try:
            self._file.truncate(size)
        except OSError as error:
            self.error = self.error or error
        return size

    def read(self, size: int = -1) -> bytes:
        """Read bytes."""
        return self._file.read(size) or b""

    def readinto(self, target: memoryview) -> int:
        """Fill `target`; with zeros where nothing was written."""
        n = self._file.readinto(target) or 0
        target[n:] = bytes(len(target) - n)
        return len(target)

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a place."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the place."""
        return self._file.tell()

    def flush(self) -> None:
        """Do nothing: nothing is held back here."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()
