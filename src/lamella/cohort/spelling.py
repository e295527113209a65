"""The one rule of how ids, labels and column names are compared.

1. `tidy` takes away what no reader can see: blanks at both ends, no-break spaces (they become ordinary ones),
   zero-width characters, and whether an accent is composed or not (NFC). Texts that are then equal are the same.
2. `find_look` also takes away what a reader would hardly notice: capitals, full-width letters, doubled blanks, a hyphen
   or underscore for a blank, zeros before or after a number (7, 007, 7.0), Cyrillic letters that look Latin. Texts that
   differ, but not in that, are never merged and never kept apart: `refuse_look_alikes` names both spellings.
3. `is_missing` knows what programs write where there is nothing (NA, nan, None, #N/A).
"""

import re
import unicodedata
from collections.abc import Callable, Iterable

from lamella.errors import CohortError

_SPACES = dict.fromkeys(map(ord, "\u00a0\u2007\u202f\u2009\u200a\u3000\t\r\n"), " ")
_UNSEEN = dict.fromkeys(map(ord, "\u200b\u2060\ufeff\u00ad\u200e\u200f"), None)
_JOINERS = dict.fromkeys(map(ord, "\u200c\u200d"), None)  # seen in some scripts, so not taken away by `tidy`
_LATIN = str.maketrans("авекмнорстухіјѕ", "abekmhopctyxijs")  # Cyrillic to Latin
_DASHES = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2212"), "-")
_NUMBER = re.compile(r"[+-]?\d+(?:[.,]\d+)?")
_LEADING_ZEROS = re.compile(r"(?<![\d.,])0+(?=\d)")
_JOINTS = re.compile(r"(?<=\w)[ _-]+(?=\w)")
_MISSING = frozenset(
    # empty; what pandas, R, Python and databases write; what Excel writes; what GDC and cBioPortal write
    ["", "nan", "-nan", "na", "n/a", "n.a.", "<na>", "null", "none", "nil", "nat", "?", "--", "'--", "missing",
     "#n/a", "#na", "#n/a n/a", "#value!", "#ref!", "#name?", "#div/0!", "#null!", "#num!",
     "[not available]", "[not applicable]", "[not evaluated]", "[unknown]", "not available", "not reported"]
)  # fmt: skip


def tidy(text: str) -> str:
    r"""Return a text without what no reader can see.

    Example:
        >>> tidy(" high\u00a0grade\u200b "), tidy("Mu\u0308ller") == "M\u00fcller", tidy("007")
        ('high grade', True, '007')
    """
    return unicodedata.normalize("NFC", text.translate(_UNSEEN).translate(_SPACES)).strip()


def find_look(text: str) -> str:
    r"""Return what two texts share that a person would take for one.

    Example:
        >>> find_look("P-007"), find_look("p 7"), find_look("7.0"), find_look("007"), find_look("High  grade")
        ('p 7', 'p 7', '7', '7', 'high grade')
        >>> find_look("HER2+") == find_look("HER2-"), find_look("1-11") == find_look("11-1")
        (False, False)
    """
    shown = unicodedata.normalize("NFKC", tidy(text).translate(_JOINERS)).translate(_DASHES)
    shown = unicodedata.normalize("NFC", shown.casefold()).translate(_LATIN)
    shown = " ".join(shown.split())
    if _NUMBER.fullmatch(shown) and shown.isascii():
        whole, _, part = shown.replace(",", ".").partition(".")
        part, sign = part.rstrip("0"), "-" * shown.startswith("-")
        whole = whole.lstrip("+-0") or "0"  # as text: a number may be of any length
        return f"{sign}{whole}.{part}" if part else f"{sign if whole != '0' else ''}{whole}"
    return _LEADING_ZEROS.sub("", _JOINTS.sub(" ", shown))


def is_missing(text: str) -> bool:
    """Whether a cell is empty or holds what programs write for nothing.

    Example:
        >>> [is_missing(cell) for cell in ("", "NaN", "None", "#N/A", "Nonsense", "-")]
        [True, True, True, True, False, False]
    """
    return tidy(text).casefold() in _MISSING


def find_look_alikes(texts: Iterable[str]) -> tuple[str, str] | None:
    """Return the first two texts that differ and look the same; None where there are none.

    Example:
        >>> find_look_alikes(["P1", "P2", "p1"]), find_look_alikes(["P1", "P2", "P1"])
        (('P1', 'p1'), None)
    """
    first: dict[str, str] = {}
    for text in texts:
        other = first.setdefault(find_look(text), text)
        if other != text:
            return other, text
    return None


def refuse_look_alikes(
    texts: Iterable[str], *, whose: str, what: str, plural: str, where: Callable[[str], str] = lambda _: ""
) -> None:
    """Refuse texts that differ and look the same.

    Args:
        texts: Tidied ids or labels.
        whose: What holds them, as in "cohort 'slides.csv'".
        what: What two of them would count as, as in "patients".
        plural: What they are, as in "patient ids".
        where: Where a spelling stands, as in " (row 3)".

    Raises:
        CohortError: Naming both spellings.

    Example:
        >>> refuse_look_alikes(["7", "8"], whose="the cohort", what="patients", plural="patient ids")
    """
    pair = find_look_alikes(texts)
    if pair is None:
        return
    text, other = pair
    remedy = "Write them alike, or differently enough to be told apart."
    raise CohortError(
        f"{whose} has the {plural} '{text}'{where(text)} and '{other}'{where(other)}, which differ in "
        f"{name_difference(text, other)} only and would count as two {what}. {remedy}"
    )


def name_difference(text: str, other: str) -> str:
    """Return in what two texts that look the same differ.

    Example:
        >>> name_difference("P7", "p7"), name_difference("7", "7.0"), name_difference("a  b", "a b")
        ('capitals', 'how the number is written', 'blanks')
    """
    if text.casefold() == other.casefold():
        return "capitals"
    if " ".join(text.split()) == " ".join(other.split()):
        return "blanks"
    if _NUMBER.fullmatch(text) and _NUMBER.fullmatch(other):
        return "how the number is written"
    if _LEADING_ZEROS.sub("", text) == _LEADING_ZEROS.sub("", other):
        return "leading zeros"
    if _JOINTS.sub(" ", text) == _JOINTS.sub(" ", other):
        return "blanks, hyphens or underscores"
    return "spelling"
