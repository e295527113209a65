"""TransMIL's pool: tiles attend to each other and to a class token, laid out as a square (Shao et al. 2021).

Shao Z, Bian H, Chen Y, et al. TransMIL: transformer based correlated multiple instance learning for whole slide image
classification. NeurIPS 2021. Attention is that of Xiong et al. 2021 (Nystromformer), as the authors' code has it.

Two things follow from the method. The order of tiles matters, by the square: it is that of the bag, row by row over the
slide. And attention is an approximation that may fall below 0; what is returned as attention is cut there.
"""

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from lamella.mil.pools import TilePool

_ITERATIONS = 6  # of the pseudo-inverse
_KERNEL = 33  # of the convolution over values


class NystromAttention(nn.Module):
    """Self-attention through landmarks, and a convolution of the values over their order.

    Args:
        dim: Width E of a token.
        n_heads: Heads; each reads E / `n_heads` features.
        n_landmarks: Landmarks, each the mean of as many tokens that follow each other; zeros come before the first.
        dropout: Share dropped of what is added to a token.
    """

    def __init__(self, dim: int, n_heads: int, n_landmarks: int, dropout: float) -> None:
        super().__init__()
        self.n_heads, self.n_landmarks = n_heads, n_landmarks
        self.project = nn.Linear(dim, 3 * dim, bias=False)
        self.convolve = nn.Conv2d(n_heads, n_heads, (_KERNEL, 1), padding=(_KERNEL // 2, 0), groups=n_heads, bias=False)
        self.merge = nn.Sequential(nn.Linear(dim, dim), nn.Dropout(dropout))

    def forward(self, tokens: Tensor, n_queries: int) -> tuple[Tensor, Tensor]:
        """Return what is added to the first `n_queries` tokens, `(Q, E)`, and the first one's attention `(T,)`.

        Args:
            tokens: `(T, E)`.
            n_queries: Q; those after it are read and get nothing.
        """
        n_tokens, dim = tokens.shape
        per_landmark = -(-n_tokens // self.n_landmarks)
        before = per_landmark * self.n_landmarks - n_tokens
        # Landmarks of zeros alone are the same, so one stands for all: what it is counted for is exact.
        n_empty = max(before // per_landmark, 1)
        before -= (n_empty - 1) * per_landmark
        projected = nn.functional.pad(self.project(tokens), (0, 0, before, 0))  # (P, 3E)
        heads = projected.view(len(projected), 3, self.n_heads, -1).permute(1, 2, 0, 3)  # (3, H, P, F)
        scale = (dim // self.n_heads) ** -0.5
        queries, keys, values = heads[0] * scale, heads[1], heads[2]
        landmarks = (self.n_heads, -1, per_landmark, dim // self.n_heads)
        query_marks = queries.reshape(landmarks).mean(dim=2)  # (H, M, F)
        key_marks = keys.reshape(landmarks).mean(dim=2)
        counts = tokens.new_ones(query_marks.shape[1])  # (M,)
        counts[0] = n_empty
        token_counts = counts.repeat_interleave(per_landmark)  # (P,)
        asked = slice(before, before + n_queries)
        to_marks = (queries[:, asked] @ key_marks.mT + counts.log()).softmax(dim=-1)  # (H, Q, M)
        between_marks = (query_marks @ key_marks.mT + counts.log()).softmax(dim=-1)  # (H, M, M)
        inverse = find_pseudo_inverse(between_marks, counts)  # (H, M, M)
        from_marks = (query_marks @ keys.mT + token_counts.log()).softmax(dim=-1)  # (H, M, P)
        mixed = to_marks @ (inverse @ (from_marks @ values))  # (H, Q, F)
        near = values[:, before : before + n_queries + _KERNEL // 2]  # all that the convolution sees of them
        mixed = mixed + self.convolve(near.unsqueeze(0))[0, :, :n_queries]
        with torch.no_grad():
            attention = (to_marks[:, :1] @ inverse @ from_marks).mean(dim=0)[0, before:]  # (T,)
        return self.merge(mixed.transpose(0, 1).reshape(n_queries, dim)), attention


class SquareConvolutions(nn.Module):
    """PPEG: what stands near a tile in the square is added to it, through kernels of 7, 5 and 3.

    Args:
        dim: Width E of a token.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.wide, self.middle, self.narrow = (
            nn.Conv2d(dim, dim, size, padding=size // 2, groups=dim) for size in (7, 5, 3)
        )

    def forward(self, tokens: Tensor, side: int) -> Tensor:
        """Return tokens `(T, E)` of a square of `side` tiles, row by row."""
        # Three depthwise convolutions of one input are one with the sum of their kernels.
        pad = nn.functional.pad
        kernel = self.wide.weight + pad(self.middle.weight, [1] * 4) + pad(self.narrow.weight, [2] * 4)
        bias = torch.stack([layer.bias for layer in self._layers() if layer.bias is not None]).sum(dim=0)
        square = tokens.T.reshape(1, -1, side, side)  # (1, E, S, S)
        near = nn.functional.conv2d(square, kernel, bias, padding=3, groups=len(kernel))
        return tokens + near.flatten(2)[0].T

    def _layers(self) -> tuple[nn.Conv2d, nn.Conv2d, nn.Conv2d]:
        return self.wide, self.middle, self.narrow


class TransformerPool(TilePool):
    """A class token that has attended to all tiles, in two layers with convolutions over the square between them.

    Attention is that of the class token in the last layer, averaged over heads, cut at 0 and brought to sum 1; what
    falls on a tile's copy (tiles are repeated from the first to fill the square) counts for the tile.

    Slides go one by one, so no padding enters.

    Args:
        dim: Width E of a tile inside the head; a multiple of `n_heads`.
        n_heads: Heads of each layer.
        dropout: Share dropped of what a layer adds.
    """

    any_order: ClassVar[bool] = False
    adds_up: ClassVar[bool] = False

    def __init__(self, dim: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.class_token = nn.Parameter(torch.randn(1, dim) * 1e-6)
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(2))
        self.layers = nn.ModuleList(NystromAttention(dim, n_heads, dim // 2, dropout) for _ in range(2))
        self.square = SquareConvolutions(dim)
        self.last = nn.LayerNorm(dim)

    def forward(self, tiles: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Return the class token `(B, E)` and the attention `(B, N)`; `tiles` is `(B, N, E)`, `real` `(B, N)` bool."""
        pooled, attention = [], tiles.new_zeros(real.shape)
        for number, (slide, is_tile) in enumerate(zip(tiles, real, strict=True)):
            vector, attention[number, is_tile] = self._pool(slide[is_tile])
            pooled.append(vector)
        return torch.stack(pooled), attention

    def _pool(self, tiles: Tensor) -> tuple[Tensor, Tensor]:
        """Return the class token `(E,)` and the attention `(N,)` of one slide's `(N, E)`."""
        side = math.isqrt(len(tiles) - 1) + 1
        n_copies = side**2 - len(tiles)
        tokens = torch.cat([self.class_token, tiles, tiles[:n_copies]])  # (1 + S * S, E)
        tokens = tokens + self.layers[0](self.norms[0](tokens), len(tokens))[0]
        tokens = torch.cat([tokens[:1], self.square(tokens[1:], side)])
        added, looked = self.layers[1](self.norms[1](tokens), 1)
        copies = nn.functional.pad(looked[1 + len(tiles) :], (0, len(tiles) - n_copies))
        attention = (looked[1 : 1 + len(tiles)] + copies).clamp(min=0)
        total = attention.sum()
        even = torch.full_like(attention, 1 / len(tiles))
        return self.last(tokens[0] + added[0]), torch.where(total > 0, attention / total, even)


def find_pseudo_inverse(matrices: Tensor, counts: Tensor) -> Tensor:
    """Return the pseudo-inverses `(H, M, M)` of attention matrices, in six iterations (Xiong et al. 2021).

    Args:
        matrices: `(H, M, M)`; rows sum to 1.
        counts: `(M,)`, how many equal rows and columns of the full matrix each stands for; a column holds their sum.

    Example:
        >>> matrix = torch.tensor([[[0.9, 0.1], [0.3, 0.7]]])
        >>> (matrix @ find_pseudo_inverse(matrix, torch.ones(2))).round(decimals=3).tolist()
        [[[1.0, 0.0], [0.0, 1.0]]]
    """
    turned = matrices.mT * (counts / counts.unsqueeze(1))  # the full matrix transposed, its columns summed alike
    inverse = turned / (matrices.sum(dim=-1).max() * turned.sum(dim=-1).max())
    one = torch.eye(matrices.shape[-1], dtype=matrices.dtype, device=matrices.device)
    for _ in range(_ITERATIONS):
        product = matrices @ inverse
        inverse = 0.25 * inverse @ (13 * one - product @ (15 * one - product @ (7 * one - product)))
    return inverse
