"""Pools: from the tiles of a slide to one vector, and how much each tile went into it.

Shapes: B slides, N tiles (padded), E width of a tile inside the head, W width of the pooled vector.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn


class TilePool(nn.Module):
    """How the tiles of a slide become one vector.

    Attributes:
        any_order: Whether the order of tiles changes nothing.
        adds_up: Whether the pooled vector is a sum over tiles, each held apart by `split`.
        read: What each tile goes through after its attention is found; nothing in most pools.
    """

    any_order: ClassVar[bool] = True
    adds_up: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.read: nn.Module = nn.Identity()

    def forward(self, tiles: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pooled `(B, W)` and the attention `(B, N)`; `tiles` is `(B, N, E)`, `real` `(B, N)` bool."""
        raise NotImplementedError

    def split(self, tiles: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Return each tile's part `(B, N, W)` of the pooled vector, which they sum to, and the attention `(B, N)`."""
        _, attention = self(tiles, real)
        return attention.unsqueeze(-1) * self.read(tiles), attention


class AttentionPool(TilePool):
    """Attention over tiles: tanh, then one score a tile, softmax over the bag (Ilse et al. 2018, eq. 8).

    Args:
        dim: Width E of a tile inside the head.
        hidden: Width V of the attention branch.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.value = nn.Linear(dim, hidden)
        self.score = nn.Linear(hidden, 1)

    def forward(self, tiles: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pooled `(B, E)` and the attention `(B, N)`; `tiles` is `(B, N, E)`, `real` `(B, N)` bool."""
        scores = self.score(torch.tanh(self.value(tiles))).squeeze(-1)  # (B, N)
        return pool_by_scores(tiles, scores, real)


class GatedAttentionPool(TilePool):
    """Gated attention: the tanh branch is multiplied by a sigmoid gate (Ilse et al. 2018, eq. 9).

    Args:
        dim: Width E of a tile inside the head.
        hidden: Width V of both branches.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.value = nn.Linear(dim, hidden)
        self.gate = nn.Linear(dim, hidden)
        self.score = nn.Linear(hidden, 1)

    def forward(self, tiles: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pooled `(B, E)` and the attention `(B, N)`; `tiles` is `(B, N, E)`, `real` `(B, N)` bool."""
        gated = torch.tanh(self.value(tiles)) * torch.sigmoid(self.gate(tiles))  # (B, N, V)
        return pool_by_scores(tiles, self.score(gated).squeeze(-1), real)


class MeanPool(TilePool):
    """The mean tile; its attention is the same on every tile."""

    def forward(self, tiles: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pooled `(B, E)` and the attention `(B, N)`; `tiles` is `(B, N, E)`, `real` `(B, N)` bool."""
        return pool_by_scores(tiles, tiles.new_zeros(real.shape), real)


class MaxPool(TilePool):
    """The largest value of each feature; a tile's attention is the share of features in which it is the largest.

    Tiles that tie in a feature share it equally, so the order of tiles does not matter.
    """

    def forward(self, tiles: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pooled `(B, E)` and the attention `(B, N)`; `tiles` is `(B, N, E)`, `real` `(B, N)` bool."""
        shares, pooled = self._share(tiles, real)
        return pooled, shares.mean(dim=2)  # (B, E), (B, N)

    def split(self, tiles: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Return each tile's part `(B, N, E)` of the pooled vector, which they sum to, and the attention `(B, N)`."""
        shares, _ = self._share(tiles, real)
        return shares * tiles.masked_fill(~real.unsqueeze(-1), 0.0), shares.mean(dim=2)

    @staticmethod
    def _share(tiles: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Return how much of each feature each tile gives, `(B, N, E)`, and the largest of each, `(B, E)`."""
        masked = tiles.masked_fill(~real.unsqueeze(-1), -torch.inf)  # (B, N, E)
        pooled = masked.amax(dim=1)  # (B, E)
        # Equal tiles may differ in the last bit, by their place in the matrix: within rounding is a tie.
        nearly = pooled - 1e-5 * pooled.abs()  # (B, E)
        largest = (masked >= nearly.unsqueeze(1)).to(tiles.dtype)  # (B, N, E)
        return largest / largest.sum(dim=1, keepdim=True), pooled


class AdditivePool(TilePool):
    """Attention over tiles, each read by a layer of its own before the sum (Additive MIL, Javed et al. 2022).

    The paper sums `psi(a_i h_i)` over tiles. Here `psi` reads a 1 beside the features and is positively homogeneous, so
    that `psi(a_i h_i, a_i) = a_i psi(h_i, 1)`: attention only scales what a tile says, and a slide of twice as many
    tiles, each once more, says the same (with a bias inside `psi` the number of tiles alone would move the logit).

    Args:
        dim: Width E of a tile inside the head, and of what is read of it.
        hidden: Width V of the attention branch.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.value = nn.Linear(dim, hidden)
        self.score = nn.Linear(hidden, 1)
        self.read = nn.Sequential(nn.Linear(dim, dim), nn.ReLU())

    def forward(self, tiles: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pooled `(B, E)` and the attention `(B, N)`; `tiles` is `(B, N, E)`, `real` `(B, N)` bool."""
        scores = self.score(torch.tanh(self.value(tiles))).squeeze(-1)  # (B, N)
        return pool_by_scores(self.read(tiles), scores, real)


def pool_by_scores(tiles: Tensor, scores: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean `(B, E)` of `tiles` `(B, N, E)` weighted by the softmax `(B, N)` of `scores` over real tiles."""
    attention = scores.masked_fill(~real, -torch.inf).softmax(dim=1)  # (B, N)
    return torch.einsum("bn,bne->be", attention, tiles), attention
