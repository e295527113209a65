"""Reading arrays of numbers from a Zarr folder (2 or 3), rows at a time.

A folder's metadata choose how its chunks are decoded, and a codec may run what it decodes: metadata may name none but
mere compression. A chunk that is not there would be read as zeros, so all must be.
"""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamella.errors import BagError, LamellaError, OutputError
from lamella.files import parse_json_file, refuse_links
from lamella.machine import refuse_passing
from lamella.memory import refuse_beyond_memory

_CODECS_2 = {"blosc", "zlib", "gzip", "zstd", "lz4", "bz2", "lzma", "shuffle", "delta"}
_CODECS_3 = {"bytes", "gzip", "zstd", "blosc", "crc32c", "transpose", "sharding_indexed"}
_METADATA = {"zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata"}
_MOST_CHUNK_BYTES = 1 << 30
_MOST_COMPRESSED, _ALWAYS_READ_BYTES = 200, 256 << 20  # as of HDF5 files
_DAMAGE = (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError, OverflowError,
           MemoryError, NotImplementedError)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ZarrArray:
    """An array of numbers in a Zarr folder, of which nothing but the metadata is read.

    Attributes:
        folder: The array's own folder.
        store: Name of the store, for messages.
        shape: As stored.
    """

    folder: Path
    store: str
    shape: tuple[int, ...]

    def read(self) -> NDArray[Any]:
        """Return the whole array.

        Raises:
            BagError: If a chunk is damaged or not there.
        """
        return self._read(slice(None))

    def read_rows(self, start: int, stop: int) -> NDArray[Any]:
        """Return rows `start` to before `stop`; chunks without any of them are not read.

        Raises:
            BagError: As `read`.
        """
        return self._read(slice(start, stop))

    def _read(self, rows: slice) -> NDArray[Any]:
        try:
            array = _open(self.folder)
            if array.shape != self.shape:
                raise ValueError("it was written anew while it was read")
            values: NDArray[Any] = np.asarray(array[rows] if self.shape else array[...])
        except _DAMAGE as error:
            refuse_passing(error, str(self.folder))
            raise damaged(self.store, error) from error
        return values


def load_attributes(folder: Path, store: str) -> dict[str, Any]:
    """Return the attributes of a group or array, Zarr 3's or 2's; none where it states none.

    Raises:
        BagError: If they are damaged.
    """
    try:
        if (folder / "zarr.json").is_file():
            attributes = parse_json_file(folder / "zarr.json").get("attributes", {})
        elif (folder / ".zattrs").is_file():
            attributes = parse_json_file(folder / ".zattrs")
        else:
            return {}
    except (OSError, ValueError, AttributeError) as error:
        raise damaged(store, error) from error
    return attributes if isinstance(attributes, dict) else {}


def open_array(folder: Path, store: Path, *, is_whole: bool = False) -> ZarrArray:
    """Return an array of numbers in a store, of which nothing but the metadata is read.

    Args:
        folder: The array's folder.
        store: The store's folder, which must hold it.
        is_whole: Whether every chunk must be there; without, those that are not stand for zeros.

    Raises:
        BagError: If it is no array of numbers, uses another codec than compression, claims more than memory holds, or
            lacks chunks.
    """
    try:
        refuse_links(store)
    except OutputError as error:
        raise BagError(str(error)) from error
    try:
        _refuse_codecs(folder, store.name)
        array = _open(folder)
        shape, kind = tuple(int(side) for side in array.shape), array.dtype.kind
        chunk = tuple(int(side) for side in getattr(array, "shards", None) or array.chunks)
        n_bytes = math.prod(shape) * array.dtype.itemsize
        chunk_bytes = math.prod(chunk) * array.dtype.itemsize
    except ImportError as error:
        raise BagError(
            f"'{store.name}' is a Zarr store and zarr is not installed. Run: pip install 'lamella[zarr]'"
        ) from error
    except LamellaError:  # a ValueError or OSError too
        raise
    except _DAMAGE as error:
        refuse_passing(error, str(folder))
        raise damaged(store.name, error) from error
    inner = folder.relative_to(store).as_posix()
    if kind not in "fiu":
        raise BagError(f"'{inner}' of '{store.name}' is of type {array.dtype} and must be an array of numbers.")
    refuse_beyond_memory(n_bytes, f"'{inner}' of '{store.name}'", "Write the store again.", error=BagError)
    if chunk_bytes > _MOST_CHUNK_BYTES:
        raise BagError(
            f"'{inner}' of '{store.name}' claims chunks of {chunk_bytes / 2**30:.1f} GiB, and at most "
            f"{_MOST_CHUNK_BYTES >> 30} GiB is read. Write the store again in smaller chunks."
        )
    n_there, there_bytes = _count_chunks(folder)
    if n_bytes > max(_ALWAYS_READ_BYTES, _MOST_COMPRESSED * there_bytes):
        raise BagError(
            f"'{inner}' of '{store.name}' claims {n_bytes / 2**30:,.1f} GiB in files of {there_bytes:,} bytes: the "
            "store is damaged. Get it again."
        )
    if is_whole and n_bytes:
        n_chunks = math.prod(-(-side // part) for side, part in zip(shape, chunk, strict=True))
        if n_there < n_chunks:
            raise BagError(
                f"'{inner}' of '{store.name}' lacks {n_chunks - n_there:,} of its {n_chunks:,} chunks, which would be "
                "read as zeros: it was not copied or written whole. Get it again."
            )
    return ZarrArray(folder, store.name, shape)


def damaged(store: str, error: object) -> BagError:
    """Return what to say of a store that cannot be read."""
    said = " ".join(str(error).split())[:120]
    return BagError(f"'{store}' is damaged or of another layout ({said}). Get it again from where it came.")


def _open(folder: Path) -> Any:
    import zarr  # optional, and only stores need it

    return zarr.open_array(store=str(folder), mode="r")


def _count_chunks(folder: Path) -> tuple[int, int]:
    """Count the files of chunks and their bytes."""
    files = [Path(at) / name for at, _, names in os.walk(folder) for name in names if name not in _METADATA]
    return len(files), sum(path.stat().st_size for path in files)


def _refuse_codecs(folder: Path, store: str) -> None:
    if (folder / "zarr.json").is_file():
        unknown = _list_codecs(parse_json_file(folder / "zarr.json")["codecs"]) - _CODECS_3
    else:
        content = parse_json_file(folder / ".zarray")
        used = [content.get("compressor"), *(content.get("filters") or [])]
        unknown = {str(codec["id"]) for codec in used if codec is not None} - _CODECS_2
    if unknown:
        raise BagError(
            f"'{folder.name}' of '{store}' is encoded by '{sorted(unknown)[0]}', and only compression is decoded. "
            "Write the store again with zstd, blosc or gzip."
        )


def _list_codecs(codecs: list[Any]) -> set[str]:
    """List the names of codecs, those inside shards too."""
    names: set[str] = set()
    for codec in codecs:
        names.add(str(codec["name"]))
        inner = codec.get("configuration") or {}
        names |= _list_codecs([*inner.get("codecs", []), *inner.get("index_codecs", [])])
    return names
