"""A verb in a process of its own, which is struck at a moment, and what it leaves behind."""

import contextlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Ended:
    """How a verb ended.

    Attributes:
        code: Its exit code; negative: the signal that killed it.
        seconds: How long it took.
        said: What it said, on both streams.
        was_struck: Whether it was still running when its moment came.
        alive: Commands of its session that still ran two seconds after it had ended.
    """

    code: int
    seconds: float
    said: str
    was_struck: bool
    alive: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Strike:
    """What a verb is struck by.

    Attributes:
        after: When, in seconds.
        by: Which signal.
        whole_group: Whether its children are struck too, as Ctrl-C in a terminal does.
    """

    after: float
    by: signal.Signals
    whole_group: bool


def run_verb(arguments: Sequence[str], folder: Path, strike: Strike | None = None) -> Ended:
    """Run `lamella ARGUMENTS` in a folder, in a session of its own, and wait for it, at most ten minutes."""
    said = folder / ".said"
    began = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _become(arguments, folder, said)
    limit, was_struck = began + 600.0, False
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            break
        now = time.monotonic()
        if strike is not None and not was_struck and now > began + strike.after:
            with contextlib.suppress(ProcessLookupError):  # it has not begun its session yet
                (os.killpg if strike.whole_group else os.kill)(pid, strike.by)
                was_struck = True
        if now > limit:
            os.killpg(pid, signal.SIGKILL)
        time.sleep(0.005)
    seconds = time.monotonic() - began
    return Ended(
        os.waitstatus_to_exitcode(status), seconds, said.read_text(errors="replace"), was_struck, _wait_for(pid)
    )


def _become(arguments: Sequence[str], folder: Path, said: Path) -> None:
    os.setsid()
    os.chdir(folder)
    with said.open("wb") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    sys.argv = ["lamella", *arguments]
    from lamella.__main__ import main

    try:
        main()
    except SystemExit as end:  # this process holds a copy of the caller's stack, which must not unwind here
        _leave(int(end.code or 0))
    except BaseException:  # noqa: BLE001 - whatever it is, it is said and ends this process alone
        traceback.print_exc()
        _leave(70)
    _leave(0)


def _leave(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    from lamella.children import kill_children

    kill_children()  # as the end of an ordinary process would
    os._exit(code)


def _wait_for(session: int, seconds: float = 2.0) -> tuple[str, ...]:
    """Wait until no process of a session is left; return the commands of those that stay, and end them."""
    limit = time.monotonic() + seconds
    while alive := _list_session(session):
        if time.monotonic() > limit:
            for pid in alive:
                os.kill(pid, signal.SIGKILL)
            return tuple(alive.values())
        time.sleep(0.02)
    return ()


def _list_session(session: int) -> dict[int, str]:
    alive = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, own = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(own) == session and state not in "ZX":
                alive[int(folder.name)] = (folder / "cmdline").read_text().replace("\0", " ").strip()[-120:]
        except (OSError, ValueError):  # it has ended meanwhile
            continue
    return alive
