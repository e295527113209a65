"""Everything this package refuses to do, in words for the person who asked.

A message has three parts: which thing, what it has and what is needed (with units), what to do. Every class also
inherits the built-in that a caller would expect, so `except ValueError` keeps working.
"""

import re

# What a terminal obeys instead of showing it: control characters, and marks that turn the direction of writing.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def show_controls(text: str) -> str:
    r"""Return a text with what a terminal would obey written out; line ends and tabs stay.

    Example:
        >>> show_controls("slide '\x1b[2J' of two\nlines")
        "slide '\\x1b[2J' of two\nlines"
    """
    return _OBEYED.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


class LamellaError(Exception):
    """Base of every error that a user can cause and a user can mend; its message is one line."""

    def __str__(self) -> str:
        """Return the message on one line, whatever a quoted cell or file holds."""
        return show_controls(" ".join(re.split(r"[ \t]*[\r\n\u2028\u2029]+[ \t]*", super().__str__().strip())))


class SettingsError(LamellaError, ValueError):
    """An option has a value that cannot be used."""


class CohortError(LamellaError, ValueError):
    """A cohort table is absent, unreadable, or does not hang together."""


class LeakageError(CohortError):
    """A patient or an image stands on both sides of a split."""


class SlideError(LamellaError, OSError):
    """A slide is absent, damaged, or of a format no reader knows."""


class ResolutionError(LamellaError, ValueError):
    """A resolution is missing, implausible, or finer than the slide can give."""


class TissueError(LamellaError, ValueError):
    """A slide holds no tissue, or its regions cannot be read."""


class TileError(LamellaError, ValueError):
    """Tiles as asked for do not fit the slide."""


class EncoderError(LamellaError, ValueError):
    """An encoder is unknown or cannot run as asked."""


class WeightsError(LamellaError, ValueError):
    """Weights are absent, damaged, or of another network."""


class BagError(LamellaError, ValueError):
    """A feature bag is absent, unreadable, or made another way than asked."""


class ModelError(LamellaError, ValueError):
    """A trained model is absent, unreadable, or does not fit the bags."""


class OutputError(LamellaError, OSError):
    """A result cannot be written."""


class MachineError(LamellaError):
    """The machine refuses (memory, open files, processes) or a disk fails; the files struck may be whole.

    No `OSError`: whoever catches one to call a file absent or damaged must not catch this.
    """
