"""Attention as numbers: one small file a slide, from which every picture is drawn."""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lamella.errors import BagError
from lamella.features.h5_reading import Attribute, find_size, open_h5, read_array, read_attributes, read_corners
from lamella.features.h5_seal import refuse_changed, seal_h5
from lamella.features.h5_writing import writing_h5
from lamella.runs.facts import BagFacts


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class AttentionRecord:
    """Where a model looked on one slide.

    Attributes:
        slide_id: Which slide.
        attention: `(N,)` float32, sums to 1 over the bag.
        coords_l0: `(N, 2)` int64 corners `(x, y)`, level-0 pixels.
        tile_l0: `(width, height)` of a tile, level-0 pixels.
        tile_px: Side of a tile as the encoder saw it, pixels.
        mpp: Resolution the encoder saw, um per pixel; None where the bag does not state it (TRIDENT).
        slide_size: `(width, height)` of level 0, pixels; None where the bag does not state it.
        slide_mpp: `(x, y)` um per level-0 pixel; None where the bag does not state it (TRIDENT).
        key: What the attention was computed from; pictures of another key are drawn again.
        n_bag: Tiles of the bag over which attention sums to 1: those of all slides of a patient, where patients are
            predicted. None in files of earlier versions: the slide's own.
        image: Mark of the slide's file, as `mark_image` makes it; empty where the bag does not know its file.
    """

    slide_id: str
    attention: NDArray[np.float32]
    coords_l0: NDArray[np.int64]
    tile_l0: tuple[float, float]
    tile_px: int
    mpp: float | None
    slide_size: tuple[int, int] | None
    slide_mpp: tuple[float, float] | None
    key: str
    image: str = ""
    n_bag: int | None = None

    def is_of(self, quickhash: str) -> bool:
        """Say whether this is the attention on the slide of that hash, as far as that is known."""
        return not self.image or self.image == mark_image(self.key, quickhash)


def mark_image(key: str, quickhash: str) -> str:
    """Return what tells a slide's file from others without being its hash, which must not leave the house."""
    return hashlib.sha256(f"{key} {quickhash}".encode()).hexdigest()[:16]


def locate_attention(
    attention: NDArray[np.float32], coords_l0: NDArray[np.int64], facts: BagFacts, *, key: str
) -> AttentionRecord:
    """Return attention with where its tiles lie, from what the bag states of itself.

    Args:
        attention: `(N,)` float32.
        coords_l0: `(N, 2)` int64 corners `(x, y)`, level-0 pixels.
        facts: Of the bag.
        key: What the attention was computed from.

    Raises:
        BagError: If they do not say how large the tiles are.
    """
    if facts.tile_l0 is None or facts.tile_px is None:
        raise BagError(f"the bag of slide '{facts.slide_id}' does not say how large its tiles are. Extract it again.")
    is_ours = facts.slide_mpp is not None
    return AttentionRecord(
        slide_id=facts.slide_id,
        attention=attention,
        coords_l0=coords_l0,
        tile_l0=facts.tile_l0,
        tile_px=facts.tile_px,
        mpp=float(facts.mpp) if is_ours and facts.mpp is not None else None,
        slide_size=facts.slide_size,
        slide_mpp=facts.slide_mpp,
        key=key,
        image=mark_image(key, facts.slide_quickhash) if is_ours and facts.slide_quickhash is not None else "",
    )


def save_attention(record: AttentionRecord, path: Path) -> None:
    """Write a record, whole or not at all."""
    with writing_h5(path) as file:
        file["attention"] = record.attention
        file["coords"] = record.coords_l0
        file.attrs.update(
            {
                "slide_id": record.slide_id,
                "tile_l0": record.tile_l0,
                "tile_px": record.tile_px,
                "key": record.key,
                "image": record.image,
            }
        )
        n_bag = None if record.n_bag == len(record.attention) else record.n_bag
        known = {
            "mpp": record.mpp,
            "slide_size": record.slide_size,
            "slide_mpp": record.slide_mpp,
            "n_bag": n_bag,
        }
        file.attrs.update({name: value for name, value in known.items() if value is not None})
        seal_h5(file)


def load_attention(path: Path) -> AttentionRecord:
    """Return a record.

    Raises:
        BagError: If the file is absent or damaged.
    """
    with open_h5(path, made_by="lamella run") as file:
        if "attention" not in file:
            held = "a feature bag" if "features" in file else "something else"
            raise BagError(f"'{path.name}' is {held} and attention is wanted. Name a file of RUN/attention.")
        attributes = read_attributes(file)
        attention, coords_l0 = read_array(file, "attention").astype(np.float32), read_corners(file)
        if attention.shape != (len(coords_l0),):
            raise ValueError(f"attention of shape {attention.shape} for {len(coords_l0)} tiles")
        refuse_changed(file, {}, made_by="lamella run")
        tile_px = find_size(attributes, "tile_px")
        size, slide_mpp = (
            _pair(attributes[name]) if name in attributes else None for name in ("slide_size", "slide_mpp")
        )
        return AttentionRecord(
            slide_id=str(attributes["slide_id"]),
            attention=attention,
            coords_l0=coords_l0,
            tile_l0=_pair(attributes["tile_l0"]),
            tile_px=int(tile_px or 0),
            mpp=find_size(attributes, "mpp"),
            slide_size=None if size is None else (int(size[0]), int(size[1])),
            slide_mpp=slide_mpp,
            key=str(attributes["key"]),
            image=str(attributes.get("image", "")),
            n_bag=None if (n_bag := find_size(attributes, "n_bag")) is None else int(n_bag),
        )


def _pair(value: Attribute) -> tuple[float, float]:
    """Return two numbers above 0."""
    x, y = (float(number) for number in np.atleast_1d(value))
    if not (0 < x < math.inf and 0 < y < math.inf):
        raise ValueError(f"{x:g} x {y:g} is no size")
    return x, y
