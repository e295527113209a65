"""Rows of arrays that stay in their files: read when they are asked for, behind one cache with a budget.

A cohort of bags may be larger than memory. What is in the cache is read once; what is not is read again, a whole bag
where it is small and a slice where it is large. Which of the two it was changes the time and no number.
"""

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamella.memory import find_free_memory

BUDGET_SHARE = 4
"""The cache takes one part in so many of the memory that is free when it is first used."""
_LEAST_BUDGET = 256 << 20
_LARGE = 4  # a bag above one part in so many of the budget is never held whole


class RowCache:
    """Whole bags, the last used of them, within a budget; a bag that nobody holds any more leaves.

    Args:
        budget: Bytes; None takes a quarter of the memory that is free at the first use, and at least 256 MiB.
    """

    def __init__(self, budget: int | None = None) -> None:
        self._budget = budget
        self._held: OrderedDict[int, NDArray[Any]] = OrderedDict()
        self._n_bytes = 0
        self._lock = threading.RLock()  # a bag may leave, by garbage collection, while another is put in

    @property
    def budget(self) -> int:
        """Bytes that may be held."""
        if self._budget is None:
            self._budget = max(find_free_memory() // BUDGET_SHARE, _LEAST_BUDGET)
        return self._budget

    @property
    def n_bytes(self) -> int:
        """Bytes that are held."""
        return self._n_bytes

    def is_large(self, n_bytes: int) -> bool:
        """Say whether rows of so many bytes are read by slices."""
        return n_bytes > self.budget // _LARGE

    def has_room(self, n_bytes: int) -> bool:
        """Say whether rows of so many bytes can be held and nothing has to leave for them."""
        return not self.is_large(n_bytes) and self._n_bytes + n_bytes <= self.budget

    def find(self, rows: "StoredRows") -> NDArray[Any] | None:
        """Return what is held of some rows; None where that is nothing."""
        with self._lock:
            values = self._held.get(id(rows))
            if values is not None:
                self._held.move_to_end(id(rows))
            return values

    def hold(self, rows: "StoredRows", values: NDArray[Any]) -> None:
        """Hold all of some rows; those that were not used for longest leave for them."""
        values.flags.writeable = False
        with self._lock:
            if id(rows) in self._held:
                return
            while self._held and self._n_bytes + values.nbytes > self.budget:
                self._n_bytes -= self._held.popitem(last=False)[1].nbytes
            self._held[id(rows)] = values
            self._n_bytes += values.nbytes

    def drop(self, number: int) -> None:
        """Let rows go that nobody holds any more."""
        with self._lock:
            values = self._held.pop(number, None)
            self._n_bytes -= 0 if values is None else values.nbytes


CACHE = RowCache()
"""What all bags of a process share."""


class StoredRows:
    """The rows of a matrix in a file: `rows[a:b]` reads them, and `np.asarray(rows)` all.

    Args:
        shape: `(N, D)`.
        dtype: Of what `read` returns.
        read: Returns rows from one number to before another, `(n, D)`.
        is_sliced: Whether a part is read without the rest; else a file is always read whole.
        cache: Where whole bags are held.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        dtype: np.dtype[Any],
        read: Callable[[int, int], NDArray[Any]],
        *,
        is_sliced: bool,
        cache: RowCache = CACHE,
    ) -> None:
        self.shape, self.dtype = shape, dtype
        self._read, self._is_sliced, self._cache = read, is_sliced, cache
        weakref.finalize(self, cache.drop, id(self))

    @property
    def ndim(self) -> int:
        """2."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Numbers in all rows."""
        return self.shape[0] * self.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        """Return N."""
        return self.shape[0]

    def __getitem__(self, wanted: slice | NDArray[np.integer]) -> NDArray[Any]:
        """Return rows as NumPy does; they are not to be written to.

        Raises:
            BagError: If the file is damaged, or was written anew since it was opened.
        """
        held = self._cache.find(self)
        if held is not None:
            return held[wanted]
        if self._is_sliced and self._cache.is_large(self.nbytes):
            if isinstance(wanted, slice) and wanted.step in (None, 1):
                start, stop, _ = wanted.indices(len(self))
                return self._read(start, max(start, stop))
            return self._read(0, len(self))[wanted]
        values = self._read(0, len(self))
        self._cache.hold(self, values)
        return values[wanted]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:  # noqa: FBT001 - NumPy's own
        """Return all rows."""
        values = self[:]
        return values if dtype is None else values.astype(dtype, copy=False)


Rows = StoredRows | NDArray[Any]


def choose_stored(rows: Rows, chosen: NDArray[np.int64]) -> StoredRows:
    """Return some rows of a matrix, in that order, read when they are asked for.

    Args:
        rows: `(N, D)`.
        chosen: `(n,)` int64, which.
    """

    def read(start: int, stop: int) -> NDArray[Any]:
        return np.array(rows[chosen[start:stop]])

    return StoredRows((len(chosen), int(rows.shape[1])), rows.dtype, read, is_sliced=True)


def join_stored(parts: Sequence[Rows]) -> StoredRows:
    """Return matrices of one width below each other, read when they are asked for.

    Args:
        parts: `(n, D)` each, at least one.
    """
    ends = np.cumsum([len(part) for part in parts])

    def read(start: int, stop: int) -> NDArray[Any]:
        pieces = [
            part[max(start - (end - len(part)), 0) : max(min(stop - (end - len(part)), len(part)), 0)]
            for part, end in zip(parts, ends.tolist(), strict=True)
        ]
        return np.concatenate([piece[:] for piece in pieces])

    dtype = np.result_type(*(part.dtype for part in parts))
    return StoredRows((int(ends[-1]), int(parts[0].shape[1])), dtype, read, is_sliced=True)
