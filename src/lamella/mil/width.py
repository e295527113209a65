"""Embeddings brought to one width, so that a wide encoder does not win by its width alone."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lamella.errors import SettingsError
from lamella.mil.batches import Bag
from lamella.mil.heads import Head
from lamella.mil.model import SlideModel
from lamella.mil.standardise import Standardisation


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """The first principal components of training tiles.

    Attributes:
        mean: `(D,)` float32, the mean tile, each slide weighing the same.
        axes: `(D, W)` float32, orthonormal columns, of the largest variance first.
    """

    mean: NDArray[np.float32]
    axes: NDArray[np.float32]

    def apply(self, bag: Bag) -> NDArray[np.float32]:
        """Return a bag `(N, D)` as `(N, W)` float32."""
        projected: NDArray[np.float32] = np.matmul(bag[:].astype(np.float32) - self.mean, self.axes, dtype=np.float32)
        return projected


def fit_projection(bags: Iterable[Bag], width: int) -> Projection | None:
    """Fit principal components to the tiles of training slides, each slide weighing the same.

    Args:
        bags: Of the training slides of one fold alone, `(N, D)` each; at least one.
        width: W.

    Returns:
        The projection; None where the embeddings are no wider than that, and are left as they are.

    Raises:
        SettingsError: If the width is less than 1.
    """
    if width < 1:
        raise SettingsError(f"width is {width} and must be at least 1. Set it to 64 or 256.")
    first: NDArray[np.float64] | None = None
    second: NDArray[np.float64] | None = None
    n_slides = 0
    for bag in bags:
        rows = bag[:].astype(np.float64)
        if rows.shape[1] <= width:
            return None
        mean, square = rows.mean(axis=0), rows.T @ rows / len(rows)
        first, second = (mean, square) if first is None or second is None else (first + mean, second + square)
        n_slides += 1
    if first is None or second is None:
        raise SettingsError("there are no training slides to fit principal components to. Use fewer folds.")
    mean = first / n_slides
    _, vectors = np.linalg.eigh(second / n_slides - np.outer(mean, mean))  # ascending
    axes = vectors[:, ::-1][:, :width]
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(width)])  # an axis has no direction of its own
    return Projection(mean.astype(np.float32), (axes * signs).astype(np.float32))


def read_whole(model: SlideModel, projection: Projection) -> SlideModel:
    """Return a model that was trained on narrowed embeddings as one that reads the embeddings themselves.

    The projection and the standardisation behind it become the first layer of its head, which was not trained: so the
    model predicts, is mapped, saved and exported as any other.

    Args:
        model: Trained on what `projection` makes of its bags, `(N, W)` each.
        projection: From D to W.
    """
    standard = model.standardisation
    head = put_layer_before(copy.deepcopy(model.head), *projection.axes.shape)
    sd = standard.sd.astype(np.float64)
    with torch.no_grad():
        layer = head.embed[0]  # type: ignore[index]
        layer.weight.copy_(torch.from_numpy((projection.axes / sd).T))
        layer.bias.copy_(torch.from_numpy(-standard.mean / sd))
    return replace(
        model,
        head=head.eval().requires_grad_(False),  # noqa: FBT003 - torch's own signature
        standardisation=Standardisation(projection.mean, np.ones_like(projection.mean)),
        width=projection.axes.shape[1],
    )


def put_layer_before(head: Head, dim: int, width: int) -> Head:
    """Return a head of embeddings of W numbers with a layer from D to W before it."""
    head.embed = nn.Sequential(nn.Linear(dim, width), head.embed)
    return head
