"""How much of the processor this process may use: its affinity, cut to what a container grants."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def count_cores() -> int:
    """Count the physical cores this process may use: what arithmetic is divided among.

    Two hyperthreads of a core share the arithmetic that convolutions are made of, so they count once.
    """
    return _cut_to_quota(len({_siblings_of(cpu) for cpu in _list_allowed()}))


def count_threads() -> int:
    """Count the hardware threads this process may use: what reading, decoding and other mixed work is divided among."""
    return _cut_to_quota(len(_list_allowed()))


@contextmanager
def using_threads(n_threads: int) -> Iterator[None]:
    """Give torch `n_threads` CPU threads, and back what it had.

    Sums differ in the last bit with their number: what one step is given must not reach the next, which a run that is
    resumed may come to without it.
    """
    import torch  # its weight is for those who compute with it

    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _list_allowed() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def _cut_to_quota(n: int) -> int:
    quota = _read_quota()
    return max(1, n if quota is None else min(n, quota))


def _siblings_of(cpu: int) -> str:
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)


def _read_quota() -> int | None:
    """Read how many cores the control group grants, rounded up; None where it sets no limit."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if quota == "max" else math.ceil(int(quota) / int(period))
    except (OSError, ValueError):
        return None
