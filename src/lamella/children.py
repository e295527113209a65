"""Child processes that open files first: what aborts, hangs or takes all memory ends there, and not here.

Libraries of C that read damaged files can end the process they run in. A `Child` opens the file before this process
does; where it dies, the file is refused like any other. The child is started once and asked again and again.
"""

import atexit
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

from lamella.errors import MachineError
from lamella.stopping import at_stop

EXTRA_BYTES = 2 << 30
SECONDS = 60.0
_GRACE_SECONDS = 5
_START_SECONDS = 120.0
_READY = "ready\n"
_BEGIN = (
    "import runpy, sys; from lamella.children import watch_parent; watch_parent(); "
    "runpy.run_module(sys.argv[1], run_name='__main__')"
)
_children: "weakref.WeakSet[Child]" = weakref.WeakSet()


class Child:
    """A process that answers questions, one at a time, and is started again when it has died.

    Args:
        module: What it runs as `python -m MODULE` would; it calls `serve`.
        seconds: How long an answer may take.
    """

    def __init__(self, module: str, *, seconds: float = SECONDS) -> None:
        self._module, self._seconds = module, seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._owner = 0
        _children.add(self)

    def ask(self, **question: str | float | None) -> str | None:
        """Return the child's answer to a question; None where it died, or took too long and was ended."""
        with self._lock:
            process = self._start()
            assert process.stdin is not None
            assert process.stdout is not None
            timer = threading.Timer(self._seconds, process.kill)
            timer.start()
            try:
                process.stdin.write(json.dumps({"seconds": self._seconds, "question": question}) + "\n")
                process.stdin.flush()
                line = process.stdout.readline()
            except OSError:
                line = ""
            finally:
                timer.cancel()
            if line:
                return str(json.loads(line))
            self._end()
            return None

    def _start(self) -> "subprocess.Popen[str]":
        if self._process is not None and self._owner == os.getpid() and self._process.poll() is None:
            return self._process
        self._drop_pipes()  # of one that has died, or belongs to the process that this one was forked from
        home = str(Path(__file__).resolve().parents[1])
        paths = os.pathsep.join([home, *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = self._popen(os.environ | {"PYTHONPATH": paths})
        if self._owner == 0:
            atexit.register(self.close)
        self._owner = os.getpid()
        assert self._process.stdout is not None
        timer = threading.Timer(_START_SECONDS, self._process.kill)
        timer.start()
        ready = self._process.stdout.readline() == _READY
        timer.cancel()
        if not ready:  # it says nothing of the file that it was to open
            self._end()
            raise MachineError(
                "the process that opens files first ends at its start: this machine allows too little memory or too "
                "few open files, or this user may not run this Python. Allow more (`ulimit -a` lists the limits), then "
                "run the same command again."
            )
        return self._process

    def _popen(self, environment: dict[str, str]) -> "subprocess.Popen[str]":
        try:
            return subprocess.Popen(
                # -P: the working directory, which may be anyone's, is not searched for modules.
                [sys.executable, "-P", "-c", _BEGIN, self._module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                env=environment,
            )
        except OSError as error:
            raise MachineError(
                f"no process can be started to open files first ({error.strerror or error}). Allow more (`ulimit -a` "
                "lists the limits), let this user run this Python, then run the same command again."
            ) from error

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._drop_pipes()
            self._process = None

    def _drop_pipes(self) -> None:
        if self._process is not None:
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()

    def close(self) -> None:
        """End the process, if there is one."""
        with self._lock:
            if self._owner == os.getpid():
                self._end()

    def kill(self) -> None:
        """Have the process end, whoever is waiting for its answer."""
        if self._process is not None and self._owner == os.getpid():
            self._process.kill()


@at_stop
def kill_children() -> None:
    """End every child of this process."""
    for child in list(_children):
        child.kill()


def serve(answer: Callable[..., str]) -> None:
    """Answer questions from standard input until it closes, with at most 2 GiB of memory beyond the start.

    Args:
        answer: Makes the answer to a question, whose parts are its arguments.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this process
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    with open(os.devnull, "w") as sink:  # noqa: PTH123 - nothing that a library prints may stand among the answers
        os.dup2(sink.fileno(), 1)
    limit_memory(EXTRA_BYTES)
    answers.write(_READY)
    answers.flush()
    for line in sys.stdin:
        asked = json.loads(line)
        _set_alarm(round(asked["seconds"]) + _GRACE_SECONDS)
        answers.write(json.dumps(answer(**asked["question"])) + "\n")
        _set_alarm(0)
        answers.flush()


def watch_parent() -> None:
    """End this process as soon as the one that asks has ended, in the middle of an import or a file too.

    Its end closes the pipe of questions, which is all that tells of a `kill -9`.
    """
    if hasattr(select, "poll"):
        threading.Thread(target=_wait_for_end, daemon=True).start()


def _wait_for_end() -> None:
    pipe = select.poll()
    pipe.register(0, 0)  # that it was closed is told unasked
    while not any(event & (select.POLLHUP | select.POLLERR) for _, event in pipe.poll()):
        continue
    os._exit(0)


def _set_alarm(seconds: int) -> None:
    """Have the system end this process then: a decoder that never comes to an end may keep every thread waiting."""
    if hasattr(signal, "alarm"):
        signal.alarm(seconds)


def limit_memory(extra_bytes: int) -> None:
    """Bound this process's address space to what it has now and so much more, where the system can."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + extra_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, OSError, ValueError):
        return  # macOS and Windows know no such bound
