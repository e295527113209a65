"""The command line in a process of its own, which may be told to die at a chosen file.

Processes are forked from one that has imported the heavy packages, so a run costs what it does and not its imports.
A death strikes just before the n-th file that matches a pattern gets its name: the worst moment, with a whole file
under a temporary name beside it.
"""

import multiprocessing
import os
import re
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["lamella.cli", "lamella.pipeline", "timm", "openvino"])


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


def run_command(arguments: list[str], folder: Path, *, death: Death | None = None, seconds: float = 120) -> Ended:
    """Run `lamella ARGUMENTS` in `folder` in a process of its own and wait for it."""
    said = {name: folder / f".said-{name}" for name in ("stdout", "stderr")}
    environment = {key: os.environ[key] for key in ("LAMELLA_HOME", "HOME") if key in os.environ}
    process = _forks.Process(target=_be, args=(arguments, folder, death, environment))
    process.start()
    process.join(seconds)
    if process.is_alive():
        process.kill()
        process.join()
    texts = {name: path.read_text(encoding="utf-8") for name, path in said.items()}
    for path in said.values():
        path.unlink()
    assert process.exitcode is not None
    return Ended(process.exitcode, texts["stdout"], texts["stderr"])


def _be(arguments: list[str], folder: Path, death: Death | None, environment: dict[str, str]) -> None:
    """Become `lamella ARGUMENTS`."""
    os.chdir(folder)
    os.environ.update(environment)
    for name, number in (("stdout", 1), ("stderr", 2)):
        with (folder / f".said-{name}").open("wb") as stream:
            os.dup2(stream.fileno(), number)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if death is not None:
        _plant(death)
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
