"""Folders that are written to: one that is taken away meanwhile is noticed, and not made again with half its files."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lamella.errors import OutputError

# The folders of each block that watches, innermost last; of the process and not of a thread, since threads write too.
# Outside of any, nothing is watched: a library's caller may well remove a folder and write it again.
_WATCHED: list[dict[Path, tuple[int, int]]] = []


@contextmanager
def watching_folders() -> Iterator[None]:
    """Refuse, within the block, to make again a folder that was written to and then taken away.

    Else what was written before would be missing, and the command would end as if all were there.
    """
    _WATCHED.append({})
    try:
        yield
    finally:
        _WATCHED.pop()


def refuse_removed(path: Path) -> None:
    """Refuse a path in a folder that was written to and is gone, or another.

    Raises:
        OutputError: Then.
    """
    if not _WATCHED:
        return
    watched = _WATCHED[-1]
    for folder in path.absolute().parents:
        known = watched.get(folder)
        if known is not None and known != _identify(folder):
            watched.clear()
            raise OutputError(say_removed(folder))


def say_removed(folder: Path) -> str:
    """Return the line for a folder that is gone, or another, since results were written to it."""
    where = os.path.relpath(folder)
    return f"'{where}' was removed or replaced while results were written to it. Run the same command again."


def remember_folders(path: Path) -> None:
    """Keep in mind the folders above a file that was written."""
    if _WATCHED:
        watched = _WATCHED[-1]
        for folder in path.absolute().parents:
            if folder in watched:
                break
            watched[folder] = _identify(folder)


def forget_folder(folder: Path) -> None:
    """Forget a folder that the command itself takes away."""
    watched, gone = _WATCHED[-1] if _WATCHED else {}, folder.absolute()
    for known in [known for known in list(watched) if known.is_relative_to(gone)]:
        watched.pop(known, None)


def _identify(folder: Path) -> tuple[int, int]:
    """Return what tells a folder from another of its name; zeros where there is none."""
    try:
        status = folder.stat()
    except OSError:
        return (0, 0)
    return status.st_dev, status.st_ino
