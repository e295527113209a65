"""What the text index of a slide of several files claims (MIRAX, Hamamatsu VMS), held against what such slides can be.

OpenSlide takes numbers there as they stand: a level that overlaps by NaN is gone through without end, and a count of
2^31 ends the process.
"""

import math
import re
from pathlib import Path

from lamella.errors import SlideError
from lamella.regular import read_regular

_MOST_BYTES = 16 << 20
_MOST_COUNT = 1 << 16  # of sections, levels and files; real slides have hundreds
_NUMBER = r"[-+]?(?:nan|inf|infinity|\d+(?:\.\d*)?)"
_ENTRY = re.compile(rf"^[ \t]*([^=\[;#\r\n]+?)[ \t]*=[ \t]*({_NUMBER})[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_COUNT = re.compile(r"count|divisions|^no(layers|jpeg)", re.IGNORECASE)
_MEASURE = re.compile(r"overlap|micrometer|digitizer|imagenumber|factor|color|width|height|offset|lens", re.IGNORECASE)


def refuse_index_claims(path: Path) -> None:
    """Refuse a MIRAX or VMS slide whose index holds numbers that no slide has.

    Args:
        path: The slide: `.mrxs`, whose index is `Slidedat.ini` in the folder of its name, `.vms` or `.vmu`; any other
            is passed over.

    Raises:
        SlideError: Naming the entry.
    """
    index = path.with_suffix("") / "Slidedat.ini" if path.suffix.lower() == ".mrxs" else path
    if path.suffix.lower() not in (".mrxs", ".vms", ".vmu") or not index.is_file():
        return
    text = read_regular(
        index,
        f"slide '{path.name}': '{index.name}' is",
        error=SlideError,
        max_bytes=_MOST_BYTES,
        remedy="Copy it again from its source",
    ).decode("utf-8", "replace")
    for key, value in _ENTRY.findall(text):
        number = float(value)
        is_absurd = number > _MOST_COUNT if _COUNT.search(key) else _MEASURE.search(key) and not math.isfinite(number)
        if is_absurd:
            raise SlideError(
                f"slide '{path.name}' states {key} = {value} in '{index.name}', which no slide has. Copy it again from "
                "its source."
            )
