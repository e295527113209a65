"""The process that verbs are forked from, each under circumstances of its own.

It has imported what is heavy, and runs no thread. What must stand when an interpreter starts (`LD_PRELOAD`,
`PYTHONOPTIMIZE`, `LANG`) is given to the server; the rest (`uid`, umask, limits, closed streams) to each process.
"""

import contextlib
import dataclasses
import json
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

_ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a process finds when it begins.

    Attributes:
        environment: Variables to set; None: to take out.
        uid: Whose process it is.
        umask: Its umask.
        n_files: How many files it may have open.
        n_bytes: How much memory it may reserve beyond what it has at its start.
        streams: `"files"`; `"closed"`, no standard streams at all; `"no reader"`, a pipe that nobody reads.
        folder: Where it runs.
    """

    environment: Mapping[str, str | None] = field(default_factory=dict)
    uid: int | None = None
    umask: int | None = None
    n_files: int | None = None
    n_bytes: int | None = None
    streams: str = "files"
    folder: str | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended: exit code (negative: the signal), seconds, what it said on each stream."""

    code: int
    seconds: float
    stdout: str
    stderr: str


class Server:
    """A started server.

    Args:
        environment: What stands when it starts, beside what stands here.
        options: Of the interpreter, such as `-O`.
    """

    def __init__(self, environment: Mapping[str, str] | None = None, options: Sequence[str] = ()) -> None:
        command = [sys.executable, *options, "-m", "tests.machine.server"]
        self._process: subprocess.Popen[str] = subprocess.Popen(
            command,
            cwd=_ROOT,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )

    def run(
        self,
        arguments: Sequence[str],
        folder: Path,
        said: Path,
        circumstances: Circumstances | None = None,
        *,
        meanwhile: Callable[[], None] | None = None,
    ) -> Ended:
        """Run `lamella ARGUMENTS` and wait for it, at most three minutes.

        Args:
            arguments: After `lamella`.
            folder: Where it runs, unless the circumstances say another.
            said: Folder for what it says, which no fault strikes.
            circumstances: What it finds.
            meanwhile: What is done here while it runs.
        """
        found = circumstances or Circumstances()
        wanted = {
            "arguments": list(arguments),
            "said": str(said),
            "found": {**dataclasses.asdict(found), "folder": found.folder or str(folder)},
        }
        began = time.monotonic()
        stdin, stdout = self._pipes()
        stdin.write(json.dumps(wanted) + "\n")
        stdin.flush()
        if meanwhile is not None:
            meanwhile()
        line = stdout.readline()
        if not line:
            raise RuntimeError(self._process.stderr.read() if self._process.stderr else "")
        texts = [(said / name).read_text(errors="replace") for name in ("stdout", "stderr")]
        return Ended(int(line), time.monotonic() - began, texts[0], texts[1])

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin, self._process.stdout

    def close(self) -> None:
        """End it."""
        stdin, stdout = self._pipes()
        for stream in (stdin, stdout, self._process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self._process.wait()


def _serve() -> None:
    if not os.environ.get("MACHINE_CUT"):  # the cut's verbs need none of it
        import timm  # noqa: F401

        import lamella.pipeline.run  # noqa: F401
        from lamella.encoders.runtime.silent import import_openvino

        import_openvino()

    for line in sys.stdin:
        wanted = json.loads(line)
        pid = os.fork()
        if pid == 0:
            _be(wanted["arguments"], Path(wanted["said"]), Circumstances(**wanted["found"]))
        print(_wait(pid), flush=True)  # noqa: T201 - the answer


def _wait(pid: int, seconds: float = 180) -> int:
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return 124


def _be(arguments: list[str], said: Path, found: Circumstances) -> None:
    """Become `lamella ARGUMENTS`; never return."""
    code = 70
    try:
        os.setsid()
        os.chdir(found.folder or ".")
        _set_streams(found.streams, said)
        _set_environment(found)
        sys.argv = ["lamella", *arguments]
        from lamella.cli import main

        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - whatever it is, it is said and ends this process alone
        with contextlib.suppress(OSError, ValueError):
            traceback.print_exc()
    else:
        code = 0
    os._exit(_end_as_python_does(code))


def _end_as_python_does(code: int) -> int:
    """Run what an interpreter runs at its end: `atexit`, flushing, with its exit code where that fails."""
    import atexit

    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            if stream is sys.stdout:
                with contextlib.suppress(OSError, ValueError):
                    sys.stderr.write("Exception ignored in: <stdout>: Traceback of a flush at exit\n")
                    sys.stderr.flush()
                return 120
    return code


def _set_streams(kind: str, said: Path) -> None:
    for number, name in ((1, "stdout"), (2, "stderr")):
        descriptor = os.open(said / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        os.dup2(descriptor, number)
        os.close(descriptor)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    if kind == "no reader":
        reader, writer = os.pipe()
        os.dup2(writer, 1)
        os.close(writer)
        os.close(reader)
    elif kind == "closed":  # as Python starts with `<&- >&-`
        os.close(0)
        os.close(1)
        sys.stdin = sys.stdout = sys.__stdin__ = sys.__stdout__ = None  # type: ignore[assignment,misc]
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)


def _set_environment(found: Circumstances) -> None:
    for name, value in found.environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    time.tzset()
    if found.umask is not None:
        os.umask(found.umask)
    if found.n_files is not None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (found.n_files, found.n_files))
    if found.n_bytes is not None:
        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + found.n_bytes, now + found.n_bytes))
    if found.uid is not None:
        os.setgroups([])
        os.setresgid(found.uid, found.uid, found.uid)
        os.setresuid(found.uid, found.uid, found.uid)


if __name__ == "__main__":
    _serve()
