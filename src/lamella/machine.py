"""What the machine refuses (memory, open files, a disk that fails), told in one line that says what to do.

Such errors say nothing of the file they strike: a file that a full table of open files keeps from being read is not
damaged, and nobody may be told to delete it.
"""

import errno
import os
import re

from lamella.errors import LamellaError, MachineError

_AGAIN = "Then run the same command again; what is finished is kept."
_FULL = f"Free some space. {_AGAIN}"
_DISK = f"Look at that disk or network folder (dmesg, df, mount). {_AGAIN}"
_REFUSED = "Give this user access to it, or name another."
_FILES = f"Allow more: `ulimit -n 4096`. {_AGAIN}"
_MEMORY = f"Close other programs, or allow more memory. {_AGAIN}"
_REMEDIES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EMFILE: _FILES,
    errno.ENFILE: _FILES,
    errno.ENOMEM: _MEMORY,
    errno.EAGAIN: _MEMORY,
    errno.EACCES: _REFUSED,
    errno.EPERM: _REFUSED,
    errno.EROFS: _REFUSED,
    errno.ENOENT: "Put it back, or name another.",
    errno.ENAMETOOLONG: "Choose a shorter name.",
} | dict.fromkeys(
    (
        getattr(errno, name)
        for name in ("EIO", "ENXIO", "ENODEV", "ESTALE", "EREMOTEIO", "ETIMEDOUT", "ENOTCONN", "EHOSTDOWN", "ENOLINK")
        if hasattr(errno, name)
    ),
    _DISK,
)
# What says nothing of the file: it is whole, for all that is known.
PASSING = frozenset(
    number
    for number, remedy in _REMEDIES.items()
    if remedy in (_FULL, _DISK, _FILES, _MEMORY) and number != errno.EAGAIN
)
_WORDS_OF_MEMORY = re.compile(
    "bad_alloc|can't allocate memory|not enough memory|cannot allocate memory|failed to map segment|"
    "could not create a primitive|can't start new thread|unable to allocate|out of memory",
    re.IGNORECASE,
)


def find_errno(error: BaseException) -> int | None:
    """Return the operating system's number of an error: its own, or that which a library quotes; None where none.

    HDF5, safetensors and libvips raise errors of their own that say in words what the operating system said. NumPy says
    how much of an array was written and not why the rest was not: such disks are full.

    Example:
        >>> find_errno(OSError("read failed (errno = 5, error message = 'Input/output error')"))
        5
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    said = str(error)
    quoted = re.search(r"errno = (\d+)|\[Errno (\d+)\]|\(os error (\d+)\)", said)
    if quoted:
        return int(quoted[1] or quoted[2] or quoted[3])
    if re.fullmatch(r"\d+ requested and \d+ written", said):
        return errno.ENOSPC
    return next((number for number in PASSING if os.strerror(number) in said), None)


def refuse_passing(error: BaseException, name: str) -> None:
    """Raise a `MachineError` where an error is the machine's and says nothing of the file called `name`.

    Raises:
        MachineError: Then.
    """
    number = find_errno(error)
    if number is not None and number in PASSING and not isinstance(error, LamellaError):
        raise MachineError(_say(f"'{name}' cannot be read", number)) from error


def say_machine_fault(error: BaseException) -> str | None:
    """Return the line for an error that reached the command line; None where it is no fault of the machine.

    Example:
        >>> say_machine_fault(FileNotFoundError(2, "No such file or directory", "run/cohort.csv"))
        "'run/cohort.csv' cannot be used: No such file or directory. Put it back, or name another."
        >>> say_machine_fault(ValueError("ours")) is None
        True
    """
    number = find_errno(error)
    if number is not None and (number in PASSING or (isinstance(error, OSError) and number in _REMEDIES)):
        name = getattr(error, "filename", None)
        if name is None and number == errno.ENOENT:
            return None
        what = "a file" if name is None else f"'{os.fsdecode(name) if isinstance(name, bytes) else name}'"
        return _say(f"{what} cannot be used", number)
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError | ImportError | OSError) and _WORDS_OF_MEMORY.search(str(error))
    ):
        return f"memory ran out, or no more may be reserved. {_MEMORY}"
    return None


def _say(what: str, number: int) -> str:
    reason = "the disk is full" if number in (errno.ENOSPC, errno.EDQUOT) else os.strerror(number)
    return f"{what}: {reason}. {_REMEDIES[number]}"
