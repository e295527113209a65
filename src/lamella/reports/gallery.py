"""The gallery: which slides a page shows, and their pictures inlined."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lamella.reports.pictures import load_body
from lamella.reports.record import RunRecord, SlideEntry

_OVERLAY_PX = 1300
_SHEET_PX = 960
_QUALITY = 82


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What the model says of a slide.

    Attributes:
        predicted: The class it is called.
        probability: Of the positive class, or with several classes of the predicted one.
        right: Whether this is its label; None where the label is not known.
    """

    predicted: str
    probability: float
    right: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One slide as the page shows it.

    Attributes:
        entry: The slide.
        call: What the model says.
        overlay: Attention on the slide, as a data URI.
        sheet: Its most attended tiles, as a data URI; empty where not drawn.
        cam: Its class activation map, as a data URI; empty where not drawn.
    """

    entry: SlideEntry
    call: Call
    overlay: str
    sheet: str
    cam: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Gallery:
    """The slides that a page shows.

    Attributes:
        cards: Most probably positive first.
        n_left_out: Slides with pictures that are not shown, for their number or for the page's size.
        n_unreadable: Slides left out because their pictures cannot be read.
    """

    cards: tuple[Card, ...]
    n_left_out: int
    n_unreadable: int


def find_call(entry: SlideEntry, record: RunRecord) -> Call | None:
    """Find what the model says of a slide, at the threshold of its fold where there is one.

    Returns:
        The call; None for a slide without prediction.
    """
    shares = entry.probabilities
    if not shares:
        return None
    predicted = max(shares, key=lambda name: shares[name])
    probability = shares[predicted]
    thresholds: Mapping[int, float] = record.results.thresholds if record.results else {}
    if len(shares) == 2 and record.positive in shares:
        probability = shares[record.positive]
        threshold = thresholds.get(entry.fold if entry.fold is not None else 0)
        if threshold is not None:
            other = next(name for name in shares if name != record.positive)
            predicted = record.positive if probability >= threshold else other
    return Call(predicted=predicted, probability=probability, right=predicted == entry.label if entry.label else None)


def build_gallery(record: RunRecord, *, max_slides: int, max_bytes: int) -> Gallery:
    """Choose slides and inline their pictures, wrong calls first, until there are enough or the page is full.

    Args:
        record: The run.
        max_slides: Most slides shown.
        max_bytes: Most bytes of pictures.
    """
    drawn = [(entry, call) for entry in record.slides if entry.overlay and (call := find_call(entry, record))]
    cards: list[Card] = []
    n_bytes = n_unreadable = 0
    for entry, call in _order_by_interest(drawn):
        if len(cards) >= max_slides:
            break
        overlay = _inline(entry.overlay, _OVERLAY_PX)
        sheet, cam = _inline(entry.sheet, _SHEET_PX), _inline(entry.cam, _OVERLAY_PX)
        if overlay is None:
            n_unreadable += 1
            continue
        n_bytes += len(overlay) + len(sheet or "") + len(cam or "")
        if n_bytes > max_bytes and cards:
            break
        cards.append(
            Card(
                entry=entry,
                call=call,
                overlay=overlay,
                sheet=sheet or "",
                cam=cam or "",
            )
        )
    cards.sort(key=lambda card: -card.entry.probabilities.get(record.positive, card.call.probability))
    return Gallery(cards=tuple(cards), n_left_out=len(drawn) - len(cards) - n_unreadable, n_unreadable=n_unreadable)


def _order_by_interest(drawn: Sequence[tuple[SlideEntry, Call]]) -> list[tuple[SlideEntry, Call]]:
    """Order slides: wrong calls first, surest first; then right ones, surest first, the labels taking turns."""
    sureness = {id(entry): max(entry.probabilities.values()) for entry, _ in drawn}
    surest = sorted(drawn, key=lambda pair: -sureness[id(pair[0])])
    wrong = [pair for pair in surest if pair[1].right is False]
    turns: dict[str, int] = {}
    rest: list[tuple[int, int, tuple[SlideEntry, Call]]] = []
    for pair in surest:
        if pair[1].right is not False:
            turns[pair[0].label] = turns.get(pair[0].label, 0) + 1
            rest.append((turns[pair[0].label], len(rest), pair))
    return wrong + [pair for _, _, pair in sorted(rest, key=lambda item: item[:2])]


def _inline(path: Path | None, long_px: int) -> str | None:
    """Return a picture's body as a JPEG data URI, all of it where it does not say where its body lies.

    Args:
        path: The PNG.
        long_px: Longer side at most, pixels.

    Returns:
        The data URI; None where the picture cannot be read.
    """
    if path is None:
        return None
    try:
        body = load_body(path)
        if body is None:
            with Image.open(path, formats=("PNG",)) as image:
                body = np.asarray(image.convert("RGB"))
    except (OSError, ValueError, Image.DecompressionBombError):
        return None
    return _encode(body, long_px)


def _encode(rgb: NDArray[np.uint8], long_px: int) -> str:
    """Return an `(h, w, 3)` uint8 picture as a JPEG data URI, its longer side at most `long_px` pixels."""
    image = Image.fromarray(rgb)
    image.thumbnail((long_px, long_px), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    image.save(stream, format="JPEG", quality=_QUALITY, optimize=True, progressive=True)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
