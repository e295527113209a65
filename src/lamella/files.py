"""Files: written to a temporary name and renamed, so that a file that exists is whole."""

import csv
import errno
import hashlib
import io
import json
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lamella.errors import LamellaError, OutputError

# Whose temporary file it is: a folder may be shared by several machines.
_HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
_REFUSALS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block ends well, remove it otherwise.

    The temporary name keeps the suffix of `path` (writers that choose a format by suffix still work) and begins
    with a dot. Folders above `path` are made.

    Raises:
        OutputError: If the folder cannot be written or the disk is full.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with replacing(folder / "deep" / "note.txt") as temporary:
        ...     _ = temporary.write_text("whole")
        >>> [p.name for p in (folder / "deep").iterdir()]
        ['note.txt']
    """
    path = Path(path)
    with _output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            prefix=f".{path.stem[:80]}.{_HOST}-{os.getpid()}.", suffix=f".tmp{path.suffix}", dir=path.parent
        )
        os.close(handle)
    temporary = Path(name)
    try:
        with _output_errors(path, only_refusals=True):
            yield temporary
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all in it; it need not be there.

    Raises:
        OutputError: If it may not be removed, or a file stands where its folder should.
    """
    with _output_errors(Path(path)):
        if Path(path).is_dir() and not Path(path).is_symlink():
            shutil.rmtree(path)
        else:
            Path(path).unlink(missing_ok=True)


def sweep_temporaries(folder: Path) -> int:
    """Remove temporary files that a killed process of this machine left in `folder` or below it; return how many."""
    n_removed = 0
    for path in Path(folder).rglob(f".*.{_HOST}-*.tmp*"):
        found = re.search(rf"\.{_HOST}-(\d+)\.[^.]*\.tmp[^/]*$", path.name)
        if found and not _is_running(int(found[1])):
            path.unlink(missing_ok=True)
            n_removed += 1
    return n_removed


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON, whole or not at all; NaN is refused (JSON has none)."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write `rows` as CSV with a header of `columns`; a key that a row lacks becomes an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(columns), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def find_inside(folder: Path, name: str) -> Path | None:
    """Find a file that a record names inside its folder; None where it is not there, or lies anywhere else.

    A record may have been written by anyone: a name that leads out of the folder, and a link, name nothing.

    Args:
        folder: The folder; it may itself be reached by a link, for the user named it.
        name: Relative to the folder, with `/` between its parts.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> write_text(folder / "heads" / "model.json", "{}")
        >>> find_inside(folder, "heads/model.json") is not None, find_inside(folder, "../model.json")
        (True, None)
    """
    if not is_inner_name(name):
        return None
    path = folder = Path(folder)
    for part in name.split("/"):
        path = path / part
        if path.is_symlink():
            return None
    return path if path.is_file() else None


def is_inner_name(name: str) -> bool:
    """True for a relative path without `.`, `..`, empty parts, backslashes, colons and control characters.

    Example:
        >>> is_inner_name("heads/fold0-seed1/model.json"), is_inner_name("/etc/passwd"), is_inner_name("a/../b")
        (True, False, False)
    """
    return all(part not in ("", ".", "..") and not re.search(r"[\\:\x00-\x1f]", part) for part in name.split("/"))


def find_sha256(path: Path) -> str:
    """Return the SHA-256 of a whole file, as 64 hex digits."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def _output_errors(path: Path, *, only_refusals: bool = False) -> Iterator[None]:
    """Turn the operating system's errors into one line that says what to do.

    Args:
        path: What is written.
        only_refusals: Whether errors that may come from elsewhere (a caller's block may read too) pass as they are.
    """
    try:
        yield
    except LamellaError:
        raise
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise OutputError(
                f"'{path}' cannot be written: the disk is full. Free some space and run the same "
                "command again; what is finished is kept."
            ) from error
        if only_refusals and error.errno not in _REFUSALS:
            raise
        raise OutputError(
            f"'{path}' cannot be written ({error.strerror or error}). Choose another --out, or make that folder "
            "writable."
        ) from error


def _is_running(pid: int) -> bool:
    if os.name == "nt":
        return True  # signal 0 would end the process there; a left-over file does no harm
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _umask() -> int:
    """Read the process's umask (there is no call that only reads it)."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
