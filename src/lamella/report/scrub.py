"""Free text made fit to pass on: no paths, and under pseudonyms no identifiers.

Reasons of failures and notes are sentences that may quote files and slides.
"""

import re
from collections.abc import Callable, Iterable

from lamella.report.pseudonyms import Names, PlainNames

# A quoted path may hold spaces; a bare one ends at the first. "um/px" and "and/or" are no paths.
_QUOTED_PATH = re.compile(r"(?<!\w)'(?:[^'\n]*[/\\])([^'/\\\n]*)'(?!\w)")
_BARE_PATH = re.compile(
    r"(?<![\w.'])(?:(?:~|\.{1,2})?(?:/[^\s'\"<>|,;/]+)+/?|[A-Za-z]:[\\/][^\s'\"<>|,;]+|\\\\[^\s'\"<>|,;]+)"
)
_RELATIVE_PATH = re.compile(r"(?<![\w.'/])(?:[\w.-]+[/\\])+[\w-]+\.\w{2,5}\b")
_QUOTED_FILE = re.compile(r"(?<!\w)'(?!slide-|patient-)[^'\n]+\.\w{2,5}'")
_LEAST_BARE_ID = 3


def make_scrubber(names: Names, slide_ids: Iterable[str], patient_ids: Iterable[str]) -> Callable[[str], str]:
    """Make the function that cleans text for one report.

    Args:
        names: How slides and patients are called.
        slide_ids: Identifiers that may occur.
        patient_ids: Likewise; one that is a slide's too is taken for the slide's.

    Returns:
        A function from text to text. Folders go, file names stay; under pseudonyms identifiers are replaced, and
        quoted file names that are not made of one go too. Identifiers under 3 characters are replaced in quotes only.

    Example:
        >>> scrub = make_scrubber(PlainNames(), ["S-1"], ["P-1"])
        >>> scrub("slide '/data/ward 7/S-1.svs' stops at 0.50 um/px.")
        "slide 'S-1.svs' stops at 0.50 um/px."
    """
    if isinstance(names, PlainNames):
        return drop_folders
    called = {patient_id: names.patient(patient_id) for patient_id in patient_ids}
    called |= {slide_id: names.slide(slide_id) for slide_id in slide_ids}
    called.pop("", None)
    longest_first = sorted(called, key=len, reverse=True)
    bare = [re.escape(name) for name in longest_first if len(name) >= _LEAST_BARE_ID]
    quoted = [re.escape(name) for name in longest_first]
    known = re.compile(rf"(?<![\w-])(?:{'|'.join(bare)})(?![\w-])") if bare else None
    known_quoted = re.compile(rf"(?<=')(?:{'|'.join(quoted)})(?=['.])") if quoted else None

    def scrub(text: str) -> str:
        text = drop_folders(text)
        for pattern in (known_quoted, known):
            if pattern is not None:
                text = pattern.sub(lambda found: called[found.group()], text)
        return _QUOTED_FILE.sub("[a file]", text)

    return scrub


def drop_folders(text: str) -> str:
    """Return text with every path cut to its last part."""
    text = _QUOTED_PATH.sub(r"'\1'", text)
    for pattern in (_BARE_PATH, _RELATIVE_PATH):
        text = pattern.sub(lambda found: re.split(r"[/\\]", found.group().rstrip("/\\"))[-1], text)
    return text
