"""Batches: bags of different lengths, padded and masked, bounded in memory."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lamella.errors import BagError
from lamella.features.rows import StoredRows
from lamella.mil.standardise import Standardisation

Bag = NDArray[np.floating] | StoredRows
HELD_BYTES = 3 * 2**30  # of bags that are kept standardised


class Batch(NamedTuple):
    """A few slides, padded to the longest."""

    bag: Tensor  # (B, N, D) float32, standardised; 0 on padding
    real: Tensor  # (B, N) bool, False on padding
    places: list[int]  # place of each slide in the sequence that was asked for


def check_bag(bag: Bag, *, what: str = "the bag") -> None:
    """Refuse a bag that cannot be read by a head.

    Raises:
        BagError: If it is not `(N, D)` with N and D at least 1, not floating, or holds NaN or infinity.
    """
    if bag.ndim != 2 or bag.shape[0] < 1 or bag.shape[1] < 1:
        raise BagError(
            f"{what} has shape {tuple(bag.shape)} and must be (tiles, features) with at least one "
            "tile. Look at the slide's tissue mask, or leave the slide out."
        )
    if not np.issubdtype(bag.dtype, np.floating):
        raise BagError(f"{what} holds {bag.dtype} and must hold float16 or float32. Extract it again.")
    if isinstance(bag, StoredRows):  # all of it was looked at when it was opened
        return
    with np.errstate(invalid="ignore", over="ignore"):
        finite = np.isfinite(bag.sum(axis=1, dtype=np.float64))
    if not finite.all():
        n_bad = int((~finite).sum())
        raise BagError(
            f"{what} has NaN or infinite features in {n_bad} of {len(bag)} tiles. Extract it again "
            "with --precision fp32, or leave the slide out."
        )


def check_widths(bags: Mapping[str, Bag]) -> int:
    """Check every bag and return the width D they share.

    Raises:
        BagError: If a bag cannot be read, or two differ in width.
    """
    first, width = "", 0
    for name, bag in bags.items():
        check_bag(bag, what=f"the bag of slide '{name}'")
        first, width = (name, bag.shape[1]) if not width else (first, width)
        if bag.shape[1] != width:
            raise BagError(
                f"the bag of slide '{name}' has {bag.shape[1]} features a tile and that of '{first}' has {width}. "
                "Extract both with the same encoder."
            )
    return width


def split_batch(lengths: Sequence[int], max_tiles: int) -> list[list[int]]:
    """Split slides into groups of at most `max_tiles` padded tiles; a longer slide is a group of its own.

    Args:
        lengths: Tiles of each slide.
        max_tiles: Most of (slides in a group) x (tiles of its longest).

    Returns:
        Groups of places in `lengths`; slides alike in length stand together, so that little is padded.

    Example:
        >>> split_batch([5, 90, 4, 6], max_tiles=20)
        [[2, 0, 3], [1]]
    """
    groups: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda i: (lengths[i], i)):
        # Sorted by length: the slide that joins is the longest, so it sets the padding.
        if groups and (len(groups[-1]) + 1) * lengths[place] <= max_tiles:
            groups[-1].append(place)
        else:
            groups.append([place])
    return groups


class Bags:
    """The bags of one data set, served as padded batches.

    Args:
        bags: Per slide `(N, D)`, float16 or float32; kept as they are, turned into float32 batch by batch.
        standardisation: Applied to each batch.
        device: Where batches go.
        hold: Keep what was standardised of slides that make a batch alone; without, it is done at each epoch, with the
            same result.
    """

    def __init__(
        self, bags: Sequence[Bag], standardisation: Standardisation, device: torch.device, *, hold: bool = False
    ) -> None:
        self.bags = list(bags)
        self.device = device
        self._hold = hold
        self._held: dict[int, Tensor] = {}
        self.mean = torch.from_numpy(standardisation.mean).to(device)  # (D,)
        self.sd = torch.from_numpy(standardisation.sd).to(device)  # (D,)

    def batches(
        self, order: Sequence[int], *, max_tiles: int, draw: int | None = None, rng: np.random.Generator | None = None
    ) -> Iterator[Batch]:
        """Yield the slides of `order` in padded batches of at most `max_tiles` tiles.

        Args:
            order: Places of the slides asked for.
            max_tiles: Most tiles in a batch, padding included.
            draw: Most tiles of a slide, drawn anew by `rng`; None takes all.
            rng: Source of the draw; needed with `draw`.
        """
        rows = [self._draw(self.bags[i], draw, rng) for i in order]
        for group in split_batch([len(bag) for bag in rows], max_tiles):
            if len(group) == 1 and rows[group[0]] is self.bags[order[group[0]]]:
                bag = self._read(order[group[0]])
                yield Batch(bag, torch.ones(bag.shape[:2], dtype=torch.bool, device=self.device), group)
                continue
            longest = max(len(rows[place]) for place in group)
            padded = np.zeros((len(group), longest, self.bags[0].shape[1]), np.float32)
            real = np.zeros((len(group), longest), bool)
            for slot, place in enumerate(group):
                padded[slot, : len(rows[place])] = rows[place][:]
                real[slot, : len(rows[place])] = True
            mask = torch.from_numpy(real).to(self.device)
            # In place: a bag of 10^5 tiles is held once, not four times.
            bag = torch.from_numpy(padded).to(self.device).sub_(self.mean).div_(self.sd).mul_(mask.unsqueeze(-1))
            yield Batch(bag, mask, group)

    def _read(self, number: int) -> Tensor:
        """Return a whole slide, `(1, N, D)` float32, standardised."""
        bag = self._held.get(number)
        if bag is None:
            rows = torch.from_numpy(self.bags[number][:].astype(np.float32)).to(self.device)
            bag = rows.sub_(self.mean).div_(self.sd).unsqueeze(0)
            if self._hold:
                self._held[number] = bag
        return bag

    @staticmethod
    def _draw(bag: Bag, draw: int | None, rng: np.random.Generator | None) -> Bag:
        """Return all rows, or `draw` of them."""
        if draw is None or rng is None or len(bag) <= draw:
            return bag
        return bag[np.sort(rng.choice(len(bag), draw, replace=False))]
