"""Heads: from a bag of embeddings to one slide prediction.

A head embeds each tile, pools the tiles of a slide into one vector, and classifies it. Heads differ in how they pool
(`pools`, `transmil`) and in what they learn from (`clam`); `HEADS` lists them by name. Shapes: B slides, N tiles
(padded), D embedding width, E width inside the head, W width of the pooled vector, C classes.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lamella.errors import ModelError
from lamella.mil.clam import find_instance_loss
from lamella.mil.pools import AdditivePool, AttentionPool, GatedAttentionPool, MaxPool, MeanPool, TilePool
from lamella.mil.transmil import TransformerPool


class SlideOutput(NamedTuple):
    """What a head says about each slide of a batch."""

    logits: Tensor  # (B, C)
    attention: Tensor  # (B, N), each row sums to 1 over its real tiles, 0 on padding


class Head(nn.Module):
    """Embed each tile, pool the slide, classify.

    Args:
        embed: From `(T, D)` to `(T, E)`, tile by tile.
        pool: From `(B, N, E)` and `(B, N)` bool to `(B, W)` and attention `(B, N)`.
        width: W, what the classifier reads.
        n_classes: C.
    """

    def __init__(self, embed: nn.Module, pool: TilePool, width: int, n_classes: int) -> None:
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
        return self.pool_and_classify(self.embed_bag(bag, real), real)

    def embed_bag(self, bag: Tensor, real: Tensor) -> Tensor:
        """Embed the real tiles of a padded batch, `(B, N, E)`, 0 on padding."""
        is_whole = bool(real.all())
        # (T, E): only real tiles are computed, T <= B * N
        embedded: Tensor = self.embed(bag.flatten(0, 1) if is_whole else bag[real])
        if is_whole:
            return embedded.reshape(*real.shape, -1)
        tiles = embedded.new_zeros(*real.shape, embedded.shape[-1])  # (B, N, E)
        return tiles.masked_scatter(real.unsqueeze(-1), embedded)  # (B, N, E)

    def pool_and_classify(self, tiles: Tensor, real: Tensor) -> SlideOutput:
        """Pool tiles already embedded, `(B, N, E)`: so that a huge bag can be embedded in pieces."""
        pooled, attention = self.pool(tiles, real)  # (B, W), (B, N)
        return SlideOutput(self.classify(pooled), attention)  # (B, C), (B, N)

    def find_losses(self, bag: Tensor, real: Tensor, targets: Tensor) -> Tensor:
        """Return what training makes small: the loss `(B,)` of each slide of a padded batch, classes `(B,)` int64."""
        return nn.functional.cross_entropy(self(bag, real).logits, targets, reduction="none")

    def split_logits(self, tiles: Tensor, real: Tensor) -> Tensor:
        """Return what each tile, already embedded, adds to each logit: `(B, N, C)`, which sum to the logits over N.

        The classifier's bias goes to the tiles by their attention.

        Raises:
            ModelError: If the pool is no sum over tiles.
        """
        if not self.pool.adds_up:
            raise ModelError(
                "the head lets tiles act on each other, so its logit is no sum over tiles. Use an attention heatmap, "
                "or train with --head additive."
            )
        parts, attention = self.pool.split(tiles, real)  # (B, N, W), (B, N)
        return parts @ self.classify.weight.T + attention.unsqueeze(-1) * self.classify.bias


class ClamHead(Head):
    """A head whose most and least attended tiles are told apart too, in training (CLAM-SB, Lu et al. 2021).

    Args:
        embed: From `(T, D)` to `(T, E)`, tile by tile.
        pool: From `(B, N, E)` and `(B, N)` bool to `(B, E)` and attention `(B, N)`.
        width: E.
        n_classes: C.
        n_instances: Tiles at each end of the attention that the loss reads.
        bag_weight: Of the slide's own loss; the rest is that of its tiles.
    """

    def __init__(
        self,
        embed: nn.Module,
        pool: TilePool,
        width: int,
        n_classes: int,
        *,
        n_instances: int = 8,
        bag_weight: float = 0.7,
    ) -> None:
        super().__init__(embed, pool, width, n_classes)
        self.classify_tiles = nn.ModuleList(nn.Linear(width, 2) for _ in range(n_classes))
        self.n_instances, self.bag_weight = n_instances, bag_weight

    def find_losses(self, bag: Tensor, real: Tensor, targets: Tensor) -> Tensor:
        """Return the loss `(B,)` of each slide of a padded batch: of the slide, and of its tiles."""
        tiles = self.embed_bag(bag, real)  # (B, N, E)
        logits, attention = self.pool_and_classify(tiles, real)
        of_slides = nn.functional.cross_entropy(logits, targets, reduction="none")
        of_tiles = [
            find_instance_loss(
                tiles[number][real[number]],
                attention[number][real[number]],
                target,
                list(self.classify_tiles),
                n_instances=self.n_instances,
            )
            for number, target in enumerate(targets.tolist())
        ]
        return self.bag_weight * of_slides + (1 - self.bag_weight) * torch.stack(of_tiles)


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


def make_clam_sb(dim: int, n_classes: int, dropout: float = 0.0) -> Head:
    """Make CLAM-SB (Lu et al. 2021): D -> 512; gated attention 512 -> 256 -> 1; classifier 512 -> C; 8 tiles an end."""
    embed = nn.Sequential(nn.Linear(dim, 512), nn.ReLU(), nn.Dropout(dropout))
    return ClamHead(embed, GatedAttentionPool(512, 256), 512, n_classes)


def make_transmil(dim: int, n_classes: int, dropout: float = 0.0) -> Head:
    """Make TransMIL (Shao et al. 2021): D -> 512; two layers of 8 heads and 256 landmarks; classifier 512 -> C."""
    embed = nn.Sequential(nn.Linear(dim, 512), nn.ReLU())
    return Head(embed, TransformerPool(512, 8, dropout), 512, n_classes)


def make_additive(dim: int, n_classes: int, dropout: float = 0.0) -> Head:
    """Make an additive head (Javed et al. 2022): as `make_attention`, each tile read by 64 -> 64 before the sum."""
    return Head(_paper_embed(dim, dropout), AdditivePool(64, 32), 64, n_classes)


HEADS: dict[str, Callable[[int, int, float], Head]] = {
    "attention": make_attention,
    "ilse": make_ilse,
    "gated": make_gated,
    "mean": make_mean,
    "max": make_max,
    "clam-sb": make_clam_sb,
    "transmil": make_transmil,
    "additive": make_additive,
}
