"""The command line in a process of its own, which may be told to die at a chosen file.

Processes are forked from one that has imported the heavy packages, so a run costs what it does and not its imports.
A death strikes just before the n-th file that matches a pattern gets its name: the worst moment, with a whole file
under a temporary name beside it.
"""

import dataclasses
import functools
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Death:
    """When a process is struck, and by what.

    Attributes:
        pattern: Regular expression that is looked for in the path of the file about to be named.
        n: At which such file, from 1.
        by: What is sent.
    """

    pattern: str
    n: int = 1
    by: signal.Signals = signal.SIGKILL


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended: exit code (negative: the signal that killed it) and what it said."""

    exit_code: int
    stdout: str
    stderr: str


def run_command(arguments: list[str], folder: Path, *, death: Death | None = None) -> Ended:
    """Run `lamella ARGUMENTS` in `folder` in a process of its own and wait for it, at most five minutes."""
    wanted = {
        "arguments": arguments,
        "folder": str(folder),
        "death": None if death is None else dataclasses.asdict(death),
        "environment": {key: value for key, value in os.environ.items() if key.startswith("LAMELLA_")},
    }
    server = _open_server()
    assert server.stdin is not None
    assert server.stdout is not None
    server.stdin.write(json.dumps(wanted) + "\n")
    server.stdin.flush()
    exit_code = int(server.stdout.readline())
    said = []
    for path in (folder / ".said-1", folder / ".said-2"):
        said.append(path.read_text(encoding="utf-8"))
        path.unlink()
    return Ended(exit_code, *said)


@functools.cache
def _open_server() -> "subprocess.Popen[str]":
    """Start the process that others are forked from; it ends with this one, whose pipe closes."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-m", "tests.dying"], cwd=_ROOT, **pipes)  # type: ignore[call-overload,no-any-return]


def _serve() -> None:
    """Fork a process for each line of standard input, and answer with its exit code."""
    import openvino  # noqa: F401
    import timm  # noqa: F401

    import lamella.pipeline.run  # noqa: F401

    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _be(**json.loads(line))
        print(_wait(pid), flush=True)  # noqa: T201 - the answer


def _wait(pid: int, seconds: float = 300) -> int:
    """Wait for a process, and end it when its time is up."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return 124


def _be(arguments: list[str], folder: str, death: dict[str, Any] | None, environment: dict[str, str]) -> None:
    """Become `lamella ARGUMENTS`."""
    os.chdir(folder)
    os.environ.update(environment)
    for number in (1, 2):
        with Path(f".said-{number}").open("wb") as stream:
            os.dup2(stream.fileno(), number)
    if death is not None:
        _plant(Death(**death))
    sys.argv = ["lamella", *arguments]

    from lamella.cli import main

    main()


def _plant(death: Death) -> None:
    """Let the process be struck before the n-th matching file gets its name."""
    name_file, seen = Path.replace, []

    def replace(self: Path, target: Path) -> Path:
        if re.search(death.pattern, Path(target).as_posix()):
            seen.append(target)
            if len(seen) == death.n:
                os.kill(os.getpid(), death.by)
        return name_file(self, target)

    Path.replace = replace  # type: ignore[method-assign,assignment]


if __name__ == "__main__":
    _serve()
