"""Standardisation: embeddings to mean 0 and SD 1, learned on the training slides alone."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lamella.errors import BagError
from lamella.features.rows import StoredRows

SD_FLOOR = 0.1
_ROWS = 8192


@dataclass(frozen=True, slots=True, eq=False)
class Standardisation:
    """Mean and SD of each dimension of an embedding.

    Attributes:
        mean: `(D,)` float32.
        sd: `(D,)` float32, above 0.
    """

    mean: NDArray[np.float32]
    sd: NDArray[np.float32]


def find_standardisation(bags: Iterable[NDArray[np.floating]], *, floor: float = SD_FLOOR) -> Standardisation:
    """Find mean and SD of each dimension over bags, each *slide* weighted equally, however many tiles it has.

    A dimension that is nearly constant in these bags would be blown up by its tiny SD when a new slide moves it (seen
    on tissue of a new staining block: logits four times too large). So no SD is taken as smaller than `floor` times
    the median SD.

    Args:
        bags: `(N, D)` float16 or float32 each, N at least 1.
        floor: Smallest SD, as a share of the median of the SDs above 0.

    Raises:
        BagError: If there is no bag.

    Example:
        The second dimension hardly varies, so its SD is held at a tenth of the median:

        >>> bag = np.array([[-1, 5.000, -3], [1, 5.001, 3]], np.float32)
        >>> find_standardisation([bag]).sd
        array([1. , 0.1, 3. ], dtype=float32)
    """
    return combine_moments((find_moments(bag) for bag in bags), floor=floor)


def combine_moments(
    moments: Iterable[tuple[NDArray[np.float64], NDArray[np.float64]]], *, floor: float = SD_FLOOR
) -> Standardisation:
    """Find the standardisation from the moments of each slide, as `find_moments` gives them.

    Raises:
        BagError: If there is no slide.
    """
    n_slides, mean, square = 0, np.zeros(0), np.zeros(0)
    for own_mean, own_square in moments:
        if n_slides == 0:
            mean, square = np.zeros_like(own_mean), np.zeros_like(own_mean)
        mean += own_mean
        square += own_square
        n_slides += 1
    if n_slides == 0:
        raise BagError(
            "there are no bags to learn the standardisation from; at least 1 is needed. Pass training slides."
        )
    mean /= n_slides
    sd = np.sqrt(np.maximum(square / n_slides - mean**2, 0))
    # Sums of squares leave rounding of this size where a dimension is constant.
    sd[sd <= 1e-7 * np.abs(mean)] = 0
    typical = float(np.median(sd[sd > 0])) if np.any(sd > 0) else 1.0
    sd = np.maximum(sd, floor * typical) if np.any(sd > 0) else np.ones_like(sd)
    sd[sd == 0] = typical  # only without a floor
    return Standardisation(mean.astype(np.float32), sd.astype(np.float32))


def find_moments(bag: NDArray[np.floating] | StoredRows) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean and the mean square of each dimension, `(D,)` float64, a few thousand rows at a time."""
    total, square = np.zeros(bag.shape[1]), np.zeros(bag.shape[1])
    for start in range(0, len(bag), _ROWS):
        rows = bag[start : start + _ROWS].astype(np.float64)
        total += rows.sum(axis=0)
        square += np.einsum("nd,nd->d", rows, rows)
    return total / len(bag), square / len(bag)
