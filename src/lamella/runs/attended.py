"""The tiles of slides that a model attends most, read from the slides by their places in the bags."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamella.cohort import Cohort
from lamella.features.plan import CutSettings
from lamella.files import replacing
from lamella.finetune.tiles import ChosenTiles, SlideTiles, choose_top
from lamella.mil import SlideModel
from lamella.runs.bags import RunBags

_AT_ONCE = 64  # tiles read together
_ENCODED_AT_ONCE = 8


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class BagTiles:
    """The tiles that bags were made of.

    Attributes:
        cohort: For where the slides lie.
        bags: Of these slides.
        cut: How the tiles were cut.
    """

    cohort: Cohort
    bags: RunBags
    cut: CutSettings

    def choose(self, slide_ids: Sequence[str], model: SlideModel, k: int) -> SlideTiles:
        """Return the k tiles of each slide that a model attends most."""
        attention = {i: model.predict(self.bags.features[i]).attention for i in slide_ids}
        return self.take({i: choose_top(weights, k) for i, weights in attention.items()})

    def take(self, rows: Mapping[str, NDArray[np.int64]]) -> SlideTiles:
        """Return the tiles of slides by their rows in the bags."""
        slides = {slide.slide_id: slide for slide in self.cohort.slides}
        chosen = {i: ChosenTiles(slides[i], self.bags.corners_l0[i][numbers]) for i, numbers in rows.items()}
        return SlideTiles(chosen, self.cut.spec, max_upsample=self.cut.max_upsample)

    def encode(self, network: Any, slide_id: str) -> NDArray[np.float32]:
        """Encode all tiles of a slide, a few read at once."""
        n, parts = len(self.bags.features[slide_id]), []
        for start in range(0, n, _AT_ONCE):
            some = self.take({slide_id: np.arange(start, min(start + _AT_ONCE, n))})
            parts.append(encode_tiles(network, some.read(slide_id)))
        return np.concatenate(parts)


class AttendedTiles:
    """The most attended tiles of the training and validation slides of a fold; it can choose them again.

    Args:
        tiles: Of these slides.
        slide_ids: Which.
        model: Whose attention chooses.
        k: How many of each slide.
        folder: Where what was chosen again is kept, for a training that is killed.
    """

    def __init__(self, tiles: BagTiles, slide_ids: Sequence[str], model: SlideModel, k: int, folder: Path) -> None:
        self._tiles, self._slide_ids, self._model, self._k, self._folder = tiles, slide_ids, model, k, folder
        self._chosen = tiles.choose(slide_ids, model, k)

    def read(self, slide_id: str) -> NDArray[np.uint8]:
        """Return the tiles that stage 1 attends most, `(k, H, W, 3)` uint8."""
        return self._chosen.read(slide_id)

    def choose_again(self, network: Any, head: Any, epoch: int) -> SlideTiles:
        """Choose by the network as it is after an epoch, or take what was chosen then."""
        path = self._folder / f"after-{epoch}.npz"
        if not path.exists():
            model = dataclasses.replace(self._model, head=head)
            rows = {
                slide_id: choose_top(model.predict(self._tiles.encode(network, slide_id)).attention, self._k)
                for slide_id in self._slide_ids
            }
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.savez(file, **rows)  # type: ignore[arg-type]  # no slide is called `allow_pickle`
        with np.load(path, allow_pickle=False) as kept:
            return self._tiles.take({name: kept[name] for name in kept.files})


def encode_tiles(network: Any, tiles: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Encode `(n, H, W, 3)` uint8 tiles in torch, a few at once."""
    import torch

    with torch.inference_mode():
        parts = [
            network(torch.from_numpy(tiles[start : start + _ENCODED_AT_ONCE]).permute(0, 3, 1, 2).float())
            for start in range(0, len(tiles), _ENCODED_AT_ONCE)
        ]
        return torch.cat(parts).numpy()
