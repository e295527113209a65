"""Augmentation of H&E tiles: turns and mirrors, and more or less of each stain."""

import numpy as np
import torch
from torch import Tensor

# Optical densities of haematoxylin and eosin, a row each (Ruifrok and Johnston 2001), and what is neither.
_STAINS = torch.tensor([[0.650, 0.704, 0.286], [0.072, 0.990, 0.105], [0.268, 0.570, 0.776]])


def augment_tiles(tiles: Tensor, rng: np.random.Generator, *, flips: bool, stain_jitter: float) -> Tensor:
    """Turn, mirror and restain tiles at random, each in its own way.

    Args:
        tiles: `(n, 3, H, W)` float32 RGB, 0 to 255, square.
        rng: Source of chance.
        flips: Whether tiles are turned by quarters and mirrored.
        stain_jitter: SD of the factor on the amount of each stain, around 1.

    Returns:
        `(n, 3, H, W)` float32, 0 to 255.
    """
    if flips:
        turns, mirrors = rng.integers(0, 4, len(tiles)), rng.integers(0, 2, len(tiles))
        tiles = torch.stack(
            [
                torch.rot90(tile.flip(-1) if mirror else tile, int(turn), (-2, -1))
                for tile, turn, mirror in zip(tiles, turns, mirrors, strict=True)
            ]
        )
    if stain_jitter > 0:
        factors = torch.from_numpy(rng.normal(1, stain_jitter, (len(tiles), 3)).astype(np.float32)).clamp(0.5, 1.5)
        stains = _STAINS / _STAINS.norm(dim=1, keepdim=True)
        density = -torch.log((tiles.clamp(0, 255) + 1) / 256)  # (n, 3, H, W)
        amounts = torch.einsum("nchw,cs->nshw", density, torch.linalg.inv(stains))
        density = torch.einsum("nshw,sc->nchw", amounts * factors[:, :, None, None], stains)
        tiles = (256 * torch.exp(-density) - 1).clamp(0, 255)
    return tiles
