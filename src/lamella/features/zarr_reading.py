"""Reading arrays of numbers from a Zarr folder (2 or 3), rows at a time.

A folder's metadata choose how its chunks are decoded, and a codec may run what it decodes: metadata may name none but
mere compression. A chunk that is not there would be read as zeros, so all must be.
"""

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamella.errors import BagError, LamellaError, OutputError
from lamella.files import parse_json_file, refuse_links
from lamella.machine import refuse_passing
from lamella.memory import refuse_beyond_memory

_CODECS_2 = {"blosc", "zstd", "lz4", "shuffle", "delta"}  # those whose chunks say to how much they unpack
_CODECS_3 = {"bytes", "zstd", "blosc", "crc32c", "transpose"}
_CHUNK = re.compile(r"(c/)?\d+([./]\d+)*|c")
_MOST_CHUNK_BYTES = 1 << 30
_SLACK_BYTES = 16  # of a chunk besides its numbers: a checksum
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
        codecs = _list_used(folder, store.name)
        array = _open(folder)
        shape, kind = tuple(int(side) for side in array.shape), array.dtype.kind
        chunk = tuple(int(side) for side in getattr(array, "shards", None) or array.chunks)
        n_bytes = math.prod(shape) * array.dtype.itemsize
        chunk_bytes = math.prod(chunk) * array.dtype.itemsize
        chunks = _list_chunks(folder)
        _refuse_bombs(chunks, codecs, chunk_bytes + _SLACK_BYTES)
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
    n_there, there_bytes = len(chunks), sum(path.stat().st_size for path in chunks)
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


def _list_chunks(folder: Path) -> list[Path]:
    """List the files of chunks, by the names that chunks have: `0.1`, `0/1` or `c/0/1`."""
    files = [Path(at) / name for at, _, names in os.walk(folder) for name in names]
    return [path for path in files if _CHUNK.fullmatch(path.relative_to(folder).as_posix())]


def _find_unpacked_size(path: Path, codecs: set[str]) -> int | None:
    """Return how many bytes a chunk says that it unpacks to; None where it does not say, 0 where it is not packed."""
    with path.open("rb") as stream:
        start = stream.read(18)
    if "blosc" in codecs:
        return int.from_bytes(start[4:8], "little")
    if "lz4" in codecs:
        return int.from_bytes(start[:4], "little")
    if "zstd" not in codecs:
        return 0
    if start[:4] != b"\x28\xb5\x2f\xfd" or len(start) < 6:
        return None
    flag, is_single = start[4] >> 6, bool(start[4] & 0x20)  # RFC 8878, 3.1.1.1
    n_size = (int(is_single), 2, 4, 8)[flag]
    begin = 5 + (not is_single) + (0, 1, 2, 4)[start[4] & 3]
    if not n_size:
        return None
    return int.from_bytes(start[begin : begin + n_size], "little") + (256 if n_size == 2 else 0)


def _refuse_bombs(chunks: list[Path], codecs: set[str], most: int) -> None:
    """Refuse a chunk that unpacks to more than its array says, before a decoder takes the memory for it."""
    for path in chunks:
        n_bytes = _find_unpacked_size(path, codecs)
        if n_bytes is None:
            raise ValueError(f"chunk '{path.name}' does not say to how many bytes it unpacks")
        if n_bytes > most:
            raise ValueError(f"chunk '{path.name}' says {n_bytes:,} bytes and its array {most:,}")


def _list_used(folder: Path, store: str) -> set[str]:
    """Return the codecs of an array.

    Raises:
        BagError: If one of them is none whose chunks say to how much they unpack.
    """
    if (folder / "zarr.json").is_file():
        used, known = {str(codec["name"]) for codec in parse_json_file(folder / "zarr.json")["codecs"]}, _CODECS_3
    else:
        content = parse_json_file(folder / ".zarray")
        filters = [content.get("compressor"), *(content.get("filters") or [])]
        used, known = {str(codec["id"]) for codec in filters if codec is not None}, _CODECS_2
    if used - known:
        raise BagError(
            f"'{folder.name}' of '{store}' is encoded by '{sorted(used - known)[0]}', and only zstd and blosc are "
            "decoded. Write the store again with one of them, not sharded."
        )
    return used
