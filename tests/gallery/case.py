"""One thing that goes wrong: what the user typed, how the situation comes about, and what to tell the reader."""

import contextlib
import os
import re
import shlex
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from typer.testing import CliRunner

from lamella.cli import build_app

CUT = "--tile-px 64"
TRAIN = "train slides.csv --features bags --out models --epochs 1 --seeds 1 --folds 3"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One thing that goes wrong.

    Attributes:
        heading: What happened, in the reader's words.
        command: What was typed, after `lamella`.
        scene: Builds what the command finds; it runs in an empty folder.
        why: What it means, and what to do, in a sentence or two.
        names: What the message must name.
        during: What happens to the machine while the command runs.
        exit_code: How the command ends.
    """

    heading: str
    command: str
    scene: Callable[[], object]
    why: str
    names: str
    during: Callable[[], AbstractContextManager[object]] = nullcontext
    exit_code: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A part of the pipeline, a section of the page.

    Attributes:
        title: Heading of the section.
        introduction: What is said before its cases, empty for nothing.
        cases: What goes wrong in it, in the order of the page.
    """

    title: str
    introduction: str = ""
    cases: tuple[Case, ...]


@dataclass(frozen=True, slots=True)
class Shown:
    """What a command said.

    Attributes:
        lines: On standard error, without the machine's folders.
        exit_code: How it ended.
        exception: What escaped, None where it was said in words.
        failures: Rows of every failures.csv it wrote, header left out.
    """

    lines: tuple[str, ...]
    exit_code: int
    exception: BaseException | None
    failures: tuple[str, ...]

    @property
    def message(self) -> str:
        """The line that says what is wrong."""
        return self.lines[0] if self.lines else ""


def show_case(case: Case) -> Shown:
    """Build a case's situation in an empty folder, run its command there, and return what it said."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        store = folder.parent / f"{folder.name}-store"
        with contextlib.chdir(folder), mock.patch.dict(os.environ, {"LAMELLA_HOME": str(store)}):
            case.scene()
            arguments = shlex.split(case.command)
            with case.during():
                done = CliRunner().invoke(build_app(), arguments + _hush(arguments))
        failures = [path.read_text(encoding="utf-8") for path in sorted(folder.rglob("failures.csv"))]
    said = done.stderr.replace(str(store), "~/.cache/lamella").replace(f"{folder}/", "").replace(str(folder), ".")
    said = re.sub(r"http://127\.0\.0\.1:\d+", "https://HUB", said)
    said = re.sub(r"\d+ of \d+ tiles", "16 of 16 tiles", said)  # how many go at once is the machine's choice
    escaped = None if done.exception is None or isinstance(done.exception, SystemExit) else done.exception
    rows = tuple(line for text in failures for line in text.replace(f"{folder}/", "").splitlines()[1:])
    return Shown(tuple(said.splitlines()), done.exit_code, escaped, rows)


def _hush(arguments: list[str]) -> list[str]:
    """Return the option that leaves progress and remarks out, for the verbs that have them."""
    return [] if arguments[0] in ("bag", "weights", "encoders", "inspect", "measure", "compare") else ["--quiet"]
