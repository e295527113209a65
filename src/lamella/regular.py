"""Only regular files are opened: a pipe would be waited for without end, and a device read without end.

Asked by whatever opens a file by name, before a library does: slides, bags, tables, outlines, masks, JSON, weights.
"""

import errno
import stat
import zipfile
from pathlib import Path

from lamella.errors import LamellaError

_MOST_PACKED, _ALWAYS_UNPACKED = 50, 64 << 20
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def say_irregular(path: Path | str) -> str | None:
    """Return what stands where a file is needed, in words; None for a regular file, or a link to one.

    Where nothing stands, or it may not be looked at, nothing is said either: opening it says why.

    Example:
        >>> say_irregular("/dev/null"), say_irregular("/"), say_irregular("no such file")
        ('a device', 'a folder', None)
    """
    try:
        mode = Path(path).stat().st_mode
    except OSError as error:
        return "a link that leads back to itself" if error.errno == errno.ELOOP else None
    except ValueError:  # a NUL in the name
        return "a name that no file can have"
    return next((kind for is_kind, kind in _KINDS if is_kind(mode)), None)


def refuse_irregular(path: Path | str, what: str, error: type[LamellaError]) -> None:
    """Refuse whatever stands where a file is needed and is none.

    Args:
        path: Where the file is.
        what: The file, for the message: `slide 'S-1.svs'`.
        error: What is raised.

    Raises:
        LamellaError: Of the class `error`.
    """
    kind = say_irregular(path)
    if kind is not None:
        raise error(f"{what} is {kind} and a file is needed. Name a file.")


def read_regular(path: Path, what: str, *, error: type[LamellaError], max_bytes: int, remedy: str) -> bytes:
    """Return the bytes of a regular file of bounded size.

    Args:
        path: Where the file is.
        what: The file and its verb, for the message: `cohort 'c.csv' is`, `regions 'r.xml' are`.
        error: What is raised where it is none, or larger.
        max_bytes: The most that is read.
        remedy: What to do with a larger one.

    Raises:
        LamellaError: Of the class `error`.
        OSError: If it cannot be read.
    """
    kind = say_irregular(path)
    if kind is not None:
        raise error(f"{what} {kind} and a file is needed. Name a file.")
    n_bytes = path.stat().st_size
    if n_bytes > max_bytes:
        raise error(f"{what} {n_bytes / 1e6:,.0f} MB and at most {max_bytes / 1e6:,.0f} MB are read. {remedy}")
    return path.read_bytes()


def refuse_zip_bomb(path: Path | str, what: str, error: type[LamellaError]) -> None:
    """Refuse an archive (`.npz`, torch's `.pt`, `.keras`, a wheel) that unpacks into far more than it is.

    Numbers hardly pack, so an archive of them that does is none; a file that is no archive passes.

    Args:
        path: Where the file is.
        what: The file, for the message.
        error: What is raised.

    Raises:
        LamellaError: Of the class `error`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return  # none, or a damaged one, which whoever reads it says
    if unpacked > _ALWAYS_UNPACKED + _MOST_PACKED * Path(path).stat().st_size:
        raise error(
            f"{what} unpacks from {Path(path).stat().st_size:,} into {unpacked:,} bytes, which no array of numbers "
            "does. Get it again from where it came."
        )
