"""Class activation maps that add up: a slide's contrast, split exactly into cells of its tiles' feature maps.

With the attention and the ReLU masks of the head held as they are, the head is linear in every embedding, and an
embedding is the mean of its feature map. So the contrast of a class (its logit less the mean of the other classes')
is a sum: one term a cell, one a tile, and a constant (after Zhou et al. 2016, carried through the pooling over tiles).

    contrast = sum_ip (1/P) G_i . (f_ip - mu)  +  sum_i b_i  +  c

G_i is the attention of tile i times the masked head's row in units of the embedding, f_ip the feature vector of cell p
of P, mu the mean training tile. What is not split is how attention came about; Grad-CAM lets that vary too.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lamella.errors import ModelError
from lamella.mil import SlideModel
from lamella.mil.pools import MaxPool

_ROWS = 4096


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ContrastSplit:
    """The contrast of one class on one slide, taken apart.

    Attributes:
        gradient: `(N, D)` float32, what a unit of each feature of each tile adds: `G_i`.
        centre: `(D,)` float32, the mean training tile, `mu`.
        tile_bias: `(N,)` float64, what each tile adds wherever one looks in it.
        constant: What is there without any tile.
        contrast: The logit of the class less the mean of the others', class weights taken off.
    """

    gradient: NDArray[np.float32]
    centre: NDArray[np.float32]
    tile_bias: NDArray[np.float64]
    constant: float
    contrast: float


def split_contrast(models: Sequence[SlideModel], features: NDArray[np.floating], *, target: int) -> ContrastSplit:
    """Split the contrast of a class, averaged over models, by tile and by feature.

    Args:
        models: At least one, of the same classes; those of one fold, or of all.
        features: `(N, D)` embeddings of the slide, float32 for sums that are exact to rounding.
        target: Number of the class.

    Raises:
        ModelError: If a head is not linear between its ReLUs, as all of Lamella's are.
    """
    n_tiles, width = features.shape
    gradient = np.zeros((n_tiles, width), dtype=np.float32)
    offset = np.zeros(n_tiles)  # beside gradient . x
    constants, contrasts = [], []
    for model in models:
        constant, contrast = _split_one(model, features, target, (gradient, offset), share=1 / len(models))
        constants.append(constant)
        contrasts.append(contrast)
    centre = np.mean([model.standardisation.mean for model in models], axis=0).astype(np.float32)
    return ContrastSplit(
        gradient=gradient,
        centre=centre,
        tile_bias=offset + (gradient @ centre).astype(np.float64),
        constant=float(np.mean(constants)),
        contrast=float(np.mean(contrasts)),
    )


def find_gradient(
    models: Sequence[SlideModel], features: NDArray[np.floating], *, target: int
) -> tuple[NDArray[np.float32], float]:
    """Return the gradient of a class's contrast by each tile's embedding, attention free to vary (for Grad-CAM).

    Args:
        models: At least one, of the same classes.
        features: `(N, D)` embeddings of the slide.
        target: Number of the class.

    Returns:
        `(N, D)` float32, and the contrast; both averaged over the models.
    """
    total, contrasts = np.zeros(features.shape, dtype=np.float32), []
    for model in models:
        mean, sd = (torch.from_numpy(value) for value in (model.standardisation.mean, model.standardisation.sd))
        tiles = torch.from_numpy(features.astype(np.float32)).requires_grad_()
        real = torch.ones(1, len(tiles), dtype=torch.bool)
        logits = model.head(((tiles - mean) / sd).unsqueeze(0), real).logits[0]
        logits = logits - torch.log(torch.tensor(model.training.class_weights, dtype=logits.dtype))
        contrast = _contrast(logits[:, None], target)[0]
        (gradient,) = torch.autograd.grad(contrast, tiles)
        total += gradient.numpy() / len(models)
        contrasts.append(float(contrast.detach()))
    return total, float(np.mean(contrasts))


@torch.inference_mode()
def _split_one(
    model: SlideModel,
    features: NDArray[np.floating],
    target: int,
    values: tuple[NDArray[np.float32], NDArray[np.float64]],
    *,
    share: float,
) -> tuple[float, float]:
    """Add one model's gradients `(N, D)` and what each tile adds beside them `(N,)`; return constant and contrast."""
    if not model.head.pool.adds_up:
        raise ModelError(
            f"head '{model.settings.head}' lets tiles act on each other, so its contrast does not split into cells. "
            "Use Grad-CAM: --method grad."
        )
    head = copy.deepcopy(model.head).double()
    mean, sd = (torch.from_numpy(v).double() for v in (model.standardisation.mean, model.standardisation.sd))
    layers = _list_layers(head.embed)
    n_embedding = len(layers)
    layers += _list_layers(head.pool.read)
    embedded, pooled, masks = [], [], []
    for start in range(0, len(features), _ROWS):  # in pieces: a huge bag is not held in float64
        rows = torch.from_numpy(features[start : start + _ROWS].astype(np.float64))
        hidden, parts = (rows - mean) / sd, []
        for number, layer in enumerate(layers, start=1):
            hidden = layer(hidden)
            if isinstance(layer, nn.ReLU):
                parts.append(hidden > 0)
            if number == n_embedding:
                embedded.append(hidden)  # what attention is found from
        pooled.append(hidden)
        masks.append(parts)
    inner_features = torch.cat(pooled)  # (N, E)
    shares = _share_by_feature(head.pool, torch.cat(embedded)).expand_as(inner_features)  # (N, E)
    direction = _contrast(head.classify.weight, target)  # (E,)
    inner = (shares * direction * inner_features).sum(dim=1)  # (N,)
    gradients, offsets = values
    for number, start in enumerate(range(0, len(features), _ROWS)):
        piece = slice(start, start + _ROWS)
        carried = shares[piece] * direction  # what a unit of each inner feature of each tile adds
        for layer in reversed(layers):
            is_relu = isinstance(layer, nn.ReLU)
            carried = carried * masks[number].pop() if is_relu else carried @ torch.as_tensor(layer.weight)
        gradient = carried / sd  # (rows, D)
        rows = torch.from_numpy(features[piece].astype(np.float64))
        gradients[piece] += (share * gradient).float().numpy()
        offsets[piece] += share * (inner[piece] - (gradient * rows).sum(dim=1)).numpy()
    bias = torch.as_tensor(head.classify.bias) - torch.log(
        torch.tensor(model.training.class_weights, dtype=torch.float64)
    )
    constant = float(_contrast(bias[:, None], target)[0])
    return constant, float(inner.sum()) + constant


def _list_layers(embed: nn.Module) -> list[nn.Module]:
    """List the layers of a tile: linear ones and ReLUs, nothing else; dropout is off."""
    layers = [layer for layer in embed.modules() if not isinstance(layer, (nn.Sequential, nn.Dropout, nn.Identity))]
    for layer in layers:
        if not isinstance(layer, (nn.Linear, nn.ReLU)):
            raise ModelError(
                f"the head has a {type(layer).__name__}, so its contrast does not split into cells. Use Grad-CAM: "
                "--method grad."
            )
    return layers


def _share_by_feature(pool: nn.Module, hidden: Tensor) -> Tensor:
    """Return how much of each inner feature of each tile enters the slide's, `(N, E)` or `(N, 1)`, held as it is."""
    real = torch.ones(1, len(hidden), dtype=torch.bool)
    if isinstance(pool, MaxPool):
        largest = hidden >= hidden.amax(dim=0) - 1e-12 * hidden.amax(dim=0).abs()
        return largest.double() / largest.sum(dim=0)
    attention: Tensor = pool(hidden.unsqueeze(0), real)[1][0]  # (N,)
    return attention.unsqueeze(1)


def _contrast(rows: Tensor, target: int) -> Tensor:
    """Return row `target` less the mean of the others."""
    others = [number for number in range(len(rows)) if number != target]
    return rows[target] - rows[others].mean(dim=0)
