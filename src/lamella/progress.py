"""Progress: how a long step tells what it does without printing.

The library is silent. A function that takes long accepts a `Progress` and reports to it; the command line passes one
that draws, everyone else may pass nothing.
"""

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


def say_time(seconds: float) -> str:
    """Return a time for people.

    Example:
        >>> say_time(4.2), say_time(300), say_time(9000)
        ('4 s', '5.0 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
