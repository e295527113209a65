"""Heads: from a bag of embeddings to one slide prediction.

A head embeds each tile, pools the tiles of a slide into one vector, and classifies it. Heads differ in how they pool;
`HEADS` lists them by name. Shapes: B slides, N tiles (padded), D embedding width, E width inside the head, C classes.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn


class SlideOutput(NamedTuple):
    """What a head says about each slide of a batch."""

    logits: Tensor  # (B, C)
    attention: Tensor  # (B, N), each row sums to 1 over its real tiles, 0 on padding


class AttentionPool(nn.Module):
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


class GatedAttentionPool(nn.Module):
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


class MeanPool(nn.Module):
    """The mean tile; its attention is the same on every tile."""

    def forward(self, tiles: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pooled `(B, E)` and the attention `(B, N)`; `tiles` is `(B, N, E)`, `real` `(B, N)` bool."""
        return pool_by_scores(tiles, tiles.new_zeros(real.shape), real)


class MaxPool(nn.Module):
    """The largest value of each feature; a tile's attention is the share of features in which it is the largest.

    Tiles that tie in a feature share it equally, so the order of tiles does not matter.
    """

    def forward(self, tiles: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pooled `(B, E)` and the attention `(B, N)`; `tiles` is `(B, N, E)`, `real` `(B, N)` bool."""
        masked = tiles.masked_fill(~real.unsqueeze(-1), -torch.inf)  # (B, N, E)
        pooled = masked.amax(dim=1)  # (B, E)
        # Equal tiles may differ in the last bit, by their place in the matrix: within rounding is a tie.
        nearly = pooled - 1e-5 * pooled.abs()  # (B, E)
        largest = (masked >= nearly.unsqueeze(1)).to(tiles.dtype)  # (B, N, E)
        return pooled, (largest / largest.sum(dim=1, keepdim=True)).mean(dim=2)  # (B, E), (B, N)


class Head(nn.Module):
    """Embed each tile, pool the slide, classify.

    Args:
        embed: From `(T, D)` to `(T, E)`, tile by tile.
        pool: From `(B, N, E)` and `(B, N)` bool to `(B, E)` and attention `(B, N)`.
        width: E, what the classifier reads.
        n_classes: C.
    """

    def __init__(self, embed: nn.Module, pool: nn.Module, width: int, n_classes: int) -> None:
        super().__init__()
        self.embed = embed
        self.pool = pool
        self.classify = nn.Linear(width, n_classes)

    def forward(self, bag: Tensor, real: Tensor) -> SlideOutput:
        """Embed, pool and classify a padded batch.

        Args:
            bag: `(B, N, D)` standardised embeddings, padded to the longest bag; what stands in the padding is not read.
            real: `(B, N)` bool, False on padding; each row has at least one True.
        """
        embedded = self.embed(bag[real])  # (T, E): only real tiles are computed, T <= B * N
        tiles = embedded.new_zeros(*real.shape, embedded.shape[-1])  # (B, N, E)
        tiles = tiles.masked_scatter(real.unsqueeze(-1), embedded)  # (B, N, E)
        return self.pool_and_classify(tiles, real)

    def pool_and_classify(self, tiles: Tensor, real: Tensor) -> SlideOutput:
        """Pool tiles already embedded, `(B, N, E)`: so that a huge bag can be embedded in pieces."""
        pooled, attention = self.pool(tiles, real)  # (B, E), (B, N)
        return SlideOutput(self.classify(pooled), attention)  # (B, C), (B, N)


def pool_by_scores(tiles: Tensor, scores: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean `(B, E)` of `tiles` `(B, N, E)` weighted by the softmax `(B, N)` of `scores` over real tiles."""
    attention = scores.masked_fill(~real, -torch.inf).softmax(dim=1)  # (B, N)
    return torch.einsum("bn,bne->be", attention, tiles), attention


def _paper_embed(dim: int, dropout: float) -> nn.Module:
    """Embed as HistoTransfer (2021) does: D -> 256 -> 64, ReLU after each."""
    return nn.Sequential(
        nn.Linear(dim, 256), nn.ReLU(), nn.Dropout(dropout), nn.Linear(256, 64), nn.ReLU(), nn.Dropout(dropout)
    )


def _ilse_embed(dim: int, dropout: float) -> nn.Module:
    """Embed as Ilse et al. (2018) do after their convolutions: D -> 500, ReLU."""
    return nn.Sequential(nn.Linear(dim, 500), nn.ReLU(), nn.Dropout(dropout))


def make_attention(dim: int, n_classes: int, dropout: float = 0.0) -> Head:
    """Make the head of HistoTransfer (2021): D -> 256 -> 64; attention 64 -> 32, tanh, -> 1; classifier 64 -> C."""
    return Head(_paper_embed(dim, dropout), AttentionPool(64, 32), 64, n_classes)


def make_ilse(dim: int, n_classes: int, dropout: float = 0.0) -> Head:
    """Make the head of Ilse et al. (2018): D -> 500; attention 500 -> 128, tanh, -> 1; classifier 500 -> C."""
    return Head(_ilse_embed(dim, dropout), AttentionPool(500, 128), 500, n_classes)


def make_gated(dim: int, n_classes: int, dropout: float = 0.0) -> Head:
    """Make the gated head of Ilse et al. (2018): as `make_ilse`, with a sigmoid gate of 128 beside the tanh."""
    return Head(_ilse_embed(dim, dropout), GatedAttentionPool(500, 128), 500, n_classes)


def make_mean(dim: int, n_classes: int, dropout: float = 0.0) -> Head:
    """Make a head that pools by the mean: D -> 256 -> 64, mean over the bag, classifier 64 -> C."""
    return Head(_paper_embed(dim, dropout), MeanPool(), 64, n_classes)


def make_max(dim: int, n_classes: int, dropout: float = 0.0) -> Head:
    """Make a head that pools by the maximum: D -> 256 -> 64, maximum over the bag, classifier 64 -> C."""
    return Head(_paper_embed(dim, dropout), MaxPool(), 64, n_classes)


HEADS: dict[str, Callable[[int, int, float], Head]] = {
    "attention": make_attention,
    "ilse": make_ilse,
    "gated": make_gated,
    "mean": make_mean,
    "max": make_max,
}
