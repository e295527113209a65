"""Attention as numbers: one small file a slide, from which every picture is drawn."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamella.errors import BagError
from lamella.features.bag import open_h5, read_attributes
from lamella.features.h5_writing import writing_h5


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class AttentionRecord:
    """Where a model looked on one slide.

    Attributes:
        slide_id: Which slide.
        attention: `(N,)` float32, sums to 1.
        coords_l0: `(N, 2)` int64 corners `(x, y)`, level-0 pixels.
        tile_l0: `(width, height)` of a tile, level-0 pixels.
        tile_px: Side of a tile as the encoder saw it, pixels.
        mpp: Resolution the encoder saw, um per pixel.
        slide_size: `(width, height)` of level 0, pixels.
        slide_mpp: `(x, y)` um per level-0 pixel.
        key: What the attention was computed from; pictures of another key are drawn again.
        image: Mark of the slide's file, as `mark_image` makes it; empty where the bag does not know its file.
    """

    slide_id: str
    attention: NDArray[np.float32]
    coords_l0: NDArray[np.int64]
    tile_l0: tuple[float, float]
    tile_px: int
    mpp: float
    slide_size: tuple[int, int]
    slide_mpp: tuple[float, float]
    key: str
    image: str = ""

    def is_of(self, quickhash: str) -> bool:
        """Say whether this is the attention on the slide of that hash, as far as that is known."""
        return not self.image or self.image == mark_image(self.key, quickhash)


def mark_image(key: str, quickhash: str) -> str:
    """Return what tells a slide's file from others without being its hash, which must not leave the house."""
    return hashlib.sha256(f"{key} {quickhash}".encode()).hexdigest()[:16]


def locate_attention(
    attention: NDArray[np.float32], coords_l0: NDArray[np.int64], provenance: Mapping[str, Any], *, key: str
) -> AttentionRecord:
    """Return attention with where its tiles lie, from what the bag states of itself.

    Args:
        attention: `(N,)` float32.
        coords_l0: `(N, 2)` int64 corners `(x, y)`, level-0 pixels.
        provenance: Attributes of the bag.
        key: What the attention was computed from.
    """
    slide_mpp = (float(provenance["slide_mpp_x"]), float(provenance["slide_mpp_y"]))
    side_um = float(provenance["tile_px"]) * float(provenance["mpp"])
    return AttentionRecord(
        slide_id=str(provenance["slide_id"]),
        attention=attention,
        coords_l0=coords_l0,
        tile_l0=(side_um / slide_mpp[0], side_um / slide_mpp[1]),
        tile_px=int(provenance["tile_px"]),
        mpp=float(provenance["mpp"]),
        slide_size=(int(provenance["slide_width"]), int(provenance["slide_height"])),
        slide_mpp=slide_mpp,
        key=key,
        image=mark_image(key, str(provenance["slide_quickhash"])) if "slide_quickhash" in provenance else "",
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
                "mpp": record.mpp,
                "slide_size": record.slide_size,
                "slide_mpp": record.slide_mpp,
                "key": record.key,
                "image": record.image,
            }
        )


def load_attention(path: Path) -> AttentionRecord:
    """Return a record.

    Raises:
        BagError: If the file is absent or damaged.
    """
    with open_h5(path, made_by="lamella run") as file:
        if "attention" not in file:
            held = "a feature bag" if "features" in file else "something else"
            raise BagError(f"'{path.name}' is {held} and attention is wanted. Name a file of RUN/attention.")
        attributes: dict[str, Any] = read_attributes(file)
        tile_l0, size, mpp = (attributes[key] for key in ("tile_l0", "slide_size", "slide_mpp"))
        return AttentionRecord(
            slide_id=str(attributes["slide_id"]),
            attention=file["attention"][:].astype(np.float32),
            coords_l0=file["coords"][:].astype(np.int64),
            tile_l0=(float(tile_l0[0]), float(tile_l0[1])),
            tile_px=int(attributes["tile_px"]),
            mpp=float(attributes["mpp"]),
            slide_size=(int(size[0]), int(size[1])),
            slide_mpp=(float(mpp[0]), float(mpp[1])),
            key=str(attributes["key"]),
            image=str(attributes.get("image", "")),
        )
