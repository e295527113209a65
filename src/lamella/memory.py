"""How much memory this process may use, and the refusal of files that claim more before anything is made for them."""

import os
from pathlib import Path

from lamella.errors import LamellaError

_UNKNOWN = 1 << 40
_CGROUP = Path("/sys/fs/cgroup/memory.max")
_MEMINFO = Path("/proc/meminfo")


def find_memory() -> int:
    """Return the bytes of memory this process may use: the machine's, cut to what a container grants."""
    return min(_read_machine() or _UNKNOWN, _read_quota() or _UNKNOWN)


def find_free_memory() -> int:
    """Return the bytes of memory that are free now: the machine's, cut to what is left of a container's.

    Where the system does not say so, half of `find_memory`.
    """
    quota, used = _read_quota(), _read_number(_CGROUP.with_name("memory.current"))
    left = None if quota is None or used is None else max(0, quota - used)
    known = [n for n in (_read_available(), left) if n is not None]
    return min(known) if known else find_memory() // 2


def refuse_beyond_memory(n_bytes: float, what: str, remedy: str, *, error: type[LamellaError]) -> None:
    """Refuse what a header claims where this machine could not hold it.

    Args:
        n_bytes: What reading takes, by the header.
        what: What claims it, as in `'features' of 'S1.h5'`.
        remedy: What to do.
        error: What is raised.

    Raises:
        LamellaError: Of the class `error`, with both numbers.

    Example:
        >>> from lamella.errors import BagError
        >>> refuse_beyond_memory(5 * 2**60, "'features' of 'S1.h5'", "Make it again.", error=BagError)
        ... # doctest: +ELLIPSIS
        Traceback (most recent call last):
        lamella.errors.BagError: 'features' of 'S1.h5' claims 5,368,709,120.0 GiB and this machine has ... GiB of ...
    """
    memory = find_memory()
    if n_bytes > memory:
        raise error(
            f"{what} claims {n_bytes / 2**30:,.1f} GiB and this machine has {memory / 2**30:,.1f} GiB of memory. "
            f"{remedy}"
        )


def _read_machine() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no such names
        return None


def _read_quota() -> int | None:
    """Read what the control group grants; None where it sets no limit."""
    return _read_number(_CGROUP)


def _read_number(path: Path) -> int | None:
    """Read a number of bytes; None where there is no such file, or it says `max`."""
    try:
        text = path.read_text().strip()
        return None if text == "max" else int(text)
    except (OSError, ValueError):
        return None


def _read_available() -> int | None:
    """Read what Linux could hand out without swapping; other systems do not say."""
    try:
        lines = _MEMINFO.read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, IndexError, StopIteration):
        return None
