"""One head on its way to being trained, a slide a step, by written-out gradients.

It takes the steps that `fit_model` takes: same first weights, order of slides, optimiser, stopping and epoch kept.
"""

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lamella.mil.batches import Bag
from lamella.mil.gradients import HeadGradients, count_rows, find_loss
from lamella.mil.heads import Head
from lamella.mil.model import EpochRecord
from lamella.mil.settings import TrainSettings
from lamella.mil.standardise import Standardisation
from lamella.mil.train import check_finite

_ROWS = 4096  # standardised together


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


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Trainee:
    """A head and all that its training needs.

    Attributes:
        head: With its first weights; holds the best ones after `train`.
        settings: Its own.
        train: Slides to learn from.
        val: Slides that decide when to stop.
        targets: Class index of each slide.
        weights: `(C,)` float64, of each class in the loss.
        rows: The bags.
    """

    head: Head
    settings: TrainSettings
    train: tuple[str, ...]
    val: tuple[str, ...]
    targets: Mapping[str, int]
    weights: NDArray[np.float64]
    rows: StandardRows

    def fit(self, say: Callable[[], None], stop: threading.Event) -> tuple[tuple[EpochRecord, ...], int]:
        """Train, and leave the best weights in the head.

        Args:
            say: Called after each epoch.
            stop: Ends training when set.

        Returns:
            Every epoch, and the number of the best.

        Raises:
            ModelError: If the loss does not stay finite.
            Stopped: If `stop` was set.
        """
        rng = np.random.default_rng(self.settings.seed)
        gradients = HeadGradients(self.head, self.rows.dtype)
        optimiser = torch.optim.AdamW(
            gradients.parameters, lr=self.settings.lr, weight_decay=self.settings.weight_decay, fused=True
        )
        history: list[EpochRecord] = []
        best_loss, best_epoch = math.inf, 0
        best: list[Tensor] = []
        with torch.no_grad():
            for epoch in range(1, self.settings.epochs + 1):
                order = [self.train[place] for place in rng.permutation(len(self.train))]
                train_loss = self._train_epoch(order, gradients, optimiser, stop)
                val_loss = self._find_log_loss(gradients, stop) if self.val else None
                check_finite(train_loss, val_loss, epoch)
                history.append(EpochRecord(epoch=epoch, train_loss=train_loss, val_log_loss=val_loss))
                say()
                if val_loss is None or val_loss < best_loss:
                    best_loss, best_epoch = math.inf if val_loss is None else val_loss, epoch
                    best = [parameter.clone() for parameter in gradients.parameters]
                if epoch - best_epoch >= self.settings.patience:
                    break
            for parameter, kept in zip(gradients.parameters, best, strict=True):
                parameter.copy_(kept)
                parameter.grad = None
        return tuple(history), best_epoch

    def _train_epoch(
        self,
        order: Sequence[str],
        gradients: HeadGradients,
        optimiser: torch.optim.Optimizer,
        stop: threading.Event,
    ) -> float:
        """Take a step on each slide of `order`; return the mean weighted loss."""
        total = 0.0
        for slide_id in order:
            if stop.is_set():
                raise Stopped
            target = self.targets[slide_id]
            loss, found = gradients.find_gradients(*self.rows.read(slide_id), target, float(self.weights[target]))
            for parameter, gradient in zip(gradients.parameters, found, strict=True):
                parameter.grad = gradient
            optimiser.step()
            gradients.refresh()
            total += loss
        return total / len(order)

    def _find_log_loss(self, gradients: HeadGradients, stop: threading.Event) -> float:
        """Return the mean log-loss of the corrected probabilities over the validation slides."""
        log_weights = np.log(self.weights).tolist()
        total = 0.0
        for slide_id in self.val:
            if stop.is_set():
                raise Stopped
            logits = gradients.find_logits(*self.rows.read(slide_id))
            corrected = [logit - shift for logit, shift in zip(logits, log_weights, strict=True)]
            total += find_loss(corrected, self.targets[slide_id])[1]
        return total / len(self.val)
