"""Free text made fit to pass on: no paths. Reasons of failures and notes are sentences that may quote files."""

import re

# A quoted path may hold spaces; a bare one ends at the first. "um/px" and "and/or" are no paths.
_QUOTED_PATH = re.compile(r"(?<!\w)'(?:[^'\n]*[/\\])([^'/\\\n]*)'(?!\w)")
_BARE_PATH = re.compile(
    r"(?<![\w.'])(?:(?:~|\.{1,2})?(?:/[^\s'\"<>|,;/]+)+/?|[A-Za-z]:[\\/][^\s'\"<>|,;]+|\\\\[^\s'\"<>|,;]+)"
)
_RELATIVE_PATH = re.compile(r"(?<![\w.'/])(?:[\w.-]+[/\\])+[\w-]+\.\w{2,5}\b")


def drop_folders(text: str) -> str:
    """Return text with every path cut to its last part.

    Example:
        >>> drop_folders("slide '/data/ward 7/S-1.svs' stops at 0.50 um/px.")
        "slide 'S-1.svs' stops at 0.50 um/px."
    """
    text = _QUOTED_PATH.sub(r"'\1'", text)
    for pattern in (_BARE_PATH, _RELATIVE_PATH):
        text = pattern.sub(lambda found: re.split(r"[/\\]", found.group().rstrip("/\\"))[-1], text)
    return text
