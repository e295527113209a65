"""Second implementations, from the papers, of the encoders that no library installs: plain functions of a state dict.

ViT: Dosovitskiy et al. 2021, equations 1 to 4. CoCa's pooler: Yu et al. 2022, section 3.2. Swin: Liu et al. 2021,
equations 1 to 4 and section 3.2, with the convolutional stem of CTransPath (Wang et al. 2022, section 3.2).
"""

import itertools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as f

State = Mapping[str, Tensor]


def encode_conch(state: State, images: Tensor, heads: int) -> Tensor:
    """Encode with CONCH's vision tower and contrastive pooler, without the projection to the text's space."""
    return _read_query(state, _encode_tokens(state, images, heads, state["pos_embed"]))


def encode_conch15(state: State, images: Tensor, heads: int) -> Tensor:
    """Encode with CONCH v1.5's: positions of 14 x 14 are enlarged as DINO's code does, by a side of 0.1 more."""
    positions = state["pos_embed"]
    side, wanted = round((positions.shape[1] - 1) ** 0.5), images.shape[-1] // 16
    grid = positions[:, 1:].transpose(1, 2).unflatten(2, (side, side))
    grid = f.interpolate(grid, scale_factor=((wanted + 0.1) / side,) * 2, mode="bicubic")
    positions = torch.cat((positions[:, :1], grid.flatten(2).transpose(1, 2)), dim=1)
    return _read_query(state, _encode_tokens(state, images, heads, positions))


def _encode_tokens(state: State, images: Tensor, heads: int, positions: Tensor) -> Tensor:
    patches = f.conv2d(images, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=16)
    patches = patches.flatten(2).transpose(1, 2)
    x = torch.cat((state["cls_token"].expand(len(images), -1, -1), patches), dim=1) + positions
    for number in itertools.count():
        name = f"blocks.{number}"
        if f"{name}.norm1.weight" not in state:
            break
        q, k, v = _linear(state, f"{name}.attn.qkv", _norm(state, f"{name}.norm1", x, 1e-6)).chunk(3, dim=-1)
        looked = _linear(state, f"{name}.attn.proj", _attend(q, k, v, heads))
        x = x + looked * state.get(f"{name}.ls1.gamma", torch.ones(()))
        hidden = f.gelu(_linear(state, f"{name}.mlp.fc1", _norm(state, f"{name}.norm2", x, 1e-6)))
        x = x + _linear(state, f"{name}.mlp.fc2", hidden) * state.get(f"{name}.ls2.gamma", torch.ones(()))
    return _norm(state, "norm", x, 1e-6)


def _read_query(state: State, tokens: Tensor) -> Tensor:
    heads = 8 if state["attn_pool.query"].shape[1] > 100 else 4
    tokens = _norm(state, "attn_pool.ln_k", tokens, 1e-5)
    query = _norm(state, "attn_pool.ln_q", state["attn_pool.query"], 1e-5)
    q = _linear(state, "attn_pool.to_q", query)[None].expand(len(tokens), -1, -1)
    k, v = (_linear(state, f"attn_pool.to_{piece}", tokens) for piece in "kv")
    return _norm(state, "fc_norm", _linear(state, "attn_pool.to_out", _attend(q, k, v, heads))[:, 0], 1e-5)


def encode_ctranspath(state: State, images: Tensor, heads: Sequence[int]) -> Tensor:
    """Encode with CTransPath: a Swin transformer behind two strided convolutions."""
    x = images
    for conv, norm, stride in ((0, 1, 2), (3, 4, 2), (6, None, 1)):
        weight = state[f"patch_embed.proj.{conv}.weight"]
        bias = state.get(f"patch_embed.proj.{conv}.bias")
        x = f.conv2d(x, weight, bias, stride=stride, padding=weight.shape[-1] // 2)
        if norm is not None:
            stem = f"patch_embed.proj.{norm}"
            mean, variance = state[f"{stem}.running_mean"], state[f"{stem}.running_var"]
            scaled = (x - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
            x = (scaled * state[f"{stem}.weight"][:, None, None] + state[f"{stem}.bias"][:, None, None]).relu()
    x = _norm(state, "patch_embed.norm", x.permute(0, 2, 3, 1), 1e-5)
    for stage, n_heads in enumerate(heads):
        if stage:
            corners = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
            merged = _norm(state, f"layers.{stage}.downsample.norm", torch.cat(corners, dim=-1), 1e-5)
            x = merged @ state[f"layers.{stage}.downsample.reduction.weight"].T
        for number in itertools.count():
            name = f"layers.{stage}.blocks.{number}"
            if f"{name}.norm1.weight" not in state:
                break
            shift = 3 if number % 2 and x.shape[1] > 7 else 0
            x = x + _attend_windows(state, f"{name}.attn", _norm(state, f"{name}.norm1", x, 1e-5), n_heads, shift)
            hidden = f.gelu(_linear(state, f"{name}.mlp.fc1", _norm(state, f"{name}.norm2", x, 1e-5)))
            x = x + _linear(state, f"{name}.mlp.fc2", hidden)
    return _norm(state, "norm", x, 1e-5).mean(dim=(1, 2))


def _attend_windows(state: State, name: str, x: Tensor, heads: int, shift: int) -> Tensor:
    """Attend inside windows of 7 x 7, cell by cell of the window grid; shifted windows see their own region only."""
    batch, height, width, _ = x.shape
    region = torch.zeros(height, width)
    if shift:
        x = x.roll((-shift, -shift), dims=(1, 2))
        edges = ((0, height - 7), (height - 7, height - shift), (height - shift, height))
        for number, (rows, columns) in enumerate(itertools.product(edges, edges)):
            region[slice(*rows), slice(*columns)] = number
    table = state[f"{name}.relative_position_bias_table"]
    cells = torch.tensor(list(itertools.product(range(7), range(7))))
    apart = cells[:, None] - cells[None] + 6  # (49, 49, 2)
    bias = table[apart[..., 0] * 13 + apart[..., 1]].permute(2, 0, 1)  # (heads, 49, 49)
    looked = torch.zeros_like(x)
    for top, left in itertools.product(range(0, height, 7), range(0, width, 7)):
        window = x[:, top : top + 7, left : left + 7].reshape(batch, 49, -1)
        own = region[top : top + 7, left : left + 7].reshape(49)
        apart_mask = torch.where(own[:, None] == own[None], 0.0, -100.0)
        q, k, v = _linear(state, f"{name}.qkv", window).chunk(3, dim=-1)
        mixed = _attend(q, k, v, heads, bias + apart_mask)
        looked[:, top : top + 7, left : left + 7] = mixed.reshape(batch, 7, 7, -1)
    looked = _linear(state, f"{name}.proj", looked)
    return looked.roll((shift, shift), dims=(1, 2))


def _attend(q: Tensor, k: Tensor, v: Tensor, heads: int, bias: Tensor | None = None) -> Tensor:
    """Return softmax(q k / sqrt(d) + bias) v, head by head; `(B, N, D)` each."""
    parts = []
    for head, (a, b, c) in enumerate(
        zip(q.chunk(heads, dim=-1), k.chunk(heads, dim=-1), v.chunk(heads, dim=-1), strict=True)
    ):
        scores = a @ b.transpose(1, 2) / a.shape[-1] ** 0.5
        parts.append((scores if bias is None else scores + bias[head]).softmax(dim=-1) @ c)
    return torch.cat(parts, dim=-1)


def _linear(state: State, name: str, x: Tensor) -> Tensor:
    product = x @ state[f"{name}.weight"].T
    return product + state[f"{name}.bias"] if f"{name}.bias" in state else product


def _norm(state: State, name: str, x: Tensor, eps: float) -> Tensor:
    """Layer norm over the last axis."""
    centred = x - x.mean(dim=-1, keepdim=True)
    scaled = centred / (centred.square().mean(dim=-1, keepdim=True) + eps).sqrt()
    return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]
