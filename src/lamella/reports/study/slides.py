"""The slides of the page: views in one frame, inlined, the worst errors first, as many and as large as fit."""

import base64
import io
import itertools
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from lamella.reports.study.record import SlideCall, StudyRecord

VIEWS = ("thumbnail", "attention", "cam")
_SIDES_PX = (0, 560, 460, 380, 300)  # 0: as it lies there
_QUALITY = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two views of a slide under one slider; a single view stands alone.

    Attributes:
        first: Name of the view on the left, or of the only one.
        second: Name of the view on the right; empty where there is none.
    """

    first: str
    second: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlideCard:
    """One slide of the page.

    Attributes:
        call: What the shown arm says of it.
        name: What it is called.
        patient: What its patient is called.
        views: Data URI of each view, by name.
        comparisons: What is laid under a slider.
        ratio: Width of a view by its height.
    """

    call: SlideCall
    name: str
    patient: str
    views: dict[str, str]
    comparisons: tuple[Comparison, ...]
    ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Slides:
    """What the page shows.

    Attributes:
        cards: The slides, the worst errors first.
        n_left_out: Drawn slides for which there was no room.
        n_bytes: Of all their data URIs.
    """

    cards: tuple[SlideCard, ...] = ()
    n_left_out: int = 0
    n_bytes: int = 0


def build_slides(record: StudyRecord, *, max_slides: int, max_bytes: int) -> Slides:
    """Inline the views of the slides that have any, smaller ones where they would not fit, fewer at the last.

    Args:
        record: The study.
        max_slides: Most slides.
        max_bytes: Most bytes of all data URIs.
    """
    drawn = [(call, paths) for call in record.calls if (paths := _find_views(record.folder.slides / call.slide_id))]
    chosen = drawn[:max_slides]
    cards: list[SlideCard] = []
    for side_px in _SIDES_PX:
        cards = [card for call, paths in chosen if (card := _build_card(record, call, paths, side_px)) is not None]
        if sum(map(_weigh, cards)) <= max_bytes:
            break
    while cards and sum(map(_weigh, cards)) > max_bytes:
        cards.pop()
    return Slides(cards=tuple(cards), n_left_out=len(drawn) - len(cards), n_bytes=sum(map(_weigh, cards)))


def _find_views(folder: Path) -> dict[str, Path]:
    found = {
        name: next((p for end in ("jpg", "png") if (p := folder / f"{name}.{end}").exists()), None) for name in VIEWS
    }
    return {name: path for name, path in found.items() if path is not None}


def _build_card(record: StudyRecord, call: SlideCall, paths: dict[str, Path], side_px: int) -> SlideCard | None:
    """Return a slide's card; None where no view of it can be read."""
    read = {name: picture for name, path in paths.items() if (picture := _open(path)) is not None}
    names = list(read)
    pairs = tuple(Comparison(first=first, second=second) for first, second in itertools.pairwise(names))
    if not names:
        return None
    return SlideCard(
        call=call,
        name=call.slide_id,
        patient=call.patient_id,
        views={name: _inline(picture, side_px) for name, picture in read.items()},
        comparisons=pairs or (Comparison(first=names[0]),),
        ratio=round(read[names[0]].width / read[names[0]].height, 3),
    )


def _open(path: Path) -> Image.Image | None:
    """Return a picture's pixels; None where it cannot be read."""
    try:
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            return image.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        return None


def _inline(picture: Image.Image, side_px: int) -> str:
    """Return a picture as a JPEG data URI of nothing but pixels, its longer side at most `side_px` if that is not 0."""
    if side_px:
        picture = picture.copy()
        picture.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, format="JPEG", quality=_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"


def _weigh(card: SlideCard) -> int:
    """Return the bytes of a card's data URIs; a view under two sliders is inlined once."""
    return sum(map(len, card.views.values()))
