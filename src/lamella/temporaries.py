"""Temporary files and folders: named after the process that makes them, so that whoever comes next tells a dead one's.

`.<name>.<machine>-<process>.<random>.tmp<suffix>` beside the file that it becomes. They go when the block that made
them ends, when a signal stops the command, and after `kill -9` when a process next writes into the same folder.
"""

import contextlib
import hashlib
import os
import platform
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lamella.stopping import at_stop

# Whose temporary file it is: a folder may be shared by several machines.
_HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:8]
_NAME = re.compile(r"\.([0-9a-f]{8})-(\d+)\.[^.]*\.tmp[^/]*$")
# A container has another name at each start: what no process of any machine has touched for a day is nobody's.
_STALE_SECONDS = 86_400.0

_lock = threading.RLock()
_own: set[Path] = set()
_swept: set[tuple[int, Path]] = set()


def make_temporary(path: Path) -> Path:
    """Make an empty temporary file beside `path`, with its suffix; what killed processes left there is removed.

    Raises:
        OSError: If the folder cannot be written.
    """
    return _make(path, lambda temporary: os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)))


def drop_temporary(temporary: Path) -> None:
    """Remove what `make_temporary` made, if it still has that name."""
    try:
        _remove(temporary)
    finally:
        with _lock:
            _own.discard(temporary)


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`, and remove it with all in it when the block ends."""
    folder = _make(path, Path.mkdir)
    try:
        yield folder
    finally:
        drop_temporary(folder)


def sweep_temporaries(folder: Path) -> int:
    """Remove what a killed process of this machine left in `folder` or below it; return how many files and folders."""
    return sum(_sweep(Path(at), names) for at, names in _walk(folder))


@at_stop
def remove_own_temporaries() -> None:
    """Remove every temporary file of this process, and let no thread begin another: the process is about to end."""
    _lock.acquire(timeout=2.0)
    for pause in (0.01, 0.0):  # a thread that had the name, and not yet the file open, makes it once more
        for path in list(_own):
            _remove(path)
            stem = path.name.partition(".tmp")[0] + ".tmp"  # writers put files beside: an .xml its .bin
            for beside in [file for file in path.parent.iterdir() if file.name.startswith(stem)]:
                _remove(beside)
        time.sleep(pause)


def _make(path: Path, create: Callable[[Path], object]) -> Path:
    """Create a temporary beside `path`, known to be ours before it exists."""
    stem = path.stem.encode()[:80].decode(errors="ignore")  # names are bounded in bytes
    name = f".{stem}.{_HOST}-{os.getpid()}.{secrets.token_hex(4)}.tmp{path.suffix}"
    temporary = path.parent / name
    with _lock:  # which a signal that ends the process takes for good: nothing is created after its sweep
        if (os.getpid(), path.parent) not in _swept:
            _swept.add((os.getpid(), path.parent))
            with contextlib.suppress(PermissionError):  # a folder that may be written but not listed
                _sweep(path.parent, [entry.name for entry in path.parent.iterdir()])
        _own.add(temporary)
        try:
            create(temporary)
        except BaseException:
            drop_temporary(temporary)
            raise
    return temporary


def _walk(folder: Path) -> Iterator[tuple[str, list[str]]]:
    for at, folders, files in os.walk(folder):
        yield at, folders + files


def _sweep(folder: Path, names: list[str]) -> int:
    n_removed = 0
    for name in names:
        match = _NAME.search(name) if name.startswith(".") else None
        path = folder / name
        if match and path not in _own and _is_left(path, match[1], int(match[2])):
            _remove(path)
            n_removed += 1
    return n_removed


def _is_left(path: Path, host: str, pid: int) -> bool:
    """Say whether nobody is writing a temporary file any more."""
    if host == _HOST:
        return pid == os.getpid() or not _is_running(pid)  # ours are known: another of our number had it before us
    try:
        return time.time() - path.stat().st_mtime > _STALE_SECONDS
    except OSError:
        return False


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


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
