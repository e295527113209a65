"""TransMIL's pool: the method in plain numpy, tile by tile, and what torchmil has of it."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from lamella.mil.heads import Head
from lamella.mil.transmil import NystromAttention, TransformerPool, find_pseudo_inverse

Array = NDArray[np.float64]


def make_pool(dim: int = 16, n_heads: int = 2) -> TransformerPool:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        pool = TransformerPool(dim, n_heads, 0.0).eval()
        nn.init.normal_(pool.class_token)  # its first value is nearly nothing
    return pool


def make_tiles(n_tiles: int, dim: int = 16) -> torch.Tensor:
    return torch.randn(n_tiles, dim, generator=torch.Generator().manual_seed(n_tiles))


def softmax(logits: Array) -> Array:
    exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponents / exponents.sum(axis=-1, keepdims=True)


def normalise(tokens: Array, layer: nn.Module) -> Array:
    weight, bias = (parameter.detach().double().numpy() for parameter in layer.parameters())
    centred = tokens - tokens.mean(axis=1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5) * weight + bias


def attend(tokens: Array, layer: NystromAttention) -> tuple[Array, Array]:
    """Return what is added to each token, and the attention of all to all: every padded token there, head by head."""
    weights = {name: weight.detach().double().numpy() for name, weight in layer.named_parameters()}
    n_tokens, dim = tokens.shape
    marks, n_heads = layer.n_landmarks, layer.n_heads
    width, length = dim // n_heads, math.ceil(n_tokens / marks)
    before = marks * length - n_tokens
    projected = np.concatenate([np.zeros((before, dim)), tokens]) @ weights["project.weight"].T
    merged, parts, whole = np.zeros((len(projected), dim)), [], []
    for head in range(n_heads):
        part = slice(head * width, (head + 1) * width)
        query, key, value = (projected[:, number * dim : (number + 1) * dim][:, part] for number in range(3))
        query = query / math.sqrt(width)
        query_marks, key_marks = (rows.reshape(marks, length, width).mean(axis=1) for rows in (query, key))
        first, middle, last = (
            softmax(left @ right.T)
            for left, right in ((query, key_marks), (query_marks, key_marks), (query_marks, key))
        )
        parts.append((first, middle, last, value))
    columns, rows = (max(middle.sum(axis=axis).max() for _, middle, _, _ in parts) for axis in (0, 1))
    for head, (first, middle, last, value) in enumerate(parts):
        inverse = middle.T / (columns * rows)
        one = np.eye(marks)
        for _ in range(6):
            product = middle @ inverse
            inverse = 0.25 * inverse @ (13 * one - product @ (15 * one - product @ (7 * one - product)))
        whole.append(first @ inverse @ last)
        added = whole[-1] @ value
        kernel = weights["convolve.weight"][head, 0, :, 0]
        for place in range(len(value)):
            for step, weight in enumerate(kernel):
                other = place + step - len(kernel) // 2
                if 0 <= other < len(value):
                    added[place] += weight * value[other]
        merged[:, head * width : (head + 1) * width] = added
    merged = merged @ weights["merge.0.weight"].T + weights["merge.0.bias"]
    return merged[before:], np.mean(whole, axis=0)[before:, before:]


def convolve(tokens: Array, side: int, pool: TransformerPool) -> Array:
    """Return the tokens of a square with three depthwise convolutions added, place by place."""
    square, added = tokens.reshape(side, side, -1), tokens.reshape(side, side, -1).copy()
    for layer in (pool.square.wide, pool.square.middle, pool.square.narrow):
        weight, bias = (parameter.detach().double().numpy() for parameter in layer.parameters())
        half = weight.shape[-1] // 2
        for row in range(side):
            for column in range(side):
                added[row, column] += bias
                for down in range(-half, half + 1):
                    for right in range(-half, half + 1):
                        if 0 <= row + down < side and 0 <= column + right < side:
                            near = square[row + down, column + right]
                            added[row, column] += weight[:, 0, down + half, right + half] * near
    return added.reshape(len(tokens), -1)


def pool_in_loops(tiles: Array, pool: TransformerPool) -> tuple[Array, Array]:
    """Return the class token after algorithm 2 of the paper, and its attention."""
    side = math.ceil(math.sqrt(len(tiles)))
    n_copies = side * side - len(tiles)
    token = pool.class_token.detach().double().numpy()
    tokens = np.concatenate([token, tiles, tiles[:n_copies]])
    tokens = tokens + attend(normalise(tokens, pool.norms[0]), pool.layers[0])[0]  # type: ignore[arg-type]
    tokens = np.concatenate([tokens[:1], convolve(tokens[1:], side, pool)])
    added, looked = attend(normalise(tokens, pool.norms[1]), pool.layers[1])  # type: ignore[arg-type]
    attention = looked[0, 1 : len(tiles) + 1].copy()
    attention[:n_copies] += looked[0, len(tiles) + 1 :]
    attention = np.maximum(attention, 0)
    return normalise(tokens + added, pool.last)[0], attention / attention.sum()


@pytest.mark.parametrize("n_tiles", [1, 2, 5, 9, 23, 70])
def test_it_is_the_papers_method(n_tiles: int) -> None:
    pool, tiles = make_pool(), make_tiles(n_tiles)
    with torch.no_grad():
        vector, attention = pool(tiles[None], torch.ones(1, n_tiles, dtype=torch.bool))
    wanted, looked = pool_in_loops(tiles.double().numpy(), pool)
    np.testing.assert_allclose(vector[0].numpy(), wanted, atol=2e-5)
    np.testing.assert_allclose(attention[0].numpy(), looked, atol=2e-5)


def test_landmarks_of_nothing_are_counted_exactly() -> None:
    full = torch.randn(1, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    full[:, :, :3], full[:, :3] = full[:, :, :1], full[:, :1]  # the first three alike
    full = full.softmax(dim=-1)
    counts = torch.tensor([3.0, 1, 1, 1], dtype=torch.float64)
    kept = full[:, 2:, 2:] * counts
    whole = find_pseudo_inverse(full, torch.ones(6, dtype=torch.float64))
    torch.testing.assert_close(find_pseudo_inverse(kept, counts), whole[:, 2:, 2:] * counts)


@pytest.mark.parametrize(("n_tiles", "dim", "n_heads"), [(5, 16, 2), (49, 16, 2), (70, 16, 4), (36, 512, 8)])
def test_it_is_torchmils_with_the_same_weights(n_tiles: int, dim: int, n_heads: int) -> None:
    """Torchmil leaves out the convolution of the values and the layer that merges heads: they are set to do nothing."""
    models = pytest.importorskip("torchmil.models")
    pool = make_pool(dim, n_heads)
    ours = Head(nn.Sequential(nn.Linear(7, dim), nn.ReLU()), pool, dim, 2).eval()
    theirs = models.TransMIL((7,), att_dim=dim, n_heads=n_heads, feat_ext=ours.embed).eval()
    pairs = [(theirs.pos_layer.proj, pool.square.wide), (theirs.pos_layer.proj1, pool.square.middle)]
    pairs += [(theirs.pos_layer.proj2, pool.square.narrow), (theirs.norm, pool.last)]
    with torch.no_grad():
        theirs.cls_token.copy_(pool.class_token)
        for number, layer in enumerate(theirs.layers):
            own = pool.layers[number]
            assert isinstance(own, NystromAttention)
            pairs += [(layer.norm1, pool.norms[number]), (layer.att_module.qkv_nn, own.project)]
            nn.init.zeros_(own.convolve.weight)
            nn.init.eye_(own.merge[0].weight)
            nn.init.zeros_(own.merge[0].bias)
        for module, own_module in pairs:
            module.load_state_dict(own_module.state_dict())
        theirs.classifier.load_state_dict({name: w[1:] - w[:1] for name, w in ours.classify.state_dict().items()})
        bag = make_tiles(n_tiles, 7)[None]
        logits, attention = ours(bag, torch.ones(1, n_tiles, dtype=torch.bool))
        logit, looked = theirs(bag, return_att=True)
    assert float(logits[0, 1] - logits[0, 0]) == pytest.approx(float(logit), abs=1e-5)
    if math.isqrt(n_tiles) ** 2 == n_tiles:  # torchmil leaves the copies that fill a square out
        cut = looked.clamp(min=0)
        torch.testing.assert_close(attention, cut / cut.sum(), rtol=0, atol=1e-5)
