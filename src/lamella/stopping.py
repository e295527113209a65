"""Ctrl-C and being told to end: one line, no temporary file left, at once.

Python would raise `KeyboardInterrupt` wherever the main thread happens to be: inside an import that swallows it, inside
a callback of C that can only print it, or in the middle of cleaning up. Everything that is written here survives
`kill -9` (whole files are renamed into place), so a command that is told to stop does no more than what that leaves
undone.
"""

import atexit
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType

STOPPED = "stopped; nothing is half-written, run the same command again to go on"
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP
_cleaners: list[Callable[[], object]] = []
_owner = os.getpid()


def at_stop(clean: Callable[[], object]) -> Callable[[], object]:
    """Have `clean` called when a signal stops the command; it may be called at any moment, and must not wait long."""
    _cleaners.append(clean)
    return clean


def stop_on_signals() -> None:
    """Let Ctrl-C, SIGTERM and a closed terminal stop this process with one line and exit code 128 + signal.

    A signal that whoever started the process has it ignore (`nohup`, a job in the background) stays ignored. Processes
    that are forked from this one are ended by these signals as any other, without a word.
    """
    global _owner
    _owner = os.getpid()
    for signum in _list_signals():
        if signal.getsignal(signum) != signal.SIG_IGN:
            signal.signal(signum, _stop)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_forget)
    atexit.register(_ignore)  # all is written, and Python is about to give the signals back to the system


@contextlib.contextmanager
def keeping_signal_stack() -> Iterator[None]:
    """Have the stack on which this thread takes signals be what it was when the block ends.

    OpenVINO names one of its own while it compiles a network, frees it and leaves it named: the next signal, a Ctrl-C
    for one, would end the process with a segmentation fault.
    """
    if sys.platform != "linux":
        yield
        return
    import ctypes

    class Stack(ctypes.Structure):
        _fields_ = (("ss_sp", ctypes.c_void_p), ("ss_flags", ctypes.c_int), ("ss_size", ctypes.c_size_t))

    system, before = ctypes.CDLL(None), Stack()
    system.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        system.sigaltstack(ctypes.byref(before), None)


def _stop(signum: int, frame: FrameType | None) -> None:
    if os.getpid() != _owner:  # forked an instant ago
        signal.signal(signum, signal.SIG_DFL)
        os.kill(os.getpid(), signum)
        return
    _ignore()  # a second Ctrl-C finds nothing to stop
    with contextlib.suppress(OSError):  # of a terminal that is gone
        if os.isatty(2):
            os.write(2, b"\x1b[?25h\n")  # bars hide the cursor, and end without a new line
        os.write(2, f"{STOPPED}\n".encode())
    for clean in _cleaners:  # last: other threads write until this process has ended
        with contextlib.suppress(Exception):  # what cannot be removed now is swept by the next command
            clean()
    os._exit(128 + signum)


def _ignore() -> None:
    for signum in _list_signals():
        signal.signal(signum, signal.SIG_IGN)


def _forget() -> None:
    """In a process forked from this one: end as others do, and leave this one's files to it."""
    for signum in _list_signals():
        if signal.getsignal(signum) == _stop:
            signal.signal(signum, signal.SIG_DFL)


def _list_signals() -> list[signal.Signals]:
    return [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
