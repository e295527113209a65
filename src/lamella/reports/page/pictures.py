"""The slides of a page as HTML needs them: their pictures inlined, as many and as large as fit."""

import base64
import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from lamella.files import find_inside
from lamella.reports.draw.pictures import load_body
from lamella.reports.page.parts import Card, Picture, Slides

_SIDES_PX = ((0, 1300), (560, 1100), (460, 900), (380, 700), (300, 560))  # of views (0: as it lies there), of others
_QUALITY = 80


@dataclass(frozen=True, slots=True, kw_only=True)
class Inlined:
    """A picture as a data URI."""

    name: str
    uri: str
    is_folded: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownCard:
    """A slide as the page shows it.

    Attributes:
        card: The slide.
        views: Its views of one frame.
        pairs: Which two of these are laid under a slider; a single view stands alone.
        others: Its other pictures.
        ratio: Width of a view by its height.
    """

    card: Card
    views: tuple[Inlined, ...]
    pairs: tuple[tuple[Inlined, Inlined], ...]
    others: tuple[Inlined, ...]
    ratio: float

    @property
    def n_bytes(self) -> int:
        """Of its data URIs; a view under two sliders is inlined once."""
        return sum(len(picture.uri) for picture in (*self.views, *self.others))


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownSlides:
    """What a page shows of its slides.

    Attributes:
        cards: The slides.
        n_left_out: Slides that are not shown.
        n_unreadable: Slides of which a picture cannot be read.
    """

    cards: tuple[ShownCard, ...] = ()
    n_left_out: int = 0
    n_unreadable: int = 0


def inline_slides(slides: Slides, folder: Path, *, max_slides: int, max_bytes: int) -> ShownSlides:
    """Inline the pictures of slides, smaller ones where they would not fit, fewer at the last.

    Args:
        slides: What the page speaks of.
        folder: Where the pictures lie.
        max_slides: Most slides.
        max_bytes: Most bytes of all data URIs.
    """
    opened = [(card, _open_all(card, folder)) for card in slides.cards[:max_slides]]
    n_unreadable = sum(len(pictures) < len(card.pictures) for card, pictures in opened)
    opened = [(card, pictures) for card, pictures in opened if pictures]
    shown: list[ShownCard] = []
    for view_px, other_px in _SIDES_PX:
        shown = [_build_card(card, pictures, view_px, other_px) for card, pictures in opened]
        if sum(card.n_bytes for card in shown) <= max_bytes:
            break
    while shown and sum(card.n_bytes for card in shown) > max_bytes:
        shown.pop()
    return ShownSlides(cards=tuple(shown), n_left_out=len(slides.cards) - len(shown), n_unreadable=n_unreadable)


def _open_all(card: Card, folder: Path) -> list[tuple[Picture, Image.Image]]:
    return [(picture, pixels) for picture in card.pictures if (pixels := _open(picture, folder)) is not None]


def _open(picture: Picture, folder: Path) -> Image.Image | None:
    """Return a picture's pixels, of a sheet those within its margins; None where it cannot be read."""
    path = find_inside(folder, picture.path)
    if path is None:
        return None
    try:
        body = None if picture.is_view else load_body(path)
        if body is not None:
            return Image.fromarray(body)
        with Image.open(path, formats=("PNG", "JPEG")) as image:
            return image.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        return None


def _build_card(card: Card, pictures: Sequence[tuple[Picture, Image.Image]], view_px: int, other_px: int) -> ShownCard:
    views = [(picture, pixels) for picture, pixels in pictures if picture.is_view]
    inlined = tuple(_inline(picture, pixels, view_px) for picture, pixels in views)
    ratio = round(views[0][1].width / views[0][1].height, 3) if views else 1.0
    return ShownCard(
        card=card,
        views=inlined,
        pairs=tuple(itertools.pairwise(inlined)),
        others=tuple(_inline(picture, pixels, other_px) for picture, pixels in pictures if not picture.is_view),
        ratio=ratio,
    )


def _inline(picture: Picture, pixels: Image.Image, side_px: int) -> Inlined:
    """Return a picture as a JPEG data URI of nothing but pixels, its longer side at most `side_px` if that is not 0."""
    if side_px and max(pixels.size) > side_px:
        pixels = pixels.copy()
        pixels.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    Image.fromarray(np.asarray(pixels)).save(stream, format="JPEG", quality=_QUALITY, optimize=True)
    encoded = base64.b64encode(stream.getvalue()).decode("ascii")
    return Inlined(name=picture.name, uri=f"data:image/jpeg;base64,{encoded}", is_folded=picture.folded)
