"""Settings of training, in one frozen piece that is saved with the model."""

import difflib
import math
from dataclasses import dataclass
from typing import get_args

from lamella.defaults import EPOCHS, HEAD, LR, PATIENCE, WEIGHT_DECAY, HeadName
from lamella.errors import SettingsError

HEAD_NAMES: tuple[str, ...] = get_args(HeadName)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """How a head is trained.

    Attributes:
        head: How tiles are pooled: "attention" (HistoTransfer 2021), "ilse", "gated" (Ilse et al. 2018), "mean", "max",
            "clam-sb" (Lu et al. 2021), "transmil" (Shao et al. 2021), "additive" (Javed et al. 2022).
        epochs: Most passes over the training slides.
        patience: Training stops when the validation log-loss has not improved for this many epochs.
        lr: Learning rate of Adam.
        weight_decay: Decoupled weight decay (AdamW); 0 is Adam.
        dropout: Share of features dropped after each layer of the embedding, 0 to below 1.
        batch_size: Slides in one step.
        tiles_per_slide: A random draw of at most this many tiles a slide and epoch; None takes all.
        max_tiles: Most tiles, padding included, held at once; a step with more is computed in parts and its gradients
            are added, so this changes memory, not the method. A single longer slide is still taken whole.
        seed: Of the first weights, the order of slides, dropout and the draw of tiles.
        n_threads: CPU threads: heads that train side by side, one a thread; inside one head only where its steps are
            torch's own (dropout, several slides a step, draws of tiles), repeatable bit for bit for one count.
        device: "cpu", "cuda" or "cuda:1", where the head is trained; a trained model predicts on the CPU.

    Raises:
        SettingsError: If a value cannot be used.
    """

    head: str = HEAD
    epochs: int = EPOCHS
    patience: int = PATIENCE
    lr: float = LR
    weight_decay: float = WEIGHT_DECAY
    dropout: float = 0.0
    batch_size: int = 1
    tiles_per_slide: int | None = None
    max_tiles: int = 16384
    seed: int = 0
    n_threads: int = 1
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Refuse what cannot train."""
        if self.head not in HEAD_NAMES:
            nearest = difflib.get_close_matches(str(self.head), HEAD_NAMES, n=1, cutoff=0.0)[0]
            raise SettingsError(
                f"no head is called '{self.head}'. The nearest is '{nearest}'; there are {', '.join(HEAD_NAMES)}."
            )
        for name in ("epochs", "patience", "batch_size", "max_tiles", "n_threads"):
            if getattr(self, name) < 1:
                raise SettingsError(
                    f"{name} is {getattr(self, name)} and must be at least 1. Leave it out for the default."
                )
        if self.tiles_per_slide is not None and self.tiles_per_slide < 1:
            raise SettingsError(
                f"tiles_per_slide is {self.tiles_per_slide} and must be at least 1, or None for all tiles."
            )
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise SettingsError(f"learning rate is {self.lr} and must be above 0. Pass --lr 0.001.")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise SettingsError(f"weight decay is {self.weight_decay} and must be 0 or more. Set weight_decay to 0.01.")
        if not 0 <= self.dropout < 1:
            raise SettingsError(f"dropout is {self.dropout} and must be from 0 to below 1. Set dropout to 0.25.")
