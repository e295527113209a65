"""Progress: how a long step tells what it does without printing.

The library is silent. A function that takes long accepts a `Progress` and reports to it; the command line passes one
that draws, everyone else may pass nothing.
"""

import re
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class Stage(Protocol):
    """One long step that counts."""

    def advance(self, n: int = 1) -> None:
        """Count `n` more units as done."""

    def expect(self, total: int) -> None:
        """Correct the number of units that there will be, as far as is known by now."""


class Progress(Protocol):
    """Where long steps report to."""

    def stage(self, name: str, total: int | None, unit: str) -> AbstractContextManager[Stage]:
        """Open a step of `total` units (None: not known beforehand); close it by leaving the context."""

    def say(self, message: str) -> None:
        """Tell the user one line that must not be missed."""


class _SilentStage:
    def advance(self, n: int = 1) -> None:
        """Do nothing."""

    def expect(self, total: int) -> None:
        """Do nothing."""


class SilentProgress:
    """A `Progress` that keeps quiet."""

    def stage(self, name: str, total: int | None, unit: str) -> AbstractContextManager[Stage]:
        """Return a step that counts nothing."""
        return nullcontext(_SilentStage())

    def say(self, message: str) -> None:
        """Do nothing."""


class AlikeOnce:
    """A `Progress` that says once what is alike but for names and figures.

    Args:
        progress: What is reported to.
        of: What the message speaks for, as it is added in brackets; nothing is added where it is empty.
    """

    def __init__(self, progress: Progress, *, of: str = "") -> None:
        self._progress, self._of = progress, of
        self._said: set[str] = set()

    def stage(self, name: str, total: int | None, unit: str) -> AbstractContextManager[Stage]:
        """Open a step of what is reported to."""
        return self._progress.stage(name, total, unit)

    def say(self, message: str) -> None:
        """Pass a message on, unless one like it was said."""
        kind = re.sub(r"'[^']*'|\d[\d.]*", "#", message)
        if kind not in self._said:
            self._said.add(kind)
            self._progress.say(f"{message} (said once for {self._of})" if self._of else message)
