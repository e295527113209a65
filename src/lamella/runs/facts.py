"""What a bag states of itself, read once: where its tiles lie, how they were cut, what encoded them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from lamella.errors import BagError
from lamella.features.bag import FeatureBag
from lamella.files import parse_json

Number = int | float
# What identifies a bag's content: the slide's bytes, the cut and the encoder. Their order and types enter keys.
_IDENTITY = ("slide_sha256", "fingerprint", "tile_px", "mpp", "stride_px", "min_tissue", "tissue", "regions",
             "max_upsample", "slide_mpp_x", "slide_mpp_y", "dtype", "precision")  # fmt: skip


def _parse(value: str | None) -> object:
    """Return what an attribute holds that is JSON."""
    return parse_json(value) if isinstance(value, str) else value


class BagFacts(BaseModel):
    """What the file of a bag states, None where it does not: attributes of docs/formats.md.

    Of another tool's bag `slide_sha256` is that of its features, and `tile_width_l0` and `tile_height_l0` say how large
    its tiles are; our own bags say so by `slide_mpp_x` and `slide_mpp_y`. `tool` is the layout; `tile_magnification` is
    nominal, where another tool states it. Of a patient's bag `images` are the hashes of its slides' images.
    """

    model_config = ConfigDict(frozen=True)

    slide_id: str
    slide_sha256: str | None = None
    slide_quickhash: str | None = None
    slide_format: str | None = None
    slide_mpp_x: Number | None = None
    slide_mpp_y: Number | None = None
    slide_width: int | None = None
    slide_height: int | None = None
    tile_px: int | None = None
    mpp: Number | None = None
    mpp_seen: Number | None = None
    stride_px: Number | None = None
    min_tissue: Number | None = None
    tissue: str | None = None
    tissue_um2: Number | None = None
    regions: str | None = None
    max_upsample: Number | None = None
    tiles_per_slide: int | None = None
    ledger: Annotated[tuple[tuple[str, float, float], ...], BeforeValidator(_parse)] = ()
    colour: Annotated[tuple[float, ...] | None, BeforeValidator(_parse)] = None
    encoder: str | None = None
    weights: str | None = None
    fingerprint: str | None = None
    embedding_dim: int | None = None
    dtype: str | None = None
    runtime: str | None = None
    precision: str | None = None
    leak: str | None = None
    seen_salt: str | None = None
    seen_patients: tuple[str, ...] = ()
    tile_width_l0: float | None = None
    tile_height_l0: float | None = None
    tool: str | None = None
    tile_magnification: Number | None = None
    images: tuple[str, ...] = ()

    def list_images(self) -> tuple[str, ...]:
        """Return the hashes of the files that the bag is of: one, or those of a patient's slides."""
        return self.images or (self.image,)

    @property
    def slide_mpp(self) -> tuple[float, float] | None:
        """`(x, y)` um per level-0 pixel."""
        if self.slide_mpp_x is None or self.slide_mpp_y is None:
            return None
        return float(self.slide_mpp_x), float(self.slide_mpp_y)

    @property
    def slide_size(self) -> tuple[int, int] | None:
        """`(width, height)` of level 0, pixels."""
        return None if self.slide_width is None or self.slide_height is None else (self.slide_width, self.slide_height)

    @property
    def tile_l0(self) -> tuple[float, float] | None:
        """`(width, height)` of a tile, level-0 pixels."""
        if self.tile_px is None:
            return None
        if self.slide_mpp is not None and self.mpp is not None:
            side_um = self.tile_px * float(self.mpp)
            return side_um / self.slide_mpp[0], side_um / self.slide_mpp[1]
        if self.tile_width_l0 is None or self.tile_height_l0 is None:
            return None
        return self.tile_width_l0, self.tile_height_l0

    @property
    def image(self) -> str:
        """What tells the slide again: the hash of its file or, of another tool's bag, that of its features."""
        return self.slide_quickhash or ("" if self.tool == "lamella" else self.slide_sha256 or "")

    @property
    def colours(self) -> NDArray[np.float64] | None:
        """Mean and SD of red, green and blue over tissue, `(6,)`."""
        return None if self.colour is None else np.array(self.colour)

    @property
    def identity(self) -> list[str | Number | None]:
        """What identifies its content, but for how many tiles it has."""
        return [getattr(self, name) for name in _IDENTITY]

    def choose(self, names: Iterable[str]) -> dict[str, str | Number]:
        """Return attributes by name, in that order; without those that it does not state."""
        return {name: value for name in names if (value := getattr(self, name)) is not None}


def read_facts(bag: FeatureBag) -> BagFacts:
    """Return what a bag of ours states of itself.

    Raises:
        BagError: If an attribute is of another kind than is written.
    """
    try:
        return BagFacts.model_validate({**bag.provenance, "tool": bag.layout})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        said = f"{'.'.join(map(str, first['loc']))}: {first['msg'][:100]}"
        raise BagError(
            f"the bag of slide '{bag.slide_id}' is damaged ({said}). Delete it and run `lamella extract` again."
        ) from error


def refuse_mixture(folder: Path, facts: Iterable[BagFacts]) -> None:
    """Refuse bags that no model can learn from together.

    Raises:
        BagError: If they are of several encoders, or of several widths.
    """
    facts = list(facts)
    for name, what in (("fingerprint", "encoders"), ("encoder", "encoders"), ("embedding_dim", "widths")):
        values = sorted({str(getattr(bag, name)) for bag in facts} - {"None"})
        if len(values) > 1:
            raise BagError(
                f"the bags in '{folder.name}' are of {len(values)} different {what} ({values[0][:12]}, "
                f"{values[1][:12]}). Extract them anew with one."
            )
