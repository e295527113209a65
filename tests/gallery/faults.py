"""What happens to the machine while a command of the gallery runs."""

import contextlib
import errno
import os
from collections.abc import Iterator
from unittest import mock


@contextlib.contextmanager
def disk_full() -> Iterator[None]:
    """Let no new file be made: the operating system says that the disk is full."""
    refusal = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with mock.patch("lamella.files.make_temporary", side_effect=refusal):
        yield


@contextlib.contextmanager
def no_processes() -> Iterator[None]:
    """Let no process be started: this user has as many as the machine allows."""
    from lamella.slide.child import CHILD

    refusal = OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    CHILD.close()
    with mock.patch("lamella.children.subprocess.Popen", side_effect=refusal):
        yield


@contextlib.contextmanager
def ctrl_c() -> Iterator[None]:
    """Let the user press Ctrl-C the moment the first file is to be written."""
    with mock.patch("lamella.files.make_temporary", side_effect=KeyboardInterrupt):
        yield
