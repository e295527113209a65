"""Layouts of published transformers, as data: how their tensors are called, and how timm's network calls them.

transformers' ViT, DINOv2 (with registers too, packed MLP too) and CLIP, and the vision towers of CONCH and CONCH v1.5,
are one network under other names: all are read into timm's. What they hold besides (a text tower, a decoder) is left.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

State = dict[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How the tensors of one published form are called.

    Attributes:
        mark: A key that only this form has, as a pattern.
        prefix: What the names of the vision tower begin with; all others are dropped.
        renames: Patterns and what they become, each applied once, in order, to names without the prefix.
        dropped: Patterns of names, without the prefix, that the embedding does not depend on.
        joins: Names whose tensors are stacked into one, and that one's name.
        parts: Names whose tensors are cut into equal pieces, and the names of those.
        positions: How position embeddings of another grid are resampled: torch's mode, whether it is antialiased, and
            what is added to the new grid's side before the scale is computed (DINO's own code adds 0.1).
    """

    mark: str
    prefix: str = ""
    renames: tuple[tuple[str, str], ...]
    dropped: tuple[str, ...] = ()
    joins: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    parts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    positions: tuple[str, bool, float] = ("bicubic", False, 0.0)


_QKV = {"attn.qkv": ("attn.q", "attn.k", "attn.v")}
_EMBEDDINGS = (
    (r"^(?:vit|dinov2|dinov2_with_registers|model)\.", ""),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^encoder\.layer\.", "blocks."),
    (r"\.attention\.attention\.(q|k|v)(?:uery|ey|alue)\.", r".attn.\1."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"^layernorm\.", "norm."),
)
_POOLER = (
    (r"^attn_pool_contrast\.", "attn_pool."),
    (r"^ln_contrast\.", "fc_norm."),
    (r"^trunk\.", ""),
)

LAYOUTS = (
    Layout(  # transformers' ViT: Phikon
        mark=r"encoder\.layer\.0\.layernorm_before\.weight$",
        renames=(
            *_EMBEDDINGS,
            (r"\.layernorm_before\.", ".norm1."),
            (r"\.layernorm_after\.", ".norm2."),
            (r"\.intermediate\.dense\.", ".mlp.fc1."),
            (r"^(blocks\.\d+)\.output\.dense\.", r"\1.mlp.fc2."),
        ),
        dropped=(r"^(?:vit\.)?pooler\.", r"mask_token$", r"^classifier\."),
        joins=_QKV,
    ),
    Layout(  # transformers' DINOv2 without and with registers: Phikon-v2, Midnight, Hibou
        mark=r"encoder\.layer\.0\.layer_scale1\.lambda1$",
        renames=(
            *_EMBEDDINGS,
            (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
            (r"\.mlp\.weights_in\.", ".mlp.fc1."),
            (r"\.mlp\.weights_out\.", ".mlp.fc2."),
        ),
        dropped=(r"mask_token$", r"^classifier\."),
        joins=_QKV,
    ),
    Layout(  # transformers' CLIP: PLIP
        mark=r"^vision_model\.pre_layrnorm\.weight$",
        renames=(
            (r"^vision_model\.embeddings\.class_embedding$", "cls_token"),
            (r"^vision_model\.embeddings\.position_embedding\.weight$", "pos_embed"),
            (r"^vision_model\.embeddings\.patch_embedding\.", "patch_embed.proj."),
            (r"^vision_model\.pre_layrnorm\.", "norm_pre."),
            (r"^vision_model\.post_layernorm\.", "norm."),
            (r"^vision_model\.encoder\.layers\.", "blocks."),
            (r"\.layer_norm([12])\.", r".norm\1."),
            (r"\.self_attn\.([qkv])_proj\.", r".attn.\1."),
            (r"\.self_attn\.out_proj\.", ".attn.proj."),
            (r"^visual_projection\.", "fc_norm."),
        ),
        dropped=(r"^text_", r"^logit_scale$", r"position_ids$"),
        joins=_QKV,
    ),
    Layout(  # CONCH, as the whole of CoCa
        mark=r"^visual\.attn_pool_contrast\.attn\.in_proj_bias$",
        prefix="visual.",
        renames=(
            *_POOLER,
            (r"^attn_pool\.attn\.([qkv])_proj_weight$", r"attn_pool.to_\1.weight"),
            (r"^attn_pool\.attn\.out_proj\.", "attn_pool.to_out."),
        ),
        dropped=(r"^proj_contrast$", r"^attn_pool_caption\.", r"^ln_caption\."),
        parts={"attn_pool.attn.in_proj_bias": ("attn_pool.to_q.bias", "attn_pool.to_k.bias", "attn_pool.to_v.bias")},
        positions=("bilinear", False, 0.0),
    ),
    Layout(  # CONCH v1.5's vision tower; its positions are enlarged from 14 x 14 as DINO's own code does
        mark=r"^attn_pool_contrast\.to_kv\.weight$",
        renames=_POOLER,
        parts={"attn_pool.to_kv.weight": ("attn_pool.to_k.weight", "attn_pool.to_v.weight")},
        positions=("bicubic", False, 0.1),
    ),
)


def translate_layout(state: State, trunk: Any) -> State:
    """Return a file's tensors under timm's names, where their layout is one of those above; else as they are.

    Args:
        state: The tensors under the names that the file gives them.
        trunk: A transformer of timm, which says how its positions and registers are laid out.
    """
    layout = next((known for known in LAYOUTS if any(re.search(known.mark, key) for key in state)), None)
    if layout is None or getattr(trunk, "pos_embed", None) is None:
        return state
    named = _rename(state, layout)
    for whole, pieces in layout.parts.items():
        if whole in named:
            tensor = named.pop(whole)
            if len(tensor) % len(pieces) == 0:  # else it is no such file: what is missing says so
                named |= dict(zip(pieces, tensor.chunk(len(pieces)), strict=True))
    named = _join(named, layout)
    return _lay_positions(named, layout, trunk)


def _rename(state: State, layout: Layout) -> State:
    named = {}
    for key, tensor in state.items():
        if not key.startswith(layout.prefix):
            continue
        name = key.removeprefix(layout.prefix)
        if any(re.search(pattern, name) for pattern in layout.dropped):
            continue
        for pattern, new in layout.renames:
            name = re.sub(pattern, new, name, count=1)
        named[name] = tensor
    return named


def _join(state: State, layout: Layout) -> State:
    """Stack query, key and value of each block, whose order is timm's."""
    joined = dict(state)
    for key in state:
        for whole, pieces in layout.joins.items():
            stem, found, tail = key.partition(f"{pieces[0]}.")
            names = [f"{stem}{piece}.{tail}" for piece in pieces]
            if found and all(name in joined for name in names):
                joined[f"{stem}{whole}.{tail}"] = torch.cat([joined.pop(name) for name in names])
    return joined


def _lay_positions(state: State, layout: Layout, trunk: Any) -> State:
    """Give the class token and the positions timm's shapes, and the positions the network's grid.

    Where timm adds no position to the class token (`no_embed_class`), the token takes its own in.
    """
    token, positions = state.get("cls_token"), state.get("pos_embed")
    if token is None or positions is None or positions.ndim not in (2, 3):
        return state
    token, positions = token.reshape(1, 1, -1), positions.reshape(1, *positions.shape[-2:])
    if token.shape[2] != positions.shape[2]:
        return state
    first, patches = positions[:, :1], positions[:, 1:]
    patches = resample_positions(patches, tuple(trunk.patch_embed.grid_size), layout.positions)
    if trunk.no_embed_class:
        token, positions = token + first, patches
    else:
        positions = torch.cat((first, patches), dim=1)
    return state | {"cls_token": token, "pos_embed": positions}


def resample_positions(patches: Tensor, grid: Sequence[int], how: tuple[str, bool, float]) -> Tensor:
    """Resample the position embeddings of a square grid of patches.

    Args:
        patches: `(1, N, D)`, row by row.
        grid: `(rows, columns)` wanted.
        how: As `Layout.positions`.

    Returns:
        `(1, rows * columns, D)`; as they are where they have that grid, or no square one.
    """
    mode, antialias, offset = how
    side = round(patches.shape[1] ** 0.5)
    if side * side != patches.shape[1] or (side, side) == tuple(grid):
        return patches
    maps = patches.reshape(1, side, side, -1).permute(0, 3, 1, 2).float()
    if offset:
        scale = [(extent + offset) / side for extent in grid]
        maps = functional.interpolate(maps, scale_factor=scale, mode=mode, antialias=antialias)
    else:
        maps = functional.interpolate(maps, size=list(grid), mode=mode, antialias=antialias, align_corners=False)
    return maps.flatten(2).transpose(1, 2).to(patches.dtype)
