"""What fine-tuning is given: the tiles of slides, their classes, and where its state is kept."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from lamella.encoders.network import TileNetwork
from lamella.mil.heads import Head


class TileSource(Protocol):
    """Where the most attended tiles of slides come from."""

    def read(self, slide_id: str) -> NDArray[np.uint8]:
        """Return `(k, H, W, 3)` uint8 RGB, always the same tiles in the same order; called from other threads."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledSlides:
    """Slides to train on.

    Attributes:
        targets: Number of the class of each slide, in the order of the model's classes.
        train: Slides to learn from.
        val: Slides that decide when to stop; may be empty, then the last epoch is kept.
    """

    targets: dict[str, int]
    train: tuple[str, ...]
    val: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FitPlaces:
    """Where a training keeps what it needs to go on after a kill; each must be of this very training.

    Attributes:
        checkpoint: File of the state after the last epoch; None keeps none.
        maps: Folder of the maps that enter the trained blocks, with `train_blocks`; None computes them each time.
        name: What the training is called where progress is told.
    """

    checkpoint: Path | None = None
    maps: Path | None = None
    name: str = "fine-tune"


@runtime_checkable
class ChoosingSource(TileSource, Protocol):
    """A source that can choose the tiles again."""

    def choose_again(self, network: TileNetwork, head: Head, epoch: int) -> TileSource:
        """Choose by network and head as they are after an epoch; asked again for the same epoch, give the same."""
        ...
