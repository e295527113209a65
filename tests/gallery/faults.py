"""What happens to the machine while a command of the gallery runs."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from unittest import mock

from lamella.watching import remember_folders


@contextlib.contextmanager
def no_file(refusal: BaseException) -> Iterator[None]:
    """Let no new file be made, for that reason."""
    with mock.patch("lamella.files.make_temporary", side_effect=refusal):
        yield


disk_full = partial(no_file, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
disk_fails = partial(no_file, OSError(errno.EIO, os.strerror(errno.EIO)))
too_many_files = partial(no_file, OSError(errno.EMFILE, os.strerror(errno.EMFILE)))
no_memory = partial(no_file, MemoryError())
ctrl_c = partial(no_file, KeyboardInterrupt())


@contextlib.contextmanager
def no_processes() -> Iterator[None]:
    """Let no process be started: this user has as many as the machine allows."""
    from lamella.slide.child import CHILD

    refusal = OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    CHILD.close()
    with mock.patch("lamella.children.subprocess.Popen", side_effect=refusal):
        yield


@contextlib.contextmanager
def folder_removed() -> Iterator[None]:
    """Remove the folder of each file that was written."""

    def remember(path: Path) -> None:
        remember_folders(path)
        while path.parent.exists():  # another thread may be writing into it
            shutil.rmtree(path.parent, ignore_errors=True)

    with mock.patch("lamella.files.remember_folders", remember):
        yield
