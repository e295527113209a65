"""The loop that trains a head, however its steps are computed: order of slides, optimiser, stopping, epoch kept."""

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch

from lamella.errors import ModelError
from lamella.mil.heads import Head
from lamella.mil.model import EpochRecord
from lamella.mil.settings import TrainSettings


class Steps(Protocol):
    """How a head learns from slides."""

    def train(self, order: Sequence[str], optimiser: torch.optim.Optimizer, rng: np.random.Generator) -> float:
        """Go once over the slides of `order`; return the mean weighted loss."""

    def find_log_loss(self, slide_ids: Sequence[str]) -> float:
        """Return the mean log-loss of the corrected probabilities over slides."""


def train_head(
    head: Head,
    steps: Steps,
    settings: TrainSettings,
    *,
    train: Sequence[str],
    val: Sequence[str],
    say: Callable[[], None],
) -> tuple[tuple[EpochRecord, ...], int]:
    """Train a head and leave its best weights in it.

    Args:
        head: With its first weights.
        steps: Of this head.
        settings: How to train.
        train: Slides to learn from.
        val: Slides that decide when to stop; may be empty, then the last epoch is kept.
        say: Called after each epoch.

    Returns:
        Every epoch, and the number of the best.

    Raises:
        ModelError: If the loss does not stay finite.
    """
    rng = np.random.default_rng(settings.seed)
    # Fused: a step of one small slide costs half as much.
    optimiser = torch.optim.AdamW(head.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True)
    history: list[EpochRecord] = []
    best_loss, best_epoch = math.inf, 0
    best: dict[str, torch.Tensor] = {}
    for epoch in range(1, settings.epochs + 1):
        order = [train[number] for number in rng.permutation(len(train))]
        train_loss = steps.train(order, optimiser, rng)
        val_loss = steps.find_log_loss(val) if val else None
        _check_finite(train_loss, val_loss, epoch)
        history.append(EpochRecord(epoch=epoch, train_loss=train_loss, val_log_loss=val_loss))
        say()
        if val_loss is None or val_loss < best_loss:
            best_loss, best_epoch = math.inf if val_loss is None else val_loss, epoch
            best = {name: weight.clone() for name, weight in head.state_dict().items()}
        if epoch - best_epoch >= settings.patience:
            break
    head.load_state_dict(best)
    optimiser.zero_grad(set_to_none=True)
    return tuple(history), best_epoch


def _check_finite(train_loss: float, val_loss: float | None, epoch: int) -> None:
    """Refuse to go on with a loss that is not a number."""
    if not (math.isfinite(train_loss) and (val_loss is None or math.isfinite(val_loss))):
        raise ModelError(
            f"training left the finite numbers in epoch {epoch} (loss {train_loss}, validation {val_loss}). "
            "Pass a smaller learning rate, --lr 0.0001."
        )
