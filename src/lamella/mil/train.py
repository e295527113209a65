"""Training: from bags and slide labels to a model.

Nothing here sees the test slides: standardisation and class weights come from the training slides, stopping from the
validation slides.
"""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lamella.cores import using_threads
from lamella.errors import BagError, CohortError, ModelError, SettingsError
from lamella.mil.batches import Bag, Bags, check_widths
from lamella.mil.heads import HEADS, Head
from lamella.mil.model import EpochRecord, SlideModel, TrainingRecord
from lamella.mil.settings import TrainSettings
from lamella.mil.standardise import find_standardisation
from lamella.progress import Progress, SilentProgress


def fit_model(
    bags: Mapping[str, Bag],
    labels: Mapping[str, str],
    *,
    train: Sequence[str],
    val: Sequence[str],
    classes: Sequence[str],
    settings: TrainSettings | None = None,
    progress: Progress | None = None,
) -> SlideModel:
    """Fit a head to bags of labelled slides.

    The loss weighs each class by the inverse of its share, so that a rare class counts. That shifts the logits by the
    log of the weight, which is taken off again before any probability (King and Zeng 2001): what the model returns
    holds at the training prevalence. The epoch kept is the one of the lowest validation log-loss of these *corrected*
    probabilities: what is reported is what is chosen by, and the log-loss rewards the true probability, not a good
    order alone. The same bags, settings and `n_threads` give the same model bit for bit on one machine (on CUDA as
    far as its kernels do).

    Args:
        bags: Per slide id `(N, D)` float16 or float32; each is looked up once and held in memory.
        labels: Class of each slide of `train` and `val`.
        train: Slides to learn from; each class must be among them.
        val: Slides that decide when to stop; may be empty, then the last epoch is kept.
        classes: All classes, in the order of the logits.
        settings: How to train; None is the defaults.
        progress: Told of each epoch.

    Returns:
        The model, on the CPU, with `training` filled; `provenance` is the caller's to add.

    Raises:
        CohortError: If a slide is in both splits, has no label, or a class is missing from `train`.
        BagError: If a bag is missing, empty, holds NaN, or differs in width.
        ModelError: If the loss does not stay finite.
        SettingsError: If the device is not there.
    """
    settings = settings or TrainSettings()
    targets = find_targets(labels, train, val, classes)
    held = {slide_id: find_bag(bags, slide_id) for slide_id in (*train, *val)}
    width = check_widths(held)
    standardisation = find_standardisation(held[slide_id] for slide_id in train)
    weights = find_class_weights(targets[: len(train)], len(classes))
    with _repeatably(settings) as device:
        data = Bags([held[slide_id] for slide_id in (*train, *val)], standardisation, device)
        head = HEADS[settings.head](width, len(classes), settings.dropout).to(device)
        fit = _Fit(head, data, targets, weights, settings)
        history, best_epoch = fit.run(len(train), progress or SilentProgress())
        head = head.cpu().eval().requires_grad_(False)  # noqa: FBT003 - torch's own signature
    record = TrainingRecord(
        train=tuple(train),
        val=tuple(val),
        class_weights=tuple(weights.tolist()),
        best_epoch=best_epoch,
        history=history,
    )
    return SlideModel(
        classes=tuple(classes), settings=settings, head=head, standardisation=standardisation, training=record
    )


def find_class_weights(targets: NDArray[np.int64], n_classes: int) -> NDArray[np.float64]:
    """Return the weight of each class, `(C,)`: the inverse of its share, so that the mean over slides is 1.

    Example:
        >>> find_class_weights(np.array([0, 0, 0, 1]), 2).round(3).tolist()
        [0.667, 2.0]
    """
    counts = np.bincount(targets, minlength=n_classes)
    return len(targets) / (n_classes * counts)


@dataclass
class _Fit:
    """One training run: the parts that every step needs."""

    head: Head
    data: Bags
    targets: NDArray[np.int64]
    weights: NDArray[np.float64]
    settings: TrainSettings

    def run(self, n_train: int, progress: Progress) -> tuple[tuple[EpochRecord, ...], int]:
        """Train on the first `n_train` slides, watch the others; leave the best weights in the head."""
        settings = self.settings
        rng = np.random.default_rng(settings.seed)
        # Fused: a step of one small slide costs half as much.
        optimiser = torch.optim.AdamW(
            self.head.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True
        )
        val = range(n_train, len(self.targets))
        history: list[EpochRecord] = []
        best_loss, best_epoch, best = math.inf, 0, copy.deepcopy(self.head.state_dict())
        with progress.stage("train", settings.epochs, "epochs") as stage:
            for epoch in range(1, settings.epochs + 1):
                train_loss = self._train_epoch(rng.permutation(n_train), optimiser, rng)
                val_loss = self._find_log_loss(val) if val else None
                check_finite(train_loss, val_loss, epoch)
                history.append(EpochRecord(epoch=epoch, train_loss=train_loss, val_log_loss=val_loss))
                stage.advance()
                if val_loss is None or val_loss < best_loss:
                    best_loss, best_epoch = math.inf if val_loss is None else val_loss, epoch
                    best = copy.deepcopy(self.head.state_dict())
                if epoch - best_epoch >= settings.patience:
                    break
        self.head.load_state_dict(best)
        return tuple(history), best_epoch

    def _train_epoch(
        self, order: NDArray[np.int64], optimiser: torch.optim.Optimizer, rng: np.random.Generator
    ) -> float:
        """Go once over the slides of `order`; return the mean weighted loss."""
        settings = self.settings
        weights = torch.as_tensor(self.weights, dtype=torch.float32, device=self.data.device)  # (C,)
        self.head.train()
        total = 0.0
        for start in range(0, len(order), settings.batch_size):
            step = order[start : start + settings.batch_size]
            optimiser.zero_grad(set_to_none=True)
            for bag, real, places in self.data.batches(
                step.tolist(), max_tiles=settings.max_tiles, draw=settings.tiles_per_slide, rng=rng
            ):
                target = self._target(step[places])
                # Divided by the slides, not by their weights: that would undo the weights within a step.
                loss = nn.functional.cross_entropy(self.head(bag, real).logits, target, weights, reduction="none")
                (loss.sum() / len(step)).backward()  # type: ignore[no-untyped-call]
                total += float(loss.detach().sum())
            optimiser.step()
        return total / len(order)

    @torch.no_grad()
    def _find_log_loss(self, order: Sequence[int]) -> float:
        """Return the mean log-loss of the corrected probabilities over the slides of `order`."""
        self.head.eval()
        log_weights = torch.as_tensor(np.log(self.weights), dtype=torch.float64, device=self.data.device)  # (C,)
        total = 0.0
        for bag, real, places in self.data.batches(order, max_tiles=self.settings.max_tiles):
            logits = self.head(bag, real).logits.double() - log_weights  # (B, C)
            target = self._target(np.asarray(order)[places])
            total += float(nn.functional.cross_entropy(logits, target, reduction="sum"))
        return total / len(order)

    def _target(self, order: NDArray[np.int64]) -> Tensor:
        """Return the classes of some slides, `(B,)` int64, on the device."""
        return torch.as_tensor(self.targets[order], device=self.data.device)


def find_targets(
    labels: Mapping[str, str], train: Sequence[str], val: Sequence[str], classes: Sequence[str]
) -> NDArray[np.int64]:
    """Return the class index of each training slide, then of each validation slide."""
    both = sorted(set(train) & set(val))
    if both:
        raise CohortError(f"slide '{both[0]}' is in both train and val. Run: lamella split COHORT --out NEW")
    places = {name: place for place, name in enumerate(classes)}
    if len(places) < 2:
        raise CohortError(f"there is {len(places)} class and at least 2 are needed. Look at the label column.")
    for slide_id in (*train, *val):
        if labels.get(slide_id) not in places:
            raise CohortError(
                f"slide '{slide_id}' has label '{labels.get(slide_id)}' and must have one of "
                f"{', '.join(map(repr, classes))}. Correct the label column."
            )
    targets = np.array([places[labels[slide_id]] for slide_id in (*train, *val)], dtype=np.int64)
    missing = sorted(set(classes) - {labels[slide_id] for slide_id in train})
    if missing:
        raise CohortError(
            f"class '{missing[0]}' has no slide among the {len(train)} of train. Use fewer folds, or other splits."
        )
    return targets


def find_bag(bags: Mapping[str, Bag], slide_id: str) -> Bag:
    """Look a bag up, once."""
    try:
        return np.asarray(bags[slide_id])
    except KeyError as error:
        raise BagError(f"slide '{slide_id}' has no bag. Run: lamella extract, or leave the slide out.") from error


def check_finite(train_loss: float, val_loss: float | None, epoch: int) -> None:
    """Refuse to go on with a loss that is not a number."""
    if not (math.isfinite(train_loss) and (val_loss is None or math.isfinite(val_loss))):
        raise ModelError(
            f"training left the finite numbers in epoch {epoch} (loss {train_loss}, validation {val_loss}). "
            "Pass a smaller learning rate, --lr 0.0001."
        )


@contextmanager
def _repeatably(settings: TrainSettings) -> Iterator[torch.device]:
    """Seed torch, fix its threads and ask for deterministic kernels; put everything back afterwards."""
    device = _find_device(settings.device)
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


def _find_device(name: str) -> torch.device:
    """Return the device called `name`."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise SettingsError(f"no device is called '{name}'. Pass --device cpu or --device cuda.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SettingsError(f"device '{name}' is asked for but torch sees no CUDA device here. Pass --device cpu.")
    if device.type not in ("cpu", "cuda"):
        raise SettingsError(f"heads train on cpu or cuda, not on '{name}'. Pass --device cpu.")
    return device
