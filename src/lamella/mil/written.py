"""Steps by written-out gradients, a slide a step: the fast way for heads of one pool and one loss on a processor."""

import threading
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lamella.mil.batches import Bag
from lamella.mil.gradients import HeadGradients, count_rows, find_loss
from lamella.mil.heads import HEADS, Head
from lamella.mil.pools import AttentionPool, GatedAttentionPool, MaxPool, MeanPool
from lamella.mil.settings import TrainSettings
from lamella.mil.standardise import Standardisation

_ROWS = 4096  # standardised together
_POOLS = (AttentionPool, GatedAttentionPool, MaxPool, MeanPool)
_LAYERS = (nn.Linear, nn.ReLU, nn.Dropout)


def is_written_out(settings: TrainSettings) -> bool:
    """Say whether the written-out gradients take a head with these settings."""
    return (
        settings.batch_size == 1
        and settings.dropout == 0
        and settings.tiles_per_slide is None
        and settings.device == "cpu"
        and _knows_head(settings.head)
    )


@cache
def _knows_head(name: str) -> bool:
    with torch.device("meta"):  # no weights, and nothing drawn
        head = HEADS[name](1, 2, 0.0)
    return (
        type(head) is Head
        and type(head.pool) in _POOLS
        and all(type(layer) in _LAYERS for layer in head.embed.children())
    )


class Stopped(Exception):
    """Training was told to end before its time."""


class StandardRows:
    """Bags as the heads of one training side read them: standardised once, however many heads and epochs read them.

    Args:
        bags: Per slide `(N, D)` float16 or float32.
        standardisation: Of the training side.
        dtype: Of the products.
        n_readers: Heads that will read; what is held goes when the last one says `leave`.
        hold: Keep what was standardised; without, it is done anew at each read, with the same result.
    """

    def __init__(
        self,
        bags: Mapping[str, Bag],
        standardisation: Standardisation,
        dtype: torch.dtype,
        *,
        n_readers: int,
        hold: bool,
    ) -> None:
        self.standardisation = standardisation
        self.dtype = dtype
        self._bags, self._n_readers, self._hold = bags, n_readers, hold
        self._mean, self._sd = torch.from_numpy(standardisation.mean), torch.from_numpy(standardisation.sd)
        self._held: dict[str, Tensor] = {}
        self._lock = threading.Lock()

    def read(self, slide_id: str) -> tuple[Tensor, int]:
        """Return a slide's rows `(P, D)`, zero after its tiles, and how many tiles it has."""
        bag = self._bags[slide_id]
        rows = self._held.get(slide_id)
        if rows is None:
            rows = torch.zeros(count_rows(len(bag)), bag.shape[1], dtype=self.dtype)
            for start in range(0, len(bag), _ROWS):  # a large bag is not held twice
                part = torch.from_numpy(bag[start : start + _ROWS].astype(np.float32))
                rows[start : start + len(part)] = part.sub_(self._mean).div_(self._sd)
            if self._hold:
                self._held[slide_id] = rows
        return rows, len(bag)

    def leave(self) -> None:
        """Say that one reader is done."""
        with self._lock:
            self._n_readers -= 1
            if self._n_readers <= 0:
                self._held.clear()


class WrittenSteps:
    """Steps of a head, a slide each.

    Args:
        head: With its first weights.
        rows: The bags.
        targets: Class index of each slide.
        weights: `(C,)` float64, of each class in the loss.
        stop: Ends training when set, by `Stopped`.
    """

    def __init__(
        self,
        head: Head,
        rows: StandardRows,
        targets: Mapping[str, int],
        weights: NDArray[np.float64],
        stop: threading.Event,
    ) -> None:
        self._gradients = HeadGradients(head, rows.dtype)
        self._rows, self._targets, self._weights, self._stop = rows, targets, weights, stop

    @torch.no_grad()
    def train(self, order: Sequence[str], optimiser: torch.optim.Optimizer, rng: np.random.Generator) -> float:
        """Take a step on each slide of `order`; return the mean weighted loss."""
        total = 0.0
        for slide_id in order:
            rows, n_tiles = self._read(slide_id)
            target = self._targets[slide_id]
            loss, gradients = self._gradients.find_gradients(rows, n_tiles, target, float(self._weights[target]))
            for parameter, gradient in zip(self._gradients.parameters, gradients, strict=True):
                parameter.grad = gradient
            optimiser.step()
            self._gradients.refresh()
            total += loss
        return total / len(order)

    @torch.no_grad()
    def find_log_loss(self, slide_ids: Sequence[str]) -> float:
        """Return the mean log-loss of the corrected probabilities over slides."""
        log_weights = np.log(self._weights).tolist()
        total = 0.0
        for slide_id in slide_ids:
            logits = self._gradients.find_logits(*self._read(slide_id))
            corrected = [logit - shift for logit, shift in zip(logits, log_weights, strict=True)]
            total += find_loss(corrected, self._targets[slide_id])[1]
        return total / len(slide_ids)

    def _read(self, slide_id: str) -> tuple[Tensor, int]:
        if self._stop.is_set():
            raise Stopped
        return self._rows.read(slide_id)
