"""Parts that published encoders have and timm's networks lack; cards name them, `timm_trunk` puts them in.

`TokenAndMean` and `QueryPool` stand where timm's own attention pooling would, so that they read the tokens after the
final norm, at every depth alike.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_QUERY_INIT = 0.02


class TokenAndMean(nn.Module):
    """The class token and the mean of the patch tokens side by side; registers are in neither (Virchow, section 5).

    Args:
        n_prefix: Tokens before the patches: the class token and the registers.
    """

    def __init__(self, n_prefix: int) -> None:
        super().__init__()
        self.n_prefix = n_prefix

    def forward(self, tokens: Tensor) -> Tensor:
        """Return `(B, 2 D)` from tokens `(B, N, D)`."""
        return torch.cat((tokens[:, 0], tokens[:, self.n_prefix :].mean(dim=1)), dim=1)


class QueryPool(nn.Module):
    """One learned query that attends to all tokens: the contrastive pooler of CoCa (Yu et al. 2022, section 3.2).

    Args:
        dim: Width of the tokens.
        width: Of the query, and of what comes back.
        heads: Into which the width is divided.
        bias: Whether the four projections have one.
    """

    def __init__(self, dim: int, *, width: int, heads: int, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Parameter(torch.randn(1, width) * _QUERY_INIT)
        self.ln_q, self.ln_k = nn.LayerNorm(width), nn.LayerNorm(dim)
        self.to_q = nn.Linear(width, width, bias=bias)
        self.to_k, self.to_v = nn.Linear(dim, width, bias=bias), nn.Linear(dim, width, bias=bias)
        self.to_out = nn.Linear(width, width, bias=bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return `(B, width)` from tokens `(B, N, D)`."""
        tokens = self.ln_k(tokens)
        query = self.to_q(self.ln_q(self.query)).expand(len(tokens), 1, -1)  # (B, 1, width)
        q, k, v = (
            rows.unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, heads, N, width / heads)
            for rows in (query, self.to_k(tokens), self.to_v(tokens))
        )
        pooled = functional.scaled_dot_product_attention(q, k, v)  # (B, heads, 1, width / heads)
        return self.to_out(pooled.flatten(1))  # type: ignore[no-any-return]


class ConvStem(nn.Module):
    """Two strided convolutions and a projection where a Swin cuts patches of 4 px (CTransPath, section 3.2).

    It takes the arguments that timm gives a patch embedding.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int],
        patch_size: int | tuple[int, int] = 4,
        in_chans: int = 3,
        embed_dim: int = 96,
        norm_layer: Callable[[int], nn.Module] | None = None,
        **_named: Any,
    ) -> None:
        super().__init__()
        narrow, wide = embed_dim // 8, embed_dim // 4
        self.img_size = img_size if isinstance(img_size, tuple) else (img_size, img_size)
        self.patch_size = patch_size if isinstance(patch_size, tuple) else (patch_size, patch_size)
        self.grid_size = (self.img_size[0] // self.patch_size[0], self.img_size[1] // self.patch_size[1])
        self.num_patches = self.grid_size[0] * self.grid_size[1]
        self.proj = nn.Sequential(
            nn.Conv2d(in_chans, narrow, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(narrow),
            nn.ReLU(),
            nn.Conv2d(narrow, wide, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(),
            nn.Conv2d(wide, embed_dim, 1),
        )
        self.norm = nn.Identity() if norm_layer is None else norm_layer(embed_dim)

    def forward(self, images: Tensor) -> Tensor:
        """Return `(B, h, w, D)` from images `(B, 3, H, W)`."""
        return self.norm(self.proj(images).permute(0, 2, 3, 1))  # type: ignore[no-any-return]
