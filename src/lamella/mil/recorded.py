"""Steps by torch's own gradients: for any head, device, dropout, draw of tiles and number of slides a step."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lamella.cores import using_threads
from lamella.errors import SettingsError
from lamella.mil.batches import HELD_BYTES, Bag, Bags
from lamella.mil.heads import Head
from lamella.mil.settings import TrainSettings
from lamella.mil.standardise import Standardisation


class RecordedSteps:
    """Steps of a head, by autograd.

    Args:
        head: With its first weights, on the device.
        bags: Of all slides that will be asked for.
        standardisation: Of the training side.
        targets: Class index of each slide.
        weights: `(C,)` float64, of each class in the loss.
        settings: How to train.
        device: Where the head is.
    """

    def __init__(
        self,
        head: Head,
        bags: Mapping[str, Bag],
        standardisation: Standardisation,
        targets: Mapping[str, int],
        weights: NDArray[np.float64],
        settings: TrainSettings,
        device: torch.device,
    ) -> None:
        self._head, self._targets, self._settings, self._device = head, targets, settings, device
        self._number = {slide_id: number for number, slide_id in enumerate(bags)}
        n_bytes = 4 * sum(bag.size for bag in bags.values())
        hold = device.type == "cpu" and n_bytes <= HELD_BYTES
        self._bags = Bags(list(bags.values()), standardisation, device, hold=hold)
        self._weights = torch.as_tensor(weights, dtype=torch.float32, device=device)  # (C,)
        self._log_weights = torch.as_tensor(np.log(weights), dtype=torch.float64, device=device)  # (C,)

    def train(self, order: Sequence[str], optimiser: torch.optim.Optimizer, rng: np.random.Generator) -> float:
        """Take a step on every `batch_size` slides of `order`; return the mean weighted loss."""
        settings = self._settings
        self._head.train()
        total = 0.0
        for start in range(0, len(order), settings.batch_size):
            slides = order[start : start + settings.batch_size]
            optimiser.zero_grad(set_to_none=True)
            for bag, real, target in self._list_batches(slides, draw=settings.tiles_per_slide, rng=rng):
                # Divided by the slides, not by their weights: that would undo the weights within a step.
                loss = self._weights[target] * self._head.find_losses(bag, real, target)
                (loss.sum() / len(slides)).backward()  # type: ignore[no-untyped-call]
                total += float(loss.detach().sum())
            optimiser.step()
        return total / len(order)

    @torch.no_grad()
    def find_log_loss(self, slide_ids: Sequence[str]) -> float:
        """Return the mean log-loss of the corrected probabilities over slides."""
        self._head.eval()
        total = 0.0
        for bag, real, target in self._list_batches(slide_ids):
            logits = self._head(bag, real).logits.double() - self._log_weights  # (B, C)
            total += float(nn.functional.cross_entropy(logits, target, reduction="sum"))
        return total / len(slide_ids)

    def _list_batches(
        self, slide_ids: Sequence[str], *, draw: int | None = None, rng: np.random.Generator | None = None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield padded bags `(B, N, D)`, what is real in them `(B, N)`, and their classes `(B,)` int64."""
        numbers = [self._number[slide_id] for slide_id in slide_ids]
        for batch in self._bags.batches(numbers, max_tiles=self._settings.max_tiles, draw=draw, rng=rng):
            targets = [self._targets[slide_ids[place]] for place in batch.places]
            yield batch.bag, batch.real, torch.tensor(targets, device=self._device)


@contextmanager
def repeatably(settings: TrainSettings) -> Iterator[torch.device]:
    """Seed torch, fix its threads and ask for deterministic kernels; put everything back afterwards."""
    device = find_device(settings.device)
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda), using_threads(settings.n_threads):
        try:
            torch.manual_seed(settings.seed)
            # On CUDA this needs an environment variable set before the process starts, which is the user's to set.
            torch.use_deterministic_algorithms(device.type == "cpu" or deterministic, warn_only=warn_only)
            yield device
        finally:
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)


def find_device(name: str) -> torch.device:
    """Return the device called `name`.

    Raises:
        SettingsError: If it is not here.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise SettingsError(f"no device is called '{name}'. Set device to 'cpu' or 'cuda'.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SettingsError(f"device '{name}' is asked for but torch sees no CUDA device here. Set device to 'cpu'.")
    if device.type not in ("cpu", "cuda"):
        raise SettingsError(f"heads train on cpu or cuda, not on '{name}'. Set device to 'cpu'.")
    return device
